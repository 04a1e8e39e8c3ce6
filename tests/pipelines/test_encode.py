"""`rushes encode`: every clip accounted for, nothing done twice, and what cannot be done said before it begins."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rich.console import Console  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rushes.curation.manifest import ManifestError, Run, open_run  # noqa: E402
from rushes.curation.sections import Engine  # noqa: E402
from rushes.model.data import Shape  # noqa: E402
from rushes.model.latents import Settings  # noqa: E402
from rushes.model.train import train_tae  # noqa: E402
from rushes.pipelines.cli.main import app  # noqa: E402
from rushes.pipelines.encode import Options, SetPlan, encode, plan_table  # noqa: E402
from tests.model.small_run import make_film, make_run, row, tae_recipe, two_views  # noqa: E402
from tests.pipelines.commands import at_work, descendants, start, wait_until  # noqa: E402

torch.set_num_threads(1)
CLIPS, BROKEN, NOWHERE = 12, 4, 7  # clips; the one of a broken file, and the one that has none


@dataclass
class Encoded:
    """A run with a broken clip, encoded without interruption."""

    source: str
    tae: str
    run: Run
    notes: list[str] = field(default_factory=list)

    def into(self, root: Path, **changed) -> tuple[Run, list[str]]:
        options = Options("float16", stills=2, clips_per_file=1, engine=Engine(num_cpus=2), **changed)
        return encode(two_views(), [self.source], self.tae, str(root), [], options, Console(file=io.StringIO()))

    def command(self, root: Path, *more: str) -> list[str]:
        recipe = Path(self.source) / "dit.yaml"
        recipe.write_text(two_views().to_yaml())
        options = ["--stills", "2", "--clips-per-file", "1", "--cpus", "1", *more]
        return ["encode", self.source, "--tae", self.tae, "-r", str(recipe), "-o", str(root), *options]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> Encoded:
    folder = tmp_path_factory.mktemp("encode")
    source = folder / "run"
    source.mkdir()
    film = make_film(source)
    (source / "broken.mp4").write_bytes(film.read_bytes()[:3000])
    media = {BROKEN: "broken.mp4", NOWHERE: None}
    rows = [row(n, media.get(n, "film.mp4")) for n in range(CLIPS)]
    make_run(source, rows, [row(12, "film.mp4")])
    assert train_tae(tae_recipe(steps=1), [str(source)], str(folder / "tae"), lambda _: None)
    found = Encoded(str(source), str(folder / "tae"), None)
    found.run, found.notes = found.into(folder / "out")
    return found


def files(root: Path) -> dict[str, tuple[int, int]]:
    found = (root / "latents").rglob("*.parquet")
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_every_row_is_in_the_sets_table_or_in_failures(encoded):
    before, after = open_run(encoded.source).table("sets/pretrain-256"), encoded.run.table("sets/pretrain-256")
    failures = encoded.run.table("failures").to_pylist()
    assert [f["clip_id"] for f in failures] == [f"{n:020x}" for n in (BROKEN, NOWHERE)]
    assert "broken.mp4" in failures[0]["error"] and "no media file" in failures[1]["error"]
    kept = [entry for n, entry in enumerate(before.to_pylist()) if n not in (BROKEN, NOWHERE)]
    assert after.drop_columns(["media"]).to_pylist() == [{k: v for k, v in e.items() if k != "media"} for e in kept]
    assert after["media"].is_valid().to_pylist() == [True] * (CLIPS - 2)
    facts = encoded.run.record["encoding"]
    assert facts["sets"]["pretrain-256"] | {"buckets": None} == {
        "rows": CLIPS, "encoded": CLIPS - 2, "failed": 2, "in_no_bucket_of_a_stage": 0, "buckets": None,
    }  # fmt: skip
    assert any("2 clips could not be encoded" in note for note in encoded.notes)


def test_run_json_says_what_the_latents_are(encoded):
    record = encoded.run.record
    facts = record["encoding"]
    assert len(facts["settings"]["tae"]) == 16 and facts["settings"]["precision"] == "float16"
    assert facts["text_widths"] == {"bytes": 16} and facts["settings"]["text"][0]["name"] == "bytes"
    assert facts["recipe"]["hash"] and facts["runs"][0][0] == encoded.source
    shape = {"frames": 16, "height": 32, "width": 64}
    latents = {"48x16x16": 1, "48x16x8": 1, "48x16x1": 2}
    assert facts["sets"]["pretrain-256"]["buckets"] == [{"bucket": "16x9/4-8s", "shape": shape, "latents": latents}]
    assert facts["sets"]["validation"]["buckets"][0]["latents"] == {"48x16x16": 1, "48x16x8": 1}
    assert len(record["latent_mean"]) == len(record["latent_std"]) == 16 and min(record["latent_std"]) > 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_killed_in_the_middle_it_ends_with_the_same_tables_and_repeats_nothing(encoded, tmp_path):
    root = tmp_path / "out"
    process = start([sys.executable, "-m", "rushes.pipelines.cli", *encoded.command(root)])
    assert wait_until(lambda: len(files(root)) >= 2 or process.poll() is not None)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    assert wait_until(lambda: not at_work(below), every_s=0.1)
    left = files(root)
    assert 2 <= len(left) < len(files(Path(encoded.run.root)))
    with pytest.raises(ManifestError, match="holds no published run"):
        open_run(str(root))
    run, _ = encoded.into(root)
    assert {name: files(root)[name] for name in left} == left
    assert files(root).keys() == files(Path(encoded.run.root)).keys()
    assert all(run.table(name).equals(encoded.run.table(name)) for name in encoded.run.tables)
    changing = {"created", "snapshot", "history", "times_s", "tables"}
    same = [{k: v for k, v in r.record.items() if k not in changing} for r in (run, encoded.run)]
    assert same[0] == same[1]
    one, other = (sorted((Path(r.root) / "latents").rglob("*.parquet")) for r in (run, encoded.run))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_a_clip_that_failed_is_tried_again_when_asked_and_the_others_are_left_alone(encoded):
    root, broken = Path(encoded.run.root), Path(encoded.source) / "broken.mp4"
    damaged, before = broken.read_bytes(), files(root)
    broken.write_bytes((Path(encoded.source) / "film.mp4").read_bytes())
    try:
        run, _ = encoded.into(root, retry_failed=True)
    finally:
        broken.write_bytes(damaged)
    assert run.table("failures")["clip_id"].to_pylist() == [f"{NOWHERE:020x}"]
    assert run.table("sets/pretrain-256").num_rows == CLIPS - 1
    after = files(root)
    assert before.items() <= after.items() and len(after) == len(before) + 1
    assert Run(str(root), encoded.run.record).table("failures").num_rows == 2  # the snapshot before stays readable


def said(encoded: Encoded, root: Path, *more: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, encoded.command(root, *more))
    return result.exit_code, " ".join((result.output + str(result.exception or "")).split())


def test_a_dry_run_says_what_would_be_stored_and_stores_nothing(encoded, tmp_path):
    code, text = said(encoded, tmp_path / "out", "--dry-run")
    assert code == 0 and "pretrain-256" in text and "1 x 48x16x16, 1 x 48x16x8, 2 x 48x16x1" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more, words",
    [
        (["--gpus", "1"], "--gpus 1 asks for more GPUs than Ray sees (0)"),
        (["--precision", "float8"], "--precision is one of float16, bfloat16, float32"),
        (["--set-name", "finetune"], "No stage of the recipe reads the set 'finetune'; they read: pretrain-256."),
        (["--set", "text.encoders=[{name: ul2}]"], "needs transformers, which is not installed"),
    ],
)
def test_what_cannot_be_encoded_is_a_sentence(encoded, tmp_path, more, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # as where it is not installed
    code, text = said(encoded, tmp_path / "out", *more)
    assert code and words in text
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_curated_run_is_not_overwritten(encoded):
    code, text = said(encoded, Path(encoded.source))
    assert code == 2 and "choose another --output" in text
    assert "encoding" not in open_run(encoded.source).record


@pytest.mark.parametrize(
    "command, words",
    [
        (["funnel"], "is not a curated run; name the one that it was made from"),
        (["judge", "--dry-run"], "is not a curated run; name the one that it was made from"),
        (["evaluate", "--tae", "any"], "holds latents, not videos; name the runs it was made from"),
    ],
)
def test_what_wants_a_curated_run_or_videos_says_that_these_are_latents(encoded, command, words):
    result = CliRunner().invoke(app, [command[0], encoded.run.root, *command[1:]])
    assert result.exit_code and words in " ".join((result.output + str(result.exception or "")).split())


@pytest.mark.parametrize("width", [40, 120])
def test_a_plan_names_a_bucket_once_whatever_lengths_its_clips_have(width):
    clips, stored = [Shape(frames, 80, 128) for frames in (64, 96)], [Shape(16, 80, 128)]
    buckets = {("16x9/4-8s", clip.frames): (clip, stored, [np.arange(clip.frames)]) for clip in clips}
    settings = Settings("tae", [])
    table = plan_table({"pretrain-256": SetPlan(None, True, buckets)}, settings, channels=8, width=width)
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    said = console.file.getvalue()
    assert said.count("16x9/4-8s") == 1 and "160" in said and "…" not in said
