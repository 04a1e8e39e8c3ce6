"""Quality falls where a picture is made worse, the model that ships loads, and nothing is made up for odd pictures."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation import kernel
from rushes.curation.meter import Unmeasured
from rushes.curation.visual import patches, quality
from rushes.curation.visual.quality import FEATURES, features


@pytest.fixture(scope="module")
def picture(bikes) -> np.ndarray:
    """A sharp real picture, luma."""
    return cv2.resize(cv2.cvtColor(bikes[2], cv2.COLOR_BGR2GRAY), (400, 170), interpolation=cv2.INTER_AREA)


def score(picture: np.ndarray) -> float:
    return quality.quality(features(patches.look(picture))[None])


def enlarged(picture: np.ndarray, factor: float) -> np.ndarray:
    small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, picture.shape[::-1], interpolation=cv2.INTER_CUBIC)


def test_the_model_that_ships_is_small_and_needs_no_pickle():
    assert quality.MODEL.stat().st_size < 2e6
    for name in (quality.TOLD, quality.SEEN):
        model = kernel.load(quality.MODEL, name)
        assert model.vectors.shape[1] == FEATURES and len(model.weights) == len(model.vectors)


def noisy(picture: np.ndarray, deviation: float) -> np.ndarray:
    grain = np.random.default_rng(1).normal(0, deviation, picture.shape)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def blocky(picture: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    "steps",
    [
        [lambda p, s=s: cv2.GaussianBlur(p, (0, 0), s) for s in (0.5, 1.5, 4.0)],
        [lambda p, f=f: enlarged(p, f) for f in (1.3, 2.5, 5)],
        [lambda p, s=s: noisy(p, s) for s in (6, 18, 45)],
        [lambda p, q=q: blocky(p, q) for q in (85, 30, 5)],
    ],
    ids=["blur", "up-scaling", "noise", "blocks"],
)
def test_quality_falls_with_every_step_of_what_makes_a_picture_worse(picture, steps):
    scores = [score(step(picture)) for step in steps]
    assert all(0 <= value <= 100 for value in scores)
    assert scores == sorted(scores, reverse=True) and scores[0] - scores[-1] > 10, scores


@pytest.mark.parametrize("luma", [0, 127, 255])
def test_a_picture_of_one_colour_has_finite_statistics(luma):
    stats = features(patches.look(np.full((180, 320), luma, np.uint8)))
    assert stats.shape == (FEATURES,) and np.isfinite(stats).all()


def test_patches_lie_inside_the_picture_on_the_codecs_grid_and_not_in_black_bars():
    rng = np.random.default_rng(2)
    picture = np.zeros((360, 641), np.uint8)
    picture[40:320] = rng.integers(0, 255, (280, 641))
    at, _ = patches.places(picture)
    assert len(at) == len(patches.RANKS)
    for x, y in at:
        assert x % patches.GRID == y % patches.GRID == 0
        assert 0 <= x <= 641 - patches.SIDE and 0 <= y <= 360 - patches.SIDE
        assert picture[y : y + patches.SIDE, x : x + patches.SIDE].any()


def test_a_picture_smaller_than_a_patch_is_unmeasured_with_a_reason():
    assert patches.look(np.zeros((40, 60), np.uint8)) is None
    assert isinstance(quality.quality(np.full((5, FEATURES), np.nan)), Unmeasured)


def test_an_enlarged_picture_shows_the_wave_of_its_factor(picture):
    frequency = patches.rhythm(enlarged(picture, 2.5))[1]
    assert frequency == pytest.approx(1 / 2.5, abs=0.02)


def test_a_clip_whose_codec_tells_no_quantiser_is_measured_by_its_pixels(picture):
    stats = features(patches.look(picture, 24.0))[None]
    unknown = quality.without_quantiser(stats)
    assert np.array_equal(unknown[0], features(patches.look(picture)))
    assert quality.told(stats).all() and not quality.told(unknown).any()
    by_pixels = kernel.load(quality.MODEL, quality.SEEN)
    assert by_pixels(stats) == pytest.approx(by_pixels(unknown))


def test_a_coarser_quantiser_reads_as_less_quality(picture):
    fine, coarse = (quality.quality(features(patches.look(picture, q))[None]) for q in (18.0, 44.0))
    assert fine - coarse > 20
