"""Which frame a still shows: the first of its second, or one with text that the frames before it do not have.

Text that stands for half a second falls between two stills. A map of thin strokes of the small luma, four times a
second, says where strokes are new beside the two seconds before; the moment that has most of them in one line is the
still's.
"""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.visual.text import strongest_line

PER_S = 4.0  # moments a second that are compared
SQUARE = np.ones((3, 3), np.uint8)  # letters of a subtitle are lines of a pixel in the small luma
CONTRAST = 16  # grey levels by which a stroke stands out from both of its sides
CELL_PX = (4, 8)  # height and width of a cell of the map, pixels: about two letters of a subtitle
PAST = 8  # maps before a moment that say what is usual
PAST_MIN = 2  # fewer say nothing
FRESH = 0.25  # share of a cell by which a moment must have more new strokes than the second's first frame
NEW_CELL, NEW_PICTURE = 0.12, 0.3  # share of a cell, and of all cells, from which this is another picture


class Strokes:
    """Tells of moments in order of time how many strokes are new in the line that has most of them."""

    def __init__(self, turned: bool = False) -> None:
        """turned: pictures lie on their side."""
        self._turned = turned
        self._past = np.empty((PAST, 0, 0), np.uint8)  # maps, the oldest is overwritten
        self._seen = 0

    def fresh(self, luma: np.ndarray) -> float:
        """Share of a cell, 0 to 1; NaN after a cut or the begin. luma: uint8 [h, w], longer side about 160."""
        now = _map(luma.T if self._turned else luma)
        if self._past.shape[1:] != now.shape:
            self._past, self._seen = np.empty((PAST, *now.shape), np.uint8), 0
        new = np.nan
        if self._seen >= PAST_MIN:
            known = min(self._seen, PAST)
            usual = np.partition(self._past[:known], known // 2, axis=0)[known // 2]
            more = cv2.subtract(now, usual)
            if np.count_nonzero(more > NEW_CELL * 255) > NEW_PICTURE * more.size:
                self._seen = 0
            else:
                new = float(strongest_line(more[None].astype(np.float32))[0]) / 255
        self._past[self._seen % PAST] = now
        self._seen += 1
        return new


def _map(luma: np.ndarray) -> np.ndarray:
    """Share of each cell covered by thin strokes, uint8 [rows, columns]: 255 is all of it."""
    bright, dark = (cv2.morphologyEx(luma, how, SQUARE) for how in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))
    strokes = cv2.threshold(cv2.max(bright, dark), CONTRAST, 255, cv2.THRESH_BINARY)[1]
    rows, columns = (max(1, side // cell) for side, cell in zip(luma.shape, CELL_PX, strict=True))
    whole = strokes[: rows * CELL_PX[0], : columns * CELL_PX[1]]  # cells of whole pixels are averaged fast
    return cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
