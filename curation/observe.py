"""OBSERVE: one decode of a file, or of a part of it, feeds every meter and leaves tracks and stills.

Batches of frames go through the meters and out come record batches of OBSERVED (curation/tracks.py), some tens of
seconds each: memory does not grow with a file's length, and a caller writes them as they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
from threadpoolctl import ThreadpoolController

from rushes.curation import meter, tracks
from rushes.curation.meters import build_meters, custom_columns, looks_ahead
from rushes.curation.recipe import Recipe
from rushes.curation.tracks import OBSERVED, Facts
from rushes.curation.video.batch import Batch, batches
from rushes.curation.video.decode import Decoded, DecodeError, opened, quiet
from rushes.curation.video.source import Source, fingerprint, resolve
from rushes.curation.visual.patches import PER_S as LOOKS_PER_S
from rushes.curation.visual.stills import encode

CHUNK_S = 40.0  # footage in one record batch, seconds
CHUNK_FRAMES = 4096  # and at most so many frames
KEPT = " kept"  # beside the tracks: whether a frame is one of the part's own
LEAD_S = 4.0  # a part decodes so much before its begin: the longest window of a meter is 2 s


class Observer:
    """`Observer(recipe)(source)`; an ordinary class without an engine, built once per process.

    Raises RecipeError when it is built, where a meter of the recipe cannot be imported.
    """

    def __init__(self, recipe: Recipe) -> None:
        quiet()
        self.recipe = recipe
        custom_columns(recipe.meters)

    def __call__(self, source: Source, begin_s: float = 0.0, end_s: float | None = None, part: int = 0) -> Observation:
        """The file from begin_s to end_s (None: to its end), seconds from its first frame, as its part `part`."""
        return Observation(self.recipe, source, begin_s, end_s, part)


class Observation:
    """One decode in progress: `batches` streams it. Nothing that is wrong with the footage is raised.

    source and transient (leave no record of this) are right once `batches` is exhausted.
    """

    def __init__(self, recipe: Recipe, source: Source, begin_s: float, end_s: float | None, part: int) -> None:
        self._recipe, self._begin_s, self._end_s, self._part = recipe, begin_s, end_s, part
        self.source, self.transient = source, False
        self._chunk = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Record batches of OBSERVED, at least one; the last holds the facts."""
        end = Decoded()
        held = _Chunk()
        error = None
        try:
            before = identity(self.source.uri)
            try:
                for found, fields in self._observe(end):
                    if held.full:
                        yield self._flush(held)
                        held = _Chunk()
                    held.add(found, fields)
                if not end.frames:
                    error = "no frame can be decoded" + (f": {end.errors[0]}" if end.errors else "")
            except DecodeError as failure:
                error = str(failure)
            if changed(self.source, before):
                self.transient, error = True, "the file changed while it was read"
        except FileNotFoundError:
            self.transient, error = True, "the file vanished before it was read"
        except OSError as failure:
            self.transient, error = True, f"the file cannot be read now ({failure})"
        self.transient |= end.transient
        self.source = self._judged(end, error)
        yield self._flush(held, self._facts(end))

    def _observe(self, end: Decoded) -> Iterator[tuple[_Observed, list[pa.Field]]]:
        visual = self._recipe.visual
        meters: list[meter.Meter] | None = None
        fields: list[pa.Field] = []
        late = _Late()
        with opened(self.source.uri, vectors=True) as (container, stream):
            for batch in batches(
                container, stream, end, self._begin_s, self._end_s, LEAD_S, visual.stills_per_s, visual.stills_side,
                LOOKS_PER_S, lambda info: looks_ahead(self._recipe, info),
            ):  # fmt: skip
                if meters is None:
                    meters = build_meters(self._recipe, batch.info)
                    fields = [pa.field(tracks.TIME, pa.float64()), *(f for m in meters for f in m.tracks)]
                found = _through(meters, batch, late)
                if found is not None:
                    yield found, fields
        if meters is not None:
            rest = late.rest(meters)
            if rest is not None:
                yield rest, fields

    def _judged(self, end: Decoded, error: str | None) -> Source:
        errors = [error] if error else end.errors
        told = "; ".join(errors) or None
        if error:
            return replace(self.source, clips=0).failed(error)
        return replace(self.source, status="partial" if told else "ok", error=told)

    def _facts(self, end: Decoded) -> Facts:
        return Facts(self.source, end.info, end.kept_end_s, not end.stopped, self.transient)

    def _flush(self, held: _Chunk, facts: Facts | None = None) -> pa.RecordBatch:
        frames, data, stills = held.packed()
        row = {
            "source_id": self.source.source_id or self.source.uri, "part": self._part, "chunk": self._chunk,
            "frames": frames, "facts": None if facts is None else facts.to_json(), "tracks": data, "stills": stills,
        }  # fmt: skip
        self._chunk += 1
        return pa.RecordBatch.from_pylist([row], OBSERVED)


class _Observed:
    """Tracks of one batch, and its stills as (seconds, JPEG)."""

    def __init__(self, values: dict[str, np.ndarray], stills: list[tuple[float, bytes]]) -> None:
        self.values, self.stills = values, stills


class _Chunk:
    """What waits to be written as one record batch."""

    def __init__(self) -> None:
        self._parts: list[dict[str, np.ndarray]] = []
        self._stills: list[tuple[float, bytes]] = []
        self._fields: list[pa.Field] = []
        self._frames = 0

    @property
    def full(self) -> bool:
        if not self._parts:
            return False
        begin_s, end_s = self._parts[0][tracks.TIME][0], self._parts[-1][tracks.TIME][-1]
        return end_s - begin_s >= CHUNK_S or self._frames >= CHUNK_FRAMES

    def add(self, found: _Observed, fields: list[pa.Field]) -> None:
        rows = len(found.values[tracks.TIME])
        if rows:
            self._parts.append(found.values)
        self._stills += found.stills
        self._fields = fields
        self._frames += rows

    def packed(self) -> tuple[int, bytes | None, list[dict[str, object]]]:
        stills = [{"t_s": t_s, "jpeg": jpeg} for t_s, jpeg in self._stills]
        if not self._parts:
            return 0, None, stills
        joined = {f.name: np.concatenate([part[f.name] for part in self._parts]) for f in self._fields}
        return self._frames, tracks.pack(joined, self._fields), stills


class _Late:
    """Values that wait for those of a meter that looks ahead: rows come out once every track has them."""

    def __init__(self) -> None:
        self._held: dict[str, np.ndarray] = {}

    def through(self, values: dict[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
        """Add what came, and take the rows that are whole. kept: bool, whether a frame is no lead and no tail."""
        for name, array in {**values, KEPT: kept}.items():
            self._held[name] = np.concatenate([self._held[name], array]) if name in self._held else array
        ready = min(len(array) for array in self._held.values())
        whole = {name: array[:ready] for name, array in self._held.items()}
        self._held = {name: array[ready:] for name, array in self._held.items()}
        chosen = whole.pop(KEPT).astype(bool)
        return {name: array[chosen] for name, array in whole.items()}

    def rest(self, meters: list[meter.Meter]) -> _Observed | None:
        """What the meters still owe once no frame is left."""
        values = {name: array for one in meters if hasattr(one, "finish") for name, array in one.finish().items()}
        rows = self.through(values, np.empty(0, bool))
        return _Observed(rows, []) if len(rows[tracks.TIME]) else None


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _through(meters: list[meter.Meter], batch: Batch, late: _Late) -> _Observed | None:
    """A batch through all meters; None where it left no row and no still."""
    values: dict[str, np.ndarray] = {tracks.TIME: batch.time_s}
    # Products of small matrices: other threads of BLAS would wait for longer than they work, and burn CPU.
    with _libraries().limit(limits=1, user_api="blas"):
        for one in meters:
            values.update(one.observe(batch))
    places = np.arange(len(batch))
    values = late.through(values, (places >= batch.lead) & (places < len(batch) - batch.tail))
    stills = [(float(batch.time_s[place]), encode(bgr)) for place, bgr in batch.stills]
    return _Observed(values, stills) if stills or len(values[tracks.TIME]) else None


def identity(uri: str) -> tuple[int | None, int | None]:
    """Size and time of a file as its file system tells them. Raises FileNotFoundError."""
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise FileNotFoundError(uri)
    return info.size, info.mtime_ns


def changed(source: Source, before: tuple[int | None, int | None]) -> bool:
    """Whether the file is another than the one that `source` names, or than the one whose identity was `before`.

    On a local disk its fingerprint is taken again: a file that was replaced after the probe is not taken for it.
    """
    if identity(source.uri) != before or (source.size_bytes is not None and source.size_bytes != before[0]):
        return True
    local = isinstance(resolve(source.uri)[0], pafs.LocalFileSystem)
    return local and source.source_id is not None and fingerprint(source.uri) != source.source_id
