"""Wipes: a growing part of the picture shows what comes, the rest what was."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from rushes.curation.gradual.explained import UNEXPLAINED_LEVELS, envelope, outside, unexplained
from rushes.curation.gradual.pictures import EDGED, EDGED_HALF, MIXED, UNLIKE, WEIGHT, Ring, Triples, extent, quarters

WIPE_SUM = (0.82, 1.22)  # |M-A|^2 + |M-B|^2 over |A-B|^2: 1 where each pixel is of A or of B, 2 for a third picture
WIPE_ERROR_MAX = 0.06  # share of the change that a mask leaves unexplained
WIPE_STEPS = 3  # pictures that a wipe takes at least
WIPE_BACK = 0.06  # share of the change that becomes A again in a wipe, at most
WIPE_EDGE = 0.3  # length of the edge between A and B, as the share of 5 x 5 pixels that are of both
WIPE_NEW = 1.3  # what is new in the middle half, over the change
WIPE_UNEXPLAINED = 0.25  # share of the change from quarter to quarter that no motion explains


def wipe_errors(triples: Triples) -> np.ndarray:
    """How far the pictures between are from sharing their pixels between A and B, inf where it is no wipe."""
    good, last, error = (triples.alike < UNLIKE) & (triples.halves >= EDGED_HALF), 0.0, 0.0
    for to_a, to_b in triples.quarters:
        total = to_a + to_b
        good &= (total > WIPE_SUM[0]) & (total < WIPE_SUM[1]) & (to_a > last)
        last, error = to_a, error + np.abs(total - 1)
    good &= (triples.path > WIPE_SUM[0]) & (triples.path < WIPE_SUM[1])
    return np.where(triples.gradual(good, calm=False), error, np.inf)


def wipe(ring: Ring, end: int, half: int) -> tuple[int, int, float] | None:
    begin = end - 2 * half
    a, b = ring.luma[begin], ring.luma[end]
    around_a, around_b = envelope(a), envelope(b)
    apart = cv2.min(outside(a, around_b), outside(b, around_a))
    change = float(apart.mean())
    if change < UNEXPLAINED_LEVELS:
        return None
    looked = quarters(half)
    left_out = [[outside(picture, around) for around in (around_a, around_b)] for picture in ring.luma[begin : end + 1]]
    error = max(float(cv2.min(*left_out[place]).mean()) / change for place in looked)
    if error > WIPE_ERROR_MAX:
        return None
    masks = np.array([to_b < to_a for to_a, to_b in left_out])  # where a picture is B
    weights = apart / (apart.size * change)
    shares = (masks * weights).sum(axis=(1, 2))
    one, two, three = (shares[place] for place in looked)
    if not (one < two < three and WEIGHT[0] < two < WEIGHT[1]):
        return None
    if ((shares > MIXED[0]) & (shares < MIXED[1])).sum() < WIPE_STEPS or not _one_edge(masks, weights, looked):
        return None
    if not _new_things(ring.luma, [begin + place for place in looked], change):
        return None
    return (*extent(shares, begin, EDGED), 1 - error)


def _one_edge(masks: np.ndarray, weights: np.ndarray, looked: tuple[int, ...]) -> bool:
    """Whether B only ever grows, and has a short edge."""
    if float(((masks[:-1] & ~masks[1:]) * weights).sum()) > WIPE_BACK:
        return False
    for place in looked:
        around = cv2.blur(masks[place].astype(np.float32), (5, 5))
        if float((np.minimum(around, 1 - around) * weights).sum()) > WIPE_EDGE:
            return False
    return True


def _new_things(luma: np.ndarray, places: list[int], change: float) -> bool:
    """Whether from each of these pictures to the next something comes that is no motion, and not too much."""
    levels = []
    for one, other in itertools.pairwise(places):
        share, level = unexplained(luma[one], luma[other])
        if share < WIPE_UNEXPLAINED or level < UNEXPLAINED_LEVELS / 4:
            return False
        levels.append(level)
    return sum(levels) < WIPE_NEW * change
