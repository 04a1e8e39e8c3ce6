"""The README's worked example does what the README says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pyarrow.compute as pc

from rushes.curation import recipe, rules
from rushes.curation.analyze import Analyzer
from rushes.curation.video.decode import probe
from tests.footage import make_video

README = Path(__file__).parent.parent / "README.md"


def test_the_meter_of_the_readme_writes_a_column_that_a_rule_can_judge(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    example = next(block for block in blocks if "class Flicker" in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 22
    (tmp_path / "flicker.py").write_text(example)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "flicker", raising=False)
    made = recipe.build({}, ["meters=[flicker:Flicker]", "rules={flicker: {max: 0.0001}}"])
    clips = Analyzer(made)(probe(str(make_video(tmp_path / "film.mp4", seconds=4)))).clips
    assert pc.min(clips["flicker"]).as_py() > 0
    loose = recipe.build({"scenes": {"duration_min_s": 0}, "visual": {"size_min": 1}}, ["meters=[flicker:Flicker]"])
    strict = recipe.build(
        {"scenes": {"duration_min_s": 0}, "visual": {"size_min": 1}, "motion": {"vmaf_min": None, "mv_min": None}},
        ["meters=[flicker:Flicker]", "rules={flicker: {max: 0.0001}}", "motion.mv_max=null", "motion.static_max=null"],
    )
    assert "rules.flicker.max" not in rules.judge(clips, loose, "analyze")
    assert set(rules.judge(clips, strict, "analyze")) == {"rules.flicker.max"}
