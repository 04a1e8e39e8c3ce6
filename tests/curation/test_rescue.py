"""A clip's clean rectangle: inside its borders, beside its text, with all heads, judged like a frame; or none."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest

from rushes.curation import rescue, rules
from rushes.curation.recipe import build
from tests.curation.test_rules import GOOD

LETTERBOX = {"border_frac": 0.24, "picture": [0.0, 0.12, 1.0, 0.88], "width": 1920, "height": 1080}
SUBTITLE = {"text_score": 0.95, "overlays": [0.2, 0.85, 0.8, 0.92], "width": 1920, "height": 1080}


def clips(*changes: dict) -> pa.Table:
    none = {name: None for name in ("picture", "overlays", "heads")}
    rows = [{**GOOD, **none, **change} for change in changes]
    boxes = [pa.field(name, pa.list_(pa.float32())) for name in none]
    return pa.Table.from_pylist(rows, pa.schema([pa.field(name, pa.float64()) for name in GOOD] + boxes))


def crops(*changes: dict, overrides: tuple[str, ...] = ()) -> list[tuple]:
    table = rescue.with_crops(clips(*changes), build({}, overrides))
    return list(zip(*(table[name].to_pylist() for name in (*rescue.COLUMNS, "crop_for")), strict=True))


def test_a_clip_without_border_and_text_is_cut_whole():
    assert crops({}, {"text_score": 0.3, "overlays": [0.2, 0.8, 0.8, 0.9]}) == [(None,) * 5] * 2


def test_a_border_is_left_out_and_the_rule_passes():
    ((x, y, width, height, why),) = crops(LETTERBOX)
    assert (x, width, why) == (0, 1920, "border")
    assert 0.12 * 1080 <= y <= 0.125 * 1080 and 0.87 * 1080 <= y + height <= 0.88 * 1080
    assert y % 2 == height % 2 == 0
    assert rules.judge(clips(LETTERBOX), build({})).tolist() == [None]
    assert rules.judge(clips(LETTERBOX), build({}, ["visual.rescue=reject"])).tolist() == ["visual.border_max"]


def test_size_and_aspect_rules_judge_the_crop():
    pillarbox = {"border_frac": 0.68, "picture": [0.34, 0.0, 0.66, 1.0], "width": 1920, "height": 1080}
    flat = {"border_frac": 0.4, "picture": [0.0, 0.3, 1.0, 0.7], "width": 3840, "height": 2160}
    assert rules.judge(clips(pillarbox, flat), build({})).tolist() == ["visual.size_min", "visual.aspect_max"]


def test_text_is_left_out_where_enough_is_left():
    ((x, y, width, height, why),) = crops(SUBTITLE)
    assert (x, y, width, why) == (0, 0, 1920, "text") and 0.82 * 1080 < height < 0.85 * 1080
    assert rules.judge(clips(SUBTITLE), build({}, ["visual.size_min=480"])).tolist() == [None]
    middle = {**SUBTITLE, "overlays": [0.1, 0.45, 0.9, 0.55]}
    assert crops(middle) == [(None,) * 5]
    assert rules.judge(clips(middle), build({})).tolist() == ["visual.text_max"]


def test_text_that_cannot_be_left_out_does_not_keep_the_border():
    both = {**LETTERBOX, **SUBTITLE, "overlays": [0.1, 0.45, 0.9, 0.55], **{"border_frac": 0.24}}
    assert crops(both)[0][4] == "border"
    assert rules.judge(clips(both), build({})).tolist() == ["visual.text_max"]


def test_a_crop_that_would_cut_through_a_head_is_none():
    head = {**SUBTITLE, "heads": [0.4, 0.7, 0.6, 0.95]}
    above = {**SUBTITLE, "heads": [0.4, 0.1, 0.6, 0.4]}
    assert [why for *_, why in crops(head, above)] == [None, "text"]


def test_the_threshold_decides_whether_text_is_left_out():
    assert crops(SUBTITLE, overrides=("visual.text_max=null",)) == [(None,) * 5]


def test_the_largest_rectangle_is_that_of_a_search_over_a_grid():
    rng = np.random.default_rng(3)
    for _ in range(20):
        corners = np.sort(rng.integers(0, 21, (3, 2, 2)), axis=1) / 20
        boxes = [(a[0], a[1], b[0], b[1]) for a, b in corners if (b > a).all()]
        found = rescue.clean_rectangle(rescue.WHOLE, boxes, (), 1e-6)
        area = 0.0 if found is None else (found[2] - found[0]) * (found[3] - found[1])
        assert area == pytest.approx(searched(boxes), abs=0.06)
        assert found is None or area <= searched(boxes) + 1e-9


def searched(boxes: list[tuple]) -> float:
    """The largest area of a rectangle on a grid of twentieths that overlaps no box."""
    free = np.ones((20, 20), bool)
    for left, top, right, bottom in boxes:
        free[round(20 * top) : round(20 * bottom), round(20 * left) : round(20 * right)] = False
    spans = list(itertools.combinations(range(21), 2))
    return max(((b - a) * (d - c) / 400 for a, b in spans for c, d in spans if free[a:b, c:d].all()), default=0.0)


@pytest.mark.parametrize(
    ("text_s", "cuts"),
    [([], []), ([0, 1], [2]), ([7, 8], [6]), ([4], [5]), ([0, 4, 8], [1, 3]), ([0, 2, 4, 6, 8], []),
     (list(range(9)), [])],
    ids=["none", "at the begin", "at the end", "in the middle", "the longest stretch", "too short", "always"],
)  # fmt: skip
def test_a_clip_is_divided_where_text_comes_or_goes(text_s, cuts):
    assert rescue.clean_span([float(t) for t in range(9)], [float(t) for t in text_s], 0.0, 9.0) == cuts


def test_what_is_left_beside_text_is_trimmed_to_the_longest_aspect_and_keeps_its_heads():
    wide = (0.0, 0.0, 1.0, 0.5)  # of a frame of 16 x 9: 32 x 9
    left, top, right, bottom = rescue.trimmed(wide, 16 / 9, 2.5, [])
    assert (top, bottom) == (0.0, 0.5) and left == pytest.approx(1 - right)
    assert 2.4 < (right - left) * 16 / 9 / 0.5 <= 2.5
    aside = (0.9, 0.1, 0.98, 0.3)
    assert rescue.trimmed(wide, 16 / 9, 2.5, [aside])[2] >= 0.98
    assert rescue.trimmed(wide, 16 / 9, 2.5, [aside, (0.0, 0.1, 0.1, 0.3)]) is None
    assert rescue.trimmed(wide, 16 / 9, None, []) == wide
    low = rescue.trimmed((0.0, 0.0, 0.2, 1.0), 16 / 9, 2.5, [])
    assert 2.4 < (low[3] - low[1]) / (0.2 * 16 / 9) <= 2.5
