"""The command line: what a person gets wrong is answered with one sentence and exit code 2, never with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rushes.pipelines.cli import main as cli
from tests.conftest import QUICK
from tests.pipelines.commands import curate_command, finish

COMMANDS = ("curate", "judge", "funnel", "why", "report", "recipe", "demo")
SMALL_DISK_MB, LARGE_DISK_MB = 3, 64  # of a disk that a run fills, and of the same after it was given room


def test_every_command_explains_itself(rushes):
    for command in COMMANDS:
        code, said, _ = rushes(command, "--help")
        assert code == 0 and "Usage" in said, command
    _, said, _ = rushes("--help")
    assert all(command in said for command in COMMANDS)


def test_inputs_that_name_nothing_are_refused(refused, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.md").write_text("no footage here")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    out = tmp_path / "run"
    assert "holds no videos" in refused("curate", "-i", tmp_path / "empty", "-o", out)
    assert "1 files have no video's suffix" in refused("curate", "-i", tmp_path / "notes", "-o", out)
    assert "no such file or folder" in refused("curate", "-i", tmp_path / "nowhere", "-o", out)
    assert "nothing matches" in refused("curate", "-i", tmp_path / "*.mp4", "-o", out)
    assert "names no footage" in refused("curate", "-i", tmp_path / "empty.txt", "-o", out)
    assert "cannot be read as a list" in refused("curate", "-i", tmp_path / "bad.parquet", "-o", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ("motion.vmaf_mim=3", "Did you mean 'motion.vmaf_min'?"),
        ("vmaf_min=3", "Did you mean 'motion.vmaf_min'?"),
        ("curriculum.sets.pretrain-256.ruels={}", "Did you mean 'curriculum.sets.pretrain-256.rules'?"),
        ("motion.vmaf_min=fast", "Recipe key 'motion.vmaf_min': 'fast' will not do"),
        ("visual.border_max=3", "Recipe key 'visual.border_max': 3 will not do"),
        ("scenes=7", "Recipe key 'scenes': 7 will not do"),
        ("motion.vmaf_min", "--set wants key=value"),
        ("meters=[nowhere:Meter]", "'nowhere:Meter' cannot be imported"),
        ("meters=[os:nothing]", "'os:nothing' cannot be imported"),
        ("meters=[os:system]", "'os:system' is no meter"),
        ("formats=[hlss]", "did you mean 'hls'?"),
        ("curriculum.sets={../../x: {}}", "the name '../../x' of a set"),
        ("curriculum.sets={validation: {}}", "is the set of what is held out"),
        ("curriculum.sets.pretrain-256.rules={motion.vmaf: 2}", "has no rule 'motion.vmaf'"),
        ("rules={rednes: {min: 1}}", "'rednes', which no meter writes"),
        ("visual.text_max=0.95", "raise both"),
        ("curriculum.sets.pretrain-265.rules={}", "did you mean 'pretrain-256'?"),
        ("rules={vmaf_motion: {min: 9, max: 1}}", "No clip can pass both rules.vmaf_motion.min=9 and rules.vmaf_mo"),
    ],
)
def test_a_wrong_recipe_key_is_refused_before_any_work(refused, bunny_video, tmp_path, wrong, answer):
    words = ("curate", "-r", "demo", "-i", bunny_video, "-o", tmp_path / "run", "--set", wrong)
    assert answer in refused(*words)
    assert answer in refused(*words, "--dry-run"), "a dry run refuses the same"
    assert not (tmp_path / "run").exists()


def test_without_an_ffmpeg_that_runs_nothing_is_begun(refused, bunny_video, tmp_path, monkeypatch):
    words = ("curate", "-r", "demo", "-i", bunny_video, "-o", tmp_path / "run")
    for program in (tmp_path / "nowhere", "/bin/false"):
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
        assert "unset IMAGEIO_FFMPEG_EXE" in refused(*words) and not (tmp_path / "run").exists()


def test_an_unknown_recipe_is_answered_with_the_nearest(refused, bunny_video, tmp_path):
    assert "did you mean 'demo'?" in refused("curate", "-r", "dmeo", "-i", bunny_video, "-o", tmp_path / "run")
    (tmp_path / "bad.yaml").write_text("motion: [unclosed")
    assert "not valid YAML" in refused("curate", "-r", tmp_path / "bad.yaml", "-i", bunny_video, "-o", tmp_path / "run")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    assert "must be a mapping" in refused("recipe", tmp_path / "list.yaml")


def test_an_output_that_cannot_be_written_is_refused(refused, bunny_video, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in ("/proc/run", tmp_path / "file" / "below"):
        assert "cannot be written" in refused("curate", "-r", "demo", "-i", bunny_video, "-o", out)
    assert "is a file, not a folder" in refused("curate", "-r", "demo", "-i", bunny_video, "-o", tmp_path / "file")
    assert "pyarrow.fs" in refused("curate", "-r", "demo", "-i", bunny_video, "-o", "nosuch://bucket/run")


def test_a_dry_run_refuses_the_outputs_that_a_run_refuses(refused, bunny_video, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in ("/proc/run", tmp_path / "file" / "below", tmp_path / "file", "nosuch://bucket/run", "https://a/b"):
        words = ("curate", "-r", "demo", "-i", bunny_video, "-o", out)
        assert refused(*words) and refused(*words, "--dry-run")


def test_a_set_of_images_has_a_name_that_stays_inside_the_run(refused, tmp_path):
    for name in ("../x", "/x", "validation", "a/b"):
        assert "--name" in refused("images", "-i", tmp_path, "-o", tmp_path / "run", "--name", name)


def test_the_version_is_printed(rushes):
    from importlib.metadata import version

    assert rushes("--version")[:2] == (0, f"rushes {version('rushes')}\n")


def test_the_demo_without_its_footage_says_what_to_install(refused, tmp_path, monkeypatch):
    from rushes.pipelines.demo import film

    monkeypatch.setattr(film.importlib.util, "find_spec", lambda _: None)
    assert "pip install 'rushes[demo]'" in refused("demo", tmp_path / "run")


def test_a_folder_without_a_run_is_answered_by_every_command_that_reads_one(refused, tmp_path):
    for words in (["funnel"], ["report"], ["judge"], ["funnel", "--json"]):
        assert "no published run" in refused(words[0], tmp_path / "nothing", *words[1:])
    assert "no published run" in refused("why", tmp_path / "nothing", "abc")
    (tmp_path / "run.json").write_text('{"schema_version": 1, "tab')
    assert "run.json is damaged" in refused("funnel", tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    assert "manifest version 99" in refused("funnel", tmp_path)


def test_a_dry_run_names_the_inputs_and_writes_nothing(rushes, bunny_video, tmp_path):
    code, said, _ = rushes("curate", "-r", "demo", "-i", bunny_video, "-o", tmp_path / "run", "--dry-run")
    assert code == 0 and "1 input with" in said and "bunny.mp4" in said.replace("\n", "")
    assert not (tmp_path / "run").exists()


def test_the_commands_that_read_a_run_answer(rushes, curated, tmp_path):
    code, said, _ = rushes("funnel", curated.root, "--json")
    assert code == 0 and json.loads(said)
    clip = curated.run.table("clips")["clip_id"][0].as_py()
    for words in (("funnel", curated.root), ("why", curated.root, clip), ("recipe", "moviegen"), ("recipe",)):
        assert rushes(*words)[0] == 0
    assert rushes("report", curated.root, "--html", tmp_path / "page.html")[0] == 0
    assert (tmp_path / "page.html").stat().st_size > 1000


def test_judge_shows_the_new_funnel_and_a_dry_run_leaves_the_old_one(rushes, curated):
    before = (curated.root / "run.json").read_bytes()
    code, said, _ = rushes("judge", curated.root, "--set", "motion.vmaf_min=2.5", "--dry-run")
    assert code == 0 and "nothing was published" in said
    assert (curated.root / "run.json").read_bytes() == before


def test_the_library_stands_alone():
    """Importing all of curation brings in no engine, no pipelines and no trainer."""
    code = (
        "import sys, pkgutil, importlib, rushes.curation as room\n"
        "for found in pkgutil.walk_packages(room.__path__, 'rushes.curation.'): importlib.import_module(found.name)\n"
        "print([name for name in ('ray', 'torch', 'rushes.pipelines', 'rushes.model') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if os.name == "posix" else None
    if done is None or done.returncode:
        pytest.skip("no small disk can be mounted here (that needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.heavy
def test_a_full_disk_is_one_sentence_and_with_room_the_same_command_finishes(small_disk, footage_folder):
    folder, _ = footage_folder
    command = curate_command([str(folder / "hard_cuts.mp4"), str(folder / "dissolve.mp4")], small_disk / "run")
    code, _, said = finish(command)
    assert code == 2, said
    assert "No space is left" in said and "start the same command again" in said
    assert len(said.strip().splitlines()) == 1, said
    assert not (small_disk / "run" / "run.json").exists()
    subprocess.run(["mount", "-o", f"remount,size={LARGE_DISK_MB}m", str(small_disk)], check=True)
    code, _, said = finish(command)
    assert code == 0, said
    assert (small_disk / "run" / "run.json").exists()


def test_the_quick_overrides_of_these_tests_are_valid_keys(rushes):
    words = [word for key in QUICK for word in ("--set", key)]
    assert rushes("recipe", "demo", *words)[0] == 0
    assert Path(cli.__file__).name == "main.py"
