"""Doubts: how much a change looks like a transition, though no detector may be sure of it.

A forest (doubts.npz) looks at what scalar products say of the pictures before, between and after, at the fine detail of
blocks, which two pictures that lie over one another hide, and at the pixels between (ghosts.py). It was taught on made
films of the fitting half of the footage: `python -m tests.accuracy.scenes_fit`. A doubt ends no shot: clips are planned
around it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from rushes.curation import forest
from rushes.curation.gradual import ghosts
from rushes.curation.gradual.pictures import Ring, Triples, weight_and_residual

MODEL = Path(__file__).with_name("doubts.npz")
BLOCKS = (4, 6)  # rows, columns in which detail is told
FIRST = 10  # trees that are asked first, of what is told quickly ...
FIRST_MIN = 0.1  # ... and whether there is any doubt: the others are asked where there is
UNKNOWN = -1.0
QUICK = (
    "change", "alike", "path", "weight early", "residual early", "sum early", "weight half", "residual half",
    "sum half", "weight late", "residual late", "sum late", "largest step", "second step", "median step", "calm",
    "steady", "mean", "spread before", "spread half", "spread after", "brighter", "detail lost", "detail lost, median",
    "detail lost to both", "steps", "steps before", "change before",
)  # fmt: skip
NAMES = (*QUICK, *ghosts.NAMES)


def detail(luma: np.ndarray) -> np.ndarray:
    """Mean absolute Laplacian of each block: float32 [n, blocks]. luma: uint8 [n, h, w]."""
    edges = np.stack([cv2.convertScaleAbs(cv2.Laplacian(picture, cv2.CV_16S)) for picture in luma])
    return block_sums(edges.reshape(len(edges), -1), luma.shape[1:]) / (edges[0].size / (BLOCKS[0] * BLOCKS[1]))


def block_sums(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sums over blocks: float32 [n, blocks] of values [n, h * w]."""
    down, across = (_edges(length, blocks) for length, blocks in zip(shape, BLOCKS, strict=True))
    rows = np.add.reduceat(values.reshape(len(values), *shape), down, axis=1, dtype=np.float32)
    return np.add.reduceat(rows, across, axis=2).reshape(len(values), -1)


@cache
def _edges(length: int, blocks: int) -> np.ndarray:
    """Where the blocks begin."""
    return np.minimum(-(-np.arange(blocks) * length // blocks), length - 1)


def quick(triples: Triples) -> np.ndarray:
    """What the first trees look at, QUICK: float32 [n, features]."""
    ring, size = triples.ring, triples.ring.values.shape[1]
    middles = triples.ends - triples.halves
    columns = [triples.change, triples.alike, triples.path]
    for to_a, to_b in triples.quarters:
        columns += [*weight_and_residual(to_a, to_b), to_a + to_b]
    columns += _steps(triples)
    columns.append(ring.means[triples.begins])
    columns += [np.sqrt(ring.band[places, 0] / size) for places in (triples.begins, middles, triples.ends)]
    columns.append(ring.means[triples.ends] - ring.means[triples.begins])
    columns += _detail_lost(triples, middles)
    columns.append(triples.halves)
    columns += _before(triples)
    return np.stack(columns, axis=1).astype(np.float32)


def _steps(triples: Triples) -> list[np.ndarray]:
    """Of the steps from picture to picture within a triple: the largest over the change, and the second over it; the
    median; those at the edges over those in the middle; and the change over their sum."""
    steps = triples.ring.steps
    found = np.zeros((len(triples), 5), np.float32)
    for half in np.unique(triples.halves).tolist():
        which = np.flatnonzero(triples.halves == half)
        within = np.lib.stride_tricks.sliding_window_view(steps, 2 * half)[triples.begins[which]]
        change = np.maximum(triples.change[which], 0.1)
        ordered, edge = np.sort(within, axis=1), max(1, half // 4)
        inner = np.median(within[:, half // 2 : 2 * half - half // 2], axis=1)
        outer = np.minimum(within[:, :edge].mean(axis=1), within[:, -edge:].mean(axis=1))
        found[which] = np.stack(
            [
                ordered[:, -1] / change,
                ordered[:, -2] / np.maximum(ordered[:, -1], 0.1),
                (ordered[:, half - 1] + ordered[:, half]) / 2,
                outer / np.maximum(inner, 0.1),
                change / np.maximum(within.sum(axis=1), 0.1),
            ],
            axis=1,
        )
    return list(found.T)


def _before(triples: Triples) -> list[np.ndarray]:
    """The steps in the half length before a triple over those within, and the change in that time over the triple's
    own; UNKNOWN where the film, or what is kept of it, begins there."""
    sums = np.append(0, np.cumsum(triples.ring.steps))
    earlier = triples.begins - triples.halves
    known = np.flatnonzero(earlier >= 0)
    found = np.full((2, len(triples)), UNKNOWN, np.float32)
    begins, ends = triples.begins[known], triples.ends[known]
    within = (sums[ends] - sums[begins]) / 2
    found[0, known] = (sums[begins] - sums[earlier[known]]) / np.maximum(within, 0.1)
    found[1, known] = triples.ring.change(begins, triples.halves[known]) / triples.change[known]
    return list(found)


def _detail_lost(triples: Triples, middles: np.ndarray) -> list[np.ndarray]:
    """Share of the detail that is lost half-way, -1 to 1: of the mean of before and after, by the blocks' change;
    the median of blocks; and of the lesser of both."""
    ring = triples.ring
    change = ring.values[triples.ends] - ring.values[triples.begins]
    change += (ring.means[triples.ends] - ring.means[triples.begins])[:, None]
    changed = block_sums(change * change, ring.luma.shape[1:]) + 1
    before, between, after = (ring.detail[places] for places in (triples.begins, middles, triples.ends))
    expected = (before + after) / 2
    weights = changed * expected
    weights /= weights.sum(axis=1, keepdims=True) + 1e-6
    lost = np.clip(1 - between / (expected + 0.5), -1, 1)
    lost_to_both = np.clip(1 - between / (np.minimum(before, after) + 0.5), -1, 1)
    return [(weights * lost).sum(axis=1), np.median(lost, axis=1), (weights * lost_to_both).sum(axis=1)]


def features(triples: Triples, quickly: np.ndarray) -> np.ndarray:
    """What the other trees look at, NAMES: float32 [n, features], with what is told quickly of them."""
    return np.concatenate([quickly, np.stack(ghosts.ghosts(triples), axis=1)], axis=1)


def doubts(triples: Triples) -> np.ndarray:
    """How much each looks like a transition, 0-1: float32 [n]."""
    if not len(triples):
        return np.empty(0, np.float32)
    first, rest = _model()
    rows = quick(triples)
    found = first(rows)[:, 0]
    unsure = np.flatnonzero(found >= FIRST_MIN)
    if len(unsure):
        found[unsure] = rest(features(triples.those(unsure), rows[unsure]))[:, 0]
    return found


@cache
def _model() -> tuple[forest.Forest, forest.Forest]:
    """The trees that are asked first, and the others."""
    whole, _ = forest.load(MODEL)
    return whole.part(0, FIRST), whole.part(FIRST, len(whole.roots))


__all__ = ["NAMES", "QUICK", "Ring", "detail", "doubts", "features", "quick"]
