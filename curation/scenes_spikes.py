"""Spikes: changes from one frame to the next that stand out among those of the frames around, block by block.

A cut changes nearly every part of the picture more than it changes by itself. What moves fast changes few parts, a
camera that moves changes all of them for several frames, and a subtitle leaves the rest as it is. So a spike tells a
jump cut within a lively take from the take's own motion, where the picture's change as a whole is no help.
"""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.gradual.doubts import BLOCKS, block_sums
from rushes.curation.gradual.explained import active_box, unexplained

#: Frames that are looked at: their content score is so many times the mean of NEAR frames on either side, and so large.
STANDS_OUT, CHANGE_MIN, NEAR = 1.5, 4.0, 2
CHANGE_FLOOR = 0.5  # of the content score: a smaller mean counts as that
AROUND = 6  # frames on either side whose changes are compared
LEVEL_FLOOR = 1.0  # grey levels: a block's smaller change counts as that
RATIO_MOST = 6.0
PARTS_MIN = 0.42  # of the blocks, that change more than they do by themselves: words that come change fewer
#: A cut whose content score is below WEAK_CONTENT has at least this spike.
WEAK_CONTENT, WEAK_SPIKE = 15.0, 1.8
#: A flash is so many frames, brighter (or darker) by so many grey levels on the mean than those before and after.
FLASH_FRAMES, FLASH_LEVELS = 3, 30.0
#: A change that is none, as where a poor encode begins anew at a key frame: blocks stay alike, and what motion of a
#: pixel or two does not explain are few grey levels.
ALIKE_MIN, LEVEL_MAX = 0.75, 2.0
GRAIN = 2.0  # grey levels that do not count in likeness
FLASH_SHARE = 0.3  # of the change to the flash: with less from before it to after it there is no cut under it


class Spikes:
    """Looks at tiny pictures in batches; leaves the track `spike` AROUND frames later, NaN where nothing stands out."""

    def __init__(self) -> None:
        self._luma: np.ndarray | None = None  # of the frames that wait, and of AROUND + 1 before them
        self._content = np.zeros(0)  # of the same frames
        self._waiting = 0

    def observe(self, luma: np.ndarray, content: np.ndarray) -> np.ndarray:
        """float32 [answered] of pictures uint8 [n, h, w] and their content scores [n]."""
        self._luma = luma if self._luma is None else np.concatenate([self._luma, luma])
        self._content = np.concatenate([self._content, content])
        self._waiting += len(luma)
        return self._answered(self._waiting - AROUND)

    def finish(self) -> np.ndarray:
        """Of the frames that wait still."""
        return self._answered(self._waiting)

    def _answered(self, count: int) -> np.ndarray:
        if count <= 0 or self._luma is None:
            return np.empty(0, np.float32)
        first, found = len(self._luma) - self._waiting, np.full(count, np.nan, np.float32)
        for place in _standing_out(self._content).tolist():
            if first <= place < first + count:
                begin = max(0, place - AROUND - 1)
                found[place - first] = spike(self._luma[begin : place + AROUND + 1], place - begin)
        self._waiting -= count
        kept = self._waiting + AROUND + 1
        self._luma, self._content = self._luma[-kept:].copy(), self._content[-kept:]
        return found


def spike(pictures: np.ndarray, place: int) -> float:
    """How far the change to the picture at `place` stands out among the others: 0 to RATIO_MOST.

    pictures: uint8 [n, h, w], in a row. Each block's change over its largest other one; of these ratios the geometric
    mean of the median and the mean by change. Bars are left out, and so is a flash that begins there: then the others
    are changes over as many frames.
    """
    length = _flash(pictures, place)
    shown = pictures[:, *active_box(pictures[place - 1], pictures[place + length])]
    flat = shown.reshape(len(shown), -1)
    before, after, step = flat[:place], flat[place + length :], length + 1
    to_flash, across = (cv2.norm(flat[place - 1], flat[place + more], cv2.NORM_L1) for more in (0, length))
    if length and across < FLASH_SHARE * to_flash:
        return 0.0
    pairs = [(before[-1:], after[:1]), (before[:-step], before[step:]), (after[:-step], after[step:])]
    apart = np.concatenate([cv2.absdiff(one, other) for one, other in pairs if len(one)])
    changes = block_sums(apart, shown.shape[1:]) * (BLOCKS[0] * BLOCKS[1] / flat.shape[1])
    here, others = changes[0], changes[1:]
    ratios = np.minimum(here / others.max(axis=0, initial=LEVEL_FLOOR), RATIO_MOST)
    if (ratios > 1).mean() < PARTS_MIN:
        return 0.0
    middle = np.sort(ratios)[[(len(ratios) - 1) // 2, len(ratios) // 2]].mean()
    found = float(np.sqrt(middle * (ratios @ here) / max(here.sum(), 1e-6)))
    return 0.0 if found >= 1 and _refreshed(shown[place - 1], shown[place + length]) else found


def _refreshed(a: np.ndarray, b: np.ndarray) -> bool:
    return alike(a, b) > ALIKE_MIN and unexplained(a, b)[1] < LEVEL_MAX


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Mean correlation of the blocks of two pictures uint8 [h, w], -1 to 1, weighted by how much each changes."""
    x, y = (picture.reshape(1, -1).astype(np.float32) for picture in (a, b))
    sums = block_sums(np.concatenate([np.ones_like(x), x, y, x * x, y * y, x * y, np.abs(x - y)]), a.shape)
    mean_x, mean_y, square_x, square_y, product, change = sums[1:] / np.maximum(sums[0], 1)
    spread = (square_x - mean_x**2 + GRAIN**2) * (square_y - mean_y**2 + GRAIN**2)
    likeness = (product - mean_x * mean_y) / np.sqrt(np.maximum(spread, GRAIN**4))
    return float(likeness @ change / max(float(change.sum()), 1e-6))


def _flash(pictures: np.ndarray, place: int) -> int:
    """Frames of the flash that begins at `place`; 0 where none does."""
    near = pictures[place - 1 : place + FLASH_FRAMES + 1]
    means = np.array([cv2.mean(picture)[0] for picture in near])
    if means.max() - means.min() <= FLASH_LEVELS:
        return 0
    for length in range(1, len(near) - 1):
        within, sides = means[1 : 1 + length], means[[0, 1 + length]]
        if within.min() > sides.max() + FLASH_LEVELS or within.max() < sides.min() - FLASH_LEVELS:
            return length
    return 0


def _standing_out(content: np.ndarray) -> np.ndarray:
    """Places of the frames that are looked at; NEAR at either end are none. content: [n]."""
    count = len(content) - 2 * NEAR
    if count <= 0:
        return np.empty(0, int)
    shifts = [shift for shift in range(2 * NEAR + 1) if shift != NEAR]
    around = sum(content[shift : shift + count] for shift in shifts) / len(shifts)
    here = content[NEAR : NEAR + count]
    return NEAR + np.flatnonzero((here >= CHANGE_MIN) & (here > STANDS_OUT * np.maximum(around, CHANGE_FLOOR)))


def cuts(spikes: np.ndarray, content: np.ndarray, least: float) -> np.ndarray:
    """Frames that begin a new picture: those with a spike of at least `least`. All float [frames]."""
    return np.flatnonzero(spikes >= np.where(content < WEAK_CONTENT, max(WEAK_SPIKE, least), least))
