"""Patches: small pieces of a picture at its native resolution, where compression, noise and up-scaling show.

Stills are shrunk and written as JPEG: both hide what they should tell. A few patches of 64 x 64 luma pixels are copied
from the decoder's memory on a frame now and then.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

PER_S = 0.5  # frames a second that patches are taken of
SIDE = 64  # pixels of a patch: eight blocks of the old codecs, four macroblocks of H.264
GRID = 16  # patches begin at multiples of a macroblock
#: Which patches are taken, of all from the flattest (0) to the busiest (1): grain and bands show in flat ones.
RANKS = (1.0, 0.9, 0.75, 0.6, 0.4, 0.2)
BLANK = 1.0  # grey levels of deviation below which a place is blank, as in a black bar; used only where all are


def places(small: np.ndarray, width: int, height: int) -> list[tuple[int, int]]:
    """(x, y) of the patches of a picture of width x height, chosen by its small luma; none where it is too small."""
    columns, rows = width // SIDE, height // SIDE
    if not columns or not rows:
        return []
    values = small.astype(np.float32)
    mean = cv2.resize(values, (columns, rows), interpolation=cv2.INTER_AREA)
    square = cv2.resize(values * values, (columns, rows), interpolation=cv2.INTER_AREA)
    busy = np.sqrt(np.maximum(square - mean * mean, 0)).ravel()
    order = np.argsort(busy, kind="stable")
    order = order[np.searchsorted(busy[order], BLANK) :] if busy.max() >= BLANK else order
    chosen = [int(order[round(rank * (len(order) - 1))]) for rank in RANKS]
    return [(_start(n % columns, columns, width), _start(n // columns, rows, height)) for n in chosen]


def _start(number: int, count: int, length: int) -> int:
    """Where patch `number` of `count` begins, spread over the whole length, on GRID."""
    step = (length - SIDE) / max(1, count - 1)
    return int(number * step) // GRID * GRID


def cut(luma: np.ndarray, at: Sequence[tuple[int, int]]) -> np.ndarray:
    """uint8 [patches, SIDE, SIDE], copied."""
    return np.stack([luma[y : y + SIDE, x : x + SIDE] for x, y in at])
