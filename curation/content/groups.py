"""Copy groups and concepts of all clips that have vectors, over shards: `measure`.

Every step is mapped over parts (rows of a shard that fit a worker) or over runs of cells, and leaves its result in the
work folder under a name made of what decides it. What is whole in the calling process: the sample that centres are
found on (bounded by content.memory_mb), and some tens of bytes for each clip that has a near copy (see `leaders`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from rushes.curation import storage
from rushes.curation.content import arrays, pairs
from rushes.curation.content.arrays import Mapper
from rushes.curation.content.cells import Cells, fit
from rushes.curation.content.concepts import (
    CONCEPTS,
    MIN_ROWS_PER_CLUSTER,
    ROUNDS,
    SAMPLE_PER_CENTRE,
    Concepts,
    Tally,
    assigned,
    merged,
    tallied,
)
from rushes.curation.content.grid import centres_of
from rushes.curation.content.growing import Limits, grown
from rushes.curation.content.leaders import Graph, leaders
from rushes.curation.content.published import Published, check, concepts_of, matched, open_published
from rushes.curation.content.shards import Part, Shard, batches, opened, parts_of, prepare, sample, widths
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.storage import join

VERSION = 1  # of the files left in the work folder
MEGABYTE = 1 << 20
CELL_SAMPLE = 32  # rows per cell of copies that its centres are found on
MOST_ROWS = 1 << 17  # of a part
TOLD_ROWS = 1 << 17  # of a file of names, read at a time
TOLD = pa.schema([("clip", pa.uint64()), ("name", pa.string())])

RESULT = pa.schema(
    [
        ("clip_id", pa.string()),
        ("copy_group", pa.string()),  # the clip that leads its near copies; null: no copies, or no vector
        ("semantic_group", pa.string()),  # the same for content.semantic_threshold
        ("published_copy", pa.string()),  # RUN#CLIP of content.against that it repeats
        ("cluster_id", pa.int64()),  # null: no vector
    ]
)


def measure(shards: Sequence[str], folder: str, recipe: Recipe, mapper: Mapper = map) -> list[str]:
    """A Parquet file per shard with the columns of RESULT, rows as in the shard; and FOLDER/concepts.parquet.

    The same for any order of shards, rows and workers. Raises ManifestError where a shard or a run of content.against
    cannot be read or holds vectors of another width.
    """
    return _Content(shards, folder, recipe, mapper).measure()


def measure_table(vectors: pa.Table, folder: str, recipe: Recipe) -> tuple[pa.Table, pa.Table]:
    """`measure` for a table in memory (clip_id, semantic, copy): its rows of RESULT, and the table of concepts."""
    shard = join(folder, f"vectors-{arrays.key_of(vectors['clip_id'].to_pylist(), recipe.part_hash('look'))}.parquet")
    if not storage.exists(shard):
        storage.write_table(shard, vectors)
    (file,) = measure([shard], folder, recipe)
    return storage.read_table(file), storage.read_table(join(folder, f"{CONCEPTS}.parquet"))


class _Content:
    """One measurement: the steps in order, each a map."""

    def __init__(self, shards: Sequence[str], folder: str, recipe: Recipe, mapper: Mapper) -> None:
        self.recipe, self.folder, self.map, self.content = recipe, folder, mapper, recipe.content
        self.shards = [opened(uri) for uri in shards]
        self.width = widths(shards)
        self.memory = self.content.memory_mb * MEGABYTE
        row_bytes = 2 * max(self.width["copy"] * pairs.VISITS, sum(self.width.values()), 1)
        rows = int(min(MOST_ROWS, max(1024, self.memory // (2 * row_bytes))))
        ordered = sorted(self.shards, key=lambda shard: shard.key)
        self.parts = parts_of(ordered, folder, rows, VERSION, self.content.seed, sorted(self.width.items()))
        self.key = arrays.key_of([part.key for part in self.parts], recipe.part_hash("content"))

    def measure(self) -> list[str]:
        check(self.recipe)
        published = [open_published(root, self.width["copy"]) for root in self.content.against]
        self.joined = None if self.content.join is None else concepts_of(self.content.join, self.width["semantic"])
        snapshots = [run.snapshot for run in [*published, *(self.joined or ())[:1]]]
        self.key = arrays.key_of(self.key, snapshots)
        files = [join(self.folder, "content", f"groups-{arrays.key_of(s.key, self.key)}.parquet") for s in self.shards]
        if all(storage.exists(file) for file in [*files, self._concepts_file()]):
            return files
        rows = sum(self.map(partial(prepare, width=self.width, seed=self.content.seed), self.parts))
        names = self._concepts(rows)
        groups = self._groups("copy", self.content.copy_threshold, rows)
        alike = self._groups("semantic", self.content.semantic_threshold, rows)
        repeats = self._against(published)
        finish = partial(
            _finish, parts=self.parts, names=names, groups=groups, alike=alike, repeats=repeats, labels=self.labels
        )
        list(self.map(finish, list(zip(self.shards, files))))
        return files

    def _concepts_file(self) -> str:
        return join(self.folder, f"{CONCEPTS}.parquet")

    # --- samples and cells -------------------------------------------------------------------------------

    def _sample(self, kind: str, wanted: int, rows: int) -> np.ndarray:
        """About `wanted` known rows in the order of their hashes, fewer where memory does not hold them."""
        most = min(wanted, self.memory // (6 * self.width[kind]))  # int16 here, float32 while they are worked on
        bound = np.uint64(min(2**64 - 1, int(2**64 * (1.05 * most / max(rows, 1)))))
        found = list(self.map(partial(sample, kind=kind, below=bound), self.parts))
        clips = arrays.gathered([c for c, _ in found], np.empty(0, np.uint64))
        vectors = arrays.gathered([v for _, v in found], np.empty((0, self.width[kind]), np.int16))
        return vectors[np.argsort(clips, kind="stable")[:most]]

    def _cells(self, kind: str, rows: int) -> Cells | None:
        number = -(-rows // pairs.ROWS_PER_CELL)
        found = self._sample(kind, CELL_SAMPLE * number, rows)
        return fit(found, min(number, -(-len(found) // CELL_SAMPLE))) if len(found) else None

    # --- copies ------------------------------------------------------------------------------------------

    def _groups(self, kind: str, threshold: float | None, rows: int) -> str | None:
        """A file of the clips with near copies, and who leads each; None where none is looked for."""
        if threshold is None or not self.width[kind]:
            return None
        cells = self._cells(kind, rows)
        if cells is None:
            return None
        key = arrays.key_of(self.key, kind, threshold)
        counts = sum(self.map(partial(_scatter, kind=kind, cells=cells, key=key), self.parts))
        budget = int(self.memory // (4 * self.width[kind] + pairs.ENTRY.itemsize))
        runs = _runs(counts, budget)
        task = partial(_pairs, parts=self.parts, threshold=threshold, key=key, folder=self.folder)
        files = list(self.map(task, runs))
        drawn = [arrays.load(f) for _, f in files]
        same = arrays.gathered(
            [*drawn, *(arrays.load(p.file("same", key)) for p in self.parts)], np.empty(0, pairs.PAIR)
        )
        graph = Graph(tuple(f for f, _ in files), same, self.folder, key)
        names = graph.nodes(self.map)
        rank, label = self._placed(names) if kind == "semantic" else (None, None)
        members, leader = leaders(graph, names, self.map, rank, label)
        return self._written(key, members, *self._ids(leader))

    def _placed(self, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """SemDeDup: of each clip the cosine to its concept's centre (the furthest leads), and its concept."""
        wanted = self._wanted(names)
        found = list(self.map(partial(_placed, wanted=wanted, labels=self.labels), self.parts))
        order = np.argsort(np.concatenate([clip for clip, _, _ in found]))
        label = self.names[np.concatenate([label for _, label, _ in found])[order]]
        return np.concatenate([cosine for _, _, cosine in found])[order], label

    def _ids(self, leader: np.ndarray) -> tuple[np.ndarray, pa.Array]:
        """Of each leader its place in the ids of all of them."""
        names, place = np.unique(leader, return_inverse=True)
        found = list(self.map(partial(_ids_of, wanted=self._wanted(names)), self.parts))
        clips = arrays.gathered([clip for clip, _ in found], np.empty(0, np.uint64))
        ids = pa.concat_arrays([name for _, name in found]) if found else pa.array([], pa.string())
        return place, ids.take(pa.array(np.argsort(clips, kind="stable")))

    def _wanted(self, names: np.ndarray) -> str:
        """A file of hashes (sorted) that every part is asked for."""
        file = join(self.folder, "content", f"wanted-{arrays.key_of(self.key, names.tobytes())}.npy")
        arrays.save(file, names)
        return file

    def _written(self, key: str, clips: np.ndarray, place: np.ndarray, ids: pa.Array) -> str:
        """A file of clips (hashes, sorted) and the names told of them, for `_told`."""
        file = join(self.folder, "content", f"told-{key}.parquet")
        some = (
            pa.table([pa.array(clips[part]), ids.take(pa.array(place[part]))], schema=TOLD)
            for part in arrays.slices(len(clips), TOLD_ROWS)
        )
        storage.write_batches(file, TOLD, some)
        return file

    # --- concepts ----------------------------------------------------------------------------------------

    def _concepts(self, rows: int) -> np.ndarray:
        """Names of the centres' clusters; leaves every part's labels, and concepts.parquet."""
        self.labels, width = "", self.width["semantic"]
        none = np.empty(0, np.int64)
        found = Concepts(np.empty((0, width or 1), np.int16), none, none, none.astype(np.float32), none)
        if width:
            found = self._found(rows) if self.joined is None else self._grown(*self.joined)
        storage.write_table(self._concepts_file(), found.take(np.flatnonzero(found.cluster_id >= 0)).table())
        self.names = found.cluster_id
        return self.names

    def _found(self, rows: int) -> Concepts:
        centres = self._centres(rows)
        tally = self._tally(centres)
        for _ in range(ROUNDS):
            centres = centres_of(tally.total, centres)
            tally = self._tally(centres)
        names = merged(centres, tally.count, self.content.merge_threshold)
        return Concepts(centres, names, tally.count, tally.reach(), np.zeros(len(names), np.int64))

    def _grown(self, run: Run, old: Concepts) -> Concepts:
        content, most = self.content, self.memory // (6 * self.width["semantic"])
        limits = Limits(most, content.clusters, content.merge_threshold)
        found = grown(self.parts, old, run, content.seed, limits, self.map)
        self.labels = found.labels
        return found.concepts

    def _centres(self, rows: int) -> np.ndarray:
        found = self._sample("semantic", min(rows, self.content.clusters * SAMPLE_PER_CENTRE), rows)
        if not len(found):
            return np.zeros((1, self.width["semantic"]), np.int16)
        k = max(1, min(self.content.clusters, len(found) // MIN_ROWS_PER_CLUSTER))
        return fit(found, k).leaves

    def _tally(self, centres: np.ndarray) -> Tally:
        """Labels of every part for these centres, and the tally over all."""
        self.labels = arrays.key_of(centres.tobytes())
        return sum(
            self.map(partial(_label, centres=centres, key=self.labels), self.parts), Tally.nothing(centres.shape)
        )

    # --- what is published already -----------------------------------------------------------------------

    def _against(self, published: list[Published]) -> str | None:
        threshold = self.content.copy_threshold
        if not published or threshold is None or not self.width["copy"]:
            return None
        clips, names = matched(self.parts, published, threshold, self.memory, self.map)
        return self._written(arrays.key_of(self.key, "published"), clips, np.arange(len(clips)), names)


# --- what workers do: a part, or a run of cells ------------------------------------------------------------


def _scatter(part: Part, kind: str, cells: Cells, key: str) -> np.ndarray:
    """Leave a part's entries, sorted by cell, and their vectors; entries per cell int64 [K]."""
    size = len(cells.leaves)
    files = [part.file(name, key) for name in ("same", "entries", "ends", "visits")]
    if not all(storage.exists(file) for file in files):
        rows, clips = arrays.load(part.file(kind)), arrays.load(part.file("clips"))
        entries, of, same = pairs.scatter(rows, clips, cells)
        ends = np.cumsum(np.bincount(entries["cell"], minlength=size))
        for file, array in zip(files, (same, entries, ends, rows[of]), strict=True):
            arrays.save(file, array)
        return np.diff(ends, prepend=0)
    return np.diff(arrays.load(files[2]), prepend=0)


def _runs(counts: np.ndarray, budget: int) -> list[tuple[int, int]]:
    """Runs [first, last) of cells with at most `budget` entries each (one cell alone may have more)."""
    runs, start, held = [], 0, 0
    for cell, size in enumerate(counts.tolist()):
        if held and held + size > budget:
            runs.append((start, cell))
            start, held = cell, 0
        held += size
    return [*runs, (start, len(counts))]


def _pairs(run: tuple[int, int], parts: list[Part], threshold: float, key: str, folder: str) -> tuple[str, str]:
    """Files of the pairs found in a run of cells, and of the rows drawn together there."""
    name = arrays.key_of(key, run)
    near_file, drawn_file = (join(folder, "content", f"{what}-{name}.npy") for what in ("near", "drawn"))
    if not (storage.exists(near_file) and storage.exists(drawn_file)):
        entries, rows = [], []
        for part in parts:
            ends = arrays.load(part.file("ends", key), max(run[0] - 1, 0), run[1])
            start, stop = (int(ends[0]) if run[0] else 0), int(ends[-1])
            entries.append(arrays.load(part.file("entries", key), start, stop))
            rows.append(arrays.load(part.file("visits", key), start, stop))
        near, drawn = pairs.pairs(np.concatenate(entries), np.concatenate(rows), threshold)
        arrays.save(near_file, near)
        arrays.save(drawn_file, drawn)
    return near_file, drawn_file


def _label(part: Part, centres: np.ndarray, key: str) -> Tally:
    """Leave a part's labels and cosines; the tally of its labels."""
    rows = arrays.load(part.file("semantic"))
    label_file, cosine_file = part.file("labels", key), part.file("cosines", key)
    if storage.exists(label_file) and storage.exists(cosine_file):
        label, cosine = arrays.load(label_file), arrays.load(cosine_file)
    else:
        label, cosine = assigned(rows, centres)
        arrays.save(label_file, label)
        arrays.save(cosine_file, cosine)
    return tallied(rows, label, cosine, len(centres))


def _placed(part: Part, wanted: str, labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the wanted clips that are in this part: hash, label, cosine to the centre."""
    clips = arrays.load(part.file("clips"))
    here = np.flatnonzero(arrays.find(clips, arrays.load(wanted))[1])
    return clips[here], arrays.load(part.file("labels", labels))[here], arrays.load(part.file("cosines", labels))[here]


def _ids_of(part: Part, wanted: str) -> tuple[np.ndarray, pa.Array]:
    clips = arrays.load(part.file("clips"))
    here = np.flatnonzero(arrays.find(clips, arrays.load(wanted))[1])
    if not len(here):
        return clips[:0], pa.array([], pa.string())
    table = pa.Table.from_batches(batches(part.uri, part.start, part.stop, ["clip_id"]))
    return clips[here], table["clip_id"].combine_chunks().cast(pa.string()).take(pa.array(here))


def _finish(item: tuple[Shard, str], parts: list[Part], names, groups, alike, repeats, labels: str) -> None:
    """Write a shard's result from its parts."""
    shard, file = item
    if storage.exists(file):
        return
    found = []
    for part in sorted((p for p in parts if p.uri == shard.uri), key=lambda p: p.start):
        clips = arrays.load(part.file("clips"))
        batch = pa.Table.from_batches(batches(part.uri, part.start, part.stop, ["clip_id"]))
        label = arrays.load(part.file("labels", labels)) if labels else np.full(len(clips), -1)
        cluster = pa.array(names[label] if len(names) else label, pa.int64(), mask=label < 0)
        columns = [
            batch["clip_id"].cast(pa.string()),
            _told(clips, groups),
            _told(clips, alike),
            _told(clips, repeats),
            cluster,
        ]
        found.append(pa.table(columns, schema=RESULT))
    storage.write_table(file, pa.concat_tables(found) if found else RESULT.empty_table())


def _told(clips: np.ndarray, file: str | None) -> pa.Array:
    """What a file of `_written` tells of these clips, a row group in memory at a time; null of the others."""
    names = np.full(len(clips), None, object)
    if file is None or not len(clips):
        return pa.array(names, pa.string())
    order = np.argsort(clips, kind="stable")
    ordered = clips[order]
    with storage.opened_table(file) as table:
        for batch in table.iter_batches(TOLD_ROWS):
            here = batch["clip"].to_numpy()
            low, high = np.searchsorted(ordered, here[0]), np.searchsorted(ordered, here[-1], side="right")
            place, there = arrays.find(ordered[low:high], here)
            some = batch["name"].take(pa.array(place[there])).to_numpy(zero_copy_only=False)
            names[order[low:high][there]] = some
    return pa.array(names, pa.string())
