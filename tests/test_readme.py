"""What the README and the manuals say can be typed, and what the README says is done."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest
import typer

from rushes.curation import recipe, rules
from rushes.curation.analyze import Analyzer
from rushes.curation.video.decode import probe
from rushes.pipelines.cli.main import app
from tests.footage import make_video, pool  # noqa: F401 - a fixture

README = Path(__file__).parent.parent / "README.md"
MANUALS = [README.parent / "docs" / name for name in ("training.md", "finetune.md")]


def python_block(holding: str) -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    return next(block for block in blocks if holding in block)


def test_the_meter_of_the_readme_writes_a_column_that_a_rule_can_judge(tmp_path, monkeypatch):
    example = python_block("class Flicker")
    assert len([line for line in example.splitlines() if line.strip()]) <= 22
    (tmp_path / "flicker.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "flicker", raising=False)
    made = recipe.build({}, ["meters=[flicker:Flicker]", "rules={flicker: {max: 0.0001}}"])
    clips = Analyzer(made)(probe(str(make_video(tmp_path / "film.mp4", seconds=4)))).clips
    assert pc.min(clips["flicker"]).as_py() > 0
    loose = recipe.build({"scenes": {"duration_min_s": 0}, "visual": {"size_min": 1}}, ["meters=[flicker:Flicker]"])
    strict = recipe.build(
        {"scenes": {"duration_min_s": 0}, "visual": {"size_min": 1}, "motion": {"vmaf_min": None, "mv_min": None}},
        ["meters=[flicker:Flicker]", "rules={flicker: {max: 0.0001}}", "motion.mv_max=null", "motion.static_max=null"],
    )
    assert "rules.flicker.max" not in rules.judge(clips, loose, "analyze")
    assert set(rules.judge(clips, strict, "analyze")) == {"rules.flicker.max"}


COMMAND = re.compile(r"^(?:\.venv/bin/)?rushes (.+)$")


def blocks_of_shell() -> list[str]:
    """The README's shell blocks that a newcomer types, in order; what CI itself runs is left out."""
    text = README.read_text(encoding="utf-8")
    return re.findall(r"(?<!run by CI -->\n)```bash\n(.*?)```", text, re.S)


def commands() -> list[str]:
    """Of the README and of the manuals; lines that end in a backslash go on."""
    pages = [page.read_text(encoding="utf-8") for page in MANUALS]
    blocks = blocks_of_shell() + [block for page in pages for block in re.findall(r"```bash\n(.*?)```", page, re.S)]
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [found[1] for line in lines if (found := COMMAND.match(line))]


@pytest.mark.parametrize("words", commands())
def test_every_command_of_the_pages_is_one_that_the_program_knows(words):
    """Parsed as the program does, its options and arguments with it; nothing is run."""
    command = typer.main.get_command(app)
    context = command.make_context("rushes", ["--help"], resilient_parsing=True)
    arguments = shlex.split(words.split("   #")[0], comments=True)
    while hasattr(command, "get_command"):
        name = arguments.pop(0)
        command, parent = command.get_command(context, name), context
        assert command is not None, name
        context = type(parent)(command, info_name=name, parent=parent)
    command.make_context(command.name, arguments, parent=context.parent)


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_a_newcomer_who_types_what_the_readme_says_gets_from_footage_to_samples(pool, tmp_path):  # noqa: F811
    """Block after block in one shell, on films of the demo; trainings take two steps."""
    (tmp_path / "footage").mkdir()
    (tmp_path / "pictures").mkdir()
    for film in pool:
        shutil.copyfile(film.path, tmp_path / "footage" / film.path.name.replace("landscape", "interview"))
    cv2.imwrite(str(tmp_path / "pictures" / "noise.png"), np.random.default_rng(0).integers(0, 255, (300, 400, 3)))
    (tmp_path / "flicker.py").write_text(python_block("class Flicker"))
    typed = re.sub(r"steps=\d+", "steps=2", "\n".join(blocks_of_shell()))
    typed = typed.replace('export PATH="$PWD/.venv/bin:$PATH"', "")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", typed], cwd=tmp_path, text=True, capture_output=True, check=False,
        env={**os.environ, "HOME": str(tmp_path), "PATH": path}, timeout=1100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert list((tmp_path / "runs" / "samples").glob("*.mp4"))
