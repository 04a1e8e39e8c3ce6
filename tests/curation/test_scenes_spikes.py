"""A spike is high where the whole picture changes at once, and low where it moves, is written on or flashes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.scenes_spikes import ALIKE_MIN, AROUND, Spikes, alike, cuts, spike
from rushes.curation.video.batch import batches
from rushes.curation.video.decode import Decoded, opened
from rushes.pipelines.demo.film import clip_path
from rushes.pipelines.demo.pool import BUNNY, TRAFFIC, WALL
from tests.accuracy.sources import Take
from tests.footage import ffmpeg

CUT = 1.6  # the default of scenes.cut_spike


def tiny(span, step: int = 1) -> np.ndarray:
    clip, first, stop = span
    frames = Take(clip, clip_path(clip), first, stop, 25.0).frames(80, 45)[::step]
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in frames])


def content_of(luma: np.ndarray) -> np.ndarray:
    return np.append(0, np.abs(np.diff(luma.astype(int), axis=0)).mean(axis=(1, 2)))


def looked_at(luma: np.ndarray, batch: int) -> np.ndarray:
    meter, content = Spikes(), content_of(luma)
    places = range(0, len(luma), batch)
    parts = [meter.observe(luma[place : place + batch], content[place : place + batch]) for place in places]
    return np.concatenate([*parts, meter.finish()])


@pytest.mark.parametrize("batch", [3, 7, 96])
def test_spikes_are_the_same_in_batches_of_any_size(batch):
    luma = np.concatenate([tiny(BUNNY)[:30], tiny(WALL)[:30]])
    whole, parts = looked_at(luma, len(luma)), looked_at(luma, batch)
    assert np.array_equal(whole, parts, equal_nan=True) and len(whole) == len(luma)
    assert int(np.nanargmax(whole)) == 30 and whole[30] > CUT


def test_fast_motion_is_no_spike_and_a_jump_within_it_is_one():
    take = tiny(TRAFFIC, 2)
    assert not (looked_at(take, 96) >= CUT).any()
    jumped = np.concatenate([take[:6], take[18:]])
    assert np.flatnonzero(looked_at(jumped, 96) >= CUT).tolist() == [6]


def test_what_is_written_on_the_picture_is_no_spike():
    take = tiny(BUNNY)[: 2 * AROUND + 2].copy()
    assert spike(take, AROUND + 1) < CUT
    take[AROUND + 1 :, 35:43, 12:68] = 255
    assert spike(take, AROUND + 1) < CUT


def test_bars_take_no_part():
    luma = np.concatenate([tiny(BUNNY)[:5], tiny(WALL)[:5]])
    boxed = cv2.copyMakeBorder(luma.transpose(1, 2, 0), 0, 0, 20, 20, cv2.BORDER_CONSTANT).transpose(2, 0, 1)
    assert spike(np.ascontiguousarray(boxed), 5) == pytest.approx(spike(luma, 5), rel=0.25)
    assert spike(np.ascontiguousarray(boxed), 5) > CUT


def test_a_flash_is_no_spike_and_a_cut_under_it_is_one():
    before, after = tiny(BUNNY)[:10], tiny(WALL)[:10]
    white = np.full((2, *before.shape[1:]), 250, np.uint8)
    assert not (looked_at(np.concatenate([before[:5], white, before[5:]]), 96) >= CUT).any()
    assert np.flatnonzero(looked_at(np.concatenate([before, white, after]), 96) >= CUT).tolist() == [10]


def test_a_small_change_needs_a_higher_spike():
    content, spikes = np.full(40, 3.0), np.full(40, np.nan)
    content[[10, 20, 30]], spikes[[10, 20, 30]] = [6, 6, 30], [1.7, 1.9, 1.7]
    assert cuts(spikes, content, CUT).tolist() == [20, 30]


@pytest.mark.parametrize("clip", ["bunny", "bikes"])
def test_a_key_frame_of_a_poor_encode_is_no_spike(clip, tmp_path):
    path = tmp_path / "poor.mp4"
    ffmpeg("-ss", 1, "-t", 4, "-i", clip_path(clip), "-an", "-vf", "scale=320:-2", "-c:v", "libx264", "-crf", 38,
           "-preset", "veryfast", "-g", 30, "-sc_threshold", 0, path)  # fmt: skip
    with opened(str(path)) as (container, stream):
        luma = np.concatenate([batch.tiny_luma for batch in batches(container, stream, Decoded())])
    assert len(luma) > 90 and not (looked_at(luma, 96)[30::30] >= CUT).any()
    assert not alike(luma[29], luma[29][:, ::-1].copy()) > ALIKE_MIN
