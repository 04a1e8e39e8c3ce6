"""`rushes verify`: everything that a run says it holds, checked against the files that are there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rushes.curation.manifest import Run, is_local, join, resolve
from rushes.curation.video import seal

THREADS = 8  # files read at a time
MEDIA_COLUMNS = ["clip_id", "media", "media_bytes", "media_hash"]
BATCH_ROWS = 10_000
LATENT = re.compile(r"(\.parquet)#\d+$")  # a latent's place inside its file


@dataclass(frozen=True)
class Damage:
    """A file that is not what the run says. kind: table, clip, image or record."""

    kind: str
    path: str
    what: str


@dataclass
class Checked:
    """How many files were looked at, by kind, and what is wrong."""

    counts: dict[str, int]
    damages: list[Damage]


def verify(run: Run, quick: bool = False) -> Checked:
    """Check the tables of the snapshot, the media that they name, and the records of the work.

    quick: of media their presence, length and seal only; else every byte of them is read and hashed.
    """
    counts: dict[str, int] = {}
    damages: list[Damage] = []
    with ThreadPoolExecutor(THREADS) as threads:
        parts = (_tables(run), _media(run, quick, threads), _records(run.root, threads))
        for kind, path, what in (found for part in parts for found in part):
            counts[kind] = counts.get(kind, 0) + 1
            if what:
                damages.append(Damage(kind, path, what))
    return Checked(counts, damages)


Found = Iterator[tuple[str, str, str | None]]  # kind, path, what is wrong


def _tables(run: Run) -> Found:
    for name, listed in run.record["tables"].items():
        rows, broken = 0, False
        for file in listed["files"]:
            count, what = _parquet(*_place(run.root, file))
            rows, broken = rows + count, broken or what is not None
            yield "table", file, what
        if not broken and rows != listed["rows"]:
            yield "table", name, f"{rows} rows, and run.json says {listed['rows']}"


def _place(root: str, file: str) -> tuple[pafs.FileSystem, str]:
    """File system and path of a file that is named below the run, or by an absolute address."""
    return resolve(file if "://" in file or file.startswith("/") else join(root, file))


def _parquet(fs: pafs.FileSystem, path: str) -> tuple[int, str | None]:
    """(rows, what is wrong) of a Parquet file, all of it read, a row group at a time."""
    try:
        with fs.open_input_file(path) as stream, pq.ParquetFile(stream, page_checksum_verification=True) as file:
            return sum(file.read_row_group(i).num_rows for i in range(file.num_row_groups)), None
    except FileNotFoundError:
        return 0, "missing"
    except (OSError, pa.ArrowException, ValueError) as error:
        return 0, f"cannot be read: {' '.join(str(error).split())}"


def _media(run: Run, quick: bool, threads: ThreadPoolExecutor) -> Found:
    """Every file that `clips`, or where there is none a set, names; each once."""
    names = ["clips"] if "clips" in run.tables else [name for name in run.tables if name.startswith("sets/")]
    seen: set[str] = set()
    for name in names:
        for file in run.record["tables"][name]["files"]:
            fs, path = _place(run.root, file)
            if _parquet(fs, path)[1]:
                continue  # said among the tables
            with fs.open_input_file(path) as stream, pq.ParquetFile(stream) as table:
                columns = [column for column in MEDIA_COLUMNS if column in table.schema_arrow.names]
                for batch in table.iter_batches(BATCH_ROWS, columns=columns):
                    rows = [row for row in batch.filter(pc.is_valid(batch["media"])).to_pylist()]
                    fresh = [row for row in rows if row["media"] not in seen]
                    seen.update(row["media"] for row in fresh)
                    yield from threads.map(lambda row: _one(run.root, row, quick), fresh)


def _one(root: str, row: dict[str, Any], quick: bool) -> tuple[str, str, str | None]:
    media, sealed = LATENT.sub(r"\1", row["media"]), row.get("media_hash") is not None
    try:
        fs, path = _place(root, media)
        info = fs.get_file_info(path)
        if info.type != pafs.FileType.File:
            return "clip" if sealed else "image", media, "missing"
        if not sealed:
            return "image", media, "empty" if info.size == 0 else None
        if info.size != row["media_bytes"]:
            return "clip", media, f"{info.size} bytes long, not {row['media_bytes']}"
        with fs.open_input_file(path) as stream:
            found = seal.read(stream, info.size)
            what = seal.fault(found, info.size, row["clip_id"])
            if what is None and found.blake2b != row["media_hash"]:
                what = "not the clip that was cut for this snapshot"
            if what is None and not quick and seal.hash_of(stream, found.content_bytes)[0] != found.blake2b:
                what = "some of its bytes have changed"
    except OSError as error:
        return "clip" if sealed else "image", media, f"cannot be read: {error}"
    return "clip", media, what


def _records(root: str, threads: ThreadPoolExecutor) -> Found:
    fs, folder = resolve(join(root, "work"))
    found = fs.get_file_info(pafs.FileSelector(folder, recursive=True, allow_not_found=True))
    paths = sorted(info.path for info in found if info.path.endswith((".parquet", ".json")))
    base = resolve(root)[1]

    def check(path: str) -> tuple[str, str, str | None]:
        if path.endswith(".parquet"):
            return "record", path.removeprefix(f"{base}/"), _parquet(fs, path)[1]
        try:
            with fs.open_input_stream(path) as stream:
                json.loads(stream.read())
        except (OSError, ValueError) as error:
            return "record", path.removeprefix(f"{base}/"), f"cannot be read: {error}"
        return "record", path.removeprefix(f"{base}/"), None

    yield from threads.map(check, paths)


def cure(run: Run, damages: list[Damage]) -> str:
    """The command that makes anew what is damaged."""
    if {damage.kind for damage in damages} <= {"image"} or "images" in run.record:
        return "`rushes images` with the inputs and the output it was made with"
    if "encoding" in run.record:
        return "`rushes encode` as it was run, into a new folder"
    fs, _ = resolve(run.root)
    sources = next(iter(run.record["tables"].get("sources", {}).get("files", [])), None)
    known = is_local(fs) and sources and not any(damage.path == sources for damage in damages)
    inputs = (sources if sources.startswith("/") else join(run.root, sources)) if known else "..."
    return f"rushes curate --recipe {join(run.root, 'recipe.yaml')} --input {inputs} --output {run.root}"
