"""Concepts: spherical k-means over parts, clusters whose centres are alike merged, old centres taken over.

Movie Gen 3.2.1: cluster, then merge duplicate clusters. Number, algorithm and criterion are not published.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from rushes.curation.content.arrays import key_of
from rushes.curation.content.grid import BLOCK, GRID, known, lengths, nearest, sums, vectors_of

SAMPLE_PER_CENTRE = 32  # rows that the first centres are found on; the rounds over all rows refine them
ROUNDS = 1  # of Lloyd over all rows
MIN_ROWS_PER_CLUSTER = 4  # k is capped at N // 4: a cluster of one or two says nothing about density

CONCEPTS = "concepts"
"""Name of the table of centres: several rows of one cluster_id where clusters were merged."""


BINS = 512  # of a cosine from -1 to 1, in which `reach` is found
OUTSIDE = 100  # of so many clips of a concept one may lie outside its reach


@dataclass(frozen=True)
class Concepts:
    """Centres on the grid int16 [K, D]; of each the cluster's name, its clips, its reach, and when it was found.

    reach: the cosine to the centre that all its clips but one in OUTSIDE have. generation: 0 for the run that began,
    one more for each that joined another (see `growing`).
    """

    centres: np.ndarray
    cluster_id: np.ndarray
    clips: np.ndarray
    reach: np.ndarray
    generation: np.ndarray

    def table(self) -> pa.Table:
        flat = pa.array((self.centres / np.float32(GRID)).astype(np.float32).ravel())
        return pa.table(
            {
                "cluster_id": pa.array(self.cluster_id, pa.int64()),
                "clips": pa.array(self.clips, pa.int64()),
                "reach": pa.array(self.reach, pa.float32()),
                "generation": pa.array(self.generation, pa.int64()),
                "centre": pa.FixedSizeListArray.from_arrays(flat, self.centres.shape[1]),
            }
        )

    @classmethod
    def of(cls, table: pa.Table) -> Concepts:
        centres = np.rint(vectors_of(table["centre"]) * GRID).astype(np.int16)
        columns = [table[name].to_numpy() for name in ("cluster_id", "clips", "reach", "generation")]
        return cls(centres, *columns)

    @property
    def key(self) -> str:
        """Names what decides a clip's label."""
        return key_of(*(array.tobytes() for array in (self.centres, self.cluster_id, self.reach, self.generation)))

    def take(self, rows: np.ndarray) -> Concepts:
        return Concepts(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __add__(self, other: Concepts) -> Concepts:
        both = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return Concepts(*(np.concatenate(pair) for pair in both))


@dataclass(frozen=True)
class Tally:
    """Of each label: the sum of its rows [K, D], their number [K], and how their cosines are spread; merges by `+`.

    spread: label * BINS + bin of the cosine, in order, and how many clips are there.
    """

    total: np.ndarray
    count: np.ndarray
    spread: tuple[np.ndarray, np.ndarray]

    @classmethod
    def nothing(cls, shape: tuple[int, int]) -> Tally:
        empty = np.empty(0, np.int64)
        return cls(np.zeros(shape), np.zeros(shape[0], np.int64), (empty, empty))

    def __add__(self, other: Tally) -> Tally:
        code, inverse = np.unique(np.concatenate([self.spread[0], other.spread[0]]), return_inverse=True)
        number = np.bincount(inverse, np.concatenate([self.spread[1], other.spread[1]]), len(code)).astype(np.int64)
        return Tally(self.total + other.total, self.count + other.count, (code, number))

    def reach(self) -> np.ndarray:
        """float32 [K]: the lower edge of the bin that holds the last clip within; 1 where there are no clips."""
        code, number = self.spread
        label = code // BINS
        ends = np.cumsum(number)
        before = np.concatenate([[0], np.cumsum(self.count)])[label]  # clips of the labels before
        inside = np.flatnonzero(ends - before > self.count[label] // OUTSIDE)
        found, first = np.unique(label[inside], return_index=True)
        reach = np.ones(len(self.count), np.float32)
        reach[found] = 2 * (code[inside[first]] % BINS) / BINS - 1
        return reach


def assigned(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centre int32 [N] (-1 where a row is not known) and the cosine float32 [N] (NaN there)."""
    label, cosine = np.full(len(rows), -1, np.int32), np.full(len(rows), np.nan, np.float32)
    seen = known(rows)
    if not seen.any():
        return label, cosine
    some = rows[seen]
    best, product = nearest(some, centres)
    label[seen] = best
    cosine[seen] = product / (lengths(some) * lengths(centres)[best])
    return label, cosine


def tallied(rows: np.ndarray, label: np.ndarray, cosine: np.ndarray, k: int) -> Tally:
    """Of rows [N, D] with labels (-1: none) below k."""
    seen = label >= 0
    total, count = sums(rows[seen], label[seen], k)
    place = np.clip(np.floor((cosine[seen].astype(np.float64) + 1) / 2 * BINS), 0, BINS - 1).astype(np.int64)
    return Tally(total, count, np.unique(label[seen].astype(np.int64) * BINS + place, return_counts=True))


def merged(centres: np.ndarray, count: np.ndarray, threshold: float) -> np.ndarray:
    """Name of every centre's cluster int64 [K], 0 the largest; -1 where it has no clips.

    Centres are joined by complete linkage: any two of one cluster have a cosine of at least `threshold`.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    full = np.flatnonzero(count)
    rows = centres[full]
    left, right = _alike(rows, threshold)
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(len(full), len(full)))
    _, piece = connected_components(graph, directed=False)
    group = np.arange(len(full))
    for name in np.flatnonzero(np.bincount(piece) > 1):
        inside = np.flatnonzero(piece == name)
        group[inside] = inside[_linked(rows[inside], threshold)]
    size = np.bincount(group, weights=count[full], minlength=len(full))
    order = np.lexsort((np.arange(len(full)), -size))
    name = np.empty(len(full), np.int64)
    name[order] = np.arange(len(full))
    result = np.full(len(centres), -1, np.int64)
    result[full] = name[group]
    return result


def _alike(rows: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    wide, length = rows.astype(np.float32), lengths(rows)
    left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(rows), BLOCK):
        cosine = (wide[start : start + BLOCK] @ wide.T) / length[start : start + BLOCK, None] / length
        i, j = np.nonzero(cosine >= threshold)
        left.append(i[i + start < j] + start)
        right.append(j[i + start < j])
    return np.concatenate(left), np.concatenate(right)


def alike_to(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float64 [N]: the cosine of each row [N, D] to the most similar of the others [K, D]."""
    against, length = others.astype(np.float32).T, lengths(others)
    best = np.empty(len(rows))
    for start in range(0, len(rows), BLOCK):
        best[start : start + BLOCK] = (rows[start : start + BLOCK].astype(np.float32) @ against / length).max(axis=1)
    return best / lengths(rows)


def _linked(rows: np.ndarray, threshold: float) -> np.ndarray:
    """For rows [N >= 2, D] the first row of each one's group under complete linkage."""
    from sklearn.cluster import AgglomerativeClustering

    unit = rows / lengths(rows)[:, None]
    apart = np.clip(1 - unit @ unit.T, 0, 2)
    found = AgglomerativeClustering(
        n_clusters=None, metric="precomputed", linkage="complete", distance_threshold=1 - threshold + 1e-12
    ).fit(apart)
    _, first, inverse = np.unique(found.labels_, return_index=True, return_inverse=True)
    return first[inverse]
