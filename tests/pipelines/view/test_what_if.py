"""Thresholds that are moved: the counts are those of the rules, clip by clip."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation import rules
from rushes.curation.recipe import RecipeError
from rushes.pipelines.view import moved
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.tables import recipe_of
from rushes.pipelines.view.what_if import LATE, WhatIf
from tests.pipelines.synthetic_run import make_run

MOVES = [
    [], ["motion.vmaf_min=3.7"], ["visual.luma_min=null", "motion.mv_max=2.25"], ["rules.flicker.max=0.11"],
    ["visual.size_min=1000", "visual.aspect_max=1.5"], ["scenes.duration_min_s=7.3", "visual.aesthetic_min=5.1"],
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("what-if") / "run", clips=3_000)


@pytest.fixture(scope="module")
def held(run):
    return WhatIf(run)


@pytest.mark.parametrize("moves", MOVES)
def test_counts_are_those_of_the_rules(run, held, moves):
    table, recipe = run.table("clips"), held.recipe_with(moves)
    rejected = rules.judge(table, recipe)
    answer = moved.board(held, moves)
    late = np.isin(table["rejected_by"].to_numpy(zero_copy_only=False), LATE)
    kept = np.equal(rejected, None) & ~late
    assert answer["passing"]["clips"] == np.equal(rejected, None).sum()
    assert answer["kept"]["clips"] == kept.sum()
    assert answer["kept"]["seconds"] == pytest.approx(table["duration_s"].to_numpy()[kept].sum(), abs=1)
    shown = {rule["key"]: rule["rejected"] for rule in answer["rules"]} | answer["late"]
    for key in {key for key in rejected if key is not None}:
        assert shown[key] == (rejected == key).sum(), key


@pytest.mark.parametrize("moves", MOVES[1:3])
def test_histograms_add_up_to_what_passes_and_to_what_fails_one_rule(held, moves):
    answer = moved.board(held, moves)
    for column, chart in answer["charts"].items():
        assert sum(chart["all"]) + chart["nulls"] == answer["clips"]
        assert sum(chart["inside"]) == answer["passing"]["clips"]
        own = [rule["alone"] for rule in answer["rules"] if rule["column"] == column]
        assert sum(chart["alone"]) <= sum(own)


def test_a_float_at_the_threshold_is_judged_as_in_doubles(run, held):
    values = run.table("clips", ["vmaf_motion"])["vmaf_motion"].to_numpy()
    for value in (float(values[0]), 0.1 + 0.2, float(np.float64(values[1]) + 1e-9)):
        recipe = held.recipe_with([f"motion.vmaf_min={value!r}"])
        expected = np.equal(rules.judge(run.table("clips"), recipe), None)
        assert np.array_equal(held.judge(recipe).inside, expected)


def test_clips_that_enter_and_leave_are_told_with_the_nearest_first(run, held):
    table = run.table("clips", ["clip_id", "vmaf_motion"])
    values = dict(zip(table["clip_id"].to_pylist(), table["vmaf_motion"].to_pylist(), strict=True))
    moves = ["motion.vmaf_min=3.5"]
    found = moved.edge(held, moves, "motion.vmaf_min", 8)
    assert found["enter"] == [] and len(found["leave"]) == 8 and moved.board(held, moves)["leave"] >= 8
    leaving = [values[row["clip_id"]] for row in found["leave"]]
    assert all(2 < value <= 3.5 for value in leaving) and leaving == sorted(leaving, reverse=True)
    assert [row["value"] for row in found["inside"]] == pytest.approx(
        sorted(values[r["clip_id"]] for r in found["inside"])
    )


def test_sets_hold_what_their_own_rules_allow(run, held):
    recipe = recipe_of(run)
    table = run.table("clips")
    kept = table["kept"].to_numpy(zero_copy_only=False)
    for name, part in moved.board(held)["sets"].items():
        assert part["clips"] == (kept & rules.passes_set(table, recipe, name)).sum()


def test_what_cannot_be_moved_is_said(held):
    with pytest.raises(QueryError, match="moves no threshold"):
        moved.board(held, ["cut.preset=slow"])
    with pytest.raises(RecipeError):
        moved.board(held, ["visual.luma_min=900"])
    with pytest.raises(QueryError, match="no threshold"):
        moved.edge(held, [], "nothing", 4)
