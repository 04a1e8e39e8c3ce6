"""Inputs: what the user named, what each file is, and a row for every one of them."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from curation.manifest import ManifestError, resolve

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".mpg",
        ".mpeg",
        ".ts",
        ".mts",
        ".m2ts",
        ".flv",
        ".wmv",
        ".3gp",
        ".ogv",
        ".mxf",
        ".y4m",
        ".vob",
        ".asf",
        ".mjpeg",
    ]
)
LIST_SUFFIXES = frozenset((".txt", ".csv", ".parquet", ".lst"))
FINGERPRINT_WHOLE = 8 << 20  # files up to this size are hashed whole, bytes
FINGERPRINT_CHUNKS = 64  # larger ones in so many evenly spaced chunks ...
FINGERPRINT_CHUNK = 64 << 10  # ... of this size, bytes, and by their length


class InputError(ValueError):
    """The request names no footage: one sentence with the fix."""


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
    clips: int | None = None

    def failed(self, error: str) -> Source:
        return replace(self, status="failed", error=error)

    def row(self) -> dict[str, Any]:
        return asdict(self)


def list_inputs(inputs: list[str]) -> list[str]:
    """URIs of all footage that files, folders, globs and lists (.txt, .csv, .parquet) name; sorted, each once.

    A file named directly counts whatever its name is. In a folder, files with a video's suffix count.
    Raises InputError where an input does not exist or names nothing.
    """
    found: list[str] = []
    for text in inputs:
        found += _expand(text)
    if not found:
        raise InputError("No input: name files, folders, globs or a list of URIs with --input.")
    return sorted({_canonical(uri) for uri in found})


def _canonical(uri: str) -> str:
    """One name for one place: local files as absolute paths, however they were written.

    An address that nothing can open stays as it is: it becomes a row that says so.
    """
    if "://" in uri and not uri.startswith("file://"):
        return uri
    try:
        return resolve(uri)[1]
    except ManifestError:
        return uri


def _expand(text: str) -> list[str]:
    fs, path = resolve(text)
    prefix = text[: text.index("://") + 3] if "://" in text and not text.startswith("file://") else ""
    try:
        info = fs.get_file_info(path)
    except OSError as error:
        raise InputError(f"--input {text} cannot be reached: {error}.") from error
    if info.type == pafs.FileType.File:
        if os.path.splitext(path)[1].lower() in LIST_SUFFIXES:
            return _read_list(fs, path, text)
        return [prefix + path]
    if info.type == pafs.FileType.Directory:
        selector = pafs.FileSelector(path, recursive=True)
        files = [i.path for i in fs.get_file_info(selector) if i.type == pafs.FileType.File]
        videos = [prefix + p for p in files if os.path.splitext(p)[1].lower() in VIDEO_SUFFIXES]
        if not videos:
            other = f" (its {len(files)} files have no video's suffix; name them by a glob)" if files else ""
            raise InputError(f"--input {text}: the folder holds no videos{other}.")
        return videos
    if any(mark in text for mark in "*?["):
        matched = _glob(fs, path)
        if not matched:
            raise InputError(f"--input {text}: nothing matches this pattern.")
        return [prefix + p for p in matched]
    raise InputError(f"--input {text}: there is no such file or folder.")


def _glob(fs: pafs.FileSystem, path: str) -> list[str]:
    if isinstance(fs, pafs.LocalFileSystem):
        return [p for p in glob.glob(path, recursive=True) if os.path.isfile(p)]
    import fnmatch

    fixed = path.split("*")[0].split("?")[0].split("[")[0]
    selector = pafs.FileSelector(fixed.rpartition("/")[0], recursive=True, allow_not_found=True)
    return [
        i.path for i in fs.get_file_info(selector) if i.type == pafs.FileType.File and fnmatch.fnmatch(i.path, path)
    ]


def _read_list(fs: pafs.FileSystem, path: str, text: str) -> list[str]:
    """URIs in a list: one a line, or the column `uri` (else the first) of a CSV or Parquet file.

    Relative paths are taken from the list's own folder.
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".parquet":
            import pyarrow.parquet as pq

            table = pq.read_table(path, filesystem=fs)
            name = "uri" if "uri" in table.column_names else table.column_names[0]
            lines = [str(value) for value in table[name].to_pylist() if value is not None]
        else:
            with fs.open_input_stream(path) as stream:
                content = stream.read().decode("utf-8-sig")
            if suffix == ".csv":
                rows = list(csv.reader(io.StringIO(content)))
                at = rows[0].index("uri") if rows and "uri" in rows[0] else 0
                rows = rows[1:] if rows and "uri" in rows[0] else rows
                lines = [row[at] for row in rows if len(row) > at]
            else:
                lines = [line for line in content.splitlines() if not line.lstrip().startswith("#")]
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"--input {text} cannot be read as a list of URIs: {error}.") from error
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise InputError(f"--input {text}: the list names no footage.")
    folder = os.path.dirname(path)
    return [line if "://" in line else os.path.join(folder, os.path.expanduser(line)) for line in lines]


def open_bytes(uri: str) -> tuple[Any, int]:
    """What PyAV opens for a URI (a path, or a seekable file object of an object store), and its size in bytes."""
    fs, path = resolve(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise FileNotFoundError("the file does not exist (any more)")
    if info.type == pafs.FileType.Directory:
        raise IsADirectoryError("this is a folder, not a file")
    return (path if isinstance(fs, pafs.LocalFileSystem) else fs.open_input_file(path)), info.size


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


def clip_id(source_id: str, start_s: float, end_s: float) -> str:
    """Name of a span of a source, 20 hexadecimal digits: the same in every run that cuts the same span."""
    text = f"{source_id}:{round(start_s * 1e6)}:{round(end_s * 1e6)}"
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
