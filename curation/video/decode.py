"""The one decode of a file: every meter is fed from it.

A `Frame` gives lazy, cached views of one decoded picture: small luma, tiny colour, a still, the codec's motion
vectors, and its time. Ten meters share one decode and one resize. Views are upright only where they are shown to
people or models (`still`); meters see the picture as it is coded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import av.logging
import cv2
import numpy as np
from av.sidedata.encparams import VideoEncParamsType
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter

from rushes.curation.video.colour import hdr, to_bgr
from rushes.curation.video.containers import ContainerError, open_media
from rushes.curation.video.source import Source, open_bytes

LUMA_SIDE = 160  # longer side of the small luma, pixels: VMAF motion there ranks as at full size (docs/benchmarks.md)
#: Shrinking factors made of 2s and one 3: halving is the one area average that OpenCV vectorises.
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
QUARTER_FROM = 8  # factor from which the first step looks at the middle four of sixteen pixels
PLANAR_8BIT = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "yuv440p"))
EXPORTED = {"flags2": "+export_mvs", "export_side_data": "venc_params"}  # motion vectors and quantisers
BAD_PACKETS_MAX = 500  # a file with more undecodable packets in a row is given up
VECTORS_MAX = 600  # motion vectors kept of a frame: all of them change a clip's mean by about 1 %
#: FFmpeg's AVMotionVector.
VECTOR = np.dtype(
    {
        "names": [
            "source",
            "w",
            "h",
            "src_x",
            "src_y",
            "dst_x",
            "dst_y",
            "flags",
            "motion_x",
            "motion_y",
            "motion_scale",
        ],
        "formats": ["i4", "u1", "u1", "i2", "i2", "i2", "i2", "u8", "i4", "i4", "u2"],
        "offsets": [0, 4, 5, 6, 8, 10, 12, 16, 24, 28, 32],
        "itemsize": 40,
    }
)
BLOCK_DELTA = slice(16, 20)  # bytes of FFmpeg's AVVideoBlockParams that hold a block's delta_qp
MPEG_QUANTISER = 4.0  # of H.264 that has a step of 1, as FFmpeg gives those of MPEG
GAP_MAX_S = 300.0  # a longer gap between two frames is taken for damaged timestamps, seconds
BACK_STEPS = 2.0  # frames by which a timestamp may go back without being another clock's
SEEK_EPS = 1e-3  # seconds
LONGER_THAN_FRAMES = 20.0  # a stated duration this many times that of the frames is not believed ...
BYTES_PER_S_MIN = 16.0  # ... nor one that leaves fewer bytes than this for a second
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
    hdr: str | None = None  # the transfer of high dynamic range, "pq" or "hlg"

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `from_dict` is the way back."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | {"sar": str(self.sar)}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> StreamInfo:
        return cls(**{**facts, "sar": Fraction(facts["sar"])})

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


def shrink(plane: np.ndarray, factor: int, into: np.ndarray | None = None) -> np.ndarray:
    """Area average of a uint8 plane by an integer factor of FACTORS; edges that do not fill a cell are cut off.

    into: an array for the result, of its shape.
    """
    steps = _shrinking(plane.shape, factor)
    for place, (cells, size) in enumerate(steps):
        last = into if place == len(steps) - 1 else None
        whole = plane if plane.shape == cells else plane[: cells[0], : cells[1]]
        halved = 2 * size[0] == cells[1]
        plane = cv2.resize(whole, size, last, 0, 0, cv2.INTER_AREA) if halved else _thirds(whole, last)
    if into is not None and plane is not into:
        into[...] = plane
    return plane


@functools.lru_cache(maxsize=256)
def _shrinking(shape: tuple[int, int], factor: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each halving and thirding: rows and columns that fill cells, and the width and height of the result."""
    steps = []
    while factor > 1:
        step = 2 if factor % 2 == 0 else 3
        rows, columns = shape[0] // step, shape[1] // step
        if not rows or not columns:
            break
        steps.append(((rows * step, columns * step), (columns, rows)))
        shape, factor = (rows, columns), factor // step
    return steps


def _thirds(cells: np.ndarray, into: np.ndarray | None) -> np.ndarray:
    """Means of 3 x 3 pixels, by a blur that OpenCV vectorises: the area average's values at half its price."""
    middles = cv2.blur(cells, (3, 3))[1::3, 1::3]
    if into is None:
        return np.ascontiguousarray(middles)
    into[...] = middles
    return into


def shrink_stack(stack: np.ndarray, factor: int) -> np.ndarray:
    """As shrink, of uint8 [n, h, w] by a factor of 2 or 3: one call for all n where rows allow it."""
    count, height, width = stack.shape
    rows, columns = height // factor, width // factor
    if not rows or not columns:
        return stack
    cells = np.ascontiguousarray(stack[:, : rows * factor]).reshape(count * rows * factor, width)
    small = cv2.resize(cells[:, : columns * factor], (columns, count * rows), interpolation=cv2.INTER_AREA)
    return small.reshape(count, rows, columns)


@functools.cache
def _factor_within(length: int, wanted: int) -> int:
    """The largest of FACTORS that does not make `length` pixels fewer than about those wanted."""
    return max(factor for factor in FACTORS if factor <= max(1, round(length / wanted)))


def _viewed(plane: Any) -> np.ndarray:
    """uint8 [h, w], the decoder's own memory."""
    return np.ndarray((plane.height, plane.width), np.uint8, plane, 0, (plane.line_size, 1))


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
            picture = self.info.reformatter.reformat(picture, format="yuv420p", threads=1)
        return [_viewed(plane) for plane in picture.planes]

    @cached_property
    def _third(self) -> list[np.ndarray] | None:
        """Planes of a third of the size, by FFmpeg's scaler, which there is quicker than OpenCV; None elsewhere."""
        width, height = self.info.width // 3, self.info.height // 3
        if self.info.factor != 3 or self.picture.format.name != "yuv420p" or min(width, height) < 2:
            return None
        small = self.info.reformatter.reformat(self.picture, width, height, interpolation=Interpolation.AREA, threads=1)
        return [_viewed(plane) for plane in small.planes]

    @property
    def full_luma(self) -> np.ndarray:
        """uint8 [height, width], a view of the decoder's memory: read it before the next frame is asked for."""
        return self._planes[0]

    @property
    def has_chroma(self) -> bool:
        return len(self._planes) >= 3

    @cached_property
    def luma(self) -> np.ndarray:
        """uint8 [h, w], longer side about 160, a copy."""
        if self._third is not None:
            return self._third[0].copy()
        factor, plane = self.info.factor, self.full_luma
        if factor == 1:
            return plane.copy()
        return shrink(*_quarter(plane, factor))

    def small_luma(self, into: np.ndarray) -> None:
        """Write `luma` into an array of its shape."""
        if self._third is not None:
            into[...] = self._third[0]
            return
        factor, plane = self.info.factor, self.full_luma
        if factor == 1:
            into[...] = plane
        else:
            shrink(*_quarter(plane, factor), into)

    def tiny_chroma(self, into: np.ndarray) -> None:
        """Write U and V into uint8 [2, h, w], half the size of the small luma."""
        if self._third is not None:
            for place in (0, 1):
                into[place] = self._third[1 + place][: into.shape[1], : into.shape[2]]
            return
        for place, plane in enumerate(self._planes[1:3]):
            factor = _factor_within(plane.shape[1], into.shape[2])
            # Chroma is smooth, and a large picture's is worth no more than one pixel in sixteen.
            plane, factor = _quarter(plane, factor, cv2.INTER_NEAREST)
            if plane.shape == (factor * into.shape[1], factor * into.shape[2]):
                shrink(plane, factor, into[place])
            else:
                cv2.resize(shrink(plane, factor), into.shape[:0:-1], into[place], interpolation=cv2.INTER_LINEAR)

    @property
    def vectors(self) -> np.ndarray | None:
        """The codec's motion vectors (FFmpeg's AVMotionVector fields), None on key frames and where none are coded.

        At most VECTORS_MAX of them, evenly chosen.
        """
        # `picture.side_data` would tie the frame into a reference cycle: hundreds of pictures wait for the collector.
        side = SideDataContainer(self.picture).get("MOTION_VECTORS")
        if side is None:
            return None
        # A view of the decoder's memory, copied as plain words: records would be copied field by field.
        words = np.frombuffer(side, np.int32).reshape(-1, VECTOR.itemsize // 4)
        return words[:: max(1, -(-len(words) // VECTORS_MAX))].copy().view(VECTOR).reshape(-1)

    @property
    def quantiser(self) -> tuple[float, bool]:
        """(mean quantiser of the frame's blocks on H.264's scale, whether it is MPEG-2's or MPEG-4's own).

        NaN where the decoder tells none: FFmpeg tells those of H.264 and of the MPEG family.
        """
        side = SideDataContainer(self.picture).get("VIDEO_ENC_PARAMS")
        if side is None or side.codec_type not in (VideoEncParamsType.H264, VideoEncParamsType.MPEG2):
            return np.nan, False
        raw = np.frombuffer(side, np.uint8)[side.blocks_offset :][: side.nb_blocks * side.block_size]
        deltas = raw.reshape(side.nb_blocks, -1)[:, BLOCK_DELTA].copy().view(np.int32)
        mean = side.qp + (float(deltas.mean()) if len(deltas) else 0.0)
        if side.codec_type == VideoEncParamsType.H264:
            return mean, False
        return MPEG_QUANTISER + 6 * float(np.log2(max(mean, 1.0))), True  # H.264's step doubles every 6

    def still(self, side: int) -> np.ndarray:
        """uint8 BGR [h, w, 3] in BT.709, upright, square pixels, longer side at most `side`."""
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
