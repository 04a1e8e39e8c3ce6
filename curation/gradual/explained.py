"""What of a change from one tiny picture to another neither light nor motion explains."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

UNEXPLAINED_MIN = 0.35  # share of the change that neither motion nor light may explain, if it is a transition ...
UNEXPLAINED_LEVELS = 1.2  # ... and its mean over the picture, grey levels
BAR_RANGE = 12  # grey levels within the bars, before and after ...
BAR_LEAVES = 0.3  # ... which leave more than this share of the height or width
BLACK_STD = 4.0  # a picture with less spread than this is a plain colour: a fade goes to or from it, grey levels
GAIN = (0.4, 2.5)  # a change of the light multiplies the picture's spread by no more than this ...
LIT_ALIKE = 0.5  # ... and leaves so much correlation
LEVELS = 16  # steps of grey by which a change of the light is told
BLOCKS = (2, 4)  # rows, columns of blocks that may each have moved ...
REACH = 4  # ... by so many pixels of the tiny picture, either way


def active_box(a: np.ndarray, b: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of two tiny pictures without their bars: one grey at two opposite sides, in both pictures."""
    low, high = cv2.min(a, b), cv2.max(a, b)
    return _without_bars(low, high), _without_bars(low.T, high.T)


def _without_bars(low: np.ndarray, high: np.ndarray) -> slice:
    """Rows without the bars above and below, of the least and the largest value of two tiny pictures."""
    rows = len(low)
    if any(int(high[row].max()) - int(low[row].min()) > BAR_RANGE for row in (0, -1)):  # as in most pictures
        return slice(0, rows)
    lively = np.flatnonzero(high.max(axis=1).astype(np.int16) - low.min(axis=1) > BAR_RANGE)
    if len(lively) and np.ptp(lively) > BAR_LEAVES * rows:
        first, stop = int(lively[0]), int(lively[-1]) + 1
        bars = np.r_[0:first, stop:rows]
        if int(high[bars].max()) - int(low[bars].min()) <= BAR_RANGE:
            return slice(first, stop)
    return slice(0, rows)


def unexplained(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """What of the change from a to b (uint8 [h, w]) neither light nor motion explains: its share, and its mean level.

    Light: one gain and offset for the picture. Motion: each of BLOCKS may have moved by REACH pixels, and each pixel
    within it by one more. The worse of both directions counts.
    """
    before, level = max(cv2.norm(a, b, cv2.NORM_L1) / a.size, 1e-6), 0.0
    for one, other in ((a, b), (b, a)):
        lit = _relit(one, other)
        left = float(outside(other, envelope(lit)).mean())
        if left >= UNEXPLAINED_LEVELS and left >= UNEXPLAINED_MIN * before:
            left = min(left, _unmoved(lit, other))
        level = max(level, left)
        if level >= UNEXPLAINED_LEVELS and level >= UNEXPLAINED_MIN * before:
            break
    return level / before, level


def _relit(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a in the light of b: each of its greys becomes what b has there on the mean; a itself where that is no light."""
    (mean, spread), (mean_b, spread_b) = (
        (float(m[0, 0]), float(d[0, 0])) for m, d in (cv2.meanStdDev(a), cv2.meanStdDev(b))
    )
    if min(spread, spread_b) < BLACK_STD or not GAIN[0] <= spread_b / spread <= GAIN[1]:
        return a
    product = cv2.mean(cv2.multiply(a, b, dtype=cv2.CV_32F))[0]
    if product - mean * mean_b < LIT_ALIKE * spread * spread_b:
        return a
    grey = (a.ravel() // LEVELS).astype(int)
    counts = np.bincount(grey, minlength=256 // LEVELS)
    known = np.flatnonzero(counts)
    means = [np.bincount(grey, picture.ravel(), 256 // LEVELS)[known] / counts[known] for picture in (a, b)]
    return np.interp(np.arange(256), *means)[a].astype(np.uint8)


def _unmoved(a: np.ndarray, b: np.ndarray) -> float:
    """Mean of what lies outside of what a's pixels around show, over the blocks, each at its best displacement."""
    rows, columns = a.shape
    size = (2 * REACH + 1) ** 2
    stacks = []
    for side in envelope(a):
        around = cv2.copyMakeBorder(side, REACH, REACH, REACH, REACH, cv2.BORDER_REPLICATE)
        windows = np.lib.stride_tricks.sliding_window_view(around, (rows, columns))
        stacks.append(windows.reshape(size * rows, columns))
    left_out = outside(cv2.repeat(b, size, 1), (stacks[0], stacks[1])).astype(np.float32)
    sums = belonging(rows, BLOCKS[0]).T @ (left_out @ belonging(columns, BLOCKS[1])).reshape(size, rows, -1)
    return float(sums.min(axis=0).sum()) / (rows * columns)


@lru_cache(maxsize=256)
def belonging(length: int, blocks: int) -> np.ndarray:
    """float32 [length, blocks], 1 where a pixel is of a block: a product with it sums up the blocks."""
    return (np.arange(length)[:, None] * blocks // length == np.arange(blocks)).astype(np.float32)


def outside(picture: np.ndarray, around: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """By how much each pixel (uint8) lies below or above what is around it."""
    return cv2.max(cv2.subtract(around[0], picture), cv2.subtract(picture, around[1]))


_KERNEL = np.ones((3, 3), np.uint8)


def envelope(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value within a pixel."""
    return cv2.erode(picture, _KERNEL), cv2.dilate(picture, _KERNEL)
