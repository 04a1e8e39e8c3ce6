"""Finds gradual transitions in batches of a film's frames."""

from __future__ import annotations

import numpy as np

from rushes.curation.gradual.blends import blend, blend_errors
from rushes.curation.gradual.doubts import detail, doubts
from rushes.curation.gradual.pictures import Ring, Triples
from rushes.curation.gradual.pushes import push, push_errors
from rushes.curation.gradual.wipes import wipe, wipe_errors
from rushes.curation.video.batch import Batch
from rushes.curation.video.frame import shrink_stack

SHRINK = 2  # by which the tiny luma is shrunk once more: about 40 x 22 pixels
HALF_S = (0.17, 0.35, 0.6, 1.0)  # half lengths looked for, seconds (transitions of about 0.4 to 2 s)
STEP_S = 0.08  # between the pictures that are kept, seconds
LOOK_STEPS = 2  # all but the shortest are looked for at one in so many of them
CHANGE_MIN = 3.0  # grey levels, root mean square, by which the pictures before and after must differ at least
DOUBT_MIN = 0.1  # smaller doubts are not kept
FOUND, SUSPECTED = ("blend_first", "blend_stop", "blend_strength"), ("doubt_first", "doubt")
NAMES = (*FOUND, *SUSPECTED)

#: What is looked for: errors of all triples, the look at one as pictures, and how many are looked at for one end.
KINDS = ((blend_errors, blend, 1), (wipe_errors, wipe, 1), (push_errors, push, 3))


class Transitions:
    """Finds transitions in batches; a ring of the last 3 s of pictures is kept.

    observe leaves, for a frame once which was seen a transition was found, its frames counted from this one (below 0)
    and its strength 0-1; and the largest doubt of what ends at a frame, 0-1, with its first frame counted from there:
    five arrays of float32 [n], NaN where nothing was found.
    """

    def __init__(self, fps: float) -> None:
        self._step, self._halves = grid(fps)  # everything below counts in steps
        self._ring: Ring | None = None

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        found = {name: np.full(len(batch), np.nan, np.float32) for name in NAMES}
        places = np.flatnonzero(batch.every(self._step))
        if not len(places):
            return found
        ring = Ring.grown(self._ring, *looked_at(batch.tiny_luma[places]), 2 * self._halves[-1])
        old = len(ring) - len(places)
        looked = np.append(np.zeros(old, bool), batch.every(LOOK_STEPS * self._step)[places])
        triples = self._triples(ring, old, looked)
        suspected = doubts(triples)
        order = np.argsort(suspected, kind="stable")  # the largest of one end is written last
        order = order[suspected[order] >= DOUBT_MIN]
        ends = places[triples.ends[order] - old]
        found["doubt_first"][ends] = -2 * self._step * triples.halves[order]
        found["doubt"][ends] = suspected[order]
        for end, first, stop, strength in _finds(triples):
            place = places[end - old]
            if not found["blend_strength"][place] >= strength:
                values = (first - end) * self._step, (stop - end) * self._step + 1, strength
                for name, value in zip(FOUND, values, strict=True):
                    found[name][place] = value
        self._ring = ring.last(3 * self._halves[-1])
        return found

    def _triples(self, ring: Ring, old: int, looked: np.ndarray) -> Triples:
        """All that end in the new pictures, and in which enough changes. looked: bool, whether at all lengths."""
        shortest = self._halves[0]
        ends = [end for end in range(max(old, 2 * shortest), len(ring)) if looked[end]]
        pairs = [(end, half) for half in self._halves[1:] for end in ends if end >= 2 * half]
        pairs += [(end, shortest) for end in range(max(old, 2 * shortest), len(ring))]
        triples = Triples(ring, *np.array(pairs, int).reshape(-1, 2).T)
        return triples.those(triples.change >= CHANGE_MIN)


def grid(fps: float) -> tuple[int, list[int]]:
    """Frames between the pictures that are kept, and the half lengths looked for, in such steps."""
    step = max(1, round(STEP_S * fps))
    return step, sorted({max(2, round(half * fps / step)) for half in HALF_S})


def looked_at(tiny_luma: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pictures as a ring keeps them, uint8 [n, h, w], and their detail."""
    return shrink_stack(tiny_luma, SHRINK), detail(tiny_luma)


def _finds(triples: Triples) -> list[tuple[int, int, int, float]]:
    """(place of the end, first and last place of the transition, strength)."""
    finds: list[tuple[int, int, int, float]] = []
    if len(triples):
        for candidates, look, tries in KINDS:
            for number in _best(triples.ends, candidates(triples), tries):
                end = int(triples.ends[number])
                span = look(triples.ring, end, int(triples.halves[number]))
                if span is not None:
                    finds.append((end, *span))
    return finds


def _best(ends: np.ndarray, errors: np.ndarray, tries: int) -> list[int]:
    """Of the triples with one and the same end the `tries` with the least errors, of those that are finite."""
    counts: dict[int, int] = {}
    chosen = []
    for number in np.argsort(errors, kind="stable").tolist():
        if not np.isfinite(errors[number]):
            break
        counts[ends[number]] = counts.get(ends[number], 0) + 1
        if counts[ends[number]] <= tries:
            chosen.append(number)
    return chosen
