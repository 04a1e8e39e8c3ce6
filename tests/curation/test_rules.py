"""Thresholds on columns: the first rule that fails names the clip's fate, and every clip has one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from rushes.curation import manifest, rules
from rushes.curation.recipe import RecipeError, build

GOOD = {
    "duration_s": 8.0, "doubt": 0.0, "width": 1280, "height": 720, "fps": 24.0, "corrupt_frames": 0, "border_frac": 0.0,
    "luma_mean": 100.0, "saturation": 0.4, "sharpness": 100.0, "slideshow_score": 0.0, "static_frac": 0.0,
    "frozen_s": 0.0, "own_motion": 6.0, "shots_per_s": 0.0, "shake": 10.0,
    "vmaf_motion": 5.0, "mv_mean": 3.0, "text_score": 0.0, "aesthetic": 6.0,
}  # fmt: skip


def clips(*changes: dict) -> pa.Table:
    return pa.Table.from_pylist([{**GOOD, **change} for change in changes])


def fates(*changes: dict, recipe=None, phase=None) -> list[str | None]:
    return rules.judge(clips(*changes), recipe or build({}), phase).tolist()


def test_a_good_clip_passes_every_rule():
    assert fates({}) == [None]


@pytest.mark.parametrize(
    ("rule", "fails", "holds"),
    [
        ("scenes.duration_min_s", {"duration_s": 3.99}, {"duration_s": 4.0}),
        ("scenes.doubt_max", {"doubt": 0.5}, {"doubt": 0.49}),
        ("visual.size_min", {"height": 718}, {"width": 720, "height": 720}),
        ("visual.aspect_max", {"width": 1920, "height": 760}, {"width": 1800, "height": 720}),
        ("visual.aspect_max", {"width": 760, "height": 1920}, {"width": 720, "height": 1800}),
        ("motion.vmaf_min", {"vmaf_motion": 2.0}, {"vmaf_motion": 2.01}),
        ("motion.mv_min", {"mv_mean": 0.5}, {"mv_mean": 0.51}),
        ("motion.mv_max", {"mv_mean": 7.0}, {"mv_mean": 6.99}),
        ("motion.frozen_max_s", {"frozen_s": 1.01}, {"frozen_s": 1.0}),
        ("motion.own_motion_min", {"own_motion": 1.6}, {"own_motion": 1.61}),
        ("motion.shake_max", {"shake": 48.1}, {"shake": 48.0}),
        ("motion.shots_per_s_max", {"shots_per_s": 0.85}, {"shots_per_s": 0.84}),
        ("visual.text_max", {"text_score": 0.6}, {"text_score": 0.59}),
        ("visual.aesthetic_min", {"aesthetic": 3.99}, {"aesthetic": 4.0}),
    ],
)
def test_a_rule_decides_at_its_threshold(rule, fails, holds):
    assert fates(fails, holds) == [rule, None]


def test_the_first_rule_that_fails_names_the_fate():
    assert fates({"aesthetic": 0, "vmaf_motion": 0, "duration_s": 1}) == ["scenes.duration_min_s"]
    assert fates({"aesthetic": 0, "vmaf_motion": 0}) == ["motion.vmaf_min"]


def test_what_could_not_be_measured_is_not_vouched_for():
    assert fates({"vmaf_motion": None}, {}) == ["motion.vmaf_min", None]


def test_a_rule_that_is_off_rejects_nobody():
    assert fates({"vmaf_motion": None}, {}, recipe=build({}, ["motion.vmaf_min=null"])) == [None, None]
    assert fates({"text_score": None}, {}, recipe=build({}, ["visual.text=false"])) == [None, None]


def test_rules_of_ones_own_come_last_and_wait_for_the_stage_that_writes_their_column():
    recipe = build({}, ["rules={sharpness: {min: 50}, human_score: {max: 0.2}}"])
    table = pa.Table.from_pylist([{**GOOD, "sharpness": 10.0}, {**GOOD, "sharpness": 60.0}])
    assert rules.judge(table, recipe, "analyze").tolist() == ["rules.sharpness.min", None]  # no human_score as yet
    table = table.append_column("human_score", pa.array([0.0, 0.9]))
    assert rules.judge(table, recipe).tolist() == ["rules.sharpness.min", "rules.human_score.max"]


def test_rules_that_cannot_be_applied_are_told_before_any_work():
    rules.check(build({}, ["rules={redness: {min: 1}, aspect: {max: 2}}"]), ["redness"])
    with pytest.raises(RecipeError, match="did you mean 'sharpness'"):
        rules.check(build({}, ["rules={sharpnes: {min: 1}}"]), [])
    with pytest.raises(RecipeError, match=r"did you mean 'motion\.vmaf_min'"):
        rules.check(build({}, ["curriculum.sets.finetune.rules={motion.vmaf_mn: 1}"]), [])
    with pytest.raises(RecipeError, match="holds string"):
        rules.column(pa.table({"uri": ["a"]}), "uri")


def test_the_funnel_accounts_for_every_clip():
    rng = np.random.default_rng(0)
    changes = [{"duration_s": d, "vmaf_motion": v} for d, v in zip(rng.uniform(2, 8, 200), rng.uniform(0, 5, 200))]
    recipe = build({})
    rejected = pa.chunked_array([pa.array(rules.judge(clips(*changes), recipe), pa.string())])
    steps = rules.funnel(rejected, recipe)
    assert steps[0] == {"rule": "clips", "rejected": 0, "remaining": 200}
    assert steps[-1]["remaining"] + sum(step["rejected"] for step in steps) == 200
    assert steps[-1]["remaining"] == rejected.null_count


def test_every_rule_names_a_recipe_key_and_a_published_column():
    recipe = build({})
    for rule in rules.RULES:
        recipe.get(rule.key)
        assert rule.column in (*manifest.CLIPS.names, *rules.DERIVED)


def test_a_clip_at_which_models_failed_is_rejected_for_that_and_for_no_fault_of_its_own():
    unseen = {"text_score": None, "aesthetic": None}
    found = fates({"looked": True}, {"looked": False, **unseen}, {"looked": None, **unseen, "height": 200})
    assert found == [None, "look.failed", "visual.size_min"]
