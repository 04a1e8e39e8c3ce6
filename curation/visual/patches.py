"""Patches: small pieces of a picture at its native resolution, where compression, noise and up-scaling show.

Stills are shrunk and written as JPEG: both hide what they should tell. A few patches of 64 x 64 luma pixels are copied
from the decoder's memory on a frame now and then, with what only the whole frame tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

PER_S = 0.5  # frames a second that patches are taken of
SIDE = 64  # pixels of a patch: eight blocks of the old codecs, four macroblocks of H.264
GRID = 16  # patches begin at multiples of a macroblock
#: Which patches are taken, of all from the flattest (0) to the busiest (1): grain and bands show in flat ones.
RANKS = (1.0, 0.95, 0.85, 0.7, 0.5, 0.2)
BLANK = 0.3  # grey levels between neighbours below which a place is blank, as in a black bar; used only where all are
BUSY = 4  # numbers of Look.busy
LINES = 48  # rows and columns whose rhythm is looked at
WAVES_FROM = 0.12  # cycles a pixel: slower ones are the picture's own
GRIDS = (1 / 8, 1 / 4, 3 / 8, 1 / 2)  # cycles a pixel of the edges that codecs leave
AROUND = 9  # pixels of the moving mean that is taken off
RHYTHM = 2 * (2 + len(GRIDS))  # numbers of Look.rhythm
FLOOR = 0.05  # grey levels added before a logarithm


@dataclass(frozen=True)
class Look:
    """One frame's patches, uint8 [n, SIDE, SIDE], the busiest first, and what the whole frame tells.

    busy: log mean step of the busiest, the middle and the flattest place, and of all. rhythm: `rhythm` of the frame.
    quantiser: that of H.264, or MPEG's on its scale, NaN where the codec tells none; mpeg: whether it is MPEG's.
    """

    patches: np.ndarray
    busy: np.ndarray
    rhythm: np.ndarray
    quantiser: float = np.nan
    mpeg: bool = False


def look(luma: np.ndarray, quantiser: float = np.nan, mpeg: bool = False) -> Look | None:
    """Of uint8 luma [h, w]; None where it is smaller than a patch."""
    at, busy = places(luma)
    if not at:
        return None
    return Look(cut(luma, at), busy, rhythm(luma), quantiser, mpeg)


def places(luma: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """(x, y) of the patches of a picture, chosen by how much its pixels differ from their neighbours, and Look.busy."""
    height, width = luma.shape
    columns, rows = width // SIDE, height // SIDE
    if not columns or not rows:
        return [], np.full(BUSY, np.log(FLOOR), np.float32)
    xs, ys = _starts(columns, width), _starts(rows, height)
    some = luma[::2]  # every second row
    steps = cv2.absdiff(some[:, 1:], some[:, :-1])
    busy = np.array([cv2.mean(steps[y // 2 : (y + SIDE) // 2, x : x + SIDE - 1])[0] for y in ys for x in xs])
    order = np.argsort(busy, kind="stable")
    ordered = busy[order]
    shown = order[np.searchsorted(ordered, BLANK) :] if ordered[-1] >= BLANK else order
    chosen = [int(shown[round(rank * (len(shown) - 1))]) for rank in RANKS]
    told = np.log(np.array([ordered[-1], ordered[len(order) // 2], ordered[0], busy.mean()]) + FLOOR)
    return [(xs[n % columns], ys[n // columns]) for n in chosen], told.astype(np.float32)


def _starts(count: int, length: int) -> list[int]:
    """Where `count` patches begin, spread over the whole length, on GRID."""
    step = (length - SIDE) / max(1, count - 1)
    return [int(number * step) // GRID * GRID for number in range(count)]


def cut(luma: np.ndarray, at: Sequence[tuple[int, int]]) -> np.ndarray:
    """uint8 [patches, SIDE, SIDE], copied."""
    return np.stack([luma[y : y + SIDE, x : x + SIDE] for x, y in at])


def rhythm(luma: np.ndarray) -> np.ndarray:
    """float32 [RHYTHM]: how strongly the second difference of pixels waxes and wanes along rows and along columns.

    Enlarging leaves a wave of the factor's own frequency (Gallagher 2005): the strongest wave off the codecs' grids
    over the median one, its frequency, and the strength at each of GRIDS.
    """
    return np.array([*_waves(luma), *_waves(luma.T)], np.float32)


def _waves(lines: np.ndarray) -> list[float]:
    some = np.ascontiguousarray(lines[:: max(1, len(lines) // LINES)]).astype(np.int16)
    bend = np.abs(some[:, 2:] - 2 * some[:, 1:-1] + some[:, :-2]).mean(axis=0)
    profile = np.log(bend + 0.1)
    edge = np.ones(AROUND // 2)
    padded = np.concatenate([edge * profile[0], profile, edge * profile[-1]])
    sums = np.cumsum(np.concatenate([[0.0], padded]))
    window, at, fast, off, near = _frequencies(len(profile))
    waves = np.abs(np.fft.rfft((profile - (sums[AROUND:] - sums[:-AROUND]) / AROUND) * window))
    ordered = np.sort(waves[fast])
    middle = float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2 + 1e-6
    best = int((waves * off).argmax())
    strengths = [waves[best] * off[best], *(waves[grid].max() for grid in near)]
    told = np.log(np.array(strengths) / middle + 1e-6).tolist()
    return [told[0], float(at[best]), *told[1:]]


@lru_cache(maxsize=16)
def _frequencies(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Of a profile: its window, cycles a pixel of its waves, which are fast, which are off GRIDS, which at each."""
    at = np.arange(length // 2 + 1) / length
    apart = np.abs(at[:, None] - GRIDS)
    fast, near = at > WAVES_FROM, 1.5 / length
    return np.hanning(length), at, fast, fast & (apart.min(axis=1) > near), list((apart <= near).T)
