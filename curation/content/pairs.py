"""Near copies among many vectors: pairs from cells, and the leaders of the graph of pairs.

1. `scatter` (per part)   each vector goes to its nearest cell, and visits the cells that are nearly as near
2. `pairs` (per run of cells)   those at home in a cell against all that are at home or visit: pairs above the threshold
3. `leaders.leaders`   clips in the order of their hash: one without an earlier neighbour that leads is a leader, any
   other follows the leader that it is most like. Nothing chains: each follower lies within the threshold of its leader

Clips are named by the 64-bit hash of their id, so nothing depends on shards, workers or the order of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rushes.curation.content import arrays
from rushes.curation.content.cells import Cells, probe
from rushes.curation.content.grid import BLOCK, known, lengths

PAIR = np.dtype([("a", np.uint64), ("b", np.uint64), ("cosine", np.float32)])
ENTRY = np.dtype([("cell", np.int32), ("home", np.bool_), ("clip", np.uint64)])

ROWS_PER_CELL = 512  # on average
TOPS = 6  # runs of cells that are looked at for each row
VISITS = 12  # most cells that a row is looked for in, its own included
MARGIN = 0.12
"""A cell is visited if it is at most this much (cosine) further than the nearest; see docs/content.md for recall."""

CROWD = 32
"""Pairs per row of a cell above which its rows are first drawn together by TIGHT: a million takes of one logo would
otherwise be 5e11 pairs."""
TIGHT = 1 / 16  # of (1 - threshold): rows this near their leader share its fate


def scatter(rows: np.ndarray, clips: np.ndarray, cells: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries (ENTRY, sorted by cell), the row that each is of, and pairs of rows that are equal byte by byte.

    Of equal rows only the one with the smallest hash goes to the cells; the others are told by their pairs.
    """
    seen = np.flatnonzero(known(rows))
    seen, same = _without_equals(rows, clips, seen)
    where = probe(rows[seen], cells, TOPS, VISITS, MARGIN)
    row, visit = np.nonzero(where >= 0)
    entries = np.empty(len(row), ENTRY)
    entries["cell"], entries["home"], entries["clip"] = where[row, visit], visit == 0, clips[seen[row]]
    order = np.lexsort((entries["clip"], ~entries["home"], entries["cell"]))
    return entries[order], seen[row[order]], same


def _without_equals(rows: np.ndarray, clips: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = seen[np.argsort(clips[seen], kind="stable")]
    mixed = np.zeros(len(seen), np.uint64)
    width = rows.shape[1]
    draw = np.random.default_rng(0).integers(1, 2**63, width, dtype=np.uint64) | np.uint64(1)
    for part in arrays.slices(len(seen), BLOCK):
        words = rows[seen[part]].astype(np.uint64)
        mixed[part] = (words * draw).sum(axis=1, dtype=np.uint64)
    _, first, inverse = np.unique(mixed, return_index=True, return_inverse=True)
    stands = first[inverse]  # np.unique gives the first, which has the smallest hash
    other = np.flatnonzero(stands != np.arange(len(seen)))
    equal = (rows[seen[other]] == rows[seen[stands[other]]]).all(axis=1)
    other = other[equal]
    same = np.empty(len(other), PAIR)
    same["a"], same["b"], same["cosine"] = clips[seen[stands[other]]], clips[seen[other]], 1.0
    return np.delete(seen, other), same


def pairs(entries: np.ndarray, rows: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (a < b) within cells of entries [E] with rows int16 [E, D], and pairs (leader, row) drawn together."""
    order = np.lexsort((entries["clip"], ~entries["home"], entries["cell"]))
    entries, rows = entries[order], rows[order]
    starts = np.flatnonzero(np.append(True, entries["cell"][1:] != entries["cell"][:-1])) if len(entries) else []
    found, drawn = [np.empty(0, PAIR)], [np.empty(0, PAIR)]
    for start, stop in zip(starts, np.append(starts[1:], len(entries))):
        home = int(entries["home"][start:stop].sum())
        clips = entries["clip"][start:stop]
        cell = _Cell(clips, rows[start:stop], home, threshold)
        near = cell.near(CROWD)
        if near is None:
            together, kept = cell.draw_together()
            drawn.append(together)
            cell = _Cell(clips[kept], rows[start:stop][kept], int((kept < home).sum()), threshold)
            near = cell.near(None)
        found.append(near)
    return np.unique(np.concatenate(found)), np.concatenate(drawn)


@dataclass
class _Cell:
    clips: np.ndarray  # uint64 [N], those at home first, each part in the order of its hashes
    rows: np.ndarray  # int16 [N, D]
    home: int
    threshold: float

    def near(self, crowd: int | None) -> np.ndarray | None:
        """Pairs above the threshold with one end at home; None where there are more than `crowd` for each row."""
        wide, length = self.rows.astype(np.float32), lengths(self.rows)
        floor = np.float32(self.threshold * (length.min() * length.min()) - 1) if len(length) else 0
        found, total = [np.empty(0, PAIR)], 0
        for part in arrays.slices(self.home, BLOCK):
            product = wide[part] @ wide[part.start :].T
            left, right = np.nonzero(product >= floor)
            left, right, value = left + part.start, right + part.start, product[left, right]
            cosine = value / (length[left] * length[right])
            good = (right > left) & (cosine >= self.threshold)
            total += int(good.sum())
            if crowd is not None and total > crowd * len(self.rows):
                return None
            found.append(_paired(self.clips[left[good]], self.clips[right[good]], cosine[good]))
        return np.concatenate(found)

    def draw_together(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows at home that lie very near an earlier one that stands: pairs (standing, row), and the rows that stay."""
        wide, length = self.rows[: self.home].astype(np.float32), lengths(self.rows[: self.home])
        tight = 1 - (1 - self.threshold) * TIGHT
        stands, leader = np.empty(0, np.int64), np.arange(self.home)
        for part in arrays.slices(self.home, BLOCK):
            here = np.arange(part.start, part.stop)
            if len(stands):
                cosine = (wide[part] @ wide[stands].T) / length[part, None] / length[stands]
                best = cosine.argmax(axis=1)
                near = cosine[np.arange(len(best)), best] >= tight
                leader[here[near]] = stands[best[near]]
                here = here[~near]
            inner = (wide[here] @ wide[here].T) / length[here, None] / length[here] >= tight
            free = np.ones(len(here), bool)
            for place in range(len(here)):
                if free[place]:
                    later = place + 1 + np.flatnonzero(inner[place, place + 1 :] & free[place + 1 :])
                    leader[here[later]], free[later] = here[place], False
            stands = np.concatenate([stands, here[free]])
        other = np.flatnonzero(leader != np.arange(self.home))
        drawn = np.empty(len(other), PAIR)
        drawn["a"], drawn["b"], drawn["cosine"] = self.clips[leader[other]], self.clips[other], 1.0
        return drawn, np.delete(np.arange(len(self.rows)), other)


def _paired(left: np.ndarray, right: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    found = np.empty(len(left), PAIR)
    found["a"], found["b"], found["cosine"] = np.minimum(left, right), np.maximum(left, right), cosine
    return found


def stand_for(clips: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The clip that stands for each: through rows that are equal, then through those drawn together."""
    if not len(same):
        return clips
    rows = np.sort(same, order=["b", "a"])
    result = clips.copy()
    while True:
        place, there = arrays.find(result, rows["b"])
        if not there.any():
            return result
        result[there] = rows["a"][place[there]]
