"""What a command is given is looked at first: wrong paths and names are refused before anything heavy is imported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, open_run
from rushes.curation.nearest import meant, path_meant
from rushes.pipelines.cli import given
from tests.pipelines.synthetic_run import make_run

BEFORE_IMPORTS_S = 20.0  # of a machine with four times as many processes as cores; torch's import alone takes longer


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run, the outputs of two trainings (their meta alone), files that are neither, and an empty folder."""
    top = tmp_path_factory.mktemp("given")
    make_run(top / "runs" / "first", clips=60)
    for model in ("tae", "dit"):
        step = top / "runs" / model / "checkpoints" / "step-00000003"
        step.mkdir(parents=True)
        (step / "meta.json").write_text(json.dumps({"model": model, "step": 3, "config": {}, "files": {}}))
    (top / "notes.txt").write_text("no run\n")
    (top / "empty").mkdir()
    return top


@pytest.fixture
def refused_early(refused, folder, monkeypatch):
    """`refused`, in that folder, where importing the trainer is an error."""

    def never(*_: object) -> None:
        raise AssertionError("the trainer was imported before what was given was looked at")

    monkeypatch.chdir(folder)
    monkeypatch.setattr(given, "loading", never)
    return refused


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("sample --dit runs/dti --tae runs/tae -p x", "there is no such folder; did you mean 'runs/dit'?"),
        ("sample --dit runs/tae --tae runs/tae -p x", "is a checkpoint of a tae, not of a dit"),
        ("sample --dit runs/dit --tae runs/first -p x", "runs/first holds no checkpoint: it is a run"),
        ("sample --dit runs/dit --tae notes.txt -p x", "notes.txt holds no checkpoint: it is a file"),
        ("sample --dit runs/dit --tae runs/tae -p x -o notes.txt", "is a file, not a folder; choose another output"),
        ("sample --dit runs/dit --tae runs/tae -p x --image no.png", "there is no such file"),
        ("evaluate runs/frist --tae runs/tae", "there is no such folder; did you mean 'runs/first'?"),
        ("evaluate runs/first --tae empty --set-name finetune", "empty holds no checkpoint: name a training's output"),
        ("evaluate runs/first --tae runs/tae --set-name pretrain256", "did you mean 'pretrain-256'?"),
        ("encode runs/first --tae runs/dit -o runs/latents", "is a checkpoint of a dit, not of a tae"),
        ("encode runs/first --tae runs/tae -o x --set-name pretrain-265", "did you mean 'pretrain-256'?"),
        ("encode runs/first --tae runs/tae -o notes.txt/x", "is no folder; choose another output"),
        ("average runs/dit runs/dot -o runs/mean", "did you mean 'runs/dit'?"),
        ("average runs/dit runs/dit -o notes.txt", "is a file, not a folder"),
        ("average runs/dit runs/dit -o /proc/x", "/proc/x cannot be written: No such file or directory in /proc"),
        ("average runs/dit -o runs/mean --weight 1 --weight 2", "once for each checkpoint: 1 times, not 2"),
        ("export-weights empty -o x", "empty holds no checkpoint"),
        ("export-weights runs/tae -o x --precision float8", "--precision is one of float16, bfloat16, float32"),
        ("train tae runs -o x", "it is a folder of runs; name one of them: runs/first"),
        ("train tae notes.txt -o x", "it is a file; name the folder of a run"),
        ("train tae runs/first -o x --set stages.joitn.steps=3", "no stage 'joitn'; did you mean 'joint'?"),
        ("train dit runs/first --tae nothing -o x", "nothing holds no checkpoint: there is no such folder"),
        ("preview runs/first -r dit-tiny -o empty", "empty is a folder; name a file in it"),
        ("report runs/first --html runs", "runs is a folder; name a file in it"),
        ("report runs/first --tae runs/dit", "is a checkpoint of a dit, not of a tae"),
        ("ablate runs/first -o x --set-name finetnue", "did you mean 'finetune'?"),
        ("ablate runs/first -o notes.txt", "is a file, not a folder"),
        ("funnel runs/tae", "it is the output of a training; name the run that it was trained on"),
        ("funnel runs/first/clips", "it lies in the run runs/first"),
        ("funnel runs/first/snapshots/{snapshot}", "is a snapshot of the run runs/first: name the run"),
        (
            "judge runs/first -o /proc/x",
            "/proc/x cannot be written: No such file or directory in /proc; choose another",
        ),
        ("images -i empty -o notes.txt", "is a file, not a folder; choose another output"),
        ("images --clips runs/frist -o x", "did you mean 'runs/first'?"),
        ("finetune publish runs/first -o notes.txt", "is a file, not a folder"),
        (
            "finetune status runs/first --queue x",
            "has no queue 'x'. `rushes finetune balance` makes one.",
        ),
        ("near runs/first --clip zzz", "no semantic vector"),
        ("fit camera-motion -i empty", "--input empty holds no video or photograph"),
        ("fit quality -i emtpy", "There is no file or folder emtpy; did you mean 'empty'?"),
        ("fit quality -o runs", "runs is a folder; name a file in it"),
        ("compare rnus x", "rnus is no folder; did you mean 'runs'?"),
        ("compare runs x", "There is no comparison 'x'; `rushes compare RUNS NAME --a MODEL=FOLDER"),
        ("token viewer me --tokens runs", "runs is a folder; name a file in it"),
        ("token viewer me --tokens notes.txt/x", "is no folder"),
        ("serve rnus", "rnus is no folder; did you mean 'runs'?"),
        ("serve runs --state notes.txt", "--state, where the service keeps its jobs and reviews: "),
        ("judge runs/first --set motion.mv_min=9 --set motion.mv_max=1 --dry-run", "No clip can pass both motion.mv_"),
    ],
)
def test_what_is_wrong_is_said_before_the_trainer_is_imported(refused_early, folder, words, answer):
    snapshot = open_run(str(folder / "runs" / "first")).snapshot
    assert answer in refused_early(*words.format(snapshot=snapshot).split())
    assert not (folder / "x").exists() and not (folder / "rnus").exists()


def test_a_refusal_takes_as_long_as_python_and_arrow_take_to_start(folder):
    code = "import sys; from rushes.pipelines.cli.main import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "sample", "--dit", "nowhere", "--tae", "nowhere", "-p", "x"],
        cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout.split() == ["False"], done.stderr
    assert time.monotonic() - began < BEFORE_IMPORTS_S


def test_a_damaged_record_is_named_with_what_mends_it(folder, tmp_path):
    for text, said in (("[1]", "holds no mapping"), ('{"schema_version": 1}', "lists no tables")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ManifestError, match=said):
            open_run(str(tmp_path))


def test_a_table_that_is_gone_is_a_sentence_for_every_command_that_reads_it(refused, folder, tmp_path):
    shutil.copytree(folder / "runs" / "first", tmp_path / "hurt", symlinks=True)
    run = open_run(str(tmp_path / "hurt"))
    for file in run.files("clips"):
        Path(file).unlink()
    for words in (["judge", "--dry-run"], ["funnel"], ["report"], ["concepts"]):
        said = refused(words[0], tmp_path / "hurt", *words[1:])
        assert "rushes verify" in said and "[Errno" not in said


def test_a_run_that_has_just_begun_is_unfinished(refused, tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / ".lock").write_text("")
    assert "its curation has not finished; run the same `rushes curate` again" in refused("judge", tmp_path / "begun")


def test_the_nearest_path_mends_every_part(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert path_meant("rnus/frist") == os.path.join("runs", "first")
    assert path_meant(str(folder / "rusn" / "first")) == str(folder / "runs" / "first")
    assert path_meant("nothing/like/it") is None and path_meant("s3://bucket/run") is None
    assert meant("b", ["xyz"], "sets") == "sets: xyz." and meant("b", [], "sets") == "sets: none."


def test_a_run_of_an_older_recipe_names_the_key_and_the_two_ways_out(refused, folder, tmp_path):
    run = open_run(str(folder / "runs" / "first"))
    record = {key: run.record[key] for key in ("recipe", "created", "versions", "times_s", "warnings")}
    resolved = {**record["recipe"]["resolved"], "visual": {**record["recipe"]["resolved"]["visual"], "gone_max": 1}}
    tables = {name: run.table(name) for name in run.tables}
    manifest.publish(str(tmp_path / "old"), tables, {**record, "recipe": {**record["recipe"], "resolved": resolved}})
    said = refused("funnel", tmp_path / "old")
    assert "no key 'visual.gone_max'" in said and "another release" in said and "Curate it again" in said
