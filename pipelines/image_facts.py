"""What an image file is, and which frames of a clip are worth a picture: each is looked at once and recorded."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import manifest
from rushes.curation.manifest import join, resolve
from rushes.curation.video import decode
from rushes.curation.video.frame import Frame
from rushes.curation.video.source import Source, clip_id, fingerprint

FORMATS = ("JPEG", "PNG", "WEBP")  # that the trainer reads (model/frames.py)
EXIF_ORIENTATION = 0x0112
ROTATIONS = {3: 180, 5: 270, 6: 270, 7: 90, 8: 90}  # EXIF's orientation -> degrees counter-clockwise to upright
JPEG_QUALITY = 95  # of frames that are written

PICTURE = pa.struct(
    [("media", pa.string()), ("time_s", pa.float64()), ("width", pa.int32()), ("height", pa.int32())]
)  # width, height: as shown, pixels
RECORDS = pa.schema([("key", pa.string()), *manifest.SOURCES, ("pictures", pa.list_(PICTURE))])


@dataclass(frozen=True)
class Item:
    """An image file, or a kept clip from which frames are taken. key: changes with its content."""

    key: str
    uri: str
    source_id: str | None = None  # of a clip
    start_s: float | None = None  # of a clip, in its source
    caption: str | None = None  # of a clip


class NoImage(ValueError):
    """A file that is no picture to train on: what it is, a colon, and what to do or what was found."""


class ImageWorker:
    """Looks at items and leaves a record of them; ordinary class, no engine inside."""

    def __init__(self, root: str, per_clip: int) -> None:
        decode.quiet()
        self._root, self._per_clip = root, per_clip

    def examine(self, items: list[Item]) -> list[dict[str, Any]]:
        """A row of RECORDS for each item."""
        rows = [self._row(item) for item in items]
        manifest.write_table(records(self._root, f"{uuid.uuid4().hex}.parquet"), pa.Table.from_pylist(rows, RECORDS))
        return rows

    def _row(self, item: Item) -> dict[str, Any]:
        source, pictures = Source(item.uri, item.source_id), []
        try:
            source, pictures = self._clip(item) if item.source_id else image_facts(item.uri)
        except (NoImage, decode.DecodeError, FileNotFoundError) as error:
            source = source.failed(str(error))
        return {"key": item.key, **source.row(), "pictures": pictures}

    def _clip(self, item: Item) -> tuple[Source, list[dict[str, Any]]]:
        """The sharpest key frame of each of `per_clip` equal parts of a clip, as JPEG files."""
        import cv2

        source = decode.probe(item.uri, item.source_id)
        if source.status == "failed":
            raise NoImage(f"no clip: {source.error}")
        pictures = []
        for time_s, bgr in sharpest(item.uri, source.duration_s or 0.0, self._per_clip):
            name = clip_id(item.source_id, item.start_s + time_s, item.start_s + time_s)
            media = f"media/{name[:2]}/{name}.jpg"
            data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            manifest.write_bytes(join(self._root, media), data.tobytes())
            pictures.append({"media": media, "time_s": time_s, "width": bgr.shape[1], "height": bgr.shape[0]})
        return source, pictures


def image_facts(uri: str) -> tuple[Source, list[dict[str, Any]]]:
    """What an image file is, all of it decoded. Raises NoImage or FileNotFoundError."""
    from PIL import Image

    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        data = stream.read()
    if not data:
        raise NoImage("empty: the file has 0 bytes")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            facts = _facts(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, NoImage):
            raise
        kind = "not an image" if isinstance(error, Image.UnidentifiedImageError) else "damaged"
        known = " as JPEG, PNG or WebP" if kind == "not an image" else ""
        raise NoImage(f"{kind}: it cannot be read{known} ({str(error).splitlines()[0]})") from error
    source = Source(uri, fingerprint(uri), size_bytes=len(data), frames=1, **facts)
    return source, [{"media": uri, "time_s": 0.0, "width": source.width, "height": source.height}]


def _facts(image: Any) -> dict[str, Any]:
    """codec, pix_fmt, width, height (upright) and rotation of an open Pillow image. Raises NoImage."""
    if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
        raise NoImage(f"animated: it has {image.n_frames} frames; curate it as a video")
    if image.mode == "CMYK":
        raise NoImage("CMYK: its colours depend on a printer; convert it to RGB")
    if image.mode[0] in "IF":
        raise NoImage(f"deep grey: mode {image.mode} has more than 8 bits; convert it to 8 bits")
    image.load()
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise NoImage("transparent: part of it shows what is behind; put it on a background")
    turn = image.getexif().get(EXIF_ORIENTATION, 1)
    width, height = image.size[::-1] if turn in (5, 6, 7, 8) else image.size
    return {"codec": image.format.lower(), "pix_fmt": image.mode, "width": width, "height": height,
            "rotation": ROTATIONS.get(turn, 0)}  # fmt: skip


def sharpest(uri: str, duration_s: float, parts: int) -> list[tuple[float, np.ndarray]]:
    """(seconds from the first frame, uint8 BGR [H, W, 3]) of the sharpest key frame in each equal part of a clip.

    A part without a key frame gives nothing. Raises DecodeError, NoImage.
    """
    from rushes.curation.visual.frame_stats import frame_stats

    best: dict[int, tuple[float, float, np.ndarray]] = {}
    with decode.opened(uri) as (container, stream):
        stream.codec_context.skip_frame = "NONKEY"
        end = decode.Decoded()
        first = None
        for picture in decode.pictures(container, stream, end):
            if picture.time is None:
                continue
            first = picture.time if first is None else first
            info = decode.stream_info(container, stream, picture)
            time_s = picture.time - first
            part = min(parts - 1, int(parts * time_s / duration_s)) if duration_s else 0
            bgr = Frame(picture, 0, time_s, info).still(max(info.shown))
            score = frame_stats(bgr)["sharpness"]
            if part not in best or score > best[part][0]:
                best[part] = (score, time_s, bgr)
    if not best:
        raise NoImage(f"no frame: none could be decoded{': ' + end.errors[0] if end.errors else ''}")
    return [best[part][1:] for part in sorted(best)]


def records(root: str, name: str = "") -> str:
    return join(root, "work", "images", name).rstrip("/")
