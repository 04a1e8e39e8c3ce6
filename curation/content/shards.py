"""Shards of clip rows cut into parts that fit a worker, and what is kept of a part: hashes and vectors on the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rushes.curation import storage
from rushes.curation.content import arrays
from rushes.curation.content.grid import WIDTH_MOST, on_grid, vectors_of
from rushes.curation.content.resample import hash_bits
from rushes.curation.manifest import ManifestError
from rushes.curation.storage import join

KINDS = ("semantic", "copy")
READ_ROWS = 8192  # rows decoded from Parquet at a time
FOOTER_BYTES = 65_536  # read to tell one shard from another: it holds counts, sizes and statistics of all columns


@dataclass(frozen=True)
class Part:
    """Rows [start, stop) of a shard, the folder that its files lie in, and the key that they are named by."""

    uri: str
    start: int
    stop: int
    folder: str
    key: str

    def file(self, kind: str, of: str = "") -> str:
        return join(self.folder, "content", f"{kind}-{self.key}{of and '-' + of}.npy")


@dataclass(frozen=True)
class Shard:
    uri: str
    rows: int
    key: str


def opened(uri: str) -> Shard:
    """A shard as its footer tells it. Raises ManifestError where it cannot be read."""
    fs, path = storage.resolve(uri)
    try:
        info = fs.get_file_info(path)
        with fs.open_input_file(path) as stream:
            size = stream.size()
            stream.seek(max(0, size - FOOTER_BYTES))
            footer = stream.read()
            stream.seek(0)
            rows = pq.ParquetFile(stream).metadata.num_rows
    except FileNotFoundError as error:
        raise ManifestError(f"The shard {uri} is not there: run the same command again to make it.") from error
    except (OSError, pa.ArrowInvalid) as error:
        raise ManifestError(f"The shard {uri} cannot be read: {error}.") from error
    return Shard(uri, rows, arrays.key_of(size, info.mtime_ns, footer))


def widths(uris: Sequence[str]) -> dict[str, int]:
    """Width of each kind of vector over all shards, 0 where none has it. Raises ManifestError where two differ."""
    found: dict[str, tuple[int, str]] = {}
    for uri in uris:
        fs, path = storage.resolve(uri)
        schema = pq.read_schema(path, filesystem=fs)
        for kind in KINDS:
            width = _width(schema, kind, uri)
            if not width:
                continue
            first, where = found.setdefault(kind, (width, uri))
            if first != width:
                raise ManifestError(
                    f"'{kind}' vectors have {first} numbers in {where} and {width} in {uri}: they come from different "
                    f"models; look at the clips again with one recipe."
                )
    return {kind: found.get(kind, (0, ""))[0] for kind in KINDS}


def _width(schema: pa.Schema, kind: str, uri: str) -> int:
    if kind not in schema.names or pa.types.is_null(schema.field(kind).type):
        return 0
    type_ = schema.field(kind).type
    if not pa.types.is_fixed_size_list(type_) or not pa.types.is_floating(type_.value_type):
        raise ManifestError(f"The column '{kind}' of {uri} holds {type_}; vectors are fixed-size lists of floats.")
    if type_.list_size > WIDTH_MOST:
        raise ManifestError(f"The column '{kind}' of {uri} is {type_.list_size} wide; at most {WIDTH_MOST} will do.")
    return type_.list_size


def parts_of(shards: Sequence[Shard], folder: str, rows: int, *decided_by: object) -> list[Part]:
    """Parts of at most `rows` rows; `decided_by` is what their files depend on beside the shard."""
    return [
        Part(shard.uri, part.start, part.stop, folder, arrays.key_of(shard.key, part.start, part.stop, *decided_by))
        for shard in shards
        for part in arrays.slices(shard.rows, rows)
    ]


def batches(uri: str, start: int, stop: int, columns: list[str]):
    """Record batches of rows [start, stop) of a shard, decoding only the row groups that hold them."""
    fs, path = storage.resolve(uri)
    with fs.open_input_file(path) as stream:
        file = pq.ParquetFile(stream)
        ends = np.cumsum([file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)])
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        at = int(ends[first - 1]) if first else 0
        here = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(READ_ROWS, row_groups=list(range(first, last + 1)), columns=here):
            low, high = max(start - at, 0), min(stop - at, batch.num_rows)
            if low < high:
                yield batch.slice(low, high - low)
            at += batch.num_rows


def prepare(part: Part, width: dict[str, int], seed: int) -> int:
    """Leave a part's hashes and vectors on the grid in its folder; the number of rows with a copy vector."""
    files = [part.file(kind) for kind in ("clips", *KINDS)]
    if not all(storage.exists(file) for file in files):
        size = part.stop - part.start
        clips = np.empty(size, np.uint64)
        vectors = {kind: np.zeros((size, width[kind]), np.int16) for kind in KINDS}
        at = 0
        for batch in batches(part.uri, part.start, part.stop, ["clip_id", *KINDS]):
            here = slice(at, at + batch.num_rows)
            clips[here] = clip_hash(batch["clip_id"], seed)
            for kind in KINDS:
                if kind in batch.schema.names and width[kind] and not pa.types.is_null(batch[kind].type):
                    vectors[kind][here] = on_grid(vectors_of(batch[kind]))
            at = here.stop
        for file, array in zip(files, (clips, *vectors.values()), strict=True):
            arrays.save(file, array)
    return part.stop - part.start


def clip_hash(ids: pa.Array, seed: int) -> np.ndarray:
    """uint64 of every clip id: the name that a clip has while content is measured."""
    return hash_bits(seed, "content", ids.to_numpy(zero_copy_only=False).astype(str))


def sample(part: Part, kind: str, below: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and vectors of the part's rows that are known and whose hash lies below a bound."""
    clips = arrays.load(part.file("clips"))
    chosen = np.flatnonzero(clips < below)
    rows = arrays.load(part.file(kind))[chosen]
    seen = rows.any(axis=1)
    return clips[chosen[seen]], rows[seen]
