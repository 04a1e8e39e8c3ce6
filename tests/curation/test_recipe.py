"""A recipe is validated in one sentence, and its hashes change exactly with the part of the work they name."""

from __future__ import annotations

import pytest

from rushes.curation import recipe as recipes
from rushes.curation.recipe import Recipe, RecipeError, build, flat

PARTS = ("observe", "measure", "look", "content", "cut", "caption")


def hashes(*overrides: str) -> dict[str, str]:
    made = build({}, overrides)
    return {part: made.part_hash(part) for part in PARTS} | {"all": made.full_hash()}


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("motion.vmaf_min=3", {"all"}),
        ("rules={redness: {min: 2}}", {"all"}),
        ("scenes.head_s=1", {"measure", "all"}),
        ("scenes.cut_spike=2", {"measure", "all"}),
        ("visual.stills_side=480", {"observe", "all"}),
        ("meters=[a:B]", {"observe", "all"}),
        ("visual.text=false", {"look", "all"}),
        ("content.clusters=5", {"content", "all"}),
        ("cut.crf=20", {"cut", "all"}),
        ("engine.num_cpus=1", set()),
        ("name=other", set()),
    ],
)
def test_a_key_changes_the_hash_of_its_own_part_only(override, changed):
    before, after = hashes(), hashes(override)
    assert {key for key in before if before[key] != after[key]} == changed


def test_an_edited_meter_of_ones_own_is_another_recipe(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "edited_meter.py").write_text("class Own: pass\n")
    made = build({}, ["meters=[edited_meter:Own]"])
    was = made.part_hash("observe"), made.full_hash()
    (tmp_path / "edited_meter.py").write_text("class Own: level = 2\n")
    assert made.part_hash("observe") != was[0] and made.full_hash() != was[1]
    assert made.part_hash("measure") == build({}).part_hash("measure")


def test_every_key_says_what_it_means_and_which_part_it_changes():
    for model in (Recipe, *(f.annotation for f in Recipe.model_fields.values())):
        for name, field in getattr(model, "model_fields", {}).items():
            if not hasattr(field.annotation, "model_fields"):
                assert field.description, f"{model.__name__}.{name}"
    assert {part for part, _ in flat(Recipe()).values()} >= set(PARTS) | {"judge", "engine"}


@pytest.mark.parametrize("name", ["cpu", "demo", "moviegen"])
def test_shipped_recipes_load_and_survive_being_written_down(name, tmp_path):
    assert name in recipes.shipped()
    shipped = recipes.load(name)
    (tmp_path / f"{name}.yaml").write_text(shipped.to_yaml(), encoding="utf-8")
    again = recipes.load(str(tmp_path / f"{name}.yaml"))
    assert again == shipped and again.full_hash() == shipped.full_hash()


def test_defaults_are_the_published_figures():
    """Movie Gen sec 3.2.1 and app B.1."""
    default = Recipe()
    assert (default.motion.vmaf_min, default.motion.mv_min, default.motion.mv_max) == (2.0, 0.5, 7.0)
    assert (default.motion.shots_per_s_max, default.visual.text_max, default.visual.aesthetic_min) == (0.85, 0.6, 4.0)
    assert (default.scenes.duration_min_s, default.scenes.duration_max_s) == (4.0, 16.0)


def test_the_rules_of_one_set_can_be_overridden_by_their_dotted_keys():
    made = build({}, ["curriculum.sets.finetune.rules.motion.vmaf_min=4"])
    assert made.curriculum.sets["finetune"].rules["motion.vmaf_min"] == 4
    assert set(made.curriculum.sets) == set(Recipe().curriculum.sets)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("motion.vmaf_minn=1", "Did you mean 'motion.vmaf_min'"),
        ("duration_min_s=1", "Did you mean 'scenes.duration_min_s'"),
        ("motion.vmaf_min=.nan", "motion.vmaf_min"),
        ("motion.vmaf_min=[1", "is not valid YAML"),
        ("curriculum.sets.pretrain-256.people=[0.9, 0.1]", "the smaller first"),
        ("engine.num_cpus=0", "engine.num_cpus"),
        ("=3", "--set wants key=value"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(override, sentence):
    with pytest.raises(RecipeError, match=sentence.replace(".", r"\.")) as told:
        build({}, [override])
    assert "\n" not in str(told.value)


def test_a_key_is_found_by_its_dotted_name():
    assert Recipe().get("motion.vmaf_min") == 2.0
    assert Recipe().get("curriculum.sets.finetune.resolution") == 768
    with pytest.raises(RecipeError, match=r"Did you mean 'cut\.crf'"):
        Recipe().get("cut.crt")
