"""Shake is what all parts of the picture do at once; what one part does alone is none, and flat parts say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation.motion.shake import PART_MIN, PARTS, VECTORS, grid, medians, medians_of_flow, shake, textured
from rushes.curation.motion.vectors import Field, joined
from rushes.curation.video.decode import Decoded, frames, opened

FPS = 25.0


@pytest.fixture(scope="module")
def vectors(bunny_video) -> tuple[list[np.ndarray | None], int, int]:
    """Those of 48 real frames, and the picture's width and height."""
    with opened(str(bunny_video), vectors=True) as (container, stream):
        found = list(frames(container, stream, Decoded()))
        return [frame.vectors for frame in found], found[0].info.width, found[0].info.height


def test_each_part_has_the_median_of_its_own_vectors(vectors):
    per_frame, width, height = vectors
    few = [None if v is None else v[:VECTORS] for v in per_frame]
    places, words, counts = joined(few)
    found = medians(words, counts, width, height)
    assert len(places) and np.isfinite(found).any()
    rows, columns = grid(width, height)
    for shifts, place in zip(found, places, strict=True):
        past = few[place][few[place]["source"] < 0]
        part = past["dst_y"] * rows // height * columns + past["dst_x"] * columns // width
        for number in range(PARTS):
            x = -np.sort(past["motion_x"][part == number] / past["motion_scale"][part == number])
            if len(x) < PART_MIN:
                assert np.isnan(shifts[number]).all()
            else:
                assert shifts[number, 0] == pytest.approx(x[len(x) // 2], abs=0.25)


def test_a_tremor_of_the_whole_picture_counts_and_one_of_half_of_it_does_not():
    tremor = np.random.default_rng(1).normal(0, 1, (200, 1, 2))
    noise = np.random.default_rng(2).normal(0, 0.1, (200, PARTS, 2))
    whole = shake(tremor + noise, FPS, 1)
    assert whole == pytest.approx(np.sqrt(2 * 2) * FPS, rel=0.2)  # two axes, and a change has twice the variance
    half = np.where(np.arange(PARTS)[:, None] < PARTS // 2, tremor, 0.0)
    assert shake(half + noise, FPS, 1) < 0.1 * whole


def test_a_steady_pan_is_no_shake_and_nothing_known_is_none():
    assert shake(np.full((100, PARTS, 2), 7.0), FPS, 1) == 0
    assert shake(np.full((100, PARTS, 2), np.nan), FPS, 1) == 0
    assert shake(np.zeros((1, PARTS, 2)), FPS, 1) == 0


def test_parts_that_are_seldom_known_do_not_decide():
    tremor = np.random.default_rng(3).normal(0, 1, (200, 1, 2)).repeat(PARTS, axis=1)
    tremor[:, 3:] = np.random.default_rng(4).normal(0, 1, (200, PARTS - 3, 2))
    tremor[12:, 3:] = np.nan
    assert shake(tremor, FPS, 1) > FPS


def test_flat_parts_have_no_texture():
    picture = np.full((90, 160), 100, np.uint8)
    picture[:30, :40] += np.random.default_rng(5).integers(0, 40, (30, 40), dtype=np.uint8)
    assert textured(picture).tolist() == [True] + [False] * (PARTS - 1)


def test_a_field_of_flow_gives_each_part_its_median():
    y, x = (place.ravel() for place in np.mgrid[-0.25:0.25:12j, -0.45:0.45:24j].astype(np.float32))
    found = medians_of_flow(Field(x, y, np.where(x < 0, 0.1, 0.3).astype(np.float32), y * 0), 640, 360)
    assert found[:, 0].reshape(grid(640, 360)) == pytest.approx(np.tile([0.1, 0.1, 0.3, 0.3], (3, 1)))
