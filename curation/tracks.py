"""Tracks: what the decode of a file leaves, some numbers per frame, kept as record batches and joined again.

A record batch of OBSERVED holds some tens of seconds of one part of one file: its tracks (an Arrow stream of their
own, compressed) and its stills. Batches of many sources stand one after another in one Parquet file. `load` joins
those of one source, in order, whatever parts it was decoded in.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation.video.frame import StreamInfo
from rushes.curation.video.source import Source

#: A file whose frames end so much before its stated duration is taken for cut off: seconds, and share.
SHORT_BY_S, SHORT_BY = 1.0, 0.02
STILLS_IN_MEMORY = 32 << 20  # bytes of a file's stills above which they wait in a temporary file
SELDOM = 0.5  # share of the frames at most that have a value in a track of which only those are in memory
TIME = "time_s"  # the one track that every file has

OBSERVED = pa.schema(
    [
        ("source_id", pa.string()),
        ("part", pa.int32()),  # of the file, from 0
        ("chunk", pa.int32()),  # of the part, from 0
        ("frames", pa.int32()),
        ("facts", pa.string()),  # in a part's last chunk: Facts as JSON
        ("tracks", pa.binary()),  # Arrow stream of one record batch, a row per frame
        ("stills", pa.list_(pa.struct([("t_s", pa.float64()), ("jpeg", pa.binary())]))),
    ]
)


@dataclass(frozen=True)
class Facts:
    """How the decode of one part ended. source: status and error of this part; transient: not to be recorded."""

    source: Source
    info: StreamInfo | None
    end_s: float  # when the part's last frame stops being shown
    whole: bool  # the file's end was reached
    transient: bool = False

    def to_json(self) -> str:
        info = None if self.info is None else self.info.as_dict()
        return json.dumps({**self.__dict__, "source": asdict(self.source), "info": info})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        facts = json.loads(text)
        info = None if facts["info"] is None else StreamInfo.from_dict(facts["info"])
        return cls(**{**facts, "source": Source(**facts["source"]), "info": info})


def pack(tracks: Mapping[str, np.ndarray], fields: Iterable[pa.Field]) -> bytes:
    """Tracks of some frames as a compressed Arrow stream. Raises ValueError for an array of another length."""
    arrays, schema = [], pa.schema(list(fields))
    count = len(tracks[TIME])
    for of in schema:
        values = np.asarray(tracks[of.name])
        if len(values) != count:
            raise ValueError(f"the track '{of.name}' has {len(values)} values for {count} frames")
        if pa.types.is_fixed_size_list(of.type):
            flat = pa.array(values.reshape(-1), of.type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, of.type.list_size))
        else:
            arrays.append(pa.array(values, of.type))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


class Seldom:
    """A track [frames, k] of which few frames have a value, the others NaN: only those are in memory.

    rows: int64 [n], frames that have one, in order. values: [n, k]. A slice of it is an array, NaN and all.
    """

    def __init__(self, rows: np.ndarray, values: np.ndarray, frames: int) -> None:
        self.rows, self.values, self.shape = rows, values, (frames, *values.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, span: slice) -> np.ndarray:
        start, stop, step = span.indices(len(self))
        first, last = np.searchsorted(self.rows, [start, max(start, stop)])
        found = np.full((max(0, stop - start), *self.shape[1:]), np.nan, self.values.dtype)
        found[self.rows[first:last] - start] = self.values[first:last]
        return found[::step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.values.dtype, copy=False)


def _in_memory(values: np.ndarray) -> np.ndarray | Seldom:
    (rows,) = np.nonzero(~np.isnan(values).all(axis=1)) if values.dtype.kind == "f" else (np.arange(len(values)),)
    return Seldom(rows, values[rows], len(values)) if len(rows) <= SELDOM * len(values) else values


def _in_a_row(parts: list[np.ndarray | Seldom]) -> np.ndarray | Seldom:
    if not all(isinstance(part, Seldom) for part in parts):
        return np.concatenate([np.asarray(part) for part in parts])
    starts = np.cumsum([0, *(len(part) for part in parts)])
    rows = np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=False)])
    return Seldom(rows, np.concatenate([part.values for part in parts]), int(starts[-1]))


def unpack(data: Any) -> dict[str, np.ndarray | Seldom]:
    """The arrays of `pack`: [frames], or [frames, k] of a fixed-size list."""
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        batch = reader.read_next_batch()
    found: dict[str, np.ndarray | Seldom] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_fixed_size_list(column.type):
            found[name] = _in_memory(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1))
        else:
            found[name] = column.to_numpy(zero_copy_only=False)
    return found


class Stills:
    """The stills of a file in order; beyond some megabytes they lie in a temporary file."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(STILLS_IN_MEMORY, prefix="rushes-stills-")  # noqa: SIM115
        self._places: list[tuple[int, int]] = []
        self._times: list[float] = []

    def add(self, t_s: float, jpeg: bytes) -> None:
        self._file.seek(0, 2)
        self._places.append((self._file.tell(), len(jpeg)))
        self._file.write(jpeg)
        self._times.append(t_s)

    @property
    def times_s(self) -> np.ndarray:
        return np.array(self._times, float)

    def inside(self, start_s: float, end_s: float) -> np.ndarray:
        """Numbers of the stills from start_s to end_s."""
        times = self.times_s
        return np.arange(np.searchsorted(times, start_s - 1e-6), np.searchsorted(times, end_s - 1e-6))

    def jpeg(self, number: int) -> bytes:
        place, size = self._places[number]
        self._file.seek(place)
        return self._file.read(size)


@dataclass
class Tracks(Mapping[str, np.ndarray]):
    """All tracks of a file: name -> array [frames, ...], NaN where a frame has no value.

    source: as the decode leaves it. info: facts of the stream, None where nothing was decoded. end_s: when the last
    frame stops being shown. shots: frames [first, stop) of every shot, once they are known. transient: the file could
    not be read now, which says nothing about it: leave no record.
    """

    source: Source
    info: StreamInfo | None
    end_s: float
    values: dict[str, np.ndarray | Seldom]
    stills: Stills = field(default_factory=Stills)
    shots: list[tuple[int, int]] = field(default_factory=list)
    transient: bool = False

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def frames(self) -> int:
        return len(self.values[TIME]) if TIME in self.values else 0

    @property
    def time_s(self) -> np.ndarray:
        """float64 [frames], seconds from the file's first frame."""
        return self.values[TIME]


def load(batches: pa.Table | Iterable[pa.RecordBatch], source_id: str | None = None) -> Tracks:
    """Join the observed parts of one source; rows of other sources are passed over.

    batches: OBSERVED rows, a part's chunks in order (parts may come in any order). Raises ValueError where a part is
    missing or broken off.
    """
    stills = Stills()
    parts: dict[int, list[dict[str, np.ndarray | Seldom]]] = {}
    pictures: dict[int, list[tuple[float, bytes]]] = {}
    ends: dict[int, Facts] = {}
    expected = 0
    for batch in batches.to_batches() if isinstance(batches, pa.Table) else batches:
        for row in range(batch.num_rows):
            if source_id is not None and batch["source_id"][row].as_py() != source_id:
                continue
            part = batch["part"][row].as_py()
            if batch["frames"][row].as_py():
                parts.setdefault(part, []).append(unpack(batch["tracks"][row].as_buffer()))
            found = stills_in(batch, row)
            if part == expected:
                for still in found:
                    stills.add(*still)
            else:
                pictures.setdefault(part, []).extend(found)
            facts = batch["facts"][row].as_py()
            if facts is not None:
                ends[part] = Facts.from_json(facts)
                expected += part == expected
    if not ends or sorted(ends) != list(range(len(ends))) or not set(parts) <= set(ends):
        raise ValueError(f"the tracks of {source_id} are not whole: parts {sorted(ends)} of {sorted(parts)} ended")
    for part in sorted(pictures):
        for still in pictures[part]:
            stills.add(*still)
    chunks = [chunk for part in sorted(parts) for chunk in parts[part]]
    names = list(chunks[0]) if chunks else []
    values = {name: _in_a_row([chunk.pop(name) for chunk in chunks]) for name in names}  # in memory once
    return _joined([ends[part] for part in sorted(ends)], values, stills)


def stills_in(batch: pa.RecordBatch, row: int) -> list[tuple[float, bytes]]:
    """(seconds, JPEG) of one observed row."""
    if "stills" not in batch.schema.names or not batch["stills"][row].is_valid:
        return []
    found = batch["stills"][row].values
    return list(zip(found.field("t_s").to_pylist(), found.field("jpeg").to_pylist(), strict=True))


def _joined(ends: list[Facts], values: dict[str, np.ndarray], stills: Stills) -> Tracks:
    """One file of its parts: it is ok where all are, failed where all are, else partial."""
    frames = len(values[TIME]) if values else 0
    end_s = max(facts.end_s for facts in ends)
    errors = [facts.source.error for facts in ends if facts.source.error]
    first = ends[0].source
    info = next((facts.info for facts in ends if facts.info is not None), None)
    stated = info.duration_s if info is not None and info.duration_s is not None else first.duration_s or 0.0
    transient = any(facts.transient for facts in ends)
    if frames and not transient and stated - end_s > max(SHORT_BY_S, SHORT_BY * stated):
        errors.append(f"the file states {stated:.1f} s, but its frames end at {end_s:.1f} s")
    error = "; ".join(dict.fromkeys(errors)) or None
    if not frames or transient:
        source = replace(first, clips=0).failed(error or "no frame can be decoded")
    else:
        source = replace(first, status="partial" if error else "ok", error=error, frames=frames, duration_s=end_s)
    return Tracks(source, info, end_s, values, stills, [], transient)


def spread(items: Any, most: int) -> list[Any]:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    items = list(items)
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def stills_of(
    batches: pa.Table | Iterable[pa.RecordBatch], source_id: str, spans: list[tuple[float, float]], most: int
) -> list[list[tuple[float, bytes]]]:
    """(seconds, JPEG) of each span of a source, at most `most`, evenly spread.

    spans: (start_s, end_s). Two passes over times and pictures are one where a Table is given.
    """
    table = batches if isinstance(batches, pa.Table) else pa.Table.from_batches(list(batches))
    found: list[tuple[float, bytes]] = []
    for batch in table.to_batches():
        for row in range(batch.num_rows):
            if batch["source_id"][row].as_py() == source_id:
                found += stills_in(batch, row)
    found.sort(key=lambda still: still[0])
    times = np.array([t for t, _ in found])
    chosen = []
    for start_s, end_s in spans:
        first, stop = np.searchsorted(times, [start_s - 1e-6, end_s - 1e-6])
        chosen.append([found[n] for n in spread(range(first, stop), most)])
    return chosen
