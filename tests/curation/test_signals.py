"""A column is declared once: schemas, rules, the recipe's thresholds, charts and the dictionary follow from it."""

from __future__ import annotations

import subprocess
import sys

import pyarrow.parquet as pq

from rushes.curation import manifest, rules, signals
from rushes.curation.recipe import Recipe, build, flat


def test_every_column_is_told_in_the_dictionary_with_its_meaning():
    text = signals.dictionary()
    for name, columns in signals.TABLES.items():
        assert f"### `{name}`" in text
        for column in columns:
            assert f"| `{column.name}` | {column.type} |" in text
            assert column.meaning and not column.meaning.endswith("."), column.name


def test_a_published_file_carries_its_own_dictionary(tmp_path):
    manifest.write_table(str(tmp_path / "clips.parquet"), manifest.CLIPS.empty_table())
    field = pq.read_schema(tmp_path / "clips.parquet").field("mv_mean")
    assert field.metadata[b"unit"] == b"px/frame" and b"720 lines" in field.metadata[b"meaning"]


def test_every_threshold_of_the_recipe_is_declared_by_a_signal_with_its_default():
    leaves = flat(Recipe())
    for rule in signals.RULES:
        assert leaves[rule.key] == ("judge", rule.default)
        assert signals.BY_NAME[rule.column].rules
    assert build({}, ["visual.size_min=null"]).visual.size_min is None


def test_no_picture_library_is_loaded_to_read_a_recipe():
    code = (
        "import sys; from rushes.curation import signals, recipe, rules, manifest; recipe.build({});"
        "print([m for m in ('cv2', 'av', 'scenedetect', 'torch', 'scipy', 'sklearn', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_late_rules_stand_once_and_name_what_they_ask():
    recipe = build({}, ["scenes.clips_per_source=2"])
    assert tuple(rule.key for rule in signals.LATE_RULES) == rules.LATER_RULES
    for late in signals.LATE_RULES:
        value = None if late.missing else recipe.get(late.key)
        assert value is None or late.needs.format(value=value)
