"""Camera motion of a clip: one of Movie Gen's sixteen classes (app B.2), with a confidence.

Parallax tells a push from a zoom, a truck from a pan, a pedestal from a tilt: near things move further than far ones.
Points are followed a few times a second (motion/points.py); a forest (camera.npz) was taught on rendered scenes with
depth and known camera paths: `rushes fit camera-motion` makes it again. The confidence is calibrated there, so that 0.9
is right nine times in ten on scenes that it has not seen.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rushes.curation import forest
from rushes.curation.meter import Span, Unmeasured
from rushes.curation.motion import points
from rushes.curation.motion.points import LOOK, TICKS_PER_S
from rushes.curation.recipe import Recipe
from rushes.curation.video.batch import Batch
from rushes.curation.video.frame import StreamInfo

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

MODEL = Path(__file__).with_name("camera.npz")
#: B.2's sixteen words (moviegen's list), in the order of the model's answers.
CLASSES = (
    "zoom in", "zoom out", "push in", "pull out", "pan right", "pan left", "truck right", "truck left", "tilt up",
    "tilt down", "pedestal up", "pedestal down", "arc shot", "tracking shot", "static shot", "handheld shot",
)  # fmt: skip
COLUMNS = ("camera_motion", "camera_motion_conf")
LOOKS_MIN = 3  # of a clip: fewer say nothing
SIGNED = (
    "shift_x", "shift_y", "growth", "turn", "shear_x", "shear_y", "stretch", "bend_x", "bend_y", "low_x", "low_y",
    "high_x", "high_y", "centre_x", "centre_y", "rim_x", "rim_y",
)  # fmt: skip
LEFT = ("left", "along", "across", "outward", "around")
SHARES = ("inside", "still", "found")
STEADY = ("shift_x", "shift_y", "growth", "turn")
FLOOR = 0.002  # shares of the longer side per second, added to a speed before it divides


class CameraMeter:
    """looks: what followed points say (points.LOOK), per second, of some frames a second; else NaN."""

    tracks = (pa.field("looks", pa.list_(pa.float32(), len(LOOK))),)

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        self._info, self._measurable = info, recipe.motion.fps_measurable
        self._follower = points.Follower()

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        found = np.full((len(batch), len(LOOK)), np.nan, np.float32)
        if self._info.fps >= self._measurable and min(batch.luma.shape[1:]) >= points.SIDE_MIN:
            places = np.flatnonzero(batch.ticks(TICKS_PER_S))
            followed = [self._follower.add(batch.luma[place], batch.time_s[place]) for place in places]
            known = [number for number, one in enumerate(followed) if one is not None]
            if known:
                found[places[known]] = points.looks(np.stack([followed[number] for number in known]))
        return {"looks": found}

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        if self._info.fps < self._measurable:
            reason = f"at {self._info.fps:g} frames per second frames are too far apart in time to measure motion"
            return dict.fromkeys(COLUMNS, Unmeasured(reason))
        word, confidence = camera_motion(tracks["looks"][span.first : span.stop])
        unknown = Unmeasured("too little of the picture can be followed")
        return {"camera_motion": word or unknown, "camera_motion_conf": unknown if word is None else confidence}


def camera_motion(looks: np.ndarray) -> tuple[str | None, float]:
    """(class, confidence 0-1) of looks [n, LOOK], NaN rows passed over; (None, 0.0) where there are too few."""
    looks = looks[np.isfinite(looks[:, 0])]
    if len(looks) < LOOKS_MIN:
        return None, 0.0
    model, curve = _model()
    share = model(features(looks)[None])[0]
    best = int(share.argmax())
    return CLASSES[best], float(np.interp(share[best], curve[0], curve[1]))


@cache
def _model() -> tuple[forest.Forest, np.ndarray]:
    """The forest, and how often it is right [2, n]: at these shares of the votes, so often."""
    model, rest = forest.load(MODEL)
    return model, rest["curve"]


def features(looks: np.ndarray) -> np.ndarray:
    """float32 [features] of finite looks [n, LOOK]: how a clip moves, mostly in shares of its speed."""
    columns = {name: looks[:, place].astype(np.float64) for place, name in enumerate(LOOK)}
    mean = {name: float(values.mean()) for name, values in columns.items()}
    median = {name: float(np.median(values)) for name, values in columns.items()}
    base = mean["speed"] + FLOOR
    found = [np.log(base), *(mean[name] / base for name in SIGNED + LEFT), *(mean[name] for name in SHARES)]
    found += [median[name] / base for name in STEADY + LEFT]
    found += [median[name] / (median["speed"] + FLOOR) for name in ("left", "across", "along")]
    for name in STEADY:
        values = columns[name]
        change = float(np.diff(values).std())
        found += [abs(mean[name]) / (np.abs(values).mean() + FLOOR / 2), change / base, np.log(change + FLOOR / 20)]
        found += [values.max() / base, values.min() / base]
    centre, rim = (float(np.hypot(mean[f"{part}_x"], mean[f"{part}_y"])) for part in ("centre", "rim"))
    found += [centre / (rim + 1.5 * FLOOR), np.log(centre + FLOOR / 2), np.log(rim + FLOOR / 2)]
    found += [np.log(median["left"] + FLOOR / 20), np.log((columns["speed"].max() + FLOOR / 2) / base)]
    return np.array(found, np.float32)
