"""Codec motion vectors, and the flow that stands in for them: their mean length, and the scene's shift.

Vectors come free with the decode of H.264 and the MPEG family. VP9, AV1 and HEVC export none: there a dense optical
flow on small luma is measured on a few frames a second instead, and the clip's notes say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

REFERENCE_SIDE = 720  # vectors are given in pixels of a picture whose shorter side is this
FIELD_POINTS_MAX = 300  # points at which a flow is given
SHIFT_VECTORS_MIN = 12  # fewer say nothing of the scene
SHIFT_VECTORS = 128  # vectors of a frame whose median is the scene's shift
#: Words of 32 bits of an AVMotionVector record, and where its fields stand in them.
WORDS, SOURCE, SIZE, MOTION_X, MOTION_Y, SCALE = 10, 0, 1, 6, 7, 8


@dataclass(frozen=True)
class Field:
    """Displacements of the scene between two frames at points of the picture.

    x, y: float32 [n], from -0.5 to 0.5 of the longer side, right and down; dx, dy: float32 [n], in the same unit:
    how far the scene moved from the earlier frame to this one.
    """

    x: np.ndarray
    y: np.ndarray
    dx: np.ndarray
    dy: np.ndarray


def mean_motion(vectors: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame's vectors that point to the past: their mean length, weighted by area, and the scene's shift.

    vectors: per frame an array of decode.VECTOR, or None. Returns float64 [frames] and [frames, 2] (right, down), in
    pixels; NaN where a frame has none. The vectors of a frame reach as far back as its reference lies: divide by that
    distance for pixels per frame. The shift is the median over some vectors: what moves in the scene does not count
    unless it fills half of the picture.
    """
    lengths, shifts = np.full(len(vectors), np.nan), np.full((len(vectors), 2), np.nan)
    places = [place for place, found in enumerate(vectors) if found is not None and len(found)]
    if not places:
        return lengths, shifts
    words = np.concatenate([vectors[place].view(np.int32).reshape(-1, WORDS) for place in places])
    counts = np.array([len(vectors[place]) for place in places])
    starts = np.cumsum(counts) - counts
    x, y = words[:, MOTION_X].astype(np.float32), words[:, MOTION_Y].astype(np.float32)
    area = ((words[:, SIZE] & 0xFF) * (words[:, SIZE] >> 8 & 0xFF)).astype(np.float32)
    area *= words[:, SOURCE] < 0
    length = np.sqrt(x * x + y * y) / np.maximum(words[:, SCALE] & 0xFFFF, 1) * area
    areas = np.add.reduceat(area, starts, dtype=np.float64)
    sums = np.add.reduceat(length, starts, dtype=np.float64)
    lengths[places] = np.where(areas > 0, sums / np.maximum(areas, 1.0), np.nan)
    shifts[places] = _median_shifts(words, starts, counts)
    return lengths, shifts


def _median_shifts(words: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Median displacement of the scene, pixels, float [frames, 2], over SHIFT_VECTORS vectors of each frame."""
    some = words[starts[:, None] + np.arange(SHIFT_VECTORS) * counts[:, None] // SHIFT_VECTORS]
    scale = np.maximum(some[:, :, SCALE] & 0xFFFF, 1).astype(np.float32)
    past = some[:, :, SOURCE] < 0
    moved = np.stack([some[:, :, MOTION_X], some[:, :, MOTION_Y]], axis=1) / -scale[:, None]
    ordered = np.sort(np.where(past[:, None], moved, np.inf), axis=2)  # a vector points to where the block was
    known = past.sum(axis=1)
    medians = np.take_along_axis(ordered, np.repeat(known // 2, 2).reshape(-1, 2, 1).clip(0, SHIFT_VECTORS - 1), axis=2)
    return np.where(known[:, None] >= SHIFT_VECTORS_MIN, medians[:, :, 0], np.nan)


class Flow:
    """Dense optical flow (DIS) between small luma pictures: the fallback for codecs without vectors."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def measure(self, before: np.ndarray, now: np.ndarray) -> tuple[float, Field | None]:
        """(mean length in small pixels, field) of uint8 [h, w] pictures of at least 16 x 16."""
        flow = self._dis.calc(before, now, None)
        length = float(np.hypot(flow[..., 0], flow[..., 1]).mean())
        height, width = now.shape
        step = max(1, int(np.sqrt(height * width / FIELD_POINTS_MAX)))
        y, x = np.mgrid[0:height:step, 0:width:step].astype(np.float32)
        side = float(max(width, height))
        part = flow[::step, ::step] / side
        flat = [a.ravel() for a in ((x - width / 2) / side, (y - height / 2) / side, part[..., 0], part[..., 1])]
        return length, Field(*flat)
