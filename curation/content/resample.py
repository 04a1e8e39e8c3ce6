"""How often each concept is kept: the inverse square root of its size (Movie Gen 3.2.1; Mahajan 2018).

"Sample according to the inverse square root of the cluster size" weighs an *item* by n ** -0.5, so a cluster
of n clips keeps about n ** 0.5 of them. Read as the mass of a whole *cluster* it would turn the distribution
over: big concepts would keep fewer clips than small ones. The paper keeps 82 % at this step, which the bare
weight reaches only if clusters hold 1.5 clips; hence the cap ``p = min(1, sqrt(t / n))`` and a t solved for
the share wanted.

**The draw.** A clip stays if the hash of (seed, clip_id) lies below its p: no other clip has a say. The same clip stays
in any order, on any shard; raising the target only adds clips; and where footage is added, a clip's fate changes with
at most the change of its p. The number kept is a sum of independent draws, so it differs from its target by about
sqrt(N p (1 - p)): 0.4 % for 10,000 clips at 0.82. Over some tens of clips that would be a lottery, and all are kept
(``content.keep_all_below``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

HASH_BYTES = 8  # of blake2b
#: Odd multipliers with well spread bits: the golden ratio's, and the two of splitmix64 (Steele et al. 2014).
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
HASH_BITS_USED = 53  # a float64 holds 53 bits exactly, so the result is below 1 for certain


def hash_unit(seed: int, purpose: str, names: Iterable[str]) -> np.ndarray:
    """One number in [0, 1) for every name, float64 [N]: the same on every machine, independent of the rest.

    ``purpose`` keeps two draws over the same ids apart (a clip sampled by luck is not also first elsewhere).
    """
    bits = hash_bits(seed, purpose, names)
    return (bits >> np.uint64(8 * HASH_BYTES - HASH_BITS_USED)).astype(np.float64) / 2.0**HASH_BITS_USED


def hash_bits(seed: int, purpose: str, names: Iterable[str]) -> np.ndarray:
    """64 bits for every name, uint64 [N]; see `hash_unit`.

    The start is a blake2b of seed and purpose; names are mixed in a character at a time, all names at once
    (multiply and shift, then the finish of splitmix64): a million ids take a fifth of a second.
    """
    text = np.asarray(names if isinstance(names, np.ndarray) else list(names), dtype=str)
    start = hashlib.blake2b(f"{seed}\0{purpose}".encode(), digest_size=HASH_BYTES).digest()
    mixed = np.full(text.shape, int.from_bytes(start, "big"), dtype=np.uint64)
    width = text.dtype.itemsize // 4
    letters = np.ascontiguousarray(text).view(np.uint32).reshape(-1, width) if width else np.zeros((len(text), 0))
    for column in np.ascontiguousarray(letters.T):
        step = (mixed ^ column) * MIX[0]
        step ^= step >> np.uint64(32)
        mixed = np.where(column != 0, step, mixed)  # the padding of shorter names counts for nothing
    for multiplier, shift in ((MIX[1], 30), (MIX[2], 27)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * multiplier
    return mixed ^ (mixed >> np.uint64(31))


def keep_probability(n: np.ndarray | int, t: float) -> np.ndarray:
    """Probability that a clip of a cluster of ``n`` clips is kept: min(1, sqrt(t / n)), float64 like n."""
    return np.minimum(1.0, np.sqrt(t / np.asarray(n, dtype=np.float64)))


def solve_keep(
    cluster_sizes: np.ndarray | Sequence[int],
    target: float,
    members: np.ndarray | Sequence[int] | None = None,
) -> float:
    """The t at which ``sum(members * min(1, sqrt(t / cluster_sizes))) = target * sum(members)``.

    ``cluster_sizes`` [C] are counts >= 1; ``members`` [C] says how many clips of each are drawn from (all by
    default; fewer where only the clips with people are); ``target`` is a share in (0, 1]. Between two sizes
    the left side is linear in sqrt(t), so the solution is closed: no iteration. Raises ValueError on an empty
    list, a size below 1, no members, or a target outside (0, 1].
    """
    sizes = np.asarray(cluster_sizes, dtype=np.float64)
    count = sizes if members is None else np.asarray(members, dtype=np.float64)
    if count.shape != sizes.shape or count.sum() == 0 or sizes.min() < 1 or count.min() < 0:
        raise ValueError("cluster sizes must be counts of at least 1, with members in at least one cluster")
    if not 0.0 < target <= 1.0:
        raise ValueError(f"the share to keep must be in (0, 1], got {target}")
    sizes, count = sizes[count > 0], count[count > 0]
    order = np.argsort(sizes, kind="stable")
    sizes, count = sizes[order], count[order]
    if target == 1.0:
        return float(sizes[-1])
    # With t at sizes[j], clusters 0..j are kept whole and the later ones keep sqrt(t) * rest[j].
    whole = np.cumsum(count)
    share = count / np.sqrt(sizes)
    rest = np.append(np.cumsum(share[::-1])[::-1][1:], 0.0)
    expected = whole + np.sqrt(sizes) * rest
    wanted = target * count.sum()
    j = int(np.searchsorted(expected, wanted))  # first breakpoint that keeps enough: clusters < j are whole
    j = min(j, len(sizes) - 1)
    before = whole[j - 1] if j else 0.0
    root = (wanted - before) / (share[j] + rest[j])
    return float(root * root)
