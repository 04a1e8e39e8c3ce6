"""Scenes: shot boundaries from the tracks of a decode, and clips of 4-16 s from single shots (Movie Gen 3.2.1, B.1).

A hard cut is a change from one frame to the next that stands out among those of the frames around (scenes_spikes.py),
and is large in PySceneDetect's HSV score. Gradual transitions are found as pictures (gradual/).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation import scenes_learned, scenes_spikes
from rushes.curation.gradual import finder
from rushes.curation.gradual.mixed import EVERY, WAIT, Mixed
from rushes.curation.meter import Span
from rushes.curation.recipe import Recipe
from rushes.curation.scenes_doubts import ASKED_MIN, WITHIN, Doubts, middles
from rushes.curation.scenes_spikes import Spikes
from rushes.curation.sections import Scenes
from rushes.curation.video.batch import Batch
from rushes.curation.video.frame import StreamInfo

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

GAP_S = 4.0  # seconds without a frame over which no shot goes on: as long as the shortest clip


class ShotMeter:
    """Leaves what shots are found from, and measures `shots_per_s` (B.1: false shots per second stand for jitter).

    content: PySceneDetect's ContentDetector score of each frame: mean absolute change of hue, saturation and value,
    0-255. spike: of what may be a cut (scenes_spikes.py).
    blend_first, blend_stop, blend_strength: a transition that was found once this frame was seen: its frames, counted
    from this one (below 0), and its strength 0-1. doubt_first, doubt: how much what ends here looks like a
    transition, 0-1, and its first frame in the same way. mixed: how likely a frame lies inside a transition, 0-1, for
    some six frames a second in the middle of what is doubtful (gradual/mixed.py).
    """

    tracks = (
        *(pa.field(name, pa.float32()) for name in ("content", "spike", "mixed")),
        *(pa.field(name, pa.float32()) for name in finder.NAMES),
    )

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self._recipe = recipe
        self._hsv: np.ndarray | None = None  # of the last frame
        self._spikes = Spikes()
        self._transitions = finder.Transitions(info.fps)
        self._mixed, self._step = Mixed(asked_within(info.fps)), finder.grid(info.fps)[0]
        self._doubts: tuple[Tracks, Doubts] | None = None  # of the file that is measured

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        content = self._content(batch.tiny_bgr)
        spikes = self._spikes.observe(batch.tiny_luma, content)
        places = np.flatnonzero(batch.every(self._step))
        looked = batch.every(EVERY * self._step)[places]
        found = self._transitions.observe(batch)
        ends = np.flatnonzero(found["doubt"] >= ASKED_MIN)
        asked = middles(ends + found["doubt_first"][ends].astype(int), ends)
        mixed = self._mixed.observe(batch.tiny_luma[places], places, looked, len(batch), asked)
        return {"content": content, "spike": spikes, "mixed": mixed, **found}

    def finish(self) -> dict[str, np.ndarray]:
        return {"spike": self._spikes.finish(), "mixed": self._mixed.finish()}

    def _content(self, bgr: np.ndarray) -> np.ndarray:
        """float32 [n]; 0 for the first frame."""
        count = len(bgr)
        hsv = cv2.cvtColor(bgr.reshape(count, -1, 3), cv2.COLOR_BGR2HSV).reshape(bgr.shape)
        pictures = [hsv[0] if self._hsv is None else self._hsv, *hsv]
        self._hsv = hsv[-1].copy()
        found = [cv2.norm(one, other, cv2.NORM_L1) for one, other in itertools.pairwise(pictures)]
        return np.array(found, np.float32) / np.float32(hsv[0].size)

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        scores = tracks["content"][span.first + 1 : span.stop]  # the first score looks back across the edge
        jumps = int((scores >= self._recipe.motion.jitter_content_val).sum())
        effect = 0.0
        if self._recipe.scenes.dissolves:
            effect = max((s for a, b, s in blends(tracks) if span.first <= (a + b) // 2 < span.stop), default=0.0)
        if self._doubts is None or self._doubts[0] is not tracks:
            self._doubts = tracks, find_doubts(tracks, tracks.shots, self._recipe.scenes)
        doubt = self._doubts[1].worst(span.first, span.stop)
        return {"shots_per_s": jumps / max(span.duration_s, 1e-6), "effect_score": effect, "doubt": doubt}


def asked_within(fps: float) -> int:
    """Pictures on the grid of time that are shown before nobody asks any more whether one is mixed."""
    longest = 2 * finder.grid(fps)[1][-1]
    return max(WAIT, int(np.ceil(longest * (1 + WITHIN) / 2)) + 2 * EVERY)


def find_shots(tracks: Tracks, recipe: Scenes) -> list[tuple[int, int]]:
    """Frames [first, stop) of every shot of a file, in order; the frames of a dissolve belong to none.

    No shot goes on over GAP_S without a frame.
    """
    edges = [0, *gaps(tracks.time_s).tolist(), tracks.frames]
    return [
        (max(first, low), min(stop, high))
        for first, stop in _marked(tracks, recipe)
        for low, high in itertools.pairwise(edges)
        if max(first, low) < min(stop, high)
    ]


def gaps(times: np.ndarray) -> np.ndarray:
    """Frames before which none is shown for GAP_S: what lies between could not be read, or is a still."""
    return np.flatnonzero(np.diff(times) > GAP_S) + 1


def shown_until(times: np.ndarray, end_s: float) -> np.ndarray:
    """When each frame stops being shown, float [frames], seconds; before a gap it is shown as long as most are."""
    ends = np.append(times[1:], end_s)
    last = gaps(np.append(times, end_s)) - 1
    ends[last] = times[last] + min(np.median(np.diff(times)), GAP_S) if len(times) > 1 else end_s
    return ends


def _marked(tracks: Tracks, recipe: Scenes) -> list[tuple[int, int]]:
    if recipe.detector == "transnetv2":
        return scenes_learned.shots(tracks["transnet"])
    apart = max(1, round(recipe.min_shot_s * tracks.info.fps))
    cuts = scenes_spikes.cuts(tracks["spike"], tracks["content"], recipe.cut_spike)
    cuts = spaced(cuts[tracks["content"][cuts] >= recipe.min_content_val], apart)
    doubts = Doubts.of(tracks)
    found = merged(doubts.supported(blends(tracks), cuts), apart) if recipe.dissolves else []
    cuts = [cut for cut in cuts if not any(first <= cut <= stop for first, stop in found)]
    marks = doubts.grown(found, cuts) + [(cut, cut) for cut in cuts]
    shots, begin = [], 0
    for stop, resume in sorted(marks):
        if stop > begin:
            shots.append((begin, stop))
        begin = max(begin, resume)
    if tracks.frames > begin:
        shots.append((begin, tracks.frames))
    return shots


def find_doubts(tracks: Tracks, shots: list[tuple[int, int]], recipe: Scenes) -> Doubts:
    """What may be a cut or a transition within these shots."""
    return Doubts.of(tracks, recipe.dissolves).within(shots)


def spaced(candidates: np.ndarray, min_frames: int) -> list[int]:
    """The candidates that are min_frames from the one before (or from the file's start): frames that begin a shot."""
    cuts, last = [], 0
    for frame in candidates.tolist():
        if frame - last >= min_frames:
            cuts.append(frame)
            last = frame
    return cuts


def blends(tracks: Tracks) -> list[tuple[int, int, float]]:
    """Transitions as they were found: (first frame, stop frame, strength 0-1); many are of one and the same."""
    (frames,) = np.nonzero(np.isfinite(tracks["blend_strength"]))
    first = np.maximum(frames + tracks["blend_first"][frames].astype(int), 0)
    stop = frames + tracks["blend_stop"][frames].astype(int)
    return list(zip(first.tolist(), stop.tolist(), tracks["blend_strength"][frames].tolist(), strict=True))


def merged(found: list[tuple[int, int, float]], apart: int = 0) -> list[tuple[int, int]]:
    """Frames [first, stop) of every transition: finds that overlap, or lie less than `apart` frames apart, are one.

    So a fade to black and the one from it are one transition.
    """
    spans: list[list[int]] = []
    for first, stop, _ in sorted(found):
        if spans and first <= spans[-1][1] + apart:
            spans[-1][1] = max(spans[-1][1], stop)
        else:
            spans.append([first, stop])
    return [(first, stop) for first, stop in spans]


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


def clip_spans(
    shots: list[tuple[int, int]], times: np.ndarray, end_s: float, recipe: Scenes, doubts: Doubts | None = None
) -> list[ClipSpan]:
    """Clips of at most `duration_max_s` from single shots; none spans a boundary or a doubt of `doubt_split`.

    shots: frames [first, stop); times: float [frames], seconds; end_s: when the last frame ends.
    `trim_frames` are dropped at each edge of a shot that is a boundary, and `head_s` where the shot is the file's
    start (B.1, after Panda-70M). A longer shot becomes whole windows of `duration_max_s` from its start and a rest.
    Spans too short to be a clip are returned as well, and what is doubtful as clips of its own: the rules reject them,
    so that all footage is accounted for.
    """
    clips: list[ClipSpan] = []
    split = doubts is not None and recipe.doubt_split is not None
    edges = np.unique(doubts.spans(recipe.doubt_split)).tolist() if split else []
    ends = shown_until(times, end_s)
    for number, shot in enumerate(shots):
        first, stop = trimmed(shot, times, recipe)
        if stop - first < 1:  # nothing is left: keep the span's row as it stood before the trim
            first, stop = shot
        for a, b in itertools.pairwise([first, *(edge for edge in edges if first < edge < stop), stop]):
            for begin, end in windows(a, b, times, recipe.duration_max_s):
                clips.append(ClipSpan(number, Span(begin, end, float(times[begin]), float(ends[end - 1]))))
    return clips


def trimmed(shot: tuple[int, int], times: np.ndarray, recipe: Scenes) -> tuple[int, int]:
    """Frames [first, stop) of a shot without `trim_frames` at boundaries and `head_s` at the file's start."""
    first, stop = shot
    if first > 0:
        first += recipe.trim_frames
    elif recipe.head_s > 0:
        first = int(np.searchsorted(times, recipe.head_s - 1e-6))
    return first, stop - (recipe.trim_frames if stop < len(times) else 0)


def windows(first: int, stop: int, times: np.ndarray, most_s: float) -> Iterator[tuple[int, int]]:
    """Frames [first, stop) in parts of at most `most_s` seconds, from the first."""
    while first < stop:
        limit = int(np.searchsorted(times, times[first] + most_s - 1e-3, side="left"))
        here = max(first + 1, min(stop, limit))
        yield first, here
        first = here
