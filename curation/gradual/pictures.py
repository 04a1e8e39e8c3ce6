"""The pictures of the last seconds, and what their scalar products say of a change from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

WEIGHT = (0.2, 0.8)  # weight of the later picture in the middle of a transition ...
MIXED = (0.1, 0.9)  # weights between which a picture counts as mixed when a transition's ends are sought
CUT_SHARE = 0.75  # a single step that is this share of the whole change is a hard cut, no transition
UNLIKE = 0.6  # correlation of before and after below which a wipe or a push is looked for
EDGED = (0.02, 0.98)  # shares of B between which a picture of a wipe or a push is one of both
EDGED_HALF = 3  # shortest half, in pictures, for which a wipe or a push is looked for
PUSH_CALM = 0.6  # steps before and after a push are no larger than this share of those in it


@dataclass(frozen=True)
class Ring:
    """Pictures uint8 [n, h, w]; without their mean [n, p]; means [n]; band [n, k]: product with the k-th before.

    detail: of blocks of each picture, float32 [n, blocks] (doubts.py).
    """

    luma: np.ndarray
    values: np.ndarray
    means: np.ndarray
    band: np.ndarray
    detail: np.ndarray

    @classmethod
    def grown(cls, ring: Ring | None, luma: np.ndarray, detail: np.ndarray, reach: int) -> Ring:
        """The ring with more pictures; `reach`: so far back products are kept."""
        values = luma.reshape(len(luma), -1).astype(np.float32)
        means = values.mean(axis=1)
        values -= means[:, None]
        if ring is not None:
            luma, means = np.concatenate([ring.luma, luma]), np.concatenate([ring.means, means])
            detail = np.concatenate([ring.detail, detail])
            whole = np.concatenate([ring.values, values])
        else:
            whole = values
        products = values @ whole.T  # [fresh, n]
        old = len(whole) - len(values)
        backs = old + np.arange(len(values))[:, None] - np.arange(reach + 1)
        band = np.take_along_axis(products, np.maximum(backs, 0), axis=1)
        return cls(luma, whole, means, band if ring is None else np.concatenate([ring.band, band]), detail)

    def __len__(self) -> int:
        return len(self.luma)

    def last(self, count: int) -> Ring:
        return Ring(*(of[-count:] for of in (self.luma, self.values, self.means, self.band, self.detail)))

    @cached_property
    def profiles(self) -> tuple[np.ndarray, np.ndarray]:
        """Means of columns [n, w] and of rows [n, h]."""
        return self.luma.mean(axis=1, dtype=np.float32), self.luma.mean(axis=2, dtype=np.float32)

    @cached_property
    def steps(self) -> np.ndarray:
        """Root mean square change from each picture to the next, grey levels: float [n - 1]."""
        places = np.arange(1, len(self))
        return self.change(places, np.ones_like(places))

    def change(self, later: np.ndarray, back: np.ndarray) -> np.ndarray:
        """Root mean square change to pictures from those `back` places before, grey levels."""
        return np.sqrt(np.maximum(self.distance2(later, back), 0) / self.values.shape[1])

    def distance2(self, later: np.ndarray, back: np.ndarray) -> np.ndarray:
        """Squared distance of whole pictures."""
        return self.products(later, 0) + self.products(later - back, 0) - 2 * self.products(later, back)

    def products(self, later: np.ndarray, back: int | np.ndarray) -> np.ndarray:
        """Scalar product of whole pictures: at `later` and `back` places before, float64."""
        size = self.values.shape[1]
        return self.band[later, back] + size * self.means[later].astype(float) * self.means[later - back]


class Triples:
    """Scalars of pictures A (2 halves before the end), M (a half before) and B (the end); ends, halves: int [n]."""

    def __init__(self, ring: Ring, ends: np.ndarray, halves: np.ndarray) -> None:
        self.ring, self.ends, self.halves = ring, ends, halves
        self.begins = ends - 2 * halves
        self.change2 = np.maximum(self.ring.distance2(ends, 2 * halves), 1e-6)
        self.change = np.sqrt(self.change2 / ring.values.shape[1])

    def __len__(self) -> int:
        return len(self.ends)

    def those(self, chosen: np.ndarray) -> Triples:
        return Triples(self.ring, self.ends[chosen], self.halves[chosen])

    @cached_property
    def alike(self) -> np.ndarray:
        """Correlation of A and B."""
        norms = self.ring.band[self.ends, 0] * self.ring.band[self.begins, 0]
        return self.ring.band[self.ends, 2 * self.halves] / np.sqrt(np.maximum(norms, 1e-6))

    def between(self, forward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances of the picture `forward` places behind A: to A and to B, over that of A and B."""
        places = self.begins + forward
        to_a = self.ring.distance2(places, forward)
        to_b = self.ring.distance2(self.ends, 2 * self.halves - forward)
        return to_a / self.change2, to_b / self.change2

    @cached_property
    def quarters(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """`between` for the pictures a quarter, a half and three quarters of the way."""
        return tuple(self.between(forward) for forward in quarters(self.halves))

    @cached_property
    def path(self) -> np.ndarray:
        """Sum of the squared distances from quarter to quarter over that of A and B."""
        early, half, late = quarters(self.halves)
        steps = ((early, early), (half, half - early), (late, late - half), (2 * self.halves, 2 * self.halves - late))
        return sum(self.ring.distance2(self.begins + place, back) for place, back in steps) / self.change2

    def gradual(self, chosen: np.ndarray, calm: bool) -> np.ndarray:
        """Whether more than one step makes the change of a triple: bool [n]; False for those that are not chosen.

        calm: and the first and last steps are small beside those in the middle.
        """
        steps = self.ring.steps
        found = np.zeros(len(self), bool)
        for half in sorted(set(self.halves[chosen].tolist())):
            which = np.flatnonzero(chosen & (self.halves == half))
            within = np.lib.stride_tricks.sliding_window_view(steps, 2 * half)[self.begins[which]]
            second, first = np.partition(within, -2, axis=1)[:, -2:].T
            found[which] = (first < CUT_SHARE * self.change[which]) | (second > CUT_SHARE * first)
            if calm:
                edge = max(1, half // 4)
                outer = np.minimum(within[:, :edge].mean(axis=1), within[:, -edge:].mean(axis=1))
                found[which] &= outer < PUSH_CALM * np.median(within[:, half // 2 : -(half // 2)], axis=1)
        return found


def quarters(half: np.ndarray | int) -> tuple:
    """Places of the pictures that are looked at, counted from A."""
    early = np.maximum(1, half // 2)
    return early, half, 2 * half - early


def weight_and_residual(to_a: np.ndarray, to_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares weight of B in a picture, and what it leaves over the change; from squared distances."""
    weight = (1 + to_a - to_b) / 2
    return weight, np.sqrt(np.maximum(to_a - weight**2, 0))


def extent(weights: np.ndarray, begin: int, within: tuple[float, float] = MIXED) -> tuple[int, int]:
    """Places of the first and the last picture that is mixed, and one more on either side."""
    mixed = np.flatnonzero((weights > within[0]) & (weights < within[1]))
    mixed = mixed if len(mixed) else np.array([len(weights) // 2])
    return begin + max(0, int(mixed[0]) - 1), begin + min(len(weights) - 1, int(mixed[-1]) + 1)
