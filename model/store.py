"""Where a training writes: files and folders by address, on a disk or an object store (any pyarrow.fs address)."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING, Any

import pyarrow.fs as pafs

from rushes.curation import manifest
from rushes.curation.manifest import join, resolve, write_bytes

if TYPE_CHECKING:
    from torch.distributed.checkpoint import FileSystemReader

__all__ = ["copy", "digest", "folders", "is_file", "is_local", "join", "read_bytes", "reader", "remove", "write_bytes"]
CHUNK_BYTES = 8 << 20


def is_local(uri: str) -> bool:
    return manifest.is_local(resolve(uri)[0])


def is_file(uri: str) -> bool:
    fs, path = resolve(uri)
    return fs.get_file_info(path).type == pafs.FileType.File


def folders(uri: str) -> list[str]:
    """The names of the folders in a folder; none where there is no such folder."""
    fs, path = resolve(uri)
    found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True)) if not _is_a_file(fs, path) else []
    return [info.base_name for info in found if info.type == pafs.FileType.Directory]


def _is_a_file(fs: pafs.FileSystem, path: str) -> bool:
    return fs.get_file_info(path).type == pafs.FileType.File


def read_bytes(uri: str) -> bytes:
    fs, path = resolve(uri)
    with fs.open_input_stream(path) as stream:
        return stream.read()


def digest(uri: str) -> tuple[int, str]:
    """(bytes, blake2b) of a file. Raises OSError."""
    fs, path = resolve(uri)
    total, found = 0, hashlib.blake2b(digest_size=16)
    with fs.open_input_stream(path) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            found.update(chunk)
            total += len(chunk)
    return total, found.hexdigest()


def copy(here: str, there: str) -> None:
    """A local file to an address. Raises OSError."""
    fs, path = resolve(there)
    with open(here, "rb") as source, fs.open_output_stream(path) as target:
        while chunk := source.read(CHUNK_BYTES):
            target.write(chunk)


def remove(uri: str) -> None:
    """A folder and what is in it, if it is there. What cannot be removed stays."""
    fs, path = resolve(uri)
    try:
        fs.delete_dir(path)
    except OSError:
        return


def reader(uri: str) -> FileSystemReader:
    """torch's reader of checkpoints, which reads the parts of files that it needs, also from an object store."""
    from torch.distributed.checkpoint import FileSystemReader

    if is_local(uri):
        return FileSystemReader(resolve(uri)[1])
    fs, path = resolve(uri)
    found = FileSystemReader(path)
    found.fs, found.path = _Files(fs), path
    return found


class _Files:
    """The two calls of torch's FileSystem that its reader makes."""

    def __init__(self, fs: pafs.FileSystem) -> None:
        self._fs = fs

    def concat_path(self, path: str | os.PathLike[str], name: str) -> str:
        return f"{os.fspath(path)}/{name}"

    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Any:
        return io.BufferedReader(self._fs.open_input_file(os.fspath(path)), CHUNK_BYTES)
