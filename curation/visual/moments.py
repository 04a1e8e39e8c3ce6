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
    """Tells of moments, a still's second of them at a time, how many strokes are new in the line that has most."""

    def __init__(self, turned: bool = False) -> None:
        """turned: pictures lie on their side."""
        self._turned = turned
        self._past = np.empty((0, 0, 0), np.uint8)  # maps, the latest last

    def fresh(self, lumas: np.ndarray) -> np.ndarray:
        """Share of a cell, 0 to 1, of each moment; NaN at the file's begin and after a cut.

        lumas: uint8 [n, h, w] in order of time, longer side about 160.
        """
        maps = _maps(lumas.transpose(0, 2, 1) if self._turned else lumas)
        if self._past.shape[1:] != maps.shape[1:]:
            self._past = maps[:0]
        new, known = np.full(len(maps), np.nan, np.float32), len(self._past)
        if known >= PAST_MIN:
            usual = np.partition(self._past, known // 2, axis=0)[known // 2]
            more = np.maximum(maps, usual) - usual
            other = (more > NEW_CELL * 255).mean(axis=(1, 2)) > NEW_PICTURE
            new[~other] = strongest_line(more[~other].astype(np.float32)) / 255
            if other.any():
                self._past, maps = maps[:0], maps[int(np.argmax(other)) :]
        self._past = np.concatenate([self._past, maps])[-PAST:]
        return new


def _maps(lumas: np.ndarray) -> np.ndarray:
    """Share of each cell covered by thin strokes, uint8 [n, rows, columns]: 255 is all of it."""
    rows, columns = (max(1, side // cell) for side, cell in zip(lumas.shape[1:], CELL_PX, strict=True))
    # Cells of whole pixels do not reach into the next picture of the stack; only strokes at its rim do.
    stack = np.ascontiguousarray(lumas[:, : rows * CELL_PX[0]]).reshape(-1, lumas.shape[2])
    bright, dark = (cv2.morphologyEx(stack, how, SQUARE) for how in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT))
    strokes = cv2.threshold(cv2.max(bright, dark), CONTRAST, 255, cv2.THRESH_BINARY)[1][:, : columns * CELL_PX[1]]
    small = cv2.resize(strokes, (columns, len(lumas) * rows), interpolation=cv2.INTER_AREA)
    return small.reshape(len(lumas), rows, columns)
