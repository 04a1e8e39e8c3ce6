"""A run in progress: what its stages share, and what they know of it. Nothing here holds a clip."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rushes.curation.recipe import Recipe
from rushes.curation.storage import join
from rushes.pipelines.engine.events import Bus
from rushes.pipelines.engine.pool import Pool
from rushes.pipelines.stages.items import Probed
from rushes.pipelines.stages.keys import Keys

LEASE_SOURCES = 32  # sources in a lease at most
LEASE_S = 1800.0  # footage in a lease at most, seconds: what a kill may cost a worker


@dataclass
class Inputs:
    """Every input of a run, by arrays in the order of their addresses: some tens of bytes each.

    records, first: of the leases that probed them, and where each lease's inputs begin; numbers: content ids as 64
    bits; seconds: footage; ok: worth decoding; first_of: the input with the same content that comes first, -1 where
    none does; failed: sentences, by input.
    """

    uris: pa.Array
    records: list[str] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    seconds: np.ndarray = field(default_factory=lambda: np.zeros(0))
    ok: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    first_of: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    failed: dict[int, str] = field(default_factory=dict)

    def take(self, probed: list[Probed]) -> None:
        """Leases in order."""
        sizes = [len(lease.ok) for lease in probed]
        self.records = [lease.record for lease in probed]
        self.first = [0, *np.cumsum(sizes).tolist()]
        self.numbers = np.concatenate([np.array(lease.numbers, np.uint64) for lease in probed])
        self.seconds = np.concatenate([np.array(lease.seconds) for lease in probed])
        self.ok = np.concatenate([np.array(lease.ok, bool) for lease in probed])
        self.first_of = np.full(len(self.ok), -1, np.int64)
        good = np.flatnonzero(self.ok)
        _, where, inverse = np.unique(self.numbers[good], return_index=True, return_inverse=True)
        again = where[inverse] != np.arange(len(good))
        self.first_of[good[again]] = good[where[inverse[again]]]
        self.ok[good[again]] = False


class Recorded:
    """Which record holds each part of each input: four bytes a part, and a name a record.

    parts: int [inputs], how many parts each has.
    """

    def __init__(self, parts: np.ndarray) -> None:
        self._first = np.concatenate([[0], np.cumsum(parts)])
        self._places = np.full(self._first[-1], -1, np.int32)
        self._files: list[str] = []
        self._known: dict[str, int] = {}

    def of(self, number: int) -> list[str | None]:
        """The records of an input's parts, in order."""
        places = self._places[self._first[number] : self._first[number + 1]].tolist()
        return [None if place < 0 else self._files[place] for place in places]

    def whole(self, number: int) -> bool:
        """Whether all parts are recorded."""
        return -1 not in self._places[self._first[number] : self._first[number + 1]].tolist()

    def set(self, number: int, part: int, record: str | None) -> None:
        self._places[self._first[number] + part] = -1 if record is None else self._place(record)

    def take(self, number: int, records: Sequence[str | None]) -> None:
        """The records of all parts of an input."""
        for part, record in enumerate(records):
            self.set(number, part, record)

    def _place(self, record: str) -> int:
        if record not in self._known:
            self._known[record] = len(self._files)
            self._files.append(record)
        return self._known[record]


@dataclass
class Job:
    """recipe, root (absolute), keys of its records, pool and bus; then what the stages have found so far."""

    recipe: Recipe
    root: str
    pool: Pool
    bus: Bus
    inputs: Inputs
    keys: Keys
    warnings: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    observed: Recorded = field(default_factory=lambda: Recorded(np.zeros(0, np.int64)))  # tracks of inputs' parts
    looked: Recorded = field(default_factory=lambda: Recorded(np.zeros(0, np.int64)))  # their clips
    unlooked: int = 0  # clips that no model could look at
    survivors: int = 0  # clips that pass the decode's rules, of those that were measured now
    shards: list[str] = field(default_factory=list)
    vectors: list[str] = field(default_factory=list)  # of the clips that were looked at, a file for each shard
    sources: list[str] = field(default_factory=list)  # rows of `sources`, a file for each shard
    groups: list[str] = field(default_factory=list)  # what content measured, a file for each shard
    vocabulary: str | None = None  # words and their vectors, where a text tower made them
    decided: list[str] = field(default_factory=list)  # what was decided, a file for each shard
    plans: list[str] = field(default_factory=list)  # kept clips, by lease of cutting, a file for each shard
    made: list[str] = field(default_factory=list)  # final rows without sets, a file for each shard

    def work(self, *parts: str) -> str:
        return join(self.root, "work", *parts)

    def timeout_s(self, seconds: float, count: int = 1) -> float:
        """How long a lease of `count` items and so much footage may take."""
        engine = self.recipe.engine
        return engine.timeout_min_s * count + engine.timeout_factor * seconds
