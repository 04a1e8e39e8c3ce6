"""Rolls of tiny pictures that mixed_windows.py cuts its windows from: takes, photographs and textures under a camera.

Pictures are on the finder's grid of time, some twelve a second, so that a roll of LONG of them is twelve seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.accuracy.sources import photographs, takes

LONG = 150  # pictures of a roll
SIDES = 80, 45  # width and height of a tiny picture
TAKE_SIDES = 208, 117  # ... and of a take's frames, from which the camera takes its view
TAKE_FRAMES = 900  # of a take, at most
PHOTOGRAPH_SIDE = 480  # the shorter side of a photograph, at most
TICK_S = 0.08  # from picture to picture
FRAMES_APART = (1, 2, 2, 2, 2, 3, 4, 6)  # of a take's frames, from picture to picture: its speed
WHIPS, TAKES, PHOTOGRAPHS = 0.1, 0.66, 0.21  # shares of rolls; of what are no whips; the rest are textures
WHIPPED = (0.5, 0.2, 0.3)  # of whips: over photographs, textures and takes


@dataclass(frozen=True)
class Roll:
    """kind: take, photograph (also a texture) or whip. luma: uint8 [LONG, h, w]."""

    kind: str
    luma: np.ndarray


class Footage:
    """The takes of the fitting side by their source, uint8 [frames, h, w] each, and its photographs, uint8 [h, w]."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._takes: dict[str, list[np.ndarray]] = {}
        seen = set()
        for folder in folders or [None]:
            for take in takes(False, folder):
                if take.name not in seen:
                    seen.add(take.name)
                    frames = take.frames(*TAKE_SIDES)[:TAKE_FRAMES]
                    grey = np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])
                    self._takes.setdefault(take.source, []).append(grey)
        self._photographs = [_smaller(take.picture()) for take in photographs(False)]

    def roll(self, rng: np.random.Generator) -> Roll:
        if rng.random() < WHIPS:
            picture = (self._photograph, texture, self._first)[rng.choice(3, p=WHIPPED)](rng)
            return Roll("whip", whips(picture, rng))
        chance = rng.random()
        if chance < TAKES:
            frames = self._take(rng)
            places = rng.integers(2 * len(frames)) + rng.choice(FRAMES_APART) * np.arange(LONG)
            views = drift(rng)
            return Roll("take", np.stack([seen(frames[p], v) for p, v in zip(_to_and_fro(places, len(frames)), views)]))
        picture = self._photograph(rng) if chance < TAKES + PHOTOGRAPHS else texture(rng)
        return Roll("photograph", moved(picture, rng))

    def _take(self, rng: np.random.Generator) -> np.ndarray:
        sources = list(self._takes.values())
        of = sources[rng.integers(len(sources))]
        return of[rng.integers(len(of))]

    def _first(self, rng: np.random.Generator) -> np.ndarray:
        return self._take(rng)[0]

    def _photograph(self, rng: np.random.Generator) -> np.ndarray:
        return self._photographs[rng.integers(len(self._photographs))]


def _smaller(picture: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    scale = min(1.0, PHOTOGRAPH_SIDE / min(grey.shape))
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey


def _to_and_fro(places: np.ndarray, count: int) -> np.ndarray:
    lap = max(2 * (count - 1), 1)
    return np.minimum(places % lap, lap - places % lap)


def texture(rng: np.random.Generator) -> np.ndarray:
    """Noise, bricks, discs or stripes, uint8 [300, 480]."""
    rows, columns = 300, 480
    kind = rng.integers(4)
    y, x = np.mgrid[:rows, :columns]
    if kind == 0:
        across = np.hypot(np.fft.fftfreq(rows)[:, None] * rng.uniform(0.4, 2.5), np.fft.rfftfreq(columns)) + 0.002
        weight = across ** -rng.uniform(0.3, 1.8) * np.exp(-((across / rng.uniform(0.08, 0.5)) ** 2))
        drawn = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(rows, columns))) * weight, (rows, columns))
    elif kind == 1:
        wide, high = rng.integers(10, 60), rng.integers(8, 40)
        row = y // high
        shifted = x + (row % 2) * wide // 2
        tone = rng.normal(0, 1, (rows // high + 2, columns // wide + 3))
        drawn = tone[row, shifted // wide] + rng.normal(0, 0.4, (rows, columns))
        gap = max(1, int(high * 0.12))
        drawn[(y % high < gap) | (shifted % wide < gap)] = rng.uniform(-3, 3)
    elif kind == 2:
        drawn = np.zeros((rows, columns), np.float32)
        for _ in range(rng.integers(60, 400)):
            centre = int(rng.integers(columns)), int(rng.integers(rows))
            cv2.circle(drawn, centre, int(rng.uniform(2, 22)), float(rng.normal()), -1)
    else:
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 50)
        drawn = np.sign(np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period))
        drawn = drawn + 1.5 * cv2.GaussianBlur(rng.normal(size=(rows, columns)), (0, 0), 2)
    drawn = (drawn - drawn.mean()) / (drawn.std() + 1e-6) * rng.uniform(12, 50) + rng.uniform(60, 180)
    return np.clip(drawn, 0, 255).astype(np.uint8)


# --- cameras ---------------------------------------------------------------------------------------------------


def seen(picture: np.ndarray, view: Sequence[float], turn: float = 0.0) -> np.ndarray:
    """What a camera sees, uint8 [h, w]; view: (centre x, centre y, width) in shares of the picture."""
    rows, columns = picture.shape
    width, height = (2 * side for side in SIDES)
    scale = view[2] * columns / width
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    x, y = view[0] * columns, view[1] * rows
    matrix = np.array(
        [[cos, -sin, x - cos * width / 2 + sin * height / 2], [sin, cos, y - sin * width / 2 - cos * height / 2]]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    large = cv2.warpAffine(picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(large, SIDES, interpolation=cv2.INTER_AREA)


def drift(rng: np.random.Generator) -> np.ndarray:
    """Views [LONG, 3] of a camera that stands, or drifts slowly."""
    start = np.array([*rng.uniform(0.4, 0.6, 2), rng.uniform(0.45, 0.95)])
    end = start + np.array([*rng.uniform(-0.08, 0.08, 2), rng.uniform(-0.12, 0.12)]) * rng.choice([0, 1, 1, 2])
    return _held(start + (end - start) * np.linspace(0, 1, LONG)[:, None], rng)


def _held(views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """By a hand, now and then."""
    if rng.random() < 0.35:
        way = rng.normal(0, 1, (LONG, 2)).cumsum(axis=0)
        way -= np.linspace(0, 1, LONG)[:, None] * way[-1]
        views[:, :2] += way * np.exp(rng.uniform(np.log(0.0005), np.log(0.01)))
    if rng.random() < 0.08:
        views[:, :2] += rng.normal(0, rng.uniform(0.002, 0.02), (LONG, 2))
    return views


def moved(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera pans, zooms, sways or turns over a picture, which may bend: uint8 [LONG, h, w]."""
    times, kind = np.arange(LONG) * TICK_S, rng.integers(4)
    width = np.exp(rng.uniform(np.log(0.15), np.log(0.8)))
    views = np.repeat([[*rng.uniform(0.3, 0.7, 2), width]], LONG, axis=0)
    if kind in (0, 3):
        speed, angle = np.exp(rng.uniform(np.log(0.01), np.log(0.5))) * width, rng.uniform(0, 2 * np.pi)
        views[:, :2] += speed * times[:, None] * [np.cos(angle), np.sin(angle)]
    if kind in (1, 3):
        views[:, 2] *= np.exp(rng.choice([-1, 1]) * rng.uniform(0.02, 0.35) * times)
    if kind == 2:
        phase = 2 * np.pi * times / rng.uniform(3, 9) + rng.uniform(0, 6)
        views[:, 2] *= 1 + rng.uniform(0.1, 0.5) * np.sin(phase)
        views[:, 0] += rng.uniform(-0.1, 0.1) * np.sin(times)
    views[:, 2] = np.clip(views[:, 2], 0.06, 1.1)
    views[:, :2] = _within(views[:, :2])
    views = _held(views, rng)
    if rng.random() < 0.3:
        return bent(picture, views, rng)
    turns = np.zeros(LONG) if rng.random() < 0.7 else rng.uniform(-0.3, 0.3) * times
    return np.stack([seen(picture, view, turn) for view, turn in zip(views, turns, strict=True)])


def _within(places: np.ndarray) -> np.ndarray:
    """Places that turn back at the edges of the picture."""
    return np.abs((places + 1) % 2 - 1)


def bent(picture: np.ndarray, views: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What moves by itself: four waves run through the picture."""
    rows, columns = picture.shape
    width, height = (2 * side for side in SIDES)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [
        (rng.uniform(0.01, 0.06, 2), rng.uniform(0, 6), rng.uniform(0.3, 4), rng.normal(0, 3, 2)) for _ in range(4)
    ]
    shown = []
    for number, view in enumerate(views):
        scale = view[2] * columns / width
        at_x = view[0] * columns + (x - width / 2) * scale
        at_y = view[1] * rows + (y - height / 2) * scale
        for (along_x, along_y), phase, speed, (far_x, far_y) in waves:
            wave = np.sin(along_x * x + along_y * y + phase + speed * number * TICK_S).astype(np.float32)
            at_x, at_y = at_x + far_x * scale * wave, at_y + far_y * scale * wave
        large = cv2.remap(picture, at_x.astype(np.float32), at_y.astype(np.float32), cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REFLECT)  # fmt: skip
        shown.append(cv2.resize(large, SIDES, interpolation=cv2.INTER_AREA))
    return np.stack(shown)


def whips(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A camera that jerks away every second or two, within two to eight pictures, with or without motion blur."""
    width, place = rng.uniform(0.25, 0.6), rng.uniform(0.2, 0.8, 2)
    blurred, slow = rng.random() < 0.5, rng.normal(0, 0.002, 2)
    following, left, fast, shown = int(rng.integers(4, 30)), 0, slow, []
    for number in range(LONG):
        if left == 0 and number >= following:
            left = count = int(rng.integers(2, 9))
            far, angle = rng.uniform(0.3, 1.6) * width, rng.uniform(0, 2 * np.pi)
            fast = far / count * np.array([np.cos(angle), 0.6 * np.sin(angle)])
            following = number + count + int(rng.integers(8, 34))
        step, left = (fast, left - 1) if left else (slow, 0)
        parts = (0, 0.25, 0.5, 0.75) if blurred and step is fast else (0,)
        views = [seen(picture, (*_within(place + step * part), width)) for part in parts]
        shown.append(np.mean(views, axis=0).astype(np.uint8))
        place = place + step
    return np.stack(shown)
