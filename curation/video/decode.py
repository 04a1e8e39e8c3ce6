"""The one decode of a file: every meter is fed from its frames (video/frame.py). Ten meters share it and one resize."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.logging
import cv2

from rushes.curation.video.colour import hdr
from rushes.curation.video.containers import ContainerError, open_media
from rushes.curation.video.frame import Frame, StreamInfo
from rushes.curation.video.source import Source, open_bytes

EXPORTED = {"flags2": "+export_mvs", "export_side_data": "venc_params"}  # motion vectors and quantisers
BAD_PACKETS_MAX = 500  # a file with more undecodable packets in a row is given up
GAP_MAX_S = 300.0  # a longer gap between two frames is taken for damaged timestamps, seconds
BACK_STEPS = 2.0  # frames by which a timestamp may go back without being another clock's
SEEK_EPS = 1e-3  # seconds
LONGER_THAN_FRAMES = 20.0  # a stated duration this many times that of the frames is not believed ...
BYTES_PER_S_MIN = 16.0  # ... nor one that leaves fewer bytes than this for a second
NO_RATE = Fraction(25)  # taken for files that state no frame rate, frames per second


class DecodeError(RuntimeError):
    """A file from which no frame can be had: one sentence."""


def quiet() -> None:
    """One thread for OpenCV, no log lines from FFmpeg (its callback can deadlock in threads): once per process."""
    cv2.setNumThreads(1)
    av.logging.set_libav_level(av.logging.PANIC)
    av.logging.restore_default_callback()


@contextlib.contextmanager
def opened(uri: str, vectors: bool = False) -> Iterator[tuple[Any, Any]]:
    """(container, video stream) of a URI, one decoding thread. Raises DecodeError or OSError.

    vectors: frames have motion vectors and quantisers, where the codec has them.
    """
    file, size = open_bytes(uri)
    if size == 0:
        raise DecodeError("the file is empty (0 bytes)")
    try:
        container = open_media(file)
    except ContainerError as error:
        raise DecodeError(str(error)) from error
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
        context.options = {"skip_loop_filter": "noref", **(EXPORTED if vectors else {})}
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
    if duration is not None:
        believed = _plausible(duration, stream, container.size)
        if believed < duration:
            duration, rate = believed, stream.base_rate or stream.guessed_rate or rate
    sar = stream.sample_aspect_ratio or first.sample_aspect_ratio if hasattr(first, "sample_aspect_ratio") else None
    sar = sar or stream.sample_aspect_ratio
    return StreamInfo(
        width=first.width, height=first.height, fps=float(rate), rotation=round(first.rotation / 90) * 90 % 360,
        sar=Fraction(sar) if sar and sar > 0 else Fraction(1), codec=_codec_name(stream),
        pix_fmt=first.format.name, interlaced=bool(first.interlaced_frame), duration_s=duration,
        start_s=float(first.time or 0.0), hdr=hdr(first.color_trc),
    )  # fmt: skip


def _plausible(duration_s: float, stream: Any, size: int) -> float:
    """The stated duration, or the longest that the file's frames and bytes can fill where that is shorter."""
    most = duration_s
    rate = stream.base_rate or stream.guessed_rate
    if stream.frames and rate and duration_s > max(GAP_MAX_S, LONGER_THAN_FRAMES * float(stream.frames / rate)):
        most = float(stream.frames / rate)
    return min(most, max(1.0, size / BYTES_PER_S_MIN)) if size and size > 0 else most


def pictures(container: Any, stream: Any, end: Decoded) -> Iterator[av.VideoFrame]:
    """Decoded pictures in the order of showing; packets that cannot be decoded are passed over, noted in end.errors."""
    bad = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.error.FFmpegError, OSError) as error:
            end.errors.append(f"reading stopped: {_reason(error)}")
            end.transient = isinstance(error, OSError)
            return
        try:
            yield from packet.decode()
            bad = 0
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            bad += 1
            if not end.errors or bad == 1:
                at = float(packet.pts * packet.time_base) if packet.pts is not None and packet.time_base else 0.0
                end.errors.append(f"damaged at {at:.1f} s: {_reason(error)}")
            if bad >= BAD_PACKETS_MAX:
                end.errors.append(f"given up after {bad} damaged packets in a row")
                return


@dataclass
class Decoded:
    """What is known once a decode ends. kept: frames that are not only there to warm up (see batch.py)."""

    frames: int = 0
    end_s: float = 0.0  # time at which the last frame stops being shown, seconds from the first frame
    errors: list[str] = field(default_factory=list)
    transient: bool = False  # the file could not be read to its end, which says nothing about the file
    stopped: bool = False  # before the file's end, where it was told to
    kept: int = 0
    kept_end_s: float = 0.0
    info: StreamInfo | None = None


def frames(container: Any, stream: Any, end: Decoded, from_s: float = 0.0) -> Iterator[Frame]:
    """Frames with times that never go back; `end` is filled as they come.

    A frame without a timestamp, or with one that goes far back, is put one frame's time after the one before it, and
    half of that where it goes back a little; so is one after a jump of the timestamps that no footage has.
    from_s: begin at a key frame at or before this time.
    """
    shown, info = _from(container, stream, end, from_s)
    if info is None:
        return
    end.info, step = info, 1.0 / info.fps
    last, offset, clock = 0.0, -info.start_s, _Clock()
    for index, picture in enumerate(shown):
        if (picture.width, picture.height) != (info.width, info.height):
            end.errors.append(f"the picture's size changes at {last:.1f} s; what follows is left out")
            return
        shown_s = clock.time_s(picture)
        time_s = shown_s + offset if shown_s is not None else None
        if index and time_s is not None and time_s - last > GAP_MAX_S:
            end.errors.append(f"timestamps jump by {time_s - last:.0f} s at {last:.1f} s")
            offset -= time_s - last - step
            time_s = last + step
        if index and (time_s is None or time_s <= last):
            time_s = last + (step if time_s is None or time_s < last - BACK_STEPS * step else step / 2)
        last = time_s or 0.0
        end.frames, end.end_s = index + 1, last + step
        yield Frame(picture, index, last, info)


class _Clock:
    """When pictures are shown: libavcodec's own choice (its guess_correct_pts) between two timestamps of each.

    AVI and other old containers know only when a frame is decoded: what stands there for showing goes back and forth
    where there are B-frames. Of the two the one that went back less often is believed.
    """

    def __init__(self) -> None:
        self._last_pts: float = -math.inf
        self._last_dts: float = -math.inf
        self._faults = 0  # how much more often the time of showing went back

    def time_s(self, picture: av.VideoFrame) -> float | None:
        """Seconds in the file's own time; None where the picture has none that is believed."""
        pts, dts = picture.pts, picture.dts
        self._faults += (pts is not None and pts <= self._last_pts) - (dts is not None and dts <= self._last_dts)
        self._last_pts = self._last_pts if pts is None else pts
        self._last_dts = self._last_dts if dts is None else dts
        if self._faults <= 0 and pts is not None:
            return picture.time
        return None if dts is None else dts * float(picture.time_base)


def _from(
    container: Any, stream: Any, end: Decoded, from_s: float
) -> tuple[Iterator[av.VideoFrame], StreamInfo | None]:
    """Pictures from a key frame at or before from_s on, and the facts of the file's first one."""
    shown = pictures(container, stream, end)
    first = next(shown, None)
    if first is None:
        return iter(()), None
    info = stream_info(container, stream, first)
    if from_s <= 0:
        return itertools.chain([first], shown), info
    for target in (from_s, 0.0):  # a container whose seek lands too late is read from its start
        container.seek(int((info.start_s + target) / stream.time_base), stream=stream, backward=True)
        shown = pictures(container, stream, end)
        first = next(shown, None)
        if first is not None and (target == 0 or (first.time or info.start_s) - info.start_s <= from_s + SEEK_EPS):
            return itertools.chain([first], shown), info
    return iter(()), info


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
            end = Decoded()
            first = next(pictures(container, stream, end), None)
            if first is None:
                raise DecodeError("no frame can be decoded" + (f": {end.errors[0]}" if end.errors else ""))
            info = stream_info(container, stream, first)
            width, height = info.shown
            return replace(
                source, codec=info.codec, pix_fmt=info.pix_fmt, width=width, height=height, fps=info.fps,
                duration_s=info.duration_s, rotation=info.rotation, interlaced=info.interlaced,
                first_pts_s=info.start_s, hdr=info.hdr,
            )  # fmt: skip
    except (DecodeError, OSError, ValueError) as error:
        return source.failed(_reason(error) if isinstance(error, OSError) else str(error))
