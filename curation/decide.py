"""Decisions from signals: rules, duplicates, sampling, buckets and stage sets. No video is opened here.

`decide` says what is kept and why not; `curriculum` puts what was kept and cut into sets. Both are pure functions of
a clips table and a recipe: `rushes curate` and `rushes judge` call the same two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rules
from rushes.curation.content import cluster as cluster_rows
from rushes.curation.content import find_duplicates, sample
from rushes.curation.content.resample import hash_unit
from rushes.curation.curriculum import SetSpec, bucket_shape, buckets, nested_sets, spans, validation_sources
from rushes.curation.look import matrix
from rushes.curation.recipe import Recipe
from rushes.curation.signals import CAMERA_SURE, CLIPS_PER_SOURCE, COPIES, DRAW

VALIDATION = "validation"
VALIDATION_FAR = 2.0  # times the share asked for above which the share held out is said aloud


def quality_rank(clips: pa.Table) -> np.ndarray:
    """Which of two copies to keep: float64 [N], higher is better: larger picture, then frame rate, then length."""
    area = rules.column(clips, "width") * rules.column(clips, "height")
    order = np.lexsort((rules.column(clips, "duration_s"), rules.column(clips, "fps"), area))
    keys = np.stack([area, rules.column(clips, "fps"), rules.column(clips, "duration_s")], axis=1)[order]
    changes = np.any(keys[1:] != keys[:-1], axis=1) if len(keys) else np.zeros(0, bool)
    rank = np.empty(len(order))
    rank[order] = np.concatenate([[0], np.cumsum(changes)]) if len(order) else []
    return rank


def measure_content(clips: pa.Table, embeddings: pa.Table, recipe: Recipe) -> pa.Table:
    """Copy groups and clusters of the clips that have embeddings: clip_id, copy_group, cluster_id.

    clips: rows with the facts quality_rank needs; embeddings: clip_id, semantic, copy. Rows sorted by clip_id.
    """
    table = clips.select(["clip_id", "width", "height", "fps", "duration_s"]).join(
        embeddings.select(["clip_id"]), "clip_id", join_type="inner"
    )
    table = table.sort_by("clip_id")
    vectors = embeddings.sort_by("clip_id")
    ids = table["clip_id"].to_pylist()
    threshold = recipe.content.copy_threshold
    leaders: list[str | None] = [None] * len(ids)
    if threshold is not None:
        leaders = find_duplicates(ids, matrix(vectors["copy"]), threshold, quality_rank(table))
    clusters = cluster_rows(
        matrix(vectors["semantic"]), recipe.content.clusters, recipe.content.merge_threshold, recipe.content.seed, ids
    )
    groups = [leader or clip_id for leader, clip_id in zip(leaders, ids, strict=True)]
    return pa.table(
        {
            "clip_id": pa.array(ids, pa.string()),
            "copy_group": pa.array(groups, pa.string()),
            "cluster_id": pa.array(clusters, pa.int64()),
        }
    )


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


def decide(clips: pa.Table, recipe: Recipe) -> Decisions:
    """All rules in the recipe's order, then one clip per copy group, then sampling by inverse-sqrt cluster size.

    clips: facts, signals, copy_group and cluster_id; a clip without a copy group stands for itself.
    """
    rejected = rules.judge(clips, recipe)
    ids = clips["clip_id"].to_numpy(zero_copy_only=False).astype(str)
    _limit_per_source(clips, ids, recipe, rejected)
    duplicate_of = _duplicates(clips, ids, rejected, recipe)
    size = np.full(len(ids), np.nan)
    keep_prob = np.full(len(ids), np.nan)
    open_ = np.flatnonzero(_open(rejected))
    if len(open_):
        cluster = rules.column(clips, "cluster_id")[open_]
        alone = np.isnan(cluster)
        cluster[alone] = -1 - np.arange(alone.sum())  # unmeasured: a cluster of its own
        _, inverse, counts = np.unique(cluster, return_inverse=True, return_counts=True)
        size[open_] = counts[inverse]
        people = rules.column(clips, "human_score")[open_] >= recipe.content.people_min
        content = recipe.content
        probability, kept = sample(ids[open_], inverse, people, content.keep, content.seed, content.keep_people)
        keep_prob[open_] = probability
        rejected[open_[~kept]] = DRAW.key
    return Decisions(rejected, duplicate_of, size, keep_prob)


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


def _duplicates(clips: pa.Table, ids: np.ndarray, rejected: np.ndarray, recipe: Recipe) -> np.ndarray:
    """The best clip still open in each copy group stays; the others are its duplicates."""
    duplicate_of = np.full(len(ids), None, dtype=object)
    if recipe.content.copy_threshold is None:
        return duplicate_of
    open_ = np.flatnonzero(_open(rejected))
    groups = pc.coalesce(clips["copy_group"], clips["clip_id"]).to_numpy(zero_copy_only=False).astype(str)[open_]
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    shared = counts[group] > 1
    open_, group, groups = open_[shared], group[shared], groups[shared]
    if not len(open_):
        return duplicate_of
    rank = quality_rank(clips)[open_]
    leads = groups == ids[open_]  # the group's own leader first: every other member is close to it
    order = np.lexsort((ids[open_], -rank, ~leads, group))
    first = np.concatenate([[True], group[order][1:] != group[order][:-1]])
    best = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    for place in np.flatnonzero(~first):
        row = open_[order[place]]
        duplicate_of[row] = ids[open_[order[best[place]]]]
        rejected[row] = COPIES.key
    return duplicate_of


def curriculum(clips: pa.Table, recipe: Recipe) -> tuple[dict[str, np.ndarray], np.ndarray, list[str]]:
    """Set name -> bool [N], bucket of every kept clip (object [N]), and sentences about quotas that could not be met.

    clips: the final table's rows, with kept and media. Only clips that are kept and cut are in a set.
    """
    ready = rules.column(clips, "kept") == 1
    ready &= ~np.asarray(clips["media"].is_null())
    kept = rules.column(clips, "kept") == 1
    width, height = rules.column(clips, "width"), rules.column(clips, "height")
    bucket = np.full(clips.num_rows, None, dtype=object)
    bucket[kept] = buckets(width[kept], height[kept], rules.column(clips, "duration_s")[kept])
    rows = np.flatnonzero(ready)
    ids = clips["clip_id"].to_numpy(zero_copy_only=False).astype(str)[rows]
    sources = clips["source_id"].to_numpy(zero_copy_only=False).astype(str)[rows]
    held, sentence = (
        validation_sources(list(sources), recipe.curriculum.validation, recipe.content.seed)
        if len(rows)
        else (set(), None)
    )
    warnings = [sentence] if sentence else []
    out = np.isin(sources, sorted(held)) if held else np.zeros(len(rows), bool)
    if len(out) and out.mean() > VALIDATION_FAR * recipe.curriculum.validation:
        warnings.append(
            f"validation holds {int(out.sum())} of {len(out)} clips ({out.mean():.0%}, "
            f"{recipe.curriculum.validation:.0%} asked for): whole sources are held out, and there are few."
        )
    train = rows[~out]
    people = rules.column(clips, "human_score")[train] >= recipe.content.people_min
    table = clips.take(pa.array(train))
    specs = [
        SetSpec(name, rules.passes_set(table, recipe, name), spec.landscape, spec.people)
        for name, spec in recipe.curriculum.sets.items()
    ]
    nested = nested_sets(ids[~out], (width >= height)[train], people, specs, recipe.content.seed)
    warnings += [f"{name}: {note}." for name, note in nested.notes.items()]
    masks: dict[str, np.ndarray] = {}
    for name, members in nested.masks.items():
        masks[name] = np.zeros(clips.num_rows, bool)
        masks[name][train[members]] = True
    masks[VALIDATION] = np.zeros(clips.num_rows, bool)
    masks[VALIDATION][rows[out]] = True
    return masks, bucket, warnings


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
    columns = {column: chosen[column] for column in ("clip_id", "source_id", "media", "fps", "bucket")}
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
