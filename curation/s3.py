"""S3 that is asked again: for longer than pyarrow does of itself, and where an error's text spoils a small read.

pyarrow lets S3 write a range of an object straight into a buffer of the range's size. An error's text that is longer
than the buffer ends in an error of the client, which nobody tries again: a read of a few bytes fails with the first
500 or 503 that it meets.
"""

from __future__ import annotations

import io
import time
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

#: Tries of a request: the pauses between them (0.025 s, then twice the last) add up to 100 s of a store that is away.
ATTEMPTS = 13
FIRST_PAUSE_S = 0.025
SPOILT = "Failed to flush response stream"  # the client's words for an answer that is longer than the buffer


def patient(fs: Any) -> pafs.FileSystem:
    """The same S3, asked ATTEMPTS times, and by one request for a small object that is written, not by three."""
    known = {name: value for name, value in fs.__reduce__()[1][0].items() if value not in ("", -1.0, None)}
    if not known.get("proxy_options", {}).get("host"):
        known.pop("proxy_options", None)
    if "access_key" not in known:
        known.pop("session_token", None)
    tries = pafs.AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS)
    return pafs.PyFileSystem(
        _Handler(pafs.S3FileSystem(**{**known, "allow_delayed_open": True, "retry_strategy": tries}))
    )


class _Reader(io.RawIOBase):
    """An open object; a read that was spoilt is made again."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def size(self) -> int:
        return self._file.size()

    def read(self, size: int = -1) -> bytes:
        place = self._file.tell()
        for attempt in range(ATTEMPTS):
            try:
                return self._file.read(None if size is None or size < 0 else size)
            except OSError as error:
                if SPOILT not in str(error) or attempt == ATTEMPTS - 1:
                    raise
            time.sleep(FIRST_PAUSE_S * 2**attempt)
            self._file.seek(place)
        raise AssertionError("unreachable")

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Handler(pafs.FileSystemHandler):
    """All that a file system does, done by S3; objects are read by `_Reader`."""

    def __init__(self, fs: pafs.S3FileSystem) -> None:
        self._fs = fs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Handler) and self._fs == other._fs

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def get_type_name(self) -> str:
        return self._fs.type_name

    def normalize_path(self, path: str) -> str:
        return self._fs.normalize_path(path)

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        return self._fs.get_file_info(paths)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        return self._fs.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self._fs.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._fs.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._fs.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        self._fs.delete_dir_contents("", accept_root_dir=True)

    def delete_file(self, path: str) -> None:
        self._fs.delete_file(path)

    def move(self, source: str, target: str) -> None:
        self._fs.move(source, target)

    def copy_file(self, source: str, target: str) -> None:
        self._fs.copy_file(source, target)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_Reader(self._fs.open_input_file(path)), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._fs.open_output_stream(path, compression=None, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._fs.open_append_stream(path, compression=None, metadata=metadata)
