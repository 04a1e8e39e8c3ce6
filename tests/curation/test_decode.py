"""The one decode: right frames, right times, right views, whatever the file is."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from rushes.curation.video.batch import batches
from rushes.curation.video.decode import Decoded, DecodeError, frames, opened, probe
from tests.footage import BAD_INPUTS, DAMAGED, NO_PICTURE, make_video


def all_frames(path, vectors=False):
    """(time, small luma, tiny colour, vectors or None, upright still) of each frame, and how the decode ended."""
    end, seen = Decoded(), []
    with opened(str(path), vectors=vectors) as (container, stream):
        for b in batches(container, stream, end, stills_per_s=1e6, stills_side=320):
            seen += zip(b.time_s, b.luma, b.tiny_bgr, b.vectors, [still for _, still in b.stills], strict=True)
    return seen, end


@pytest.mark.parametrize("name", sorted(set(BAD_INPUTS) - NO_PICTURE))
def test_times_rise_from_zero_and_every_view_has_its_type(bad_inputs, name):
    seen, end = all_frames(bad_inputs[name])
    times = [time for time, *_ in seen]
    assert times[0] == 0 and all(np.diff(times) > 0)
    assert end.frames == len(seen) and end.end_s > times[-1]
    assert not end.errors or name in DAMAGED
    for _, luma, tiny, _, still in seen[:3]:
        assert luma.dtype == tiny.dtype == still.dtype == np.uint8
        assert luma.ndim == 2 and tiny.shape[2] == still.shape[2] == 3
        assert max(still.shape[:2]) <= 320


@pytest.mark.parametrize("name", sorted(NO_PICTURE))
def test_a_file_without_a_picture_is_a_sentence(bad_inputs, name):
    source = probe(str(bad_inputs[name]))
    assert source.status == "failed" and source.error
    with pytest.raises(DecodeError):
        all_frames(bad_inputs[name])


@pytest.mark.parametrize(("size", "longer"), [((640, 360), 160), ((426, 240), 142), ((482, 272), 160)])
def test_the_small_luma_is_the_picture_shrunk(tmp_path, size, longer):
    path = make_video(tmp_path / "a.mp4", size=size, seconds=0.5)
    with opened(str(path)) as (container, stream):
        for frame in frames(container, stream, Decoded()):
            full = frame.full_luma.copy()
            small = frame.luma
            expected = cv2.resize(full, small.shape[::-1], interpolation=cv2.INTER_AREA)
            assert full.shape == size[::-1] and max(small.shape) == longer
            assert np.abs(small.astype(int) - expected).mean() <= 1.0
            if size[0] % frame.info.factor == 0:
                assert np.abs(small.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("size", [(640, 360), (426, 240)])
def test_the_tiny_picture_has_the_colours_of_the_film(tmp_path, size):
    path = make_video(tmp_path / "a.mp4", size=size, seconds=0.5)
    with opened(str(path)) as (container, stream):
        whole = [frame.picture.to_ndarray(format="bgr24") for frame in frames(container, stream, Decoded())]
    with opened(str(path)) as (container, stream):
        (batch,) = batches(container, stream, Decoded())
        for tiny, full in zip(batch.tiny_bgr, whole, strict=True):
            expected = cv2.resize(full, tiny.shape[1::-1], interpolation=cv2.INTER_AREA)
            assert np.abs(tiny.astype(int) - expected).mean() < 8


def test_a_rotated_film_is_shown_upright(bad_inputs, bunny_video):
    turned, _ = all_frames(bad_inputs["rotated"])
    upright, _ = all_frames(bunny_video)
    shown, reference = turned[5][4], upright[5][4]
    assert shown.shape[:2] == (320, 180) and probe(str(bad_inputs["rotated"])).height == 320
    assert np.abs(shown.astype(int) - cv2.rotate(reference, cv2.ROTATE_90_COUNTERCLOCKWISE)).mean() < 4


def test_wide_pixels_are_made_square(bad_inputs):
    seen, _ = all_frames(bad_inputs["wide_pixels"])
    assert seen[0][4].shape[:2] == (180, 320)


def test_variable_frame_times_are_those_of_the_file(bad_inputs):
    times = np.array([time for time, *_ in all_frames(bad_inputs["variable_frame_rate"])[0]])
    steps = np.diff(times)
    assert steps[:20] == pytest.approx(1 / 24, abs=1e-3)
    assert steps.max() > 0.9
    assert steps[-10:] == pytest.approx(1 / 12, abs=1e-3)


def test_vectors_come_with_predicted_frames_of_h264_and_never_with_vp9(bad_inputs, bunny_video):
    counted = sum(v is not None and len(v) > 0 for _, _, _, v, _ in all_frames(bunny_video, vectors=True)[0])
    assert counted > 40
    assert not any(v is not None and len(v) for _, _, _, v, _ in all_frames(bad_inputs["vp9"], vectors=True)[0])


def test_a_file_that_vanishes_or_shrinks_since_the_probe_is_not_for_the_record(bunny_video, tmp_path):
    from rushes.curation.analyze import Analyzer
    from rushes.curation.recipe import build

    path = tmp_path / "gone.mp4"
    path.write_bytes(bunny_video.read_bytes())
    source, analyze = probe(str(path)), Analyzer(build({}))
    os.truncate(path, path.stat().st_size // 2)
    cut = analyze(source)
    assert cut.transient and "changed while it was read" in cut.source.error and cut.clips.num_rows == 0
    path.unlink()
    gone = analyze(source)
    assert gone.source.status == "failed" and "vanished" in gone.source.error
    assert gone.transient and gone.clips.num_rows == 0
    assert probe(str(path)).error == "the file does not exist (any more)"


def test_one_content_has_one_name_whatever_the_file_is_called(bunny_video, tmp_path):
    copy = tmp_path / "other name.mp4"
    copy.write_bytes(bunny_video.read_bytes())
    assert probe(str(copy)).source_id == probe(str(bunny_video)).source_id
    copy.write_bytes(bunny_video.read_bytes() + b"\0")
    assert probe(str(copy)).source_id != probe(str(bunny_video)).source_id


def test_a_duration_that_no_frames_fill_is_not_believed(bunny_video, tmp_path):
    from rushes.curation.analyze import Analyzer
    from rushes.curation.recipe import build
    from tests.footage import ffmpeg

    path = tmp_path / "jump.mp4"  # the last frame's timestamps lie 5,000 s later: 48 frames state 5,002 s
    ffmpeg("-i", bunny_video, "-c", "copy", "-bsf:v", "setts=ts=TS+gte(N\\,46)*5000/TB", path)
    source = probe(str(path))
    assert source.duration_s < 10 and source.fps == pytest.approx(24, rel=0.1)
    found = Analyzer(build({}))(source).source
    assert found.status == "partial" and "timestamps jump" in found.error and found.duration_s < 10
