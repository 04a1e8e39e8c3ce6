"""Logos without letters: symbols burnt into takes, and takes without; how many are found, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from rushes.curation.meter import Unmeasured
from rushes.curation.visual.marks import marks
from rushes.curation.visual.stills import decode, encode
from tests.accuracy.borders import iou
from tests.accuracy.made import Bench
from tests.accuracy.sources import Take, photographs, takes
from tests.accuracy.table import Row

SIZE = (640, 360)
MARKED = ("cartoon_titles", "portrait_overlay_text", "portrait_fashion")  # files with marks of their own
STILLS = (4, 12)  # of a clip, one a second
Box = tuple[float, float, float, float]
Draw = Callable[[np.ndarray, int], None]


def _ring(mask: np.ndarray, side: int) -> None:
    cv2.circle(mask, (side // 2, side // 2), side // 2 - side // 10, 255, max(2, side // 6), cv2.LINE_AA)


def _star(mask: np.ndarray, side: int) -> None:
    turns = np.arange(10) * np.pi / 5 - np.pi / 2
    reach = np.where(np.arange(10) % 2, 0.2, 0.48) * side
    points = np.stack([np.cos(turns) * reach, np.sin(turns) * reach], axis=1) + side / 2
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 255, cv2.LINE_AA)


def _play(mask: np.ndarray, side: int) -> None:
    """A disc with a triangle cut out of it."""
    cv2.circle(mask, (side // 2, side // 2), side // 2 - 1, 255, -1, cv2.LINE_AA)
    points = np.array([(0.38, 0.28), (0.38, 0.72), (0.75, 0.5)]) * side
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 0, cv2.LINE_AA)


def _globe(mask: np.ndarray, side: int) -> None:
    centre, half, thick = (side // 2, side // 2), side // 2 - 2, max(1, side // 24)
    cv2.circle(mask, centre, half, 255, thick, cv2.LINE_AA)
    cv2.ellipse(mask, centre, (half // 2, half), 0, 0, 360, 255, thick, cv2.LINE_AA)
    cv2.line(mask, (2, side // 2), (side - 3, side // 2), 255, thick, cv2.LINE_AA)


def _bars(mask: np.ndarray, side: int) -> None:
    for n, high in enumerate((0.5, 0.9, 0.7)):
        x = round((0.08 + 0.31 * n) * side)
        cv2.rectangle(mask, (x, round((0.95 - high) * side)), (x + round(0.2 * side), round(0.95 * side)), 255, -1)


SHAPES: dict[str, Draw] = {"ring": _ring, "star": _star, "play": _play, "globe": _globe, "bars": _bars}
COLOURS = ((245, 245, 245), (40, 60, 220), (230, 170, 40), (20, 20, 20))  # BGR
STRENGTHS = {"opaque": 1.0, "half transparent": 0.5}


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    found: dict[str, list[float]] = {}
    false = []
    for number, take in enumerate(sources(bench, measured)):
        frames = stills(take)
        if take.source not in MARKED:
            false.append(bool(looked(frames)))
        for name, shown, truth in logos(frames, number):
            here = looked(shown)
            found.setdefault(name, []).append(max((iou(box, truth) for box in here), default=0.0))
    every = np.array([value for values in found.values() for value in values])
    hit = every[every > 0]
    return [
        Row("logos", "share found", float((every > 0).mean()), "", len(every)),
        *(
            Row("logos", f"share found, {name}", float((np.array(v) > 0).mean()), "", len(v))
            for name, v in found.items()
        ),
        Row("logos", "rectangle of those found, mean IoU", float(hit.mean()) if len(hit) else 0.0, "", len(hit)),
        Row("logos", "false alarms", float(np.mean(false)), "<= 0.01", len(false)),
    ]


def sources(bench: Bench, measured: bool) -> list[Take]:
    return takes(measured, bench.footage) + photographs(measured)


def looked(frames: list[np.ndarray]) -> list[Box]:
    found = marks([decode(encode(frame)) for frame in frames])
    return [] if isinstance(found, Unmeasured) else [mark.box for mark in found]


def stills(take: Take) -> list[np.ndarray]:
    """One a second, at least STILLS[0]: of a photograph under a slowly moving camera."""
    if take.still:
        picture = cv2.resize(take.frames(*SIZE)[0], (768, 432))
        return [picture[12 * k : 12 * k + 360, 20 * k : 20 * k + 640].copy() for k in range(6)]
    frames = take.frames(*SIZE)
    count = int(np.clip(len(frames) / take.fps, *STILLS))
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def logos(frames: list[np.ndarray], seed: int) -> Iterator[tuple[str, list[np.ndarray], Box]]:
    """(kind, frames with a symbol, its box): two shapes, sizes and corners of each strength."""
    rng = np.random.default_rng(seed)
    names = list(SHAPES)
    for strength_at, (name, strength) in enumerate(STRENGTHS.items()):
        for turn in range(2):
            side = int(rng.integers(30, 64))
            corner = (seed + 2 * strength_at + turn) % 4
            margin = rng.integers(12, 30, 2)
            x = int(margin[0] if corner % 2 == 0 else SIZE[0] - side - margin[0])
            y = int(margin[1] if corner < 2 else SIZE[1] - side - margin[1])
            mask = np.zeros((side, side), np.uint8)
            SHAPES[names[(seed + strength_at + 2 * turn) % len(names)]](mask, side)
            colour = np.array(COLOURS[(seed + turn) % len(COLOURS)], np.float32)
            shown = []
            for frame in frames:
                part = frame.astype(np.float32)
                share = mask[..., None] / 255 * strength
                part[y : y + side, x : x + side] = part[y : y + side, x : x + side] * (1 - share) + colour * share
                shown.append(part.astype(np.uint8))
            rows, columns = np.nonzero(mask > 96)
            box = np.array([x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1])
            yield name, shown, tuple(float(v) for v in box / (SIZE * 2))
