from __future__ import annotations

import numpy as np
import pytest

from rushes.curation.meter import Unmeasured
from rushes.curation.visual.splits import SURE, split_screen
from rushes.pipelines.demo import pool
from rushes.pipelines.demo.film import clip_path
from tests.accuracy.sources import Take, fill


@pytest.fixture(scope="module")
def car() -> list[np.ndarray]:
    return _some(pool.CARPHONE)


@pytest.fixture(scope="module")
def animal() -> list[np.ndarray]:
    return _some(pool.BUNNY)


def _some(take: tuple[str, int, int]) -> list[np.ndarray]:
    clip, first, stop = take
    return Take(clip, clip_path(clip), first, stop, 25.0).frames(640, 360)[::20]


def test_two_pictures_side_by_side_are_a_split_screen_and_each_alone_is_none(car, animal):
    both = [np.hstack([fill(a, 320, 360), fill(b, 320, 360)]) for a, b in zip(car, animal)]
    found = split_screen(both)
    assert found.score >= SURE
    assert found.box == pytest.approx((0, 0, 0.5, 1), abs=0.02)
    assert split_screen(car).score < SURE and split_screen(animal).score < SURE


def test_a_framed_picture_in_the_picture_is_found_where_it_stands(car, animal):
    shown = [a.copy() for a in car]
    for frame, small in zip(shown, animal):
        frame[37:187, 357:619] = 235
        frame[40:184, 360:616] = fill(small, 256, 144)
    found = split_screen(shown)
    assert found.score >= SURE
    assert found.box == pytest.approx((360 / 640, 40 / 360, 616 / 640, 184 / 360), abs=0.06)


def test_what_cannot_be_told_is_said(car):
    flat = np.full((360, 640, 3), 90, np.uint8)
    assert split_screen([flat, flat]).score < SURE
    assert isinstance(split_screen(car[:1]), Unmeasured)
    assert isinstance(split_screen([car[0], car[1][::2, ::2]]), Unmeasured)
    assert isinstance(split_screen([np.zeros((16, 16, 3), np.uint8)] * 3), Unmeasured)
