"""Codec motion vectors: their mean length, and the camera motion that fits them.

Vectors come free with the decode of H.264 and the MPEG family. VP9, AV1 and HEVC export none: there a dense optical
flow on small luma is measured on a few frames a second instead, and the clip's notes say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

REFERENCE_SIDE = 720  # vectors are given in pixels of a picture whose shorter side is this
FIT_VECTORS_MAX = 300  # vectors used for a fit of the camera; more change nothing
FIT_VECTORS_MIN = 12
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
    return np.where(known[:, None] >= FIT_VECTORS_MIN, medians[:, :, 0], np.nan)


def field_of(vectors: np.ndarray, width: int, height: int, reach: int = 1) -> Field | None:
    """The vectors that point to the past as displacements of the scene per frame; None where there are too few.

    reach: how many frames ago the picture was shown that they point to.
    """
    some = vectors[:: max(1, len(vectors) // FIT_VECTORS_MAX)]
    past = some[some["source"] < 0]
    if len(past) < FIT_VECTORS_MIN:
        return None
    side = float(max(width, height))
    scale = np.maximum(past["motion_scale"], 1).astype(np.float32) * side * reach
    # A vector points from a block to where it was in the earlier frame: the scene moved the other way.
    return Field(
        (past["dst_x"] - width / 2).astype(np.float32) / side, (past["dst_y"] - height / 2).astype(np.float32) / side,
        -past["motion_x"] / scale, -past["motion_y"] / scale,
    )  # fmt: skip


class Flow:
    """Dense optical flow (DIS) between small luma pictures: the fallback for codecs without vectors."""

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def measure(self, before: np.ndarray, now: np.ndarray) -> tuple[float, Field | None]:
        """(mean length in small pixels, field) of uint8 [h, w] pictures of at least 16 x 16."""
        flow = self._dis.calc(before, now, None)
        length = float(np.hypot(flow[..., 0], flow[..., 1]).mean())
        height, width = now.shape
        step = max(1, int(np.sqrt(height * width / FIT_VECTORS_MAX)))
        y, x = np.mgrid[0:height:step, 0:width:step].astype(np.float32)
        side = float(max(width, height))
        part = flow[::step, ::step] / side
        flat = [a.ravel() for a in ((x - width / 2) / side, (y - height / 2) / side, part[..., 0], part[..., 1])]
        return length, Field(*flat)


#: One frame's camera: the scene's shift (shares of the longer side per frame, right and down), growth and turn per
#: frame, the mean displacement, and the share of it that the camera's motion accounts for, 0-1.
CAMERA = ("shift_x", "shift_y", "growth", "turn", "moved", "explained")


def fit_camera(field: Field) -> tuple[float, ...]:
    """CAMERA: least-squares similarity (shift, zoom, turn) of a field, once refitted without the outliers."""
    points = np.stack([field.x, field.y, field.dx, field.dy]).astype(np.float64)
    kept = points
    for _ in range(2):
        shift_x, shift_y, growth, turn = _similarity(kept)
        moved_by = np.array([[growth, -turn], [turn, growth]]) @ points[:2] + np.array([[shift_x], [shift_y]])
        left = np.hypot(*(points[2:] - moved_by))
        median = float(np.median(left))
        kept = points[:, left <= 2.0 * median + 1e-6]
    moved = float(np.hypot(points[2], points[3]).mean())
    explained = 1.0 - median / moved if moved > 1e-6 else 0.0
    return shift_x, shift_y, growth, turn, moved, min(max(explained, 0.0), 1.0)


def _similarity(points: np.ndarray) -> tuple[float, float, float, float]:
    """Shift, growth and turn of dx = sx + g x - t y, dy = sy + t x + g y, from rows x, y, dx, dy: in closed form."""
    mean = points.mean(axis=1)
    centred = points - mean[:, None]
    products = centred @ centred.T
    spread = float(products[0, 0] + products[1, 1]) + 1e-9
    growth = float(products[0, 2] + products[1, 3]) / spread
    turn = float(products[0, 3] - products[1, 2]) / spread
    mx, my, mdx, mdy = (float(value) for value in mean)
    return mdx - (growth * mx - turn * my), mdy - (turn * mx + growth * my), growth, turn
