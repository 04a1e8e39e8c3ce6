"""ANALYZE: one decode of a file feeds every meter; out come its clips, one row each, and their stills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import manifest
from rushes.curation.meter import Meter, Span, Unmeasured, build_custom, custom_columns
from rushes.curation.motion import MotionMeter
from rushes.curation.recipe import Recipe
from rushes.curation.scenes import ClipSpan, ShotMeter, clip_spans
from rushes.curation.video.decode import Decoded, DecodeError, StreamInfo, frames, opened
from rushes.curation.video.source import Source, clip_id
from rushes.curation.visual.stills import STILLS, StillMeter

#: A file whose frames end so much before its stated duration is taken for cut off: seconds, and share.
SHORT_BY_S, SHORT_BY = 1.0, 0.02


@dataclass(frozen=True)
class Analysis:
    """What one file gave: the source as the decode knows it, clips (ANALYZED and the recipe's own columns), stills.

    The stills wait in a temporary file: `still_batches` reads those of one clip at a time, `stills` all of them.
    """

    source: Source
    clips: pa.Table
    _meter: StillMeter | None = None
    _spans: tuple[Span, ...] = ()

    def still_batches(self) -> Iterator[pa.RecordBatch]:
        """A batch of STILLS rows for every clip that has any, in the order of `clips`."""
        for name, span in zip(self.clips["clip_id"].to_pylist(), self._spans, strict=True):
            found = self._meter.stills(span) if self._meter is not None else []
            if found:
                times, jpegs = zip(*found, strict=True)
                yield pa.record_batch([[name] * len(found), times, jpegs], schema=STILLS)

    @property
    def stills(self) -> pa.Table:
        return pa.Table.from_batches(self.still_batches(), STILLS)


class Analyzer:
    """`Analyzer(recipe)(source)`; an ordinary class without an engine, built once per process."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._custom = custom_columns(recipe.meters)
        self.schema = pa.schema(list(manifest.ANALYZED) + self._custom)

    def __call__(self, source: Source) -> Analysis:
        """Never raises for what is wrong with the footage: the source's status and error say it."""
        try:
            return self._analyze(source)
        except DecodeError as error:
            return self._nothing(source.failed(str(error)))
        except FileNotFoundError:
            return self._nothing(source.failed("the file vanished before it was read"))

    def _nothing(self, source: Source) -> Analysis:
        return Analysis(replace(source, clips=0), self.schema.empty_table())

    def _analyze(self, source: Source) -> Analysis:
        end = Decoded()
        times: list[float] = []
        meters: _Meters | None = None
        info: StreamInfo | None = None
        with opened(source.uri, vectors=True) as (container, stream):
            for frame in frames(container, stream, end):
                if meters is None:
                    info = frame.info
                    meters = _Meters(info, self._recipe)
                times.append(frame.time_s)
                for meter in meters.all:
                    meter.observe(frame)
        errors = list(end.errors or [])
        if meters is None or info is None:
            raise DecodeError("no frame can be decoded" + (f": {errors[0]}" if errors else ""))
        stated = source.duration_s or 0.0
        if stated - end.end_s > max(SHORT_BY_S, SHORT_BY * stated):
            errors.append(f"the file states {stated:.1f} s, but its frames end at {end.end_s:.1f} s")
        shots = meters.shots.shots(end.frames)
        meters.motion.jumps = [first for first, _ in shots[1:]]
        clips = clip_spans(shots, np.array(times), end.end_s, self._recipe.scenes)
        source = replace(
            source, status="partial" if errors else "ok", error="; ".join(errors) or None,
            frames=end.frames, duration_s=end.end_s, clips=len(clips),
        )  # fmt: skip
        rows = [self._row(source, clip, meters, info) for clip in clips]
        spans = tuple(clip.span for clip in clips)
        return Analysis(source, pa.Table.from_pylist(rows, self.schema), meters.stills, spans)

    def _row(self, source: Source, clip: ClipSpan, meters: _Meters, info: StreamInfo) -> dict[str, Any]:
        span = clip.span
        width, height = info.shown
        row: dict[str, Any] = {
            "clip_id": clip_id(source.source_id or source.uri, span.start_s, span.end_s),
            "source_id": source.source_id, "uri": source.uri, "shot": clip.shot,
            "start_s": span.start_s, "end_s": span.end_s, "duration_s": span.duration_s,
            "frames": span.stop - span.first, "width": width, "height": height, "fps": info.fps,
            "orientation": "landscape" if width >= height else "portrait",
        }  # fmt: skip
        notes: list[str] = []
        for meter in meters.all:
            for name, value in meter.measure(span).items():
                row[name] = None if isinstance(value, Unmeasured) else value
                if isinstance(value, Unmeasured):
                    notes.append(f"{name}: {value.reason}")
        row["notes"] = notes + meters.motion.notes()
        return row


class _Meters:
    """The meters of one file."""

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self.shots = ShotMeter(info, recipe.scenes, recipe.motion.jitter_content_val)
        self.motion = MotionMeter(info, recipe.motion)
        self.stills = StillMeter(recipe.visual)
        self.all: list[Meter] = [self.shots, self.motion, self.stills, *build_custom(recipe.meters, info)]
