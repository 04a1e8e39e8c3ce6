"""Frames for training: a contiguous range of a short-GOP clip by PyAV, or a single image by Pillow, cut to a shape.

What is unusual:
- Which frames are on screen at the wanted times is known from the packets' time stamps before anything is decoded.
  So the decode ends with the last of them, and frames in between that nobody wants and no other frame refers to are
  passed over.
- Pictures are shrunk as they are coded (4:2:0), and turned into RGB at the small size. Where they are shrunk to half
  their area, frames that no other refers to are not deblocked: the small pictures differ by 60 dB.
- One thread throughout: the loader runs many clips at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rushes.curation.manifest import ManifestError, is_local, resolve

if TYPE_CHECKING:
    import av
    import av.container

TIME_EPS = 1e-6  # seconds: time stamps are ratios of integers, wanted times are floats
SHRUNK_FIRST = "yuv420p"  # what clips are cut to; as RGB afterwards, they are what a 4:2:0 video of that size holds
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP")
UNBLOCKED_AREA = 0.5  # share of the coded area, up to which nothing is seen of blocks that were not smoothed
HD_WIDTH, SD_HEIGHT = 1280, 576  # from where on a video that names no colour matrix is BT.709 (mpv's rule)
UNNAMED_SPACE = 2  # AVCOL_SPC_UNSPECIFIED
#: Containers that hold their own pictures, from local files: FFmpeg would take a text for a list of other files.
OWN_PICTURES = {"format_whitelist": "mov,mp4,matroska,webm,avi,mpegts", "protocol_whitelist": "file"}
MISSING_FRAMES = 2  # that a clip may end early: a cut lands on a frame, and rates are rounded


class ClipError(RuntimeError):
    """A clip or an image that cannot be had: one sentence that names the file."""


def read_clip(uri: str, times: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 [T, height, width, 3] RGB: at each time the frame that is on screen.

    uri: local path or pyarrow.fs address. times: float [T], seconds from the file's first frame, increasing. The
    picture, upright and with square pixels, is scaled to cover height x width (pixels) and cut around the centre.
    Raises ClipError where the file is missing, cannot be decoded, or ends more than two frames before the last time.
    """
    import av

    out = np.empty((len(times), height, width, 3), dtype=np.uint8)
    try:
        for seeks in (True, False):  # a seek may land behind its target: then the file is read from its start
            with _opened(uri) as file, av.open(file, options=OWN_PICTURES) as container:
                if _fill(container, uri, times, out, seeks):
                    break
    except (av.error.FFmpegError, OSError, ManifestError) as error:
        raise ClipError(f"{uri} cannot be decoded: {' '.join(str(error).split())}.") from error
    return out


def read_image(uri: str, height: int, width: int) -> np.ndarray:
    """uint8 [1, height, width, 3] RGB: an image, upright (EXIF), scaled to cover the shape and cut around the centre.

    uri: local path or pyarrow.fs address of a JPEG, PNG or WebP. Raises ClipError where it cannot be had.
    """
    from PIL import Image, ImageOps

    side = max(height, width)
    try:
        with _opened(uri) as file, Image.open(file, formats=IMAGE_FORMATS) as image:
            image.draft("RGB", (side, side))  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that is enough
            upright = ImageOps.exif_transpose(image).convert("RGB")
            return np.array(ImageOps.fit(upright, (width, height), Image.Resampling.BICUBIC))[None]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, ManifestError) as error:
        raise ClipError(f"{uri} cannot be decoded: {' '.join(str(error).split())}.") from error


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[Any]:
    """What PyAV and Pillow open: a local path, or a file of an object store."""
    fs, path = resolve(uri)
    if is_local(fs):
        yield path
    else:
        with fs.open_input_file(path) as file:
            yield file


def _fill(container: av.container.InputContainer, uri: str, times: np.ndarray, out: np.ndarray, seeks: bool) -> bool:
    """Fill `out`; False where the seek has missed the key frame in front of the first time. Raises ClipError."""
    if not container.streams.video:
        raise ClipError(f"{uri} holds no video.")
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    if out[0].size // 3 <= UNBLOCKED_AREA * stream.width * stream.height:
        stream.codec_context.options = {"skip_loop_filter": "noref"}
    stamps = (stream.start_time or 0) + (times + TIME_EPS) / float(stream.time_base)
    if seeks:
        container.seek(int(stamps[0]), stream=stream)
    packets = []
    for packet in container.demux(stream):
        if packet.dts is None or packet.dts > stamps[-1]:
            break
        packets.append(packet)
    begins = np.sort([p.pts for p in packets if p.pts is not None and not p.is_discard])
    if seeks and not (len(begins) and packets[0].is_keyframe and begins[0] <= stamps[0]):
        return False
    slack = MISSING_FRAMES / float((stream.average_rate or 1) * stream.time_base)
    if not len(begins) or begins[-1] + slack < stamps[-1]:
        raise ClipError(f"{uri} ends before {times[-1]:.2f} s, which its manifest says it holds.")
    shown = begins[np.maximum(np.searchsorted(begins, stamps, side="right") - 1, 0)]  # time stamps at the wanted times
    stamps, places, counts = np.unique(shown, return_index=True, return_counts=True)
    wanted = {int(s): slice(p, p + n) for s, p, n in zip(stamps, places, counts)}  # time stamp -> its places in `out`
    fit, context = None, stream.codec_context
    for packet in [*packets, None]:  # None: what the decoder still holds
        context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else "NONREF"
        for frame in stream.decode(packet):
            place = wanted.pop(frame.pts, None)
            if place is not None:
                fit = fit or _Fit(stream, frame, *out.shape[1:3])
                out[place] = fit(frame)
        if not wanted:
            return True
    raise ClipError(f"{uri} cannot be decoded: {len(wanted)} of its frames are missing.")


def colour_space(frame: av.VideoFrame) -> Any:
    """The colour matrix that a frame is to be read with: its own, or as players do where it names none: BT.709 from
    1280 columns or 577 rows on, BT.601 below. None: the frame's own.
    """
    from av.video.reformatter import Colorspace

    if int(frame.colorspace) != UNNAMED_SPACE:
        return None
    return Colorspace.ITU709 if frame.width >= HD_WIDTH or frame.height > SD_HEIGHT else Colorspace.ITU601


class _Fit:
    """Frames of one clip to uint8 [height, width, 3]: upright, scaled to cover, cut around the centre.

    Each conversion has a scaler of its own for the whole clip: a new one would set up its tables for every frame.
    """

    def __init__(self, stream: Any, frame: av.VideoFrame, height: int, width: int) -> None:
        from av.video.format import VideoFormat
        from av.video.reformatter import Interpolation, VideoReformatter

        self.turns = round(frame.rotation / 90) % 4  # quarter turns counter-clockwise, made last
        self.height, self.width = (width, height) if self.turns % 2 else (height, width)
        shown = frame.width * float(stream.sample_aspect_ratio or 1)  # width with square pixels
        scale = max(self.height / frame.height, self.width / shown)
        self.high, self.wide = max(self.height, round(frame.height * scale)), max(self.width, round(shown * scale))
        shrinks = self.high * self.wide < frame.height * frame.width
        self.way = Interpolation.BILINEAR if shrinks else Interpolation.BICUBIC
        self.rgb, self.space = VideoFormat("rgb24"), colour_space(frame)
        self._colours = VideoReformatter()
        self._shrink = VideoReformatter() if shrinks and frame.format.name == SHRUNK_FIRST else None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if self._shrink is not None:  # shrunk as it is coded: a quarter of the cost
            frame = self._shrink.reformat(frame, self.wide, self.high, interpolation=self.way, threads=1)
        made = self._colours.reformat(
            frame, self.wide, self.high, self.rgb, self.space, self.space, interpolation=self.way, threads=1
        )
        plane = made.planes[0]
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # a view, no copy
        top, left = (self.high - self.height) // 2, 3 * ((self.wide - self.width) // 2)
        cut = lines[top : top + self.height, left : left + 3 * self.width].reshape(self.height, self.width, 3)
        return np.rot90(cut, self.turns) if self.turns else cut
