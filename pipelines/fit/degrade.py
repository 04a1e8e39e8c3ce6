"""Footage that is made worse in a known way, and its VMAF against what it was made from."""

from __future__ import annotations

import csv
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

FPS = 24
FRAMES = 28  # of a window
SHARP = 0.5  # a video is shrunk by this, a photograph by more: what it is compared with must be sharp
SIDE_MIN = 144  # pixels: no shorter side is shrunk below
PHOTO_SIZES = ((320, 192), (288, 208), (256, 256), (352, 208), (256, 144), (208, 144))
EVERY = 3  # frames between those that VMAF is measured on
GRAIN_SHARE, GRAIN = 0.35, (2.0, 9.0)  # of photographs, and its grey levels: originals have grain as well
KINDS = (
    "clean", "h264", "h264", "h264", "mpeg", "mpeg", "blur", "noise", "upscale", "upscale", "band", "mixed", "mixed",
    "again",
)  # fmt: skip


@dataclass(frozen=True)
class Window:
    """FRAMES frames of a video from start_s on, or a photograph that a camera glides over."""

    path: Path
    start_s: float = 0.0
    photo: bool = False

    @property
    def source(self) -> str:
        return self.path.stem

    @property
    def key(self) -> tuple[int, int]:
        """For random draws that do not depend on what other sources there are."""
        return zlib.crc32(self.path.name.encode()), round(100 * self.start_s)


@dataclass(frozen=True)
class Change:
    """kind: one of KINDS. filters: FFmpeg's, on the reference. codec: options; first: of an earlier one."""

    kind: str
    filters: tuple[str, ...]
    codec: tuple[object, ...]
    first: tuple[object, ...] = ()


def draw(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Change:
    """A change of this kind, of a strength that is drawn: over all kinds VMAF is spread over most of its range."""
    x264 = ("-c:v", "libx264", "-preset", str(rng.choice(["veryfast", "faster"])), "-bf", 2, "-g", 48)
    clean = (*x264, "-crf", int(rng.integers(8, 15)))
    width, height = size
    if kind == "clean":
        return Change(kind, (), clean)
    if kind == "h264":
        return Change(kind, (), (*x264, "-crf", int(rng.integers(20, 52))))
    if kind == "mpeg":
        codec = str(rng.choice(["mpeg4", "mpeg2video"]))
        return Change(kind, (), ("-c:v", codec, "-q:v", int(rng.integers(3, 32)), "-bf", 0))
    if kind == "blur":
        return Change(kind, (f"gblur=sigma={_log(rng, 0.5, 4):.2f}",), clean)
    if kind == "noise":
        return Change(kind, (f"noise=alls={int(_log(rng, 6, 90))}:allf=t",), clean)
    if kind == "upscale":
        factor = _log(rng, 1.3, 5)
        small = f"scale={max(16, int(width / factor) // 2 * 2)}:{max(16, int(height / factor) // 2 * 2)}:flags=area"
        way = rng.choice(["bicubic", "bilinear", "lanczos", "neighbor"], p=[0.4, 0.3, 0.2, 0.1])
        return Change(kind, (small, f"scale={width}:{height}:flags={way}"), clean)
    if kind == "band":
        step = int(_log(rng, 6, 60))
        return Change(kind, (f"lutyuv=y='trunc(val/{step})*{step}+{step // 2}'",), clean)
    if kind == "again":  # a poor file that was encoded once more, and better: its quantiser says nothing
        first = draw(str(rng.choice(["h264", "mpeg"])), size, rng)
        return Change(kind, (), (*x264, "-crf", int(rng.integers(10, 28))), first.codec)
    first, last = draw(str(rng.choice(["blur", "noise", "upscale"])), size, rng), draw("h264", size, rng)
    return Change("mixed", first.filters, last.codec)


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def reference(window: Window, path: Path, rng: np.random.Generator) -> tuple[int, int]:
    """Write FRAMES frames of the window without loss, shrunk so that they are sharp; (width, height)."""
    lossless = ("-frames:v", FRAMES, "-an", "-threads", 1, "-c:v", "libx264", "-preset", "ultrafast", "-qp", 0,
                "-pix_fmt", "yuv420p")  # fmt: skip
    if window.photo:
        photo = cv2.imread(str(window.path), cv2.IMREAD_COLOR)
        fit = [size for size in PHOTO_SIZES if all(np.divide(photo.shape[1::-1], size) > 1.6)] or [PHOTO_SIZES[-1]]
        size = fit[int(rng.integers(len(fit)))]
        raw = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}", "-r", FPS, "-i", "-")
        grain = ("-vf", f"noise=alls={_log(rng, *GRAIN):.0f}:allf=t") if rng.random() < GRAIN_SHARE else ()
        ffmpeg((*raw, *grain, *lossless, path), glide(photo, size, rng))
        return size
    probe = cv2.VideoCapture(str(window.path))
    shown = np.array([probe.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)])
    scale = max(SHARP * rng.uniform(0.85, 1.15), SIDE_MIN / shown.min())
    size = tuple(int(side) // 2 * 2 for side in shown * min(1.0, scale))
    ffmpeg(("-ss", window.start_s, "-i", window.path, "-vf", f"scale={size[0]}:{size[1]}:flags=area", *lossless, path))
    return size


def glide(photo: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """FRAMES frames of a camera that glides over a photograph, BGR bytes: it is shrunk, so that it is sharp."""
    width, height = size
    fits = min(photo.shape[1] / width, photo.shape[0] / height)
    scale = float(rng.uniform(min(1.5, fits / 1.08), fits / 1.08))
    small = cv2.resize(photo, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    room = np.array([small.shape[1] - width, small.shape[0] - height], float)
    begin, step = rng.uniform(0.2, 0.8, 2) * room, rng.uniform(-1.2, 1.2, 2)
    frames = []
    for number in range(FRAMES):
        x, y = np.clip(begin + step * number, 0, room)
        matrix = np.float32([[1, 0, -x], [0, 1, -y]])
        frames.append(cv2.warpAffine(small, matrix, size, flags=cv2.INTER_CUBIC).tobytes())
    return b"".join(frames)


def write(change: Change, original: Path, path: Path) -> None:
    """The reference after the change."""
    if change.first:
        between = path.with_name(f"{path.stem}-first.mkv")
        write(Change(change.kind, change.filters, change.first), original, between)
        write(Change(change.kind, (), change.codec), between, path)
        return
    filters = ("-vf", ",".join(change.filters)) if change.filters else ()
    ffmpeg(("-i", original, *filters, "-threads", 1, *change.codec, "-pix_fmt", "yuv420p", path))


def vmaf(path: Path, original: Path, log: Path) -> np.ndarray:
    """float64: VMAF (v0.6.1, 0-100) of every EVERY-th frame of `path` against the original."""
    graph = f"[0:v]setpts=PTS-STARTPTS[a];[1:v]setpts=PTS-STARTPTS[b];[a][b]libvmaf=n_subsample={EVERY}:log_fmt=csv"
    ffmpeg(("-i", path, "-i", original, "-lavfi", f"{graph}:log_path={log}", "-f", "null", "-"))
    with log.open() as file:
        return np.array([float(row["vmaf"]) for row in csv.DictReader(file)])


def ffmpeg(arguments: Sequence[object], feed: bytes = b"") -> None:
    """Run the FFmpeg that the project carries. Raises RuntimeError with its words where it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=feed, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"FFmpeg cannot make footage to fit on: {done.stderr.decode(errors='replace').strip()}")
