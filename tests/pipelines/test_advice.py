"""The advice says what really happens: judging with what it proposes brings the clips that it names."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from rushes.curation import rules
from rushes.curation.manifest import Run, publish
from rushes.curation.recipe import build
from rushes.pipelines.view import charts
from rushes.pipelines.view.advice import RULES_NAMED, advise, sentences
from rushes.pipelines.view.tables import recipe_of
from tests.pipelines.synthetic_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), clips=600)


def passing(table: pa.Table, recipe) -> np.ndarray:
    return np.equal(rules.judge(table, recipe), None)


def test_what_a_looser_rule_brings_is_what_judging_with_it_lets_through(run):
    recipe, table = recipe_of(run), run.table("clips")
    found = [advice for advice in advise(run, recipe) if advice.rule in rules.BY_KEY]
    before = passing(table, recipe)
    for change in [change for advice in found for change in advice.changes]:
        looser = build(recipe.model_dump(mode="json"), [change.setting])
        new = passing(table, looser) & ~before
        assert change.clips - change.unseen == new.sum(), change.setting
    assert found


def test_the_first_value_lets_about_half_through_and_no_rule_lets_all(run):
    for advice in advise(run, recipe_of(run)):
        if len(advice.changes) == 2:
            half, off = advice.changes
            assert half.clips < off.clips and 0.5 * off.clips <= half.clips <= 0.5 * off.clips + 2


def test_a_strict_recipe_is_told_the_rule_that_stands_in_the_way(run, tmp_path):
    """All clips are too still for the recipe: that one rule is named, with the value that lets half of them pass."""
    still = build({"motion": {"vmaf_min": 50.0}}, [])
    table = run.table("clips")
    recipe = build({}, [])
    good = table.filter(pa.array(passing(table, recipe)))
    rejected = pa.array(rules.judge(good, still), pa.string())
    good = good.set_column(good.column_names.index("rejected_by"), "rejected_by", rejected)
    good = good.set_column(good.column_names.index("kept"), "kept", pc.is_null(rejected))
    record = {key: run.record[key] for key in ("times_s", "warnings", "created", "versions")}
    record["recipe"] = {"name": "still", "hash": "", "resolved": still.model_dump(mode="json")}
    strict = publish(str(tmp_path), {"sources": run.table("sources"), "clips": good}, record)
    first = advise(strict, still)[0]
    assert (
        first.rule == "motion.vmaf_min"
        and first.rejected == first.changes[-1].clips == pc.sum(pc.equal(rejected, "motion.vmaf_min")).as_py()
    )
    value = float(first.changes[0].setting.partition("=")[2])
    assert value == pytest.approx(
        np.median(rules.column(good, "vmaf_motion")[~pc.is_null(rejected).to_numpy(False)]), rel=0.02
    )
    said = sentences([first], "RUN")
    assert "motion.vmaf_min (vmaf_motion > 50) rejected" in said[0] and f"--set motion.vmaf_min={value:g}" in said[-1]


def test_no_more_than_two_rules_are_named_and_nothing_where_nothing_was_rejected(run, tmp_path):
    assert len(advise(run, recipe_of(run))) == RULES_NAMED
    table = run.table("clips")
    kept = table.filter(table["kept"])
    all_kept = publish(
        str(tmp_path), {"sources": run.table("sources"), "clips": kept}, {"recipe": run.record["recipe"]}
    )
    assert advise(all_kept, recipe_of(run)) == [] and sentences([], "RUN") == []


def test_advice_and_charts_are_counted_by_the_data_base_and_read_no_column_whole(run, monkeypatch):
    recipe = recipe_of(run)
    monkeypatch.setattr(Run, "table", lambda *_: pytest.fail("a column was read whole"))
    assert advise(run, recipe) and charts.signals(run, recipe)


def test_values_that_are_no_numbers_fail_the_rule_that_asks_for_them(run, tmp_path):
    table = run.table("clips")
    odd = table["sharpness"].to_pylist()
    odd[100:] = [float("nan")] * len(odd[100:])
    table = table.set_column(table.column_names.index("sharpness"), "sharpness", pa.array(odd, pa.float32()))
    rejected = pa.array(rules.judge(table, recipe_of(run)), pa.string())
    table = table.set_column(table.column_names.index("rejected_by"), "rejected_by", rejected)
    table = table.set_column(table.column_names.index("kept"), "kept", pc.is_null(rejected))
    made = publish(str(tmp_path), {"sources": run.table("sources"), "clips": table}, {"recipe": run.record["recipe"]})
    first = advise(made, recipe_of(run))[0]
    assert first.rule == "visual.sharpness_min" and first.rejected > 400
    looser = build(recipe_of(run).model_dump(mode="json"), [first.changes[-1].setting])
    new = passing(table, looser) & ~passing(table, recipe_of(run))
    assert first.changes[-1].clips - first.changes[-1].unseen == new.sum()
