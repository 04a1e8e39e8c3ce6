"""Doubts: moments that may be a cut or a transition, though the marks of scenes.py, which are to be right, pass them.

A mark ends a shot, and a false one makes two shots of one. A doubt costs little: clips are planned around it, and the
clip's row says how doubtful its worst moment is. Doubts of a change over some time are the tracks `doubt_first` and
`doubt` (gradual/doubts.py). A change from one frame to the next is doubtful where it stands out among its neighbours,
no motion explains it, and it is not of one place alone, as a subtitle's is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from rushes.curation.gradual.doubts import block_sums
from rushes.curation.gradual.explained import unexplained
from rushes.curation.video.decode import shrink_stack

if TYPE_CHECKING:
    from rushes.curation.tracks import Tracks

#: Flashes: a cut whose frame before and the one so many frames on are nearly alike is none.
FLASH_FRAMES = 3
FLASH_SHARE = 0.5  # of the change at the cut; a flash leaves the motion of four frames
#: A gradual mark grows to hold what is so doubtful beside it: a fade's slow ends.
GROWN_MIN = 0.5
#: A change from one frame to the next is doubtful from so many times that of the frames around it, and surely so where
#: a cut is found. In both the content score and luma; a mean below RATIO_FLOOR grey levels counts as that.
RATIOS, RATIO_FLOOR = (1.7, 2.8), 0.5
AROUND = 2  # frames on either side
CHANGE_MIN = 5.0  # of the content score, 0-255
MARGIN = 3  # frames on either side that are doubtful with it
#: ... of which neither light nor motion explains so much: share of the change, and grey levels of the mean.
SHARE_MIN, LEVEL_MIN = 0.25, 1.2
SPREAD_MIN = 0.35  # its blocks' share of the picture: 1 where all change alike, a subtitle's 0.1 to 0.25


@dataclass(frozen=True)
class Doubts:
    """Moments in order of their begin: frames [first, stop), int [n], and how doubtful, 0-1, float [n]."""

    first: np.ndarray
    stop: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, tracks: Tracks, gradual: bool = True) -> Doubts:
        """All of a file; gradual: those of a change over some time as well."""
        frames, sudden = _sudden(tracks["content"], tracks["vmaf"], tracks["unexplained"])
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


class Sudden:
    """Looks at the pictures before and after what may be a cut, in batches: leaves the track `unexplained`.

    unexplained: share of the change to a frame that neither light nor motion explains, 0-1; NaN where it is no cut.
    Whether a change stands out is known AROUND frames later: so much later it answers.
    """

    def __init__(self) -> None:
        self._luma: np.ndarray | None = None  # of the frames that wait, and of the one before them
        self._content = np.zeros(AROUND)  # of the frames that wait, and of those AROUND before them

    def observe(self, tiny_luma: np.ndarray, content: np.ndarray) -> np.ndarray:
        """float32 [answered] of pictures uint8 [n, h, w] and their content scores [n]."""
        self._luma = tiny_luma if self._luma is None else np.concatenate([self._luma, tiny_luma])
        self._content = np.concatenate([self._content, content])
        return self._answered(self._content)

    def finish(self) -> np.ndarray:
        """Of the frames that wait still; the last one stands for those that would follow."""
        return self._answered(np.concatenate([self._content, np.repeat(self._content[-1:], AROUND)]))

    def _answered(self, series: np.ndarray) -> np.ndarray:
        count = len(series) - 2 * AROUND
        if count <= 0 or self._luma is None:
            return np.empty(0, np.float32)
        first = len(self._luma) - (len(self._content) - AROUND)  # where the waiting frames' pictures begin
        content, found = series[AROUND : AROUND + count], np.full(count, np.nan, np.float32)
        stands_out = content > RATIOS[0] * np.maximum(_around(series), RATIO_FLOOR)
        for place in np.flatnonzero(stands_out & (content >= CHANGE_MIN)).tolist():
            pair = self._luma[max(first + place - 1, 0)], self._luma[first + place]
            found[place] = _unexplained(*shrink_stack(np.stack(pair), 2))
        self._luma, self._content = self._luma[first + count - 1 :].copy(), self._content[count:]
        return found


def _unexplained(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the change that is unexplained, NaN where it is little or in one place."""
    blocks = block_sums(cv2.absdiff(a, b).reshape(1, -1), a.shape)[0]
    if blocks.sum() ** 2 < SPREAD_MIN * len(blocks) * (blocks * blocks).sum():
        return np.nan
    share, level = unexplained(a, b)
    return share if share >= SHARE_MIN and level >= LEVEL_MIN else np.nan


def _sudden(content: np.ndarray, luma: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames at which the picture may be cut, and how doubtful each is, 0-1.

    content, luma: change to each frame; left: what is unexplained of it, NaN where it is no cut. All float [frames].
    """
    ratio = np.minimum(*(_over_around(change) for change in (content, np.nan_to_num(luma))))
    frames = np.flatnonzero((ratio > RATIOS[0]) & (content >= CHANGE_MIN) & np.isfinite(left))
    return frames, np.clip((ratio[frames] - RATIOS[0]) / (RATIOS[1] - RATIOS[0]), 0, 1)


def _over_around(change: np.ndarray) -> np.ndarray:
    """A frame's change over the mean of those AROUND it: float [frames]."""
    return change / np.maximum(_around(np.pad(change.astype(float), AROUND, mode="edge")), RATIO_FLOOR)


def _around(padded: np.ndarray) -> np.ndarray:
    """Mean of AROUND values on either side of each: float [n] of [n + 2 AROUND]."""
    count = len(padded) - 2 * AROUND
    shifts = [shift for shift in range(2 * AROUND + 1) if shift != AROUND]
    return sum(padded[shift : shift + count] for shift in shifts) / len(shifts)
