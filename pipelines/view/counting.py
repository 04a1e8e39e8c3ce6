"""Counts over clips that are judged: every clip has a bit for each rule that it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from rushes.curation import rules
from rushes.pipelines.view.bins import BINS, Bins

FACTS_SMALL = 8  # facts of a clip that fit a byte


@dataclass
class Sums:
    """Counts over some clips; those of more or of fewer clips by + and -. All int64.

    first: clips by the first rule that they fail, in the rules' order; the last passes all. alone [rules, BINS + 1]:
    clips that fail one rule only, by the bin of its column (the last: no value). inside [columns, BINS]: those that
    pass all. late: of these, by the later rule that rejected them. parts [1 + sets, 4]: of the kept and of each set:
    clips, milliseconds, landscape ones, ones with people. odd: clips that pass and did not as published, that did and
    do not, that pass the decode's rules and that no model was asked about.
    """

    first: np.ndarray
    alone: np.ndarray
    inside: np.ndarray
    late: np.ndarray
    parts: np.ndarray
    odd: np.ndarray

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def __sub__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, one.name) - getattr(other, one.name) for one in fields(self)))

    @property
    def passing(self) -> int:
        return int(self.first[-1])


class Parts:
    """Sizes of the kept part and of each set. Clips of the same facts are one kind, and kinds are counted."""

    def __init__(self, landscape: np.ndarray, people: np.ndarray | None, sets: Sequence[np.ndarray]) -> None:
        facts = [landscape, people if people is not None else np.zeros(len(landscape), bool), *sets]
        small = len(facts) <= FACTS_SMALL
        kind = np.zeros(len(landscape), np.uint8 if small else np.uint64)
        for place, fact in enumerate(facts):
            kind |= fact.astype(kind.dtype) << kind.dtype.type(place)
        words = np.arange(1 << len(facts), dtype=np.uint8) if small else None
        if words is None:
            words, kind = np.unique(kind, return_inverse=True)
        self.kind = kind
        known = [(words >> words.dtype.type(place)) & words.dtype.type(1) for place in range(len(facts))]
        wide, seen, *members = (fact.astype(np.int64) for fact in known)
        self._members = [np.ones(len(words), np.int64), *members]
        self._facts = (wide, seen)

    def of(self, places: np.ndarray, ms: np.ndarray) -> np.ndarray:
        """int64 [1 + sets, 4]: of the clips at these places, clips, milliseconds, landscape ones, ones with people."""
        kinds, most = self.kind[places], len(self._members[0])
        counts = np.bincount(kinds, minlength=most)
        long = np.rint(np.bincount(kinds, weights=ms[places], minlength=most)).astype(np.int64)
        return np.array(
            [[counts @ member, long @ member, *(counts @ (member * fact) for fact in self._facts)]
             for member in self._members]
        )  # fmt: skip


@dataclass
class Counter:
    """What Sums counts by. was: clips that pass as published. late: of these, the later rule that rejected them.

    bit: type of the clips' bits. decoded: the bits of the decode's rules. column_at [rules]: places of their columns.
    """

    bit: type
    decoded: np.unsignedinteger
    column_at: np.ndarray
    late_rules: int
    bins: Bins
    parts: Parts
    late: np.ndarray
    looked: np.ndarray
    ms: np.ndarray
    was: np.ndarray

    def sums(self, places: np.ndarray, failed: np.ndarray) -> Sums:
        """Counts over the clips at these places, which fail the rules of these bits."""
        size = 8 * failed.itemsize
        lowest = np.bitwise_count((failed & (~failed + self.bit(1))) - self.bit(1))  # place of the first 1; size: none
        counts = np.bincount(lowest, minlength=size + 1)
        first = np.append(counts[: len(self.column_at)], counts[size])
        inside = places[failed == 0]
        late = self.late[inside]
        passed = np.count_nonzero(self.was[inside])
        unseen = np.count_nonzero(((failed & self.decoded) == 0) & (self.looked[places] == 2))
        odd = np.array([len(inside) - passed, np.count_nonzero(self.was[places]) - passed, unseen])
        return Sums(
            first, self._alone(places, failed, lowest), self.bins.inside(inside),
            np.bincount(late, minlength=self.late_rules + 1)[1:], self.parts.of(inside[late == 0], self.ms), odd,
        )  # fmt: skip

    def _alone(self, places: np.ndarray, failed: np.ndarray, lowest: np.ndarray) -> np.ndarray:
        """int64 [rules, BINS + 1]: clips that fail one rule only, by the bin of its column."""
        single = np.flatnonzero((failed & (failed - self.bit(1))) == 0)
        single = single[failed[single] != 0]
        rule = lowest[single].astype(np.intp)
        codes = self.bins.codes[self.column_at[rule], places[single]]
        counts = np.bincount(rule * (BINS + 1) + codes, minlength=len(self.column_at) * (BINS + 1))
        return counts.reshape(-1, BINS + 1)


def fails(values: np.ndarray, compare: str, threshold: float | None) -> np.ndarray:
    """Where a rule says no, as rules.COMPARE in doubles; None: the rule is off.

    No doubles are made: the threshold becomes the nearest number that decides so.
    """
    if threshold is None:
        return np.zeros(len(values), bool)
    if values.dtype == np.float32:
        near = np.float32(threshold)
        if compare in (">=", "<") and near < threshold:
            near = np.nextafter(near, np.float32(np.inf))
        elif compare in (">", "<=") and near > threshold:
            near = np.nextafter(near, np.float32(-np.inf))
        threshold = near
    with np.errstate(invalid="ignore"):
        return ~rules.COMPARE[compare](values, threshold)
