"""Judging again: new thresholds on stored signals give what curating with them would have given, and open no video."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rushes.curation import recipe as recipes
from rushes.curation.manifest import Run, open_run
from rushes.curation.recipe import RecipeError
from rushes.pipelines import judge as judging
from tests.conftest import Curated, curate_here

ALL = "content.keep=1"  # without the draw, which weighs each clip by the others that passed


def judge(root: Path, *overrides: str, output: Path | None = None, dry: bool = False) -> Run:
    run = open_run(str(root))
    recipe = judging.recipe_for_judging(run, None, list(overrides))
    target = None if dry else str(output or root)
    return judging.judge(run, recipe, target)


def fates(run: Run) -> dict[str, str | None]:
    return {row["clip_id"]: row["rejected_by"] for row in run.table("clips").to_pylist()}


def stricter(curated: Curated) -> list[str]:
    """Thresholds in the midst of what was measured, so that each rejects some clips and keeps some."""
    clips = [row for row in curated.run.table("clips").to_pylist() if row["kept"]]
    motion = sorted(row["vmaf_motion"] for row in clips)
    lengths = sorted(row["duration_s"] for row in clips if row["vmaf_motion"] > motion[2])
    return [f"motion.vmaf_min={motion[2] + 1e-3}", f"scenes.duration_min_s={lengths[1] + 1e-3}", ALL]


@pytest.fixture
def mine(curated, tmp_path) -> Path:
    """A copy of the curated run that a test may change."""
    return Path(shutil.copytree(curated.root, tmp_path / "mine", symlinks=True))


@contextmanager
def out_of_sight(folder: Path) -> Iterator[None]:
    """The footage is not where it was while this lasts."""
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    try:
        yield
    finally:
        hidden.rename(folder)


@pytest.fixture
def no_footage(curated):
    with out_of_sight(Path(curated.inputs[0])):
        yield


def test_judging_equals_curating_with_the_same_thresholds(curated, mine, tmp_path):
    before = fates(curate_here(curated.inputs, mine, ALL))  # every clip that may pass is cut
    with out_of_sight(Path(curated.inputs[0])):
        judged = judge(mine, *stricter(curated))
    assert {"motion.vmaf_min", "scenes.duration_min_s", None} <= set(fates(judged).values())
    assert fates(judged) != before
    fresh = curate_here(curated.inputs, tmp_path / "fresh", *stricter(curated))
    assert fates(judged) == fates(fresh)
    for name in [n for n in fresh.tables if n.startswith("sets/")]:
        assert judged.table(name).equals(fresh.table(name)), name
    assert fresh.table("sets/pretrain-256").num_rows


def test_judging_changes_no_measurement_and_no_clip_on_disk(curated, mine, no_footage):
    before = curated.run.table("clips")
    judged = judge(mine, *stricter(curated))
    after = judged.table("clips")
    decided = {"kept", "rejected_by", "duplicate_of", "cluster_size", "keep_prob", "sets", "bucket"}
    for name in set(before.column_names) - decided:
        assert after[name].equals(before[name]), name
    assert judged.table("embeddings").equals(curated.run.table("embeddings"))


def test_going_back_to_the_old_thresholds_gives_the_old_tables(curated, mine):
    judge(mine, *stricter(curated))
    back = judge(mine, f"content.keep={open_keep(curated)}", "motion.vmaf_min=0.5", "scenes.duration_min_s=4")
    assert back.record["recipe"]["hash"] == curated.run.record["recipe"]["hash"]
    for name in curated.run.tables:
        assert back.table(name).equals(curated.run.table(name)), name


def open_keep(curated: Curated) -> float:
    return curated.run.record["recipe"]["resolved"]["content"]["keep"]


def test_a_dry_run_publishes_nothing(mine, curated):
    before = open_run(str(mine)).record
    tried = judge(mine, *stricter(curated), dry=True)
    assert open_run(str(mine)).record == before
    assert tried.record["funnel"] != before["funnel"]


def test_a_reader_keeps_the_tables_and_the_recipe_that_it_opened(mine, curated):
    from rushes.pipelines.view.tables import recipe_of

    old = open_run(str(mine))
    judge(mine, *stricter(curated))
    assert fates(old) == fates(curated.run) != fates(open_run(str(mine)))
    assert recipe_of(old).motion.vmaf_min == 0.5 != recipe_of(open_run(str(mine))).motion.vmaf_min


def test_every_clip_of_a_set_has_its_media_wherever_the_judgement_is_published(mine, tmp_path):
    other = judge(mine, "motion.vmaf_min=0.6", output=tmp_path / "elsewhere")
    third = judge(tmp_path / "elsewhere", "motion.vmaf_min=0.7", output=tmp_path / "third")
    for run in (other, third):
        media = [m for n in run.tables if n.startswith("sets/") for m in run.table(n)["media"].to_pylist()]
        assert media and all((Path(run.root) / m).is_file() for m in media)


@pytest.mark.parametrize("key", ["scenes.cut_spike=2", "visual.text=true", "cut.crf=30"])
def test_a_key_that_changes_what_is_measured_or_made_is_refused(mine, key):
    with pytest.raises(RecipeError, match="judging opens no video: use thresholds only, or run `rushes curate`"):
        judge(mine, key)


def test_clips_that_were_never_looked_at_are_counted_when_the_rules_are_loosened(curated, tmp_path):
    strict = ["scenes.duration_min_s=6", "motion.vmaf_min=3"]
    run = curate_here([str(Path(curated.inputs[0]) / "hard_cuts.mp4")], tmp_path / "run", *strict)
    rows = [row for row in run.table("clips").to_pylist() if row["duration_s"] >= 4 and row["doubt"] < 0.5]
    unseen = sum(row["aesthetic"] is None for row in rows)
    assert unseen
    loose = judge(tmp_path / "run", "scenes.duration_min_s=4", "motion.vmaf_min=0.5")
    assert any(f"{unseen} clips pass" in said and "no model has looked at them" in said
               for said in loose.record["warnings"])  # fmt: skip
    in_sets = {m for n in loose.tables if n.startswith("sets/") for m in loose.table(n)["media"].to_pylist()}
    assert None not in in_sets


def test_a_run_of_a_release_that_measured_otherwise_says_so_and_not_that_the_recipe_changed(curated, monkeypatch):
    monkeypatch.setitem(recipes.PART_VERSIONS, "observe", 10_000)
    with pytest.raises(
        RecipeError, match="made by a release that measures 'observe' otherwise: run the same `rushes c"
    ):
        judging.recipe_for_judging(curated.run, None, ["motion.vmaf_min=1"])
