"""Faces are seen, meadows and streets are not people."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation.visual.people import PeopleDetector


@pytest.fixture(scope="module")
def detector():
    return PeopleDetector()


def test_a_man_talking_to_the_camera_is_seen(detector, carphone):
    assert detector.measure(carphone) > 0.5


def test_a_rabbit_and_a_meadow_are_no_people(detector, bunny):
    assert detector.measure(bunny) <= 0.5


def test_streets_without_faces_are_no_people(detector, bikes):
    assert detector.measure(bikes) <= 0.5


def test_black_and_flat_stills_score_zero(detector):
    noise = np.random.default_rng(0).integers(0, 6, (360, 640, 3)).astype(np.uint8)
    assert detector.measure([noise] * 3) == 0.0
    assert detector.measure([np.full((360, 640, 3), 128, np.uint8)]) == 0.0


def test_at_most_three_stills_are_looked_at_and_the_middle_one_first(detector, carphone):
    face, blank = carphone[0], np.full_like(carphone[0], 128)
    middle = [blank] * 9
    middle[4] = face
    assert detector.measure(middle) == pytest.approx(detector.measure([face]))
    edges = [face, *[blank] * 7, face]
    assert detector.measure(edges) == 0.0


def test_the_score_is_a_share_and_repeats(detector, carphone):
    score = detector.measure(carphone)
    assert 0.0 <= score <= 1.0
    assert detector.measure(carphone) == score


def test_no_still_is_refused(detector):
    with pytest.raises(ValueError, match="at least one still"):
        detector.measure([])
    with pytest.raises(ValueError, match="sure"):
        PeopleDetector(sure=0.0)
