"""Footage that is made worse in a known way, and its VMAF against what it was made from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rushes.pipelines.fit.sources import FPS, Window, ffmpeg, glide

FRAMES = 28  # of a window
PHOTO_SIZES = ((448, 256), (384, 288), (512, 288))
EVERY = 3  # frames between those that VMAF is measured on
CLEAN_CRF = 12  # of what is written after a change of pixels
KINDS = ("clean", "h264", "h264", "h264", "mpeg", "blur", "noise", "upscale", "upscale", "band", "soft", "mixed")


@dataclass(frozen=True)
class Change:
    """kind: one of KINDS. filters: FFmpeg's, on the reference. codec: options of the encoder."""

    kind: str
    filters: tuple[str, ...]
    codec: tuple[object, ...]


def draw(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Change:
    """A change of this kind, of a strength that is drawn."""
    x264 = ("-c:v", "libx264", "-preset", str(rng.choice(["veryfast", "faster"])), "-bf", 2, "-g", 48)
    clean = (*x264, "-crf", int(rng.integers(8, CLEAN_CRF + 3)))
    width, height = size
    if kind == "clean":
        return Change(kind, (), clean)
    if kind == "h264":
        return Change(kind, (), (*x264, "-crf", int(rng.integers(18, 51))))
    if kind == "mpeg":
        codec = str(rng.choice(["mpeg4", "mpeg2video"]))
        return Change(kind, (), ("-c:v", codec, "-q:v", int(rng.integers(2, 31)), "-bf", 0))
    if kind == "blur":
        return Change(kind, (f"gblur=sigma={np.exp(rng.uniform(np.log(0.4), np.log(4))):.2f}",), clean)
    if kind == "noise":
        return Change(kind, (f"noise=alls={int(np.exp(rng.uniform(np.log(4), np.log(60))))}:allf=t",), clean)
    if kind == "upscale":
        factor = np.exp(rng.uniform(np.log(1.25), np.log(5)))
        small = f"scale={max(16, int(width / factor) // 2 * 2)}:{max(16, int(height / factor) // 2 * 2)}:flags=area"
        way = rng.choice(["bicubic", "bilinear", "lanczos", "neighbor"], p=[0.4, 0.3, 0.2, 0.1])
        return Change(kind, (small, f"scale={width}:{height}:flags={way}"), clean)
    if kind == "band":
        step = int(rng.integers(3, 28))
        return Change(kind, (f"lutyuv=y='trunc(val/{step})*{step}+{step // 2}'",), clean)
    if kind == "soft":
        return Change(kind, (f"hqdn3d={np.exp(rng.uniform(np.log(2), np.log(20))):.1f}",), clean)
    parts = [draw(str(rng.choice(["blur", "noise", "upscale"])), size, rng), draw("h264", size, rng)]
    return Change("mixed", parts[0].filters, parts[1].codec)


def reference(window: Window, path: Path, rng: np.random.Generator, scale: float = 1.0) -> tuple[int, int]:
    """Write FRAMES frames of the window without loss, at most about 360 lines; its (width, height).

    scale: what a video is shrunk by, so that the reference is sharper than its source.
    """
    lossless = ("-frames:v", FRAMES, "-an", "-threads", 1, "-c:v", "libx264", "-preset", "ultrafast", "-qp", 0,
                "-pix_fmt", "yuv420p")  # fmt: skip
    if window.photo:
        size = PHOTO_SIZES[int(rng.integers(len(PHOTO_SIZES)))]
        frames = glide(cv2.imread(str(window.path), cv2.IMREAD_COLOR), FRAMES, size, rng)
        raw = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}", "-r", FPS, "-i", "-")
        ffmpeg((*raw, *lossless, path), frames)
        return size
    probe = cv2.VideoCapture(str(window.path))
    width, height = (int(probe.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    shrunk = min(scale, 360 * scale / min(width, height)) if min(width, height) > 240 else 1.0
    size = (int(width * shrunk) // 2 * 2, int(height * shrunk) // 2 * 2)
    ffmpeg(("-ss", window.start_s, "-i", window.path, "-vf", f"scale={size[0]}:{size[1]}:flags=area", *lossless, path))
    return size


def write(change: Change, original: Path, path: Path) -> None:
    """The reference after the change."""
    filters = ("-vf", ",".join(change.filters)) if change.filters else ()
    ffmpeg(("-i", original, *filters, "-threads", 1, *change.codec, "-pix_fmt", "yuv420p", path))


def vmaf(path: Path, original: Path, log: Path) -> np.ndarray:
    """float64: VMAF (v0.6.1, 0-100) of every EVERY-th frame of `path` against the original."""
    graph = f"[0:v]setpts=PTS-STARTPTS[a];[1:v]setpts=PTS-STARTPTS[b];[a][b]libvmaf=n_subsample={EVERY}:log_fmt=csv"
    ffmpeg(("-i", path, "-i", original, "-lavfi", f"{graph}:log_path={log}", "-f", "null", "-"))
    with log.open() as file:
        return np.array([float(row["vmaf"]) for row in csv.DictReader(file)])
