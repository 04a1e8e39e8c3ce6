"""Doubts: moments that may be a cut or a transition, though the marks of scenes.py, which are to be right, pass them.

A mark ends a shot, and a false one makes two shots of one. A doubt costs little: clips are planned around it, and the
clip's row says how doubtful its worst moment is. Doubts of a change over some time are the tracks `doubt_first` and
`doubt` (gradual/doubts.py); those of a change from one frame to the next are told from the tracks of the change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

#: Flashes: a cut whose frame before and the one so many frames on are nearly alike is none.
FLASH_FRAMES = 3
FLASH_SHARE = 0.5  # of the change at the cut; a flash leaves the motion of four frames
#: A gradual mark grows to hold what is so doubtful beside it: a fade's slow ends.
GROWN_MIN = 0.5
#: A change from one frame to the next is doubtful from so many times that of the frames around it, and surely so where
#: a cut is found. In both the content score and luma; a mean below RATIO_FLOOR grey levels counts as that.
RATIOS, RATIO_FLOOR = (1.8, 3.0), 0.5
AROUND = 2  # frames on either side
CHANGE_MIN = 5.0  # of the content score, 0-255
MARGIN = 3  # frames on either side that are doubtful with it


@dataclass(frozen=True)
class Doubts:
    """Moments in order of their begin: frames [first, stop), int [n], and how doubtful, 0-1, float [n]."""

    first: np.ndarray
    stop: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, tracks: Tracks, gradual: bool = True) -> Doubts:
        """All of a file; gradual: those of a change over some time as well."""
        frames, sudden = _sudden(tracks["content"], tracks["vmaf"])
        left = ~flash_edges(frames, tracks["content"], tracks["across"])
        frames, sudden = frames[left], sudden[left]
        first, stop = np.maximum(frames - MARGIN, 0), np.minimum(frames + MARGIN, tracks.frames)
        value = sudden
        if gradual:
            (ends,) = np.nonzero(np.isfinite(tracks["doubt"]))
            first = np.append(np.maximum(ends + tracks["doubt_first"][ends].astype(int), 0), first)
            stop, value = np.append(ends + 1, stop), np.append(tracks["doubt"][ends].astype(float), value)
        order = np.argsort(first, kind="stable")
        return cls(first[order], stop[order], value[order])

    def those(self, chosen: np.ndarray) -> Doubts:
        return Doubts(self.first[chosen], self.stop[chosen], self.value[chosen])

    def within(self, shots: list[tuple[int, int]]) -> Doubts:
        """Those that lie in a single shot: a mark explains the others."""
        begins, ends = np.array(shots, int).reshape(-1, 2).T
        shot = np.searchsorted(begins, self.first, side="right") - 1
        return self.those((shot >= 0) & (self.stop <= ends[shot]))

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

    def grown(self, marks: list[tuple[int, int]], cuts: list[int]) -> list[tuple[int, int]]:
        """Gradual marks [first, stop), each with what is doubtful and overlaps it, unless it holds a cut."""
        sure = self.those(self.value >= GROWN_MIN)
        free = sure.those(np.searchsorted(cuts, sure.first, "right") == np.searchsorted(cuts, sure.stop - 1, "right"))
        found = []
        for first, stop in marks:
            beside = (free.first < stop) & (free.stop > first)
            found.append((int(free.first[beside].min(initial=first)), int(free.stop[beside].max(initial=stop))))
        return found


def flash_edges(candidates: np.ndarray, content: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Whether the picture is FLASH_FRAMES later what it was before: bool [n], at both edges of a flash."""
    after = candidates + FLASH_FRAMES
    known = after < len(across)
    begins = candidates[known][across[after[known]] < FLASH_SHARE * content[candidates[known]]]
    flash = np.zeros(len(content) + FLASH_FRAMES + 1, bool)
    for shift in range(FLASH_FRAMES + 1):
        flash[begins + shift] = True
    return flash[candidates]


def _sudden(content: np.ndarray, luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames at which the picture may be cut, and how doubtful each is, 0-1. Both changes: float [frames]."""
    ratio = np.minimum(_over_around(content), _over_around(np.nan_to_num(luma)))
    frames = np.flatnonzero((ratio > RATIOS[0]) & (content >= CHANGE_MIN))
    return frames, np.clip((ratio[frames] - RATIOS[0]) / (RATIOS[1] - RATIOS[0]), 0, 1)


def _over_around(change: np.ndarray) -> np.ndarray:
    """A frame's change over the mean of those AROUND it: float [frames]."""
    padded = np.pad(change.astype(float), AROUND, mode="edge")
    shifts = [shift for shift in range(2 * AROUND + 1) if shift != AROUND]
    around = sum(padded[shift : shift + len(change)] for shift in shifts) / len(shifts)
    return change / np.maximum(around, RATIO_FLOOR)
