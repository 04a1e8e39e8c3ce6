"""Split screens and a video inside a video: edges that stand still where the picture moves.

Where two pictures meet, their border is a straight edge at the same place in every still, whatever happens beside it.
An edge of the scene goes when the camera moves or something passes in front of it, and where nothing moves it tells
nothing. So every pixel votes: an edge that stands where the picture changes speaks for a border, a change without an
edge against it. The border is the line, or the rectangle, that has most votes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rushes.curation.meter import Unmeasured
from rushes.curation.tracks import spread
from rushes.curation.visual.frame_stats import shrink

NAME = "edges that stand while the picture moves"
SIDE, STILLS = 320, 6  # pixels, longer side of the stills that are searched, and how many of a clip
SIDE_MIN = 32  # pixels: a smaller picture has no panels to speak of
STEP = 4.0  # grey levels: an edge
SHARP = 1.5  # an edge is so many times as strong as the steps around it
MISSING_FROM = 5  # stills from which an edge may be missing in one: what is beside it may be alike there
AROUND = 4  # pixels on both sides of an edge that are asked for steps and for change
CHANGE = 12.0  # grey levels between stills: the picture changes
#: Votes of a pixel: an edge where the picture changes, a change without an edge, an edge or none where nothing changes.
STANDS, PASSES, REST_EDGE, REST = 1.0, -1.0, 0.15, -0.15
EDGES = 0.1  # of the sides: a line nearer to the frame's edge is a bar
PANEL_MIN = 0.2  # of a side: a smaller panel is a logo
LINES = 16  # of each direction that are tried as the sides of a panel
APART = 3  # pixels between two of them
ALIKE = 0.1  # of a panel's height: ends of its sides that differ by more do not meet

SURE = 0.4  # score from which there are panels (docs/accuracy.md)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Split:
    """score: 0 (one picture) to 1. box: one of the panels, as shares of the sides: left, top, right, bottom."""

    score: float
    box: Box | None = None


def split_screen(pictures: Sequence[np.ndarray]) -> Split | Unmeasured:
    """Whether the picture is made of several. pictures: uint8 BGR [h, w, 3] of one clip, in order of time."""
    if len(pictures) < 2:
        return Unmeasured("one still does not show what stands")
    if len({picture.shape for picture in pictures}) > 1:
        return Unmeasured("the picture changes its size")
    stills = [cv2.cvtColor(shrink(picture, SIDE), cv2.COLOR_BGR2GRAY) for picture in spread(pictures, STILLS)]
    if min(stills[0].shape) < SIDE_MIN:
        return Unmeasured("the picture is too small")
    upright = votes(stills)
    level = votes([np.ascontiguousarray(still.T) for still in stills])
    return max(_halves(upright), _turned(_halves(level)), _panel(upright, level), key=lambda split: split.score)


def votes(stills: Sequence[np.ndarray]) -> np.ndarray:
    """For every pixel, whether an upright border stands on it: float32 [h, w], of STANDS, PASSES, REST_EDGE, REST."""
    lumas = [cv2.blur(still, (1, 3)).astype(np.float32) for still in stills]
    seen = np.sum([_edges(luma) for luma in lumas], axis=0)
    edge = seen >= len(lumas) - (len(lumas) >= MISSING_FROM)
    changed = (np.max(lumas, axis=0) - np.min(lumas, axis=0) > CHANGE).astype(np.uint8)
    changed = cv2.dilate(changed, np.ones((1, 2 * AROUND + 1), np.uint8)) > 0
    return np.where(changed, np.where(edge, STANDS, PASSES), np.where(edge, REST_EDGE, REST)).astype(np.float32)


def _edges(luma: np.ndarray) -> np.ndarray:
    """Sharp upright edges of one still, thin lines among them, one pixel to spare on both sides."""
    step = np.abs(cv2.Sobel(luma, cv2.CV_32F, 1, 0, ksize=1))
    wide = 2 * AROUND + 1
    around = (cv2.blur(step, (wide, 1)) * wide - cv2.blur(step, (3, 1)) * 3) / (wide - 3)
    return cv2.dilate(((step > STEP) & (step > SHARP * around)).astype(np.uint8), np.ones((1, 3), np.uint8)) > 0


def _halves(found: np.ndarray) -> Split:
    """The best line from top to bottom."""
    means = found.mean(axis=0)
    width = len(means)
    low, high = round(EDGES * width), width - round(EDGES * width)
    if high <= low:
        return Split(0.0)
    place = low + int(np.argmax(means[low:high]))
    return Split(max(float(means[place]), 0.0), (0.0, 0.0, place / width, 1.0))


def _turned(split: Split) -> Split:
    if split.box is None:
        return split
    left, top, right, bottom = split.box
    return Split(split.score, (top, left, bottom, right))


def _panel(upright: np.ndarray, level: np.ndarray) -> Split:
    """The best rectangle: two upright sides that begin and end alike, and what lies between their ends."""
    height, width = upright.shape
    best = Split(0.0)
    lines = segments(upright, round(PANEL_MIN * height))
    for (x0, top, bottom), (x1, other_top, other_bottom) in itertools.combinations(sorted(lines), 2):
        near = ALIKE * (bottom - top)
        if x1 - x0 < PANEL_MIN * width or abs(top - other_top) > near or abs(bottom - other_bottom) > near:
            continue
        sides = [upright[top:bottom, x].mean() for x in (x0, x1)]
        for y in (min(top, other_top), max(bottom, other_bottom)):
            if EDGES / 4 * height < y < (1 - EDGES / 4) * height:
                low, high = max(0, y - AROUND), min(height, y + AROUND + 1)
                sides.append(level[x0:x1, low:high].mean(axis=0).max())
        score = float(np.mean(sides))
        if len(sides) > 2 and score > best.score:
            best = Split(score, (x0 / width, top / height, x1 / width, bottom / height))
    return best


def segments(found: np.ndarray, least: int) -> list[tuple[int, int, int]]:
    """The LINES best upright pieces of a line, as (x, from, to): of each column the run with most votes."""
    height, width = found.shape
    total, begin = np.zeros(width, np.float32), np.zeros(width, int)
    best, first, last = np.zeros(width, np.float32), np.zeros(width, int), np.zeros(width, int)
    for y in range(height):
        fresh = total <= 0
        begin[fresh] = y
        total = np.where(fresh, 0, total) + found[y]
        more = total > best
        best[more], first[more], last[more] = total[more], begin[more], y + 1
    best[last - first < least] = 0
    lines = []
    while len(lines) < LINES and best.max() > 0:
        x = int(np.argmax(best))
        lines.append((x, int(first[x]), int(last[x])))
        best[max(0, x - APART) : x + APART + 1] = 0
    return lines
