"""Camera motion of a clip from its frames' fitted steps: a few of Movie Gen's sixteen classes, with a confidence.

Pan and truck, tilt and pedestal, zoom and push differ by parallax, which vectors of one clip do not tell safely:
the class named is the rotation or the lens (pan, tilt, zoom), as a person would say without knowing the rig.
"""

from __future__ import annotations

import numpy as np

from rushes.curation.motion.vectors import CAMERA

#: B.2's sixteen words (moviegen's list), in the order of the model's answers.
CLASSES = (
    "zoom in", "zoom out", "push in", "pull out", "pan right", "pan left", "truck right", "truck left", "tilt up",
    "tilt down", "pedestal up", "pedestal down", "arc shot", "tracking shot", "static shot", "handheld shot",
)  # fmt: skip

STILL_SHIFT = 0.0004  # mean shift per frame below which the camera stands, shares of the longer side
STEADY_SHIFT = 0.0012  # shift per frame from which a pan or tilt is one
STEADY_GROWTH = 0.0015  # growth per frame from which a zoom is one
EXPLAINED_MIN = 0.4  # share of the displacements that the camera must account for


def camera_motion(steps: np.ndarray) -> tuple[str | None, float]:
    """(class, confidence 0-1) of fitted steps [n, CAMERA]; (None, 0.0) where no class fits.

    Classes: static shot, pan left/right, tilt up/down, zoom in/out, handheld shot (B.2's words).
    The confidence is the share of frames that agree with the class.
    """
    if not len(steps):
        return None, 0.0
    shift_x, shift_y, growth, explained = (
        steps[:, CAMERA.index(name)] for name in ("shift_x", "shift_y", "growth", "explained")
    )
    speed = np.hypot(shift_x, shift_y)
    still = (speed < STILL_SHIFT) & (np.abs(growth) < STEADY_GROWTH)
    if still.mean() >= 0.7:
        return "static shot", float(still.mean())
    zooming = np.abs(growth) >= STEADY_GROWTH
    # At the picture's edge a growth g moves the scene by g / 2 of the longer side: what moves more gives the name.
    lead = {
        "zoom in": zooming & (growth > 0) & (growth / 2 > speed),
        "zoom out": zooming & (growth < 0) & (-growth / 2 > speed),
        "pan right": (shift_x <= -STEADY_SHIFT) & (np.abs(shift_x) > 1.5 * np.abs(shift_y)),
        "pan left": (shift_x >= STEADY_SHIFT) & (np.abs(shift_x) > 1.5 * np.abs(shift_y)),
        "tilt down": (shift_y <= -STEADY_SHIFT) & (np.abs(shift_y) > 1.5 * np.abs(shift_x)),
        "tilt up": (shift_y >= STEADY_SHIFT) & (np.abs(shift_y) > 1.5 * np.abs(shift_x)),
    }
    shares = {name: float((mask & (explained >= EXPLAINED_MIN)).mean()) for name, mask in lead.items()}
    best = max(shares, key=lambda name: shares[name])
    if shares[best] >= 0.5:
        return best, shares[best]
    moving = speed >= STILL_SHIFT
    turns = float((np.sign(shift_x[1:]) != np.sign(shift_x[:-1])).mean()) if len(shift_x) > 2 else 0.0
    if moving.mean() >= 0.6 and turns >= 0.3 and float(np.median(explained)) >= EXPLAINED_MIN:
        return "handheld shot", float(moving.mean() * min(1.0, 2 * turns))
    return None, 0.0
