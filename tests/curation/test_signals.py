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


NEW_ENTRY = """
    Signal(
        "top_luma", pa.float32(), "mean brightness of the picture's upper half", "0-255", stage="visual",
        meter="visual.top:TopMeter", chart="range",
        rules=(Rule("visual.top_max", "<=", 300.0, "brightest upper half, 0-255", {"ge": 0}),),
    ),
"""
NEW_FILE = """
import pyarrow as pa

class TopMeter:
    tracks = (pa.field("top_luma", pa.float32()),)

    def __init__(self, info, recipe): pass

    def observe(self, batch):
        return {"top_luma": batch.luma[:, : batch.luma.shape[1] // 2].mean(axis=(1, 2))}

    def measure(self, tracks, span):
        return {"top_luma": float(tracks["top_luma"][span.first : span.stop].mean())}
"""
ADDED = """
import sys, types
from rushes import curation
import rushes.curation.visual
def module(name, text):
    made = types.ModuleType(name)
    sys.modules[name] = made
    exec(compile(text, name, "exec"), made.__dict__)
    return made
entry, file, video = sys.argv[1:]
path = curation.__path__[0] + "/signals.py"
text = open(path).read()
place = '    Signal("copy_group"'
assert text.count(place) == 1
curation.signals = module("rushes.curation.signals", text.replace(place, entry + place))
module("rushes.curation.visual.top", file)
from rushes.curation import manifest, recipe, rules, signals
from rushes.curation.analyze import Analyzer
from rushes.curation.video.decode import probe
assert "top_luma" in manifest.ANALYZED.names and "top_luma" in manifest.CLIPS.names
assert "`top_luma`" in signals.dictionary() and "top_luma" in [s.name for s in signals.charted()["visual"]]
made = recipe.build({}, ["visual.top_max=1", "scenes.duration_min_s=null", "visual.size_min=null"])
clips = Analyzer(made)(probe(video)).clips
assert clips["top_luma"].null_count == 0 and clips["top_luma"][0].as_py() > 1
later = [rule for rule, _ in rules.active(made, "analyze")]
print(rules.passes(clips, "visual.top_max", 1), [rule.key for rule in later].count("visual.top_max"))
print("scenedetect" in sys.modules)
"""


def test_a_new_signal_is_its_own_file_and_one_entry(bunny_video):
    """The entry is put into the text of signals.py, the meter's file beside it; nothing else is touched."""
    command = [sys.executable, "-c", ADDED, NEW_ENTRY, NEW_FILE, str(bunny_video)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[False] 1", "False"]  # judged once; no worker imports PySceneDetect
