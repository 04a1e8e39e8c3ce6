"""Which colour matrix a picture is read with where its file names none."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

HD_WIDTH, SD_HEIGHT = 1280, 576  # from where on a video that names no colour matrix is BT.709 (mpv's rule)
UNNAMED = 2  # AVCOL_SPC_UNSPECIFIED


def colour_space(frame: av.VideoFrame) -> Any:
    """None where the frame names its matrix; otherwise what players take: BT.709 for HD, BT.601 below."""
    if int(frame.colorspace) != UNNAMED:
        return None
    return Colorspace.ITU709 if is_hd(frame.width, frame.height) else Colorspace.ITU601


def is_hd(width: int, height: int) -> bool:
    return width >= HD_WIDTH or height > SD_HEIGHT


def missing_tag(stream: av.VideoStream) -> str | None:
    """FFmpeg's name of the matrix that a stream is read with and does not name; None where it names one.

    A smaller copy of it needs the name: its own size says another matrix.
    """
    context = stream.codec_context
    if int(context.colorspace) != UNNAMED:
        return None
    return "bt709" if is_hd(context.width, context.height) else "smpte170m"


def to_bgr(frame: av.VideoFrame, reformatter: VideoReformatter, width: int, height: int, way: str) -> np.ndarray:
    """uint8 BGR [height, width, 3] of a frame, scaled in the given way ("AREA", "BILINEAR")."""
    space = colour_space(frame)
    return reformatter.reformat(frame, width, height, "bgr24", space, space, way, threads=1).to_ndarray()
