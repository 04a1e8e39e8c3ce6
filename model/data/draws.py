"""Numbers that are drawn without a generator: hashes of integers, and permutations that are computed, not stored."""

from __future__ import annotations

import numpy as np

FEISTEL_ROUNDS = 6  # enough that neighbours in the epoch are not neighbours in the manifest
_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """A hash in [0, 2^64) of integers (splitmix64), the same on every machine."""
    state = 0
    for number in numbers:
        state = _splitmix(np.uint64((state ^ (number & _MASK)) & _MASK))
    return state


def unit(*numbers: int) -> float:
    """A uniform number in [0, 1) that depends on `numbers` alone."""
    return (mix(*numbers) >> 11) / 2**53


def _splitmix(value: np.uint64) -> int:
    return int(_splitmix_array(np.array([value], dtype=np.uint64))[0])


def _splitmix_array(x: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele 2014), uint64 [N]: sums and products wrap around."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a permutation of range(size) sends `index` (int64 [N] in [0, size)); `key` chooses the permutation.

    A Feistel network over the next even number of bits; what falls outside is sent on until it is inside ("cycle
    walking"). No table: the cost is that of the indices asked for.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [np.uint64(mix(key, number)) for number in range(FEISTEL_ROUNDS)]
    out = np.asarray(index, dtype=np.uint64).copy()
    todo = np.arange(len(out))
    while len(todo):
        left, right = out[todo] >> shift, out[todo] & low
        for round_key in keys:
            left, right = right, left ^ (_splitmix_array(right ^ round_key) & low)
        out[todo] = (left << shift) | right
        todo = todo[out[todo] >= np.uint64(size)]
    return out.astype(np.int64)
