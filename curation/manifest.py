"""The tables of a run: schemas, atomic publication, opening and reading. Local paths, s3:// and gs:// alike.

A run folder holds immutable snapshots and one commit record that names the current one:

    RUN/run.json                          the commit record; replaced in one atomic step
    RUN/snapshots/<id>/<table>/*.parquet  written once, never changed
    RUN/<table> -> snapshots/<id>/<table> on a local disk: links for whoever reads RUN/clips/*.parquet by hand

A reader that opens the run sees all tables of one snapshot or, before the first is published, none.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rushes.curation import signals, web

SCHEMA_VERSION = 1
ROWS_PER_FILE = 1_000_000
ROWS_PER_GROUP = 65_536
SET_ROWS_PER_GROUP = 8_192  # a trainer reads a row group for one row of it
#: Snapshots kept for readers that opened the run before the newest was published.
SNAPSHOTS_KEPT = 2

SOURCES = signals.table_schema(signals.SOURCES)
#: What the decode leaves of a clip, and everything that is published of it.
ANALYZED = pa.schema([*signals.schema("measure"), signals.BY_NAME["notes"].field])
CLIPS = signals.schema()
SET = signals.table_schema(signals.SET)


class ManifestError(RuntimeError):
    """A run or a table that cannot be read or written: one sentence with the fix."""


class DiskFull(ManifestError):
    """No space left where the run is written."""


def resolve(uri: str | os.PathLike[str]) -> tuple[pafs.FileSystem, str]:
    """File system and path of a local path or an s3://, gs://, hdfs:// or file:// URI."""
    text = os.fspath(uri)
    if "://" not in text:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
    try:
        if text.startswith(("http://", "https://")):
            return web.file_system(), text
        fs, path = pafs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, OSError) as error:
        raise ManifestError(f"'{text}' is no address that pyarrow.fs can open: {error}") from error
    return fs, path


def is_local(fs: pafs.FileSystem) -> bool:
    return isinstance(fs, pafs.LocalFileSystem)


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
        raise ManifestError(f"{what} cannot be written: {text}.") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file so that its final name shows all of it or nothing."""
    fs, path = resolve(uri)
    with named_errors(uri):
        _write(fs, path, data)


def write_table(uri: str, table: pa.Table, rows_per_group: int = ROWS_PER_GROUP) -> None:
    """One Parquet file, atomically (see write_bytes)."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=rows_per_group, write_page_checksum=True)
    fs, path = resolve(uri)
    with named_errors(uri):
        _write(fs, path, sink.getvalue())


def write_batches(uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch], **options: Any) -> None:
    """One Parquet file from batches, a row group each, atomically and with one batch in memory at a time.

    options: of pyarrow's ParquetWriter.
    """
    fs, path = resolve(uri)
    with named_errors(uri), _whole_file(fs, path) as stream, pq.ParquetWriter(stream, schema, **options) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_table(uri: str, columns: list[str] | None = None, filters: pc.Expression | None = None) -> pa.Table:
    fs, path = resolve(uri)
    return pq.read_table(path, filesystem=fs, columns=columns, filters=filters, partitioning=None)


def exists(uri: str) -> bool:
    fs, path = resolve(uri)
    return fs.get_file_info(path).type != pafs.FileType.NotFound


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])


def _write(fs: pafs.FileSystem, path: str, data: Any) -> None:
    with _whole_file(fs, path) as stream:
        stream.write(data)


@contextlib.contextmanager
def _whole_file(fs: pafs.FileSystem, path: str) -> Iterator[Any]:
    """A stream to a file that appears under its name only once all of it is written."""
    if not is_local(fs):  # an object store shows an object only once its stream is closed
        with fs.open_output_stream(path) as stream:
            yield stream
        return
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


@dataclass(frozen=True)
class Run:
    """A published run, opened at one snapshot: what is read stays the same whatever is published meanwhile."""

    root: str
    record: dict[str, Any]

    @property
    def tables(self) -> list[str]:
        return sorted(self.record["tables"])

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table by name: sources, clips, embeddings, pairs or sets/NAME. Raises ManifestError with what there is."""
        if name not in self.record["tables"]:
            near = difflib.get_close_matches(name, self.tables, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"tables: {', '.join(self.tables)}."
            raise ManifestError(f"{self.root} has no table '{name}'; {hint}")
        fs, root = resolve(self.root)
        files = [f"{root}/{path}" for path in self.record["tables"][name]["files"]]
        if columns:
            known = pq.read_schema(files[0], filesystem=fs).names
            for column in columns:
                if column not in known:
                    near = difflib.get_close_matches(column, known, n=1)
                    hint = f"did you mean '{near[0]}'?" if near else f"columns: {', '.join(known)}."
                    raise ManifestError(f"The table '{name}' has no column '{column}'; {hint}")
        parts = [pq.read_table(path, filesystem=fs, columns=columns, partitioning=None) for path in files]
        return pa.concat_tables(parts)


def open_run(root: str) -> Run:
    """The current snapshot of a run. Raises ManifestError where nothing is published."""
    fs, path = resolve(root)
    try:
        with fs.open_input_stream(f"{path}/run.json") as stream:
            record = json.loads(stream.read())
    except (FileNotFoundError, NotADirectoryError) as error:
        unfinished = exists(join(root, "work"))
        why = (
            "its curation has not finished; run the same `rushes curate` again" if unfinished else "it has no run.json"
        )
        raise ManifestError(f"{root} holds no published run: {why}.") from error
    except json.JSONDecodeError as error:
        raise ManifestError(f"{root}/run.json is damaged: {error}.") from error
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ManifestError(
            f"{root} was written with manifest version {record.get('schema_version')}, this is version "
            f"{SCHEMA_VERSION}: curate it again, or read it with the release that wrote it."
        )
    return Run(root, record)


def publish(root: str, tables: dict[str, pa.Table], record: dict[str, Any]) -> Run:
    """Write the tables as a new snapshot and make it the current one by replacing run.json.

    record: what the commit record says beside the tables' files, rows and bytes (recipe hash, funnel, times).
    Raises DiskFull or ManifestError; the snapshot published before stays the current one then.
    """
    fs, path = resolve(root)
    number = 1 + max([int(name.split("-")[0]) for name in _snapshots(fs, path)], default=0)
    snapshot = f"{number:06d}-{uuid.uuid4().hex[:6]}"
    listed: dict[str, Any] = {}
    try:
        for name, table in tables.items():
            files, rows_per_group = [], SET_ROWS_PER_GROUP if name.startswith("sets/") else ROWS_PER_GROUP
            for index, start in enumerate(range(0, max(table.num_rows, 1), ROWS_PER_FILE)):
                file = f"snapshots/{snapshot}/{name}/part-{index:05d}.parquet"
                write_table(join(root, file), table.slice(start, ROWS_PER_FILE), rows_per_group)
                files.append(file)
            listed[name] = {"files": files, "rows": table.num_rows}
        full = {"schema_version": SCHEMA_VERSION, "snapshot": snapshot, **record, "tables": listed}
        write_bytes(join(root, "run.json"), json.dumps(full, indent=1, default=str).encode())
    except ManifestError:
        if is_local(fs):
            shutil.rmtree(f"{path}/snapshots/{snapshot}", ignore_errors=True)
        raise
    if is_local(fs):
        _link(Path(path), snapshot, sorted({name.split("/")[0] for name in tables}))
        for old in _snapshots(fs, path)[:-SNAPSHOTS_KEPT]:
            shutil.rmtree(f"{path}/snapshots/{old}", ignore_errors=True)
    return Run(root, full)


def _snapshots(fs: pafs.FileSystem, path: str) -> list[str]:
    found = fs.get_file_info(pafs.FileSelector(f"{path}/snapshots", allow_not_found=True))
    return sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)


def _link(root: Path, snapshot: str, names: list[str]) -> None:
    for name in names:
        temporary = root / f".{name}.{uuid.uuid4().hex[:6]}"
        temporary.symlink_to(Path("snapshots") / snapshot / name)
        os.replace(temporary, root / name)


@contextlib.contextmanager
def lock(root: str) -> Iterator[None]:
    """Hold a run folder for writing. Raises ManifestError where another process holds it (local disks).

    The lock is the kernel's: it goes with the process that held it, however that ended.
    """
    fs, path = resolve(root)
    if not is_local(fs):
        yield  # object stores have no lock: two runs into one prefix repeat work, but publish whole snapshots
        return
    import fcntl

    if os.path.exists(path) and not os.path.isdir(path):
        raise ManifestError(f"{root} is a file, not a folder; choose another output.")
    with named_errors(root):
        os.makedirs(path, exist_ok=True)
        handle = open(f"{path}/.lock", "w")  # noqa: SIM115 - held for the whole run
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ManifestError(
                f"Another rushes process is writing to {root}; wait for it, or choose another folder."
            ) from error
        yield
    finally:
        handle.close()
