"""Marks without letters: a logo or a symbol that is burnt in, as a rectangle.

What is burnt in stays while the camera moves: its edges have the same place, direction and strength in every still, and
what lies around it changes. An edge that stands tells nothing where most of the picture stands, and a thing that the
camera follows stands in the middle: so marks are looked for in the corners of a picture that moves nearly everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rushes.curation.meter import Unmeasured
from rushes.curation.tracks import spread
from rushes.curation.visual.frame_stats import shrink
from rushes.curation.visual.lettering import Box

NAME = "edges that stand in a corner while the picture moves"
SIDE, STILLS, STILLS_MIN = 320, 12, 4  # pixels, longer side of the stills that are searched; how many of a clip
SIDE_MIN = 64  # pixels: a smaller picture has no corner to speak of
SOFT = 0.8  # pixels: blur before edges are taken, so that coding leaves little
EDGE = 2.5  # grey levels a pixel: a weaker slope is shading
SAME = 0.45  # of an edge's strength: by more it differs from still to still where it does not stand
MOST = 0.75  # of the stills that must agree
NEAR = 4  # pixels between the edges of one mark
CORNER = 0.36  # of the sides: a mark lies within this of two sides that meet
LEAST, LARGEST = 8, 0.3  # pixels, and share of the longer side: sides of a mark
EDGES_MIN = 30  # pixels of edges that stand
RING = (3, 9)  # pixels around a mark, from and to, that are asked whether the picture changes there
CHANGE = 6.0  # grey levels: mean difference of neighbouring stills from which it does
CHANGES = 0.5  # share of the ring that must change
STANDING_MAX = 0.12  # share of all edges that stand outside of the marks, from which nothing can be said
RING_STANDS = 0.04  # the same around a mark, of its pixels


@dataclass(frozen=True)
class Mark:
    """score: 0-1, how alike the mark's edges are in all stills. box: shares of the sides."""

    score: float
    box: Box


def marks(pictures: Sequence[np.ndarray]) -> list[Mark] | Unmeasured:
    """Marks of one clip, the surest first. pictures: uint8 BGR [h, w, 3], in order of time."""
    if len(pictures) < STILLS_MIN:
        return Unmeasured("too few stills to tell what stands")
    if len({picture.shape for picture in pictures}) > 1:
        return Unmeasured("the picture changes its size")
    stills = [cv2.cvtColor(shrink(picture, SIDE), cv2.COLOR_BGR2GRAY) for picture in spread(pictures, STILLS)]
    if min(stills[0].shape) < SIDE_MIN:
        return Unmeasured("the picture is too small")
    lumas = np.stack([cv2.GaussianBlur(still, (0, 0), SOFT) for still in stills]).astype(np.float32)
    slopes = np.stack(
        [np.stack([cv2.Sobel(l, cv2.CV_32F, *of, scale=1 / 8) for of in ((1, 0), (0, 1))]) for l in lumas]
    )
    usual = np.median(slopes, axis=0)
    strength = np.hypot(*usual)
    differs = np.sort(np.hypot(*np.moveaxis(slopes - usual, 1, 0)), axis=0)[int(np.ceil(MOST * len(lumas))) - 1]
    stands = (strength >= EDGE) & (differs <= SAME * strength)
    edges = np.median(np.hypot(*np.moveaxis(slopes, 1, 0)), axis=0) >= EDGE
    changes = np.abs(np.diff(lumas, axis=0)).mean(axis=0) >= CHANGE
    found = [box for box in _boxes(stands) if _alone(box, stands, changes)]
    outside = stands.copy()
    for x0, y0, x1, y1 in found:
        outside[y0:y1, x0:x1] = False
    if not found or outside.sum() > STANDING_MAX * max(int(edges.sum()), 1):
        return []
    height, width = stands.shape
    told = [
        Mark(
            _alike(slopes, usual, stands, box), tuple(float(v) for v in np.array(box) / (width, height, width, height))
        )
        for box in found
    ]
    return sorted(told, key=lambda mark: -mark.score)


def _boxes(stands: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes (pixels) of edges that stand close together in a corner."""
    height, width = stands.shape
    near = cv2.dilate(stands.astype(np.uint8), np.ones((NEAR, NEAR), np.uint8))
    count, labels = cv2.connectedComponents(near)
    found = []
    for label in range(1, count):
        y, x = np.nonzero(stands & (labels == label))
        if len(x) < EDGES_MIN:
            continue
        x0, y0, x1, y1 = int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1
        wide, high = x1 - x0, y1 - y0
        beside = x1 <= CORNER * width or x0 >= (1 - CORNER) * width
        level = y1 <= CORNER * height or y0 >= (1 - CORNER) * height
        if beside and level and min(wide, high) >= LEAST and max(wide, high) <= LARGEST * max(width, height):
            found.append((x0, y0, x1, y1))
    return found


def _alone(box: tuple[int, int, int, int], stands: np.ndarray, changes: np.ndarray) -> bool:
    """Whether nothing else stands around the box, and the picture changes there."""
    ring = np.zeros(stands.shape, bool)
    for reach, value in ((RING[1], True), (RING[0], False)):
        x0, y0, x1, y1 = box
        ring[max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach] = value
    return bool(changes[ring].mean() >= CHANGES and stands[ring].mean() <= RING_STANDS)


def _alike(slopes: np.ndarray, usual: np.ndarray, stands: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """Correlation of the mark's edges in the still that has them least with their median."""
    x0, y0, x1, y1 = box
    of = np.where(stands, usual, 0)[:, y0:y1, x0:x1]
    each = np.where(stands, slopes, 0)[:, :, y0:y1, x0:x1]
    both = (each * of).sum(axis=(1, 2, 3))
    return float((both / np.sqrt((each**2).sum(axis=(1, 2, 3)) * (of**2).sum() + 1e-6)).min().clip(0, 1))
