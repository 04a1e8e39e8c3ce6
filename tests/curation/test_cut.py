"""A cut clip holds exactly the pictures that were measured, in the form that trainers read."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from rushes.curation.sections import Cut
from rushes.curation.video import cut as cut_module
from rushes.curation.video import seal
from rushes.curation.video.cut import CutClip, Cutter, media_path
from rushes.curation.video.decode import Decoded, frames, opened, probe
from rushes.model.frames import read_clip
from tests.footage import make_video

WHOLE = 4096  # stills of this side are not shrunk
GOOD_DB = 28.0  # what the encoder at CRF 18 leaves of small moving pictures, after any scaling, at least
ODD = (
    "rotated", "wide_pixels", "interlaced", "odd_size", "odd_size_subsampled", "late_start", "variable_frame_rate",
    "vp9", "av1", "ten_bit", "with_audio", "awkward_name", "width_362", "full_range", "grayscale",
)  # fmt: skip


def source_pictures(path) -> tuple[list[np.ndarray], list[float], float]:
    """Upright luma uint8 [h, w] of every frame, times, and the end, as the analysis sees them."""
    end, seen, times = Decoded(), [], []
    with opened(str(path)) as (container, stream):
        for frame in frames(container, stream, end):
            seen.append(cv2.cvtColor(frame.still(WHOLE), cv2.COLOR_BGR2GRAY))
            times.append(frame.time_s)
    return seen, times, end.end_s


def clip_row(times, end_s, first, stop, fps) -> dict:
    ends = [*times[1:], end_s]
    return {"clip_id": f"{first:04d}{stop:04d}abcdefabcdef", "start_s": times[first], "end_s": ends[stop - 1],
            "frames": stop - first, "fps": fps}  # fmt: skip


def pictures_of(path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    bgr = [frame.to_ndarray(format="bgr24") for frame in decoded]
    return [cv2.cvtColor(b, cv2.COLOR_BGR2GRAY) for b in bgr], [f.time - decoded[0].time for f in decoded]


def psnr(one, other) -> float:
    other = cv2.resize(other, one.shape[::-1], interpolation=cv2.INTER_AREA)
    return float(10 * np.log10(255**2 / max(np.mean((one.astype(float) - other) ** 2), 1e-9)))


def spans(count: int) -> list[tuple[int, int]]:
    """From the first frame; in the middle, off any key frame; up to the last frame."""
    return [(0, count // 2), (count // 3, count // 3 + max(count // 4, 2)), (count // 2, count)]


@pytest.mark.parametrize("name", ODD)
def test_the_frames_cut_are_the_frames_measured(bad_inputs, tmp_path, name):
    assert_cut_as_measured(bad_inputs[name], tmp_path, from_first=True)


@pytest.mark.parametrize("codec", ["libxvid", "libx264"])
def test_the_same_where_the_file_knows_only_when_frames_are_decoded(tmp_path, codec):
    """AVI: with B-frames what stands there for showing goes back and forth."""
    path = make_video(tmp_path / "old.avi", codec=codec, source="bikes", seconds=4, options={"-bf": 2, "-g": 30})
    assert_cut_as_measured(path, tmp_path, from_first=False)


def assert_cut_as_measured(path, tmp_path, *, from_first: bool) -> None:
    source = probe(str(path))
    pictures, times, end_s = source_pictures(path)
    cutter = Cutter(Cut(), "hash", str(tmp_path))
    for first, stop in spans(len(pictures))[0 if from_first else 1 :]:
        row = clip_row(times, end_s, first, stop, source.fps)
        cut = cutter(source, [row])[row["clip_id"]]
        assert isinstance(cut, CutClip), cut
        mine, mine_times = pictures_of(tmp_path / cut.media)
        assert len(mine) == cut.frames == stop - first
        for got, at in ((mine[0], first), (mine[-1], stop - 1)):
            low = max(0, at - 2)
            near = [psnr(got, picture) for picture in pictures[low : at + 3]]
            assert low + int(np.argmax(near)) == at, near
            assert max(near) > GOOD_DB or source.interlaced  # half of whose lines are made anew
        assert mine_times == pytest.approx([t - times[first] for t in times[first:stop]], abs=2e-3)


@pytest.mark.parametrize(("size", "matrix"), [((1280, 720), 1), ((640, 360), 6)])  # AVCOL_SPC_BT709, SMPTE170M
def test_a_clip_names_the_colour_matrix_that_its_nameless_source_is_read_with(tmp_path, size, matrix):
    path = make_video(tmp_path / "film.mp4", size=size, seconds=0.2, filters=["drawbox=color=0xD03020:t=fill"])
    row = {"clip_id": "ab" * 10, "start_s": 0.0, "end_s": 0.2, "frames": 4, "fps": 24.0}
    cut = Cutter(Cut(side_max=320), "hash", str(tmp_path))(probe(str(path)), [row])["ab" * 10]
    with av.open(str(tmp_path / cut.media)) as container:
        assert container.streams.video[0].codec_context.colorspace == matrix
    before, after = (read_clip(str(p), np.array([0.05]), 96, 160)[0, 48, 80] for p in (path, tmp_path / cut.media))
    assert np.abs(before.astype(int) - after).max() <= 3, (before, after)  # levels of 255


@pytest.mark.parametrize(("transfer", "name"), [("smpte2084", "pq"), ("arib-std-b67", "hlg")])
@pytest.mark.parametrize("tagged", [True, False])
def test_high_dynamic_range_becomes_the_standard_one_in_clips_and_stills(tmp_path, transfer, name, tagged):
    """Read as if it were BT.709 it would be pale and grey: 19 and 24 dB from what it was made of."""
    plain = make_video(tmp_path / "plain.mp4", seconds=1)
    path = make_video(
        tmp_path / "hdr.mp4", codec="libx265", seconds=1, pix_fmt="yuv420p10le",
        filters=["setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709:range=tv",
                 "zscale=t=linear:npl=203", "format=gbrpf32le", "zscale=p=bt2020",
                 f"zscale=t={transfer}:m=bt2020nc:r=tv:npl=203", "format=yuv420p10le",
                 *([] if tagged else ["setparams=color_primaries=unknown:colorspace=unknown"])],
        options={"-x265-params": f"log-level=none:pools=1:transfer={transfer}"
                                 + (":colorprim=bt2020:colormatrix=bt2020nc" if tagged else "")},
    )  # fmt: skip
    source = probe(str(path))
    assert source.hdr == name and probe(str(plain)).hdr is None
    pictures, times, end_s = source_pictures(path)
    expected, *_ = source_pictures(plain)
    row = clip_row(times, end_s, 2, 20, source.fps)
    cut = Cutter(Cut(), "hash", str(tmp_path))(source, [row])[row["clip_id"]]
    mine, _ = pictures_of(tmp_path / cut.media)
    assert psnr(pictures[5], expected[5]) > GOOD_DB and psnr(mine[3], expected[5]) > GOOD_DB
    assert psnr(mine[3], pictures[5]) > 34
    with av.open(str(tmp_path / cut.media)) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "yuv420p" and {frame.color_trc, frame.color_primaries, frame.colorspace} == {
        1
    }  # BT.709


@pytest.mark.parametrize("name", ["rotated", "wide_pixels", "odd_size", "interlaced", "ten_bit", "grayscale"])
def test_clips_are_upright_progressive_eight_bit_and_have_square_pixels_and_even_sides(bad_inputs, tmp_path, name):
    source = probe(str(bad_inputs[name]))
    row = {"clip_id": "ab" * 10, "start_s": 0.0, "end_s": 0.5, "frames": 10, "fps": source.fps}
    cut = Cutter(Cut(), "hash", str(tmp_path))(source, [row])["ab" * 10]
    assert (cut.width, cut.height) == (source.width // 2 * 2, source.height // 2 * 2)
    with av.open(str(tmp_path / cut.media)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(video=0))
        assert frame.format.name == "yuv420p" and not frame.interlaced_frame and frame.rotation == 0
        assert stream.sample_aspect_ratio in (None, 0, 1) and len(container.streams) == 1


@pytest.mark.parametrize(("encoder", "codec"), [("libopenh264", "h264"), ("libvpx-vp9", "vp9"), ("libsvtav1", "av1")])
def test_encoders_of_another_licence_cut_the_same_frames(tmp_path, encoder, codec):
    path = make_video(tmp_path / "a.mp4", size=(320, 180), seconds=2)
    pictures, times, end_s = source_pictures(path)
    row = clip_row(times, end_s, 8, 40, 24.0)
    cut = Cutter(Cut(encoder=encoder), "hash", str(tmp_path))(probe(str(path)), [row])[row["clip_id"]]
    assert isinstance(cut, CutClip), cut
    mine, _ = pictures_of(tmp_path / cut.media)
    assert len(mine) == 32 and psnr(mine[0], pictures[8]) > GOOD_DB and psnr(mine[-1], pictures[39]) > GOOD_DB
    with av.open(str(tmp_path / cut.media)) as container:
        assert container.streams.video[0].codec_context.name.removeprefix("lib").startswith((codec, "dav1d"))
        keys = [i for i, p in enumerate(container.demux(video=0)) if p.is_keyframe and p.pts is not None]
    assert max(np.diff([*keys, 32])) <= 12


def test_key_frames_come_as_often_as_the_recipe_says_and_the_longer_side_is_limited(tmp_path):
    path = make_video(tmp_path / "a.mp4", size=(640, 360), seconds=2)
    source = probe(str(path))
    row = {"clip_id": "cd" * 10, "start_s": 0.0, "end_s": 2.0, "frames": 48, "fps": 24.0}
    cut = Cutter(Cut(gop_s=0.25, side_max=200), "hash", str(tmp_path))(source, [row])["cd" * 10]
    assert (cut.width, cut.height) == (200, 112)
    with av.open(str(tmp_path / cut.media)) as container:
        keys = [i for i, p in enumerate(container.demux(video=0)) if p.is_keyframe and p.pts is not None]
    assert max(np.diff([*keys, 48])) <= 6


@pytest.mark.parametrize("name", ["letterbox", "wide pixels", "rotated"])
def test_the_crop_of_a_row_is_what_is_cut_in_the_frame_as_shown(bad_inputs, tmp_path, name):
    if name == "letterbox":
        path = make_video(tmp_path / "a.mp4", filters=["crop=320:120", "pad=320:180:0:30:white"], seconds=1)
    else:
        path = bad_inputs[name.replace(" ", "_")]
    source = probe(str(path))
    pictures, times, end_s = source_pictures(path)
    x, y, width, height = (0, 30, 320, 120) if name == "letterbox" else (20, 10, source.width // 4 * 2, 64)
    row = clip_row(times, end_s, 4, 12, source.fps)
    row |= {"crop_x": x, "crop_y": y, "crop_width": width, "crop_height": height}
    cut = Cutter(Cut(), "hash", str(tmp_path))(source, [row])[row["clip_id"]]
    assert (cut.width, cut.height) == (width, height) and cut.media.endswith(f"-{width}x{height}-{x}-{y}.mp4")
    for mine, theirs in zip(pictures_of(tmp_path / cut.media)[0], pictures[4:12], strict=True):
        assert psnr(theirs[y : y + height, x : x + width], mine) > GOOD_DB


def test_a_cropped_clip_and_the_whole_one_are_two_files(bunny_video, tmp_path):
    source, cutter = probe(str(bunny_video)), Cutter(Cut(side_max=100), "hash", str(tmp_path))
    row = {"clip_id": "ee" * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24}
    crop = {"crop_x": 60, "crop_y": 0, "crop_width": 200, "crop_height": 180}
    whole, cropped = (cutter(source, [clip])["ee" * 10] for clip in (row, {**row, **crop}))
    assert whole.media != cropped.media
    assert (whole.width, whole.height, cropped.width, cropped.height) == (100, 56, 100, 90)


def test_a_clip_that_is_there_is_not_cut_again(bunny_video, tmp_path):
    source, cutter = probe(str(bunny_video)), Cutter(Cut(), "hash", str(tmp_path))
    row = {"clip_id": "ef" * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24.0}
    first = cutter(source, [row])
    path = tmp_path / media_path("hash", "ef" * 10)
    before = path.stat()
    assert cutter(source, [row]) == first
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_clip_that_cannot_be_cut_is_a_sentence_and_leaves_nothing(bunny_video, tmp_path):
    source, cutter = probe(str(bunny_video)), Cutter(Cut(), "hash", str(tmp_path / "run"))
    good = {"clip_id": "11" * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24.0}
    beyond = {"clip_id": "22" * 10, "start_s": 1.5, "end_s": 4.0, "frames": 60, "fps": 24.0}
    done = cutter(source, [beyond, good])
    assert isinstance(done["11" * 10], CutClip)
    assert done["22" * 10] == "12 of 60 frames could be cut"
    assert len([p for p in (tmp_path / "run").rglob("*") if p.is_file()]) == 1
    copy = tmp_path / "gone.mp4"
    copy.write_bytes(bunny_video.read_bytes())
    gone = probe(str(copy))
    copy.unlink()
    row = {**good, "clip_id": "33" * 10}
    assert cutter(gone, [row]) == {"33" * 10: "the source vanished before the clip was cut"}


def test_a_clip_that_is_damaged_is_cut_again(bunny_video, tmp_path):
    """Empty, cut short, another clip under its name, text, a later part overwritten by a shorter file."""
    source, cutter = probe(str(bunny_video)), Cutter(Cut(), "hash", str(tmp_path))
    rows = [{"clip_id": name * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24.0} for name in ("a1", "b2")]
    first = cutter(source, rows)
    path, other = (tmp_path / first[row["clip_id"]].media for row in rows)
    whole = path.read_bytes()
    swapped = other.read_bytes()
    headless = b"\0" * 64 + whole[64:]
    for damaged in (b"", whole[:-1], whole[: len(whole) // 2], swapped, b"no video", whole + b"x", headless):
        path.write_bytes(damaged)
        assert cutter(source, rows) == first
        assert path.read_bytes() == whole
    assert other.read_bytes() == swapped


def test_a_clip_carries_its_length_and_its_hash(bunny_video, tmp_path):
    source, cutter = probe(str(bunny_video)), Cutter(Cut(), "hash", str(tmp_path))
    row = {"clip_id": "c3" * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24.0}
    cut = cutter(source, [row])["c3" * 10]
    data = (tmp_path / cut.media).read_bytes()
    assert cut.media_bytes == len(data)
    assert cut.media_hash == hashlib.blake2b(data[: -seal.BOX_BYTES], digest_size=16).hexdigest()


class Unreadable(io.RawIOBase):
    """A file of an object store whose connection breaks after the first bytes."""

    def read(self, _: int = -1) -> bytes:
        raise OSError("connection reset by peer")


def test_a_source_that_cannot_be_read_is_its_clips_failure_and_is_blamed(bunny_video, tmp_path, monkeypatch):
    source = replace(probe(str(bunny_video)), uri="s3://bucket/a.mp4")
    row = {"clip_id": "d4" * 10, "start_s": 0.0, "end_s": 1.0, "frames": 24, "fps": 24.0}
    store = SimpleNamespace(open_input_stream=lambda _: Unreadable())
    real = cut_module.resolve
    monkeypatch.setattr(cut_module, "resolve", lambda uri: (store, uri) if uri.startswith("s3:") else real(uri))
    said = Cutter(Cut(), "hash", str(tmp_path))(source, [row])["d4" * 10]
    assert said == "the source cannot be read: connection reset by peer"
    nowhere = replace(source, uri="nosuch://bucket/a.mp4")
    assert "the source cannot be read" in Cutter(Cut(), "hash", str(tmp_path))(nowhere, [row])["d4" * 10]


def test_what_a_killed_worker_leaves_in_the_temporary_folder_goes_when_the_next_starts(tmp_path):
    code = (
        "import sys; from rushes.curation import scratch\n"
        "open(scratch.scratch_file('.mp4'), 'w').write('copy'); print('ready', flush=True); sys.stdin.read()"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}

    def begin() -> subprocess.Popen[str]:
        worker = subprocess.Popen([sys.executable, "-c", code], env=env, stdin=-1, stdout=-1, text=True)
        assert worker.stdout.readline() == "ready\n"
        return worker

    one, two = begin(), begin()
    assert len(list(tmp_path.rglob("*.mp4"))) == 2
    one.kill()
    one.communicate()
    three = begin()
    assert len(list(tmp_path.rglob("*.mp4"))) == 2, "the living one's stays, the killed one's goes"
    for worker in (two, three):
        worker.communicate("")
    assert not list(tmp_path.rglob("*.mp4"))
