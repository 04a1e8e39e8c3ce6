"""Rescue before rejection: the largest clean rectangle of a clip, inside its borders and beside burnt-in text.

Borders, overlays and heads are measured; which rectangle is cut follows from them and the recipe, so that it is decided
anew with every judgement and no video is opened. Rules judge the rectangle as they judge a frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation.recipe import Recipe
from rushes.curation.table import with_column

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the frame's sides
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
BORDER, TEXT = "border", "text"
COLUMNS = ("crop_x", "crop_y", "crop_width", "crop_height")
CLEAN_MIN_S = 2.0  # seconds without text that are worth a clip of their own
BOXES_MAX = 8  # overlays that are kept apart; more are taken together
MARGIN = 0.008  # of the frame's sides, around an overlay: its soft edge and shadow
EDGE = 0.0015  # of the frame's sides, inside a border: its soft edge
ROUNDED = 0.01  # of an aspect: sides of crops are even pixels
HEAD_LEFT_OUT = 0.1  # share of a head's width or height that a crop may miss


def clean_span(stills_s: Sequence[float], text_s: Sequence[float], begin_s: float, end_s: float) -> list[float]:
    """Times at which a clip is divided, so that its longest stretch without text stands alone; none where it is short.

    stills_s: times of all stills that were searched; text_s: of those with text, both in seconds. What lies between a
    still with text and one without counts as text.
    """
    with_text = np.isin(np.round(stills_s, 3), np.round(text_s, 3))
    best: tuple[float, float] = (0.0, 0.0)
    begin = begin_s
    for number, text in enumerate(with_text):
        if text:
            begin = stills_s[number + 1] if number + 1 < len(stills_s) else end_s
        last = number + 1 == len(stills_s) or with_text[number + 1]
        stop = end_s if number + 1 == len(stills_s) else stills_s[number]
        if not text and last and stop - begin > best[1] - best[0]:
            best = begin, stop
    if best[1] - best[0] < CLEAN_MIN_S or best == (begin_s, end_s):
        return []
    return [t for t in best if begin_s < t < end_s]


def with_crops(clips: pa.Table, recipe: Recipe) -> pa.Table:
    """The clips with crop_x, crop_y, crop_width, crop_height and crop_for: null where a clip is cut whole.

    A border is always left out. Text is, where it would fail visual.text_max, if enough is left beside it
    (visual.rescue_min) and no head is cut through. Columns that are not there yet count as null.
    """
    count = clips.num_rows
    corners = np.full((count, 4), np.nan)
    why = np.full(count, None, dtype=object)
    if recipe.visual.rescue == "crop":
        boxes = _boxes(clips, "picture")
        places = set(boxes)
        overlays, heads = _boxes(clips, "overlays"), _boxes(clips, "heads")
        frames, longest = (_numbers(clips, "width"), _numbers(clips, "height")), recipe.visual.aspect_max
        if recipe.visual.text and recipe.visual.text_max is not None and overlays:
            score = _numbers(clips, "text_score")
            overlays = {place: found for place, found in overlays.items() if score[place] >= recipe.visual.text_max}
            places |= set(overlays)
        for place in sorted(places):
            picture = _inside(boxes[place][0]) if place in boxes else WHOLE
            clean = None
            if place in overlays:
                least, kept_heads = recipe.visual.rescue_min, heads.get(place, ())
                clean = clean_rectangle(picture, overlays[place], kept_heads, least)
                clean = clean and trimmed(clean, float(frames[0][place] / frames[1][place]), longest, kept_heads)
                clean = clean if clean and _area(clean) >= least * _area(picture) else None
            if clean is not None or place in boxes:
                corners[place] = clean or picture
                why[place] = "+".join([BORDER] * (place in boxes) + [TEXT] * (clean is not None))
    for name, values in zip(COLUMNS, _even(corners, clips), strict=True):
        clips = with_column(clips, name, pa.array(values, mask=np.isnan(values)).cast(pa.int32()))
    return with_column(clips, "crop_for", pa.array(why, pa.string()))


def size(clips: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of what is cut, float64 [N]: of the crop where there is one, else of the frame."""
    sides = []
    for name in ("width", "height"):
        whole, crop = _numbers(clips, name), f"crop_{name}"
        if crop in clips.column_names:
            whole = np.where(np.isnan(_numbers(clips, crop)), whole, _numbers(clips, crop))
        sides.append(whole)
    return sides[0], sides[1]


def _numbers(clips: pa.Table, name: str) -> np.ndarray:
    return pc.cast(clips[name], pa.float64()).to_numpy(zero_copy_only=False)


def clean_rectangle(picture: Box, overlays: Sequence[Box], heads: Sequence[Box], least: float) -> Box | None:
    """The largest rectangle inside `picture` that touches no overlay and holds every head.

    least: share of the picture's area that it must have. None where there is none.
    """
    taken = [_widened(box) for box in _few(overlays)]
    lefts, rights = [picture[0], *(b[2] for b in taken)], [picture[2], *(b[0] for b in taken)]
    tops, bottoms = [picture[1], *(b[3] for b in taken)], [picture[3], *(b[1] for b in taken)]
    found = np.array(list(itertools.product(lefts, tops, rights, bottoms)))
    found[:, :2] = np.maximum(found[:, :2], picture[:2])
    found[:, 2:] = np.minimum(found[:, 2:], picture[2:])
    left, top, right, bottom = found.T
    good = (right > left) & (bottom > top)
    for box in taken:
        good &= (left >= box[2]) | (right <= box[0]) | (top >= box[3]) | (bottom <= box[1])
    for head in heads:
        slack_x, slack_y = HEAD_LEFT_OUT * (head[2] - head[0]), HEAD_LEFT_OUT * (head[3] - head[1])
        good &= (left <= head[0] + slack_x) & (right >= head[2] - slack_x)
        good &= (top <= head[1] + slack_y) & (bottom >= head[3] - slack_y)
    area = np.where(good, (right - left) * (bottom - top), 0.0)
    best = int(area.argmax())
    if area[best] < max(least, 1e-6) * (picture[2] - picture[0]) * (picture[3] - picture[1]):
        return None
    return tuple(float(side) for side in found[best])


def trimmed(box: Box, aspect: float, most: float | None, heads: Sequence[Box]) -> Box | None:
    """The box without the ends by which its long side is more than `most` times its short one; heads stay inside.

    aspect: width over height of the frame. None where the heads do not fit.
    """
    left, top, right, bottom = box
    wide, high = (right - left) * aspect, bottom - top
    if most is None or max(wide, high) <= most * min(wide, high):
        return box
    most *= 1 - ROUNDED
    first, begin, end, length = (0, left, right, most * high / aspect) if wide > high else (1, top, bottom, most * wide)
    heads_begin = min((head[first] for head in heads), default=(begin + end) / 2)
    heads_end = max((head[first + 2] for head in heads), default=(begin + end) / 2)
    if heads_end - heads_begin > length:
        return None
    start = min(max((heads_begin + heads_end - length) / 2, begin), end - length)
    return (start, top, start + length, bottom) if first == 0 else (left, start, right, start + length)


def _few(boxes: Sequence[Box]) -> list[Box]:
    """At most BOXES_MAX boxes: the two whose common box is smallest become one, again and again."""
    found = list(boxes)[: 4 * BOXES_MAX]
    while len(found) > BOXES_MAX:
        pairs = itertools.combinations(range(len(found)), 2)
        a, b = min(pairs, key=lambda pair: _area(union([found[pair[0]], found[pair[1]]])))
        found = [box for n, box in enumerate(found) if n not in (a, b)] + [union([found[a], found[b]])]
    return found


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around some boxes."""
    left, top, right, bottom = zip(*boxes, strict=True)
    return min(left), min(top), max(right), max(bottom)


def _inside(picture: Box) -> Box:
    """The picture without the soft edge of its border."""
    left, top, right, bottom = picture
    return left + EDGE * (left > 0), top + EDGE * (top > 0), right - EDGE * (right < 1), bottom - EDGE * (bottom < 1)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _widened(box: Box) -> Box:
    return box[0] - MARGIN, box[1] - MARGIN, box[2] + MARGIN, box[3] + MARGIN


def _boxes(clips: pa.Table, name: str) -> dict[int, list[Box]]:
    """Row -> boxes of a BOXES column, for the rows that have any (of `picture`: one that is not the whole frame)."""
    if name not in clips.column_names:
        return {}
    lengths = pc.fill_null(pc.list_value_length(clips[name]), 0).to_numpy()
    places = np.flatnonzero(lengths >= 4)
    if name == "picture" and len(places):  # most have no border
        sides = pc.list_flatten(clips[name].take(pa.array(places))).to_numpy().reshape(-1, 4)
        places = places[(sides != WHOLE).any(axis=1)]
    values = clips[name].take(pa.array(places)).to_pylist()
    return {int(p): [tuple(v[i : i + 4]) for i in range(0, len(v), 4)] for p, v in zip(places, values, strict=True)}


def _even(corners: np.ndarray, clips: pa.Table) -> list[np.ndarray]:
    """x, y, width, height in whole, even pixels of the frame, inside the corners [N, 4]."""
    found = []
    for low, high, side in ((0, 2, "width"), (1, 3, "height")):
        pixels = _numbers(clips, side)
        first = np.ceil(corners[:, low] * pixels / 2 - 1e-3) * 2
        stop = np.floor(corners[:, high] * pixels / 2 + 1e-3) * 2
        found.append((first, np.maximum(stop - first, 0)))
    (x, width), (y, height) = found
    return [x, y, width, height]
