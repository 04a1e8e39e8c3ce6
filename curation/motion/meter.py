"""The motion meter: VMAF motion, mean motion vector, static share, slideshow score and camera motion."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span, Track, Unmeasured
from rushes.curation.motion import vmaf
from rushes.curation.motion.camera import camera_motion
from rushes.curation.motion.vectors import REFERENCE_SIDE, CameraStep, Flow, field_of, fit_camera, mean_length
from rushes.curation.recipe import Motion
from rushes.curation.video.decode import Frame, StreamInfo

CAMERA_PER_S = 4.0  # frames a second whose vectors are fitted to a camera
FLOW_PER_S = 8.0  # frames a second whose flow is measured where the codec exports no vectors
FLOW_SIDE_MIN = 16  # optical flow needs pictures of at least this side, pixels
SLIDESHOW_AROUND_S = 20.0  # footage around a clip that is searched for stills and jumps, seconds
SLIDESHOW_JUMPS = 2  # so many jumps between stills make a slideshow


class MotionMeter:
    """See `columns`; a clip at too low a frame rate, or of a single frame, is unmeasured, never "no motion"."""

    columns = (
        pa.field("vmaf_motion", pa.float32()),
        pa.field("mv_mean", pa.float32()),
        pa.field("static_frac", pa.float32()),
        pa.field("slideshow_score", pa.float32()),
        pa.field("camera_motion", pa.string()),
        pa.field("camera_motion_conf", pa.float32()),
    )

    def __init__(self, info: StreamInfo, recipe: Motion) -> None:
        self._info, self._recipe = info, recipe
        self._to_reference = REFERENCE_SIDE / max(1, min(info.width, info.height))
        self._camera_every = max(1, round(info.fps / CAMERA_PER_S))
        self._flow_every = max(1, round(info.fps / FLOW_PER_S))
        self._vmaf, self._length, self._times = Track(), Track(), Track()
        self._steps: list[CameraStep] = []
        self._step_frames: list[int] = []
        self._blurred: np.ndarray | None = None
        self._before: np.ndarray | None = None
        self._has_vectors = False
        self._anchor = 0  # the last frame that others refer to: vectors reach back to it
        self._flow: Flow | None = None
        self.jumps: list[int] = []  # first frames of shots, set by the analyzer when the decode has ended

    def observe(self, frame: Frame) -> None:
        luma = frame.luma
        blurred = vmaf.blur(luma)
        self._vmaf.add(vmaf.difference(blurred, self._blurred) if self._blurred is not None else float("nan"))
        self._times.add(frame.time_s)
        vectors = frame.vectors
        if vectors is not None and len(vectors):
            self._has_vectors = True
            reach = max(1, frame.index - self._anchor)
            self._length.add(mean_length(vectors) * self._to_reference / reach)
            if frame.index % self._camera_every == 0:
                self._fit(frame.index, field_of(vectors, self._info.width, self._info.height, reach))
        elif not self._has_vectors and self._before is not None and frame.index % self._flow_every == 0:
            self._length.add(self._measure_flow(frame.index, self._before, luma))
        else:
            self._length.add(float("nan"))
        if not frame.bidirectional:
            self._anchor = frame.index
        self._blurred, self._before = blurred, luma

    def _measure_flow(self, index: int, before: np.ndarray, luma: np.ndarray) -> float:
        if min(luma.shape) < FLOW_SIDE_MIN or before.shape != luma.shape:
            return float("nan")
        self._flow = self._flow or Flow()
        length, field = self._flow.measure(before, luma)
        self._fit(index, field)
        return length * self._info.factor * self._to_reference

    def _fit(self, index: int, field: Any) -> None:
        if field is not None:
            self._steps.append(fit_camera(field))
            self._step_frames.append(index)

    def measure(self, span: Span) -> dict[str, Any]:
        if self._info.fps < self._recipe.fps_measurable:
            reason = f"at {self._info.fps:g} frames per second frames are too far apart in time to measure motion"
            return dict.fromkeys((f.name for f in self.columns), Unmeasured(reason))
        scores = self._vmaf.between(span.first + 1, span.stop)  # the first score looks back across the edge
        if not len(scores):
            return dict.fromkeys((f.name for f in self.columns), Unmeasured("one frame shows no motion"))
        lengths = self._length.between(span.first + 1, span.stop)
        lengths = lengths[np.isfinite(lengths)]
        first, stop = bisect_left(self._step_frames, span.first + 1), bisect_left(self._step_frames, span.stop)
        camera, confidence = camera_motion(self._steps[first:stop])
        return {
            "vmaf_motion": vmaf.to_full_size(float(scores.mean())),
            "mv_mean": float(lengths.mean()) if len(lengths) else Unmeasured("no frame of the clip has vectors"),
            "static_frac": float((scores < self._recipe.static_eps).mean()),
            "slideshow_score": self._slideshow(span),
            "camera_motion": camera or Unmeasured("no camera motion fits"),
            "camera_motion_conf": confidence,
        }

    def notes(self) -> list[str]:
        """Remarks on how values of the whole file were measured."""
        if self._flow is not None and not self._has_vectors:
            return [f"mv_mean: from optical flow, {self._info.codec} exports no motion vectors"]
        return []

    def _slideshow(self, span: Span) -> float:
        """Share of static frames in and around the clip, where the footage there jumps from still to still; else 0."""
        around = round(SLIDESHOW_AROUND_S * self._info.fps)
        low, high = max(0, span.first - around), min(len(self._vmaf), span.stop + around)
        jumps = [j for j in self.jumps if low < j < high]
        if len(jumps) < SLIDESHOW_JUMPS:
            return 0.0
        scores = self._vmaf.between(low + 1, high)
        inside = self._vmaf.between(span.first + 1, span.stop)
        eps = self._recipe.static_eps
        return float(min((scores < eps).mean(), (inside < eps).mean()))
