"""The model of camera motion that ships: it loads, answers with calibrated numbers, and knows when it knows nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation import forest
from rushes.curation.motion import camera, points


def test_the_model_that_ships_is_small_and_needs_no_pickle():
    assert camera.MODEL.stat().st_size < 2e6
    model, rest = forest.load(camera.MODEL)
    assert model.value.shape[1] == len(camera.CLASSES)
    knots, right = rest["curve"]
    assert (np.diff(knots) > 0).all() and (np.diff(right) >= 0).all() and 0 <= right[0] <= right[-1] <= 1


def test_a_file_without_a_forest_is_told_in_a_sentence(tmp_path):
    np.savez(tmp_path / "a.npz", feature=np.zeros(3))
    with pytest.raises(ValueError, match=r"holds no forest: it has no array 'threshold'; make it again"):
        forest.load(tmp_path / "a.npz")


def test_too_few_looks_have_no_word():
    assert camera.camera_motion(np.full((9, len(points.LOOK)), np.nan)) == (None, 0.0)
    assert camera.camera_motion(np.zeros((2, len(points.LOOK)))) == (None, 0.0)


@pytest.mark.parametrize("luma", [0, 128, 255])
def test_a_picture_of_one_colour_has_finite_looks_or_none(luma):
    flat = np.full((90, 160), luma, np.uint8)
    looks = points.looks(points.follow(flat, flat, 0.25)[None])
    assert np.isfinite(looks).all() or np.isnan(looks).all()


def test_points_that_are_followed_tell_shift_and_growth():
    rng = np.random.default_rng(3)
    at = rng.uniform(-0.5, 0.5, (40, 2))
    moved = np.array([0.1, -0.05]) + 0.2 * at
    look = points.looks(np.concatenate([at, moved], axis=1)[None].astype(np.float32))[0]
    found = dict(zip(points.LOOK, look))
    assert found["shift_x"] == pytest.approx(0.1, abs=1e-4) and found["shift_y"] == pytest.approx(-0.05, abs=1e-4)
    assert found["growth"] == pytest.approx(0.2, abs=1e-3) and found["inside"] == 1
