"""The measured copy descriptor: one unit vector per clip, near for copies and far for other moments of a scene.

Each still, its borders taken off, becomes edge directions on an 8 x 8 grid: re-encoding, scaling and recolouring
leave them as they are. A projection fitted on augmented photographs (linear discriminants: `Projection`) keeps
what tells pictures apart and drops what crops and stamps change. A clip is then two blocks of one vector:

- looks: the mean over its stills, which finds the scene;
- moves: the covariance of the stills about that mean, which finds the moment. What stands still (a stamp, a crop,
  the room of a talk) drops out; stills that two clips share count, so a copy may begin a second later.

Both blocks add up views of the picture: the whole, four crops, each with a corner kept, and the mirror images of all.
So a mirrored copy has the same vector, and a cropped one shares views with the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from rushes.curation.signals import COPY_THRESHOLD as COPY_THRESHOLD

SIDE = 64  # px: luma is shrunk to a square of this side, so size and aspect of the encode drop out
GRID = 8  # cells a side
DIRECTIONS = 8  # of 45 degrees, signed: dark-to-bright differs from bright-to-dark
FEATURES = DIRECTIONS * GRID * GRID
CROPPED = 71  # px: of a picture of this side each corner's SIDE x SIDE is a crop of a tenth
BLUR_PX = 1.0  # of the 64 px copy, before the gradient: the blocks of a poor encode are gone
CELL_BLUR = 1 / 2.5  # of a cell: an edge near a cell's border counts in both, so a small shift changes little
NEIGHBOURHOOD = 1.5  # cells (sigma) over which edge strength is compared: contrast drops out
STRENGTH_FLOOR = 2.0  # edge strength (grey levels per px) below which a cell is taken for flat
MEAN_SHARE = 0.3  # of the picture's mean strength, added to the neighbourhood's
LOOKS_DIM, MOVES_SIDE = 46, 20
MOVES_DIM = MOVES_SIDE * (MOVES_SIDE + 1) // 2
COPY_DIM = LOOKS_DIM + MOVES_DIM  # 256
LOOKS_WEIGHT = 0.3  # squared length of the looks in a clip that moves: two shots of one static take share all of it
STEP_HALF = 0.05  # a still this far from the clip's mean (unit vectors) counts half: below lies encoder noise
MOVES_HALF = 0.1  # the same for a clip's covariance as a whole: one that hardly moves is known by its looks
FLAT_STD = 1.0  # grey levels: below it, in every still, there is no picture to recognise
BORDER_RANGE = 12.0  # grey levels, over a whole line and all stills: such a line is border
BORDER_LEAST, BORDER_MOST = 0.02, 0.45  # of a side: thinner ones are no borders, at most so much comes off
OUTLIERS = 0.02  # of a line's pixels may differ, for the noise of the encode

WEIGHTS = Path(__file__).parent / "copies.npz"

Stills = Sequence[np.ndarray]


@dataclass(frozen=True)
class Projection:
    """Features [N, FEATURES] -> looks [N, LOOKS_DIM] and moves [N, MOVES_SIDE], both with rows of length 1."""

    mean: np.ndarray
    looks: np.ndarray
    moves: np.ndarray

    def __call__(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        centred = features - self.mean
        return _unit_rows(centred @ self.looks), _unit_rows(centred @ self.moves)


@cache
def projection() -> Projection:
    """The one inside the package, fitted by `python -m tests.bench.copies fit`."""
    with np.load(WEIGHTS) as data:
        return Projection(*(data[name].astype(np.float64) for name in ("mean", "looks", "moves")))


def copy_embedding(stills: Stills) -> np.ndarray:
    """float32 [COPY_DIM] of length 1; zeros for a clip without a picture in it (flat colour throughout).

    stills: 1 to 16 BGR uint8 [H, W, 3], in order of time, evenly spaced. A single still has looks only.
    Raises ValueError where there is no still or a still is not uint8 [H, W, 3].
    """
    check_stills(stills)
    grays = [cv2.cvtColor(still, cv2.COLOR_BGR2GRAY) for still in without_borders(stills)]
    lumas = [square(gray, SIDE) for gray in grays]
    if max(luma.std() for luma in lumas) < FLAT_STD:
        return np.zeros(COPY_DIM, dtype=np.float32)
    plain = np.stack([[edge_directions(luma), *_cropped(gray)] for luma, gray in zip(lumas, grays, strict=True)])
    looks, moves = np.zeros(LOOKS_DIM), np.zeros(MOVES_DIM)
    for views in (plain, mirrored(plain)):
        scenes, moments = projection()(views.reshape(-1, FEATURES))
        looks += scenes.reshape(*views.shape[:2], -1).mean(axis=0).sum(axis=0)
        moves += sum(_covariance(moment) for moment in moments.reshape(*views.shape[:2], -1).swapaxes(0, 1))
    looks *= np.sqrt(LOOKS_WEIGHT) / max(np.linalg.norm(looks), np.finfo(float).tiny)
    moves *= np.sqrt(1.0 - LOOKS_WEIGHT) / (np.linalg.norm(moves) + MOVES_HALF)
    return _unit_rows(np.concatenate([looks, moves])[None])[0].astype(np.float32)


def edge_directions(luma: np.ndarray) -> np.ndarray:
    """Luma float32 [SIDE, SIDE] -> root strength of edges, float64 [DIRECTIONS, GRID, GRID], contrast taken out."""
    return _cells(_edges_by_direction(luma))


def _cropped(gray: np.ndarray) -> list[np.ndarray]:
    """`edge_directions` of the four crops."""
    edges, places = _edges_by_direction(square(gray, CROPPED)), (slice(0, SIDE), slice(CROPPED - SIDE, CROPPED))
    return [_cells(edges[:, rows, columns]) for rows in places for columns in places]


def _edges_by_direction(luma: np.ndarray) -> np.ndarray:
    """Strength of edges, float32 [DIRECTIONS, side, side], blurred as cells want it."""
    smooth = cv2.GaussianBlur(luma, (0, 0), BLUR_PX)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    turn = np.mod(np.arctan2(dy, dx) * (DIRECTIONS / (2 * np.pi)), DIRECTIONS)
    away = np.abs(turn[None] - np.arange(DIRECTIONS)[:, None, None])
    share = np.maximum(0.0, 1.0 - np.minimum(away, DIRECTIONS - away)).astype(np.float32) * strength
    blur = SIDE / GRID * CELL_BLUR
    return np.stack([cv2.GaussianBlur(one, (0, 0), blur) for one in share])


def _cells(edges: np.ndarray) -> np.ndarray:
    """Edges [DIRECTIONS, SIDE, SIDE] by cells, contrast taken out: float64 [DIRECTIONS, GRID, GRID]."""
    cells = edges.reshape(DIRECTIONS, GRID, SIDE // GRID, GRID, SIDE // GRID).mean(axis=(2, 4))
    energy = np.sqrt((cells**2).sum(axis=0))
    around = cv2.GaussianBlur(energy, (0, 0), NEIGHBOURHOOD)
    return np.sqrt(cells / (around + MEAN_SHARE * energy.mean() + STRENGTH_FLOOR)).astype(np.float64)


def mirrored(cells: np.ndarray) -> np.ndarray:
    """`edge_directions` [..., DIRECTIONS, GRID, GRID] of the mirrored picture: the direction t becomes pi - t."""
    order = (DIRECTIONS // 2 - np.arange(DIRECTIONS)) % DIRECTIONS
    return cells[..., order, :, ::-1]


def without_borders(stills: Stills) -> list[np.ndarray]:
    """The stills without the lines at their edges that hold one colour over their length and over all stills.

    Stills of different sizes come back as they are.
    """
    if len({still.shape for still in stills}) > 1:
        return list(stills)
    lumas = np.stack([cv2.cvtColor(still, cv2.COLOR_BGR2GRAY) for still in stills])
    most, least = lumas.max(axis=0), lumas.min(axis=0)
    height, width = most.shape
    top, bottom = _edges(_flat_lines(most, least))
    left, right = _edges(_flat_lines(most.T, least.T))
    return [still[top : height - bottom, left : width - right] for still in stills]


def _flat_lines(most: np.ndarray, least: np.ndarray) -> np.ndarray:
    place = int(OUTLIERS * (most.shape[1] - 1))
    high = np.partition(most, most.shape[1] - 1 - place, axis=1)[:, -1 - place].astype(float)
    low = np.partition(least, place, axis=1)[:, place].astype(float)
    return high - low < BORDER_RANGE


def _edges(flat: np.ndarray) -> tuple[int, int]:
    """Lines to take off at the start and at the end; none where hardly any picture would be left."""
    most = int(BORDER_MOST * len(flat))
    before, after = (int(np.argmin(line[:most])) if not line[:most].all() else most for line in (flat, flat[::-1]))
    if before + after > 2 * most - 2 or max(before, after) < BORDER_LEAST * len(flat):
        return 0, 0
    # the line next to a border is a blend of both
    return before + (before > 0), after + (after > 0)


def square(gray: np.ndarray, side: int) -> np.ndarray:
    """Luma uint8 [H, W] -> float32 [side, side]."""
    return cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)


def _covariance(rows: np.ndarray) -> np.ndarray:
    """[n, k] -> [k (k + 1) / 2]: covariance of the rows, each step's length softly set to 1, as a flat vector."""
    steps = rows - rows.mean(axis=0)
    steps = steps / (np.linalg.norm(steps, axis=1, keepdims=True) + STEP_HALF)
    i, j = np.triu_indices(rows.shape[1])
    return (steps.T @ steps / len(rows))[i, j] * np.where(i == j, 1.0, np.sqrt(2.0))


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)


def check_stills(stills: Stills) -> None:
    """Raises ValueError where there is no still or one is not uint8 [H, W, 3]."""
    if len(stills) == 0:
        raise ValueError("a clip needs at least one still to be embedded, got none")
    for i, still in enumerate(stills):
        if still.dtype != np.uint8 or still.ndim != 3 or still.shape[2] != 3 or 0 in still.shape:
            raise ValueError(f"still {i} must be uint8 [H, W, 3] BGR, got {still.dtype} {list(still.shape)}")


def fit(plain: np.ndarray, changed: np.ndarray, ridge: float = 0.05) -> Projection:
    """Linear discriminants: directions with much variance between pictures for what augmentations do to one.

    plain: [N, FEATURES] of N pictures; changed: [N, A, FEATURES] of A augmentations of each.
    """
    from scipy.linalg import eigh

    mean = plain.mean(axis=0)
    between = _ridged(np.cov((plain - mean).T), ridge)
    differences = (changed - plain[:, None]).reshape(-1, plain.shape[1])
    within = _ridged(differences.T @ differences / len(differences), ridge)
    values, vectors = eigh(between, within)
    order = np.argsort(-values)[: max(LOOKS_DIM, MOVES_SIDE)]
    values, vectors = values[order], vectors[:, order]
    # looks half whitened, moves wholly: the coarse directions say which scene, all of them which moment
    looks = vectors[:, :LOOKS_DIM] * values[:LOOKS_DIM] ** -0.25
    return Projection(mean, looks, vectors[:, :MOVES_SIDE] * values[:MOVES_SIDE] ** -0.5)


def _ridged(matrix: np.ndarray, ridge: float) -> np.ndarray:
    return matrix + ridge * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
