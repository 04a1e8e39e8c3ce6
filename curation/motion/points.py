"""Points that are followed between small pictures a quarter of a second apart, and what their motion says of depth.

Codec vectors are what was cheap to code; to tell a pan from a truck takes a tenth of a pixel. The best corner of each
cell of the small luma is followed (Lucas and Kanade) a few times a second, whatever the codec, and each time leaves
some numbers: the similarity that fits the points, and how what is left over is spread.
"""

from __future__ import annotations

import cv2
import numpy as np

CELLS = (8, 5)  # along the longer and the shorter side: one point each
WINDOW, LEVELS = 11, 3  # pixels and halvings of the pyramid: a point may go 40 pixels of 160
LOST_ERROR = 18.0  # mean difference of grey levels beyond which a point is not the same any more
POINTS_MIN = 10  # fewer say nothing about a camera
SIDE_MIN = 32  # pixels: smaller pictures have no points to follow
TERMS = ((cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT), 10, 0.03)

#: What one look leaves, per second and in shares of the longer side. shift, growth, turn: the similarity that fits;
#: speed: mean length; left: median left over. The rest: see `spread`.
LOOK = (
    "shift_x", "shift_y", "growth", "turn", "speed", "left", "inside", "along", "across", "outward", "around",
    "shear_x", "shear_y", "stretch", "bend_x", "bend_y", "low_x", "low_y", "high_x", "high_y", "centre_x", "centre_y",
    "rim_x", "rim_y", "still", "found",
)  # fmt: skip


def corners(luma: np.ndarray) -> np.ndarray:
    """float32 [points, 1, 2]: the best corner of each cell, pixels."""
    height, width = luma.shape
    columns, rows = CELLS if width >= height else CELLS[::-1]
    high, wide = height // rows, width // columns
    worth = cv2.cornerMinEigenVal(luma, 3)[: rows * high, : columns * wide]
    edge = 3  # pixels of a cell's rim, where a corner may be half in the next one
    cells = worth.reshape(rows, high, columns, wide).transpose(0, 2, 1, 3)[:, :, edge:-edge, edge:-edge]
    best = cells.reshape(rows * columns, -1).argmax(axis=1)
    y, x = np.divmod(best, wide - 2 * edge)
    row, column = np.divmod(np.arange(rows * columns), columns)
    return np.stack([column * wide + x + edge, row * high + y + edge], 1).astype(np.float32)[:, None]


def follow(before: np.ndarray, now: np.ndarray, elapsed_s: float) -> np.ndarray:
    """float32 [points, 4]: x, y from the centre and dx, dy per second, shares of the longer side; NaN where lost."""
    start = corners(before)
    end, found, error = cv2.calcOpticalFlowPyrLK(
        before, now, start, None, winSize=(WINDOW, WINDOW), maxLevel=LEVELS, criteria=TERMS
    )
    height, width = before.shape
    side = max(height, width)
    at = (start[:, 0] - np.float32([(width - 1) / 2, (height - 1) / 2])) / side
    by = (end[:, 0] - start[:, 0]) / (side * elapsed_s)
    points = np.concatenate([at, by], axis=1).astype(np.float32)
    points[(found[:, 0] == 0) | (error[:, 0] > LOST_ERROR)] = np.nan
    return points


def looks(points: np.ndarray) -> np.ndarray:
    """float32 [looks, LOOK] of points [looks, points, 4]; NaN where too few were found."""
    known = np.isfinite(points[..., 2])
    enough = known.sum(axis=1) >= POINTS_MIN
    result = np.full((len(points), len(LOOK)), np.nan, np.float32)
    if enough.any():
        result[enough] = _looks(np.where(known[..., None], points, 0)[enough].astype(np.float64), known[enough])
    return result


def _looks(points: np.ndarray, known: np.ndarray) -> np.ndarray:
    x, y, dx, dy = np.moveaxis(points, -1, 0)
    weight = known.astype(float)
    for _ in range(4):  # iteratively re-weighted: what the similarity does not explain counts less
        shift_x, shift_y, growth, turn = _similarity(x, y, dx, dy, weight)
        rx = dx - (shift_x + growth * x - turn * y)
        ry = dy - (shift_y + turn * x + growth * y)
        left = np.hypot(rx, ry)
        median = _median(left, known)
        weight = known / (1 + (left / (1.5 * median + 1e-4)) ** 2)
    one = known / known.sum(axis=1, keepdims=True)
    speed = (np.hypot(dx, dy) * one).sum(axis=1)
    mean_x, mean_y = (dx * one).sum(axis=1, keepdims=True), (dy * one).sum(axis=1, keepdims=True)
    length = np.hypot(mean_x, mean_y) + 1e-9
    ux, uy = mean_x / length, mean_y / length
    far = np.hypot(x, y) + 1e-6
    spread = lambda v: (np.abs(v) * one).sum(axis=1)  # noqa: E731
    shear_x, shear_y, stretch = _slopes(x, y, dx, dy, weight)
    rim = known & ((np.abs(x) > 0.3 * np.ptp(x, axis=1, keepdims=True)) | (np.abs(y) > 0.3 * np.ptp(y, axis=1, keepdims=True)))
    middle = known & ~rim
    return np.stack(
        [
            shift_x[:, 0], shift_y[:, 0], growth[:, 0], turn[:, 0], speed, median[:, 0],
            (known & (left < 0.25 * np.hypot(dx, dy) + 0.002)).sum(1) / known.sum(1),
            spread(rx * ux + ry * uy), spread(rx * uy - ry * ux), spread((rx * x + ry * y) / far),
            spread((rx * y - ry * x) / far), shear_x, shear_y, stretch,
            *(_bend(v, r, weight) for v, r in ((x, rx), (y, ry))),
            *_quantiles(dx, dy, known), *_medians(dx, dy, middle), *_medians(dx, dy, rim),
            (known & (np.hypot(dx, dy) < 0.004)).sum(1) / known.sum(1), known.mean(1),
        ],
        axis=1,
    )  # fmt: skip


def _similarity(x, y, dx, dy, weight):
    """[looks, 1] each: shift_x, shift_y, growth, turn by weighted least squares."""
    w = weight / weight.sum(axis=1, keepdims=True)
    mx, my, mdx, mdy = ((v * w).sum(axis=1, keepdims=True) for v in (x, y, dx, dy))
    cx, cy, cdx, cdy = x - mx, y - my, dx - mdx, dy - mdy
    size = ((cx * cx + cy * cy) * w).sum(axis=1, keepdims=True) + 1e-9
    growth = ((cx * cdx + cy * cdy) * w).sum(axis=1, keepdims=True) / size
    turn = ((cx * cdy - cy * cdx) * w).sum(axis=1, keepdims=True) / size
    return mdx - (growth * mx - turn * my), mdy - (turn * mx + growth * my), growth, turn


def _slopes(x, y, dx, dy, weight):
    """How dx grows downwards, dy to the right, and by how much dy grows downwards more than dx to the right."""
    w = weight / weight.sum(axis=1, keepdims=True)
    slope = lambda a, b: ((a - (a * w).sum(1, keepdims=True)) * b * w).sum(1) / (  # noqa: E731
        ((a - (a * w).sum(1, keepdims=True)) ** 2 * w).sum(1) + 1e-9
    )
    return slope(y, dx), slope(x, dy), slope(y, dy) - slope(x, dx)


def _bend(at, left, weight):
    """Coefficient of the square of a place in what is left over: the perspective of a turning camera."""
    w = weight / weight.sum(axis=1, keepdims=True)
    square = at * at - (at * at * w).sum(axis=1, keepdims=True)
    return (square * left * w).sum(axis=1) / ((square * square * w).sum(axis=1) + 1e-9)


def _median(values, known):
    return np.nanmedian(np.where(known, values, np.nan), axis=1, keepdims=True)


def _medians(dx, dy, which):
    """Medians of dx and dy where `which`; 0 where that is nowhere."""
    some = which.any(axis=1)
    found = []
    for values in (dx, dy):
        masked = np.where(which, values, np.nan)
        masked[~some] = 0
        found.append(np.nanmedian(masked, axis=1))
    return found


def _quantiles(dx, dy, known):
    """Tenth and ninetieth hundredth of dx and dy: low_x, low_y, high_x, high_y."""
    return [np.nanquantile(np.where(known, values, np.nan), q, axis=1) for q in (0.1, 0.9) for values in (dx, dy)]
