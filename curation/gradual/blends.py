"""Dissolves and fades: every picture between is a weighted sum of one before and one after."""

from __future__ import annotations

import numpy as np

from rushes.curation.gradual.explained import UNEXPLAINED_LEVELS, UNEXPLAINED_MIN, active_box, unexplained
from rushes.curation.gradual.pictures import WEIGHT, Ring, Triples, extent, weight_and_residual

WEIGHT_EDGE = (-0.05, 1.05)  # ... and anywhere within it
#: Share of the change that a weighted sum may leave unexplained, both root mean square, by the correlation of the two
#: pictures: where they have nothing in common, motion in them may leave more.
ALIKE = (0.4, 0.75)
RESIDUAL_MAX = (0.3, 0.2, 0.22)
#: Of two pictures that are alike, a dissolve within one take: a residual above this asks for more that is unexplained.
TAKE_RESIDUAL, TAKE_CHANGE, TAKE_UNEXPLAINED, TAKE_LEVELS = 0.1, 12.0, 0.39, 3.0


def blend_errors(triples: Triples) -> np.ndarray:
    """What a weighted sum leaves of the change, inf for a triple that can be no dissolve: float [n]."""
    (early, at_early), (weight, residual), (late, at_late) = (weight_and_residual(*q) for q in triples.quarters)
    most = np.array(RESIDUAL_MAX)[np.digitize(triples.alike, ALIKE)]
    good = (np.maximum(np.maximum(residual, at_early), at_late) < most) & (early < weight) & (weight < late)
    good &= (weight > WEIGHT[0]) & (weight < WEIGHT[1]) & (early > WEIGHT_EDGE[0]) & (late < WEIGHT_EDGE[1])
    good &= (triples.alike < ALIKE[1]) | (residual < TAKE_RESIDUAL) | (triples.change > TAKE_CHANGE)
    return np.where(good, residual, np.inf)


def blend(ring: Ring, end: int, half: int) -> tuple[int, int, float] | None:
    begin = end - 2 * half
    forward = np.arange(2 * half + 1)
    triples = Triples(ring, np.full(len(forward), end), np.full(len(forward), half))
    weights, residuals = weight_and_residual(*triples.between(forward))
    a, b = ring.luma[begin], ring.luma[end]
    box = active_box(a, b)
    share, level = unexplained(a[box], b[box])
    wanted = UNEXPLAINED_MIN, UNEXPLAINED_LEVELS
    if triples.alike[0] > ALIKE[1] and residuals[half] > TAKE_RESIDUAL:
        wanted = TAKE_UNEXPLAINED, TAKE_LEVELS
    if share < wanted[0] or level < wanted[1]:
        return None
    return (*extent(weights, begin), max(0.0, 1 - float(residuals[half]) / RESIDUAL_MAX[0]))
