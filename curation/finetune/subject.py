"""How much of the picture the main subject takes: a detector's box, or one by colour contrast, named for what it is.

The paper drops clips with small subjects by an object detector of 20,000 classes. `detected` does it by any ONNX
detector (`finetune.detector`). Without weights there is a measured stand-in: what differs in colour from the edges of
the picture (the "boundary prior" of salient object detection; Wei et al. 2012), as the box around the largest such
region. It knows no objects: a person before a crowd is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

METHOD = "saliency: colour contrast to the edges"
SIDE = 96  # longer side at which it is measured, px
EDGE = 0.06  # share of a side that counts as its edge
NOISE = 12.0  # variance of Lab colours that is added: what differs less from an edge is noise
LEAST = 2.0  # standard deviations from every edge below which nothing stands out
SURE = 0.5  # score from which a detector's box counts
FEW = 3  # stills of a clip that are measured


@dataclass(frozen=True)
class Subject:
    """frac: share of the picture that the box covers, 0-1; box: left, top, right, bottom, each 0-1."""

    frac: float
    box: tuple[float, float, float, float]


def subject_of(
    pictures: Sequence[np.ndarray], find: Callable[[np.ndarray], Subject | None] | None = None
) -> Subject | None:
    """The subject of a clip's stills (uint8 BGR): the one of middle size over up to three; None where nothing is.

    find: finds it in one picture; None: by saliency.
    """
    find = find or _subject
    some = np.unique(np.linspace(0, len(pictures) - 1, min(FEW, len(pictures))).round().astype(int))
    found = sorted((one for one in (find(pictures[i]) for i in some) if one), key=lambda one: one.frac)
    return found[len(found) // 2] if found else None


def detected(detector: Any) -> Callable[[Sequence[np.ndarray]], Subject | None]:
    """The same by a detector (looking.detector.OnnxPeople): the largest thing of any class that it is sure of."""

    def largest(bgr: np.ndarray) -> Subject | None:
        found = detector.boxes(bgr, SURE)
        if not len(found):
            return None
        area = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
        best = int(area.argmax())
        return Subject(float(area[best]), tuple(found[best].tolist()))

    return lambda pictures: subject_of(pictures, largest)


def saliency(bgr: np.ndarray) -> np.ndarray:
    """Standard deviations by which each pixel's colour differs from the nearest of the four edges, float32 [h, w]."""
    scale = SIDE / max(bgr.shape[:2])
    small = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else bgr
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_BGR2LAB).astype(np.float32), (0, 0), 1.5)
    high, wide = max(1, round(EDGE * lab.shape[0])), max(1, round(EDGE * lab.shape[1]))
    distances = []
    for edge in (lab[:high], lab[-high:], lab[:, :wide], lab[:, -wide:]):
        colours = edge.reshape(-1, 3)
        spread = np.cov(colours.T) + NOISE * np.eye(3)
        off = (lab - colours.mean(axis=0)).reshape(-1, 3)
        distances.append(np.sqrt(np.einsum("ni,ij,nj->n", off, np.linalg.inv(spread), off)))
    return np.min(distances, axis=0).reshape(lab.shape[:2]).astype(np.float32)


def _subject(bgr: np.ndarray) -> Subject | None:
    found = saliency(bgr)
    peak = float(np.quantile(found, 0.99))
    if peak < LEAST:
        return None
    grey = np.clip(255 * found / peak, 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    mask = (grey >= max(level, 255 * LEAST / peak)).astype(np.uint8)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count < 2:
        return None
    left, top, width, height, _ = boxes[1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())]
    h, w = found.shape
    box = (left / w, top / h, (left + width) / w, (top + height) / h)
    return Subject(float(width * height / (w * h)), tuple(float(one) for one in box))
