"""Batches of decoded frames: what meters see. Small arrays stacked over frames; the pictures are gone.

A batch holds some tens of frames, so that one call of NumPy or OpenCV serves all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from rushes.curation.video.decode import Decoded, frames
from rushes.curation.video.frame import Frame, StreamInfo, shrink_stack
from rushes.curation.visual.moments import FRESH, Strokes
from rushes.curation.visual.moments import PER_S as MOMENTS_PER_S
from rushes.curation.visual.patches import Look, look

FRAMES = 96  # of a batch: fewer cost more calls, more leave the processor's cache
TIME_EPS = 1e-6  # seconds: rounding of timestamps


@dataclass
class Batch:
    """Some tens of frames in a row.

    time_s: float64 [n], seconds from the file's first frame. key, corrupt, bidirectional: bool [n] (coded on its own;
    marked as damaged; a B-frame). luma: uint8 [n, h, w], longer side about 160. vectors: per frame the codec's motion
    vectors (structured, at most VECTORS_MAX, evenly chosen) or None. stills: (place in the batch, upright uint8 BGR
    [h, w, 3]). looks: (place in the batch, visual/patches.Look of it). before_s: time of the frame before the batch,
    None at the file's start. lead, tail: so many of its first and last frames are only there to warm up, and for
    meters that look ahead: their tracks are dropped.
    """

    info: StreamInfo
    time_s: np.ndarray
    key: np.ndarray
    corrupt: np.ndarray
    bidirectional: np.ndarray
    luma: np.ndarray
    chroma: np.ndarray | None
    vectors: list[np.ndarray | None]
    stills: list[tuple[int, np.ndarray]] = field(default_factory=list)
    looks: list[tuple[int, Look]] = field(default_factory=list)
    before_s: float | None = None
    lead: int = 0
    tail: int = 0

    def __len__(self) -> int:
        return len(self.time_s)

    @cached_property
    def tiny_luma(self) -> np.ndarray:
        """uint8 [n, h/2, w/2]."""
        return shrink_stack(self.luma, 2)

    @cached_property
    def tiny_bgr(self) -> np.ndarray:
        """uint8 [n, h/2, w/2, 3]: what shot detection looks at."""
        luma = self.tiny_luma
        flat = luma.reshape(len(luma), -1)  # a row for a frame: OpenCV leaves its vector instructions in short rows
        if self.chroma is None:
            return cv2.cvtColor(flat, cv2.COLOR_GRAY2BGR).reshape(*luma.shape, 3)
        u, v = (self.chroma[:, i].reshape(flat.shape) for i in (0, 1))
        return cv2.cvtColor(cv2.merge([flat, v, u]), cv2.COLOR_YCrCb2BGR).reshape(*luma.shape, 3)

    def every(self, step: int) -> np.ndarray:
        """bool [n]: about every `step`-th frame, on a grid of the file's time: parts of a file choose the same."""
        return _steps(np.rint(self._times * self.info.fps), step)

    def ticks(self, per_s: float) -> np.ndarray:
        """bool [n]: the first frame of every 1 / per_s seconds of the file."""
        return _steps(np.floor(self._times * per_s + TIME_EPS), 1)

    @cached_property
    def _times(self) -> np.ndarray:
        """float64 [n + 1]: times with that of the frame before; at the file's start one that no grid holds."""
        before = -1e9 if self.before_s is None else self.before_s
        return np.concatenate([[before], self.time_s])


def _steps(slots: np.ndarray, step: int) -> np.ndarray:
    numbers = slots // step
    return numbers[1:] > numbers[:-1]


def tick(time_s: float, before_s: float | None, per_s: float) -> bool:
    """Whether the frame is the first in its 1 / per_s seconds of the file: as Batch.ticks, for one frame."""
    if before_s is None:
        return True
    return math.floor(time_s * per_s + TIME_EPS) > math.floor(before_s * per_s + TIME_EPS)


class _Stack:
    """Collects frames into arrays of one batch."""

    def __init__(self, info: StreamInfo, first: Frame) -> None:
        self.info = info
        self._luma = np.empty((FRAMES, *first.luma.shape), np.uint8)
        tiny = first.luma.shape[0] // 2 or 1, first.luma.shape[1] // 2 or 1
        self._chroma = np.empty((FRAMES, 2, *tiny), np.uint8) if first.has_chroma else None
        self._facts: list[tuple[float, bool, bool, bool]] = []
        self._vectors: list[np.ndarray | None] = []
        self.stills: list[tuple[int, np.ndarray]] = []
        self.looks: list[tuple[int, Look]] = []

    def __len__(self) -> int:
        return len(self._facts)

    def add(self, frame: Frame) -> None:
        place = len(self._facts)
        frame.small_luma(self._luma[place])
        if self._chroma is not None:
            frame.tiny_chroma(self._chroma[place])
        self._vectors.append(frame.vectors)
        self._facts.append((frame.time_s, frame.key, frame.corrupt, frame.bidirectional))

    def lumas(self, places: Sequence[int]) -> np.ndarray:
        """uint8 [n, h, w] of the frames at these places."""
        return self._luma[places]

    def add_look(self, frame: Frame) -> None:
        """Of the frame that was added last."""
        found = look(frame.full_luma, *frame.quantiser)
        if found is not None:
            self.looks.append((len(self._facts) - 1, found))

    def batch(self, before_s: float | None, begin_s: float, end_s: float | None) -> Batch:
        count = len(self._facts)
        time_s, *flags = (np.array(column) for column in zip(*self._facts, strict=True))
        return Batch(
            self.info, time_s, *flags, self._luma[:count],
            None if self._chroma is None else self._chroma[:count], self._vectors, self.stills, self.looks, before_s,
            int(np.searchsorted(time_s, begin_s - TIME_EPS)),
            0 if end_s is None else count - int(np.searchsorted(time_s, end_s - TIME_EPS)),
        )  # fmt: skip


@dataclass(frozen=True)
class Ahead:
    """So many frames, and so many pictures on the grid of every step-th frame, are shown after the end of a part."""

    frames: int
    pictures: int
    step: int = 1

    def counts(self, before_s: float | None, frame: Frame) -> bool:
        """Whether a frame is on the grid; before_s: time of the frame before it."""
        times = np.array([-1e9 if before_s is None else before_s, frame.time_s])
        return bool(_steps(np.rint(times * frame.info.fps), self.step)[0])


def batches(
    container: object, stream: object, end: Decoded, begin_s: float = 0.0, end_s: float | None = None,
    lead_s: float = 0.0, stills_per_s: float = 0.0, stills_side: int = 640, looks_per_s: float = 0.0,
    ahead: Callable[[StreamInfo], Ahead] | None = None,
) -> Iterator[Batch]:  # fmt: skip
    """Batches of the frames that are shown from begin_s to end_s (None: to the file's end), seconds.

    A begin above 0 seeks, and gives the lead_s seconds before it as frames that only warm up; `ahead` says how
    many more are given after the end. `end` is filled as frames come. stills_per_s, looks_per_s: 0 takes none.
    """
    choice = _Choice(stills_per_s, stills_side)
    stack: _Stack | None = None
    before_batch: float | None = None
    before: float | None = None
    shown = on_grid = 0  # frames after the end
    from_s = max(0.0, begin_s - lead_s)
    for frame in frames(container, stream, end, from_s):
        beyond = end_s is not None and frame.time_s >= end_s - TIME_EPS
        if beyond:
            end.stopped = True
            wanted = ahead(frame.info) if ahead else Ahead(0, 0)
            if shown >= wanted.frames and on_grid >= wanted.pictures:
                break
            shown, on_grid = shown + 1, on_grid + wanted.counts(before, frame)
        inside = bool(stills_per_s) and not beyond and frame.time_s >= begin_s - TIME_EPS
        begins = bool(stills_per_s) and (begin_s <= 0 if before is None else tick(frame.time_s, before, stills_per_s))
        if stack is not None and (len(stack) == FRAMES or (begins and len(stack) + choice.frames > FRAMES)):
            choice.end(stack)  # a batch holds a still's second whole, where that is no longer than a batch
            yield stack.batch(before_batch, begin_s, end_s)
            stack = None
        if stack is None:
            stack, before_batch = _Stack(frame.info, frame), before
        stack.add(frame)
        choice.add(stack, frame, before, begins, inside)
        if looks_per_s and tick(frame.time_s, before, looks_per_s):
            stack.add_look(frame)
        before = frame.time_s
        if before >= begin_s - TIME_EPS and not beyond:
            end.kept, end.kept_end_s = end.kept + 1, end.end_s
    if stack is not None and len(stack):
        choice.end(stack)
        yield stack.batch(before_batch, begin_s, end_s)


class _Choice:
    """Chooses the frame of each still: the first one of its second, or a moment at which text is new (moments.py)."""

    def __init__(self, per_s: float, side: int) -> None:
        self._per_s, self._side = per_s, side
        self._strokes: Strokes | None = None
        self._moments: list[tuple[int, Frame | None]] = []  # of the second: place in the stack, and what may be a still
        self.frames = 0  # since the second began

    def add(self, stack: _Stack, frame: Frame, before_s: float | None, begins: bool, inside: bool) -> None:
        """The stack's last frame. inside: it may be a still; begins: it is the first of a still's second."""
        if self._per_s <= 0:
            return
        self.frames += 1
        if begins:
            self.end(stack)
            self.frames = 1
        if begins or (self._per_s < MOMENTS_PER_S and tick(frame.time_s, before_s, MOMENTS_PER_S)):
            may_be = begins or (self._moments and self._moments[0][1] is not None)
            self._moments.append((len(stack) - 1, frame if inside and may_be else None))

    def end(self, stack: _Stack) -> None:
        """The second is over, or the batch."""
        if not self._moments:
            return
        chosen = 0
        if self._per_s < MOMENTS_PER_S:
            self._strokes = self._strokes or Strokes(turned=stack.info.rotation in (90, 270))
            fresh = self._strokes.fresh(stack.lumas([place for place, _ in self._moments]))
            may_be = [frame is not None for _, frame in self._moments]
            if np.isfinite(fresh[0]) and np.isfinite(fresh[may_be]).any():
                most = int(np.nanargmax(np.where(may_be, fresh, np.nan)))
                chosen = most if fresh[most] - fresh[0] >= FRESH else 0
        place, frame = self._moments[chosen]
        if frame is not None:
            stack.stills.append((place, frame.still(self._side)))
        self._moments = []
