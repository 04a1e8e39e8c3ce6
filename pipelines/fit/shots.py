"""Camera moves of the sixteen classes through rendered scenes, and the pictures that a clip of each shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rushes.pipelines.fit.render import Pose, Surface, render

SIZES = ((320, 180), (320, 180), (320, 180), (320, 240), (180, 320), (320, 136))
SPEEDS = 0.015, 0.35  # shares of the longer side per second by which the picture's content moves
SHAKE = 0.15  # share of a move's speed by which its camera trembles, at most


@dataclass
class Shot:
    """word: its class. pose(t): the camera at t seconds. subject: how far the one that is followed is, metres."""

    word: str
    surfaces: list[Surface]
    pose: Callable[[float], Pose]
    size: tuple[int, int]
    seconds: float
    gain: float
    noise: float


def draw(word: str, rng: np.random.Generator, seconds: float | None = None) -> Shot:
    """A shot of this class in a scene that is drawn."""
    seconds = float(rng.uniform(3.0, 6.0)) if seconds is None else seconds
    size = SIZES[int(rng.integers(len(SIZES)))]
    flat = word in FLAT_TOO and rng.random() < 0.25
    half = float(np.tan(np.radians(rng.uniform(8, 20) if flat else rng.uniform(16, 38))))
    near = float(np.exp(rng.uniform(np.log(2.0), np.log(6.0))))  # metres to what the shot is of
    scene = backdrop(near * 2, rng) if flat else depth_scene(near, half, rng)
    speed = float(np.exp(rng.uniform(*np.log(SPEEDS))))
    if word == "tracking shot":
        speed = max(speed, 0.04)
    move = MOVES[word](speed, near, half, rng)
    scene += move.more
    scene += passers(near, half, speed, rng)
    ease, tremble = _ease(rng, seconds), _tremble(rng, speed if word in SHAKEN else 0.0, half)
    base = Pose(np.array([0.0, 0.0, 0.0]), rng.normal(0, 0.1), rng.normal(0, 0.05), 0.0, half)

    def pose(t: float) -> Pose:
        here = move.at(ease(t), base)
        yaw, pitch, roll = tremble(t)
        return Pose(here.at, here.yaw + yaw, here.pitch + pitch, here.roll + roll, here.half)

    return Shot(word, scene, pose, size, seconds, float(rng.uniform(0.7, 1.1)), float(rng.choice([0, 0, 1.5, 4])))


def frames(shot: Shot, worn: list, rng: np.random.Generator, per_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """(seconds, uint8 luma) of the shot, per_s a second."""
    for number in range(round(shot.seconds * per_s)):
        t = number / per_s
        picture = render(shot.surfaces, worn, shot.pose(t), t, shot.size).astype(np.float32) * shot.gain
        if shot.noise:
            picture += rng.normal(0, shot.noise, picture.shape)
        yield t, np.clip(picture, 0, 255).astype(np.uint8)


# --- scenes --------------------------------------------------------------------------------------------------------


def backdrop(metres: float, rng: np.random.Generator) -> list[Surface]:
    """One picture and nothing before it: a view so far away that it has no depth."""
    wide = 400 * metres
    return [Surface(2, metres, (-wide, -wide), (wide, wide), int(rng.integers(1000)), metres * rng.uniform(0.8, 2.5))]


def depth_scene(near: float, half: float, rng: np.random.Generator) -> list[Surface]:
    """A far wall, mostly a ground, sometimes walls beside, and some boxes and standing things from near to far."""
    far = near * float(rng.uniform(2.5, 8))
    wide = 60 * far
    texture = lambda: int(rng.integers(1000))  # noqa: E731
    scene = [Surface(2, far, (-wide, -wide), (wide, wide), texture(), far * rng.uniform(0.7, 2.0))]
    reach = near * half
    if rng.random() < 0.75:
        low = reach * rng.uniform(0.25, 0.9)
        scene.append(Surface(1, low, (-wide, -wide), (wide, far), texture(), near * rng.uniform(0.5, 1.5)))
    if rng.random() < 0.3:
        for side in (-1, 1)[: int(rng.integers(1, 3))]:
            at = side * reach * rng.uniform(1.0, 2.0)
            scene.append(Surface(0, at, (-wide, -wide), (wide, far), texture(), near * rng.uniform(0.6, 1.5)))
    for _ in range(int(rng.integers(4, 11))):
        z = float(np.exp(rng.uniform(np.log(0.6 * near), np.log(0.85 * far))))
        x, y = rng.uniform(-1.4, 1.4) * z * half, rng.uniform(-0.5, 0.6) * z * half
        w, h = z * half * rng.uniform(0.12, 0.45, 2)
        scene += box(x, y, z, w, h, w * rng.uniform(0, 1.5), texture(), bool(rng.random() < 0.3))
    return scene


def box(x: float, y: float, z: float, w: float, h: float, d: float, texture: int, round_: bool = False,
        velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> list[Surface]:  # fmt: skip
    """A front of half-sizes w, h and two sides of depth d."""
    scale = 2 * max(w, h)
    found = [Surface(2, z, (x - w, y - h), (x + w, y + h), texture, scale, round_, velocity)]
    if d > 0 and not round_:
        for side in (x - w, x + w):
            found.append(Surface(0, side, (y - h, z), (y + h, z + d), texture + 1, scale, False, velocity))
    return found


def passers(near: float, half: float, speed: float, rng: np.random.Generator) -> list[Surface]:
    """Things that move on their own, in every third scene."""
    found: list[Surface] = []
    if rng.random() > 0.35:
        return found
    for _ in range(int(rng.integers(1, 3))):
        z = near * rng.uniform(0.8, 1.6)
        velocity = rng.normal(0, 1, 3) * np.array([1, 0.2, 0.3]) * z * half * rng.uniform(0.02, 0.3)
        w, h = z * half * rng.uniform(0.08, 0.22, 2)
        x, y = rng.uniform(-0.8, 0.8) * z * half, rng.uniform(-0.2, 0.4) * z * half
        found += box(x, y, z, w, h, 0, int(rng.integers(1000)), True, tuple(velocity))
    return found


# --- moves ---------------------------------------------------------------------------------------------------------


@dataclass
class Move:
    """at(s, base): the pose after s seconds of an even move. more: what the move brings with it."""

    at: Callable[[float, Pose], Pose]
    more: Sequence[Surface] = ()


def _turn(yaw: float, pitch: float) -> Callable:
    def move(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
        rate, aside = speed * 2 * half, speed * 2 * half * rng.normal(0, 0.06)
        return Move(lambda s, b: Pose(b.at, b.yaw + s * (rate * yaw + aside * abs(pitch)),
                                      b.pitch + s * (rate * pitch + aside * abs(yaw)), b.roll, b.half))  # fmt: skip

    return move


def _go(x: float, y: float, z: float) -> Callable:
    def move(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
        rate = max(speed, 0.02) * near * (2 * half if z == 0 else 2.0)
        rate = min(rate, 0.12 * near) if z else rate  # a push soon arrives
        aside = rng.normal(0, 0.05, 3) * (np.array([x, y, z]) == 0)
        way = (np.array([x, y, z]) + aside) * rate
        # Begin on the other side of the origin, so that the scene that was drawn lies before the lens.
        return Move(lambda s, b: Pose(b.at + way * (s - 1.5), b.yaw * (z == 0), b.pitch * (z == 0), b.roll, b.half))

    return move


def _zoom(sign: int) -> Callable:
    def move(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
        rate = min(2.2 * speed, 0.3)
        aside = rng.normal(0, 0.04, 2) * speed * 2 * half
        return Move(lambda s, b: Pose(b.at, b.yaw + aside[0] * s, b.pitch + aside[1] * s, b.roll,
                                      b.half * np.exp(-sign * rate * (s - 1.5))))  # fmt: skip

    return move


def _arc(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
    """Around a subject at `near`, looking at it all the time."""
    rate = max(speed, 0.03) * 1.6 * float(rng.choice([-1, 1]))
    rate = float(np.clip(rate, -0.5, 0.5))
    w, h = near * half * rng.uniform(0.18, 0.4), near * half * rng.uniform(0.25, 0.6)
    subject = box(0, 0.1 * near * half, near, w, h, 1.5 * w, int(rng.integers(1000)), bool(rng.random() < 0.5))

    def at(s: float, b: Pose) -> Pose:
        angle = rate * (s - 1.5)
        where = np.array([near * np.sin(angle), 0.0, near - near * np.cos(angle)])
        return Pose(where, -angle, b.pitch * 0.3, b.roll, b.half)

    return Move(at, subject)


def _track(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
    """Beside, before or behind something that moves, which stays where it is in the picture."""
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else float(rng.choice([0.0, np.pi]))
    rate = speed * near * 2 * half
    velocity = np.array([np.cos(angle), 0.0, 0.5 * np.sin(angle)]) * rate * 1.5
    w, h = near * half * rng.uniform(0.2, 0.4), near * half * rng.uniform(0.35, 0.75)
    z = near * 0.8
    start = -velocity * 1.5
    subject = box(start[0] + rng.normal(0, 0.1) * z * half, 0.1 * z * half, z + start[2], w, h, 0,
                  int(rng.integers(1000)), bool(rng.random() < 0.6), tuple(velocity))  # fmt: skip
    return Move(lambda s, b: Pose(velocity * (s - 1.5), b.yaw * 0.3, b.pitch * 0.3, b.roll, b.half), subject)


def _stay(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
    return Move(lambda s, b: b)


def _hand(speed: float, near: float, half: float, rng: np.random.Generator) -> Move:
    """Unsteady turns and steps, around a standpoint or a slow drift."""
    turn, shift = _wander(rng, 3, 0.5, 4.0), _wander(rng, 3, 0.4, 2.5)
    size = max(speed, 0.03) * 2 * half * 0.35
    step = max(speed, 0.03) * near * half * 0.25
    drift = rng.normal(0, 0.25, 2) * size

    def at(s: float, b: Pose) -> Pose:
        yaw, pitch, roll = turn(s) * size * np.array([1.0, 0.8, 0.5])
        return Pose(b.at + shift(s) * step * np.array([1, 0.8, 0.6]), b.yaw + yaw + drift[0] * s,
                    b.pitch + pitch + drift[1] * s, b.roll + roll, b.half)  # fmt: skip

    return Move(at)


MOVES: dict[str, Callable[..., Move]] = {
    "zoom in": _zoom(1), "zoom out": _zoom(-1), "push in": _go(0, 0, 1), "pull out": _go(0, 0, -1),
    "pan right": _turn(1, 0), "pan left": _turn(-1, 0), "truck right": _go(1, 0, 0), "truck left": _go(-1, 0, 0),
    "tilt up": _turn(0, 1), "tilt down": _turn(0, -1), "pedestal up": _go(0, -1, 0), "pedestal down": _go(0, 1, 0),
    "arc shot": _arc, "tracking shot": _track, "static shot": _stay, "handheld shot": _hand,
}  # fmt: skip
#: What is the same before a picture without depth; the others are known by it.
FLAT_TOO = frozenset(word for word in MOVES if word.startswith(("zoom", "pan", "tilt", "static", "handheld")))
#: What a move is called by whoever does not see depth.
FLAT = {"push": "zoom", "pull": "zoom", "truck": "pan", "pedestal": "tilt"}
SHAKEN = frozenset(MOVES) - {"static shot", "handheld shot"}


def _ease(rng: np.random.Generator, seconds: float) -> Callable[[float], float]:
    """Even time, or time that begins and ends slowly."""
    depth = float(rng.choice([0.0, 0.0, rng.uniform(0.2, 0.8)]))
    return lambda t: t - depth * seconds / (2 * np.pi) * np.sin(2 * np.pi * t / seconds)


def _wander(rng: np.random.Generator, count: int, low_hz: float, high_hz: float) -> Callable[[float], np.ndarray]:
    """`count` values that wander about 0 with a deviation of about 1."""
    hz = rng.uniform(low_hz, high_hz, (count, 4))
    phase, size = rng.uniform(0, 2 * np.pi, (count, 4)), rng.uniform(0.4, 1.0, (count, 4)) / np.sqrt(hz)
    return lambda t: (size * np.sin(2 * np.pi * hz * t + phase)).sum(axis=1)


def _tremble(rng: np.random.Generator, speed: float, half: float) -> Callable[[float], np.ndarray]:
    """Small turns of a camera that is not quite still, radians."""
    size = rng.uniform(0, SHAKE) * speed * half * 2 * 0.25
    wander = _wander(rng, 3, 0.5, 3.0)
    return lambda t: wander(t) * size * np.array([1, 1, 0.5])
