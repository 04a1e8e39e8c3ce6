"""Files on a local disk or in an object store: one way to name, read, write and lock them that is right for both.

Every write appears whole or not at all. A local file is written beside its name and renamed. On an object store an
object appears when its stream is closed, and pyarrow closes a stream that is left by an exception, so nothing is
streamed to a final name: small objects go in one request, large ones to another name that is then moved.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rushes.curation import s3, stores, web

ROWS_PER_GROUP = 65_536
ONE_REQUEST = 4 << 20  # objects up to this are written by a single request, bytes (pyarrow's parts have 10 MiB)
SPOOL_BYTES = 16 << 20  # what is written to an object store waits in memory up to this, then in a temporary file
COPY_BYTES = 8 << 20
LEASE_S = 120.0  # a lock on an object store counts as given up when it was not renewed for so long, seconds
RENEW_S = 20.0
STORE_SAYS = ("AWS Error", "google::cloud::Status")  # words of an object store's own errors, in pyarrow's
SETTLE_S = 0.5  # two that take a lock at once see each other within this time, seconds


class StorageError(RuntimeError):
    """A file that cannot be read or written: one sentence with the fix."""


class DiskFull(StorageError):
    """No space left where something is written."""


class StoreAway(StorageError):
    """An object store that does not answer, or does not let us in."""


class DamagedFile(StorageError):
    """A file that is there and is not what was written: cut short, or with other bytes."""

    def __init__(self, uri: str, why: str) -> None:
        super().__init__(uri, why)
        self.uri, self.why = uri, why

    def __str__(self) -> str:
        return f"{self.uri} is damaged ({self.why})."


# ---- names -----------------------------------------------------------------------------------------------------------


def resolve(uri: str | os.PathLike[str]) -> tuple[pafs.FileSystem, str]:
    """File system and path of a local path or an s3://, gs://, hdfs:// or file:// URI. Raises StorageError.

    File systems are made once for each place: a new connection to an object store costs milliseconds.
    """
    text = os.fspath(uri)
    if "://" not in text:
        return _LOCAL, os.path.abspath(os.path.expanduser(text))
    if text.startswith(("http://", "https://")):
        return web.file_system(), text
    parts = urlsplit(text)
    base = f"{parts.scheme}://{parts.netloc}"
    try:
        if parts.scheme == "file" or "%" in text:  # escapes are pyarrow's to read
            return pafs.FileSystem.from_uri(text)
        fs, bucket = _file_system(base, parts.query)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(f"'{text}' is no address that pyarrow.fs can open: {error}") from error
    return fs, f"{bucket}{parts.path}".rstrip("/") if bucket else parts.path


_LOCAL = pafs.LocalFileSystem()


@lru_cache(maxsize=64)
def _file_system(base: str, query: str) -> tuple[pafs.FileSystem, str]:
    fs, bucket = pafs.FileSystem.from_uri(f"{base}?{query}" if query else base)
    return (s3.patient(fs) if fs.type_name == "s3" else fs), bucket


@contextlib.contextmanager
def reached(uri: str) -> Iterator[None]:
    """What an object store says of itself, as StoreAway; a file that is not there, or damaged, stays what it is."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if any(words in str(error) for words in STORE_SAYS):
            if (why := stores.told(str(error), uri)) is not None:
                raise StoreAway(f"{uri}: {why}; then start the same command again.") from error
            said = str(error).splitlines()[0][:300]
            raise StoreAway(
                f"The store of {uri} does not do what is asked ({said}); start the same command again "
                "once it does, what was done is kept."
            ) from error
        raise


def is_local(fs: pafs.FileSystem) -> bool:
    return isinstance(fs, pafs.LocalFileSystem)


def absolute(uri: str) -> str:
    """The same place as every process of a cluster can name it: a URI as it stands, a path from the root."""
    return uri.rstrip("/") if "://" in uri and not uri.startswith("file://") else resolve(uri)[1]


def join(root: str, *parts: str) -> str:
    """`root/parts`; a query at the root's end (s3://bucket/run?endpoint_override=...) stays at the end."""
    base, mark, query = root.partition("?") if "://" in root else (root, "", "")
    return "/".join([base.rstrip("/"), *parts]) + mark + query


def exists(uri: str) -> bool:
    fs, path = resolve(uri)
    with reached(uri):
        return fs.get_file_info(path).type != pafs.FileType.NotFound


def size(uri: str) -> int | None:
    """Size of a file in bytes, None where there is none."""
    fs, path = resolve(uri)
    with reached(uri):
        return fs.get_file_info(path).size


def listing(folder: str, suffix: str = "") -> list[pafs.FileInfo]:
    """Files directly in a folder, by name; none where there is no such folder."""
    fs, path = resolve(folder)
    with reached(folder):
        found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    files = [info for info in found if info.type == pafs.FileType.File and info.base_name.endswith(suffix)]
    return sorted(files, key=lambda info: info.base_name)


def folders(folder: str) -> list[str]:
    """Names of the folders directly in a folder; none where there is no such folder."""
    fs, path = resolve(folder)
    with reached(folder):
        found = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def delete(uri: str) -> None:
    """Delete a file; nothing happens where there is none."""
    fs, path = resolve(uri)
    with reached(uri), contextlib.suppress(FileNotFoundError):
        fs.delete_file(path)


def delete_folder(uri: str) -> None:
    """Delete a folder with all that is in it, where there is one."""
    fs, path = resolve(uri)
    if is_local(fs):
        shutil.rmtree(path, ignore_errors=True)
        return
    with reached(uri), contextlib.suppress(FileNotFoundError):
        fs.delete_dir(path)


# ---- writing ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def named_errors(what: str) -> Iterator[None]:
    """Turns the operating system's errors while writing into sentences; a full disk is a kind of its own."""
    try:
        yield
    except OSError as error:
        text = str(error)
        if getattr(error, "errno", None) == 28 or "No space left" in text:
            raise DiskFull(
                f"No space is left while writing {what}; free some and start the same command again."
            ) from error
        why = stores.told(text, what) if any(words in text for words in STORE_SAYS) else None
        if why is None and getattr(error, "strerror", None) and getattr(error, "filename", None):
            why = f"{error.strerror}: choose another place, or make it writable"
        raise StorageError(f"{what} cannot be written: {why or text}.") from error


@contextlib.contextmanager
def writing(uri: str) -> Iterator[Any]:
    """A binary stream to a file that appears under its name once the block has ended well, and else never.

    Raises DiskFull or StorageError.
    """
    fs, path = resolve(uri)
    with named_errors(uri), _beside(path) if is_local(fs) else _spooled(fs, path) as stream:
        yield stream


@contextlib.contextmanager
def _beside(path: str) -> Iterator[Any]:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with open(temporary, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def _spooled(fs: pafs.FileSystem, path: str) -> Iterator[Any]:
    with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, prefix="rushes-") as spool:
        yield spool
        size = spool.tell()
        spool.seek(0)
        if size <= ONE_REQUEST:
            data = spool.read()
            with fs.open_output_stream(path) as stream:
                stream.write(data)
            return
        upload(fs, spool, path)


def upload(fs: pafs.FileSystem, data: Any, path: str) -> None:
    """Copy an open file into an object store; a copy that breaks off never has the final name."""
    partial = f"{path}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with fs.open_output_stream(partial) as stream:
            shutil.copyfileobj(data, stream, COPY_BYTES)
        fs.move(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fs.delete_file(partial)
        raise


def write_bytes(uri: str, data: bytes) -> None:
    """Write a small file whole or not at all."""
    with writing(uri) as stream:
        stream.write(data)


def write_table(uri: str, table: pa.Table, rows_per_group: int = ROWS_PER_GROUP) -> None:
    """One Parquet file, whole or not at all."""
    with writing(uri) as stream:
        pq.write_table(table, stream, compression="zstd", row_group_size=rows_per_group, write_page_checksum=True)


def write_batches(
    uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table],
    footer: Callable[[], dict[bytes, str]] | None = None, rows_per_group: int | None = None, **options: Any,
) -> int:  # fmt: skip
    """One Parquet file from batches, a row group each, with one batch in memory at a time; its number of rows.

    footer: what the file's metadata say beside the schema, asked for once all batches are written; rows_per_group:
    batches are cut into groups of so many rows; options: of pyarrow's ParquetWriter.
    """
    options = {"compression": "zstd", "write_page_checksum": True, **options}
    rows = 0
    with writing(uri) as stream, pq.ParquetWriter(stream, schema, **options) as writer:
        for batch in batches:
            table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
            if batch.num_rows:
                writer.write_table(table, row_group_size=rows_per_group or batch.num_rows)
            rows += batch.num_rows
        if footer is not None:
            writer.add_key_value_metadata(footer())
    return rows


# ---- reading ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _sound(uri: str) -> Iterator[None]:
    """What pyarrow says of bytes that are no Parquet, as DamagedFile; a file that is not there stays what it is."""
    try:
        yield
    except (FileNotFoundError, StoreAway):
        raise
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        raise DamagedFile(uri, str(error).splitlines()[0][:200]) from error


def read_bytes(uri: str) -> bytes:
    """All of a file. Raises FileNotFoundError."""
    fs, path = resolve(uri)
    with reached(uri), fs.open_input_stream(path) as stream:
        return stream.read()


def read_table(uri: str, columns: list[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    """A Parquet file, its checksums verified. Raises FileNotFoundError, DamagedFile."""
    fs, path = resolve(uri)
    with _sound(uri), reached(uri):
        return pq.read_table(
            path, filesystem=fs, columns=columns, filters=filters, partitioning=None, page_checksum_verification=True
        )


def schema_of(uri: str) -> pa.Schema:
    """Schema of a Parquet file. Raises FileNotFoundError, DamagedFile."""
    fs, path = resolve(uri)
    with _sound(uri), reached(uri):
        return pq.read_schema(path, filesystem=fs)


@contextlib.contextmanager
def opened_table(uri: str) -> Iterator[pq.ParquetFile]:
    """A Parquet file for reading group by group, its checksums verified. Raises FileNotFoundError, DamagedFile."""
    fs, path = resolve(uri)
    with _sound(uri), reached(uri), fs.open_input_file(path) as handle:
        yield pq.ParquetFile(handle, page_checksum_verification=True)


# ---- locks -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(root: str) -> Iterator[None]:
    """Hold a folder for writing. Raises StorageError where another process holds it.

    On a local disk the lock is the kernel's: it goes with the process that held it, however that ended. On an object
    store it is a lease, renewed while the process lives.
    """
    fs, path = resolve(root)
    with _flock(root, path) if is_local(fs) else _lease(root):
        yield


@contextlib.contextmanager
def _flock(root: str, path: str) -> Iterator[None]:
    import fcntl

    if os.path.exists(path) and not os.path.isdir(path):
        raise StorageError(f"{root} is a file, not a folder; choose another output.")
    with named_errors(root):
        os.makedirs(path, exist_ok=True)
        handle = open(f"{path}/.lock", "w")  # noqa: SIM115 - held for the whole run
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(_held(root)) from error
        yield
    finally:
        handle.close()


def _held(root: str) -> str:
    return f"Another rushes process is writing to {root}; wait for it, or choose another folder."


@contextlib.contextmanager
def _lease(root: str) -> Iterator[None]:
    """Object stores have no lock of their own: a small object names who writes and until when."""
    uri, me = join(root, ".lock"), uuid.uuid4().hex
    holder = _holder(uri)
    if holder is not None and holder["until"] > time.time():
        raise StorageError(_held(root) + f" Was it killed, its hold ends by itself within {LEASE_S:.0f} s.")
    _hold(uri, me)
    time.sleep(SETTLE_S)
    if (_holder(uri) or {}).get("by") != me:
        raise StorageError(_held(root))
    ended = threading.Event()
    renewal = threading.Thread(target=_renew, args=(uri, me, ended), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        ended.set()
        renewal.join(timeout=RENEW_S)
        if (_holder(uri) or {}).get("by") == me:
            delete(uri)


def _renew(uri: str, me: str, ended: threading.Event) -> None:
    while not ended.wait(RENEW_S):
        with contextlib.suppress(OSError, StorageError):  # the next renewal may reach the store
            _hold(uri, me)


def _hold(uri: str, me: str) -> None:
    write_bytes(uri, json.dumps({"by": me, "until": time.time() + LEASE_S}).encode())


def _holder(uri: str) -> dict[str, Any] | None:
    try:
        return json.loads(read_bytes(uri))
    except (FileNotFoundError, ValueError):
        return None
