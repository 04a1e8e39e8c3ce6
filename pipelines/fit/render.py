"""Rendered scenes with depth: textured planes and boxes, seen by a camera whose path is known.

Every surface lies across one axis; each pixel's ray is met with all of them, the nearest wins. x points right, y down,
z forward, metres. The textures are real pictures, so that what is tracked in a scene is what is tracked in footage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

NEAR, FARTHEST = 0.05, 1e5  # metres: nothing nearer or farther is seen
TEXTURE_SIDE = 512  # pixels


@dataclass
class Surface:
    """A plane across `axis` (0 x, 1 y, 2 z) at `offset`, from low to high on the other two axes.

    texture: its number; metres: what one texture spans; round: an ellipse in place of a rectangle. velocity: metres per
    second, what moves on its own.
    """

    axis: int
    offset: float
    low: tuple[float, float]
    high: tuple[float, float]
    texture: int
    metres: float
    round: bool = False
    velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass
class Pose:
    """at: metres; yaw right, pitch up, roll: radians; half: half the longer side of the picture over its distance."""

    at: np.ndarray = field(default_factory=lambda: np.zeros(3))
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    half: float = 0.5


def textures(pictures: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Luma pictures, uint8, each with its halves: [full, half, quarter, eighth]."""
    found = []
    for picture in pictures:
        side = min(picture.shape[:2])
        square = cv2.resize(picture[:side, :side], (TEXTURE_SIDE, TEXTURE_SIDE), interpolation=cv2.INTER_AREA)
        levels = [square]
        for _ in range(3):
            levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        found.append(levels)
    return found


def rays(pose: Pose, size: tuple[int, int]) -> np.ndarray:
    """float32 [3, height, width]: where each pixel looks."""
    width, height = size
    scale = pose.half * 2 / max(width, height)
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * scale
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) * scale
    x, y = np.meshgrid(x, y)
    ahead = np.stack([x, y, np.ones_like(x)]).reshape(3, -1)
    cy, sy, cp, sp, cr, sr = (f(a) for a in (pose.yaw, pose.pitch, pose.roll) for f in (np.cos, np.sin))
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    return ((yaw @ pitch @ roll).astype(np.float32) @ ahead).reshape(3, height, width)


def render(surfaces: Sequence[Surface], worn: list[list[np.ndarray]], pose: Pose, time_s: float,
           size: tuple[int, int]) -> np.ndarray:  # fmt: skip
    """uint8 luma [height, width]."""
    look = rays(pose, size)
    depth = np.full(look.shape[1:], FARTHEST, np.float32)
    picture = np.full(look.shape[1:], 128, np.uint8)
    pixel = pose.half * 2 / max(size)
    for surface in surfaces:
        at = pose.at - np.array(surface.velocity) * time_s  # seen from what moves, the camera moves the other way
        a, b = (axis for axis in range(3) if axis != surface.axis)
        with np.errstate(divide="ignore", invalid="ignore"):
            far = np.float32(surface.offset - at[surface.axis]) / look[surface.axis]
        far = np.clip(np.nan_to_num(far), -FARTHEST, FARTHEST)
        u = np.float32(at[a]) + far * look[a]
        v = np.float32(at[b]) + far * look[b]
        seen = (far > NEAR) & (far < depth)
        if surface.round:
            mid, half = np.add(surface.low, surface.high) / 2, np.subtract(surface.high, surface.low) / 2
            seen &= ((u - mid[0]) / half[0]) ** 2 + ((v - mid[1]) / half[1]) ** 2 < 1
        else:
            seen &= (u > surface.low[0]) & (u < surface.high[0]) & (v > surface.low[1]) & (v < surface.high[1])
        if not seen.any():
            continue
        _paint(picture, seen, u, v, surface, worn, float(np.median(far[seen])) * pixel)
        depth[seen] = far[seen]
    return picture


def _paint(picture: np.ndarray, seen: np.ndarray, u: np.ndarray, v: np.ndarray, surface: Surface,
           worn: list[list[np.ndarray]], pixel_m: float) -> None:  # fmt: skip
    """The surface's texture where it is seen, from the level that has about one texel a pixel."""
    levels = worn[surface.texture % len(worn)]
    texels = pixel_m / surface.metres * TEXTURE_SIDE
    level = int(np.clip(np.floor(np.log2(max(texels, 1e-6)) + 0.5), 0, len(levels) - 1))
    side = levels[level].shape[0]
    rows = np.flatnonzero(seen.any(axis=1))
    columns = np.flatnonzero(seen.any(axis=0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    scale = np.float32(side / surface.metres)
    # Mirrored at every edge, so that a texture goes on for ever.
    x, y = (np.abs((at[part] * scale) % (2 * side) - side) * (side - 1) / side for at in (u, v))
    drawn = cv2.remap(levels[level], x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    inside = seen[part]
    picture[part][inside] = drawn[inside]
