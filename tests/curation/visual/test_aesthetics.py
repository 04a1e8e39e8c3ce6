"""Good footage lands near 5, what is ruined in one way below 4, whatever else is fine about it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.visual.aesthetics import MeasuredAesthetics, measured_aesthetic

DROP = 4.0  # Movie Gen B.1


def test_ordinary_footage_lands_around_five(bunny, bikes, carphone):
    for clip in (bunny, bikes, carphone):
        assert DROP < measured_aesthetic(clip) < 6.0


@pytest.mark.parametrize(
    "ruin",
    [
        lambda s: (s * 0.12).astype(np.uint8),
        lambda s: (110 + s * 0.08).astype(np.uint8),
        lambda s: np.clip(s.astype(int) * 0.2 + 215, 0, 255).astype(np.uint8),
        lambda s: cv2.GaussianBlur(s, (0, 0), max(s.shape) / 80),
        lambda s: np.zeros_like(s),
        lambda s: np.clip(np.random.default_rng(0).normal(120, 4, s.shape), 0, 255).astype(np.uint8),
    ],
    ids=["dark", "washed out", "over-exposed", "blurred", "black", "noise"],
)
def test_what_is_ruined_falls_below_the_threshold(bunny, bikes, ruin):
    for clip in (bunny, bikes):
        assert 0.0 <= measured_aesthetic([ruin(s) for s in clip]) < DROP


def test_more_blur_is_never_better(bunny):
    scores = [measured_aesthetic([cv2.GaussianBlur(bunny[4], (0, 0), s)]) for s in (0.1, 2, 4, 8, 16)]
    assert scores == sorted(scores, reverse=True)


def test_black_and_white_is_not_dropped_for_its_lack_of_colour(bunny):
    grey = [cv2.cvtColor(cv2.cvtColor(s, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) for s in bunny]
    assert measured_aesthetic(grey) > DROP


def test_the_middle_still_alone_counts(bunny):
    black = np.zeros_like(bunny[0])
    assert measured_aesthetic([black, bunny[4], black]) == measured_aesthetic([bunny[4]])


def test_the_model_says_what_it_is(bunny):
    assert MeasuredAesthetics().name == "measured"
    assert MeasuredAesthetics().measure(bunny) == measured_aesthetic(bunny)


def test_no_still_is_refused():
    with pytest.raises(ValueError, match="at least one still"):
        measured_aesthetic([])
