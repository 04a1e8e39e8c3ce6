"""Hand shake of known amplitude: takes seen by a camera that trembles, and the same at rest, panned, zoomed, swayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from rushes.curation.analyze import Analyzer
from rushes.curation.recipe import build
from rushes.curation.signals import RULES
from rushes.curation.video.decode import probe
from tests.accuracy.made import FPS, SIZE, Bench, encode
from tests.accuracy.sources import Take, takes
from tests.accuracy.table import Row

AMPLITUDES = (2, 4, 8, 20)  # rms of the camera's displacement, pixels at 720 lines
FROM = 4  # amplitude from which a clip shall be rejected
TO_720 = 720 / SIZE[1]
COUNT = 4 * FPS
SWAY_HZ, SWAY = (0.4, 1.1), 10 / TO_720  # of a camera that is held in steady hands: frequencies, rms in pixels
TREMBLE = np.array([0.25, 0.5, 0.25])  # taps: most of a hand's tremor lies below 10 Hz
MOST = next(rule.default for rule in RULES if rule.key == "motion.shake_max")
#: Sources filmed from the hand, as seen by eye: no calm film is made of them.
SHAKEN = ("mmaction2_demo", "mmaction2_test")
#: Sources of which a body fills the whole made picture and jolts it from border to border: no background tells it from
#: a camera that does, by eye neither.
FILLED = ("portrait_overlay_text",)
WHOLE = build({}, ["scenes.head_s=0", "scenes.trim_frames=0"])


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    place = bench.place("shake" if measured else "shake-fit")
    found: dict[int, list[float]] = {}
    filled: list[bool] = []
    some = [take for take in takes(measured, bench.footage) if take.source not in SHAKEN]
    for number, take in enumerate(some):
        for amplitude, name, frames in shots(take, number):
            path = place / f"{take.name}-{name}.mp4"
            encode(path, frames)
            found.setdefault(amplitude, []).append(_shake(path))
            filled += [take.source in FILLED] * (amplitude == 0)
    calm = np.array(found[0])
    own = np.concatenate([_shakes(path) for path in sorted({take.path for take in some})])
    strong = np.concatenate([found[amplitude] for amplitude in AMPLITUDES if amplitude >= FROM])
    truth = np.concatenate([np.zeros(len(calm)), np.ones(len(strong))])
    return [
        Row("shake", "AUC: shaken by 4 px rms and more at 720 lines", roc_auc_score(truth, np.append(calm, strong)), "",
            len(truth)),
        *(Row("shake", f"shaken by {amplitude} px rms: share rejected", float(np.mean(np.array(values) > MOST)),
              ">= 0.95" if amplitude >= FROM else "",
              len(values)) for amplitude, values in found.items() if amplitude),
        Row("shake", "at rest, panned, zoomed, swayed: share rejected", float(np.mean(calm > MOST)), "<= 0.05",
            len(calm)),
        Row("shake", "the same without a body that fills the picture", float(np.mean(calm[~np.array(filled)] > MOST)),
            "<= 0.05", len(calm) - sum(filled)),
        Row("shake", "clips of the sources as they are: share rejected", float(np.mean(own > MOST)), "<= 0.05",
            len(own)),
    ]  # fmt: skip


def _shakes(path: Path) -> list[float]:
    """Of every clip of a file that lasts a second."""
    rows = Analyzer(WHOLE)(probe(str(path))).clips.to_pylist()
    return [row["shake"] for row in rows if row["duration_s"] >= 1 and row["shake"] is not None]


def _shake(path: Path) -> float:
    rows = Analyzer(WHOLE)(probe(str(path))).clips.to_pylist()
    return max(rows, key=lambda row: row["duration_s"])["shake"]


def shots(take: Take, seed: int) -> Iterator[tuple[int, str, Iterator[np.ndarray]]]:
    """(amplitude, name, frames): 0 for a camera that does not shake."""
    rest = np.zeros((COUNT, 2))
    drift = np.linspace(-18, 18, COUNT)[:, None] * (1.0, 0.0)
    yield 0, "rest", _seen(take, rest)
    yield 0, "panned", _seen(take, drift)
    yield 0, "zoomed", _seen(take, rest, 1.1)
    turns = np.outer(np.arange(COUNT) / FPS, SWAY_HZ)[:, :, None] + np.random.default_rng(seed).random((2, 2))
    yield 0, "swayed", _seen(take, np.sin(2 * np.pi * turns).sum(axis=1) * SWAY)
    for amplitude in AMPLITUDES:
        tremor = np.random.default_rng(seed * 10 + amplitude).normal(size=(COUNT + 2, 2))
        tremor = np.stack([np.convolve(tremor[:, axis], TREMBLE, "valid") for axis in (0, 1)], axis=1)
        yield amplitude, f"shaken-{amplitude}", _seen(take, tremor / tremor.std() * amplitude / TO_720)


def _seen(take: Take, offsets: np.ndarray, zoom: float = 1.0) -> Iterator[np.ndarray]:
    """The take to and fro, seen through the middle of a larger picture that is shifted by `offsets`, pixels."""
    large = (SIZE[0] + 80, SIZE[1] + 44)
    frames = take.frames(*large)
    lap = max(2 * len(frames) - 2, 1)
    for number, offset in enumerate(offsets):
        picture = frames[min(number % lap, lap - number % lap)]
        scale = 1 / (1 + (zoom - 1) * number / len(offsets))
        corner = np.array(large) / 2 + offset - np.array(SIZE) * scale / 2
        matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
        yield cv2.warpAffine(
            picture, matrix, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
