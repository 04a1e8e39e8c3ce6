"""Clips in bins: each column's histogram, and every clip's bin, by which any selection of clips is counted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from rushes.pipelines.view.histograms import TAIL, drawn_range

BINS = 100  # of a histogram; bin BINS holds the nulls
BLOCK = 1 << 16  # clips at a time: their values and bins fit a core's cache
COUNTED_AT_ONCE = 1 << 20  # OpenCV's counts are floats: exact to 2^24
THREADS = min(4, os.cpu_count() or 1)
SAMPLED = 200_000  # clips from which the range of a histogram is taken


@dataclass(frozen=True)
class Binned:
    """A column's histogram: edges [BINS + 1], counts [BINS] of all clips, and how many have no value."""

    edges: np.ndarray
    counts: np.ndarray
    nulls: int


class Bins:
    """codes: uint8 [columns, N], every clip's bin; BINS: it has no value. binned: by column, once it was put in."""

    def __init__(self, rows: int, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.codes = np.empty((len(self.columns), rows), np.uint8)
        self.binned: dict[str, Binned] = {}

    def copy(self) -> Bins:
        other = Bins(0, self.columns)
        other.codes, other.binned = self.codes.copy(), dict(self.binned)
        return other

    def of(self, column: str) -> np.ndarray:
        return self.codes[self.columns.index(column)]

    def put(self, column: str, values: np.ndarray, low: float, high: float) -> None:
        """A column's values [N]; what lies beyond low and high is counted in the outermost bins."""
        codes = self.of(column)
        first, scale = values.dtype.type(low), values.dtype.type(BINS / (high - low))

        def work(begin: int) -> np.ndarray:
            some = slice(begin, begin + BLOCK)
            scaled = (values[some] - first) * scale
            nulls = np.isnan(scaled)
            np.clip(scaled, 0, BINS - 1, out=scaled)
            scaled[nulls] = BINS
            codes[some] = scaled
            return counted(codes[some])

        counts = sum(each(work, range(0, len(values), BLOCK)), np.zeros(BINS + 1, np.int64))
        edges = np.linspace(low, high, BINS + 1)
        self.binned[column] = Binned(edges, counts[:BINS], int(counts[BINS]))

    def put_all(self, column: str, values: np.ndarray, lines: Sequence[float]) -> None:
        """As `put`, over a range that shows the values and these thresholds."""
        some = values[:: max(1, len(values) // SAMPLED)]
        some = some[np.isfinite(some)]
        if len(some):
            first, last = np.quantile(some, [TAIL, 1 - TAIL])
            facts = {"min": float(np.nanmin(values)), "max": float(np.nanmax(values)), "first": first, "last": last}
            low, high = drawn_range(facts, list(lines))
        else:
            low, high = min([0.0, *lines]), max([1.0, *lines])
        self.put(column, values, low, high if high > low else low + 1.0)

    def inside(self, places: np.ndarray) -> np.ndarray:
        """int64 [columns, BINS]: the histogram of the clips at these places, of every column."""
        return np.array([counted(codes[places])[:BINS] for codes in self.codes]).reshape(-1, BINS)

    def pairs(self, x: str, y: str, clips: np.ndarray | None = None) -> np.ndarray:
        """int64 [BINS, BINS]: clips by bin of y, then of x."""
        xs, ys = self.of(x), self.of(y)
        if clips is not None:
            xs, ys = xs[clips], ys[clips]
        joined = np.bincount(ys.astype(np.intp) * (BINS + 1) + xs, minlength=(BINS + 1) ** 2)
        return joined.reshape(BINS + 1, BINS + 1)[:BINS, :BINS]


def each(work: Callable[[int], object], begins: Sequence[int]) -> Iterator:
    """work(begin) of each, in order, on some threads where there is more than one."""
    if len(begins) < 2:
        yield from map(work, begins)
        return
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(work, begins)


def counted(codes: np.ndarray, size: int = BINS + 1) -> np.ndarray:
    """int64 [size]: how often each byte occurs. OpenCV counts bytes three times as fast as numpy.bincount."""
    found = np.zeros(256, np.int64)
    for begin in range(0, len(codes), COUNTED_AT_ONCE):
        some = np.ascontiguousarray(codes[begin : begin + COUNTED_AT_ONCE]).reshape(1, -1)
        found += cv2.calcHist([some], [0], None, [256], [0, 256])[:, 0].astype(np.int64)
    return found[:size]
