"""Spherical k-means on the grid, and a tree of two levels of cells for what is near to what.

Everything is exact (see `grid`), so centres depend on the rows and their order alone: callers give rows in the order
of their clips' hashes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rushes.curation.content.grid import BLOCK, GRID, centres_of, nearest, sums

ITERATIONS = 10  # of Lloyd's rounds; later ones move few rows


def lloyd(rows: np.ndarray, k: int, iterations: int = ITERATIONS) -> np.ndarray:
    """Spherical k-means of int16 rows [N, D] in a random order: centres int16 [k, D], k <= N.

    Starts from the first k rows. A centre that loses all its rows takes the row that is worst served.
    """
    centres = rows[:k].copy()
    for _ in range(iterations if k > 1 else 1):
        label, score = nearest(rows, centres)
        total, count = sums(rows, label, k)
        moved = centres_of(total, centres)
        empty = np.flatnonzero(count == 0)
        if len(empty):
            moved[empty] = rows[np.argsort(score, kind="stable")[: len(empty)]]
        if (moved == centres).all():
            break
        centres = moved
    return centres


@dataclass(frozen=True)
class Cells:
    """Cells in two levels: `leaves` [K, D] in runs below `tops` [S, D]; the run of top s is first[s]:first[s + 1]."""

    tops: np.ndarray
    first: np.ndarray
    leaves: np.ndarray


def fit(rows: np.ndarray, k: int) -> Cells:
    """About sqrt(k) tops and k leaves below them, shared out by the number of rows. rows: int16 [N, D], N >= k."""
    tops = lloyd(rows, max(1, round(np.sqrt(k))))
    label, _ = nearest(rows, tops)
    count = np.bincount(label, minlength=len(tops))
    shares = _shared_out(k, count)
    leaves = [lloyd(rows[label == top], share) for top, share in enumerate(shares) if share]
    some = shares > 0
    return Cells(tops[some], np.concatenate([[0], np.cumsum(shares[some])]), np.concatenate(leaves))


def _shared_out(k: int, count: np.ndarray) -> np.ndarray:
    """k seats in proportion to the counts, the largest remainders first; none has more seats than rows."""
    exact = k * count / count.sum()
    seats = np.minimum(np.maximum(np.floor(exact).astype(np.int64), count > 0), count)
    order = np.lexsort((np.arange(len(count)), seats - exact))
    while seats.sum() < min(k, count.sum()):
        for place in order:
            if seats.sum() == k:
                break
            seats[place] += seats[place] < count[place]
    return seats


def probe(rows: np.ndarray, cells: Cells, tops: int, most: int, margin: float) -> np.ndarray:
    """The cells that each row is looked for in: int32 [N, most], its own first, -1 where there are fewer.

    The leaves below its `tops` nearest tops are compared; those count whose product with the row is at most
    `margin` (a cosine) below the best.
    """
    found = np.full((len(rows), most), -1, np.int32)
    tops = min(tops, len(cells.tops))
    size = int(np.diff(cells.first).max())
    top_centres, leaves = cells.tops.astype(np.float32).T, cells.leaves.astype(np.float32)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK].astype(np.float32)
        coarse = block @ top_centres
        chosen = np.argsort(-coarse, axis=1, kind="stable")[:, :tops]
        scores = np.full((len(block), tops, size), -np.inf, np.float32)
        for top in np.unique(chosen):
            row, slot = np.nonzero(chosen == top)
            low, high = cells.first[top], cells.first[top + 1]
            scores[row, slot, : high - low] = block[row] @ leaves[low:high].T
        flat = scores.reshape(len(block), -1)
        take = min(most, flat.shape[1])
        best = (
            np.argpartition(-flat, take - 1, axis=1)[:, :take]
            if take < flat.shape[1]
            else np.tile(np.arange(take), (len(block), 1))
        )
        value = np.take_along_axis(flat, best, axis=1)
        leaf = cells.first[np.take_along_axis(chosen, best // size, axis=1)] + best % size
        order = np.lexsort((leaf, -value), axis=1)
        value, leaf = np.take_along_axis(value, order, axis=1), np.take_along_axis(leaf, order, axis=1)
        near = value >= value[:, :1] - np.float32(margin * GRID * GRID)
        found[start : start + BLOCK, :take] = np.where(near, leaf, -1)
    return found
