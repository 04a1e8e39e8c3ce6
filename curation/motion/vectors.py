"""Codec motion vectors, and the flow that stands in for them: their mean length.

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
#: Words of 32 bits of an AVMotionVector record, and where its fields stand in them (PLACE_X in the upper half).
WORDS, SOURCE, SIZE, PLACE_X, PLACE_Y, MOTION_X, MOTION_Y, SCALE = 10, 0, 1, 2, 3, 6, 7, 8


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


def joined(vectors: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(places [n] of the frames that have vectors, int32 [vectors, WORDS] of them all, counts [n] of each).

    vectors: per frame an array of frame.VECTOR, or None.
    """
    places = np.array([place for place, found in enumerate(vectors) if found is not None and len(found)], int)
    words = [vectors[place].view(np.int32).reshape(-1, WORDS) for place in places]
    return places, np.concatenate(words) if words else np.empty((0, WORDS), np.int32), np.array([*map(len, words)], int)


def mean_lengths(words: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean length, weighted by area, of each frame's vectors that point to the past: pixels, NaN where there is none.

    words, counts: as `joined` gives them. The vectors of a frame reach as far back as its reference lies: divide by
    that distance for pixels per frame.
    """
    starts = np.cumsum(counts) - counts
    x, y = words[:, MOTION_X].astype(np.float32), words[:, MOTION_Y].astype(np.float32)
    area = ((words[:, SIZE] & 0xFF) * (words[:, SIZE] >> 8 & 0xFF)).astype(np.float32)
    area *= words[:, SOURCE] < 0
    length = np.sqrt(x * x + y * y) / np.maximum(words[:, SCALE] & 0xFFFF, 1) * area
    areas = np.add.reduceat(area, starts, dtype=np.float64)
    sums = np.add.reduceat(length, starts, dtype=np.float64)
    return np.where(areas > 0, sums / np.maximum(areas, 1.0), np.nan)


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
