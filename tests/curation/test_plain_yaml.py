"""Recipes that explode, recurse or never end are one sentence, at once: for curation, for training, for --set."""

from __future__ import annotations

import time

import pytest

from rushes.curation import plain_yaml
from rushes.curation import recipe as recipes
from rushes.curation.plain_yaml import PlainYamlError
from rushes.curation.recipe import RecipeError
from rushes.model import train_recipe
from rushes.model.train_recipe import TrainRecipeError

AT_ONCE_S = 20.0  # of CPU time; what such files are made for would take hours
SENTENCE_MAX = 1000  # characters


def laughs() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


HOSTILE = {
    "aliases of aliases": laughs(),
    "holds itself": "name: &a [*a]",
    "mapping in itself": "motion: &a {b: *a}",
    "long chain": "\n".join(["b0: &b0 [1]"] + [f"b{n}: &b{n} [*b{n - 1}]" for n in range(1, 5000)]),
    "deep lists": "name: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "{a: " * 3000 + "1" + "}" * 3000,
    "long number": "motion: {vmaf_min: " + "9" * 5000 + "}",
    "long hexadecimal": "motion: {vmaf_min: 0x" + "f" * 5000 + "}",
    "long base 60": "motion: {vmaf_min: " + "1:" * 3000 + "1}",
    "long value": "name: " + "x" * 500_000,
    "large": "# " + "x" * (2 << 20),
    "key twice": "motion: {vmaf_min: 1}\nmotion: {vmaf_min: 2}",
    "mapping as a key": "{[1, 2]: 3}",
    "no date": "name: 2021-99-99",
    "object": "name: !!python/object/apply:os.system [echo]",
    "huge list": "meters: [" + "a, " * 60_000 + "]",
    "two documents": "name: a\n---\nname: b",
    "not UTF-8": "name: \udcff",
    "infinity": "motion: {vmaf_min: .inf}",
    "exponent": "motion: {vmaf_min: 1e999999}",
    "a key of many words": "x" * 9000 + ": 1",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_recipe_is_one_sentence_at_once(tmp_path, name):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(HOSTILE[name].encode("utf-8", "surrogateescape"))
    began = time.process_time()
    for load, error in ((recipes.load, RecipeError), (train_recipe.load, TrainRecipeError)):
        with pytest.raises(error) as told:
            load(str(path))
        assert len(str(told.value)) < SENTENCE_MAX and "\n" not in str(told.value)
    assert time.process_time() - began < AT_ONCE_S


@pytest.mark.parametrize(
    "override",
    ["motion.vmaf_min=" + "9" * 5000, "meters=" + "[" * 5000, "a." * 5000 + "b=1", "name=" + "x" * 50_000,
     "motion=&a {b: *a}", "x" * 9000],
)  # fmt: skip
def test_a_hostile_override_is_one_sentence(override):
    for load, name, error in ((recipes.load, "demo", RecipeError), (train_recipe.load, "tae-tiny", TrainRecipeError)):
        with pytest.raises(error) as told:
            load(name, [override])
        assert len(str(told.value)) < SENTENCE_MAX and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "name", ["x" * 5000, "/" + "x" * 5000, "y" * 300, "a\0b", "/dev/zero", "/dev/null/x", "~nobody/x"]
)
def test_a_recipe_whose_name_can_be_no_files_is_one_sentence(name):
    for load, error in ((recipes.load, RecipeError), (train_recipe.load, TrainRecipeError)):
        with pytest.raises(error) as told:
            load(name)
        assert len(str(told.value)) < 6000 and "\n" not in str(told.value)


def test_plain_values_are_what_yaml_says():
    text = "a: 1\nb: [1.5, null, true, x]\nc: &c {d: e}\nf: *c\n"
    assert plain_yaml.load(text) == {"a": 1, "b": [1.5, None, True, "x"], "c": {"d": "e"}, "f": {"d": "e"}}
    with pytest.raises(PlainYamlError, match="twice, in line 2"):
        plain_yaml.load("a: 1\na: 2\n")


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a/b", "..", ".hidden", "", "a b", "x" * 65, "a\nb", "validation", "Validation"]
)
def test_a_name_of_a_set_stays_inside_the_run_and_validation_is_taken(name):
    with pytest.raises(RecipeError, match="the name"):
        recipes.build({"curriculum": {"sets": {name: {}}}})
