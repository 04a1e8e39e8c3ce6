"""Scenes: shot boundaries from the tracks of a decode, and clips of 4-16 s from single shots (Movie Gen 3.2.1, B.1).

Hard cuts are those of PySceneDetect's AdaptiveDetector, which looks at the HSV change of a frame against that of its
neighbours and so is not fooled by camera motion: the same score and the same decision, on a whole track at once.
Dissolves and fades, which it does not see, are found by what they are: for a while, each frame is a weighted sum of
the frame before the transition and the one after it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span
from rushes.curation.recipe import Recipe, Scenes
from rushes.curation.video.batch import Batch
from rushes.curation.video.decode import StreamInfo, shrink_stack

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

#: Hard cuts, as PySceneDetect's AdaptiveDetector decides on them.
ADAPTIVE_WINDOW = 2  # frames on either side
ADAPTIVE_ZERO, ADAPTIVE_MOST = 1e-5, 255.0  # a smaller mean counts as zero; the largest ratio
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


class ShotMeter:
    """Leaves what shots are found from, and measures `shots_per_s` (B.1: false shots per second stand for jitter).

    content: PySceneDetect's ContentDetector score of each frame: mean absolute change of hue, saturation and value,
    0-255. blend_first, blend_stop, blend_strength: for each half length of BLEND_HALF_S a transition that was found
    once this frame was seen: its frames, counted from this one (below 0), and its strength 0-1.
    """

    tracks = (
        pa.field("content", pa.float32()),
        pa.field("blend_first", pa.list_(pa.float32(), len(BLEND_HALF_S))),
        pa.field("blend_stop", pa.list_(pa.float32(), len(BLEND_HALF_S))),
        pa.field("blend_strength", pa.list_(pa.float32(), len(BLEND_HALF_S))),
    )

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self._recipe = recipe
        self._hsv: np.ndarray | None = None
        self._blends = BlendDetector(info.fps)

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        return {"content": self._content(batch.tiny_bgr), **self._blends.observe(batch)}

    def _content(self, bgr: np.ndarray) -> np.ndarray:
        count, height, width, _ = bgr.shape
        hsv = cv2.cvtColor(bgr.reshape(count * height, width, 3), cv2.COLOR_BGR2HSV).reshape(bgr.shape)
        scores = np.zeros(count, np.float32)
        before = self._hsv
        for place in range(count):
            if before is not None:
                scores[place] = cv2.norm(hsv[place], before, cv2.NORM_L1)
            before = hsv[place]
        self._hsv = before
        return scores / np.float32(before.size)

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        scores = tracks["content"][span.first + 1 : span.stop]  # the first score looks back across the edge
        jumps = int((scores >= self._recipe.motion.jitter_content_val).sum())
        effect = 0.0
        if self._recipe.scenes.dissolves:
            effect = max((s for a, b, s in blends(tracks) if span.first <= (a + b) // 2 < span.stop), default=0.0)
        return {"shots_per_s": jumps / max(span.duration_s, 1e-6), "effect_score": effect}


def find_shots(tracks: Tracks, recipe: Scenes) -> list[tuple[int, int]]:
    """Frames [first, stop) of every shot of a file, in order; the frames of a dissolve belong to none."""
    cuts = adaptive_cuts(
        tracks["content"], recipe.adaptive_threshold, recipe.min_content_val,
        max(1, round(recipe.min_shot_s * tracks.info.fps)),
    )  # fmt: skip
    found = merged(blends(tracks)) if recipe.dissolves else []
    marks = found + [(cut, cut) for cut in cuts if not any(first <= cut <= stop for first, stop in found)]
    shots, begin = [], 0
    for stop, resume in sorted(marks):
        if stop > begin:
            shots.append((begin, stop))
        begin = max(begin, resume)
    if tracks.frames > begin:
        shots.append((begin, tracks.frames))
    return shots


def adaptive_cuts(scores: np.ndarray, threshold: float, least: float, min_frames: int) -> list[int]:
    """Frames that begin a shot: the decision of PySceneDetect's AdaptiveDetector on scores [frames].

    A frame is a cut where its score is at least `least` and `threshold` times the mean of ADAPTIVE_WINDOW frames on
    either side, and the last cut (or the file's start) is min_frames away.
    """
    scores = scores.astype(np.float64)
    window = ADAPTIVE_WINDOW
    if len(scores) < 2 * window + 1:
        return []
    stop = len(scores) - window
    around = sum(scores[window + shift : stop + shift] for shift in range(-window, window + 1) if shift)
    mean = around / (2.0 * window)
    target = scores[window:stop]
    zero = mean < ADAPTIVE_ZERO
    ratio = np.where(zero, ADAPTIVE_MOST, np.minimum(target / np.where(zero, 1.0, mean), ADAPTIVE_MOST))
    cuts, last = [], 0
    for frame in np.flatnonzero((ratio >= threshold) & (target >= least)) + window:
        if frame - last >= min_frames:
            cuts.append(int(frame))
            last = frame
    return cuts


def blends(tracks: Tracks) -> list[tuple[int, int, float]]:
    """Transitions as they were found: (first frame, stop frame, strength 0-1); many are of one and the same."""
    frames, halves = np.nonzero(np.isfinite(tracks["blend_strength"]))
    first = np.maximum(frames + tracks["blend_first"][frames, halves].astype(int), 0)
    stop = frames + tracks["blend_stop"][frames, halves].astype(int)
    return list(zip(first.tolist(), stop.tolist(), tracks["blend_strength"][frames, halves].tolist(), strict=True))


def merged(found: list[tuple[int, int, float]]) -> list[tuple[int, int]]:
    """Frames [first, stop) of every transition: finds that overlap are one."""
    spans: list[list[int]] = []
    for first, stop, _ in sorted(found):
        if spans and first <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], stop)
        else:
            spans.append([first, stop])
    return [(first, stop) for first, stop in spans]


class BlendDetector:
    """Dissolves and fades in a stream of tiny luma pictures, with a ring of the last 2 s of them.

    For a frame M between A (half a length before) and B (half a length after) the least-squares fit
    M = (1 - w) A + w B leaves, in a dissolve, next to nothing of the change |B - A|; a moving camera leaves much.
    """

    def __init__(self, fps: float) -> None:
        self._step = max(1, round(BLEND_STEP_S * fps))  # frames; everything below counts in steps
        self._halves = [max(2, round(half * fps / self._step)) for half in BLEND_HALF_S]
        self._ring: _Pictures | None = None

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        shape = len(batch), len(BLEND_HALF_S)
        found = {f"blend_{name}": np.full(shape, np.nan, np.float32) for name in ("first", "stop", "strength")}
        places = np.flatnonzero(batch.every(self._step))
        if not len(places):
            return found
        fresh = _Pictures.of(shrink_stack(batch.tiny_luma[places], BLEND_SHRINK))
        old = len(self._ring) if self._ring is not None else 0
        ring = fresh if self._ring is None else self._ring.joined(fresh)
        for column, half in enumerate(self._halves):
            if half in self._halves[:column]:
                continue
            ends = np.arange(max(old, 2 * half), len(ring))
            strengths = blend_strengths(ring, ends - 2 * half, ends - half, ends, BLEND_WEIGHT)
            for number in np.flatnonzero(strengths > 0):
                span = self._extent(ring, int(ends[number]), half)
                if span is not None:
                    values = (*span, strengths[number])
                    for name, value in zip(("first", "stop", "strength"), values, strict=True):
                        found[f"blend_{name}"][places[ends[number] - old], column] = value
        self._ring = ring[max(0, len(ring) - 2 * self._halves[-1]) :]
        return found

    def _extent(self, ring: _Pictures, end: int, half: int) -> tuple[int, int] | None:
        """Frames (first, stop) of a transition, counted from the one at `end`; None where a second look denies it."""
        begin, early = end - 2 * half, end - half - max(1, half // 2)  # a quarter before the middle
        one = (np.array([place]) for place in (begin, early, end))
        if blend_strengths(ring, *one, BLEND_WEIGHT_EDGE)[0] <= 0:
            return None
        window = ring[begin : end + 1]
        ends = ring[[begin] * len(window)], ring[[end] * len(window)]
        weights = _weights(ends[0], window, ends[1])
        mixed = np.flatnonzero((weights > BLEND_MIXED[0]) & (weights < BLEND_MIXED[1]))
        first, last = max(0, int(mixed[0]) - 1), min(2 * half, int(mixed[-1]) + 1)
        return (first - 2 * half) * self._step, (last - 2 * half) * self._step + 1


@dataclass(frozen=True)
class _Pictures:
    """Tiny luma pictures, each a vector: uint8 [n, p]; without its mean, float32 [n, p]; its mean and length [n]."""

    luma: np.ndarray
    values: np.ndarray
    means: np.ndarray
    norms: np.ndarray

    @classmethod
    def of(cls, stack: np.ndarray) -> _Pictures:
        luma = stack.reshape(len(stack), -1)
        values = luma.astype(np.float32)
        means = values.mean(axis=1)
        values -= means[:, None]
        return cls(luma, values, means, np.sqrt(np.einsum("ij,ij->i", values, values)))

    def __len__(self) -> int:
        return len(self.luma)

    def __getitem__(self, places: Any) -> _Pictures:
        return _Pictures(*(array[places] for array in (self.luma, self.values, self.means, self.norms)))

    def joined(self, other: _Pictures) -> _Pictures:
        return _Pictures(*(np.concatenate(pair) for pair in zip(self._arrays, other._arrays, strict=True)))

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.luma, self.values, self.means, self.norms

    @property
    def plain(self) -> np.ndarray:
        return self.norms < BLACK_STD * np.sqrt(self.values.shape[1])


def blend_strengths(
    ring: _Pictures, before: np.ndarray, middle: np.ndarray, after: np.ndarray, weights: tuple[float, float]
) -> np.ndarray:
    """How well pictures `middle` are weighted sums of `before` and `after`: 0 (not) to 1 (nothing is left over).

    before, middle, after: places in the ring, int [n]. weights: least and largest weight of the later picture. Tests
    that are cheap, and that most pictures of a shot fail, come first. Returns float64 [n].
    """
    strengths = np.zeros(len(after))
    plain = ring.plain
    either, both = plain[before] | plain[after], plain[before] & plain[after]
    lengths = np.maximum(ring.norms[before] * ring.norms[after], 1e-9)
    alike = np.einsum("ij,ij->i", ring.values[before], ring.values[after]) / lengths
    open_ = np.flatnonzero(~both & (either | (alike <= BLEND_ALIKE_MAX)))
    if not len(open_):
        return strengths
    a, m, b = ring[before[open_]], ring[middle[open_]], ring[after[open_]]
    change = np.abs(b.luma.astype(np.int16) - a.luma).mean(axis=1)
    weight = _weights(a, m, b)
    good = (change >= BLEND_CHANGE_MIN) & (weights[0] <= weight) & (weight <= weights[1])
    if not good.any():
        return strengths
    open_, a, m, b, change, weight = open_[good], a[good], m[good], b[good], change[good], weight[good]
    later = weight[:, None].astype(np.float32)
    residual = np.abs(m.luma - ((1 - later) * a.luma + later * b.luma)).mean(axis=1) / change
    apart = ~either[open_] & (alike[open_] < BLEND_APART)
    most = np.where(apart, BLEND_RESIDUAL_APART, BLEND_RESIDUAL_MAX)
    strengths[open_] = np.maximum(0.0, 1.0 - residual / most)
    return strengths


def _weights(before: _Pictures, pictures: _Pictures, after: _Pictures) -> np.ndarray:
    """Least-squares weight of `after` in `pictures` = (1 - w) before + w after, for each of n: float [n]."""
    direction, moved = after.values - before.values, pictures.values - before.values
    rise, risen, size = after.means - before.means, pictures.means - before.means, direction.shape[1]
    length = np.einsum("ij,ij->i", direction, direction) + size * rise * rise
    return (np.einsum("ij,ij->i", direction, moved) + size * rise * risen) / np.maximum(length, 1e-6)


@dataclass(frozen=True)
class ClipSpan:
    """A clip's frames and times, and the number of the shot it comes from."""

    shot: int
    span: Span


def divided(clip: ClipSpan, at_s: list[float], times: np.ndarray) -> list[ClipSpan]:
    """The clip in parts that begin at these times, seconds. times: float [frames], of the file's frames."""
    span, parts = clip.span, []
    places = [int(np.searchsorted(times, t - 1e-6)) for t in sorted(at_s)]
    bounds = [span.first, *(place for place in places if span.first < place < span.stop), span.stop]
    for first, stop in itertools.pairwise(bounds):
        end_s = span.end_s if stop == span.stop else float(times[stop])
        parts.append(ClipSpan(clip.shot, Span(first, stop, float(times[first]), end_s)))
    return parts


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
