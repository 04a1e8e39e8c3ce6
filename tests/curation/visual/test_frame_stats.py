"""The plain measures move with what they are named for and with little else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.visual.frame_stats import frame_stats, shrink


def flat(colour, size=(360, 640)):
    still = np.empty((*size, 3), np.uint8)
    still[:] = colour
    return still


def noisy(still, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, still.shape)
    return np.clip(still + noise, 0, 255).astype(np.uint8)


def test_a_black_still_is_zero_in_everything():
    assert frame_stats(flat(0)) == pytest.approx(dict.fromkeys(frame_stats(flat(0)), 0.0))


def test_a_pure_colour_is_fully_saturated_and_a_grey_not_at_all():
    assert frame_stats(flat((0, 0, 200)))["saturation"] == pytest.approx(1.0)
    grey = frame_stats(flat(90))
    assert grey["saturation"] == 0 and grey["colourfulness"] == 0
    assert grey["luma_mean"] == pytest.approx(90)


def test_half_black_half_white_has_the_highest_contrast():
    still = flat(0)
    still[:180] = 255
    stats = frame_stats(still)
    assert stats["contrast"] == pytest.approx(1.0, abs=0.01)
    assert stats["luma_mean"] == pytest.approx(127.5, abs=0.5)


def test_blur_lowers_sharpness_step_by_step(bunny):
    levels = [frame_stats(cv2.GaussianBlur(bunny[4], (0, 0), s))["sharpness"] for s in (0.1, 2, 4, 8)]
    assert levels[0] > 1.3 * levels[1] > 1.3 * levels[2] > 1.3 * levels[3]


def test_size_matters_little_to_every_measure(bunny):
    full, half = frame_stats(bunny[4]), frame_stats(shrink(bunny[4], 320))
    assert half == pytest.approx(full, rel=0.05)


def test_contrast_matters_little_to_sharpness(bunny):
    paler = (90 + bunny[4] * 0.5).astype(np.uint8)
    assert frame_stats(paler)["sharpness"] == pytest.approx(frame_stats(bunny[4])["sharpness"], rel=0.15)


def test_noise_does_not_make_a_flat_or_blurred_still_sharp(bunny):
    sharp = frame_stats(bunny[4])["sharpness"]
    assert frame_stats(noisy(flat(120), 3))["sharpness"] < 0.3 * sharp
    assert frame_stats(noisy(cv2.GaussianBlur(bunny[4], (0, 0), 8), 3))["sharpness"] < 0.3 * sharp


def test_near_black_noise_is_not_colour():
    dark = np.zeros((360, 640, 3), np.uint8)
    dark[:, :, 0] = np.random.default_rng(1).integers(0, 3, (360, 640))
    dark[100:200] = 200
    assert frame_stats(dark)["saturation"] < 0.05


def test_meadow_is_more_colourful_than_street(bunny, bikes):
    assert frame_stats(bunny[4])["colourfulness"] > 3 * frame_stats(bikes[8])["colourfulness"]


def test_what_is_no_still_is_refused():
    with pytest.raises(ValueError, match="uint8 BGR"):
        frame_stats(np.zeros((10, 10), np.uint8))
    with pytest.raises(ValueError, match="uint8 BGR"):
        frame_stats(np.zeros((10, 10, 3), np.float32))
