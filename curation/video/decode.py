"""The one decode of a file: every meter is fed from it.

A `Frame` gives lazy, cached views of one decoded picture: small luma, tiny colour, a still, the codec's motion
vectors, and its time. Ten meters share one decode and one resize. Views are upright only where they are shown to
people or models (`still`); meters see the picture as it is coded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import av.logging
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType
from av.video.reformatter import VideoReformatter

from rushes.curation.video.colour import to_bgr
from rushes.curation.video.source import Source, open_bytes

LUMA_SIDE = 160  # longer side of the small luma, pixels: VMAF motion there ranks as at full size (docs/benchmarks.md)
TINY_SHRINK = 2  # the tiny colour picture is this much smaller again: shot detection needs no more
#: Shrinking factors made of 2s and one 3: halving is the one area average that OpenCV vectorises.
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
QUARTER_FROM = 8  # factor from which the first step looks at the middle four of sixteen pixels
PLANAR_8BIT = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "yuv440p"))
BAD_PACKETS_MAX = 500  # a file with more undecodable packets in a row is given up
NO_RATE = Fraction(25)  # taken for files that state no frame rate, frames per second

ROTATE = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class DecodeError(RuntimeError):
    """A file from which no frame can be had: one sentence."""


@dataclass(frozen=True)
class StreamInfo:
    """Facts of a video stream. width, height: as coded, pixels; shown_*: upright with square pixels."""

    width: int
    height: int
    fps: float
    rotation: int  # degrees counter-clockwise that show the picture upright: 0, 90, 180, 270
    sar: Fraction
    codec: str
    pix_fmt: str
    interlaced: bool
    duration_s: float | None
    start_s: float = 0.0  # timestamp of the first frame in the file, seconds

    @property
    def shown(self) -> tuple[int, int]:
        width, height = round(self.width * self.sar), self.height
        return (height, width) if self.rotation in (90, 270) else (width, height)

    @cached_property
    def reformatter(self) -> VideoReformatter:
        """One for the stream: a picture's own would set up its tables anew for every picture."""
        return VideoReformatter()

    @cached_property
    def factor(self) -> int:
        """By how much the small luma is smaller than the picture."""
        wanted = max(self.width, self.height) / LUMA_SIDE
        return min(FACTORS, key=lambda f: (abs(np.log(f / max(wanted, 1))), f))


def shrink(plane: np.ndarray, factor: int) -> np.ndarray:
    """Area average of a uint8 plane by an integer factor of FACTORS; edges that do not fill a cell are cut off."""
    while factor > 1:
        step = 2 if factor % 2 == 0 else 3
        height, width = plane.shape[0] // step, plane.shape[1] // step
        if not height or not width:
            return plane
        plane = cv2.resize(plane[: height * step, : width * step], (width, height), interpolation=cv2.INTER_AREA)
        factor //= step
    return plane


def _quarter(plane: np.ndarray, factor: int, interpolation: int = cv2.INTER_LINEAR) -> tuple[np.ndarray, int]:
    """A first step of 4 for large pictures: the mean of the middle 2 x 2 of every 4 x 4 pixels."""
    if factor < QUARTER_FROM or factor % 4:
        return plane, factor
    height, width = plane.shape[0] // 4, plane.shape[1] // 4
    return cv2.resize(plane[: height * 4, : width * 4], (width, height), interpolation=interpolation), factor // 4


class Frame:
    """One decoded frame. index: from 0; time_s: seconds since the first frame; key: coded on its own."""

    def __init__(self, picture: av.VideoFrame, index: int, time_s: float, info: StreamInfo) -> None:
        self.picture, self.index, self.time_s, self.info = picture, index, time_s, info
        self.key = bool(picture.key_frame)
        self.corrupt = bool(picture.is_corrupt)
        self.bidirectional = picture.pict_type == PictureType.B

    @cached_property
    def _planes(self) -> list[np.ndarray]:
        """8-bit planes; anything else (10-bit, packed, RGB) is converted once, at the small size's multiple."""
        picture = self.picture
        if picture.format.name not in PLANAR_8BIT:
            picture = self.info.reformatter.reformat(picture, format="yuv420p")
        planes = []
        for plane in picture.planes:
            whole = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            planes.append(whole[: plane.height, : plane.width])
        return planes

    @property
    def full_luma(self) -> np.ndarray:
        """uint8 [height, width], a view of the decoder's memory: read it before the next frame is asked for."""
        return self._planes[0]

    @cached_property
    def luma(self) -> np.ndarray:
        """uint8 [h, w], longer side about 160, a copy."""
        factor, plane = self.info.factor, self.full_luma
        if factor == 1:
            return plane.copy()
        return shrink(*_quarter(plane, factor))

    @cached_property
    def tiny_luma(self) -> np.ndarray:
        """uint8 [h/2, w/2] of the small luma."""
        return shrink(self.luma, TINY_SHRINK)

    @cached_property
    def tiny_bgr(self) -> np.ndarray:
        """uint8 [h/2, w/2, 3]: what PySceneDetect's detectors look at."""
        luma = self.tiny_luma
        if len(self._planes) < 3:
            return cv2.cvtColor(luma, cv2.COLOR_GRAY2BGR)
        size = (luma.shape[1], luma.shape[0])
        chroma = [self._tiny_chroma(plane, size) for plane in self._planes[1:3]]
        return cv2.cvtColor(cv2.merge([luma, chroma[1], chroma[0]]), cv2.COLOR_YCrCb2BGR)

    def _tiny_chroma(self, plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        ratio = max(1, round(plane.shape[1] / size[0]))
        factor = max(f for f in FACTORS if f <= ratio)
        # Chroma is smooth, and a large picture's is worth no more than one pixel in sixteen.
        plane = shrink(*_quarter(plane, factor, cv2.INTER_NEAREST))
        return cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)

    @property
    def vectors(self) -> np.ndarray | None:
        """The codec's motion vectors (FFmpeg's AVMotionVector fields), None on key frames and where none are coded."""
        # `picture.side_data` would tie the frame into a reference cycle: hundreds of pictures wait for the collector.
        side = SideDataContainer(self.picture).get("MOTION_VECTORS")
        return None if side is None else side.to_ndarray()

    def still(self, side: int) -> np.ndarray:
        """uint8 BGR [h, w, 3], upright, square pixels, longer side at most `side`."""
        width, height = round(self.info.width * self.info.sar), self.info.height
        scale = min(1.0, side / max(width, height))
        size = (max(2, round(width * scale) // 2 * 2), max(2, round(height * scale) // 2 * 2))
        small = to_bgr(self.picture, self.info.reformatter, size[0], size[1], "AREA")
        turn = ROTATE.get(self.info.rotation)
        return small if turn is None else cv2.rotate(small, turn)


def quiet() -> None:
    """One thread for OpenCV, no log lines from FFmpeg (its callback can deadlock in threads): once per process."""
    cv2.setNumThreads(1)
    av.logging.set_libav_level(av.logging.PANIC)
    av.logging.restore_default_callback()


@contextlib.contextmanager
def opened(uri: str, vectors: bool = False) -> Iterator[tuple[Any, Any]]:
    """(container, video stream) of a URI, one decoding thread. Raises DecodeError or OSError."""
    file, size = open_bytes(uri)
    if size == 0:
        raise DecodeError("the file is empty (0 bytes)")
    try:
        container = av.open(file, metadata_errors="replace")
    except av.error.FFmpegError as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise DecodeError(f"this is not a video that FFmpeg can open ({_reason(error)})") from error
    try:
        videos = [s for s in container.streams.video if not _is_cover(s)]
        if not videos:
            kinds = sorted({s.type for s in container.streams}) or ["no streams"]
            raise DecodeError(f"the file holds no video (only {', '.join(kinds)})")
        stream = videos[0]
        context = stream.codec_context
        if context is None:
            raise DecodeError("FFmpeg has no decoder for this video codec")
        context.thread_count = 1
        # Deblocking frames that no other frame refers to costs a tenth of a decode and changes no other picture.
        context.options = {"skip_loop_filter": "noref", **({"flags2": "+export_mvs"} if vectors else {})}
        yield container, stream
    finally:
        container.close()


def _is_cover(stream: Any) -> bool:
    return bool(int(stream.disposition) & int(type(stream.disposition).attached_pic))


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).strip().rstrip(".")


def _codec_name(stream: Any) -> str:
    """The codec's own name (av1), not its decoder's (libdav1d)."""
    return getattr(stream.codec_context.codec, "canonical_name", None) or stream.codec_context.name


def stream_info(container: Any, stream: Any, first: av.VideoFrame) -> StreamInfo:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate or NO_RATE
    duration = None
    if stream.duration is not None and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration:
        duration = container.duration / av.time_base
    sar = stream.sample_aspect_ratio or first.sample_aspect_ratio if hasattr(first, "sample_aspect_ratio") else None
    sar = sar or stream.sample_aspect_ratio
    return StreamInfo(
        width=first.width, height=first.height, fps=float(rate), rotation=round(first.rotation / 90) * 90 % 360,
        sar=Fraction(sar) if sar and sar > 0 else Fraction(1), codec=_codec_name(stream),
        pix_fmt=first.format.name, interlaced=bool(first.interlaced_frame), duration_s=duration,
        start_s=float(first.time or 0.0),
    )  # fmt: skip


def pictures(container: Any, stream: Any, errors: list[str]) -> Iterator[av.VideoFrame]:
    """Decoded pictures in the order of showing; packets that cannot be decoded are passed over and noted in `errors`.

    Raises DecodeError where the stream yields nothing but errors.
    """
    bad = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            errors.append(f"reading stopped: {_reason(error)}")
            return
        try:
            yield from packet.decode()
            bad = 0
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            bad += 1
            if not errors or bad == 1:
                at = float(packet.pts * packet.time_base) if packet.pts is not None and packet.time_base else 0.0
                errors.append(f"damaged at {at:.1f} s: {_reason(error)}")
            if bad >= BAD_PACKETS_MAX:
                errors.append(f"given up after {bad} damaged packets in a row")
                return


@dataclass
class Decoded:
    """What is known once a decode ends."""

    frames: int = 0
    end_s: float = 0.0  # time at which the last frame stops being shown, seconds from the first frame
    errors: list[str] | None = None


def frames(container: Any, stream: Any, end: Decoded) -> Iterator[Frame]:
    """Frames with times that never go back; `end` is filled as they come.

    A frame without a timestamp, or with one that goes back, is put one frame's time after the one before it.
    """
    end.errors = []
    info: StreamInfo | None = None
    last = step = 0.0
    for index, picture in enumerate(pictures(container, stream, end.errors)):
        if info is None:
            info = stream_info(container, stream, picture)
            step = 1.0 / info.fps
        if (picture.width, picture.height) != (info.width, info.height):
            end.errors.append(f"the picture's size changes at {last:.1f} s; what follows is left out")
            return
        time_s = picture.time - info.start_s if picture.time is not None else None
        if index and (time_s is None or time_s <= last):
            time_s = last + step
        last = time_s or 0.0
        end.frames, end.end_s = index + 1, last + step
        yield Frame(picture, index, last, info)


def probe(uri: str, source_id: str | None = None) -> Source:
    """Facts of a file from its header and its first frame. Never raises: what is wrong stands in `error`."""
    source = Source(uri=uri, source_id=source_id)
    try:
        from dataclasses import replace

        from rushes.curation.video.source import fingerprint

        file, size = open_bytes(uri)
        if hasattr(file, "close"):
            file.close()
        source = replace(source, size_bytes=size, source_id=source_id or fingerprint(uri))
        with opened(uri) as (container, stream):
            errors: list[str] = []
            first = next(pictures(container, stream, errors), None)
            if first is None:
                raise DecodeError("no frame can be decoded" + (f": {errors[0]}" if errors else ""))
            info = stream_info(container, stream, first)
            width, height = info.shown
            return replace(
                source, codec=info.codec, pix_fmt=info.pix_fmt, width=width, height=height, fps=info.fps,
                duration_s=info.duration_s, rotation=info.rotation, interlaced=info.interlaced,
                first_pts_s=info.start_s,
            )  # fmt: skip
    except (DecodeError, OSError, ValueError) as error:
        return source.failed(_reason(error) if isinstance(error, OSError) else str(error))
