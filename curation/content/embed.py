"""Two measured embeddings of a clip's stills: one to find copies (copies.py), one to group concepts.

Both need no model and no download. They answer in the shape of the models that replace them (`looking/`): SSCD for
copies (Movie Gen 3.2.1), a CLIP for concepts; only ``name``, ``dim`` and the thresholds differ.

A row that cannot be measured is not a direction: a clip without stills is a row of NaN, a clip without a
picture in it (all black, one flat colour) is a row of zeros in the copy embedding. ``find_duplicates`` calls
neither a duplicate of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rushes.curation.content.copies import COPY_DIM, check_stills, copy_embedding

# --- semantic embedding ----------------------------------------------------------------------------------
SEMANTIC_SIDE = 64  # px: histograms need no more, and the cost no longer depends on the size of the stills
HUE_BINS, VALUE_BINS, SATURATION_BINS = 12, 8, 4  # hue in steps of 30 degrees
GRID = 4  # cells a side for gradients and motion: top/bottom and left/right, not the exact layout
ORIENTATION_BINS = 8  # of 22.5 degrees; the sign of an edge is ignored
MOTION_WEIGHT = 2.0  # sqrt(mean change / 255) is 0.2-0.4 a cell where things move; colour and edges are 1
COLOUR_WEIGHT, GRADIENT_WEIGHT = 1.0, 1.0

SEMANTIC_MERGE_THRESHOLD = 0.90
"""Default of the cosine above which two concept clusters are one, for this embedding."""

SEMANTIC_DIM = HUE_BINS + VALUE_BINS + SATURATION_BINS + GRID * GRID * (ORIENTATION_BINS + 1)

Stills = Sequence[np.ndarray]


def _luma(still: np.ndarray, side: int) -> np.ndarray:
    import cv2

    gray = cv2.cvtColor(still, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.sqrt((vector * vector).sum())
    return (vector / length if length > 0 else vector).astype(np.float32)


def _histogram(values: np.ndarray, bins: int, top: float, weights: np.ndarray | None = None) -> np.ndarray:
    """Histogram [bins] of values in [0, top), summing to 1 (or 0 where all weights are 0)."""
    index = np.minimum((values.ravel() * (bins / top)).astype(np.int64), bins - 1)
    counts = np.bincount(index, None if weights is None else weights.ravel(), minlength=bins)
    return counts / max(counts.sum(), np.finfo(float).tiny)


def _colour(small: np.ndarray) -> np.ndarray:
    """BGR [S, S, 3] -> [24]: hue weighted by chroma, value, saturation."""
    import cv2

    hue, saturation, value = (c.astype(np.float64) for c in cv2.split(cv2.cvtColor(small, cv2.COLOR_BGR2HSV)))
    chroma = saturation * value / 255.0  # a dark or grey pixel has a hue, but nobody sees it
    return np.concatenate(
        [
            _histogram(hue, HUE_BINS, 180.0, chroma) * chroma.mean() / 255.0,
            _histogram(value, VALUE_BINS, 256.0),
            _histogram(saturation, SATURATION_BINS, 256.0),
        ]
    )


def _gradients(luma: np.ndarray) -> np.ndarray:
    """Luma [S, S] -> [GRID * GRID * ORIENTATION_BINS]: edge strength by place and direction."""
    dy, dx = np.gradient(luma)
    angle = np.mod(np.arctan2(dy, dx), np.pi)
    bins = np.minimum((angle * (ORIENTATION_BINS / np.pi)).astype(np.int64), ORIENTATION_BINS - 1)
    place = np.arange(len(luma)) * GRID // len(luma)
    cell = place[:, None] * GRID + place[None, :]
    index = (cell * ORIENTATION_BINS + bins).ravel()
    return np.bincount(index, np.hypot(dx, dy).ravel(), minlength=GRID * GRID * ORIENTATION_BINS)


def _motion(lumas: list[np.ndarray]) -> np.ndarray:
    """Lumas of the stills -> [GRID * GRID] mean absolute change per cell in [0, 1]; zeros for one still."""
    if len(lumas) < 2:
        return np.zeros(GRID * GRID)
    change = np.mean([np.abs(b - a) for a, b in pairwise(lumas)], axis=0) / 255.0
    step = len(change) // GRID
    return change.reshape(GRID, step, GRID, step).mean(axis=(1, 3)).ravel()


def semantic_embedding(stills: Stills) -> np.ndarray:
    """What a clip looks like, coarsely: float32 [SEMANTIC_DIM], of length 1.

    Colour (HSV histograms), edges (orientation histograms on a 4 x 4 grid) and motion (change between
    stills on the same grid), averaged over the stills. Square roots of the histograms (Hellinger), centred
    block by block, so that cosine is a correlation and unrelated clips lie near 0. It knows no objects:
    replace it with a video-text model where concepts matter. Raises as ``copy_embedding``.
    """
    import cv2

    check_stills(stills)
    size = (SEMANTIC_SIDE, SEMANTIC_SIDE)
    colour = np.mean([_colour(cv2.resize(s, size, interpolation=cv2.INTER_AREA)) for s in stills], axis=0)
    lumas = [_luma(s, SEMANTIC_SIDE) for s in stills]
    gradient = np.mean([_gradients(luma) for luma in lumas], axis=0)
    blocks = []
    for block, weight in ((colour, COLOUR_WEIGHT), (gradient, GRADIENT_WEIGHT)):
        root = np.sqrt(block)
        root -= root.mean()
        blocks.append(weight * root / max(np.sqrt((root * root).sum()), np.finfo(float).tiny))
    blocks.append(MOTION_WEIGHT * np.sqrt(_motion(lumas)) / GRID)
    return _unit(np.concatenate(blocks))


def _embed_all(clips: Sequence[Stills], embed, dim: int) -> np.ndarray:
    rows = np.full((len(clips), dim), np.nan, dtype=np.float32)
    for i, stills in enumerate(clips):
        if len(stills):
            rows[i] = embed(stills)
    return rows


class MeasuredCopyEmbedder:
    """Copy embeddings of many clips without a model; SSCD takes its place behind the same call."""

    name = "measured-edges-moments"
    dim = COPY_DIM

    def __call__(self, clips: Sequence[Stills]) -> np.ndarray:
        """A list of N clips' stills (BGR uint8) -> float32 [N, dim]; NaN rows for clips without stills."""
        return _embed_all(clips, copy_embedding, self.dim)


class MeasuredSemanticEmbedder:
    """Semantic embeddings of many clips without a model, named for what they are."""

    name = "measured-colour-gradient"
    dim = SEMANTIC_DIM

    def __call__(self, clips: Sequence[Stills]) -> np.ndarray:
        """A list of N clips' stills (BGR uint8) -> float32 [N, dim]; NaN rows for clips without stills."""
        return _embed_all(clips, semantic_embedding, self.dim)
