"""Concepts of an older run taken over, and new ones for footage that is unlike all of them.

Concepts are found in generations: 0 by the run that began, one more by each run that joins another. A clip belongs to
its nearest centre of generation 0; where it lies outside that concept's `reach`, to the nearest of generation 1 if that
is nearer, and so on. Centres and reach of older generations never change, so the same vector gets the same label for
ever. Clips that the older run has labelled keep their labels even where they lie outside every reach.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow.compute as pc

from rushes.curation import storage
from rushes.curation.content import arrays
from rushes.curation.content.arrays import Mapper
from rushes.curation.content.cells import fit
from rushes.curation.content.concepts import Concepts, Tally, alike_to, assigned, merged, tallied
from rushes.curation.content.grid import centres_of, sums
from rushes.curation.content.shards import Part, clip_hash
from rushes.curation.manifest import Run

NEW_LEAST = 16
"""Clips of a new concept at least. So many outliers of an old concept make none: at a cosine of 0.6 to its centre each,
their mean lies at 0.95 to it."""

STORED = np.dtype([("clip", np.uint64), ("cluster", np.int64)])


@dataclass(frozen=True)
class Limits:
    """rows: in memory that new centres are found on; clusters: new concepts at most; threshold: cosine from which two
    centres are one concept."""

    rows: int
    clusters: int
    threshold: float


@dataclass(frozen=True)
class Grown:
    """Concepts with those of this run's own generation, and the key of every part's labels."""

    concepts: Concepts
    labels: str


def grown(parts: list[Part], old: Concepts, run: Run, seed: int, limits: Limits, mapper: Mapper) -> Grown:
    """Labels of all parts: the concepts `old` of `run`, and new ones for clips outside the reach of all of them.

    Whole in this process are the hashes of clips that lie outside (8 bytes each) and the labels of those that the older
    run knows (16). Raises ManifestError where the older run cannot be read.
    """
    key = arrays.key_of(old.key, run.snapshot)
    found = list(mapper(partial(_place, old=old, key=key), parts))
    nobody = np.empty(0, np.uint64)
    outside = np.sort(arrays.gathered((clips for clips, _ in found), nobody))
    open_ = np.sort(arrays.gathered((clips for _, clips in found), nobody))
    files = run.files("clips") if len(outside) else []
    stored = arrays.gathered(mapper(partial(_stored, wanted=outside, seed=seed), files), np.empty(0, STORED))
    stored = stored[np.argsort(stored["clip"], kind="stable")]
    novel = np.setdiff1d(open_, stored["clip"])
    new = _new(parts, novel, old, key, limits, mapper)
    both, labels = old + new, arrays.key_of(key, new.key, novel.tobytes(), stored.tobytes())
    settle = partial(_settle, both=both, first=len(old.centres), novel=novel, stored=stored, before=key, key=labels)
    tally = sum(mapper(settle, parts), Tally.nothing(both.centres.shape))
    reach = np.concatenate([old.reach, tally.reach()[len(old.centres) :]])
    return Grown(replace(both, clips=tally.count, reach=reach), labels)


def _new(parts: list[Part], novel: np.ndarray, old: Concepts, key: str, limits: Limits, mapper: Mapper) -> Concepts:
    """New concepts among the clips `novel` (hashes, sorted): NEW_LEAST clips or more each, unlike every old centre."""
    none = old.take(np.empty(0, np.int64))
    if len(novel) < NEW_LEAST:
        return none
    some = list(mapper(partial(_rows, wanted=novel[: limits.rows]), parts))  # in the order of hashes: a fair sample
    order = np.argsort(np.concatenate([clips for clips, _ in some]), kind="stable")
    rows = np.concatenate([rows for _, rows in some])[order]
    centres = fit(rows, max(1, min(limits.clusters, len(rows) // NEW_LEAST))).leaves
    total, _ = _tally(parts, novel, centres, key, mapper)
    centres = centres_of(total, centres)
    _, count = _tally(parts, novel, centres, key, mapper)
    good = np.flatnonzero((alike_to(centres, old.centres) < limits.threshold) & (count > 0))
    if not len(good):
        return none
    name = merged(centres[good], count[good], limits.threshold)  # numbers go by size: the small ones come last
    enough = np.bincount(name, weights=count[good])[name] >= NEW_LEAST
    good, name = good[enough], name[enough]
    return Concepts(
        centres[good],
        old.cluster_id.max() + 1 + name,
        count[good],
        np.full(len(good), -1, np.float32),
        np.full(len(good), old.generation.max() + 1),
    )


def _tally(
    parts: list[Part], novel: np.ndarray, centres: np.ndarray, key: str, mapper: Mapper
) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the novel clips that are nearer to a new centre than to their old one."""
    total, count = np.zeros(centres.shape), np.zeros(len(centres), np.int64)
    for more, clips in mapper(partial(_tried, novel=novel, centres=centres, key=key), parts):
        total += more
        count += clips
    return total, count


# --- what workers do: a part, or a file of the older run ---------------------------------------------------


def _place(part: Part, old: Concepts, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Leave a part's labels and cosines; hashes of clips outside the first reach they were held to, and the last."""
    files = [part.file(kind, key) for kind in ("labels", "cosines", "outside")]
    if all(storage.exists(file) for file in files):
        outside = arrays.load(files[2])
    else:
        label, cosine, outside = placed(arrays.load(part.file("semantic")), old)
        for file, array in zip(files, (label, cosine, outside), strict=True):
            arrays.save(file, array)
    clips = arrays.load(part.file("clips"))
    return clips[outside > 0], clips[outside > 1]


def placed(rows: np.ndarray, concepts: Concepts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of the table of concepts int32 [N] (-1: not known), cosine, and 1 outside a reach, 2 outside the last."""
    first = np.flatnonzero(concepts.generation == 0)
    label, cosine = assigned(rows, concepts.centres[first])
    label = np.where(label >= 0, first[label], -1).astype(np.int32)
    was_out = np.zeros(len(rows), bool)
    for generation in range(1, int(concepts.generation.max(initial=0)) + 1):
        out = _outside(label, cosine, concepts)
        was_out |= out
        later, there = np.flatnonzero(concepts.generation == generation), np.flatnonzero(out)
        if len(later) and len(there):
            _move(rows, there, concepts.centres[later], label, cosine, later)
    out = _outside(label, cosine, concepts)
    return label, cosine, (was_out | out).astype(np.uint8) + out


def _outside(label: np.ndarray, cosine: np.ndarray, concepts: Concepts) -> np.ndarray:
    return (label >= 0) & (cosine < concepts.reach[label])


def _move(
    rows: np.ndarray, some: np.ndarray, centres: np.ndarray, label: np.ndarray, cosine: np.ndarray, names: np.ndarray
) -> None:
    """Give the rows `some` the name of their nearest centre where that is nearer than what they have; in place."""
    best, value = assigned(rows[some], centres)
    nearer = value > cosine[some]
    label[some[nearer]], cosine[some[nearer]] = names[best[nearer]], value[nearer]


def _stored(file: str, wanted: np.ndarray, seed: int) -> np.ndarray:
    """Clips of an older run's file that are wanted, and the concepts that it gave them."""
    table = storage.read_table(file, ["clip_id", "cluster_id"])
    table = table.filter(pc.is_valid(table["cluster_id"]))
    clips = clip_hash(table["clip_id"].combine_chunks(), seed)
    here = arrays.find(clips, wanted)[1]
    found = np.empty(int(here.sum()), STORED)
    found["clip"], found["cluster"] = clips[here], table["cluster_id"].to_numpy()[here]
    return found


def _here(part: Part, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the wanted clips that are in this part: their places, and their vectors."""
    places = np.flatnonzero(arrays.find(arrays.load(part.file("clips")), wanted)[1])
    return places, arrays.load(part.file("semantic"))[places]


def _rows(part: Part, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places, rows = _here(part, wanted)
    return arrays.load(part.file("clips"))[places], rows


def _tried(part: Part, novel: np.ndarray, centres: np.ndarray, key: str) -> tuple[np.ndarray, np.ndarray]:
    places, rows = _here(part, novel)
    label, cosine = assigned(rows, centres)
    nearer = cosine > arrays.load(part.file("cosines", key))[places]
    return sums(rows[nearer], label[nearer], len(centres))


def _settle(
    part: Part, both: Concepts, first: int, novel: np.ndarray, stored: np.ndarray, before: str, key: str
) -> Tally:
    """Leave a part's final labels and cosines. first: where the new concepts begin in the table `both`."""
    rows, clips = arrays.load(part.file("semantic")), arrays.load(part.file("clips"))
    label, cosine = arrays.load(part.file("labels", before)).copy(), arrays.load(part.file("cosines", before)).copy()
    place, there = arrays.find(clips, stored["clip"])
    names, row = np.unique(both.cluster_id, return_index=True)
    label[there] = row[arrays.find(stored["cluster"][place[there]], names)[0]]
    some = np.flatnonzero(arrays.find(clips, novel)[1])
    if first < len(both.centres) and len(some):
        _move(rows, some, both.centres[first:], label, cosine, np.arange(first, len(both.centres)))
    arrays.save(part.file("labels", key), label)
    arrays.save(part.file("cosines", key), cosine)
    return tallied(rows, label, cosine, len(both.centres))
