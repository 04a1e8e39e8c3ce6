"""Doubts: moments that may be a cut or a transition, though the marks of scenes.py, which are to be right, pass them.

A mark ends a shot, and a false one makes two shots of one. A doubt costs little: clips are planned around it, and the
clip's row says how doubtful its worst moment is. Doubts of a change over some time are the tracks `doubt_first` and
`doubt` (gradual/doubts.py). A change from one frame to the next is doubtful where it nearly stands out as a cut's does
(scenes_spikes.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

#: A less strong blend, of which a weighted sum leaves more, is a mark only where something so doubtful overlaps it.
STRONG, SUPPORT_MIN = 0.8, 0.4
#: A gradual mark grows to hold what is so doubtful beside it: a fade's slow ends.
GROWN_MIN = 0.5
#: A change from one frame to the next is doubtful from this spike on, and surely so at the other one.
SPIKES = (1.1, 1.6)
#: What the forest doubts less is as doubtful as it says; of more the net, which is dear, is asked.
ASKED_MIN = 0.25
WITHIN = 0.5  # share of a gradual change, in its middle, in which the net is asked whether a frame is mixed
MARGIN = 3  # frames on either side that are doubtful with it


def middles(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Of changes between these frames the middle part, in which the net is asked: first and last frame, int [n, 2]."""
    middle, half = (first + last) / 2, (last - first) / 2 * WITHIN
    return np.stack([np.floor(middle - half), np.floor(middle + half)], axis=-1).astype(int)


def _gradual(tracks: Tracks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames [first, stop) of every change over some time, and how doubtful it is.

    That is the geometric mean of what the forest says of the change as a whole, and the net of the likeliest of the
    frames in its middle: each is misled where the other is not. The net is asked from ASKED_MIN on.
    """
    (ends,) = np.nonzero(np.isfinite(tracks["doubt"]))
    first = np.maximum(ends + tracks["doubt_first"][ends].astype(int), 0)
    if not len(ends):
        return first, ends, np.empty(0)
    (looked,) = np.nonzero(np.isfinite(tracks["mixed"]))
    if not len(looked):
        return first, ends + 1, tracks["doubt"][ends].astype(float)
    mixed = np.interp(np.arange(tracks.frames), looked, tracks["mixed"][looked])
    likeliest = np.array([mixed[low : high + 1].max() for low, high in middles(first, ends).tolist()])
    doubt = tracks["doubt"][ends].astype(float)
    return first, ends + 1, np.where(doubt < ASKED_MIN, doubt, np.sqrt(doubt * likeliest))


@dataclass(frozen=True)
class Doubts:
    """Moments in order of their begin: frames [first, stop), int [n], and how doubtful, 0-1, float [n]."""

    first: np.ndarray
    stop: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, tracks: Tracks, gradual: bool = True) -> Doubts:
        """All of a file; gradual: those of a change over some time as well."""
        frames = np.flatnonzero(tracks["spike"] > SPIKES[0])
        first, stop = np.maximum(frames - MARGIN, 0), np.minimum(frames + MARGIN, tracks.frames)
        value = np.clip((tracks["spike"][frames] - SPIKES[0]) / (SPIKES[1] - SPIKES[0]), 0, 1).astype(float)
        if gradual:
            begins, ends, doubt = _gradual(tracks)
            first, stop, value = (np.append(*two) for two in ((begins, first), (ends, stop), (doubt, value)))
        order = np.argsort(first, kind="stable")
        return cls(first[order], stop[order], value[order])

    def those(self, chosen: np.ndarray) -> Doubts:
        return Doubts(self.first[chosen], self.stop[chosen], self.value[chosen])

    def within(self, shots: list[tuple[int, int]]) -> Doubts:
        """Those that lie in a single shot: a mark explains the others."""
        begins, ends = np.array(shots, int).reshape(-1, 2).T
        shot = np.searchsorted(begins, self.first, side="right") - 1
        return self.those((shot >= 0) & (self.stop <= ends[shot]))

    def between(self, cuts: list[int]) -> Doubts:
        """Those that hold no cut."""
        before = (np.searchsorted(cuts, edge, "right") for edge in (self.first, self.stop - 1))
        return self.those(np.equal(*before))

    def worst(self, first: int, stop: int) -> float:
        """The largest of those whose middle lies in frames [first, stop); 0 where there is none."""
        middles = (self.first + self.stop) // 2
        return float(self.value[(middles >= first) & (middles < stop)].max(initial=0.0))

    def spans(self, least: float) -> list[tuple[int, int]]:
        """Frames [first, stop) of those of at least `least`, joined where they overlap."""
        found: list[tuple[int, int]] = []
        chosen = self.value >= least
        for first, stop in sorted(zip(self.first[chosen].tolist(), self.stop[chosen].tolist(), strict=True)):
            if found and first <= found[-1][1]:
                found[-1] = found[-1][0], max(found[-1][1], stop)
            else:
                found.append((first, stop))
        return found

    def supported(self, found: list[tuple[int, int, float]], cuts: list[int]) -> list[tuple[int, int, float]]:
        """Those of the transitions (first, stop, strength) that are strong, or that something doubtful overlaps: more
        than a cut beside them."""
        sure = self.those(self.value >= SUPPORT_MIN).between(cuts)

        def overlapped(first: int, stop: int) -> bool:
            return bool(((sure.first < stop) & (sure.stop > first)).any())

        return [
            (first, stop, strength) for first, stop, strength in found if strength >= STRONG or overlapped(first, stop)
        ]

    def grown(self, marks: list[tuple[int, int]], cuts: list[int]) -> list[tuple[int, int]]:
        """Gradual marks [first, stop), each with what is doubtful and overlaps it, unless it holds a cut."""
        free = self.those(self.value >= GROWN_MIN).between(cuts)
        found = []
        for first, stop in marks:
            beside = (free.first < stop) & (free.stop > first)
            found.append((int(free.first[beside].min(initial=first)), int(free.stop[beside].max(initial=stop))))
        return found
