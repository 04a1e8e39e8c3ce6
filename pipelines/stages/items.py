"""What work is done on: files by address, sources or parts of long ones, and what a worker tells the driver of them.

These cross between driver and workers, so they are small: counts and names, no rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from rushes.curation.manifest import SOURCES
from rushes.curation.video.source import Source

PART_S = 300.0  # a longer file is observed, and looked at, in parts of about this length, seconds
LONG_S = 600.0  # files up to this are one part
#: What probing records of an input: its row of `sources`, and its size and time then.
PROBED = pa.schema([*SOURCES, pa.field("stamp", pa.string())])


@dataclass(frozen=True)
class Item:
    """A source, or part number `part` of `parts` of a long one. number: of the input, as the driver counts them."""

    source: Source
    part: int = 0
    parts: int = 1
    number: int = 0

    @cached_property
    def key(self) -> str:
        return f"{self.source.source_id}:{self.part}/{self.parts}"

    @property
    def length_s(self) -> float:
        """Expected footage, seconds."""
        return (self.source.duration_s or 0.0) / self.parts

    @property
    def span(self) -> tuple[float, float | None]:
        """From and to, seconds from the first frame; the last part ends where the file does."""
        each = self.length_s
        return self.part * each, None if self.part == self.parts - 1 else (self.part + 1) * each


def part_count(length_s: float) -> int:
    """Parts of a source of so much footage, seconds."""
    return 1 if length_s <= LONG_S else math.ceil(length_s / PART_S)


def parts_of(source: Source, number: int = 0) -> list[Item]:
    """The items of a source: itself, or the parts of a long one."""
    parts = part_count(source.duration_s or 0.0)
    return [Item(source, part, parts, number) for part in range(parts)]


@dataclass(frozen=True)
class Probed:
    """A lease of inputs that were probed. All lists are in the order of the record's rows.

    number: the content id as 64 bits, 0 where there is none; missing: rows of files that were not found here.
    """

    record: str
    numbers: list[int]
    seconds: list[float]
    ok: list[bool]
    missing: list[int]


@dataclass(frozen=True)
class Seen:
    """An item that was observed. record: where; passing: what is wrong may be over next time, so it does not last."""

    key: str
    record: str
    seconds: float
    error: str | None = None
    passing: bool = False


@dataclass(frozen=True)
class ToLook:
    """An item to be measured and looked at.

    observed: records of all parts of its source, in order; before: records of clips that were looked at with other
    thresholds; unlooked: why no model is to look at it (it failed), None as a rule.
    """

    item: Item
    observed: tuple[str, ...]
    before: tuple[str, ...] = ()
    unlooked: str | None = None


@dataclass(frozen=True)
class Looked:
    """An item whose clips have their rows. survivors: those that pass the decode's rules; rejected: the others."""

    key: str
    record: str
    clips: int
    survivors: int
    seconds: float
    rejected: dict[str, int] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()  # records that could not be read, and were deleted


@dataclass(frozen=True)
class CutLease:
    """Kept clips of a shard that are cut in one lease: a row group of the shard's plan, or one row (`only`) of it."""

    plan: str
    group: int
    clips: int
    seconds: float
    only: int | None = None


@dataclass(frozen=True)
class CaptionLease:
    """Clips of a shard that are asked for in one lease: a row group of the shard's plan."""

    plan: str
    group: int
    clips: int
