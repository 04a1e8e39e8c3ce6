"""Stills that pass for footage (held, zoomed, panned, slideshows, frozen tails) against tripod shots, slow motion.

Held and moved stills are photographs and single frames of takes; tripod shots are photographs with grain and a small
part that moves; slow motion is interpolated between frames by their optical flow, 4 and 8 times. Drawn animation that
shows one drawing for a second or more once it is slowed is a still, as HELD has it; both ways are counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from rushes.curation.analyze import Analyzer
from rushes.curation.motion.stillness import ALIVE
from rushes.curation.recipe import build
from rushes.curation.signals import RULES
from rushes.curation.video.decode import probe
from tests.accuracy.made import FPS, SIZE, Bench, encode
from tests.accuracy.sources import Take, photographs, takes
from tests.accuracy.table import Row

SECONDS = 5
COUNT = FPS * SECONDS
GRAINS = (0.0, 1.5, 3.0)  # standard deviation of a tripod shot's grain, grey levels
#: Slowed takes (take, times) in which one drawing stands for a second or more, as seen by eye: for 2.8 s, and twice all
#: but for the pupils.
HELD = (("cartoon_titles-144", 8), ("cartoon_titles-237", 4), ("cartoon_titles-237", 8))
STILL = ("held", "zoom", "pan", "frozen tail", "slideshow", "slowed drawing")
DEFAULT = {rule.key: rule.default for rule in RULES}
WHOLE = build({}, ["scenes.head_s=0", "scenes.trim_frames=0"])
Frames = Iterator[np.ndarray]


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    found = [(kind, path, row) for kind, path in files(bench, measured) for row in _rows(path)]
    rows = [(kind, row) for kind, _, row in found]
    still = np.array([kind in STILL for kind, _ in rows])
    alive = np.array([aliveness(row) for _, row in rows])
    motion = np.array([row["vmaf_motion"] for _, row in rows])
    kinds = np.array([kind for kind, _ in rows])
    passed = alive > 0

    def of(kind: str) -> tuple[float, int]:
        return float(passed[kinds == kind].mean()), int((kinds == kind).sum())

    table = [
        Row("stills", "AUC: stills of every kind against footage", roc_auc_score(~still, alive), ">= 0.98", len(rows),
            "VMAF motion", roc_auc_score(~still, motion)),
    ]  # fmt: skip
    photographed = still & (kinds != "slowed drawing")
    table.append(Row("stills", "the same, slowed drawings counted as footage", roc_auc_score(~photographed, alive), "",
                     len(rows)))  # fmt: skip
    table += [
        Row("stills", f"{kind}: share that passes", of(kind)[0], "", of(kind)[1]) for kind in STILL if kind in kinds
    ]
    good = [kind for kind in dict.fromkeys(kinds.tolist()) if kind not in STILL]
    return table + [Row("stills", f"{kind}: share rejected", 1 - of(kind)[0], "", of(kind)[1]) for kind in good]


def aliveness(row: dict) -> float:
    """Above 0 where both rules are passed: how far the clip is from the nearer threshold."""
    own, frozen = row["own_motion"] or 0.0, row["frozen_s"]
    return min(
        float(np.log(max(own, 1e-3) / DEFAULT["motion.own_motion_min"])),
        float(np.log(DEFAULT["motion.frozen_max_s"] / max(frozen, 1 / ALIVE))),
    )


def _rows(path: Path) -> list[dict]:
    rows = Analyzer(WHOLE)(probe(str(path))).clips.to_pylist()
    return [row for row in rows if row["duration_s"] >= 2 and row["own_motion"] is not None]


def files(bench: Bench, measured: bool) -> Iterator[tuple[str, Path]]:
    """(kind, file) of everything, made where it is not there."""
    place = bench.place("stills" if measured else "stills-fit")
    moving, pictures = takes(measured, bench.footage), photographs(measured)
    stills = [*pictures, *moving]
    for number, take in enumerate(stills):
        picture = cv2.resize(take.frames(SIZE[0] * 2, SIZE[1] * 2)[0], (SIZE[0] * 2, SIZE[1] * 2))
        end = (0.97, 0.9, 0.8, 0.6)[number % 4]
        cameras = {
            "held": ((0.5, 0.5, 1.0), (0.5, 0.5, 1.0)),
            "zoom": ((0.5, 0.5, 1.0), (0.5 + 0.1 * (1 - end), 0.5, end)),
            "pan": ((0.35, 0.5, 0.6), (0.4 + 0.05 * (number % 4), 0.5 + 0.02 * (number % 3), 0.6)),
        }
        for kind, (start, stop) in cameras.items():
            yield kind, _made(place, kind, take.name, seen(picture, COUNT, start, stop), 20 + 3 * (number % 3))
        if take.still:
            moved = moving[number % len(moving)].frames(*SIZE)
            frames = tripod(take.frames(*SIZE)[0], moved, number, GRAINS[number % 3])
            yield "tripod", _made(place, "tripod", take.name, frames, 20 + 3 * (number % 3))
    for number in range(0, len(pictures) - 2, 2):
        yield "slideshow", _made(place, "slideshow", str(number), _slideshow(pictures[number : number + 3]), 23)
    for number, take in enumerate(moving):
        frames = take.frames(*SIZE)[:COUNT]
        yield "footage", _made(place, "footage", take.name, iter(frames), 23)
        held = (COUNT // 3, COUNT // 2, 2 * COUNT // 3)[number % 3]
        tail = iter(frames[: COUNT - held] + [frames[: COUNT - held][-1]] * held)
        yield "frozen tail", _made(place, "frozen tail", take.name, tail, 23)
        for times in (4, 8):
            kind = "slowed drawing" if (take.name, times) in HELD else "slow motion"
            yield kind, _made(place, f"slow{times}", take.name, slowed(frames, times), 23)


def _made(place: Path, kind: str, name: str, frames: Frames, crf: int) -> Path:
    path = place / f"{kind.replace(' ', '-')}-{name}.mp4"
    encode(path, frames, crf=crf)
    return path


def seen(picture: np.ndarray, count: int, start: tuple[float, ...], stop: tuple[float, ...]) -> Frames:
    """A camera moves over a picture: views (centre x, centre y, width), shares of the picture."""
    height, width = picture.shape[:2]
    for number in range(count):
        view = np.array(start) + (np.array(stop) - np.array(start)) * number / max(count - 1, 1)
        scale = view[2] * width / SIZE[0]
        corner = view[:2] * (width, height) - np.array(SIZE) * scale / 2
        corner = np.clip(corner, 0, np.maximum((width - SIZE[0] * scale, height - SIZE[1] * scale), 0))
        matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        yield cv2.warpAffine(picture, matrix, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _slideshow(pictures: list[Take]) -> Frames:
    shots = [list(seen(take.frames(SIZE[0] * 2, SIZE[1] * 2)[0], 84, (0.5, 0.5, 1.0), (0.5, 0.5, 0.88)))
             for take in pictures]  # fmt: skip
    for number, shot in enumerate(shots):
        yield from shot[:72]
        if number + 1 < len(shots):
            for step in range(12):
                share = (step + 1) / 13
                yield cv2.addWeighted(shot[72 + step], 1 - share, shots[number + 1][step], share, 0)


def tripod(picture: np.ndarray, moving: list[np.ndarray], seed: int, grain: float) -> Frames:
    """A picture that stands, with grain, in a part of which (1.5 to 6 % of the area) footage plays."""
    rng = np.random.default_rng(seed)
    width = int(SIZE[0] * rng.uniform(0.13, 0.25))
    height = int(width * SIZE[1] / SIZE[0])
    x, y = int(rng.integers(0, SIZE[0] - width)), int(rng.integers(0, SIZE[1] - height))
    mask = np.zeros(picture.shape[:2], np.float32)
    cv2.ellipse(mask, (x + width // 2, y + height // 2), (width // 2 - 2, height // 2 - 2), 0, 0, 360, 1, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), 1.5)[..., None]
    for number in range(COUNT):
        lap = 2 * len(moving) - 2
        small = cv2.resize(moving[min(number % lap, lap - number % lap)], (width, height), interpolation=cv2.INTER_AREA)
        part = picture.copy()
        part[y : y + height, x : x + width] = small
        noise = rng.normal(0, grain, picture.shape[:2])[..., None] if grain else 0.0
        yield np.clip(picture * (1 - mask) + part * mask + noise, 0, 255).astype(np.uint8)


def slowed(frames: list[np.ndarray], times: int) -> Frames:
    """Slow motion: between two frames both are moved along their optical flow, and blended."""
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]].astype(np.float32)
    for before, after in itertools.islice(itertools.pairwise(frames), COUNT // times):
        flow = flow_of.calc(*(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (before, after)), None)
        for step in range(times):
            t = step / times
            first = cv2.remap(before, x - t * flow[..., 0], y - t * flow[..., 1], cv2.INTER_CUBIC)
            second = cv2.remap(after, x + (1 - t) * flow[..., 0], y + (1 - t) * flow[..., 1], cv2.INTER_CUBIC)
            yield cv2.addWeighted(first, 1 - t, second, t, 0)
