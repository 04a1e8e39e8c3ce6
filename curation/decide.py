"""Decisions from signals: rules, duplicates, sampling. No video is opened here.

Over shards: `solve` is a few small reductions, `decide` is mapped. Both are pure functions of the clips' rows and a
recipe, and `rushes curate` and `rushes judge` call the same two. Who goes into which set stands in `sets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rescue, rules
from rushes.curation.content.arrays import Mapper, find
from rushes.curation.content.resample import hash_unit, keep_probability, solve_keep
from rushes.curation.curriculum import bucket_shape, spans
from rushes.curation.recipe import Recipe
from rushes.curation.sections import keep_target
from rushes.curation.signals import ALIKE, CAMERA_SURE, CLIPS_PER_SOURCE, COPIES, DRAW, PUBLISHED

Load = Callable[[Any], pa.Table]
"""A shard -> its rows: facts, signals and the columns of content.RESULT. Picklable, as everything that is mapped."""

COPY_GROUP, SEMANTIC_GROUP = ("copy_group", COPIES.key), ("semantic_group", ALIKE.key)
MS_PER_HOUR = 3_600_000


def quality(clips: pa.Table, prefer: Sequence[str]) -> np.ndarray:
    """What decides between copies, the first that differs: float64 [N, len(prefer)], higher is better.

    resolution: pixels of the clean rectangle (crop_width x crop_height where there is one, else the frame's);
    bits_per_pixel: of the source's encoding. What is not known counts as least.
    """
    columns = [_QUALITY[name](clips) for name in prefer]
    return np.nan_to_num(np.stack(columns, axis=1), nan=-1.0) if columns else np.zeros((clips.num_rows, 0))


def _resolution(clips: pa.Table) -> np.ndarray:
    width, height = rescue.size(clips)
    return width * height


def _if_there(name: str) -> Callable[[pa.Table], np.ndarray]:
    return lambda clips: rules.column(clips, name) if name in clips.column_names else np.full(clips.num_rows, np.nan)


_QUALITY = {
    "resolution": _resolution,
    "fps": _if_there("fps"),
    "bits_per_pixel": _if_there("bits_per_pixel"),
    "duration": _if_there("duration_s"),
}


@dataclass(frozen=True)
class Groups:
    """The best open clip of each group with several members; partial results merge by `+`.

    Columns: group, clip_id, k0, k1, ... (see `quality`); sorted by group. About 100 bytes for each such group.
    """

    best: pa.Table | None = None

    def __add__(self, other: Groups) -> Groups:
        if self.best is None or other.best is None:
            return self if other.best is None else other
        return Groups(_best(pa.concat_tables([self.best, other.best])))


def _best(rows: pa.Table) -> pa.Table:
    keys = [(name, "descending") for name in rows.column_names if name.startswith("k")]
    ordered = rows.sort_by([("group", "ascending"), *keys, ("clip_id", "ascending")]).combine_chunks()
    group = ordered["group"].to_numpy(zero_copy_only=False).astype(str)
    first = np.append(True, group[1:] != group[:-1])[: len(group)]
    return ordered.filter(pa.array(first, pa.bool_()))


@dataclass(frozen=True)
class Counts:
    """Clips and milliseconds of every concept, without and with people [C, 2]; partial results merge by `+`.

    A clip that belongs to no concept is a concept of its own: those are counted together under `ALONE`.
    """

    cluster: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    clips: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    ms: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))

    def __add__(self, other: Counts) -> Counts:
        names, inverse = np.unique(np.concatenate([self.cluster, other.cluster]), return_inverse=True)
        clips, ms = np.zeros((len(names), 2), np.int64), np.zeros((len(names), 2), np.int64)
        np.add.at(clips, inverse, np.concatenate([self.clips, other.clips]))
        np.add.at(ms, inverse, np.concatenate([self.ms, other.ms]))
        return Counts(names, clips, ms)


ALONE = -1


@dataclass(frozen=True)
class Global:
    """What deciding on one shard has to know of all others."""

    copies: Groups
    alike: Groups
    cluster: np.ndarray  # int64 [C], sorted
    size: np.ndarray  # int64 [C]: open clips of the concept
    t: tuple[float, float]  # of min(1, sqrt(t / n)), for clips without and with people
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decisions:
    """Per clip, in the table's order: first failing rule or None, and what the content stage decided."""

    rejected_by: np.ndarray  # object [N]
    duplicate_of: np.ndarray  # object [N]
    cluster_size: np.ndarray  # float64 [N], NaN where none
    keep_prob: np.ndarray  # float64 [N], NaN where none

    @property
    def kept(self) -> np.ndarray:
        return np.array([rule is None for rule in self.rejected_by], bool)


def solve(load: Load, shards: Sequence[Any], recipe: Recipe, mapper: Mapper = map) -> Global:
    """Reductions over all shards: the best copy of each group, then the sizes of the concepts, then t.

    load(shard) gives the shard's rows; all clips of one source stand in one shard.
    """
    copies = alike = Groups()
    if recipe.content.copy_threshold is not None:
        copies = sum(mapper(partial(_groups, load=load, recipe=recipe), shards), Groups())
    if recipe.content.semantic_threshold is not None:
        alike = sum(mapper(partial(_groups, load=load, recipe=recipe, copies=copies), shards), Groups())
    count = partial(_counts, load=load, recipe=recipe, copies=copies, alike=alike)
    counts = sum(mapper(count, shards), Counts())
    t, notes = solve_target(counts, recipe)
    return Global(copies, alike, counts.cluster, counts.clips.sum(axis=1), t, notes)


def decide(clips: pa.Table, chosen: Global, recipe: Recipe) -> Decisions:
    """All rules in the recipe's order, what is published already, one clip per group, then the sampling.

    clips: a shard's rows with the columns of content.RESULT. Sampling keeps a clip with min(1, sqrt(t / n)) of its
    concept's size n, by a hash of its id: a clip's fate changes only as far as its probability does.
    """
    rejected, ids = _by_rules(clips, recipe)
    duplicate_of = np.full(len(ids), None, dtype=object)
    _one_of_group(clips, ids, rejected, duplicate_of, chosen.copies, COPY_GROUP)
    _one_of_group(clips, ids, rejected, duplicate_of, chosen.alike, SEMANTIC_GROUP)
    size, keep_prob = np.full(len(ids), np.nan), np.full(len(ids), np.nan)
    open_ = np.flatnonzero(_open(rejected))
    if len(open_):
        cluster, people, _ = _sides(clips, open_, recipe)
        size[open_] = np.where(cluster == ALONE, 1, chosen.size[find(cluster, chosen.cluster)[0]])
        keep_prob[open_] = keep_probability(size[open_], np.array(chosen.t)[people])
        drawn = hash_unit(recipe.content.seed, "resample", ids[open_])
        rejected[open_[drawn >= keep_prob[open_]]] = DRAW.key
    return Decisions(rejected, duplicate_of, size, keep_prob)


def decide_all(clips: pa.Table, recipe: Recipe) -> tuple[Decisions, tuple[str, ...]]:
    """`solve` and `decide` for a table that is one shard: the decisions, and sentences about the target."""
    chosen = solve(_itself, [clips], recipe)
    return decide(clips, chosen, recipe), chosen.notes


def _itself(table: pa.Table) -> pa.Table:
    return table


# --- the steps of one shard --------------------------------------------------------------------------------


def _by_rules(clips: pa.Table, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """First failing rule of each clip before any group is looked at (object [N]), and the clips' ids."""
    rejected = rules.judge(clips, recipe)
    ids = clips["clip_id"].to_numpy(zero_copy_only=False).astype(str)
    _limit_per_source(clips, ids, recipe, rejected)
    if recipe.content.against and "published_copy" in clips.column_names:
        there = ~np.asarray(clips["published_copy"].is_null())
        rejected[_open(rejected) & there] = PUBLISHED.key
    return rejected, ids


def _open(rejected: np.ndarray) -> np.ndarray:
    return np.equal(rejected, None)


def _limit_per_source(clips: pa.Table, ids: np.ndarray, recipe: Recipe, rejected: np.ndarray) -> None:
    most = recipe.scenes.clips_per_source
    if most is None:
        return
    open_ = np.flatnonzero(_open(rejected))
    sources = clips["source_id"].to_numpy(zero_copy_only=False).astype(str)[open_]
    order = np.lexsort((hash_unit(recipe.content.seed, "per-source", ids[open_]), sources))
    ordered = sources[order]
    starts = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, bool)
    place = np.arange(len(order)) - np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
    rejected[open_[order[place >= most]]] = CLIPS_PER_SOURCE.key


def _groups(shard: Any, load: Load, recipe: Recipe, copies: Groups | None = None) -> Groups:
    """The best open member of each of the shard's copy groups; with `copies`, of each group that is alike."""
    clips = load(shard)
    rejected, ids = _by_rules(clips, recipe)
    name = COPY_GROUP[0]
    if copies is not None:
        _one_of_group(clips, ids, rejected, np.full(len(ids), None, dtype=object), copies, COPY_GROUP)
        name = SEMANTIC_GROUP[0]
    if name not in clips.column_names:
        return Groups()
    some = clips.filter(pa.array(_open(rejected) & ~np.asarray(clips[name].is_null()), pa.bool_()))
    some = rescue.with_crops(some, recipe)
    best = quality(some, recipe.content.prefer)
    if name == SEMANTIC_GROUP[0]:  # SemDeDup: the one furthest from the concept's centre leads, and stays where it can
        best = np.asarray(pc.equal(some[name], some["clip_id"])).astype(np.float64)[:, None]
    keys = {f"k{i}": best[:, i] for i in range(best.shape[1])}
    return Groups(_best(pa.table({"group": some[name], "clip_id": some["clip_id"], **keys})))


def _one_of_group(
    clips: pa.Table,
    ids: np.ndarray,
    rejected: np.ndarray,
    duplicate_of: np.ndarray,
    groups: Groups,
    by: tuple[str, str],
) -> None:
    """Reject the open clips of each group but its best one, which `duplicate_of` names."""
    column, rule = by
    if groups.best is None or column not in clips.column_names:
        return
    place = pc.index_in(clips[column], groups.best["group"].combine_chunks())
    best = groups.best["clip_id"].take(place).to_numpy(zero_copy_only=False)
    lost = _open(rejected) & ~np.equal(best, None) & (best != ids)
    rejected[lost], duplicate_of[lost] = rule, best[lost]


def _sides(clips: pa.Table, open_: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the open clips: concept (ALONE where none), 1 where there are people, milliseconds."""
    cluster = np.full(len(open_), ALONE, np.int64)
    if "cluster_id" in clips.column_names:
        found = rules.column(clips, "cluster_id")[open_]
        cluster = np.where(np.isnan(found), ALONE, found).astype(np.int64)
    people = rules.column(clips, "human_score")[open_] >= recipe.content.people_min
    ms = np.rint(1000 * rules.column(clips, "duration_s")[open_]).astype(np.int64)
    return cluster, people.astype(np.int64), ms


def _counts(shard: Any, load: Load, recipe: Recipe, copies: Groups, alike: Groups) -> Counts:
    clips = load(shard)
    rejected, ids = _by_rules(clips, recipe)
    nobody = np.full(len(ids), None, dtype=object)
    _one_of_group(clips, ids, rejected, nobody, copies, COPY_GROUP)
    _one_of_group(clips, ids, rejected, nobody, alike, SEMANTIC_GROUP)
    open_ = np.flatnonzero(_open(rejected))
    cluster, people, ms = _sides(clips, open_, recipe)
    names, inverse = np.unique(cluster, return_inverse=True)
    counts = Counts(names, np.zeros((len(names), 2), np.int64), np.zeros((len(names), 2), np.int64))
    np.add.at(counts.clips, (inverse, people), 1)
    np.add.at(counts.ms, (inverse, people), ms)
    return counts


def solve_target(counts: Counts, recipe: Recipe) -> tuple[tuple[float, float], tuple[str, ...]]:
    """t for clips without and with people at which the sampling keeps what content.keep asks for, and sentences.

    With content.keep_people the same share is kept on both sides, else one t serves both.
    """
    everything = (float("inf"), float("inf"))
    total = int(counts.clips.sum())
    wanted, unit = keep_target(recipe.content.keep)
    weight = counts.ms if unit == "hours" else counts.clips
    available = {"share": 1.0, "clips": total, "hours": weight.sum() / MS_PER_HOUR}[unit]
    if total == 0 or (unit == "share" and wanted == 1.0):
        return everything, ()
    if total < recipe.content.keep_all_below:
        note = f"content.keep: all {total} clips are kept, as they are fewer than content.keep_all_below="
        return everything, (f"{note}{recipe.content.keep_all_below}.",)
    if wanted >= available:
        short = f"content.keep asks for {wanted:g} {unit} and {available:.6g} are there: all are kept."
        return everything, (short,) if wanted > available else ()
    sizes = np.where(counts.cluster == ALONE, 1, counts.clips.sum(axis=1))
    share = float(wanted / available)
    if not recipe.content.keep_people:
        t = solve_keep(sizes, share, weight.sum(axis=1))
        return (t, t), ()
    sides = [solve_keep(sizes, share, weight[:, i]) if weight[:, i].any() else float("inf") for i in (0, 1)]
    return (sides[0], sides[1]), ()


def set_table(clips: pa.Table, mask: np.ndarray, name: str, resolution: int) -> pa.Table:
    """What a trainer reads of the set `name` (manifest.SET): span inside the media file, bucket, shape, caption."""
    chosen = clips.filter(pa.array(mask)).sort_by("clip_id")
    named = chosen["bucket"].combine_chunks().dictionary_encode()
    kinds = named.dictionary.to_pylist()
    shapes = [bucket_shape(kind, resolution) for kind in kinds]
    width, height = (pa.array([shape[i] for shape in shapes], pa.int32()).take(named.indices) for i in range(2))
    own_fps, duration_s = (chosen[column].combine_chunks().to_numpy() for column in ("fps", "duration_s"))
    start_s, end_s, frames = spans(np.array(kinds, object)[named.indices.to_numpy()], duration_s, own_fps)
    sample_fps = frames / (end_s - start_s)
    same = ("clip_id", "source_id", "media", "media_bytes", "media_hash", "fps", "bucket")
    columns = {column: chosen[column] for column in same}
    columns |= {"set": pa.array([name] * len(chosen), pa.string()), "weight": np.ones(len(chosen))}
    columns |= {"media_start_s": start_s, "media_end_s": end_s, "sample_fps": sample_fps}
    columns |= {"bucket_frames": frames, "bucket_width": width, "bucket_height": height}
    columns |= _prefixes(chosen, sample_fps)
    arrays = [
        pa.chunked_array([columns[f.name]]) if isinstance(columns[f.name], np.ndarray | pa.Array) else columns[f.name]
        for f in manifest.SET
    ]
    return pa.Table.from_arrays(arrays, names=manifest.SET.names).cast(manifest.SET)


def _prefixes(chosen: pa.Table, sample_fps: np.ndarray) -> dict[str, pa.Array]:
    """What stands in front of a caption (B.2): camera motion where it is sure, the rate of the pictures."""
    sure = pc.fill_null(pc.greater_equal(chosen["camera_motion_conf"], CAMERA_SURE), False)
    camera = pc.if_else(sure, chosen["camera_motion"], pa.scalar(None, pa.string())).combine_chunks()
    led = pc.binary_join_element_wise(camera, chosen["caption"].combine_chunks(), ". ")
    rate = pa.array(np.rint(sample_fps).astype(np.int64))
    return {
        "camera_motion": camera,
        "caption": pc.coalesce(led, chosen["caption"].combine_chunks()),
        "fps_token": pc.binary_join_element_wise("FPS", rate.cast(pa.string()), "-"),
    }
