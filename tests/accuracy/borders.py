"""Borders: bars of every kind round real takes, and takes without; the rectangle of the picture against the true one.

A take is shown at 640 x 360 inside a border, four of its frames are coded as JPEG (as stills are) and measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np

from rushes.curation.visual.borders import static_border_frac
from rushes.curation.visual.stills import decode_gray, encode
from tests.accuracy.made import Bench
from tests.accuracy.sources import Take, photographs, takes
from tests.accuracy.table import Row

SIZE = (640, 360)
STILLS = 4
LETTERBOXED = ("film_10s",)  # files whose own picture has bars
GOOD = 0.9  # IoU from which a border counts as found
Box = tuple[float, float, float, float]  # left, top, right, bottom, shares
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
Shown = tuple[list[np.ndarray], Box]


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    found: dict[str, list[float]] = {}
    false: list[str] = []
    clean = 0
    rng = np.random.default_rng(5)
    for take in sources(bench, measured):
        frames = _frames(take)
        for name, (shown, truth) in bordered(frames, rng):
            found.setdefault(name, []).append(iou(rectangle(shown), truth))
        for name, shown in unbordered(frames):
            clean += 1
            if rectangle(shown) != WHOLE:
                false.append(f"{take.name}, {name}")
    every = [value for values in found.values() for value in values]
    least = min(found, key=lambda name: float(np.mean(found[name])))
    blurred = found["blurred copy"]
    return [
        Row("borders", "mean IoU of the picture's rectangle", float(np.mean(every)), ">= 0.97", len(every)),
        Row("borders", f"the same, worst kind ({least})", float(np.mean(found[least])), "", len(found[least])),
        Row("borders", "borders found (IoU from 0.9)", float(np.mean(np.array(every) >= GOOD)), "", len(every)),
        Row("borders", "blurred copies found", float(np.mean(np.array(blurred) >= GOOD)), "", len(blurred)),
        Row("borders", "false alarms, dark and flat scenes included", len(false) / clean, "<= 0.01", clean),
    ]


def sources(bench: Bench, measured: bool) -> list[Take]:
    """Takes and photographs without bars of their own."""
    found = takes(measured, bench.footage) + photographs(measured)
    return [take for take in found if take.source not in LETTERBOXED]


def rectangle(frames: list[np.ndarray]) -> Box:
    """What is found on the frames' stills."""
    box = static_border_frac([decode_gray(encode(frame)) for frame in frames])
    return box.left, box.top, 1 - box.right, 1 - box.bottom


def iou(a: Box, b: Box) -> float:
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(across, 0) * max(down, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def _frames(take: Take) -> list[np.ndarray]:
    if take.still:  # a photograph under a slowly moving camera
        picture = cv2.resize(take.frames(*SIZE)[0], (704, 396))
        return [picture[6 * k : 6 * k + 360, 10 * k : 10 * k + 640] for k in range(STILLS)]
    frames = take.frames(*SIZE)
    return [frames[i] for i in np.linspace(0, len(frames) - 1, STILLS).round().astype(int)]


def bordered(frames: list[np.ndarray], rng: np.random.Generator) -> Iterator[tuple[str, Shown]]:
    """Kinds of borders: the frames as they are shown, and the rectangle of the picture in them."""
    kinds: dict[str, Callable[[], Shown]] = {
        "letterbox": lambda: _inset(frames, (0, 0.122, 1, 0.878)),
        "thin letterbox": lambda: _inset(frames, (0, 0.03, 1, 0.97)),
        "pillarbox": lambda: _inset(frames, (0.125, 0, 0.875, 1)),
        "windowbox": lambda: _inset(frames, (0.12, 0.1, 0.88, 0.9)),
        "coloured": lambda: _inset(frames, (0.34, 0, 0.66, 1), (150, 90, 40)),
        "white": lambda: _inset(frames, (0, 0.15, 1, 0.85), (250, 250, 250)),
        "one side": lambda: _inset(frames, (0, 0, 1, 0.86), (30, 24, 20)),
        "near-black": lambda: _near_black(frames, rng),
        "subtitle in the bar": lambda: _subtitled(frames),
        "blurred copy": lambda: _blurred(frames),
        "blurred copy, wide": lambda: _blurred(frames, (0.25, 0.75)),
    }
    for name, make in kinds.items():
        yield name, make()


def unbordered(frames: list[np.ndarray]) -> Iterator[tuple[str, list[np.ndarray]]]:
    yield "as it is", frames
    yield "dark", [(frame * 0.12).astype(np.uint8) for frame in frames]
    yield "bright", [(190 + frame * 0.25).astype(np.uint8) for frame in frames]
    yield "soft", [cv2.GaussianBlur(frame, (0, 0), 5) for frame in frames]


def _inset(frames: list[np.ndarray], box: Box, colour: tuple[int, int, int] = (0, 0, 0)) -> Shown:
    width, height = SIZE
    x0, y0, x1, y1 = (round(side * size) for side, size in zip(box, (width, height, width, height), strict=True))
    shown = []
    for frame in frames:
        out = np.full((height, width, 3), colour, np.uint8)
        out[y0:y1, x0:x1] = _filled(frame, x1 - x0, y1 - y0)
        shown.append(out)
    return shown, (x0 / width, y0 / height, x1 / width, y1 / height)


def _filled(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """The middle of a frame in another shape."""
    from tests.accuracy.sources import fill

    return fill(frame, width, height)


def _near_black(frames: list[np.ndarray], rng: np.random.Generator) -> Shown:
    shown, box = _inset(frames, (0, 0.12, 1, 0.88), (14, 14, 14))
    return [np.clip(frame + rng.normal(0, 2.5, frame.shape[:2])[..., None], 0, 255).astype(np.uint8)
            for frame in shown], box  # fmt: skip


def _subtitled(frames: list[np.ndarray]) -> Shown:
    shown, box = _inset(frames, (0, 0.12, 1, 0.88))
    for number, frame in enumerate(shown):
        line = ("I was not there", "and nobody asked", "", "where are we going")[number % 4]
        cv2.putText(frame, line, (200, 345), cv2.FONT_HERSHEY_DUPLEX, 0.8, (235, 235, 235), 1, cv2.LINE_AA)
    return shown, box


def _blurred(frames: list[np.ndarray], span: tuple[float, float] = (0.342, 0.658)) -> Shown:
    """A tall picture in front of a wide, blurred and darkened copy of itself."""
    shown, box = _inset(frames, (span[0], 0, span[1], 1))
    width = SIZE[0]
    x0, x1 = round(span[0] * width), round(span[1] * width)
    out = []
    for frame in shown:
        middle = frame[:, x0:x1]
        copy = cv2.GaussianBlur(_filled(middle, *SIZE), (0, 0), 14)
        copy = (copy * 0.8).astype(np.uint8)
        copy[:, x0:x1] = middle
        out.append(copy)
    return out, box
