"""The rows of `sets/NAME` of one or more runs: shapes, clips, and which rows are in which bucket.

Of the manifest only the buckets are read up front (8 bytes a row). Other columns are read a row group at a time, when a
clip of it is wanted, and the last ROWS_HELD rows stay.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rushes.curation.manifest import ManifestError, Run, open_run, resolve
from rushes.curation.nearest import meant
from rushes.model.frames import ClipError

SIDE_STEP = 16  # pixels: the TAE shrinks a side 8 times, the DiT's patches take 2 of what is left
ROWS_HELD = 1 << 20  # of the row groups kept in memory: about 300 MB with captions of 150 characters
COLUMNS = ["clip_id", "media", "media_start_s", "media_end_s", "bucket_frames", "bucket_width", "bucket_height",
           "caption"]  # fmt: skip


class DataError(RuntimeError):
    """A set that cannot be trained on: one sentence with what to do."""


@dataclass(frozen=True)
class Shape:
    """What a batch of a bucket holds: frames, and sides in pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"

    def scaled(self, frames_max: int | None, resolution: int | None) -> Shape:
        """At most `frames_max` frames, at about `resolution` ** 2 pixels with the same aspect; sides of 16 n."""
        frames = min(self.frames, frames_max or self.frames)
        if resolution is None:
            return Shape(frames, self.height, self.width)
        factor = resolution / math.sqrt(self.height * self.width)
        sides = (max(1, round(side * factor / SIDE_STEP)) * SIDE_STEP for side in (self.height, self.width))
        return Shape(frames, *sides)


@dataclass(frozen=True)
class Clip:
    """A row of a set. start_s, end_s: inside the media file, seconds; frames: sampled over the whole span.

    An image is a row of one frame, shown for one second.
    """

    clip_id: str
    uri: str
    start_s: float
    end_s: float
    frames: int
    caption: str

    @property
    def rate(self) -> float:
        """Frames per second at which the clip is sampled."""
        return self.frames / (self.end_s - self.start_s)

    @property
    def is_image(self) -> bool:
        return self.frames == 1


class ClipTable:
    """The rows of `sets/NAME` of those runs that have it, numbered through. Raises ManifestError, DataError."""

    def __init__(self, roots: Sequence[str], name: str) -> None:
        opened = [open_run(root) for root in roots]
        self.runs: list[Run] = [run for run in opened if f"sets/{name}" in run.tables]
        self.without = [run.root for run in opened if run not in self.runs]
        if not self.runs:
            raise ManifestError(_no_set(opened, name))
        self.name = name
        self._groups: list[tuple[int, str, int, str]] = []  # first row, file, row group, run's root
        self._firsts: list[int] = []  # the first rows alone
        self._held: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._footers: dict[str, pq.FileMetaData] = {}
        self._lock = Lock()
        self.rows_by_bucket: list[tuple[str, int, np.ndarray]] = []  # bucket, frames, rows of one run
        self.rows = 0
        self._weights: set[float] = set()
        for run in self.runs:
            self._index(run)
        if len(self._weights) > 1:
            raise DataError(
                f"The weights in sets/{name} go from {min(self._weights):g} to {max(self._weights):g}, but training "
                f"draws every row equally often: publish the set with one weight, holding the rows that are wanted."
            )

    @property
    def identity(self) -> list[list[str]]:
        """Which data this is: per run its address and snapshot, and the set."""
        return [[run.root, run.record["snapshot"], self.name] for run in self.runs]

    def _index(self, run: Run) -> None:
        table = f"sets/{self.name}"
        fs, root = resolve(run.root)
        parts: dict[tuple[str, int], list[np.ndarray]] = {}
        for path in run.record["tables"][table]["files"]:
            with pq.ParquetFile(f"{root}/{path}", filesystem=fs, read_dictionary=["bucket"]) as file:
                self._footers[f"{root}/{path}"] = file.metadata
                self._weights |= _weights_of(file)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["bucket", "bucket_frames"])
                    column = table["bucket"].combine_chunks()
                    codes = column.indices.fill_null(len(column.dictionary)).to_numpy()
                    frames = table["bucket_frames"].combine_chunks().fill_null(0).to_numpy()
                    for code, bucket in enumerate(column.dictionary.to_pylist()):
                        here = np.flatnonzero(codes == code)
                        for count in np.unique(frames[here]).tolist():
                            parts.setdefault((bucket, count), []).append(here[frames[here] == count] + self.rows)
                    self._groups.append((self.rows, path, group, run.root))
                    self._firsts.append(self.rows)
                    self.rows += len(codes)
        self.rows_by_bucket += [(*key, np.concatenate(rows)) for key, rows in sorted(parts.items())]

    def __getitem__(self, row: int) -> Clip:
        """A row as a clip. Raises ClipError where it has no media file or no span."""
        value, root = self._row(row)
        start_s, end_s, media = value["media_start_s"], value["media_end_s"], value["media"]
        if not media or start_s is None or end_s is None or end_s <= start_s or not value["bucket_frames"]:
            raise ClipError(f"Clip {value['clip_id']} has no media file or no span in the manifest of {root}.")
        uri = media if "://" in media or media.startswith("/") else f"{root.rstrip('/')}/{media}"
        return Clip(value["clip_id"], uri, start_s, end_s, value["bucket_frames"], value["caption"] or "")

    def shape_of(self, row: int) -> Shape:
        """The shape that the manifest gives a row. Raises DataError where it lacks one."""
        value, root = self._row(row)
        sides = [value[name] for name in ("bucket_frames", "bucket_height", "bucket_width")]
        if not all(sides):
            raise DataError(
                f"Clip {value['clip_id']} lacks bucket_frames, bucket_height or bucket_width in the manifest of {root}."
            )
        return Shape(*sides)

    def _row(self, row: int) -> tuple[dict[str, Any], str]:
        at = bisect_right(self._firsts, row) - 1
        first, path, group, root = self._groups[at]
        columns = self._columns(at, path, group, root)
        return {name: columns[name][row - first].as_py() for name in COLUMNS}, root

    def _columns(self, at: int, path: str, group: int, root: str) -> dict[str, Any]:
        with self._lock:
            if at in self._held:
                self._held.move_to_end(at)
                return self._held[at]
        fs, folder = resolve(root)
        whole = f"{folder}/{path}"
        with pq.ParquetFile(whole, filesystem=fs, metadata=self._footers[whole]) as file:
            table = file.read_row_group(group, columns=COLUMNS, use_threads=False)
        columns = {name: table[name] for name in COLUMNS}
        with self._lock:
            self._held[at] = columns
            while sum(len(one["clip_id"]) for one in self._held.values()) > ROWS_HELD and len(self._held) > 1:
                self._held.popitem(last=False)
        return columns


def _no_set(runs: Sequence[Run], name: str) -> str:
    sets = sorted({table.removeprefix("sets/") for run in runs for table in run.tables if table.startswith("sets/")})
    return f"There is no set '{name}' in {', '.join(run.root for run in runs)}; {meant(name, sets, 'sets')}"


def _weights_of(file: pq.ParquetFile) -> set[float]:
    """Least and largest `weight` of each row group, from the statistics where the file has them; nulls are left out."""
    found: set[float] = set()
    at = file.schema_arrow.get_field_index("weight")
    for group in range(file.num_row_groups if at >= 0 else 0):
        told = file.metadata.row_group(group).column(at).statistics
        if told is not None and told.has_min_max:
            found |= {told.min, told.max}
        elif told is None or told.null_count != file.metadata.row_group(group).num_rows:
            found |= set(file.read_row_group(group, columns=["weight"])["weight"].drop_null().to_pylist())
    return found
