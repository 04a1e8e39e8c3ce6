"""Frames of a clip: a contiguous range of a short-GOP file, decoded with PyAV, cut to a bucket's shape.

One decode of as little as the range needs: the file is wound to the key frame in front of the first wanted time and
read until the last. Pictures are scaled to cover the shape and cut to it around the centre, in one thread: the
loader runs many clips at a time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from curation.manifest import ManifestError, is_local, resolve

if TYPE_CHECKING:
    import av.container

TIME_EPS = 1e-6  # seconds: time stamps are ratios of integers, wanted times are floats
SHRUNK_FIRST = "yuv420p"  # what clips are cut to; as RGB afterwards, they are what a 4:2:0 video of that size holds
MISSING_FRAMES = 2  # that a clip may end early: a cut lands on a frame, and rates are rounded


class ClipError(RuntimeError):
    """A clip whose frames cannot be had: one sentence that names the file."""


def read_clip(uri: str, times: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [T, height, width, 3] RGB: at each time the frame that is on screen.

    uri: local path or pyarrow.fs address. times: float [T], seconds from the file's first frame, increasing. The
    picture is scaled to cover height x width (pixels) and cut around the centre. Raises ClipError where the file is
    missing, cannot be decoded, or ends more than two frames before the last time.
    """
    import av

    out = np.empty((len(times), height, width, 3), dtype=np.uint8)
    try:
        with _opened(uri) as container:
            _fill(container, uri, times, out)
    except (av.error.FFmpegError, OSError, ManifestError) as error:
        raise ClipError(f"{uri} cannot be decoded: {' '.join(str(error).split())}.") from error
    return out


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[av.container.InputContainer]:
    import av

    fs, path = resolve(uri)
    with contextlib.ExitStack() as stack:
        source = path if is_local(fs) else stack.enter_context(fs.open_input_file(path))
        yield stack.enter_context(av.open(source))


def _fill(container: av.container.InputContainer, uri: str, times: np.ndarray, out: np.ndarray) -> None:
    if not container.streams.video:
        raise ClipError(f"{uri} holds no video.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    fit = _Fit(*out.shape[1:3])
    first = float((stream.start_time or 0) * stream.time_base)
    container.seek(int((first + times[0]) / stream.time_base), stream=stream)
    shown: np.ndarray | None = None
    held, held_s, done = None, -math.inf, 0
    for frame in container.decode(stream):
        if frame.pts is None:
            continue
        now = float(frame.pts * frame.time_base) - first
        while done < len(times) and held is not None and times[done] < now - TIME_EPS:
            shown = fit(held) if shown is None else shown
            out[done] = shown
            done += 1
        if done == len(times):
            return
        held, held_s, shown = frame, now, None
    slack = MISSING_FRAMES / float(stream.average_rate or 1)
    if held is None or held_s + slack < times[-1]:
        raise ClipError(f"{uri} ends before {times[-1]:.2f} s, which its manifest says it holds.")
    out[done:] = fit(held)


class _Fit:
    """Frames of one clip to uint8 [height, width, 3]: scaled to cover, cut around the centre.

    Each conversion has a scaler of its own for the whole clip: a new one would set up its tables for every frame.
    """

    def __init__(self, height: int, width: int) -> None:
        from av.video.reformatter import VideoReformatter

        self.height, self.width = height, width
        self._shrink, self._colours = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        scale = max(self.height / frame.height, self.width / frame.width)
        high, wide = max(self.height, round(frame.height * scale)), max(self.width, round(frame.width * scale))
        way = "AREA" if scale < 1 else "BICUBIC"
        if scale < 1 and frame.format.name == SHRUNK_FIRST:  # shrunk as it is coded: a quarter of the cost
            frame = self._shrink.reformat(frame, wide, high, interpolation=way)
        picture = self._colours.reformat(frame, wide, high, "rgb24", interpolation=way).to_ndarray()
        top, left = (high - self.height) // 2, (wide - self.width) // 2
        return picture[top : top + self.height, left : left + self.width]
