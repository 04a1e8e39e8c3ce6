"""Technical quality: what VMAF would say if the original were at hand, from a few patches of native pixels.

Support vectors (quality.npz) map statistics of patches and frames (visual/patches.py), and the quantiser where the
codec tells one, to VMAF, 0-100. They were taught on footage made worse in known ways, with FFmpeg's libvmaf as their
teacher: `rushes fit quality` makes them again. They tell blur, up-scaling, low bitrates, noise and bands from sharp
footage. What an original looked like they cannot know: soft light and fog read low.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation import kernel
from rushes.curation.meter import Span, Unmeasured
from rushes.curation.recipe import Recipe
from rushes.curation.video.batch import Batch
from rushes.curation.video.frame import StreamInfo
from rushes.curation.visual.patches import BUSY, RHYTHM, SIDE, Look

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

MODEL = Path(__file__).with_name("quality.npz")
EPS = 0.05  # grey levels added before a logarithm
LAGS = (1, 2, 3, 4, 8, 16)  # pixels between those that are compared
LEVELS = 3  # of the Haar pyramid
BLOCKS = (8, 16)  # pixels of a block whose steepest step is compared with its range
GRIDS = (4, 8, 16)  # pixels between edges that codecs leave
GROUP = 41  # numbers of a group of patches
WINDOW = np.hanning(SIDE - 2)
_ON = np.array([np.arange(SIDE - 1) % grid == grid - 1 for grid in GRIDS])
SHARES = np.concatenate([mask / mask.sum(axis=1, keepdims=True) for mask in (_ON, ~_ON)]).astype(np.float32)
CODED = 3  # numbers of the quantiser: itself, whether it is H.264's, whether it is MPEG's
TOLD, SEEN = "told", "seen"  # the two models: with the codec's quantiser, and by pixels alone
UNKNOWN = 30.0  # stands for a quantiser that is not told, beside two zeros
FEATURES = 2 * GROUP + BUSY + RHYTHM + CODED


class QualityMeter:
    """patch_stats: `features` of a frame now and then; else NaN."""

    tracks = (pa.field("patch_stats", pa.list_(pa.float32(), FEATURES)),)

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        pass

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        found = np.full((len(batch), FEATURES), np.nan, np.float32)
        for place, look in batch.looks:
            found[place] = features(look)
        return {"patch_stats": found}

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        return {"quality": quality(tracks["patch_stats"][span.first : span.stop])}


def quality(stats: np.ndarray) -> float | Unmeasured:
    """VMAF as the model sees it, 0-100, of the statistics of some frames [n, FEATURES]; NaN rows are passed over."""
    known = stats[np.isfinite(stats[:, 0])]
    if not len(known):
        return Unmeasured(f"no frame with patches of {SIDE} pixels lies in the clip")
    mean = known.mean(axis=0, keepdims=True)
    model = _model(TOLD if told(known).all() else SEEN)
    return float(np.clip(model(mean)[0], 0, 100))


@cache
def _model(name: str) -> kernel.Kernel:
    return kernel.load(MODEL, name)


def told(stats: np.ndarray) -> np.ndarray:
    """Whether the codec told the quantiser: bool [n] of `features` [n, FEATURES]."""
    return stats[:, 1 - CODED :].any(axis=1)


def without_quantiser(stats: np.ndarray) -> np.ndarray:
    """`features` [n, FEATURES] as of a codec that tells no quantiser."""
    found = stats.copy()
    found[:, -CODED:] = UNKNOWN, 0, 0
    return found


def features(look: Look) -> np.ndarray:
    """float32 [FEATURES]: of the busier and of the flatter half of the patches, of the frame, and of its quantiser."""
    half = len(look.patches) // 2
    known = np.isfinite(look.quantiser)
    coded = (look.quantiser if known else UNKNOWN, known and not look.mpeg, known and look.mpeg)
    return np.array(
        [*_group(look.patches[:half]), *_group(look.patches[half:]), *look.busy, *look.rhythm, *coded], np.float32
    )


def _group(patches: np.ndarray) -> list[float]:
    lying = patches.reshape(-1, SIDE)  # one under another; and the same turned: a step along is a step across
    turned = np.ascontiguousarray(patches.transpose(0, 2, 1)).reshape(-1, SIDE)
    both = np.concatenate([lying, turned])
    found, steps = _steps(both)
    return [*found, *_edges(both, steps), *_pyramid(lying), *_light(patches)]


def _steps(both: np.ndarray) -> tuple[list[float], np.ndarray]:
    """How much pixels differ that lie so far apart, how steps are spread, and how much stronger they are on a grid."""
    count = len(both)
    means = [cv2.norm(both[:, lag:], both[:, :-lag], cv2.NORM_L1) / (count * (SIDE - lag)) for lag in LAGS]
    logs = [float(np.log(mean + EPS)) for mean in means]
    found = [logs[0], logs[1] - logs[0], logs[2] - logs[1], logs[3] - logs[1], logs[4] - logs[3], logs[5] - logs[4]]
    steps = cv2.absdiff(both[:, 1:], both[:, :-1])
    shares = np.cumsum(cv2.calcHist([steps], [0], None, [256], [0, 256])[:, 0]) / steps.size
    found += [shares[0], shares[1], shares[3], float(np.log1p(np.searchsorted(shares, 0.99)))]
    wide = both.astype(np.float32)
    second = cv2.filter2D(wide, cv2.CV_32F, np.float32([[1, -2, 1]]))[:, 1:-1]
    fourth = cv2.filter2D(wide, cv2.CV_32F, np.float32([[1, -4, 6, -4, 1]]))[:, 2:-2]
    bend, bend2 = (cv2.norm(part, cv2.NORM_L1) / part.size for part in (second, fourth))
    found += [float(np.log(bend + EPS)) - logs[0], float(np.log(bend2 + EPS) - np.log(bend + EPS))]
    columns = cv2.reduce(steps, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0]
    on, off = (SHARES @ columns + EPS).reshape(2, -1)
    found += np.log(on / off).tolist()
    profile = np.log(cv2.reduce(np.abs(second), 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[0] + EPS)
    waves = np.sort(np.abs(np.fft.rfft((profile - profile.mean()) * WINDOW))[4:])
    middle = (waves[(len(waves) - 1) // 2] + waves[len(waves) // 2]) / 2
    found += [float(np.log(waves[-1] / (middle + 1e-3) + 1e-3)), float(np.log(profile.std() + 1e-2))]
    return found, steps


def _edges(both: np.ndarray, steps: np.ndarray) -> list[float]:
    """The steepest step of a block over its range, where ranges are largest, middling and smallest: width of edges."""
    found: list[float] = []
    ways = cv2.REDUCE_MAX, cv2.REDUCE_MIN, cv2.REDUCE_MAX
    blocks = [_filled(both[:, :-1]), _filled(both[:, :-1]), _filled(steps)]
    for step in (BLOCKS[0], BLOCKS[1] // BLOCKS[0]):  # the larger blocks are made of the smaller ones
        blocks = [_reduced(picture, step, way) for way, picture in zip(ways, blocks, strict=True)]
        high, low, steep = (picture.astype(np.float32).ravel() for picture in blocks)
        span = high - low
        order = np.argsort(span)
        part = len(order) // 4
        ratio = (steep / (span + 2))[order]
        span = span[order]
        found += [_mean(ratio[-part:]), _mean(np.sort(ratio[-2 * part :])[-part // 2 :]), _mean(ratio[:part])]
        found += [float(np.log1p(_mean(span[-part:]))), float(np.log1p(span[len(span) // 2])),
                  float(np.log(_mean(span[:part]) + 0.5))]  # fmt: skip
    return found


def _filled(columns: np.ndarray) -> np.ndarray:
    """[n, SIDE] of [n, SIDE - 1]: the last column once more."""
    return np.concatenate([columns, columns[:, -1:]], axis=1)


def _reduced(picture: np.ndarray, step: int, way: int) -> np.ndarray:
    """The largest or least value of each block of `step` pixels."""
    rows = (np.maximum if way == cv2.REDUCE_MAX else np.minimum).reduce(picture.reshape(-1, step, picture.shape[1]), 1)
    return cv2.reduce(rows.reshape(-1, step), 1, way).reshape(len(rows), -1)


def _mean(values: np.ndarray) -> float:
    """Of float32 [n]: numpy's own spends more on checks than on so few values."""
    return float(np.add.reduce(values)) / len(values)


def _pyramid(lying: np.ndarray) -> list[float]:
    """Detail of three scales, diagonal against straight, and how the finest diagonal detail is spread."""
    found: list[float] = []
    low, before = lying.astype(np.float32), 0.0
    for level in range(LEVELS):
        a, b, c, d = low[::2, ::2], low[::2, 1::2], low[1::2, ::2], low[1::2, 1::2]
        top, bottom, left, right = a + b, c + d, a - b, c - d
        diagonal = cv2.absdiff(left, right) / 2
        straight = cv2.norm(top, bottom, cv2.NORM_L1) + cv2.norm(left + right, cv2.NORM_L1)
        fine = float(np.log(straight / (4 * a.size) + EPS))
        found += [float(np.log(cv2.mean(diagonal)[0] + EPS)) - fine, fine - before]
        if level == 0:
            shares = np.cumsum(cv2.calcHist([diagonal], [0], None, [128], [0, 64])[:, 0]) / diagonal.size
            middle, most, rare = (np.searchsorted(shares, share) / 2 for share in (0.5, 0.9, 0.99))
            found += [shares[0], float(np.log(middle + 0.5)), float(np.log((most + 0.5) / (middle + 0.5))),
                      float(np.log((rare + 0.5) / (most + 0.5)))]  # fmt: skip
        before, low = fine, (top + bottom) / 4
    return found


def _light(patches: np.ndarray) -> list[float]:
    mean, deviation = cv2.meanStdDev(patches.reshape(-1, SIDE))
    return [float(np.log(deviation[0, 0] + EPS)), float(mean[0, 0]) / 255]
