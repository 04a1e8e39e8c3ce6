"""The motion meter: VMAF motion, mean motion vector, static share, slideshow score and shake."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rushes.curation.meter import Noted, Span, Unmeasured
from rushes.curation.motion import vmaf
from rushes.curation.motion.shake import PARTS, PER_S, STEP, medians, medians_of_flow, shake, textured
from rushes.curation.motion.vectors import REFERENCE_SIDE, Flow, joined, mean_lengths
from rushes.curation.recipe import Recipe
from rushes.curation.video.batch import Batch
from rushes.curation.video.frame import StreamInfo

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

FLOW_PER_S = 8.0  # frames a second whose flow is measured where the codec exports no vectors, two close to each other
FLOW_AFTER_S = 2.0  # vectors are not expected where none came for so long, seconds
FLOW_SIDE_MIN = 16  # optical flow needs pictures of at least this side, pixels
SLIDESHOW_AROUND_S = 20.0  # footage around a clip that is searched for stills and jumps, seconds
SLIDESHOW_JUMPS = 2  # so many jumps between stills make a slideshow
TEXTURE_PER_S = 1.0  # pictures a second in which parts with texture are looked for
COLUMNS = ("vmaf_motion", "mv_mean", "static_frac", "slideshow_score", "shake")


class MotionMeter:
    """A clip at too low a frame rate, or of a single frame, is unmeasured, never "no motion".

    vmaf: change of the blurred small luma, grey levels. vector_length: pixels per frame at 720 lines. from_flow: 1
    where that is from optical flow. shifts: median displacement (right, down) of each textured part of the picture, in
    the same unit.
    """

    tracks = (
        pa.field("vmaf", pa.float32()),
        pa.field("vector_length", pa.float32()),
        pa.field("from_flow", pa.uint8()),
        pa.field("shifts", pa.list_(pa.float32(), 2 * PARTS)),
    )

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self._info, self._recipe = info, recipe.motion
        self._to_reference = REFERENCE_SIDE / max(1, min(info.width, info.height))
        self._lag = max(1, round(info.fps / PER_S))
        self._flow_every = max(1, round(2 * info.fps / FLOW_PER_S))
        self._since_flow = 0  # frames since the first of the last two whose flow is measured
        self._blurred: np.ndarray | None = None
        self._luma: np.ndarray | None = None
        self._since_anchor = 1  # frames since the last one that others refer to: vectors reach back to it
        self._vectors_s = -np.inf  # when vectors were seen last
        self._flow: Flow | None = None
        self._textured = np.ones(PARTS, bool)

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        count = len(batch)
        found = {
            "vmaf": self._vmaf(batch.luma),
            "vector_length": np.full(count, np.nan, np.float32),
            "from_flow": np.zeros(count, np.uint8),
            "shifts": np.full((count, PARTS, 2), np.nan, np.float32),
        }
        self._measure_vectors(found, batch)
        flowing = batch.every(self._flow_every)
        for place, time_s in enumerate(batch.time_s):
            self._since_flow = 0 if flowing[place] else self._since_flow + 1
            if batch.vectors[place] is not None and len(batch.vectors[place]):
                self._vectors_s = time_s
            elif self._since_flow in (0, self._lag) and time_s - self._vectors_s > FLOW_AFTER_S:
                self._measure_flow(found, place, batch.luma)
        self._luma = batch.luma[-1]
        self._drop_flat(found["shifts"], batch)
        found["shifts"] = found["shifts"].reshape(count, -1)
        return found

    def _measure_vectors(self, found: dict[str, np.ndarray], batch: Batch) -> None:
        places, words, counts = joined(batch.vectors)
        reach = np.empty(len(batch))
        for place, bidirectional in enumerate(batch.bidirectional):
            reach[place] = self._since_anchor
            self._since_anchor = self._since_anchor + 1 if bidirectional else 1
        if not len(places):
            return
        per_frame = self._to_reference / reach[places]
        found["vector_length"][places] = mean_lengths(words, counts) * per_frame
        shifts = medians(words, counts, self._info.width, self._info.height)
        found["shifts"][places] = shifts * per_frame[:, None, None]

    def _drop_flat(self, shifts: np.ndarray, batch: Batch) -> None:
        """Parts without texture in the last picture that was looked at are not known."""
        ticks = [*np.flatnonzero(batch.ticks(TEXTURE_PER_S)), len(batch)]
        shifts[: ticks[0], ~self._textured] = np.nan
        for first, stop in itertools.pairwise(ticks):
            self._textured = textured(batch.luma[first])
            shifts[first:stop, ~self._textured] = np.nan

    def _vmaf(self, luma: np.ndarray) -> np.ndarray:
        scores = np.full(len(luma), np.nan, np.float32)
        before = self._blurred
        for place, picture in enumerate(luma):
            blurred = vmaf.blur(picture)
            if before is not None:
                scores[place] = vmaf.difference(blurred, before)
            before = blurred
        self._blurred = before
        return scores

    def _measure_flow(self, found: dict[str, np.ndarray], place: int, luma: np.ndarray) -> None:
        before = luma[place - 1] if place else self._luma
        if before is None or min(before.shape) < FLOW_SIDE_MIN:
            return
        self._flow = self._flow or Flow()
        length, field = self._flow.measure(before, luma[place])
        found["vector_length"][place] = length * self._info.factor * self._to_reference
        found["from_flow"][place] = 1
        if field is not None:
            width, height = self._info.width, self._info.height
            found["shifts"][place] = medians_of_flow(field, width, height) * max(width, height) * self._to_reference

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        if self._info.fps < self._recipe.fps_measurable:
            reason = f"at {self._info.fps:g} frames per second frames are too far apart in time to measure motion"
            return dict.fromkeys(COLUMNS, Unmeasured(reason))
        inside = slice(span.first + 1, span.stop)  # the first score looks back across the edge
        scores = tracks["vmaf"][inside]
        if not len(scores):
            return dict.fromkeys(COLUMNS, Unmeasured("one frame shows no motion"))
        return {
            "vmaf_motion": vmaf.to_full_size(float(scores.mean())),
            "mv_mean": self._mean_length(tracks["vector_length"][inside], tracks["from_flow"][inside]),
            "static_frac": float((scores < self._recipe.static_eps).mean()),
            "slideshow_score": self._slideshow(tracks, span),
            "shake": self._shake(tracks["shifts"][inside], tracks["from_flow"][inside]),
        }

    def _shake(self, shifts: np.ndarray, from_flow: np.ndarray) -> float:
        """Pixels per second at 720 lines."""
        step = 0.0 if from_flow.any() else STEP * self._to_reference
        return shake(shifts.reshape(len(shifts), PARTS, 2), self._info.fps, self._lag, step)

    def _mean_length(self, lengths: np.ndarray, from_flow: np.ndarray) -> Any:
        known = np.isfinite(lengths)
        if not known.any():
            return Unmeasured("no frame of the clip has vectors")
        mean = float(lengths[known].mean())
        if from_flow.any():
            return Noted(mean, f"from optical flow, {self._info.codec} exports no motion vectors")
        return mean

    def _slideshow(self, tracks: Tracks, span: Span) -> float:
        """Share of static frames in and around the clip, where the footage there jumps from still to still; else 0."""
        around = round(SLIDESHOW_AROUND_S * self._info.fps)
        low, high = max(0, span.first - around), min(tracks.frames, span.stop + around)
        jumps = [first for first, _ in tracks.shots[1:] if low < first < high]
        if len(jumps) < SLIDESHOW_JUMPS:
            return 0.0
        eps = self._recipe.static_eps
        near, inside = tracks["vmaf"][low + 1 : high], tracks["vmaf"][span.first + 1 : span.stop]
        return float(min((near < eps).mean(), (inside < eps).mean()))
