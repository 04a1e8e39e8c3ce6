"""Cells: what a net is told of each part of a picture that may lie inside a transition (mixed.py).

A picture M is compared with A, some pictures before it, and B, as many after it. In a dissolve or a fade M is half of
each, pixel by pixel; where something moves it is one or the other, or neither. Residuals are taken at full size, since
what moves by less than a pixel of a smaller picture looks blended there, and their means over cells are kept.
"""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.gradual.explained import envelope

APART = (2, 4, 7, 12)  # pictures between M and A, and between M and B
REACH = APART[-1]  # pictures that are needed on either side
CELL = 4  # pixels, of a side
CONTRAST_FLOOR = 8.0  # grey levels that are added to the contrast by which all is divided
CHANNELS = 9 * len(APART) + 2


def cells(luma: np.ndarray, places: np.ndarray) -> np.ndarray:
    """float32 [n, CHANNELS, rows, columns] of the pictures at these places; luma: uint8 [pictures, h, w].

    Of each distance: the change from A to B; what M is off their mean; what it lies outside of both; its distance to
    the nearer; what of M lies outside of what is around it in A and in B; what of A and B does in each other; what
    the pictures half-way between A, M and B are off their share; the signed change; the mean detail of A and B. Then
    the detail of M, and its level. All but the level over the pictures' contrast.
    """
    shape, whole = luma.shape[1:], luma.reshape(len(luma), -1)
    low, high = (side.reshape(whole.shape) for side in _envelopes(luma))
    detail, level = _pooled([_detail(luma), whole], shape).swapaxes(0, 1)
    middle, maps, found = whole[places], [], []

    def strange(of: np.ndarray, beside: np.ndarray) -> np.ndarray:
        return cv2.max(cv2.subtract(whole[of], high[beside]), cv2.subtract(low[beside], whole[of]))

    for apart in APART:
        before, after, quarter = places - apart, places + apart, max(1, apart // 2)
        a, b = whole[before], whole[after]
        to_a, to_b, change = cv2.absdiff(middle, a), cv2.absdiff(middle, b), cv2.absdiff(a, b)
        share = 0.5 - quarter / (2 * apart)
        early = cv2.absdiff(whole[places - quarter], cv2.addWeighted(a, 1 - share, b, share, 0))
        late = cv2.absdiff(whole[places + quarter], cv2.addWeighted(a, share, b, 1 - share, 0))
        maps += [
            change,
            cv2.absdiff(middle, cv2.addWeighted(a, 0.5, b, 0.5, 0)),
            cv2.subtract(cv2.max(to_a, to_b), change),
            cv2.min(to_a, to_b),
            cv2.min(strange(places, before), strange(places, after)),
            cv2.min(strange(before, after), strange(after, before)),
            cv2.addWeighted(early, 0.5, late, 0.5, 0),
        ]
        found.append((level[after] - level[before], (detail[before] + detail[after]) / 2))
    pooled = _pooled(maps, shape)
    each = len(maps) // len(APART)
    told = np.empty((len(places), CHANNELS, *pooled.shape[2:]), np.float32)
    for number, two in enumerate(found):
        channel = number * (each + 2)
        told[:, channel : channel + each] = pooled[:, number * each : (number + 1) * each]
        told[:, channel + each], told[:, channel + each + 1] = two
    told[:, -2], told[:, -1] = detail[places], level[places] - 128
    told[:, :-1] *= 2 / (_contrast(whole, places) + CONTRAST_FLOOR)[:, None, None, None]
    told[:, -1] /= 128
    return told


def _envelopes(luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest value within a pixel, each uint8 [n, h, w]: all pictures at once, a rim between them."""
    stack = np.pad(luma, ((0, 0), (1, 1), (0, 0)), "edge")
    found = envelope(stack.reshape(-1, luma.shape[2]))
    low, high = (np.ascontiguousarray(side.reshape(stack.shape)[:, 1:-1]) for side in found)
    return low, high


def _detail(luma: np.ndarray) -> np.ndarray:
    """Absolute Laplacian, uint8 [n, h * w]."""
    how = "reflect" if luma.shape[1] > 1 else "edge"
    stack = np.pad(luma, ((0, 0), (1, 1), (0, 0)), how)
    edges = cv2.convertScaleAbs(cv2.Laplacian(stack.reshape(-1, luma.shape[2]), cv2.CV_16S))
    return np.ascontiguousarray(edges.reshape(stack.shape)[:, 1:-1]).reshape(len(luma), -1)


def _contrast(whole: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Mean spread of the pictures within REACH of each place, grey levels: float [n]."""
    spreads = np.array([cv2.meanStdDev(picture)[1][0, 0] for picture in whole])
    around = np.lib.stride_tricks.sliding_window_view(spreads, 2 * REACH + 1)[places - REACH]
    return around.mean(axis=1).astype(np.float32)


def _pooled(several: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Means over cells: float32 [n, maps, rows, columns] of maps uint8 [n, h * w]; what is left over at two sides is
    not seen."""
    rows, columns = (max(1, side // CELL) for side in shape)
    stack = np.stack(several, axis=1).reshape(-1, *shape)[:, : rows * CELL, : columns * CELL]
    tall = stack.reshape(-1, stack.shape[2]).astype(np.float32)
    small = cv2.resize(tall, (columns, len(stack) * rows), interpolation=cv2.INTER_AREA)
    return small.reshape(len(several[0]), len(several), rows, columns)
