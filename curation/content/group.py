"""Embeddings -> which clips repeat one another, and which clips show the same concept.

One rule does both jobs. Rows are taken best first; a row is kept if it is unlike every row kept before it,
and else it belongs to the kept row it is most like. For duplicates "best" is the quality of the clip, for
concept clusters it is the size. Unlike connected components (union-find), nothing chains: every member lies
within the threshold of the row it was given to, however long the string of look-alikes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

EXACT_UP_TO = 100_000
"""Rows up to which neighbours are found by exact search: 960 dimensions then cost minutes on one core."""

BLOCK = 1024  # rows searched at a time: a block against itself is a 4 MB matrix
SEARCH_SLACK = 1e-4  # a float32 search may err by this much: candidates are collected this far below
COSINE_ROUNDING = 1e-6  # unit rows are float32: the cosine of a row with itself is 1 only to this much
ALONE_UP_TO = 20_000  # rows up to which a search takes a second on one thread: workers share the machine
IVF_PROBES = 16  # cells looked at per query: a copy's nearest cell is its original's, or a neighbour of it
IVF_CELLS_PER_ROOT = 4  # cells = 4 sqrt(N): the low end of faiss' guidance, as rows here are few per group
IVF_TRAIN_ROWS_PER_CELL = 64  # faiss' k-means asks for 39 or more
IVF_ITERATIONS = 10  # faiss' default when it trains an inverted file
KMEANS_ITERATIONS = 25
FAISS_SEEDS = 2**31  # faiss holds a seed in a signed 32-bit integer
KMEANS_ROWS_PER_CENTROID = 256  # faiss' default; more are sampled down, with the seed
MIN_ROWS_PER_CLUSTER = 4  # k is capped at N // 4: a cluster of one or two says nothing about density
SINGLE_THREAD_WORK = 10**13
"""Multiply-adds of one k-means up to which it runs on one thread (minutes), so that the result has the same
bits on every machine. Above, the order of float sums depends on the number of threads; the seed does not."""


def _threads_for(multiply_adds: int) -> int | None:
    """Threads for one k-means: 1 while that is affordable, else what the machine has (None)."""
    return 1 if multiply_adds <= SINGLE_THREAD_WORK else None


@contextmanager
def _faiss_threads(count: int | None) -> Iterator[None]:
    """Run faiss on ``count`` threads (None: leave as it is)."""
    import faiss

    before = faiss.omp_get_max_threads()
    if count is not None:
        faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _unit_rows(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, D] -> rows of length 1 as float32 (zeros where there is no direction), and which rows have one."""
    rows = np.asarray(embeddings, dtype=np.float32)
    if rows.ndim != 2:
        raise ValueError(f"embeddings must be [N, D], got shape {list(rows.shape)}")
    finite = np.isfinite(rows).all(axis=1)
    rows = np.where(finite[:, None], rows, np.float32(0.0))
    length = np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1))
    known = length > 0
    unit = rows / np.where(known, length, 1.0)[:, None]
    return np.ascontiguousarray(unit, dtype=np.float32), known


def _cosines(rows: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Cosine of each pair, in float64, the same bits whatever search proposed the pair."""
    return (rows[left].astype(np.float64) * rows[right]).sum(axis=1)


class _KeptRows:
    """The kept rows, searchable: exact up to a number of rows, by inverted lists above it."""

    def __init__(self, rows: np.ndarray, exact: bool) -> None:
        import faiss

        dim = rows.shape[1]
        self.rows = rows
        self.ids = np.empty(0, dtype=np.int64)
        self.index = faiss.IndexFlatIP(dim)
        if not exact:
            cells = min(int(IVF_CELLS_PER_ROOT * np.sqrt(len(rows))), len(rows) // IVF_TRAIN_ROWS_PER_CELL)
            cells = max(1, cells)
            sample = rows[:: max(1, len(rows) // (cells * IVF_TRAIN_ROWS_PER_CELL))]
            self.quantizer = self.index
            self.index = faiss.IndexIVFFlat(self.quantizer, dim, cells, faiss.METRIC_INNER_PRODUCT)
            with _faiss_threads(_threads_for(len(sample) * cells * dim * IVF_ITERATIONS)):
                self.index.train(sample)
            self.index.nprobe = min(IVF_PROBES, cells)

    def add(self, ids: np.ndarray) -> None:
        self.index.add(self.rows[ids])
        self.ids = np.concatenate([self.ids, ids])

    def near(self, block: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (row of the block, kept row) with a cosine above ``floor``: a range, not the k nearest."""
        if len(self.ids) == 0:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        limits, _, found = self.index.range_search(self.rows[block], floor)
        return np.repeat(block, np.diff(limits.astype(np.int64))), self.ids[found]


def _assign_block(
    rows: np.ndarray, block: np.ndarray, kept: _KeptRows, threshold: float, leader: np.ndarray
) -> np.ndarray:
    """Give every row of the block its leader (itself if kept), in order; the rows of the block that are kept.

    Rows are numbered best first, so of equally similar leaders the smaller number is the better one. Only
    kept rows are compared with later ones: a rejected row rejects nobody.
    """
    least, floor = threshold - COSINE_ROUNDING, threshold - SEARCH_SLACK
    best = np.full(len(block), -np.inf)

    def offer(places: np.ndarray, leaders: np.ndarray) -> None:
        """Let rows of the block (by place) follow a leader if it is near and nearer than theirs."""
        cosine = _cosines(rows, block[places], leaders)
        order = np.lexsort((leaders, -cosine, places))  # of the offers to one row the best comes first
        places, leaders, cosine = places[order], leaders[order], cosine[order]
        first = np.append(True, places[1:] != places[:-1])[: len(places)]
        taken = first & (cosine >= least) & (cosine > best[places])
        best[places[taken]] = cosine[taken]
        leader[block[places[taken]]] = leaders[taken]

    query, near = kept.near(block, floor)
    offer(query - block[0], near)
    inner = rows[block] @ rows[block].T
    for place, row in enumerate(block):
        if leader[row] == row:
            later = place + 1 + np.nonzero(inner[place, place + 1 :] > floor)[0]
            if len(later):
                offer(later, np.full(len(later), row))
    return block[leader[block] == block]


def _leaders(rows: np.ndarray, threshold: float, exact_up_to: int) -> np.ndarray:
    """Unit rows [N, D], best first -> for every row the number of the kept row that stands for it.

    Block by block against the rows kept so far: those are pairwise unlike, so few of them are near any
    query, and a group of a million copies costs no more memory than a pair.
    """
    leader = np.arange(len(rows), dtype=np.int64)
    with _faiss_threads(1 if len(rows) <= ALONE_UP_TO else None):
        kept = _KeptRows(rows, exact=len(rows) <= exact_up_to)
        for start in range(0, len(rows), BLOCK):
            block = np.arange(start, min(start + BLOCK, len(rows)), dtype=np.int64)
            fresh = _assign_block(rows, block, kept, threshold, leader)
            if len(fresh):
                kept.add(fresh)
    return leader


def find_duplicates(
    clip_ids: Sequence[str],
    embeddings: np.ndarray,
    threshold: float,
    quality: Sequence[float] | np.ndarray,
    exact_up_to: int = EXACT_UP_TO,
) -> list[str | None]:
    """For every clip the kept clip it repeats, or None where it is kept (Movie Gen 3.2.1, B.1).

    A clip is kept iff its cosine to every clip kept before it is below ``threshold`` (in (0, 1]; the paper's
    0.99 is for SSCD). Clips are taken by descending ``quality`` [N] (NaN last; ties by clip id), so that the
    best of a group stays, as in Motif-Video. ``embeddings`` is [N, D] in any scale; a row of zeros or with a
    NaN is never a duplicate and has none. Up to ``exact_up_to`` rows the search is exact; above, it looks at
    the nearest 16 cells of an inverted file and may miss a copy near the threshold.

    The answer does not depend on the order of the rows. Raises ValueError on lengths that differ, on ids
    that repeat and on a threshold outside (0, 1].
    """
    ids = np.asarray(clip_ids, dtype=str)
    score = np.asarray(quality, dtype=np.float64)
    if len(embeddings) != len(ids) or len(score) != len(ids):
        raise ValueError(f"{len(ids)} clip ids, {len(embeddings)} embeddings and {len(score)} qualities")
    if len(np.unique(ids)) != len(ids):
        raise ValueError("clip ids repeat: one row per clip is needed to say which of two copies is kept")
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"the duplicate threshold is a cosine in (0, 1], got {threshold}")
    duplicate_of: list[str | None] = [None] * len(ids)
    if len(ids) == 0:
        return duplicate_of
    unit, known = _unit_rows(embeddings)
    order = np.lexsort((ids, -np.where(np.isnan(score), -np.inf, score)))
    order = order[known[order]]
    if len(order) < 2:
        return duplicate_of
    leader = _leaders(unit[order], threshold, exact_up_to)
    for rank in np.nonzero(leader != np.arange(len(order)))[0]:
        duplicate_of[order[rank]] = str(ids[order[leader[rank]]])
    return duplicate_of


def _kmeans(rows: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Unit rows [N, D] -> spherical k-means label [N] in 0..k-1."""
    import faiss

    used = min(len(rows), k * KMEANS_ROWS_PER_CENTROID)
    with _faiss_threads(_threads_for(used * k * rows.shape[1] * KMEANS_ITERATIONS)):
        kmeans = faiss.Kmeans(
            rows.shape[1],
            k,
            niter=KMEANS_ITERATIONS,
            seed=seed % FAISS_SEEDS,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=KMEANS_ROWS_PER_CENTROID,
        )
        kmeans.train(rows)
        _, label = kmeans.index.search(rows, 1)
    return label[:, 0].astype(np.int64)


def _merge(rows: np.ndarray, label: np.ndarray, threshold: float) -> np.ndarray:
    """Merge clusters whose centroids' cosine reaches ``threshold``, the largest cluster first."""
    names, inverse, sizes = np.unique(label, return_inverse=True, return_counts=True)
    by_label = np.argsort(inverse, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    sums = np.add.reduceat(rows[by_label].astype(np.float64), starts, axis=0)
    centroids, _ = _unit_rows(sums)
    order = np.lexsort((names, -sizes))
    leader = _leaders(centroids[order], threshold, EXACT_UP_TO)
    merged = np.empty(len(names), dtype=np.int64)
    merged[order] = order[leader]
    return merged[inverse]


def _numbered_by_size(label: np.ndarray) -> np.ndarray:
    """Rename labels 0, 1, ... by descending size, ties by the first row."""
    _, first, inverse, sizes = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), dtype=np.int64)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    return rank[inverse]


def cluster(
    embeddings: np.ndarray,
    k: int,
    merge_threshold: float,
    seed: int,
    clip_ids: Sequence[str] | None = None,
) -> np.ndarray:
    """Concept of every clip: cluster_id int64 [N], 0 the largest (Movie Gen 3.2.1: cluster, then merge).

    Spherical k-means (faiss) over ``embeddings`` [N, D] with k capped at N // 4 and at least 1; then the
    largest cluster absorbs every cluster whose centroid has a cosine of ``merge_threshold`` or more with its
    own, then the next largest that is left, and so on. Number, algorithm and criterion are not published;
    connected components would do without an order, but would chain a series of neighbours into one concept.

    A row that is zero or has a NaN resembles nothing known and is a cluster of its own. With ``clip_ids``
    the result does not depend on the order of the rows; without, rows count as being in clip-id order.
    Raises ValueError if k < 1 or merge_threshold lies outside (0, 1].
    """
    if k < 1:
        raise ValueError(f"the number of clusters must be at least 1, got {k}")
    if not 0.0 < merge_threshold <= 1.0:
        raise ValueError(f"the merge threshold is a cosine in (0, 1], got {merge_threshold}")
    unit, known = _unit_rows(embeddings)
    order = np.arange(len(unit)) if clip_ids is None else np.argsort(np.asarray(clip_ids, dtype=str))
    if len(order) != len(unit):
        raise ValueError(f"{len(order)} clip ids for {len(unit)} embeddings")
    in_order, seen = unit[order], known[order]
    label = np.arange(len(unit), dtype=np.int64) + len(unit)  # unknown rows: names nobody else has
    rows = np.ascontiguousarray(in_order[seen])
    if len(rows):
        k = max(1, min(k, len(rows) // MIN_ROWS_PER_CLUSTER))
        label[seen] = _merge(rows, _kmeans(rows, k, seed), merge_threshold)
    cluster_id = np.empty(len(unit), dtype=np.int64)
    cluster_id[order] = _numbered_by_size(label)
    return cluster_id
