"""Two measured embeddings of a clip's stills: one to find copies, one to group concepts.

Both need no model and no download. They answer in the shape of the models that replace them: SSCD for
copies (Movie Gen 3.2.1), a video-text model for concepts; only ``name``, ``dim`` and the thresholds differ.

A row that cannot be measured is not a direction: a clip without stills is a row of NaN, a clip without a
picture in it (all black, one flat colour) is a row of zeros in the copy embedding. ``find_duplicates`` calls
neither a duplicate of anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rushes.curation import signals

# --- copy embedding --------------------------------------------------------------------------------------
COPY_SIDE = 32  # px: luma is shrunk to a square of this side, so size and aspect of the encode drop out
COPY_BAND = 12  # DCT frequencies with 0 < hypot(u, v) < 12: above, a 5 % crop turns the phase by a radian
COPY_FLATTEN = 0.5  # coefficients times frequency**0.5: half way from natural images' 1/f to a white spectrum
COPY_POSITIONS = 8  # the stills are resampled to this many instants, so the length of the vector is fixed
COPY_CHANGE_GAIN = 4.0  # what changes over the clip counts four times what stays: two windows of one static
# talk share all that stays. At gain 1 the closest distinct windows reach cosine 0.98, at gain 4 0.88.
COPY_FLAT_ENERGY = 0.35  # grey levels, RMS within the band: below it there is no picture to recognise

COPY_THRESHOLD = signals.COPY_THRESHOLD
"""Default of ``content.copy_threshold`` for this embedding (SSCD's is 0.99, Movie Gen B.1).

Measured on 51 windows of 4 and 12 s of 11 files, single shots and static talks among them: re-encodes at
crf 35, at half size, brighter by 8 levels or with a gamma of 1.15 reach at least 0.99, crops of 5 % at least
0.906; windows of one take that do not overlap reach at most 0.882, clips of different footage 0.21. Two
kinds of copies escape: with stills 3 frames later (one in four; fast motion is not the same picture after
1/8 s), and a bright logo over a nearly black clip (2 of 51). A clip of a single still has no change to tell
it by: there, two moments of one static take are copies.
"""

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


def _band() -> tuple[np.ndarray, np.ndarray]:
    """Mask [BAND, BAND] of the DCT coefficients used, and their weight [K]."""
    u, v = np.meshgrid(np.arange(COPY_BAND), np.arange(COPY_BAND), indexing="ij")
    frequency = np.hypot(u, v)
    mask = (frequency > 0) & (frequency < COPY_BAND)
    return mask, frequency[mask] ** COPY_FLATTEN


COPY_DIM = COPY_POSITIONS * int(_band()[0].sum())


def _check(stills: Stills) -> None:
    if len(stills) == 0:
        raise ValueError("a clip needs at least one still to be embedded, got none")
    for i, still in enumerate(stills):
        if still.dtype != np.uint8 or still.ndim != 3 or still.shape[2] != 3 or 0 in still.shape:
            raise ValueError(f"still {i} must be uint8 [H, W, 3] BGR, got {still.dtype} {list(still.shape)}")


def _luma(still: np.ndarray, side: int) -> np.ndarray:
    import cv2

    gray = cv2.cvtColor(still, cv2.COLOR_BGR2GRAY)
    return cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64)


def _at_positions(rows: np.ndarray, positions: int) -> np.ndarray:
    """Rows [n, K] at the centres of n equal parts of a clip -> [positions, K], linear between centres."""
    n = len(rows)
    if n == 1:
        return np.repeat(rows, positions, axis=0)
    at = np.clip((np.arange(positions) + 0.5) / positions * n - 0.5, 0, n - 1)
    left = np.minimum(at.astype(np.int64), n - 2)
    weight = (at - left)[:, None]
    return rows[left] * (1 - weight) + rows[left + 1] * weight


def copy_embedding(stills: Stills) -> np.ndarray:
    """Fingerprint of a clip that survives a re-encode: float32 [COPY_DIM], of length 1.

    ``stills``: 1 to 16 BGR uint8 [H, W, 3], evenly spaced over the clip (one per second). Luma of each is
    shrunk to 32 x 32; the low DCT frequencies without the mean are flattened by their frequency, resampled
    to 8 instants, and the change over time is amplified: ``mean + 4 (value - mean)``. Gain, contrast and
    brightness drop out of the cosine, and two clips are compared instant by instant.

    A clip without a picture in it (flat colour throughout) gives zeros. Raises ValueError where there is no
    still or a still is not uint8 [H, W, 3].
    """
    from scipy.fft import dctn

    _check(stills)
    mask, weight = _band()
    rows = np.stack([dctn(_luma(s, COPY_SIDE), norm="ortho")[:COPY_BAND, :COPY_BAND][mask] for s in stills])
    rows /= COPY_SIDE  # orthonormal DCT: the squares now sum to the variance of the picture, in grey levels
    if np.sqrt((rows**2).sum(axis=1).mean()) < COPY_FLAT_ENERGY:
        return np.zeros(COPY_DIM, dtype=np.float32)
    instants = _at_positions(rows * weight, COPY_POSITIONS)
    mean = instants.mean(axis=0)
    return _unit((mean + COPY_CHANGE_GAIN * (instants - mean)).ravel())


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

    _check(stills)
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

    name = "phash-multiframe"
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
