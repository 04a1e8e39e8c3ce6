"""How likely each picture lies inside a gradual transition, by a small net (mixed.npz) that looks at cells of it.

The cells (cells.py) go through three layers, their mean and their largest values through three more over time. It was
taught on windows that are mixed, as they are needed, from takes of the fitting half of the footage:
`python -m tests.accuracy.mixed_fit`. A few matrix products: NumPy is all that is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from rushes.curation.gradual.cells import REACH, cells

MODEL = Path(__file__).with_name("mixed.npz")
TAPS = 5  # pictures that are looked at, of each of two layers over time
HEAD = TAPS - 1  # so many of those looked at, on either side, are asked for one answer
EVERY = 2  # pictures of the grid of time from one that is looked at to the next
WAIT = REACH + EVERY * HEAD  # pictures that are seen before one is answered for
ARRAYS = ("cell", "around", "cell_out", "time", "time_out", "answer")  # each has a bias of its own


@dataclass(frozen=True)
class Layer:
    """weights: float32 [out, in]; bias: float32 [out, 1].

    Each picture has a product of its own, so that its answer does not depend on how many are looked at together.
    """

    weights: np.ndarray
    bias: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """float32 [n, out, k] of [n, in, k]."""
        out = np.matmul(self.weights, values)
        out += self.bias
        return out

    def lit(self, values: np.ndarray) -> np.ndarray:
        out = self(values)
        return np.maximum(out, 0, out=out)


def looks(luma: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What the cells of each picture come to: float32 [n, features]. luma: uint8 [pictures, h, w]."""
    cell, around, cell_out, *_ = _layers()
    told = cells(luma, places)
    count, _, rows, columns = told.shape
    inner = cell.lit(told.reshape(count, -1, rows * columns)).reshape(count, -1, rows, columns)
    padded = np.pad(inner, ((0, 0), (0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, :, y : y + rows, x : x + columns] for y in range(3) for x in range(3)]
    mixed = around.lit(np.stack(shifted, axis=2).reshape(count, -1, rows * columns))
    of = cell_out.lit(mixed)
    return np.concatenate([of.mean(axis=2), of.max(axis=2)], axis=1)


def judged(seen: np.ndarray) -> np.ndarray:
    """Probabilities float32 [n - 2 HEAD] of looks [n, features] in a row: of all but HEAD at either end."""
    *_, first, second, answer = _layers()
    for layer in (first, second):
        count = len(seen) - TAPS + 1
        taps = np.concatenate([seen[tap : tap + count] for tap in range(TAPS)], axis=1)
        seen = layer.lit(taps[:, :, None])[:, :, 0]
    return (1 / (1 + np.exp(-answer(seen[:, :, None])[:, 0, 0]))).astype(np.float32)


@cache
def _layers() -> tuple[Layer, ...]:
    with np.load(MODEL, allow_pickle=False) as file:
        return tuple(
            Layer(file[name].astype(np.float32), file[f"{name}_bias"].astype(np.float32)[:, None]) for name in ARRAYS
        )


class Mixed:
    """Looks at a film's pictures in batches; leaves the track `mixed` some frames later, NaN where it does not look.

    pictures: those on the grid of time, of which one in EVERY or so is looked at. The first and the last of a film
    stand for what would be before and after them.
    """

    def __init__(self) -> None:
        self._luma: np.ndarray | None = None  # pictures uint8 [n, h, w] that are needed still
        self._looked = np.empty(0, int)  # places among them of those that are to be looked at
        self._seen: np.ndarray | None = None  # looks [n, features], the last 2 HEAD
        self._frames = np.empty(0, int)  # of the looked at that wait for an answer
        self._told = self._shown = 0  # frames that were answered, and that came

    def observe(self, pictures: np.ndarray, places: np.ndarray, looked: np.ndarray, frames: int) -> np.ndarray:
        """float32 [answered]. pictures: uint8 [n, h, w], at these places among the next `frames`; looked: bool [n]."""
        if self._luma is None and len(pictures):
            first = np.repeat(pictures[:1], WAIT, axis=0)
            self._add(first, np.arange(REACH, len(first), EVERY))
        self._frames = np.append(self._frames, self._shown + places[looked])
        self._shown += frames
        if len(pictures):
            self._add(pictures, np.flatnonzero(looked))
        return self._answered(self._look())

    def finish(self) -> np.ndarray:
        """Of the frames that wait still."""
        if self._luma is None:
            return np.full(self._shown, np.nan, np.float32)
        last = np.repeat(self._luma[-1:], WAIT, axis=0)
        self._add(last, np.arange(EVERY - 1, EVERY * HEAD, EVERY))
        found = self._answered(self._look())
        return np.append(found, np.full(self._shown - self._told, np.nan, np.float32))

    def _add(self, pictures: np.ndarray, looked: np.ndarray) -> None:
        old = 0 if self._luma is None else len(self._luma)
        self._looked = np.append(self._looked, old + looked)
        self._luma = pictures if self._luma is None else np.concatenate([self._luma, pictures])

    def _look(self) -> np.ndarray:
        """Probabilities of the next that are to be answered, in order."""
        if self._luma is None:
            return np.empty(0, np.float32)
        ready = self._looked[self._looked + REACH < len(self._luma)]
        if not len(ready):
            return np.empty(0, np.float32)
        self._looked = self._looked[len(ready) :]
        fresh = looks(self._luma[ready[0] - REACH : ready[-1] + REACH + 1], ready - ready[0] + REACH)
        seen = fresh if self._seen is None else np.concatenate([self._seen, fresh])
        self._seen = seen[-2 * HEAD :]
        kept = (self._looked[0] if len(self._looked) else len(self._luma)) - REACH
        kept = max(0, min(kept, len(self._luma) - REACH))
        self._luma, self._looked = self._luma[kept:], self._looked - kept
        return judged(seen) if len(seen) > 2 * HEAD else np.empty(0, np.float32)

    def _answered(self, found: np.ndarray) -> np.ndarray:
        """The track up to the next frame that waits for an answer."""
        frames, self._frames = self._frames[: len(found)], self._frames[len(found) :]
        stop = int(self._frames[0]) if len(self._frames) else self._shown
        track = np.full(stop - self._told, np.nan, np.float32)
        track[frames - self._told] = found
        self._told = stop
        return track
