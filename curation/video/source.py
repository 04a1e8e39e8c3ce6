"""A source: what a file is, its content id, and its row in the `sources` table."""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow.fs as pafs

from rushes.curation.storage import StorageError, resolve
from rushes.curation.video.containers import refuse_special

FINGERPRINT_WHOLE = 8 << 20  # files up to this size are hashed whole, bytes
FINGERPRINT_CHUNKS = 64  # larger ones in so many evenly spaced chunks ...
FINGERPRINT_CHUNK = 64 << 10  # ... of this size, bytes, and by their length


#: A byte of a name that is not UTF-8, as `inputs.list_inputs` writes it.
ESCAPED = re.compile(r"\\x[0-9a-f]{2}")


@dataclass(frozen=True)
class Source:
    """One input and what is known of it. Sizes are as shown (upright, square pixels), pixels; times seconds."""

    uri: str
    source_id: str | None = None
    status: str = "ok"  # ok | partial | duplicate | failed
    error: str | None = None
    size_bytes: int | None = None
    codec: str | None = None
    pix_fmt: str | None = None
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    duration_s: float | None = None
    frames: int | None = None
    rotation: int | None = None
    first_pts_s: float | None = None
    interlaced: bool | None = None
    hdr: str | None = None  # "pq" or "hlg"
    clips: int | None = None

    def failed(self, error: str) -> Source:
        return replace(self, status="failed", error=error)

    def row(self) -> dict[str, Any]:
        return asdict(self)


def open_bytes(uri: str) -> tuple[Any, int]:
    """What PyAV opens for a URI (a path, or a seekable file object of an object store), and its size in bytes.

    Raises OSError where it is no file that can be read: FIFOs, sockets and devices are never opened.
    """
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        unnamed = r", or its name is not valid UTF-8: rename it" if ESCAPED.search(path) else ""
        raise FileNotFoundError(f"the file does not exist (any more){unnamed}")
    if info.type == pafs.FileType.Directory:
        raise IsADirectoryError("this is a folder, not a file")
    if isinstance(fs, pafs.LocalFileSystem):
        refuse_special(path)
        return path, info.size
    return fs.open_input_file(path), info.size


def fingerprint(uri: str) -> str:
    """Content id of a file, 16 hexadecimal digits: a hash of its size and its bytes.

    Files above 8 MiB are sampled in 64 chunks of 64 KiB spread over the whole file: reading all of a large file only
    to name it would double the input. Two files of one size that differ only between the chunks would be taken for
    one; an edit or another encode of real footage never leaves the size and all 64 chunks alike.
    """
    fs, path = resolve(uri)
    with fs.open_input_file(path) as stream:
        size = stream.size()
        digest = hashlib.blake2b(str(size).encode(), digest_size=8)
        if size <= FINGERPRINT_WHOLE:
            digest.update(stream.read())
        else:
            for offset in np.linspace(0, size - FINGERPRINT_CHUNK, FINGERPRINT_CHUNKS).astype(int):
                stream.seek(int(offset))
                digest.update(stream.read(FINGERPRINT_CHUNK))
    return digest.hexdigest()


def stamp(uri: str) -> str | None:
    """Size and time of a file: what is known of its content holds while they do. None where there is no such file."""
    try:
        fs, path = resolve(uri)
        info = fs.get_file_info(path)
    except (OSError, StorageError):
        return None
    return f"{info.size}:{info.mtime_ns}" if info.type == pafs.FileType.File else None


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """Name of a span of a source, 20 hexadecimal digits: the same in every run that cuts the same span."""
    text = f"{source_id}:{round(start_s * 1e6)}:{round(end_s * 1e6)}"
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
