"""MEASURE: shots, clips and their rows from a file's tracks; no picture but the stills is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from rushes.curation import manifest, meter, tracks
from rushes.curation.meter import Noted, Span, Unmeasured
from rushes.curation.meters import build_meters, custom_columns
from rushes.curation.observe import Observer
from rushes.curation.recipe import Recipe
from rushes.curation.scenes import ClipSpan, clip_spans, find_doubts, find_shots
from rushes.curation.tracks import Tracks, spread
from rushes.curation.video.source import Source, clip_id
from rushes.curation.visual.stills import STILLS


def schema(recipe: Recipe) -> pa.Schema:
    """Columns of `measure`: ANALYZED and those of the recipe's own meters."""
    return pa.schema([*manifest.ANALYZED, *custom_columns(recipe.meters)])


def measure(
    source: Source, observed: Tracks, recipe: Recipe, begin_s: float = 0.0, end_s: float | None = None
) -> pa.Table:
    """Clips of a file, a row each, in order; none where nothing was decoded. `schema` has the columns.

    begin_s, end_s: only the clips that begin between them.
    """
    info = observed.info
    if info is None or not observed.frames:
        return schema(recipe).empty_table()
    shots = find_shots(observed, recipe.scenes)
    doubts = find_doubts(observed, shots, recipe.scenes)
    clips = clip_spans(shots, observed.time_s, observed.end_s, recipe.scenes, doubts)
    clips = [clip for clip in clips if begin_s <= clip.span.start_s and (end_s is None or clip.span.start_s < end_s)]
    return measure_spans(source, replace(observed, shots=shots), clips, recipe)


def measure_spans(source: Source, observed: Tracks, clips: list[ClipSpan], recipe: Recipe) -> pa.Table:
    """A row of each of these spans of a file whose shots are known."""
    meters = build_meters(recipe, observed.info)
    return pa.Table.from_pylist([_row(source, clip, meters, observed) for clip in clips], schema(recipe))


def _row(source: Source, clip: ClipSpan, meters: list[meter.Meter], observed: Tracks) -> dict[str, Any]:
    span, info = clip.span, observed.info
    width, height = info.shown
    row: dict[str, Any] = {
        "clip_id": clip_id(source.source_id or source.uri, span.start_s, span.end_s),
        "source_id": source.source_id, "uri": source.uri, "shot": clip.shot,
        "start_s": span.start_s, "end_s": span.end_s, "duration_s": span.duration_s,
        "frames": span.stop - span.first, "width": width, "height": height, "fps": info.fps,
        "orientation": "landscape" if width >= height else "portrait",
    }  # fmt: skip
    row["bits_per_pixel"] = bits_per_pixel(source, observed)
    notes = [] if row["bits_per_pixel"] is not None else ["bits_per_pixel: the size of the file is not known"]
    for one in meters:
        for name, value in one.measure(observed, span).items():
            if isinstance(value, Unmeasured):
                notes.append(f"{name}: {value.reason}")
                value = None
            elif isinstance(value, Noted):
                notes.append(f"{name}: {value.remark}")
                value = value.value
            row[name] = value
    row["notes"] = notes
    return row


def bits_per_pixel(source: Source, observed: Tracks) -> float | None:
    """Bits of the whole file over the pixels of all its frames as they are coded."""
    info = observed.info
    if source.size_bytes is None or info is None or not observed.frames:
        return None
    return 8 * source.size_bytes / (observed.frames * info.width * info.height)


@dataclass(frozen=True)
class Analysis:
    """What one file gave: the source as the decode knows it, its clips (see `schema`) and their stills.

    transient: the file could not be read now, which says nothing about it: leave no record.
    """

    source: Source
    clips: pa.Table
    tracks: Tracks
    stills_max: int

    @property
    def transient(self) -> bool:
        return self.tracks.transient

    def still_batches(self) -> Iterator[pa.RecordBatch]:
        """A batch of STILLS rows for every clip that has any, in the order of `clips`."""
        stills = self.tracks.stills
        for name, start_s, end_s in zip(*(self.clips[c].to_pylist() for c in ("clip_id", "start_s", "end_s"))):
            numbers = spread(stills.inside(start_s, end_s), self.stills_max)
            if numbers:
                times = stills.times_s[numbers]
                yield pa.record_batch(
                    [[name] * len(numbers), times, [stills.jpeg(number) for number in numbers]], schema=STILLS
                )

    @property
    def stills(self) -> pa.Table:
        return pa.Table.from_batches(self.still_batches(), STILLS)


class Analyzer:
    """`Analyzer(recipe)(source)`: observe a whole file, and measure it; an ordinary class without an engine."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._observer = recipe, Observer(recipe)
        self.schema = schema(recipe)

    def __call__(self, source: Source) -> Analysis:
        """Never raises for what is wrong with the footage: the source's status and error say it."""
        observed = tracks.load(self._observer(source).batches())
        clips = measure(source, observed, self._recipe)
        return Analysis(replace(observed.source, clips=clips.num_rows), clips, observed, self._recipe.visual.stills_max)


__all__ = ["Analysis", "Analyzer", "Span", "measure", "schema"]
