"""Thresholds that are moved: the counts are those of the rules, clip by clip."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rushes.curation import manifest, rules
from rushes.curation.recipe import RecipeError
from rushes.pipelines.judge import judge, recipe_for_judging
from rushes.pipelines.view import moved
from rushes.pipelines.view.clip_columns import LATE
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.counting import Parts
from rushes.pipelines.view.first_look import FirstLook
from rushes.pipelines.view.tables import recipe_of
from rushes.pipelines.view.what_if import WhatIf
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
    return WhatIf(run).read()


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


def test_while_columns_are_read_the_run_is_told_as_it_was_published(run, held):
    opened = WhatIf(run)
    steps = opened.reading("vmaf_motion")
    next(steps)
    first = FirstLook(opened)
    early, whole = first.board(), moved.board(held)
    assert [name for name, chart in early["charts"].items() if chart] == ["vmaf_motion"] and early["kept"][
        "seconds"
    ] is None
    for told in (early, *(first.board() for _ in steps)):
        for key in ("clips", "passing", "late", "enter", "leave"):
            assert told[key] == whole[key]
        assert told["kept"]["clips"] == whole["kept"]["clips"]
        assert [rule["rejected"] for rule in told["rules"]] == [rule["rejected"] for rule in whole["rules"]]
        for name, chart in told["charts"].items():
            assert chart is None or chart == {**whole["charts"][name], "alone": chart["alone"]}
    assert told["kept"]["seconds"] == pytest.approx(whole["kept"]["seconds"])
    assert None not in told["charts"].values() and moved.board(opened) == whole


def test_a_float_at_the_threshold_is_judged_as_in_doubles(run, held):
    values = run.table("clips", ["vmaf_motion"])["vmaf_motion"].to_numpy()
    for value in (float(values[0]), 0.1 + 0.2, float(np.float64(values[1]) + 1e-9)):
        recipe = held.recipe_with([f"motion.vmaf_min={value!r}"])
        expected = np.equal(rules.judge(run.table("clips"), recipe), None)
        with held.judged(recipe) as state:
            assert np.array_equal(held.passing(state), np.flatnonzero(expected))


def test_a_handle_that_is_dragged_back_and_forth_counts_as_if_it_had_been_put_there(run):
    """Steps are differences; what they lead to does not depend on the way."""
    walked = WhatIf(run).read()
    rng = np.random.default_rng(0)
    movable = {
        "motion.vmaf_min": (0, 30),
        "visual.luma_min": (0, 200),
        "motion.mv_max": (1, 9),
        "rules.flicker.max": (0, 1),
    }
    moves: dict[str, str] = {}
    for _ in range(30):
        key = str(rng.choice(list(movable)))
        moves[key] = "null" if rng.random() < 0.2 else f"{rng.uniform(*movable[key]):.3f}"
        words = [f"{name}={value}" for name, value in moves.items()]
        assert moved.board(walked, words) == moved.board(WhatIf(run).read(), words)


@pytest.fixture(scope="module")
def with_text(tmp_path_factory):
    """A run in which a third of the clips have a title below and a tenth a border, judged by the command."""
    root = str(tmp_path_factory.mktemp("with-text") / "run")
    unit = make_run(tmp_path_factory.mktemp("unit") / "run", clips=1_500, seed=3)
    table, rng = unit.table("clips"), np.random.default_rng(1)
    titled, framed = rng.random(len(table)) < 0.3, rng.random(len(table)) < 0.1
    score = np.where(titled, rng.uniform(0.1, 1, len(table)), 0.0)
    boxes = {
        "overlays": [[0.1, rng.uniform(0.5, 0.95), 0.9, 0.99] if one else [] for one in titled],
        "picture": [[0.0, 0.1, 1.0, 0.9] if one else [0.0, 0.0, 1.0, 1.0] for one in framed],
        "text_score": np.where(table["looked"].fill_null(False).to_numpy(), score, np.nan),
    }
    for name, values in boxes.items():
        column = pa.array(values, table.schema.field(name).type, from_pandas=True)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    record = {key: unit.record[key] for key in ("recipe", "versions")}
    first = manifest.publish(root, {"sources": unit.table("sources"), "clips": table}, record)
    return judge(first, recipe_for_judging(first, None, []), root)


@pytest.mark.parametrize("moves", [
    [], ["visual.text_max=0.3"], ["visual.text_max=0.9"], ["visual.text_max=null"], ["visual.aspect_max=1.9"],
    ["visual.text_max=0.45", "visual.aspect_max=2", "visual.size_min=500"],
    ["visual.border_max=0", "motion.vmaf_min=4"],
])  # fmt: skip
def test_counts_are_those_of_a_dry_run_also_where_text_is_cropped_away(with_text, moves):
    held = WhatIf(with_text).read()
    assert len(held.held.texted) > 100
    dry = judge(with_text, recipe_for_judging(with_text, None, moves), None).record["funnel"]["clips"]
    rejected = {row["rule"]: row["rejected"] for row in dry}
    answer = moved.board(held, moves)
    assert not any("counted as they were cut" in sentence for sentence in answer["said"])
    shown = {rule["key"]: rule["rejected"] for rule in answer["rules"]}
    assert shown == {key: rejected.get(key, 0) for key in shown}
    assert sum(shown.values()) > 300


def test_a_run_without_a_clip_has_thresholds_that_can_be_moved(run, tmp_path):
    tables = {"sources": run.table("sources"), "clips": run.table("clips").slice(0, 0)}
    empty = WhatIf(manifest.publish(str(tmp_path / "empty"), tables, {"recipe": run.record["recipe"]})).read()
    answer = moved.board(empty, ["motion.vmaf_min=3.5"])
    assert answer["clips"] == answer["kept"]["clips"] == 0 and len(answer["rules"]) > 20
    assert moved.edge(empty, ["motion.vmaf_min=3.5"], "motion.vmaf_min", 4)["inside"] == []


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


@pytest.mark.parametrize("sets", [2, 12])
def test_parts_are_counted_by_kinds_as_clip_by_clip(sets):
    rng = np.random.default_rng(sets)
    landscape, people, *members = (rng.random(500) < 0.4 for _ in range(sets + 2))
    ms, places = rng.integers(4_000, 16_000, 500), np.flatnonzero(rng.random(500) < 0.5)
    found = Parts(landscape, people, members).of(places, ms)
    for row, member in zip(found, [np.ones(500, bool), *members], strict=True):
        mine = places[member[places]]
        assert row.tolist() == [len(mine), ms[mine].sum(), landscape[mine].sum(), people[mine].sum()]
