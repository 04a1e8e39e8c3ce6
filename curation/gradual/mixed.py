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
WAIT = REACH + EVERY * HEAD  # pictures that are seen, or stand for those that are not, on either side of one answered
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
    """Looks at a film's pictures where it is asked to, in batches; leaves the track `mixed` `wait` pictures later.

    A track is NaN where nothing was asked, or where the net does not look: at one in EVERY or so of the pictures on the
    grid of time. The first and the last picture of a film stand for what would be before and after them.
    """

    def __init__(self, wait: int) -> None:
        self._wait = wait
        self._luma: np.ndarray | None = None  # pictures uint8 [n, h, w] that are needed still
        self._at = np.empty(0, int)  # places among them of those that the net may look at, HEAD that are done first
        self._frames = np.empty(0, int)  # their frames
        self._asked = np.empty(0, bool)
        self._open: list[list[int]] = []  # moments after which no picture came yet that may be looked at
        self._told = self._shown = 0  # frames that were answered, and that came

    def observe(
        self, pictures: np.ndarray, places: np.ndarray, looked: np.ndarray, frames: int, asked: np.ndarray
    ) -> np.ndarray:
        """float32 [answered].

        pictures: uint8 [n, h, w], at these places among the next `frames`; looked: bool [n], which may be looked at;
        asked: int [k, 2], first and last frames of moments, counted from the first of these frames.
        """
        if len(pictures):
            if self._luma is None:
                self._add(np.repeat(pictures[:1], WAIT, axis=0), np.arange(REACH, WAIT, EVERY), np.full(HEAD, -1))
            self._add(pictures, np.flatnonzero(looked), self._shown + places[looked])
        moments = self._open + (self._shown + asked).tolist()
        for first, last in moments:
            # With the ones beside them: frames that are not looked at lie between two.
            low = max(HEAD, int(np.searchsorted(self._frames, first, "right")) - 1)
            self._asked[low : int(np.searchsorted(self._frames, last)) + 1] = True
        self._open = [moment for moment in moments if not len(self._frames) or moment[1] > self._frames[-1]]
        self._shown += frames
        return self._answered(self._wait)

    def finish(self) -> np.ndarray:
        """Of the frames that wait still."""
        if self._luma is None:
            return np.full(self._shown, np.nan, np.float32)
        last = np.repeat(self._luma[-1:], WAIT, axis=0)
        self._add(last, np.arange(EVERY - 1, EVERY * HEAD, EVERY), np.full(HEAD, self._shown))
        found = self._answered(0)
        return np.append(found, np.full(self._shown - self._told, np.nan, np.float32))

    def _add(self, pictures: np.ndarray, at: np.ndarray, frames: np.ndarray) -> None:
        old = 0 if self._luma is None else len(self._luma)
        self._at, self._frames = np.append(self._at, old + at), np.append(self._frames, frames)
        self._asked = np.append(self._asked, np.zeros(len(at), bool))
        self._luma = pictures if self._luma is None else np.concatenate([self._luma, pictures])

    def _answered(self, wait: int) -> np.ndarray:
        """The track up to the next frame that waits: for what is needed on either side, or for somebody to ask."""
        shown = 0 if self._luma is None else len(self._luma)
        ready = int((self._at + REACH < shown).sum())
        stop = max(HEAD, min(ready - HEAD, int((self._at + wait < shown).sum())))
        waiting = self._frames[stop:]
        until = max(self._told, min(int(waiting[0]), self._shown) if len(waiting) else self._told)
        track = np.full(until - self._told, np.nan, np.float32)
        if stop > HEAD:
            asked = np.flatnonzero(self._asked[:stop])
            track[self._frames[asked] - self._told] = self._judged(asked)
            kept = stop - HEAD
            begin = self._at[kept] - REACH
            self._luma, self._at = self._luma[begin:], self._at[kept:] - begin
            self._frames, self._asked = self._frames[kept:], self._asked[kept:]
            self._asked[:HEAD] = False
        self._told = until
        return track

    def _judged(self, asked: np.ndarray) -> np.ndarray:
        """Probabilities float32 [n] of those asked for; looks that several of them need are made once."""
        found = []
        for some in np.split(asked, np.flatnonzero(np.diff(asked) > 2 * HEAD) + 1):
            if len(some):
                at = self._at[some[0] - HEAD : some[-1] + HEAD + 1]
                luma = self._luma[at[0] - REACH : at[-1] + REACH + 1]
                found.append(judged(looks(luma, at - at[0] + REACH))[some - some[0]])
        return np.concatenate(found) if found else np.empty(0, np.float32)
