"""Stills: a few small pictures of every clip, taken during the one decode, for the models, the report and people.

They are kept as JPEG in a temporary file while the file is decoded, so memory does not grow with its length; which
of them belong to a clip is known once the shots are.
"""

from __future__ import annotations

import tempfile
from bisect import bisect_left
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span, Unmeasured
from rushes.curation.recipe import Visual
from rushes.curation.video.decode import Frame
from rushes.curation.visual.borders import static_border_frac
from rushes.curation.visual.frame_stats import frame_stats

JPEG_QUALITY = 88
BORDER_SIDE_MIN = 16  # pixels: a smaller picture has no border to speak of
BORDER_STILLS = 4  # stills of a clip in which a border must stand to be one

STILLS = pa.schema([("clip_id", pa.string()), ("t_s", pa.float64()), ("jpeg", pa.binary())])


def encode(bgr: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise ValueError(f"a picture of shape {bgr.shape} cannot be written as JPEG")
    return data.tobytes()


def decode(jpeg: bytes) -> np.ndarray:
    """uint8 BGR [h, w, 3]."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def _decode_gray(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)


class StillMeter:
    """Takes a still every 1 / stills_per_s seconds; light, sharpness and borders are measured on them."""

    columns = (
        pa.field("corrupt_frames", pa.int32()),
        pa.field("border_frac", pa.float32()),
        pa.field("luma_mean", pa.float32()),
        pa.field("saturation", pa.float32()),
        pa.field("sharpness", pa.float32()),
    )

    def __init__(self, recipe: Visual) -> None:
        self._recipe = recipe
        self._file = tempfile.TemporaryFile(prefix="rushes-stills-")  # noqa: SIM115 - lives as long as the meter
        self._frames: list[int] = []
        self._times: list[float] = []
        self._places: list[tuple[int, int]] = []
        self._stats: list[dict[str, float]] = []
        self._corrupt: list[int] = []
        self._next_s = 0.0

    def observe(self, frame: Frame) -> None:
        if frame.corrupt:
            self._corrupt.append(frame.index)
        if frame.time_s + 1e-6 < self._next_s:
            return
        self._next_s = frame.time_s + 1.0 / self._recipe.stills_per_s
        still = frame.still(self._recipe.stills_side)
        data = encode(still)
        self._places.append((self._file.tell(), len(data)))
        self._file.write(data)
        self._frames.append(frame.index)
        self._times.append(frame.time_s)
        self._stats.append(frame_stats(still))

    def _inside(self, span: Span) -> range:
        return range(bisect_left(self._frames, span.first), bisect_left(self._frames, span.stop))

    def _jpeg(self, number: int) -> bytes:
        place, size = self._places[number]
        self._file.seek(place)
        return self._file.read(size)

    def stills(self, span: Span) -> list[tuple[float, bytes]]:
        """(seconds, JPEG) of the clip's stills, at most `stills_max`, evenly spread."""
        numbers = spread(list(self._inside(span)), self._recipe.stills_max)
        return [(self._times[n], self._jpeg(n)) for n in numbers]

    def measure(self, span: Span) -> dict[str, Any]:
        corrupt = bisect_left(self._corrupt, span.stop) - bisect_left(self._corrupt, span.first)
        numbers = list(self._inside(span))
        if not numbers:
            missing = Unmeasured("the clip is too short for a still")
            return {
                "corrupt_frames": corrupt,
                **dict.fromkeys(("border_frac", "luma_mean", "saturation", "sharpness"), missing),
            }
        some = [_decode_gray(self._jpeg(n)) for n in spread(numbers, BORDER_STILLS)]
        small = min(some[0].shape) < BORDER_SIDE_MIN
        border = Unmeasured("the picture is too small") if small else static_border_frac(some).frac
        mean = {
            key: float(np.mean([self._stats[n][key] for n in numbers]))
            for key in ("luma_mean", "saturation", "sharpness")
        }
        return {"corrupt_frames": corrupt, "border_frac": border, **mean}


def spread(items: list[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]
