"""Points that are followed between small pictures a quarter of a second apart, and what their motion says of depth.

Codec vectors are what was cheap to code; to tell a pan from a truck takes a tenth of a pixel. The best corner of each
cell of the small luma is followed (Lucas and Kanade) a few times a second, whatever the codec, and each time leaves
some numbers: the similarity that fits the points, and how what is left over is spread.
"""

from __future__ import annotations

import cv2
import numpy as np

TICKS_PER_S = 4.0  # of two in a row the first is looked at, and its points are found again at the second
APART_MAX_S = 0.6  # frames further apart are not compared: the file has a gap
CELLS = (8, 5)  # along the longer and the shorter side: one point each
WINDOW, LEVELS = 11, 3  # pixels and halvings of the pyramid: a point may go 40 pixels of 160
LOST_ERROR = 18.0  # mean difference of grey levels beyond which a point is not the same any more
POINTS_MIN = 10  # fewer say nothing about a camera
SIDE_MIN = 32  # pixels: smaller pictures have no points to follow
RIM = 0.3  # share of the points' whole width or height from the centre, beyond which a point is at the rim
ENDS = (0.1, 0.9)  # shares between which a displacement is an ordinary one
EXPLAINED = 0.25  # of its motion a point may keep for the similarity to explain it
STILL = 0.004  # shares of the longer side per second below which a point stands
TERMS = ((cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT), 10, 0.03)

#: What one look leaves, per second and in shares of the longer side. shift, growth, turn: the similarity that fits;
#: speed: mean length; left: median left over; inside: share of points that it explains. What is left over, in mean:
#: along and across the points' mean motion, outward from the centre and around it. shear, stretch: the affine rest;
#: bend: growth of the rest with the square of the place; low, high: tenth and ninetieth hundredth; centre, rim: medians
#: of the middle and of the outer points; still, found: shares of points that stand, that were found again.
LOOK = (
    "shift_x", "shift_y", "growth", "turn", "speed", "left", "inside", "along", "across", "outward", "around",
    "shear_x", "shear_y", "stretch", "bend_x", "bend_y", "low_x", "low_y", "high_x", "high_y", "centre_x", "centre_y",
    "rim_x", "rim_y", "still", "found",
)  # fmt: skip


class Follower:
    """Follows points from the picture of every second tick to that of the next one."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._before_s = 0.0

    def add(self, luma: np.ndarray, time_s: float) -> np.ndarray | None:
        """The picture (uint8 [h, w]) of a tick: `follow` at every second one; None at the others and after a gap."""
        if not int(time_s * TICKS_PER_S + 1e-6) % 2:
            self._before, self._before_s = luma.copy(), time_s
            return None
        before, elapsed_s, self._before = self._before, time_s - self._before_s, None
        if before is None or not 0 < elapsed_s <= APART_MAX_S or before.shape != luma.shape:
            return None
        return follow(before, luma, elapsed_s)


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
        (median,) = _quantiles(left, known, 0.5)
        weight = known / (1 + (left / (1.5 * median[:, None] + 1e-4)) ** 2)
    one = known / known.sum(axis=1, keepdims=True)
    speed = (np.hypot(dx, dy) * one).sum(axis=1)
    mean_x, mean_y = (dx * one).sum(axis=1, keepdims=True), (dy * one).sum(axis=1, keepdims=True)
    length = np.hypot(mean_x, mean_y) + 1e-9
    ux, uy = mean_x / length, mean_y / length
    far = np.hypot(x, y) + 1e-6
    shear_x, shear_y, stretch = _slopes(x, y, dx, dy, weight)
    rim = np.zeros_like(known)
    for at in (x, y):
        rim |= known & (np.abs(at) > RIM * np.ptp(at, axis=1, keepdims=True))
    middle = known & ~rim
    low_x, high_x = _quantiles(dx, known, *ENDS)
    low_y, high_y = _quantiles(dy, known, *ENDS)

    def spread(values: np.ndarray) -> np.ndarray:
        return (np.abs(values) * one).sum(axis=1)

    def middle_of(which: np.ndarray) -> list[np.ndarray]:
        return [_quantiles(values, which, 0.5)[0] for values in (dx, dy)]

    return np.stack(
        [
            shift_x[:, 0], shift_y[:, 0], growth[:, 0], turn[:, 0], speed, median,
            (known & (left < EXPLAINED * np.hypot(dx, dy) + STILL / 2)).sum(1) / known.sum(1),
            spread(rx * ux + ry * uy), spread(rx * uy - ry * ux), spread((rx * x + ry * y) / far),
            spread((rx * y - ry * x) / far), shear_x, shear_y, stretch,
            *(_bend(v, r, weight) for v, r in ((x, rx), (y, ry))),
            low_x, low_y, high_x, high_y, *middle_of(middle), *middle_of(rim),
            (known & (np.hypot(dx, dy) < STILL)).sum(1) / known.sum(1), known.mean(1),
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

    def slope(at: np.ndarray, of: np.ndarray) -> np.ndarray:
        centred = at - (at * w).sum(axis=1, keepdims=True)
        return (centred * of * w).sum(axis=1) / ((centred**2 * w).sum(axis=1) + 1e-9)

    return slope(y, dx), slope(x, dy), slope(y, dy) - slope(x, dx)


def _bend(at, left, weight):
    """Coefficient of the square of a place in what is left over: the perspective of a turning camera."""
    w = weight / weight.sum(axis=1, keepdims=True)
    square = at * at - (at * at * w).sum(axis=1, keepdims=True)
    return (square * left * w).sum(axis=1) / ((square * square * w).sum(axis=1) + 1e-9)


def _quantiles(values: np.ndarray, which: np.ndarray, *shares: float) -> list[np.ndarray]:
    """Per row the value below which each of these shares of the values `which` lies; 0 where there is none."""
    ordered = np.sort(np.where(which, values, np.inf), axis=1)
    count = which.sum(axis=1)
    found = []
    for share in shares:
        place = np.rint(np.maximum(count - 1, 0) * share).astype(int)
        found.append(np.where(count > 0, ordered[np.arange(len(values)), place], 0.0))
    return found
