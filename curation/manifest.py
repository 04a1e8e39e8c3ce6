"""The tables of a run: schemas, atomic publication, opening and reading. Local paths, s3:// and gs:// alike.

A run folder holds immutable snapshots and one commit record that names the current one:

    RUN/run.json                          the commit record; replaced in one atomic step
    RUN/README.md                         what the current snapshot holds, for people and for `datasets` (card.py)
    RUN/snapshots/<id>/run.json           the same record, of every snapshot that was published
    RUN/snapshots/<id>/<table>/*.parquet  written once, never changed
    RUN/<table> -> snapshots/<id>/<table> on a local disk: links for whoever reads RUN/clips/*.parquet by hand

A table is a list of files. They may lie in an older snapshot, or in another run: what does not change is not written
again. A reader that opens the run sees all tables of one snapshot or, before the first is published, none.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rushes.curation import signals, storage, stores
from rushes.curation.card import card
from rushes.curation.nearest import meant
from rushes.curation.storage import (  # what the trainer needs of files, it takes from here
    DiskFull,
    exists,
    is_local,
    join,
    lock,
    named_errors,
    read_table,
    resolve,
    write_batches,
    write_bytes,
    write_table,
)
from rushes.curation.storage import StorageError as ManifestError
from rushes.curation.whereabouts import snapshots_run, why_no_run

__all__ = [
    "DiskFull", "ManifestError", "Run", "Snapshot", "exists", "is_local", "join", "lock", "named_errors", "open_run",
    "publish", "publish_files", "read_table", "resolve", "write_batches", "write_bytes", "write_table",
]  # fmt: skip

SCHEMA_VERSION = 1
ROWS_PER_FILE = 1_000_000
SET_ROWS_PER_GROUP = 8_192  # a trainer reads a row group for one row of it
#: Snapshots kept for readers that opened the run before the newest was published.
SNAPSHOTS_KEPT = 2
HISTORY_KEPT = 100  # names of published snapshots that the commit record holds

SOURCES = signals.table_schema(signals.SOURCES)
#: What the decode leaves of a clip, and everything that is published of it.
ANALYZED = pa.schema([*signals.schema("measure"), signals.BY_NAME["notes"].field])
CLIPS = signals.schema()
SET = signals.table_schema(signals.SET)


@dataclass(frozen=True)
class TableFiles:
    """A table as the commit record lists it. files: below the run, or absolute addresses; rows: of each file."""

    files: tuple[str, ...]
    rows: tuple[int, ...]

    def entry(self) -> dict[str, Any]:
        return {"files": list(self.files), "rows": sum(self.rows), "file_rows": list(self.rows)}


@dataclass(frozen=True)
class Run:
    """A published run, opened at one snapshot: what is read stays the same whatever is published meanwhile."""

    root: str
    record: dict[str, Any]

    @property
    def tables(self) -> list[str]:
        return sorted(self.record["tables"])

    @property
    def snapshot(self) -> str:
        return self.record["snapshot"]

    def files(self, name: str) -> list[str]:
        """Addresses of a table's files, in order. Raises ManifestError with what there is."""
        if name not in self.record["tables"]:
            raise ManifestError(f"{self.root} has no table '{name}'; {meant(name, self.tables, 'tables')}")
        return [self.address(path) for path in self.record["tables"][name]["files"]]

    def address(self, path: str) -> str:
        """A path of this run's tables (a file, a clip's media) as anyone can open it."""
        return path if "://" in path or path.startswith("/") else join(self.root, path)

    def entry(self, name: str) -> TableFiles:
        """A table's files as another run or snapshot can list them."""
        self.files(name)
        listed = self.record["tables"][name]
        return TableFiles(tuple(listed["files"]), tuple(listed["file_rows"]))

    def schema(self, name: str) -> pa.Schema:
        """Schema of a table, without reading its rows."""
        fs, path = resolve(self.files(name)[0])
        return pq.read_schema(path, filesystem=fs)

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A table by name, whole: sources, clips, embeddings, pairs or sets/NAME. Raises ManifestError."""
        files = self.files(name)
        if columns:
            known = self.schema(name).names
            for column in columns:
                if column not in known:
                    raise ManifestError(
                        f"The table '{name}' has no column '{column}'; {meant(column, known, 'columns')}"
                    )
        return pa.concat_tables([read_table(file, columns) for file in files]).combine_chunks()


def open_run(root: str) -> Run:
    """The current snapshot of a run. Raises ManifestError where nothing is published."""
    if (away := stores.unreachable(root)) is not None:
        raise ManifestError(f"{root} cannot be read: {away}.")
    try:
        record = json.loads(storage.read_bytes(join(root, "run.json")))
    except (FileNotFoundError, NotADirectoryError) as error:
        why = why_no_run(root)
        raise ManifestError(f"{root} holds no published run: {why}{'' if why.endswith('?') else '.'}") from error
    except ValueError as error:
        raise ManifestError(f"{root}/run.json is damaged: {error}.") from error
    if not isinstance(record, dict):
        raise ManifestError(f"{root}/run.json is damaged: it holds no mapping; the command that made the run mends it.")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise ManifestError(
            f"{root} was written with manifest version {record.get('schema_version')}, this is version "
            f"{SCHEMA_VERSION}: curate it again, or read it with the release that wrote it."
        )
    if not isinstance(record.get("tables"), dict) or "snapshot" not in record:
        raise ManifestError(f"{root}/run.json is damaged: it lists no tables; the command that made the run mends it.")
    if whole := snapshots_run(root):
        raise ManifestError(f"{root} is a snapshot of the run {whole}: name the run, whose newest snapshot is read.")
    return Run(root, record)


def current(root: str) -> str | None:
    """Name of the snapshot that is published at `root`, None where there is none."""
    return open_run(root).snapshot if exists(join(root, "run.json")) else None


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in the making: where its tables' files are written by whoever makes them."""

    root: str
    name: str

    @staticmethod
    def begin(root: str) -> Snapshot:
        number = 1 + max([int(name.split("-")[0]) for name in storage.folders(join(root, "snapshots"))], default=0)
        return Snapshot(root, f"{number:06d}-{uuid.uuid4().hex[:6]}")

    def file(self, table: str, index: int) -> str:
        """Path below the run of the table's part number `index`."""
        return f"snapshots/{self.name}/{table}/part-{index:05d}.parquet"

    def write(self, name: str, table: pa.Table) -> TableFiles:
        """Write a table that is in memory."""
        files, rows = [], []
        per_group = SET_ROWS_PER_GROUP if name.startswith("sets/") else storage.ROWS_PER_GROUP
        for index, start in enumerate(range(0, max(table.num_rows, 1), ROWS_PER_FILE)):
            part = table.slice(start, ROWS_PER_FILE)
            write_table(join(self.root, self.file(name, index)), part, per_group)
            files.append(self.file(name, index))
            rows.append(part.num_rows)
        return TableFiles(tuple(files), tuple(rows))

    def discard(self) -> None:
        storage.delete_folder(join(self.root, "snapshots", self.name))


def publish(root: str, tables: dict[str, pa.Table], record: dict[str, Any]) -> Run:
    """Write tables that are in memory as a new snapshot, and make it the current one (see publish_files)."""
    snapshot, parent = Snapshot.begin(root), current(root)
    try:
        listed = {name: snapshot.write(name, table) for name, table in tables.items()}
        return publish_files(snapshot, listed, record, parent)
    except ManifestError:
        snapshot.discard()
        raise


def publish_files(snapshot: Snapshot, tables: dict[str, TableFiles], record: dict[str, Any], parent: str | None) -> Run:
    """Make the snapshot the current one by replacing run.json: one atomic step.

    record: what the commit record says beside the tables (recipe hash, funnel, times); parent: the snapshot that the
    tables were made from, None for a run's first. Raises ManifestError where another has been published since, and
    DiskFull; the snapshot published before stays the current one then.
    """
    root, now = snapshot.root, current(snapshot.root)
    if now != parent:
        raise ManifestError(
            f"{root} was published by another process meanwhile ({now or 'nothing'} is current, this was made from "
            f"{parent or 'nothing'}): start the same command again."
        )
    before = open_run(root).record if now else {}
    history = [*before.get("history", []), snapshot.name]
    listed = {name: files.entry() for name, files in tables.items()}
    full = {
        "schema_version": SCHEMA_VERSION, "snapshot": snapshot.name, "parent": parent, **record,
        "history": history[-HISTORY_KEPT:], "tables": listed,
    }  # fmt: skip
    data = json.dumps(full, indent=1, default=str).encode()
    write_bytes(join(root, "snapshots", snapshot.name, "run.json"), data)
    write_bytes(join(root, "run.json"), data)
    write_bytes(join(root, "README.md"), card(root, full).encode())
    _link(root, full)
    _evict(root, history)
    return Run(root, full)


def _evict(root: str, history: Sequence[str]) -> None:
    """Delete snapshots that neither the newest published ones are nor list files of; unfinished ones with them."""
    keep = set(history[-SNAPSHOTS_KEPT:])
    for name in tuple(keep):
        with contextlib.suppress(FileNotFoundError, ValueError):
            record = json.loads(storage.read_bytes(join(root, "snapshots", name, "run.json")))
            files = [file for table in record["tables"].values() for file in table["files"]]
            keep |= {file.split("/")[1] for file in files if file.startswith("snapshots/")}
    for name in storage.folders(join(root, "snapshots")):
        if name not in keep:
            storage.delete_folder(join(root, "snapshots", name))


def _link(root: str, record: dict[str, Any]) -> None:
    """On a local disk, RUN/<table> leads to the folder of the table's files."""
    fs, path = resolve(root)
    if not is_local(fs):
        return
    folders = {}
    for name, table in record["tables"].items():
        top = name.split("/")[0]
        for file in table["files"]:
            if file.startswith("snapshots/"):
                folders[top] = "/".join([*file.split("/")[:2], top])
    for name, folder in folders.items():
        temporary = Path(path) / f".{name}.{uuid.uuid4().hex[:6]}"
        temporary.symlink_to(folder)
        os.replace(temporary, Path(path) / name)
