"""How often each concept is kept: the inverse square root of its size (Movie Gen 3.2.1; Mahajan 2018).

"Sample according to the inverse square root of the cluster size" weighs an *item* by n ** -0.5, so a cluster
of n clips keeps about n ** 0.5 of them. Read as the mass of a whole *cluster* it would turn the distribution
over: big concepts would keep fewer clips than small ones. The paper keeps 82 % at this step, which the bare
weight reaches only if clusters hold 1.5 clips; hence the cap ``p = min(1, sqrt(t / n))`` and a t solved for
the share wanted.

**The draw.** Independent draws are too rough for a small run: of 20 clips at 0.82, 13 to 19 stay. Drawing
exactly the right number by rank is not better: a clip with p = 1 can lose its place, and the set at 0.6 is
then not part of the set at 0.8. So draws are spread *within the clips of equal p* (same cluster size, same
side of the people split): in the order of a hash of (seed, clip_id), m clips get the draws (i + phase) / m,
the phase a hash too. Each draw is uniform in [0, 1), so p is the exact probability of every clip; each such
group keeps m * p to within one clip; p = 1 is always kept; and a draw does not depend on the target, so a
clip that is kept stays kept when its probability rises. The price: a draw depends on the other clips of the
same cluster size, by about 1 / sqrt(m), which is nothing where runs are large.
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


def _spread_draws(seed: int, clip_ids: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """A draw in [0, 1) for every clip, evenly spread within each stratum (see the top of this file)."""
    order = np.lexsort((clip_ids, hash_unit(seed, "resample", clip_ids), stratum))
    names, start, size = np.unique(stratum[order], return_index=True, return_counts=True)
    phase = hash_unit(seed, "resample-phase", [str(n) for n in names])
    draw = np.empty(len(clip_ids))
    within = np.arange(len(clip_ids)) - np.repeat(start, size)
    draw[order] = (within + np.repeat(phase, size)) / np.repeat(size, size)
    return np.minimum(draw, np.nextafter(1.0, 0.0))  # rounding may reach 1, and p = 1 must always keep


def sample(
    clip_ids: Sequence[str],
    cluster_id: np.ndarray,
    is_person: np.ndarray,
    target: float,
    seed: int,
    keep_people: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Resample N clips by the inverse square root of their cluster's size: (keep_prob [N], kept bool [N]).

    Each clip is kept with ``min(1, sqrt(t / n))``, n the size of its cluster, t solved so that ``target`` of
    the clips stay. With ``keep_people`` t is solved apart for clips with and without people (``is_person``
    bool [N]), which preserves the share of human videos (Movie Gen B.1). The outcome depends on seed and ids,
    not on the order of the rows; raising the target only adds clips. No clips: two empty arrays.
    """
    ids = np.asarray(clip_ids, dtype=str)
    concept, people = np.asarray(cluster_id), np.asarray(is_person, dtype=bool)
    if len(concept) != len(ids) or len(people) != len(ids):
        raise ValueError(f"{len(ids)} clip ids, {len(concept)} cluster ids and {len(people)} people flags")
    if len(ids) == 0:
        return np.zeros(0), np.zeros(0, dtype=bool)
    _, inverse, sizes = np.unique(concept, return_inverse=True, return_counts=True)
    size = sizes[inverse]
    side = people if keep_people else np.zeros(len(ids), dtype=bool)
    keep_prob = np.empty(len(ids))
    for value in np.unique(side):
        members = np.bincount(inverse[side == value], minlength=len(sizes))
        keep_prob[side == value] = keep_probability(size[side == value], solve_keep(sizes, target, members))
    stratum = 2 * size + side
    return keep_prob, _spread_draws(seed, ids, stratum) < keep_prob
