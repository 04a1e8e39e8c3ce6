"""Stills that pass for footage: frozen runs, repeated frames, and pictures in which nothing moves but the camera.

Means over a clip hide a frozen tail, and a slow zoom over a photograph moves as much as footage does. Two questions
tell them from a tripod shot and from slow motion. How long does no part of the picture change from frame to frame? And
what is left of the change within about a second once the camera's motion is taken out? Of a photograph that is
interpolation noise, in footage something moves by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span, Unmeasured
from rushes.curation.motion import points
from rushes.curation.recipe import Recipe
from rushes.curation.tracks import spread
from rushes.curation.video.batch import TIME_EPS, Batch
from rushes.curation.video.frame import StreamInfo
from rushes.curation.visual.stills import decode_gray

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

CELL = 10  # pixels of small luma: what moves in a picture of 160 pixels is seldom smaller
FROZEN_STIR = 0.35  # mean change of the liveliest cell below which a frame repeats the one before, grey levels
LONE = 1  # frames in a row that change and do not end a frozen run: a key frame redraws a still
#: A coarse encoder goes on drawing a frozen picture: frames that change by less than this may be frozen, if the stills
#: among them show that nothing moves, or if they lie between an abrupt stop and a frozen tail of CORE_S or more.
MAYBE_STIR, MAYBE_LONE, HELD = 1.2, 2, 1.0
STOP_STIR, REDRAWN_S, CORE_S = 2.0, 1.0, 0.5
#: Slow motion stands now and then, but never stops: where nine tenths of the other frames change by less than this, and
#: the run is no more than this share of the clip, own motion alone decides.
CALM_STIR, CALM_SHARE = 0.9, 0.6
PAIRS = 4  # pairs of neighbouring stills that are compared in a clip
SIDE = 160  # pixels, longer side of the stills as they are compared
SOFT = 1.0  # pixels: blur before comparing, so that interpolation and coding leave little
ECC_HALF, ECC_FULL = ((cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, most, 1e-5) for most in (16, 10))
EDGE = 7  # pixels around what the other still does not show
SEEN_MIN = 0.3  # share of the picture that both stills must show to be compared
GRADIENT_FLOOR = 6.0  # grey levels a pixel: a change in a flat area is noise, not motion
NOISE_HELD, NOISE_MOVED = 0.03, 0.2  # what a still leaves, pixels: the same grid, and another one
MOVED, FADED = 0.5, 0.05  # pixels of camera motion, and change of contrast, from which the grid is another one
#: Where a camera glides slowly over sharp edges, an encoder redraws them blurred, now and then: at half the size, where
#: that hardly shows, a still leaves so much less. Such that the demo's least hand-held take, 0.74, is alive
#: (docs/accuracy.md).
COARSE = 2.2
ALIVE = 6.0  # own motion at which no further pair is compared
AROUND = 8  # frames on each side whose second largest change says how much the picture moves
REPEATED = 0.15  # share of that change below which a frame repeats the one before, as an encoder draws it again
MOVING_STIR, MOVING_MIN = 1.2, 24  # change from which the picture moves; frames of it that tell of repeats
ALIGNED = 1.3  # own motion from which the camera that points were followed by is tried as well ...
FOLLOWED_MIN = 0.6  # ... if it explains this share of them


class StillnessMeter:
    """frozen_s and repeated_frac from frames, own_motion from stills.

    stir: mean change of each frame's liveliest cell, grey levels.
    """

    tracks = (pa.field("stir", pa.float32()),)

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self._info, self._recipe = info, recipe.motion
        self._before: np.ndarray | None = None

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        before = batch.luma[:1] if self._before is None else self._before
        pictures = np.concatenate([before, batch.luma])
        stirs = stir(pictures)
        if self._before is None:
            stirs[0] = np.nan
        self._before = batch.luma[-1:].copy()
        return {"stir": stirs}

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        stirs = tracks["stir"][span.first + 1 : span.stop]
        if self._info.fps < self._recipe.fps_measurable or not len(stirs):
            reason = "there are too few frames, or they are too far apart in time"
            return dict.fromkeys(("frozen_s", "repeated_frac", "own_motion"), Unmeasured(reason))
        times = tracks.time_s[span.first : span.stop]
        first, stop = frozen_run(stirs < FROZEN_STIR)
        low, high = frozen_run(stirs < MAYBE_STIR, MAYBE_LONE)
        if high - low > stop - first and self._held(tracks, times[low], times[high]):
            first, stop = low, high
        elif stop == len(stirs) and times[stop] - times[first] >= CORE_S:
            first = after_stop(stirs, times, first)
        frozen_s = float(times[stop] - times[first])
        if calm(stirs, first, stop) and frozen_s < CALM_SHARE * (times[-1] - times[0]):
            frozen_s = 0.0
        repeated = repeated_frac(stirs)
        return {
            "frozen_s": frozen_s,
            "repeated_frac": Unmeasured("too little moves to tell repeated frames") if repeated is None else repeated,
            "own_motion": self._own_motion(tracks, span),
        }

    def _held(self, tracks: Tracks, begin_s: float, end_s: float) -> bool:
        """Whether the first and the last two stills between two times show a picture that is held."""
        numbers = tracks.stills.inside(begin_s, end_s)
        pairs = sorted({int(numbers[1]), int(numbers[-1])}) if len(numbers) > 1 else []
        return bool(pairs) and all(own_motion(_small(tracks, n - 1), _small(tracks, n)) < HELD for n in pairs)

    def _own_motion(self, tracks: Tracks, span: Span) -> Any:
        numbers = tracks.stills.inside(span.start_s, span.end_s)
        if len(numbers) < 2:
            return Unmeasured("fewer than two stills")
        most, before = 0.0, (-1, None)
        for later in spread(numbers[1:], PAIRS):
            earlier = before[1] if before[0] == later - 1 else _small(tracks, later - 1)
            now = _small(tracks, later)
            most = max(most, own_motion(earlier, now, self._camera(tracks, later, now.shape)))
            before = later, now
            if most >= ALIVE:
                break
        return most

    def _camera(self, tracks: Tracks, later: int, shape: tuple[int, int]) -> np.ndarray | None:
        """Affine [2, 3] from the still before `later` to it, by the points followed meanwhile; None where few agree."""
        begin_s, end_s = tracks.stills.times_s[[later - 1, later]]
        first, stop = np.searchsorted(tracks.time_s, [begin_s + points.APART_MAX_S / 2, end_s + TIME_EPS])
        looks = tracks["looks"][first:stop]
        looks = looks[np.isfinite(looks[:, 0])]
        if not len(looks):
            return None
        at = dict(zip(points.LOOK, np.median(looks, axis=0), strict=True))
        if at["inside"] < FOLLOWED_MIN:
            return None
        turned = self._info.rotation // 90  # points are followed in the picture as it is coded
        shift = np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), turned) @ (at["shift_x"], at["shift_y"])
        linear = np.array([[1, 0], [0, 1]]) + (end_s - begin_s) * np.array(
            [[at["growth"], -at["turn"]], [at["turn"], at["growth"]]]
        )
        centre = (np.array(shape[::-1]) - 1) / 2
        offset = (end_s - begin_s) * max(shape) * shift + centre - linear @ centre
        return np.column_stack([linear, offset]).astype(np.float32)


def stir(pictures: np.ndarray) -> np.ndarray:
    """Mean change of the liveliest cell, grey levels, of each picture from the one before: float32 [n - 1].

    pictures: uint8 [n, h, w].
    """
    count, height, width = pictures.shape
    rows, columns = max(1, height // CELL), max(1, width // CELL)
    # Cells of whole pixels, which do not reach into the next picture of the stack; a rim of a few pixels is left out.
    high, wide = height // rows * rows, width // columns * columns
    stack = np.ascontiguousarray(pictures[:, :high, :wide]).reshape(-1, wide)
    changes = cv2.absdiff(stack[high:], stack[:-high]).astype(np.float32)
    cells = cv2.resize(changes, (columns, (count - 1) * rows), interpolation=cv2.INTER_AREA)
    return cells.reshape(count - 1, -1).max(axis=1)


def frozen_run(frozen: np.ndarray, lone: int = LONE) -> tuple[int, int]:
    """[first, stop) of the longest run of True, bool [n]; up to `lone` others in a row do not end one. (0, 0): none."""
    best, begin, last = (0, 0), None, None
    for place in np.flatnonzero(frozen):
        if last is None or place - last > lone + 1:
            begin = place
        last = place
        if place + 1 - begin > best[1] - best[0]:
            best = int(begin), int(place + 1)
    return best


def after_stop(stirs: np.ndarray, times: np.ndarray, first: int) -> int:
    """Where a frozen tail that begins at `first` begins with what the encoder redrew: right after an abrupt stop."""
    begin = first
    while begin > 0 and stirs[begin - 1] < MAYBE_STIR and times[first] - times[begin - 1] <= REDRAWN_S:
        begin -= 1
    return begin if begin > 0 and stirs[begin - 1] >= STOP_STIR else first


def calm(stirs: np.ndarray, first: int, stop: int) -> bool:
    """Whether the frames outside a frozen run hardly change either."""
    others = np.delete(stirs, slice(first, stop))
    return len(others) > 0 and float(np.quantile(others, 0.9)) < CALM_STIR


def repeated_frac(stirs: np.ndarray) -> float | None:
    """Share of frames that repeat the one before, of those amid motion; None where there are too few of them."""
    near = np.lib.stride_tricks.sliding_window_view(np.pad(stirs, AROUND), 2 * AROUND + 1)
    level = np.partition(near, -2, axis=1)[:, -2]  # the largest may be a cut or a flash
    moving = level >= MOVING_STIR
    if moving.sum() < MOVING_MIN:
        return None
    return float((stirs < REPEATED * level)[moving].mean())


def _small(tracks: Tracks, number: int) -> np.ndarray:
    gray = decode_gray(tracks.stills.jpeg(number), half=True)
    scale = SIDE / max(gray.shape)
    return cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else gray


def own_motion(before: np.ndarray, now: np.ndarray, followed: np.ndarray | None = None) -> float:
    """How far parts of the picture move beyond the camera's motion, in times what a still leaves: about 1 and below.

    before, now: uint8 luma [h, w], longer side about 160. followed: the camera as points tell it, affine [2, 3], tried
    where the pictures' correlation leads nowhere. ALIVE where no camera motion over a still fits at all.
    """
    halves = [cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for p in (before, now)]
    camera = np.eye(2, 3, dtype=np.float32)
    window = cv2.createHanningWindow(halves[0].shape[::-1], cv2.CV_32F)
    camera[:, 2] = cv2.phaseCorrelate(*(half.astype(np.float32) for half in halves), window)[0]
    left = _aligned(before, now, halves, camera)
    if followed is not None and left > ALIGNED:
        left = min(left, _aligned(before, now, halves, followed * np.float32([1, 1, 0.5])))
    return left


def _aligned(before: np.ndarray, now: np.ndarray, halves: list[np.ndarray], camera: np.ndarray) -> float:
    """`_left` after aligning, from `camera`, affine [2, 3] at half size; at most ALIVE."""
    try:
        camera = cv2.findTransformECC(*halves, camera, cv2.MOTION_AFFINE, ECC_HALF, None, 5)[1]
        coarse = _left(*halves, camera)
        if coarse >= 2 * ALIVE:  # footage that moves is dear to align, and seen at half size
            return ALIVE
        camera[:, 2] *= 2
        camera = cv2.findTransformECC(before, now, camera, cv2.MOTION_AFFINE, ECC_FULL, None, 3)[1]
    except cv2.error:  # it finds no camera
        return ALIVE
    left = _left(before, now, camera)
    if _moved(camera, before.shape) >= MOVED:
        left = min(left, COARSE * coarse)
    return min(left, ALIVE)


def _left(before: np.ndarray, now: np.ndarray, camera: np.ndarray) -> float:
    """What is left of the change in the liveliest cell once `camera`, affine [2, 3], takes `before` to `now`."""
    height, width = before.shape
    first, second = (cv2.GaussianBlur(p, (0, 0), SOFT).astype(np.float32) for p in (before, now))
    flags = cv2.WARP_INVERSE_MAP
    second = cv2.warpAffine(second, camera, (width, height), flags=flags | cv2.INTER_LINEAR)
    seen = cv2.warpAffine(np.ones_like(first), camera, (width, height), flags=flags | cv2.INTER_NEAREST)
    seen = cv2.erode(seen, np.ones((EDGE, EDGE)), borderValue=0)
    both = seen > 0
    if both.mean() < SEEN_MIN:
        return 2 * ALIVE
    gain = first[both].std() / max(float(second[both].std()), 1e-3)  # a still may be faded
    change = np.abs(first - ((second - second[both].mean()) * gain + first[both].mean())) * seen
    slope = cv2.magnitude(*(cv2.Sobel(first, cv2.CV_32F, *of, scale=1 / 8) for of in ((1, 0), (0, 1)))) * seen
    size = max(1, width // CELL), max(1, height // CELL)
    change, slope, share = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (change, slope, seen))
    left = np.where(share > 0.5, change / (slope + GRADIENT_FLOOR * share + 1e-6), 0.0)
    shifted = max(_moved(camera, before.shape) / MOVED, abs(gain - 1) / FADED)
    noise = NOISE_HELD + (NOISE_MOVED - NOISE_HELD) * min(1.0, shifted)
    return float(left.max()) / noise


def _moved(camera: np.ndarray, shape: tuple[int, int]) -> float:
    """Pixels by which `camera`, affine [2, 3], moves what it moves most."""
    height, width = shape
    return float(np.abs(camera - np.eye(2, 3)).max(axis=0) @ np.array([width / 2, height / 2, 1.0]))
