"""In a dissolve pixels stand half-way between what was and what comes; in a take they show the one or the other."""

from __future__ import annotations

import cv2
import numpy as np

from rushes.curation.gradual.ghosts import NAMES, ghosts
from rushes.curation.gradual.pictures import Ring, Triples
from rushes.pipelines.demo.film import clip_path
from rushes.pipelines.demo.pool import BUNNY
from tests.accuracy.sources import Take

HALF = 4  # pictures on either side of the middle


def take() -> np.ndarray:
    clip, first, stop = BUNNY
    frames = Take(clip, clip_path(clip), first, stop, 25.0).frames(40, 22)
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])


def told(pictures: np.ndarray) -> dict[str, float]:
    """Of a triple over all 2 HALF + 1 pictures."""
    ring = Ring.grown(None, pictures, np.zeros((len(pictures), 24), np.float32), 2 * HALF)
    found = ghosts(Triples(ring, np.array([2 * HALF]), np.array([HALF])))
    return {name: float(value[0]) for name, value in zip(NAMES, found, strict=True)}


def test_a_dissolve_within_a_take_makes_ghosts_where_the_subject_moves_on_meanwhile():
    frames = take()
    before, after = frames[10 : 10 + 4 * HALF + 1 : 2], frames[80 : 80 + 4 * HALF + 1 : 2]
    shares = np.linspace(0, 1, 2 * HALF + 1)[:, None, None]
    mixed = told(((1 - shares) * before + shares * after).round().astype(np.uint8))
    assert mixed["ghosts throughout"] > 0.5 and mixed["settled"] < 0.2
    assert 0.4 < mixed["way"] < 0.65


def test_motion_makes_few():
    frames = take()
    for begin in range(0, 90, 15):
        moved = told(frames[begin : begin + 8 * HALF + 1 : 4])
        assert moved["ghosts throughout"] < 0.2


def test_two_pictures_that_are_alike_have_nothing_apart():
    still = told(np.repeat(take()[:1], 2 * HALF + 1, axis=0))
    assert still["apart, share"] == 0 and still["ghosts"] == 0
