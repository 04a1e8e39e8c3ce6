"""A net says of each picture whether a transition mixes it: also within one take, and in batches of any size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.gradual import mixed
from rushes.pipelines.demo.film import clip_path
from rushes.pipelines.demo.pool import BUNNY, CARPHONE
from tests.accuracy.sources import Take

LENGTH, MIXED = 100, 14  # pictures of a film, those of its transition


@pytest.fixture(scope="module")
def takes():
    """Tiny pictures of an animal before a meadow and of a man who talks in a car, uint8 [n, 45, 80]."""
    found = []
    for clip, first, stop in (BUNNY, CARPHONE):
        frames = Take(clip, clip_path(clip), first, stop, 25.0).frames(80, 45)
        found.append(np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames]))
    return found


def to_and_fro(take, begin):
    places = (begin + np.arange(LENGTH)) % (2 * len(take) - 2)
    return take[np.minimum(places, 2 * len(take) - 2 - places)].astype(np.float32)


def dissolved(before, after):
    share = np.clip((np.arange(LENGTH) - LENGTH / 2) / MIXED + 0.5, 0, 1)[:, None, None]
    return (before + (after - before) * share).round().astype(np.uint8)


def told(pictures, batch=LENGTH, moments=None):
    """The track of a film all of whose frames are on the grid.

    moments: first and last frames that are asked about, each with its last frame; None: every frame.
    """
    net, found = mixed.Mixed(mixed.WAIT), []
    for begin in range(0, len(pictures), batch):
        some = pictures[begin : begin + batch]
        places = np.arange(len(some))
        asked = moments or [(begin, begin + len(some))]
        now = [(first - begin, last - begin) for first, last in asked if begin <= last <= begin + batch]
        looked = (begin + places) % mixed.EVERY == 0
        found.append(net.observe(some, places, looked, len(some), np.array(now, int).reshape(-1, 2)))
    return np.concatenate([*found, net.finish()])


def test_a_dissolve_is_told_from_what_is_before_and_after_it(takes):
    track = told(dissolved(to_and_fro(takes[0], 0), to_and_fro(takes[1], 0)))
    middle = LENGTH // 2
    assert np.nanmax(track[middle - 3 : middle + 4]) > 0.8
    assert np.nanmax(track[: middle - MIXED]) < 0.5 and np.nanmax(track[middle + MIXED :]) < 0.5


def test_a_dissolve_within_one_take_is_told_from_the_takes_own_motion(takes):
    for take, later in ((takes[0], 80), (takes[1], 60)):
        plain, changed = to_and_fro(take, 0), dissolved(to_and_fro(take, 0), to_and_fro(take, later))
        assert np.nanmax(told(changed)) > 0.5
        assert np.nanmax(told(plain.astype(np.uint8))) < 0.4


@pytest.mark.parametrize("batch", [1, 17])
def test_the_track_is_the_same_in_batches_of_any_size(takes, batch):
    pictures = dissolved(to_and_fro(takes[0], 0), to_and_fro(takes[1], 0))
    whole, parts = told(pictures), told(pictures, batch)
    assert len(whole) == len(pictures) and np.isnan(whole[1]) and np.isfinite(whole[:: mixed.EVERY]).all()
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("batch", [LENGTH, 1, 17])
def test_only_what_is_asked_about_is_looked_at_and_comes_to_the_same(takes, batch):
    pictures = dissolved(to_and_fro(takes[0], 0), to_and_fro(takes[1], 0))
    whole, some = told(pictures), told(pictures, batch, [(20, 25), (60, 61), (93, 99)])
    answered = np.flatnonzero(np.isfinite(some))
    assert answered.tolist() == [20, 22, 24, 26, 60, 62, 92, 94, 96, 98]  # with those on either side
    np.testing.assert_array_equal(some[answered], whole[answered])


def test_a_film_of_one_picture_has_an_answer(takes):
    assert np.isfinite(told(takes[0][:1])).all()


def test_upright_and_very_small_pictures_are_looked_at(takes):
    upright = np.ascontiguousarray(takes[0][:30].transpose(0, 2, 1))
    small = np.stack([cv2.resize(picture, (5, 3)) for picture in takes[0][:30]])
    assert np.isfinite(told(upright)[0]) and np.isfinite(told(small)[0])
