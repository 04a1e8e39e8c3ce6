"""Frames of clips and images: the right ones, upright, in the right colours, and a sentence for what cannot be had."""

from __future__ import annotations

import av
import numpy as np
import pytest
from PIL import Image

from rushes.model.frames import ClipError, read_clip, read_image
from rushes.model.sample import write_mp4
from tests.footage import PATTERN, ffmpeg, make_video

RATE = 24
MOST_OFF = 2.0  # levels of 255, mean over a picture, by which two ways of converting colours may differ


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Two seconds with B-frames and a key frame every half second."""
    folder = tmp_path_factory.mktemp("frames")
    return make_video(folder / "film.mp4", size=(320, 180), fps=RATE, source=PATTERN, options={"-g": 12})


def by_ffmpeg(path, height, width) -> np.ndarray:
    """All frames as FFmpeg's own command turns them into RGB: uint8 [T, height, width, 3]."""
    raw = path.with_suffix(".rgb")
    ffmpeg("-i", path, "-vf", f"scale={width}:{height}:flags=area", "-pix_fmt", "rgb24", "-f", "rawvideo", raw)
    return np.fromfile(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize("space", ["bt709", "smpte170m", None])
@pytest.mark.parametrize("range_", ["tv", "pc"])
@pytest.mark.parametrize("size", [(96, 160), (180, 320)])
def test_colours_are_those_of_ffmpeg_for_every_matrix_and_range(tmp_path, space, range_, size):
    tagged = f"scale=out_color_matrix={space or 'bt601'}:out_range={range_}"
    options = {"-color_range": range_, **({"-colorspace": space} if space else {})}
    path = make_video(tmp_path / "a.mp4", size=(320, 180), seconds=0.25, filters=[tagged], options=options)
    found = read_clip(str(path), (np.arange(6) + 0.5) / RATE, *size)
    wide = round(320 * size[0] / 180)
    left = (wide - size[1]) // 2
    expected = by_ffmpeg(path, size[0], wide)[:, :, left : left + size[1]]
    assert np.abs(coarse(found) - coarse(expected)).mean() < MOST_OFF


def coarse(frames: np.ndarray) -> np.ndarray:
    """Means of 4 x 10 pixels: how sharply a picture is shrunk does not matter to its colours."""
    t, high, wide, _ = frames.shape
    return frames[:, : high // 4 * 4].reshape(t, high // 4, 4, wide // 10, 10, 3).mean((2, 4))


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv444p", "gray"])
def test_other_pixel_formats_are_read_as_well(tmp_path, pix_fmt):
    path = make_video(tmp_path / "a.mp4", size=(160, 96), seconds=0.2, pix_fmt=pix_fmt)
    found = read_clip(str(path), np.array([0.01]), 48, 80)
    assert np.abs(coarse(found) - coarse(by_ffmpeg(path, 48, 80)[:1])).mean() < MOST_OFF


def test_wanted_frames_are_the_same_whether_others_are_passed_over_or_not(film):
    every = read_clip(str(film), (np.arange(48) + 0.5) / RATE, 90, 160)
    for some in ([0], [47], [5, 6, 7], [1, 9, 22, 40], list(range(0, 48, 3))):
        assert np.array_equal(read_clip(str(film), (np.array(some) + 0.5) / RATE, 90, 160), every[some])


def test_a_frame_that_stays_on_screen_is_shown_at_every_time_of_it(film):
    times = np.array([0.501, 0.51, 0.52, 0.53, 0.56])
    found = read_clip(str(film), times, 90, 160)
    assert all(np.array_equal(found[0], frame) for frame in found[1:4]) and not np.array_equal(found[3], found[4])


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_is_read_upright_as_curation_shows_it(tmp_path, film, degrees):
    from rushes.curation.video import decode

    turned = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", degrees, "-i", film, "-c", "copy", turned)
    with decode.opened(str(turned)) as (container, stream):
        still = next(decode.frames(container, stream, decode.Decoded())).still(320)[..., ::-1]
    found = read_clip(str(turned), np.array([0.0]), *still.shape[:2])[0]
    assert found.shape == ((320, 180, 3) if degrees != 180 else (180, 320, 3))
    assert np.abs(found.astype(float) - still).mean() < MOST_OFF


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    square = make_video(tmp_path / "a.mp4", size=(320, 180), seconds=0.2)
    narrow = make_video(tmp_path / "b.mp4", size=(160, 180), seconds=0.2, filters=["setsar=2"])
    pictures = [read_clip(str(path), np.array([0.0]), 90, 160)[0].astype(float) for path in (square, narrow)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 4  # half as many columns: the same picture, softer


def test_odd_sizes_are_read(tmp_path):
    path = make_video(tmp_path / "a.mp4", codec="mpeg4", size=(161, 95), seconds=0.2, source=PATTERN)
    assert read_clip(str(path), np.array([0.0, 0.1]), 33, 47).shape == (2, 33, 47, 3)


def test_damaged_empty_and_missing_files_are_sentences_that_name_them(tmp_path, film):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "half.mp4").write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    ffmpeg("-f", "lavfi", "-i", "sine=d=0.2", tmp_path / "sound.m4a")
    torn = bytearray(film.read_bytes())
    torn[len(torn) // 3 : len(torn) // 3 + 4000] = bytes(4000)
    (tmp_path / "torn.mp4").write_bytes(torn)
    for name in ("empty.mp4", "half.mp4", "sound.m4a", "gone.mp4"):
        with pytest.raises(ClipError, match=name):
            read_clip(str(tmp_path / name), np.array([0.1, 1.5]), 48, 64)
    try:
        assert read_clip(str(tmp_path / "torn.mp4"), np.arange(48) / RATE, 48, 64).shape == (48, 48, 64, 3)
    except ClipError as error:
        assert "torn.mp4" in str(error)


def test_a_clip_with_another_start_counts_from_its_first_frame(tmp_path):
    brighter = [np.full((48, 64, 3), 10 * number, np.uint8) for number in range(24)]
    plain = write_mp4(tmp_path / "plain.mp4", brighter, fps=RATE)
    ffmpeg("-i", plain, "-c", "copy", "-output_ts_offset", 5, tmp_path / "late.ts")
    with av.open(str(tmp_path / "late.ts")) as container:
        assert container.streams.video[0].start_time * container.streams.video[0].time_base > 5
    for path in (plain, tmp_path / "late.ts"):
        found = read_clip(str(path), (np.array([2, 12, 20]) + 0.5) / RATE, 32, 32)
        assert np.array_equal(np.round(found.mean((1, 2, 3)) / 10), [2, 12, 20])


def test_images_are_upright_and_cut_around_the_centre(tmp_path):
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[:50], picture[50:] = (200, 0, 0), (0, 0, 200)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise: what is stored on top is right
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.fromarray(picture).save(tmp_path / name, exif=exif, quality=95)
        found = read_image(str(tmp_path / name), 64, 32)
        assert found.shape == (1, 64, 32, 3)
        assert found[0, :, 20:, 0].mean() > 150 > 50 > found[0, :, :12, 0].mean()


def test_a_broken_image_is_a_sentence(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:9000])
    (tmp_path / "text.png").write_text("no picture")
    for name in ("half.jpg", "text.png", "gone.jpg"):
        with pytest.raises(ClipError, match=name):
            read_image(str(tmp_path / name), 64, 64)


@pytest.mark.parametrize("size, space", [((1280, 96), "bt709"), ((96, 720), "bt709"), ((320, 180), "bt601")])
def test_a_video_that_names_no_matrix_is_read_as_players_read_its_size(tmp_path, size, space):
    path = make_video(
        tmp_path / "a.mp4", size=size, seconds=0.1, source=PATTERN, filters=[f"scale=out_color_matrix={space}"]
    )
    truth = by_ffmpeg_as(path, space)
    found = read_clip(str(path), np.array([0.0]), size[1], size[0])[0]
    other = by_ffmpeg_as(path, {"bt709": "bt601", "bt601": "bt709"}[space])
    assert np.abs(found.astype(int) - truth).mean() < MOST_OFF < np.abs(found.astype(int) - other).mean()


def by_ffmpeg_as(path, space: str) -> np.ndarray:
    """The first frame as FFmpeg turns it into RGB when it is told the matrix: int [H, W, 3]."""
    raw = path.with_suffix(f".{space}.png")
    ffmpeg("-i", path, "-vf", f"scale=in_color_matrix={space}", "-pix_fmt", "rgb24", "-frames:v", "1", raw)
    return np.array(Image.open(raw)).astype(int)
