"""The footage that other tests stand on is what it says: formats, faults, and cuts at the times given."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np
import pytest

from rushes.pipelines.demo import film as demo_film
from rushes.pipelines.demo import pool as demo_pool
from tests import footage

CUT = 35.0  # mean difference of two small grey neighbours, of 255: cuts here lie above 40, motion below 27
STILL = 0.5  # below this nothing moves: what is left is the encoder's own noise
SMALL = (64, 36)


class Probe(NamedTuple):
    """What PyAV says of a file, and what it could decode of it."""

    stream: av.VideoStream
    frames: list[av.VideoFrame]
    error: str | None


def probe(path: Path) -> Probe:
    container = av.open(str(path))
    stream, frames, error = container.streams.video[0], [], None
    try:
        frames.extend(container.decode(stream))
    except av.FFmpegError as failure:
        error = str(failure)
    return Probe(stream, frames, error)


def steps(path: Path) -> np.ndarray:
    """Mean absolute difference of each pair of neighbouring frames, small and grey, [frames - 1]."""
    grey = [
        cv2.cvtColor(cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY).astype(float)
        for _, image in footage.decoded(path)
    ]
    return np.array([np.abs(new - old).mean() for old, new in itertools.pairwise(grey)])


def cuts_seen(path: Path, fps: float) -> list[float]:
    """Times of the frames that differ from the one before as only a cut does."""
    return [(index + 1) / fps for index in np.flatnonzero(steps(path) > CUT)]


# --- ordinary videos ---------------------------------------------------------------------------------------


def test_a_made_video_has_the_frames_size_and_rate_asked_for(tmp_path):
    made = probe(footage.make_video(tmp_path / "a.mp4", size=(200, 112), fps=30, seconds=1.5))
    assert (made.stream.width, made.stream.height, made.stream.average_rate) == (200, 112, 30)
    assert len(made.frames) == 45
    assert made.error is None


@pytest.mark.parametrize("source", [*demo_film.CLIPS, footage.PATTERN])
def test_every_source_moves_in_every_frame(tmp_path, source):
    path = footage.make_video(tmp_path / "a.mp4", source=source, seconds=1)
    full = [image.astype(int) for _, image in footage.decoded(path)]
    assert all(np.abs(new - old).mean() > 0.2 for old, new in itertools.pairwise(full))


def test_timed_cuts_stand_at_the_frames_returned_and_nowhere_else(tmp_path):
    path = tmp_path / "cuts.mp4"
    times = footage.timed_cuts(path, [1.3, 2.71, 4.0, 5.5, 7.0], fps=24)
    assert times == pytest.approx([31 / 24, 65 / 24, 4.0, 5.5, 7.0])
    assert cuts_seen(path, 24) == pytest.approx(times)


def test_a_film_asked_for_without_cuts_has_none(tmp_path):
    path = tmp_path / "one_shot.mp4"
    assert footage.timed_cuts(path, [], seconds=3) == []
    assert cuts_seen(path, footage.FPS) == []
    assert len(probe(path).frames) == 3 * footage.FPS


def test_cuts_out_of_order_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cuts must rise"):
        footage.timed_cuts(tmp_path / "a.mp4", [3.0, 2.0])


# --- odd and broken inputs ---------------------------------------------------------------------------------

# name -> codec, pixel format, width, height, decoded frames
FORMATS = {
    "with_audio": ("h264", "yuv420p", 320, 180, 48),
    "one_frame": ("h264", "yuv420p", 320, 180, 1),
    "four_frames": ("h264", "yuv420p", 320, 180, 4),
    "one_fps": ("h264", "yuv420p", 320, 180, 6),
    "variable_frame_rate": ("h264", "yuv420p", 320, 180, 48),
    "rotated": ("h264", "yuv420p", 320, 180, 48),
    "odd_size": ("h264", "yuv444p", 321, 181, 48),
    "odd_size_subsampled": ("vp9", "yuv420p", 321, 181, 24),
    "width_362": ("h264", "yuv420p", 362, 202, 48),
    "ten_bit": ("hevc", "yuv420p10le", 320, 180, 24),
    "hevc": ("hevc", "yuv420p", 320, 180, 24),
    "vp9": ("vp9", "yuv420p", 320, 180, 24),
    "av1": ("av1", "yuv420p", 320, 180, 24),
    "interlaced": ("h264", "yuv420p", 320, 180, 25),
    "wide_pixels": ("h264", "yuv420p", 240, 180, 48),
    "awkward_name": ("h264", "yuv420p", 320, 180, 24),
    "late_start": ("h264", "yuv420p", 320, 180, 48),
    "still_png": ("png", "rgb24", 320, 180, 1),
    "full_range": ("h264", "yuvj420p", 320, 180, 48),
    "grayscale": ("hevc", "gray", 320, 180, 24),
}


def test_every_odd_input_is_either_readable_damaged_or_without_a_picture():
    assert FORMATS.keys() | footage.NO_PICTURE | footage.DAMAGED == footage.BAD_INPUTS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_an_odd_input_has_the_format_of_its_name(bad_inputs, name):
    made = probe(bad_inputs[name])
    context = made.stream.codec_context
    found = (context.codec.canonical_name, context.pix_fmt, context.width, context.height, len(made.frames))
    assert found == FORMATS[name]
    assert made.error is None


@pytest.mark.parametrize("name", ["garbage", "zero_bytes", "truncated_moov_last"])
def test_an_unreadable_input_cannot_be_opened(bad_inputs, name):
    with pytest.raises(av.FFmpegError):
        av.open(str(bad_inputs[name]))


@pytest.mark.parametrize("name", sorted(footage.DAMAGED))
def test_a_damaged_input_opens_and_fails_on_the_way(bad_inputs, name):
    made = probe(bad_inputs[name])
    assert made.stream.frames == 48
    assert 10 < len(made.frames) < 40
    assert made.error


def test_audio_only_has_sound_and_no_picture(bad_inputs):
    with av.open(str(bad_inputs["audio_only"])) as container:
        assert (len(container.streams.audio), len(container.streams.video)) == (1, 0)
    with av.open(str(bad_inputs["with_audio"])) as container:
        assert (len(container.streams.audio), len(container.streams.video)) == (1, 1)


def test_metadata_that_a_reader_must_honour_is_there(bad_inputs):
    rotated, interlaced = probe(bad_inputs["rotated"]), probe(bad_inputs["interlaced"])
    assert {abs(frame.rotation) for frame in rotated.frames} == {90}
    assert all(frame.interlaced_frame for frame in interlaced.frames)
    assert probe(bad_inputs["wide_pixels"]).stream.sample_aspect_ratio == Fraction(4, 3)
    assert probe(bad_inputs["one_fps"]).stream.average_rate == 1
    assert probe(bad_inputs["vp9"]).stream.frames == 0
    assert probe(bad_inputs["late_start"]).frames[0].time > 10


def test_interlaced_frames_are_woven_from_two_moments(bad_inputs, tmp_path):
    whole = probe(footage.make_video(tmp_path / "a.mp4", source="bikes", fps=50, seconds=1)).frames
    woven = probe(bad_inputs["interlaced"]).frames
    luma, fields = (
        np.stack([frame.to_ndarray(format="gray").astype(int) for frame in frames]) for frames in (whole, woven)
    )
    for first_line, moment in ((0, 0), (1, 1)):  # upper lines from the earlier moment, lower from the later
        lines = fields[:, first_line::2]
        right, wrong = luma[moment::2, first_line::2], luma[1 - moment :: 2, first_line::2]
        assert np.abs(lines - right).mean() < 0.8 * np.abs(lines - wrong).mean()


def test_the_variable_frame_rate_has_a_gap_and_two_rates(bad_inputs):
    times = np.array([frame.time for frame in probe(bad_inputs["variable_frame_rate"]).frames])
    gaps = np.diff(times)
    assert gaps[:23] == pytest.approx(1 / 24, abs=1e-3)
    assert gaps[23] == pytest.approx(25 / 24, abs=1e-3)
    assert gaps[24:] == pytest.approx(1 / 12, abs=1e-3)


def test_full_range_uses_the_levels_that_limited_range_leaves_out(bad_inputs, bunny_video):
    def below_black(path: Path) -> float:
        luma = np.stack([frame.to_ndarray()[: frame.height] for frame in probe(path).frames])
        return (luma < 16).mean()  # 16 is black where the range is limited

    assert below_black(bad_inputs["full_range"]) > 10 * below_black(bunny_video)


# --- the demo's pool ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def films(pool: list[demo_pool.PoolFile]) -> dict[str, demo_pool.PoolFile]:
    """The files of the pool by name."""
    return {file.path.name: file for file in pool}


@pytest.mark.parametrize("name", ["hard_cuts.mp4", "dissolve.mp4", "street.mp4", "slideshow.mp4"])
def test_the_pools_cuts_are_where_it_says_and_nowhere_else(films, name):
    assert cuts_seen(films[name].path, demo_film.FPS) == pytest.approx(films[name].cuts_s)


def test_a_dissolve_changes_the_picture_without_a_cut(films):
    film = films["dissolve.mp4"]
    small = [cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA) for _, image in footage.decoded(film.path)]
    small = [image.astype(float) for image in small]
    assert len(film.transitions) == 2
    for start_s, end_s in film.transitions:
        first, stop = round(start_s * demo_film.FPS), round(end_s * demo_film.FPS)
        before, middle, after = small[first - 1], small[(first + stop) // 2], small[stop]
        change = np.abs(after - before).mean()
        assert change > CUT / 2
        assert np.abs(middle - (before + after) / 2).mean() < change / 2


def test_stills_do_not_move_between_the_slideshows_changes(films):
    film = films["slideshow.mp4"]
    moves = np.flatnonzero(steps(film.path) > STILL) + 1
    changes = [(cut - 0.04, cut + 0.2) for cut in film.cuts_s] + film.transitions
    assert all(any(low <= move / demo_film.FPS <= high + 0.2 for low, high in changes) for move in moves)


def test_a_film_that_is_there_is_left_alone_and_an_unknown_one_is_refused(tmp_path):
    (tmp_path / "close_up.mp4").write_bytes(b"mine")
    assert demo_pool.make_pool(tmp_path, ["close_up.mp4"])[0].expect == "kept"
    assert (tmp_path / "close_up.mp4").read_bytes() == b"mine"
    with pytest.raises(ValueError, match="closeup"):
        demo_pool.make_pool(tmp_path, ["closeup.mp4"])


def test_an_encode_that_is_interrupted_leaves_nothing_behind(tmp_path):
    def frames():
        yield np.zeros((180, 320, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo_film.encode(frames(), tmp_path / "a.mp4", (320, 180), 25)
    assert list(tmp_path.iterdir()) == []


def test_an_encode_that_ffmpeg_refuses_says_why_and_leaves_nothing_behind(tmp_path):
    too_small = [np.zeros((2, 0, 3), np.uint8)] * 0
    with pytest.raises(RuntimeError, match=r"FFmpeg could not make a\.mp4: .+"):
        demo_film.encode(too_small, tmp_path / "a.mp4", (0, 2), 25)
    assert list(tmp_path.iterdir()) == []


def test_missing_clips_are_named_with_the_command_to_run(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"bikes\.mp4.*pip install 'rushes\[demo\]'"):
        demo_film.clip_path("bikes")


def test_the_pool_has_four_clean_landscape_films_of_more_than_five_seconds():
    clean = [film for film in demo_pool.films() if film.expect == "kept" and film.size[0] > film.size[1]]
    long = [film for film in clean if any(shot.seconds - 1 - 6 / film.fps > 5 for shot in film.shots)]
    assert len(long) >= 4


def test_every_file_of_the_pool_shows_the_fault_it_is_there_for(films):
    files = {name: file.path for name, file in films.items()}
    assert sum(path.stat().st_size for path in files.values()) < 12_000_000
    with pytest.raises(av.FFmpegError):
        av.open(str(files["not_a_video.mp4"]))
    broken = probe(files["truncated.mp4"])
    assert broken.error and 0 < len(broken.frames) < broken.stream.frames
    portrait = probe(files["portrait.mp4"]).stream
    assert portrait.height * 9 == portrait.width * 16
    boxed = [image for _, image in footage.decoded(files["letterboxed.mp4"])]
    assert np.ptp(boxed[50][:40]) < 40 < np.ptp(boxed[50][60:300])
    assert np.ptp(boxed[300][:, :90].reshape(-1, 3), axis=0).max() < 40 < np.ptp(boxed[300][:, 120:500])
    assert boxed[300][:, :90].reshape(-1, 3).mean(axis=0).max() > 50  # these bars are not dark


def test_the_near_duplicate_is_the_same_picture_smaller_and_brighter(films):
    old, new = (
        np.stack([cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA) for _, image in footage.decoded(path)])
        for path in (films["landscape.mp4"].path, films["near_duplicate.mp4"].path)
    )
    assert old.shape == new.shape
    assert np.corrcoef(old.ravel(), new.ravel())[0, 1] > 0.98
    assert new.mean() > old.mean() + 4


@pytest.mark.parametrize("name", ["shaken.mp4", "landscape.mp4", "people.mp4"])
def test_only_the_shaken_film_makes_a_shot_detector_see_false_shots(films, name):
    from scenedetect import ContentDetector, detect

    shots = detect(str(films[name].path), ContentDetector(), start_in_scene=True)
    per_s = (len(shots) - 1) / shots[-1][1].seconds
    assert (per_s > 0.85) == (films[name].expect == "jitter")  # Movie Gen's limit (sec 3.2.1)


def test_the_rendered_text_can_be_read_by_a_machine(films):
    from rapidocr import RapidOCR

    image = next(itertools.islice(footage.decoded(films["rendered_text.mp4"].path), 50, None))[1]
    read = RapidOCR()(image[:, :, ::-1], use_det=True, use_cls=False, use_rec=True)
    assert "NEWS" in " ".join(read.txts) and "waited" in " ".join(read.txts)
