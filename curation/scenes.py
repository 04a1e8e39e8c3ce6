"""Scenes: shot boundaries from the one decode, and clips of 4-16 s from single shots (Movie Gen sec 3.2.1, B.1).

Hard cuts come from PySceneDetect's AdaptiveDetector, which looks at the HSV change of a frame against that of its
neighbours and so is not fooled by camera motion. Dissolves and fades, which it does not see, are found by what they
are: for a while, each frame is a weighted sum of the frame before the transition and the one after it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from rushes.curation.meter import Span, Track
from rushes.curation.recipe import Scenes
from rushes.curation.video.decode import Frame, StreamInfo, shrink

#: Dissolves: half lengths looked for, seconds (transitions of about 0.4 to 2 s).
BLEND_HALF_S = (0.2, 0.4, 0.6, 1.0)
BLEND_STEP_S = 0.08  # how often a dissolve is looked for, seconds
BLEND_CHANGE_MIN = 10.0  # mean grey levels by which the pictures before and after must differ
BLEND_RESIDUAL_MAX = 0.16  # share of that change that a weighted sum of the two may leave unexplained ...
BLEND_RESIDUAL_APART = 0.32  # ... and where the two have nothing in common, so that motion in them may leave more
BLEND_APART = 0.4  # correlation of the two below which they have nothing in common
BLEND_ALIKE_MAX = 0.75  # correlation of the two above which it is one shot that moves, not two shots
BLEND_WEIGHT = (0.2, 0.8)  # weight of the later picture in the middle of a transition ...
BLEND_WEIGHT_EDGE = (0.02, 0.98)  # ... and anywhere within it
BLEND_MIXED = (0.1, 0.9)  # weights between which a picture counts as mixed when a transition's ends are sought
BLEND_SHRINK = 2  # by which the tiny luma is shrunk once more: about 40 x 22 pixels
BLACK_STD = 4.0  # a picture with less spread than this is a plain colour: a fade goes to or from it, grey levels


class _ScoredAdaptive(AdaptiveDetector):
    """AdaptiveDetector that tells each frame's score: the same one decides on cuts and, as a count, on jitter.

    The score is ContentDetector's (mean absolute change of hue, saturation and value, with its default weights of
    1, 1, 1 and 0), taken by one call per channel: the detector's own way makes four int32 copies of each.
    """

    _hsv: tuple[np.ndarray, ...] | None = None

    @property
    def score(self) -> float:
        return float(self._frame_score or 0.0)

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: np.ndarray) -> float:
        before, self._hsv = self._hsv, cv2.split(cv2.cvtColor(frame_img, cv2.COLOR_BGR2HSV))
        if before is None:
            return 0.0
        change = sum(cv2.norm(now, then, cv2.NORM_L1) for now, then in zip(self._hsv, before, strict=True))
        return change / (len(before) * before[0].size)


class ShotMeter:
    """Finds shots, and measures `shots_per_s` (B.1: false shots per second stand for jitter) and `effect_score`."""

    columns = (pa.field("shots_per_s", pa.float32()), pa.field("effect_score", pa.float32()))

    def __init__(self, info: StreamInfo, recipe: Scenes, jitter_content_val: float) -> None:
        self._detector = _ScoredAdaptive(
            adaptive_threshold=recipe.adaptive_threshold,
            min_content_val=recipe.min_content_val,
            min_scene_len=max(1, round(recipe.min_shot_s * info.fps)),
        )
        self._rate = max(info.fps, 0.01)
        self._jitter = jitter_content_val
        self.cuts: list[int] = []
        self.content = Track()
        self.blends = BlendDetector(info.fps) if recipe.dissolves else None

    def observe(self, frame: Frame) -> None:
        for cut in self._detector.process_frame(FrameTimecode(frame.index, self._rate), frame.tiny_bgr):
            self.cuts.append(cut.frame_num)
        self.content.add(self._detector.score)
        if self.blends is not None:
            self.blends.observe(frame.index, frame.tiny_luma)

    def measure(self, span: Span) -> dict[str, Any]:
        scores = self.content.between(span.first + 1, span.stop)  # the first score looks back across the edge
        jumps = int((scores >= self._jitter).sum())
        effect = self.blends.strongest(span.first, span.stop) if self.blends is not None else 0.0
        return {"shots_per_s": jumps / max(span.duration_s, 1e-6), "effect_score": effect}

    def shots(self, frames: int) -> list[tuple[int, int]]:
        """Frames [first, stop) of every shot, in order; the frames of a dissolve belong to none."""
        blends = self.blends.spans() if self.blends is not None else []
        marks = blends + [(cut, cut) for cut in self.cuts if not any(first <= cut <= stop for first, stop in blends)]
        shots, begin = [], 0
        for stop, resume in sorted(marks):
            if stop > begin:
                shots.append((begin, stop))
            begin = max(begin, resume)
        if frames > begin:
            shots.append((begin, frames))
        return shots


class _Picture:
    """A tiny luma picture as a vector, with what every comparison of it needs."""

    __slots__ = ("luma", "mean", "norm", "values")

    def __init__(self, luma: np.ndarray) -> None:
        self.luma = luma
        self.values = luma.astype(np.float32).ravel()
        self.mean = float(self.values.sum()) / self.values.size
        self.values -= self.mean
        self.norm = float(np.sqrt(self.values @ self.values))

    @property
    def plain(self) -> bool:
        return self.norm < BLACK_STD * np.sqrt(self.values.size)


class BlendDetector:
    """Dissolves and fades in a stream of tiny luma pictures, with a ring of the last 2 s of them.

    For a frame M between A (half a length before) and B (half a length after) the least-squares fit
    M = (1 - w) A + w B leaves, in a dissolve, next to nothing of the change |B - A|; a moving camera leaves much.
    """

    def __init__(self, fps: float) -> None:
        self._step = max(1, round(BLEND_STEP_S * fps))  # frames; everything below counts in steps
        self._halves = sorted({max(2, round(half * fps / self._step)) for half in BLEND_HALF_S})
        self._ring: deque[_Picture] = deque(maxlen=2 * self._halves[-1] + 1)
        self._found: list[tuple[int, int, float]] = []  # (first frame, stop frame, strength 0-1)

    def observe(self, index: int, luma: np.ndarray) -> None:
        if index % self._step:
            return
        self._ring.append(_Picture(shrink(luma, BLEND_SHRINK)))
        for half in self._halves:
            if len(self._ring) < 2 * half + 1:
                break
            before, middle, after = self._ring[-1 - 2 * half], self._ring[-1 - half], self._ring[-1]
            strength = blend_strength(before, middle, after, BLEND_WEIGHT)
            if strength > 0:  # a second look, a quarter before the middle
                early = self._ring[-1 - half - max(1, half // 2)]
                if blend_strength(before, early, after, BLEND_WEIGHT_EDGE) > 0:
                    first, last = _extent([self._ring[i] for i in range(-1 - 2 * half, 0)])
                    start = index - 2 * half * self._step
                    self._found.append((start + first * self._step, start + last * self._step + 1, strength))

    def spans(self) -> list[tuple[int, int]]:
        """Frames [first, stop) of every transition: finds that overlap are one."""
        merged: list[list[int]] = []
        for first, stop, _ in sorted(self._found):
            if merged and first <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], stop)
            else:
                merged.append([max(first, 0), stop])
        return [(first, stop) for first, stop in merged]

    def strongest(self, first: int, stop: int) -> float:
        """Largest strength of a transition whose middle lies in the frames, 0 where there is none."""
        inside = (strength for start, end, strength in self._found if first <= (start + end) // 2 < stop)
        return max(inside, default=0.0)


def _extent(window: list[_Picture]) -> tuple[int, int]:
    """First and last step of the pictures that are mixed of the window's first and last, with one step around them."""
    weights = [_weight(window[0], picture, window[-1]) for picture in window]
    mixed = [i for i, weight in enumerate(weights) if BLEND_MIXED[0] < weight < BLEND_MIXED[1]]
    return max(0, mixed[0] - 1), min(len(window) - 1, mixed[-1] + 1)


def _weight(before: _Picture, picture: _Picture, after: _Picture) -> float:
    """Least-squares weight of `after` in `picture` = (1 - w) before + w after."""
    direction, moved = after.values - before.values, picture.values - before.values
    rise, risen, size = after.mean - before.mean, picture.mean - before.mean, direction.size
    length = float(direction @ direction) + size * rise * rise
    return (float(direction @ moved) + size * rise * risen) / max(length, 1e-6)


def blend_strength(before: _Picture, middle: _Picture, after: _Picture, weights: tuple[float, float]) -> float:
    """How well `middle` is a weighted sum of `before` and `after`: 0 (it is not) to 1 (nothing is left over).

    weights: least and largest weight of the later picture.
    """
    change = cv2.norm(before.luma, after.luma, cv2.NORM_L1) / before.luma.size
    if change < BLEND_CHANGE_MIN or (before.plain and after.plain):
        return 0.0
    most = BLEND_RESIDUAL_MAX
    if not (before.plain or after.plain):
        alike = float(before.values @ after.values) / (before.norm * after.norm)
        if alike > BLEND_ALIKE_MAX:
            return 0.0
        most = BLEND_RESIDUAL_APART if alike < BLEND_APART else BLEND_RESIDUAL_MAX
    weight = _weight(before, middle, after)
    if not weights[0] <= weight <= weights[1]:
        return 0.0
    mixed = (1.0 - weight) * (before.values + before.mean) + weight * (after.values + after.mean)
    residual = cv2.norm(middle.values + middle.mean, mixed, cv2.NORM_L1) / mixed.size / change
    return max(0.0, 1.0 - residual / most)


@dataclass(frozen=True)
class ClipSpan:
    """A clip's frames and times, and the number of the shot it comes from."""

    shot: int
    span: Span


def clip_spans(shots: list[tuple[int, int]], times: np.ndarray, end_s: float, recipe: Scenes) -> list[ClipSpan]:
    """Clips of at most `duration_max_s` from single shots; none spans a boundary.

    shots: frames [first, stop); times: float [frames], seconds; end_s: when the last frame ends.
    `trim_frames` are dropped at each edge of a shot that is a boundary, and `head_s` where the shot is the file's
    start (B.1, after Panda-70M). A longer shot becomes whole windows of `duration_max_s` from its start and a rest.
    Spans too short to be a clip are returned as well: the rules reject them, so that all footage is accounted for.
    """
    clips: list[ClipSpan] = []
    frames = len(times)
    ends = np.append(times[1:], end_s)
    for number, (first, stop) in enumerate(shots):
        if first > 0:
            first += recipe.trim_frames
        elif recipe.head_s > 0:
            first = int(np.searchsorted(times, recipe.head_s - 1e-6))
        if stop < frames:
            stop -= recipe.trim_frames
        first_in_shot = shots[number][0]
        if stop - first < 1:  # nothing is left: keep the span's row as it stood before the trim
            first, stop = first_in_shot, shots[number][1]
            clips.append(ClipSpan(number, Span(first, stop, float(times[first]), float(ends[stop - 1]))))
            continue
        while first < stop:
            limit = times[first] + recipe.duration_max_s
            cut = int(np.searchsorted(times, limit - 1e-3, side="left"))
            here = max(first + 1, min(stop, cut))
            clips.append(ClipSpan(number, Span(first, here, float(times[first]), float(ends[here - 1]))))
            first = here
    return clips
