"""Where burnt-in letters stand, to the pixel.

A reader's boxes reach half a letter beyond the text and miss words at its ends. Letters are strokes of one brightness
that stay where they are while the picture behind them moves: the box is drawn round the strokes that all stills with
this text share. The mean of the stills shows such text where a restless picture hides it in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Box = tuple[float, float, float, float]  # left, top, right, bottom, as shares of the picture's sides

STROKE = 0.2  # of the height of a reader's box, which is twice that of its letters: the widest stroke
STROKE_MIN = 3  # pixels
AROUND = (2.5, 0.1)  # of the box's height, to the sides, above and below: where the rest of a line may stand
CORE = (0.25, 0.75)  # of the box's height: rows with letters
LINE = (0.35, 0.65)  # ... rows that every letter touches
SAME = 0.7  # correlation of two stills' strokes from which the same text stands in both
SAME_MEAN, STANDS = 0.5, 0.82  # the same to their mean, and that of what they share to their mean
STRONG, INK = 92, 0.5  # percentile of the core's strokes that is a letter's middle, and its share that is ink
INK_MIN = 6  # grey levels: weaker strokes are coding noise
SHADES, SHADES_MIN = 3.0, 20.0  # spread of the ink's grey levels, in deviations of its middle and in grey levels
SPECK = 3  # pixels: less is no part of a letter
TALL = 0.5  # of the median height: lower parts are dots and dashes, which say nothing of the line
BEYOND = 0.7  # of the line's height by which a letter may reach above or below it
GAP, GAP_HEIGHT = 0.7, 0.4  # of the line's height: to the next letter, and that letter's least height
UPRIGHT = 1.5  # height over width from which letters stand below each other
LEVEL = 0.12  # slope of a line beyond which no upright box is drawn round its letters
PAD = 0.18  # of a line's height by which the reader's boxes reach beyond letters that are not found


@dataclass(frozen=True)
class Lettering:
    """Text in one place. raw: the reader's box, letters: the box round its ink, both in pixels; stills: where it is."""

    raw: Box
    letters: Box
    stills: tuple[int, ...]

    def shares(self, height: int, width: int) -> Box:
        """`letters` as shares of the picture's sides."""
        sides = np.array(self.letters) / (width, height, width, height)
        return tuple(float(side) for side in sides.clip(0.0, 1.0))


def standing(stills: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of stills of one shape, uint8 [H, W, 3]: what moves fades, what stands stays."""
    total = np.zeros(stills[0].shape, np.float32)
    for still in stills:
        cv2.accumulate(still, total)
    return cv2.convertScaleAbs(total, alpha=1 / len(stills))


def lettering(lumas: Sequence[np.ndarray], place: int, corners: np.ndarray, mean: bool = False) -> Lettering:
    """The text that a reader found at `corners` [4, 2] (pixels) of lumas[place], uint8 [H, W] of one shape.

    mean: lumas[place], the last, is the mean of the others. Two texts that take turns are one blur there, which stands
    nowhere: it is in no picture.
    """
    raw = upright(corners)
    wide, high = raw[2] - raw[0], raw[3] - raw[1]
    along = corners[1] - corners[0]
    if min(abs(along)) > LEVEL * max(abs(along)) or min(wide, high) < STROKE_MIN:
        return Lettering(raw, _without_margin(raw), (place,))
    if high < UPRIGHT * wide:
        letters, stills = _tight(lumas, place, raw, mean)
    else:
        letters, stills = _tight([luma.T for luma in lumas], place, _turned(raw), mean)
        letters = letters and _turned(letters)
    return Lettering(raw, letters or _without_margin(raw), stills)


def _turned(box: Box) -> Box:
    return box[1], box[0], box[3], box[2]


def _without_margin(raw: Box) -> Box:
    pad = PAD * min(raw[2] - raw[0], raw[3] - raw[1]) / 2
    return raw[0] + pad, raw[1] + pad, raw[2] - pad, raw[3] - pad


def _tight(lumas: Sequence[np.ndarray], place: int, raw: Box, mean: bool) -> tuple[Box | None, tuple[int, ...]]:
    """(box round the letters of a line or None, pictures in which they stand)."""
    rows, columns = lumas[0].shape
    high = raw[3] - raw[1]
    x0, x1 = max(0, int(raw[0] - AROUND[0] * high)), min(columns, int(np.ceil(raw[2] + AROUND[0] * high)))
    y0, y1 = max(0, int(raw[1] - AROUND[1] * high)), min(rows, int(np.ceil(raw[3] + AROUND[1] * high)))
    crops = [np.ascontiguousarray(luma[y0:y1, x0:x1]) for luma in lumas]
    left, right = max(0, int(raw[0] - x0)), int(np.ceil(raw[2] - x0))
    top, bottom = (raw[1] - y0 + share * high for share in CORE)
    core = slice(int(top), max(int(bottom), int(top) + 1)), slice(left, right)
    size = max(STROKE_MIN, int(STROKE * high)) | 1
    bright = max((True, False), key=lambda bright: float(_strokes(crops[place], size, bright)[core].mean()))
    strokes = [_strokes(crop, size, bright) for crop in crops]
    own = strokes[place][core]
    if mean:
        places = [n for n, other in enumerate(strokes[:-1]) if _correlation(own, other[core]) > SAME_MEAN]
    else:
        places = [n for n, other in enumerate(strokes) if n == place or _correlation(own, other[core]) > SAME]
    shared = np.minimum.reduce([strokes[n] for n in places or [place]])
    if mean and (not places or _correlation(own, shared[core]) < STANDS):
        return None, ()
    ink = _ink(shared, [crops[n] for n in places], core)
    line = [raw[1] - y0 + share * high for share in LINE]
    box = _around(_letters(ink, line), left, right, grow=len(places) > 1)
    return box and (x0 + box[0], y0 + box[1], x0 + box[2], y0 + box[3]), tuple(places)


def _strokes(luma: np.ndarray, size: int, bright: bool) -> np.ndarray:
    """How far lines thinner than `size` pixels stand out from both of their sides, uint8 [h, w]."""
    return cv2.morphologyEx(luma, cv2.MORPH_TOPHAT if bright else cv2.MORPH_BLACKHAT, np.ones((size, size), np.uint8))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (values.astype(np.float32) - values.mean() for values in (a, b))
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-6))


def _ink(shared: np.ndarray, crops: Sequence[np.ndarray], core: tuple[slice, slice]) -> np.ndarray:
    """Pixels that are part of a letter, uint8 [h, w]: strong strokes, in every crop of the letters' grey level."""
    level = float(np.percentile(shared[core], STRONG))
    ink = shared > max(INK * level, INK_MIN)
    middle = shared[core] >= 0.8 * level
    for crop in crops:
        shades = crop[core][middle].astype(np.float32)
        usual = float(np.median(shades))
        spread = max(SHADES * 1.48 * float(np.median(np.abs(shades - usual))), SHADES_MIN, INK * level)
        ink &= np.abs(crop.astype(np.float32) - usual) < spread
    return ink.astype(np.uint8)


def _letters(ink: np.ndarray, line: Sequence[float]) -> np.ndarray:
    """Boxes [n, 4] of connected ink that touches the line's middle rows."""
    x, y, width, height, area = cv2.connectedComponentsWithStats(ink, connectivity=8)[2][1:].T
    touches = (area >= SPECK) & (y < line[1]) & (y + height > line[0])
    return np.stack([x, y, x + width, y + height], axis=1)[touches]


def _around(letters: np.ndarray, left: int, right: int, grow: bool) -> Box | None:
    """The box round the letters within [left, right); grow: and round those that go on with the line."""
    inside = (letters[:, 2] > left) & (letters[:, 0] < right)
    if not inside.any():
        return None
    first, top, last, bottom = letters[inside].T
    heights = bottom - top
    tall = heights >= TALL * np.median(heights)
    usual_top, usual_bottom = np.median(top[tall]), np.median(bottom[tall])
    beyond = BEYOND * (usual_bottom - usual_top)
    top, bottom = max(top.min(), usual_top - beyond), min(bottom.max(), usual_bottom + beyond)
    first, last, high = first.min(), last.max(), bottom - top
    others = letters[~inside & (letters[:, 3] - letters[:, 1] > GAP_HEIGHT * high)]
    others = others[(others[:, 1] >= top - 2) & (others[:, 3] <= bottom + 2)] if grow else others[:0]
    for begin, _, end, _ in others[np.argsort(others[:, 0])]:
        last = max(last, end) if begin - last < GAP * high else last
    for begin, _, end, _ in others[np.argsort(-others[:, 2])]:
        first = min(first, begin) if first - end < GAP * high else first
    return float(first), float(top), float(last), float(bottom)


def upright(corners: np.ndarray) -> Box:
    """The upright box around corners [4, 2]."""
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def meets(box: Box, other: Box, gap: float = 0.0) -> bool:
    """Whether two boxes overlap, or lie within `gap` of each other."""
    across = min(box[2], other[2]) - max(box[0], other[0])
    down = min(box[3], other[3]) - max(box[1], other[1])
    return across > -gap and down > -gap


def overlap(box: Box, other: Box) -> float:
    """Area that two boxes share over the area that they cover."""
    across = min(box[2], other[2]) - max(box[0], other[0])
    down = min(box[3], other[3]) - max(box[1], other[1])
    both = max(across, 0.0) * max(down, 0.0)
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    return both / max(areas - both, 1e-9)


def merged(boxes: Sequence[Box], gap: float = 0.02) -> tuple[Box, ...]:
    """Boxes that overlap, or lie within `gap` of each other, as one: words of a line, lines of a subtitle."""
    found: list[Box] = []
    for box in boxes:
        while near := [other for other in found if meets(box, other, gap)]:
            found = [other for other in found if other not in near]
            lefts, tops, rights, bottoms = zip(box, *near, strict=True)
            box = min(lefts), min(tops), max(rights), max(bottoms)
        found.append(box)
    return tuple(found)
