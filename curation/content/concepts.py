"""Concepts: spherical k-means over parts, clusters whose centres are alike merged, old centres taken over.

Movie Gen 3.2.1: cluster, then merge duplicate clusters. Number, algorithm and criterion are not published.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rushes.curation.content.grid import BLOCK, GRID, known, lengths, nearest, sums, vectors_of

SAMPLE_PER_CENTRE = 32  # rows that the first centres are found on; the rounds over all rows refine them
ROUNDS = 1  # of Lloyd over all rows
MIN_ROWS_PER_CLUSTER = 4  # k is capped at N // 4: a cluster of one or two says nothing about density

CONCEPTS = "concepts"
"""Name of the table of centres: several rows of one cluster_id where clusters were merged."""


@dataclass(frozen=True)
class Concepts:
    """Centres on the grid int16 [K, D]; of each the cluster's name, its clips, the least cosine of a clip to it."""

    centres: np.ndarray
    cluster_id: np.ndarray
    clips: np.ndarray
    reach: np.ndarray

    def table(self) -> pa.Table:
        flat = pa.array((self.centres / np.float32(GRID)).astype(np.float32).ravel())
        return pa.table(
            {
                "cluster_id": pa.array(self.cluster_id, pa.int64()),
                "clips": pa.array(self.clips, pa.int64()),
                "reach": pa.array(self.reach, pa.float32()),
                "centre": pa.FixedSizeListArray.from_arrays(flat, self.centres.shape[1]),
            }
        )

    @classmethod
    def of(cls, table: pa.Table) -> Concepts:
        centres = np.rint(vectors_of(table["centre"]) * GRID).astype(np.int16)
        columns = [table[name].to_numpy() for name in ("cluster_id", "clips", "reach")]
        return cls(centres, *columns)


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


def tallied(
    rows: np.ndarray, label: np.ndarray, cosine: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each label: the sum of its rows [K, D], their number, and the least cosine (2 where there are none)."""
    seen = label >= 0
    total, count = sums(rows[seen], label[seen], k)
    least = np.full(k, 2.0, np.float32)
    np.minimum.at(least, label[seen], cosine[seen])
    return total, count, least


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
