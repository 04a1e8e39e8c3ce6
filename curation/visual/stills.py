"""Stills: a few small pictures of every clip, taken during the one decode, for the models, the report and people.

They lie on a grid of the source's time; which of them belong to a clip is known once the shots are.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from rushes.curation.meter import Span, Unmeasured
from rushes.curation.recipe import Recipe
from rushes.curation.tracks import Tracks, spread
from rushes.curation.video.batch import Batch
from rushes.curation.video.frame import StreamInfo
from rushes.curation.visual.borders import static_border_frac
from rushes.curation.visual.frame_stats import light_stats

JPEG_QUALITY = 88
BORDER_SIDE_MIN = 16  # pixels: a smaller picture has no border to speak of
BORDER_STILLS = 4  # stills of a clip in which a border must stand to be one
MEASURED = ("luma_mean", "saturation", "sharpness")  # of each still (light_stats)

STILLS = pa.schema([("clip_id", pa.string()), ("t_s", pa.float64()), ("jpeg", pa.binary())])


def encode(bgr: np.ndarray) -> bytes:
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise ValueError(f"a picture of shape {bgr.shape} cannot be written as JPEG")
    return data.tobytes()


def decode(jpeg: bytes) -> np.ndarray:
    """uint8 BGR [h, w, 3]."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def decode_gray(jpeg: bytes, half: bool = False) -> np.ndarray:
    """uint8 luma [h, w], or of half the size, which takes half the time."""
    how = cv2.IMREAD_REDUCED_GRAYSCALE_2 if half else cv2.IMREAD_GRAYSCALE
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), how)


class StillMeter:
    """Light, sharpness and borders, measured on a still every 1 / stills_per_s seconds; damaged frames are counted."""

    tracks = (
        pa.field("corrupt", pa.uint8()),  # 1 where the decoder marks the frame as damaged
        *(pa.field(name, pa.float32()) for name in MEASURED),  # NaN but for frames of which there is a still
    )

    def __init__(self, info: StreamInfo, recipe: Recipe) -> None:
        pass

    def observe(self, batch: Batch) -> dict[str, np.ndarray]:
        found = {name: np.full(len(batch), np.nan, np.float32) for name in MEASURED}
        for place, still in batch.stills:
            stats = light_stats(still)
            for name in MEASURED:
                found[name][place] = stats[name]
        return {"corrupt": batch.corrupt.astype(np.uint8), **found}

    def measure(self, tracks: Tracks, span: Span) -> dict[str, Any]:
        frames = slice(span.first, span.stop)
        corrupt = int(tracks["corrupt"][frames].sum())
        stills = tracks.stills.inside(span.start_s, span.end_s)
        if not len(stills):
            missing = Unmeasured("the clip is too short for a still")
            return {"corrupt_frames": corrupt, **dict.fromkeys(("border_frac", "picture", *MEASURED), missing)}
        some = [decode_gray(tracks.stills.jpeg(number)) for number in spread(stills, BORDER_STILLS)]
        if min(some[0].shape) < BORDER_SIDE_MIN:
            frac = picture = Unmeasured("the picture is too small")
        else:
            border = static_border_frac(some)
            frac, picture = border.frac, [border.left, border.top, 1 - border.right, 1 - border.bottom]
        means = {name: float(np.nanmean(tracks[name][frames])) for name in MEASURED}
        return {"corrupt_frames": corrupt, "border_frac": frac, "picture": picture, **means}
