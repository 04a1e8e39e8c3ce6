"""One decoded frame as meters see it: small luma, tiny colour, a still, motion vectors, the quantiser, its time.

All are lazy views of one picture in the decoder's memory. Meters see it as it is coded; it is upright only where it is
shown to people or models (`still`).
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import cv2
import numpy as np
from av.sidedata.encparams import VideoEncParamsType
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter

from rushes.curation.video.colour import to_bgr

LUMA_SIDE = 160  # longer side of the small luma, pixels: VMAF motion there ranks as at full size (docs/benchmarks.md)
#: Shrinking factors made of 2s and one 3: halving is the one area average that OpenCV vectorises.
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
QUARTER_FROM = 8  # factor from which the first step looks at the middle four of sixteen pixels
PLANAR_8BIT = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "yuv440p"))
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

ROTATE = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


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
