"""Growing a set: clips that an older run already keeps, and its concepts taken over. No media are read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rushes.curation import storage
from rushes.curation.content import arrays, pairs
from rushes.curation.content.arrays import Mapper
from rushes.curation.content.cells import Cells, fit, probe
from rushes.curation.content.concepts import CONCEPTS, Concepts
from rushes.curation.content.grid import known, lengths, on_grid, vectors_of
from rushes.curation.content.shards import Part, batches, clip_hash
from rushes.curation.looking.registry import vector_models
from rushes.curation.manifest import ManifestError, Run, open_run
from rushes.curation.recipe import Recipe
from rushes.curation.storage import join

ROWS_PER_CELL = 64  # of the new clips: the older ones are many, and each is compared with a few cells of them
MODEL_ROWS = 1024  # looked through at a time for one that names its models
OLD_ROWS = 65_536  # of an older run that are compared in one task


@dataclass(frozen=True)
class Published:
    """An older run: root and snapshot, its files of vectors with their rows, hashes of the clips that it keeps."""

    root: str
    snapshot: str
    files: tuple[tuple[str, int], ...]
    kept: np.ndarray


def open_published(root: str, width: int) -> Published:
    """A run of content.against. Raises ManifestError where it is none, or its vectors have another width."""
    run = open_run(root)
    files = [join(root, file) for file in run.record["tables"].get("embeddings", {}).get("files", [])]
    found = []
    for file in files:
        fs, path = storage.resolve(file)
        metadata = pq.read_metadata(path, filesystem=fs)
        if metadata.num_rows:
            _same_width(pq.read_schema(path, filesystem=fs), "copy", width, root, "content.against")
            found.append((file, metadata.num_rows))
    clips = run.table("clips", ["clip_id", "kept"])
    ids = clips["clip_id"].filter(pc.fill_null(clips["kept"], False)).combine_chunks()
    return Published(root, run.record["snapshot"], tuple(found), np.sort(_bare_hash(ids)))


def check(recipe: Recipe) -> None:
    """Raises ManifestError where a run of content.against or content.join is none, or was made with another model."""
    content, models = recipe.content, vector_models(recipe)
    named = [(root, "copy", "content.against") for root in content.against]
    if content.join is not None:
        named.append((content.join, "semantic", "content.join"))
    for root, column, key in named:
        try:
            run = open_run(root)
        except ManifestError as error:
            raise ManifestError(f"{key}: {error}") from error
        if key == "content.against" and "embeddings" not in run.tables:
            raise ManifestError(f"{root}, named by {key}, has no table 'embeddings' to compare with; leave it out.")
        theirs = made_by(run, column)
        if theirs is not None and theirs != models[column]:
            raise ManifestError(
                f"{root}, named by {key}, holds '{column}' vectors by {theirs}, and this recipe makes them by "
                f"{models[column]}: they cannot be compared; curate it again with this recipe, or leave it out."
            )
        if key == "content.join":
            concepts_of(root, 0)


def made_by(run: Run, column: str) -> str | None:
    """The model that made a run's vectors, as its rows name it; None where no row does."""
    if "look_models" not in run.schema("clips").names:
        return None
    for file in run.files("clips"):
        with storage.opened_table(file) as table:
            for batch in table.iter_batches(MODEL_ROWS, columns=["look_models"]):
                for model in pc.unique(pc.list_flatten(batch["look_models"])).to_pylist():
                    if model.startswith(f"{column}: "):
                        return model.removeprefix(f"{column}: ")
    return None


def _same_width(schema: pa.Schema, column: str, width: int, root: str, key: str) -> None:
    type_ = schema.field(column).type if column in schema.names else pa.null()
    if not pa.types.is_fixed_size_list(type_):
        raise ManifestError(f"{root}, named by {key}, has no '{column}' vectors: curate it again, or leave it out.")
    if width and type_.list_size != width:
        raise ManifestError(
            f"{root}, named by {key}, holds '{column}' vectors of {type_.list_size} numbers, and this run's have "
            f"{width}: they come from different models; curate it again with this recipe, or leave it out."
        )


def concepts_of(root: str, width: int) -> tuple[Run, Concepts]:
    """A run named by content.join and its concepts. Raises ManifestError where it has none, or of another width."""
    run: Run = open_run(root)
    if CONCEPTS not in run.record["tables"]:
        raise ManifestError(f"{root}, named by content.join, has no table '{CONCEPTS}': curate it again.")
    table = run.table(CONCEPTS)
    _same_width(table.schema, "centre", width, root, "content.join")
    if not table.num_rows:
        raise ManifestError(f"{root}, named by content.join, holds no concepts: none of its clips was looked at.")
    return run, Concepts.of(table)


def _bare_hash(ids: pa.Array) -> np.ndarray:
    return clip_hash(ids, 0)


def matched(
    parts: list[Part], published: list[Published], threshold: float, memory: int, mapper: Mapper
) -> tuple[np.ndarray, pa.Array]:
    """Hashes (sorted) of new clips that repeat a kept clip of an older run, and "RUN#CLIP" of the most similar one."""
    tasks = [
        (run.root, file, part.start, part.stop, run.kept)
        for run in published
        for file, rows in run.files
        for part in arrays.slices(rows, OLD_ROWS)
    ]
    best: dict[int, tuple[float, str]] = {}
    for some in _loads(parts, memory // 8):
        new = _New.of(some)
        if new is None:
            continue
        for found in mapper(partial(_repeats, new=new, threshold=threshold), tasks):
            for clip, cosine, name in zip(*found):
                if (-cosine, name) < best.get(int(clip), (0.0, "")):
                    best[int(clip)] = (-cosine, name)
    clips = np.array(sorted(best), np.uint64)
    return clips, pa.array([best[int(clip)][1] for clip in clips], pa.string())


def _loads(parts: list[Part], most_bytes: int) -> list[list[Part]]:
    """Parts in groups whose vectors fit a worker beside its own."""
    loads: list[list[Part]] = []
    held = 0
    for part in parts:
        size = arrays.load(part.file("copy"), 0, 1).nbytes * (part.stop - part.start)
        if not loads or held + size > most_bytes:
            loads.append([])
            held = 0
        loads[-1].append(part)
        held += size
    return loads


@dataclass(frozen=True)
class _New:
    """New clips sorted by cell: cell c holds rows ends[c]:ends[c + 1]."""

    cells: Cells
    ends: np.ndarray
    clips: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, parts: list[Part]) -> _New | None:
        clips = np.concatenate([arrays.load(part.file("clips")) for part in parts])
        rows = np.concatenate([arrays.load(part.file("copy")) for part in parts])
        seen = np.flatnonzero(known(rows))
        if not len(seen):
            return None
        order = seen[np.argsort(clips[seen], kind="stable")]
        clips, rows = clips[order], rows[order]
        cells = fit(rows, -(-len(rows) // ROWS_PER_CELL))
        home = probe(rows, cells, pairs.TOPS, 1, 0.0)[:, 0]
        order = np.argsort(home, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(home, minlength=len(cells.leaves)))])
        return cls(cells, ends, clips[order], rows[order])


def _repeats(task: tuple[str, str, int, int, np.ndarray], new: _New, threshold: float) -> tuple[list, list, list]:
    """New clips near kept old ones of some rows of a file: hashes, cosines, and the old clips' names."""
    root, file, start, stop, kept = task
    clips, cosines, names = [], [], []
    for batch in batches(file, start, stop, ["clip_id", "copy"]):
        old = on_grid(vectors_of(batch["copy"]))
        chosen = np.flatnonzero(arrays.find(_bare_hash(batch["clip_id"]), kept)[1] & known(old))
        row, fresh, cosine = _near(old[chosen], new, threshold)
        ids = batch["clip_id"].take(pa.array(chosen[row])).to_pylist()
        clips += new.clips[fresh].tolist()
        cosines += cosine.tolist()
        names += [f"{root}#{name}" for name in ids]
    return clips, cosines, names


def _near(old: np.ndarray, new: _New, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs (row of `old`, row of `new`, cosine) above the threshold."""
    where = probe(old, new.cells, pairs.TOPS, pairs.VISITS, pairs.MARGIN)
    row, visit = np.nonzero(where >= 0)
    cell = where[row, visit]
    order = np.argsort(cell, kind="stable")
    row, cell = row[order], cell[order]
    length_old, length_new = lengths(old), lengths(new.rows)
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    starts = np.flatnonzero(np.append(True, cell[1:] != cell[:-1])) if len(cell) else []
    for start, stop in zip(starts, np.append(starts[1:], len(cell))):
        low, high = new.ends[cell[start]], new.ends[cell[start] + 1]
        some = row[start:stop]
        product = old[some].astype(np.float32) @ new.rows[low:high].astype(np.float32).T
        i, j = np.nonzero(product >= threshold * length_old[some, None] * length_new[low:high])
        found.append((some[i], j + low, product[i, j] / (length_old[some[i]] * length_new[j + low])))
    return tuple(np.concatenate(column) for column in zip(*found))
