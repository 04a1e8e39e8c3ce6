"""Records of a run: what workers leave behind, keyed by content, so that a run started again repeats only what is new.

    RUN/work/sources/<hash of the addresses>.parquet   what inputs are: rows of `sources`, with the file's time
    RUN/work/KIND/<hash of the recipe's parts>/*.parquet   what leases gave; the footer names the items it holds
    RUN/work/shards/...                                a run's clips by shard, and what the global steps made of them
    RUN/media/<hash of the cut part>/<..>/<clip id>.mp4

Every record appears whole or not at all, and its pages carry checksums: one that cannot be read is deleted and made
again. Nothing here is a table of the run: those are published at the end.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import storage
from rushes.curation.storage import DamagedFile, join
from rushes.curation.tracks import OBSERVED

FOOTER = b"rushes.items"
READERS = 16  # footers read at a time: on an object store each is a request


def key_of(*parts: Any) -> str:
    """20 hexadecimal digits that stand for the parts."""
    return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=10).hexdigest()


def number_of(item: str) -> int:
    """An item's name as 64 bits."""
    return int.from_bytes(hashlib.blake2b(item.encode(), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class Index:
    """Where items are recorded: twelve bytes an item."""

    numbers: np.ndarray  # uint64 [n], sorted
    places: np.ndarray  # int32 [n], into files
    files: tuple[str, ...]

    def find(self, items: Sequence[str]) -> list[str | None]:
        """The file that holds each item, None where it is not recorded."""
        if not len(self.numbers):
            return [None] * len(items)
        wanted = np.fromiter(map(number_of, items), np.uint64, len(items))
        at = np.minimum(np.searchsorted(self.numbers, wanted), len(self.numbers) - 1)
        return [self.files[self.places[i]] if self.numbers[i] == w else None for i, w in zip(at, wanted, strict=True)]

    def save(self, uri: str) -> None:
        """One file for workers that look items up."""
        with storage.writing(uri) as stream:
            np.savez(stream, numbers=self.numbers, places=self.places, files=np.array(self.files, np.str_))

    @staticmethod
    def load(uri: str) -> Index:
        found = np.load(io.BytesIO(storage.read_bytes(uri)))
        return Index(found["numbers"], found["places"], tuple(found["files"].tolist()))


class Ledger:
    """The records of one kind of work: a folder of Parquet files whose footers name the items that they hold."""

    def __init__(self, root: str, kind: str, key: str) -> None:
        self.folder = join(root, "work", kind, key)

    def write(
        self, items: dict[str, Any], schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table],
        passing: dict[str, Any] | None = None, **options: Any,
    ) -> str:  # fmt: skip
        """One record; its address. items: their names, with a fact each that is read without the rows.

        passing: items whose rows are of use now and are not found again by `index`. Both may still be filled while the
        batches are written. options: of `storage.write_batches`.
        """
        uri = join(self.folder, f"{uuid.uuid4().hex}.parquet")

        def footer() -> dict[bytes, str]:
            return {FOOTER: json.dumps({"items": items, "passing": passing or {}})}

        storage.write_batches(uri, schema, batches, footer, **options)
        return uri

    def index(self, passing: bool = False) -> Index:
        """All that is recorded. A file whose footer cannot be read is deleted. A later record of an item replaces one.

        passing: what does not last is found as well, where nothing that lasts is.
        """
        files = [join(self.folder, info.base_name) for info in _by_age(self.folder)]
        with ThreadPoolExecutor(READERS) as readers:
            held = list(readers.map(_items, files))
            if passing:
                fleeting = list(readers.map(_passing, files))
                files, held = [*files, *files], [*fleeting, *held]
        numbers = [np.fromiter(map(number_of, items), np.uint64, len(items)) for items in held]
        places = [np.full(len(items), place, np.int32) for place, items in enumerate(held)]
        if not files:
            return Index(np.zeros(0, np.uint64), np.zeros(0, np.int32), ())
        all_numbers, all_places = np.concatenate(numbers), np.concatenate(places)
        order = np.lexsort((-all_places, all_numbers))
        all_numbers, all_places = all_numbers[order], all_places[order]
        first = np.concatenate([[True], all_numbers[1:] != all_numbers[:-1]]) if len(order) else np.zeros(0, bool)
        return Index(all_numbers[first], all_places[first], tuple(files))


def _by_age(folder: str) -> list[Any]:
    return sorted(storage.listing(folder, ".parquet"), key=lambda info: (info.mtime_ns or 0, info.base_name))


def _items(uri: str) -> list[str]:
    try:
        return list(facts_of(uri)["items"])
    except DamagedFile:
        storage.delete(uri)
        return []
    except FileNotFoundError:
        return []


def _passing(uri: str) -> list[str]:
    try:
        return list(facts_of(uri)["passing"])
    except (DamagedFile, FileNotFoundError):
        return []


def facts_of(uri: str) -> dict[str, dict[str, Any]]:
    """What a record's footer says: facts by item, of `items` and of `passing`. Raises DamagedFile."""
    with storage.opened_table(uri) as parquet:
        try:
            return json.loads(parquet.metadata.metadata[FOOTER])
        except (KeyError, ValueError) as error:
            raise DamagedFile(uri, "its footer names no items") from error


def by_source(ledger: Ledger) -> dict[str, list[str]]:
    """Records of every source, in the order of its parts, from items named SOURCE_ID:PART/PARTS.

    For whoever shows some clips' stills; a run knows its records by `Index`.
    """
    found: dict[str, dict[int, str]] = {}
    for info in _by_age(ledger.folder):
        uri = join(ledger.folder, info.base_name)
        for item in _items(uri):
            source, _, part = item.partition(":")
            found.setdefault(source, {})[int(part.partition("/")[0])] = uri
    return {source: [parts[part] for part in sorted(parts)] for source, parts in found.items()}


def read_observed(records: list[str], source_id: str) -> pa.Table:
    """OBSERVED rows of one source. Raises DamagedFile, FileNotFoundError."""
    tables = [storage.read_table(uri, filters=pc.field("source_id") == source_id) for uri in dict.fromkeys(records)]
    return pa.concat_tables(tables) if tables else OBSERVED.empty_table()


def record_versions() -> dict[str, Any]:
    """Versions of what decides the result, for the commit record."""
    from importlib.metadata import version

    from rushes.curation import manifest

    names = "rushes", "av", "scenedetect", "opencv-python", "rapidocr", "faiss-cpu", "ray", "pyarrow", "imageio-ffmpeg"
    return {"manifest": manifest.SCHEMA_VERSION, **{name: version(name) for name in names}}
