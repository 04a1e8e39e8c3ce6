"""The frames of a clip that a captioning model is shown: evenly spread over the clip, small, JPEG.

Frames are taken from the stills of the analysis (nothing is decoded, about one a second), or decoded from the cut
clip, where as many as asked for can be had.
"""

from __future__ import annotations

from collections.abc import Sequence

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from rushes.curation.manifest import is_local, resolve
from rushes.curation.video.colour import to_bgr
from rushes.curation.video.containers import ContainerError, open_media

JPEG_QUALITY = 88  # as the stills: artefacts stay below what a vision model's patches see


class FrameError(RuntimeError):
    """No frame of a clip can be had: one sentence."""


def spread(available: int, wanted: int) -> list[int]:
    """Indices of at most `wanted` of `available` things, the middles of equal parts; increasing, none twice.

    Never the first and last of many: edges of shots are where transitions are.
    """
    count = min(available, wanted)
    return [int((part + 0.5) * available / count) for part in range(count)]


def from_stills(stills: Sequence[tuple[float, bytes]], wanted: int, side: int) -> list[bytes]:
    """JPEG frames from a clip's stills (t_s, jpeg). Raises FrameError where there are none."""
    ordered = [jpeg for _, jpeg in sorted(stills)]
    if not ordered:
        raise FrameError("the clip has no still: it is too short for one")
    return [_shrunk(ordered[index], side) for index in spread(len(ordered), wanted)]


def from_media(uri: str, wanted: int, side: int) -> list[bytes]:
    """JPEG frames decoded from a cut clip at a path or URI, longer side at most `side` pixels.

    Cut clips have a key frame every half second: where those suffice, nothing else is decoded. Raises FrameError.
    """
    fs, path = resolve(uri)
    try:
        if is_local(fs):
            with open_media(path) as container:
                return _decoded(container, wanted, side)
        with fs.open_input_file(path) as stream, open_media(stream) as container:
            return _decoded(container, wanted, side)
    except (av.error.FFmpegError, ContainerError, cv2.error, IndexError, OSError, ValueError) as error:
        raise FrameError(f"the cut clip cannot be read: {error}") from error


def _decoded(container: av.container.InputContainer, wanted: int, side: int) -> list[bytes]:
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1
    keys = sum(packet.is_keyframe for packet in container.demux(stream) if packet.size)
    container.seek(0)
    if keys >= wanted:
        stream.codec_context.skip_frame = "NONKEY"
    count = keys if keys >= wanted else stream.frames
    chosen = set(spread(count, wanted)) if count else set()
    frames, reformatter = [], VideoReformatter()
    for index, frame in enumerate(container.decode(stream)):
        if index in chosen:
            frames.append(encode(to_bgr(frame, reformatter, frame.width, frame.height, "BILINEAR"), side))
    if not frames:
        raise FrameError("the cut clip holds no frame that can be decoded")
    return frames


def encode(bgr: np.ndarray, side: int) -> bytes:
    """JPEG of a picture uint8 [h, w, 3], its longer side at most `side` pixels."""
    height, width = bgr.shape[:2]
    scale = side / max(height, width)
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise FrameError(f"a picture of shape {bgr.shape} cannot be written as JPEG")
    return data.tobytes()


def _shrunk(jpeg: bytes, side: int) -> bytes:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise FrameError("a still of the clip is damaged")
    return jpeg if max(picture.shape[:2]) <= side else encode(picture, side)
