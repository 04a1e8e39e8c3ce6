"""Ghosts: pixels half-way between what was and what comes. A dissolve makes them, also over a subject that moves on.

Where a subject moves, a pixel shows what was or what comes, and turns from one to the other within a step or two; in
a dissolve it goes from one to the other in all of its time. Pixels that a displacement by one explains are left out.
"""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.gradual.explained import envelope, outside
from rushes.curation.gradual.pictures import Triples, quarters

APART_MIN = 6  # grey levels by which a pixel lies outside of what is around it in the other picture, to be looked at
BETWEEN = 0.25  # of the way, by which a pixel of the middle picture may lie off the middle
BETWEEN_QUARTERS = 0.2  # ... and of the other two off a quarter and three quarters
SETTLED = 0.15  # of the way, within which a pixel of the middle picture shows what was, or what comes
NAMES = ("ghosts", "ghosts early", "ghosts late", "settled", "ghosts throughout", "strange", "strange early",
         "apart", "apart, share", "way", "way, spread")  # fmt: skip


def ghosts(triples: Triples) -> list[np.ndarray]:
    """NAMES, each float32 [n].

    Of the pixels that are apart before and after, weighted by how far: the share that lies half-way in the middle; a
    quarter and three quarters of the way in the others; at either end; and where it has to be in all three. What of
    the middle and the early picture lies outside of both, over what is apart; the mean that is apart, grey levels, and
    its share of the pixels; the mean of the way in the middle, and its mean deviation.
    """
    flat = triples.ring.luma.reshape(len(triples.ring), -1)
    early, middles, late = (triples.begins + place for place in quarters(triples.halves))
    around = [_around(triples.ring.luma, places) for places in (triples.begins, triples.ends)]
    a, b = flat[triples.begins], flat[triples.ends]
    apart = cv2.min(outside(b, around[0]), outside(a, around[1]))
    weight = np.where(apart > APART_MIN, apart, 0).astype(np.float32)
    total, every = weight.sum(axis=1) + 1e-6, apart.sum(axis=1, dtype=np.float32) + 1
    start, change = a.astype(np.float32), b.astype(np.float32) - a
    change[np.abs(change) < 1] = 1

    def share(of: np.ndarray) -> np.ndarray:
        return np.einsum("np,np->n", weight, of.astype(np.float32, copy=False)) / total

    ways = [(flat[places] - start) / change for places in (early, middles, late)]
    off = zip(ways, (0.25, 0.5, 0.75), (BETWEEN_QUARTERS, BETWEEN, BETWEEN_QUARTERS), strict=True)
    first, half, last = (np.abs(way - place) < least for way, place, least in off)
    way = np.clip(ways[1], -0.5, 1.5)
    mean = share(way)
    strange = [
        cv2.min(*(outside(flat[places], sides) for sides in around)).sum(axis=1, dtype=np.float32)
        for places in (middles, early)
    ]
    return [
        share(half), share(first), share(last), share(np.abs(way - 0.5) > 0.5 - SETTLED), share(first & half & last),
        strange[0] / every, strange[1] / every, every / apart.shape[1], (weight > 0).mean(axis=1), mean,
        share(np.abs(way - mean[:, None])),
    ]  # fmt: skip


def _around(luma: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value within a pixel of the pictures at these places, uint8 [n, p] each."""
    several, which = np.unique(places, return_inverse=True)
    low, high = (np.stack(side).reshape(len(several), -1) for side in zip(*map(envelope, luma[several]), strict=True))
    return low[which], high[which]
