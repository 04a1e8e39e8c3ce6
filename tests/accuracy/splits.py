"""Split screens: two takes side by side, one above the other, one inside the other, against takes and tripod shots.

Half of the borders are drawn as a line, black or white. Tripod shots are single frames with grain. Panels are takes or
photographs under a slowly moving camera, shown at 640 x 360, coded as JPEG (as stills are).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from rushes.curation.visual.splits import STILLS, SURE, Split, split_screen
from rushes.curation.visual.stills import decode, encode
from tests.accuracy.borders import sources
from tests.accuracy.made import Bench
from tests.accuracy.sources import Take
from tests.accuracy.table import Row

WIDTH, HEIGHT = 640, 360
LINES = (0, 0, 2, 4)  # pixels of a border that is drawn
INSET, MARGIN = (0.25, 0.45), 20  # sides of a picture in the picture, as shares; its distance from the frame, pixels
GRAIN = 2.0  # grey levels
ONE, KINDS = ("footage", "tripod"), ("side by side", "one above the other", "one inside the other")
Frames = list[np.ndarray]


def measure(bench: Bench, measured: bool = True) -> list[Row]:
    found: dict[str, list[float]] = {}
    for kind, frames in made(sources(bench, measured)):
        split = split_screen([decode(encode(frame)) for frame in frames])
        found.setdefault(kind, []).append(split.score if isinstance(split, Split) else 0.0)
    whole = [score for kind in ONE for score in found[kind]]
    rows = []
    for kind in KINDS:
        truth = [1] * len(found[kind]) + [0] * len(whole)
        auc = float(roc_auc_score(truth, found[kind] + whole))
        rows.append(Row("splits", f"AUC: {kind}", auc, "", len(truth)))
        rows.append(
            Row("splits", f"{kind}: share found", float(np.mean(np.array(found[kind]) >= SURE)), "", len(found[kind]))
        )
    return [*rows, Row("splits", "false alarms", float(np.mean(np.array(whole) >= SURE)), "", len(whole))]


def made(takes: list[Take], seed: int = 1) -> Iterator[tuple[str, Frames]]:
    """(kind, frames) of every take alone, on a tripod, and with another in three ways."""
    rng = np.random.default_rng(seed)
    for place, take in enumerate(takes):
        other = takes[(place + 1 + rng.integers(len(takes) - 1)) % len(takes)]
        line, colour = int(rng.choice(LINES)), int(rng.choice((0, 255)))
        alone = shown(take, WIDTH, HEIGHT)
        yield "footage", alone
        still = alone[0]
        yield "tripod", [np.clip(still + rng.normal(0, GRAIN, still.shape), 0, 255).astype(np.uint8) for _ in alone]
        half = WIDTH // 2, HEIGHT // 2
        pairs = zip(shown(take, half[0], HEIGHT), shown(other, half[0], HEIGHT), strict=True)
        yield KINDS[0], [_lined(np.hstack(pair), line, colour) for pair in pairs]
        pairs = zip(shown(take, WIDTH, half[1]), shown(other, WIDTH, half[1]), strict=True)
        yield KINDS[1], [np.vstack(pair) for pair in pairs]
        share = float(rng.uniform(*INSET))
        width, height = round(WIDTH * share), round(HEIGHT * share)
        x = int(rng.choice((MARGIN, WIDTH - width - MARGIN)))
        y = int(rng.choice((MARGIN, HEIGHT - height - MARGIN)))
        pairs = zip(alone, shown(other, width, height), strict=True)
        yield KINDS[2], [_inside(frame, panel, x, y, line, colour) for frame, panel in pairs]


def shown(take: Take, width: int, height: int) -> Frames:
    """STILLS frames of a take, over its length; a photograph under a camera that moves."""
    if take.still:
        picture = cv2.resize(take.frames(WIDTH, HEIGHT)[0], (WIDTH + 64, HEIGHT + 36))
        moved = [picture[6 * k : 6 * k + HEIGHT, 10 * k : 10 * k + WIDTH] for k in range(STILLS)]
        return [cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in moved]
    frames = take.frames(width, height)
    return [frames[i] for i in np.linspace(0, len(frames) - 1, STILLS).round().astype(int)]


def _lined(frame: np.ndarray, line: int, colour: int) -> np.ndarray:
    middle = frame.shape[1] // 2
    frame[:, middle - line // 2 : middle + line // 2] = colour
    return frame


def _inside(frame: np.ndarray, panel: np.ndarray, x: int, y: int, line: int, colour: int) -> np.ndarray:
    out, (height, width) = frame.copy(), panel.shape[:2]
    out[y - line : y + height + line, x - line : x + width + line] = colour
    out[y : y + height, x : x + width] = panel
    return out
