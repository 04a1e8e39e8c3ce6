"""Vectors as whole numbers: rows of length 1 rounded to a grid, so that sums and products of them are exact.

A unit vector is multiplied by `GRID` and rounded to int16. The dot product of two such rows is a whole number below
2**24 and so is every partial sum of it (Cauchy-Schwarz): float32 holds it exactly, in whatever order it is added up.
Cosines, assignments, sums and centres are therefore the same bits for any number of workers, threads or shards and
any order of the rows. The price is a cosine that is off by 1e-4 at most. A row of zeros stands for "not known".
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

GRID = 4064
"""Steps per unit length: rounding makes a row longer by at most sqrt(WIDTH_MOST) / 2 = 32, and 4064 + 32 = 2**12."""

WIDTH_MOST = 4096
BLOCK = 2048  # rows multiplied at a time: against 10,000 centres that is 80 MB


def vectors_of(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """float32 [N, D] of a fixed-size list column; rows that are null become NaN."""
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    width = combined.type.list_size
    out = np.full((len(combined), width), np.nan, np.float32)
    valid = ~np.asarray(combined.is_null())
    out[valid] = combined.drop_null().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return out


def on_grid(rows: np.ndarray) -> np.ndarray:
    """[N, D] in any scale -> int16 [N, D] of length about GRID; zeros where a row is zero or not finite.

    Raises ValueError for arrays that are not [N, D] and for rows wider than WIDTH_MOST.
    """
    rows = np.asarray(rows, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] > WIDTH_MOST:
        raise ValueError(f"vectors must be [N, D] with D up to {WIDTH_MOST}, got shape {list(rows.shape)}")
    largest = np.abs(rows).max(axis=1, initial=0.0)
    good = np.isfinite(largest) & (largest > 0)  # NaN and infinity both show in the maximum
    scaled = np.zeros(rows.shape)
    np.divide(rows, largest[:, None], out=scaled, where=good[:, None])  # first by the largest: no overflow
    length = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))
    scaled *= (GRID / np.where(good, length, 1.0))[:, None]
    return np.rint(scaled, out=scaled).astype(np.int16)


def known(rows: np.ndarray) -> np.ndarray:
    """bool [N]: which rows of the grid have a direction."""
    return rows.any(axis=1)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [N, D] of length 1; a row of zeros stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(length > 0, length, 1), np.float32)


def lengths(rows: np.ndarray) -> np.ndarray:
    """float64 [N], exact before the root."""
    wide = rows.astype(np.float32)
    return np.sqrt(np.einsum("ij,ij->i", wide, wide).astype(np.float64))


def nearest(rows: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For int16 rows [N, D] the centre [K, D] with the largest product (the first of equals), and that product."""
    against = centres.astype(np.float32).T
    label, score = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for start in range(0, len(rows), BLOCK):
        product = rows[start : start + BLOCK].astype(np.float32) @ against
        best = product.argmax(axis=1)
        label[start : start + BLOCK] = best
        score[start : start + BLOCK] = product[np.arange(len(best)), best]
    return label, score


def sums(rows: np.ndarray, label: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the rows of each label, float64 [K, D] of whole numbers (exact up to 2**41 rows), and their counts."""
    from scipy import sparse

    chosen = sparse.csr_matrix((np.ones(len(rows)), label, np.arange(len(rows) + 1)), shape=(len(rows), k)).T
    total = np.zeros((k, rows.shape[1]))
    picked = chosen.tocsr()
    for start in range(0, rows.shape[1], 64):  # a strip of columns at a time: float64 copies stay small
        total[:, start : start + 64] = picked @ rows[:, start : start + 64].astype(np.float64)
    return total, np.bincount(label, minlength=k)


def centres_of(total: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Sums [K, D] -> centres on the grid; a sum of nothing leaves the centre as it was."""
    centres = on_grid_of_sums(total)
    empty = ~known(centres)
    centres[empty] = before[empty]
    return centres


def on_grid_of_sums(total: np.ndarray) -> np.ndarray:
    """As `on_grid`, for float64 sums that float32 would round."""
    length = np.sqrt((total * total).sum(axis=1))
    return np.rint(total * (GRID / np.where(length > 0, length, 1.0))[:, None]).astype(np.int16)
