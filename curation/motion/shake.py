"""Shake: the change of motion from frame to frame that all parts of the picture share.

A camera that trembles moves everything at once; people who fill half of the picture, and what passes close by, move
their own parts. So the picture is divided into twelve parts, each with the median of its motion vectors. What two parts
share is the covariance of their changes; the lower fifth over all pairs of parts is the camera's. Parts without texture
have no motion that a codec could see, and are left out.
"""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.motion.vectors import MOTION_X, MOTION_Y, PLACE_X, PLACE_Y, SCALE, SOURCE, Field

PARTS = 12  # of the picture: 4 x 3, the longer side in four
VECTORS = 192  # of a frame that are looked at
PART_MIN = 4  # vectors of a part; fewer say nothing of it
TEXTURE_MIN = 2.5  # mean difference of neighbours in the small luma, grey levels, from which a part has texture
PER_S = 25.0  # shake is a change of the motion from one frame to the next at this rate, whatever the file's
CHANGES_MIN, CHANGES_SHARE = 8, 0.25  # of two parts at the same time, and share of the best known two's: fewer say
# nothing of what they share
TRIMMED = 0.05  # share of the largest and of the smallest products that is left out: a jerk is no shaking
SHARED = 0.2  # quantile over the pairs of parts
STEP = 0.25  # pixels: vectors are coded in quarters ...
TREMBLING = 1.25  # ... and change by so many steps from frame to frame, rms, where a camera glides
KEY, MIDDLE = 12, 1 << 11  # bits of a vector's component within a sorting key, and the key of 0: quarters of a pixel


def grid(width: int, height: int) -> tuple[int, int]:
    """(rows, columns) of the parts."""
    return (3, 4) if width >= height else (4, 3)


def medians(words: np.ndarray, counts: np.ndarray, width: int, height: int) -> np.ndarray:
    """Median displacement of the scene in each part, pixels right and down: float32 [frames, PARTS, 2], NaN unknown.

    words: int32 [vectors, WORDS] of all frames one after another, counts: int [frames] of each. width, height: pixels.
    """
    some, usable = _sample(words, counts)
    rows, columns = grid(width, height)
    part = np.minimum(((some[:, :, PLACE_X] >> 16) * np.float32(columns / width)).astype(np.uint16), columns - 1)
    row = np.minimum(((some[:, :, PLACE_Y] & 0xFFFF) * np.float32(rows / height)).astype(np.uint16), rows - 1)
    part += row * np.uint16(columns)
    part[~usable] = PARTS
    slots = part + (np.arange(len(counts), dtype=np.int32) * (PARTS + 1))[:, None]
    found = np.bincount(slots.ravel(), minlength=len(counts) * (PARTS + 1)).reshape(-1, PARTS + 1)
    middle = (np.cumsum(found, axis=1) - found + found // 2)[:, :PARTS].clip(0, VECTORS - 1)
    to_quarters = np.float32(4) / np.maximum(some[:, :, SCALE] & 0xFFFF, 1)
    result = np.empty((len(counts), PARTS, 2), np.float32)
    part <<= KEY  # vectors are sorted by their part, then by their length: 16 bits are sorted fast
    for axis, of in enumerate((MOTION_X, MOTION_Y)):
        quarters = (some[:, :, of] * to_quarters).clip(-MIDDLE, MIDDLE - 1) + MIDDLE
        keys = np.sort(part + quarters.astype(np.uint16), axis=1)
        chosen = np.take_along_axis(keys, middle, axis=1).astype(np.int32) & (1 << KEY) - 1
        result[:, :, axis] = (MIDDLE - chosen) / 4  # a vector points to where the block was
    result[found[:, :PARTS] < PART_MIN] = np.nan
    return result


def _sample(words: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """VECTORS of each frame, int32 [frames, VECTORS, WORDS], and whether each points to the past and stands once."""
    steps = np.arange(VECTORS, dtype=np.int32) * counts.astype(np.int32)[:, None] // VECTORS
    usable = np.ones(steps.shape, bool)
    usable[:, 1:] = steps[:, 1:] > steps[:, :-1]
    some = words.take(steps + (np.cumsum(counts) - counts).astype(np.int32)[:, None], axis=0)
    usable &= some[:, :, SOURCE] < 0
    return some, usable


def medians_of_flow(field: Field, width: int, height: int) -> np.ndarray:
    """The same of a field of flow, in shares of the longer side: float32 [PARTS, 2]."""
    rows, columns = grid(width, height)
    side = max(width, height)
    row = np.clip((field.y * side / height + 0.5) * rows, 0, rows - 1).astype(int)
    part = row * columns + np.clip((field.x * side / width + 0.5) * columns, 0, columns - 1).astype(int)
    result = np.full((PARTS, 2), np.nan, np.float32)
    for number in range(PARTS):
        here = part == number
        if here.sum() >= PART_MIN:
            result[number] = np.median(field.dx[here]), np.median(field.dy[here])
    return result


def textured(luma: np.ndarray) -> np.ndarray:
    """Which parts of the picture have texture: bool [PARTS]. luma: uint8 [h, w]."""
    rows, columns = grid(luma.shape[1], luma.shape[0])
    across, down = cv2.absdiff(luma[:, 1:], luma[:, :-1]), cv2.absdiff(luma[1:], luma[:-1])
    means = [cv2.resize(d.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA) for d in (across, down)]
    return (np.maximum(*means) >= TEXTURE_MIN).ravel()


def shake(shifts: np.ndarray, fps: float, lag: int, step: float = 0.0) -> float:
    """Rms change, within `lag` frames, of the motion that parts share, per second: 0 where no two parts are known.

    shifts: [frames, PARTS, 2], displacement per frame in the unit of the result; NaN where a part is not known. step:
    the least displacement that a vector can tell, whose trembling is taken off.
    """
    changes = shifts[lag:] - shifts[:-lag]
    one, other = np.triu_indices(PARTS, 1)
    products = np.sort((changes[:, one] * changes[:, other]).sum(axis=2), axis=0)  # NaN last
    known = np.isfinite(products).sum(axis=0)
    cut = np.rint(known * TRIMMED).astype(int)
    place = np.arange(len(products))[:, None]
    kept = (place >= cut) & (place < known - cut)
    means = np.where(kept, products, 0.0).sum(axis=0) / np.maximum(kept.sum(axis=0), 1)
    means = means[known >= max(CHANGES_MIN, CHANGES_SHARE * known.max())]
    if not len(means):
        return 0.0
    return float(np.sqrt(max(np.quantile(means, SHARED) - (TREMBLING * step) ** 2, 0.0))) * fps
