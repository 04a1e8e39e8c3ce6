"""From records to decisions: shards of clips, what content measures over all of them, and who is kept.

A shard is the clips of some thousand sources next to each other: a file of their rows, and one of their vectors. Global
steps are small reductions over shards; each shard's rows are read, decided and written by a worker.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rescue, storage
from rushes.curation.content.groups import measure
from rushes.curation.decide import Decisions, Global, decide, solve
from rushes.curation.looking.clip import tower_of
from rushes.curation.looking.registry import gpu_share
from rushes.curation.looking.vocabulary import phrases, vocabulary
from rushes.curation.recipe import Recipe
from rushes.curation.storage import join
from rushes.curation.table import left_join, with_column
from rushes.curation.video.source import Source
from rushes.pipelines.engine.pool import LOOK
from rushes.pipelines.stages.items import parts_of
from rushes.pipelines.stages.job import Job
from rushes.pipelines.stages.probing import probed_rows
from rushes.pipelines.stages.records import facts_of, key_of

SHARD_CLIPS = 50_000  # clips of a shard, about: 250 MB of rows and vectors
CLIP_S = 6.0  # footage of a clip, for guessing how many there are before they are read, seconds
VECTORS = ["clip_id", "semantic", "copy"]
CONTENT, DECIDE = "content", "decisions"


@dataclass(frozen=True)
class ShardPlan:
    """Inputs next to each other whose clips make a shard.

    inputs: records that probed them, with the number of the first input of each; same: of an input, the address of the
    one with the same content; failed: sentences; records: of the clips of each input that was looked at.
    """

    clips: str
    vectors: str
    sources: str
    inputs: tuple[tuple[str, int], ...]
    same: dict[int, str]
    failed: dict[int, str]
    records: dict[int, tuple[str, ...]]


def gather(job: Job) -> None:
    """Records to shards, and rows of `sources`; a shard that is there already is not made again."""
    plans = list(_shard_plans(job))
    job.shards, job.vectors = [plan.clips for plan in plans], [plan.vectors for plan in plans]
    job.sources = [plan.sources for plan in plans]
    missing = [plan for plan in plans if not storage.exists(plan.clips)]
    for _ in job.pool.map(partial(_gather, recipe=job.recipe), missing):
        pass


def _shard_plans(job: Job) -> list[ShardPlan]:
    inputs, plans = job.inputs, []
    begin, expected = 0, 0.0
    for lease in range(len(inputs.records)):
        first, stop = inputs.first[lease], inputs.first[lease + 1]
        expected += float((inputs.seconds[first:stop] / CLIP_S + 1)[inputs.ok[first:stop]].sum())
        if expected >= SHARD_CLIPS or lease == len(inputs.records) - 1:
            plans.append(_shard_plan(job, begin, lease + 1))
            begin, expected = lease + 1, 0.0
    return plans


def _shard_plan(job: Job, begin: int, end: int) -> ShardPlan:
    inputs = job.inputs
    first, stop = inputs.first[begin], inputs.first[end]
    numbers = range(first, stop)
    same = {n: inputs.uris[int(inputs.first_of[n])].as_py() for n in numbers if inputs.first_of[n] >= 0}
    failed = {n: inputs.failed[n] for n in numbers if n in inputs.failed}
    records = {n: tuple(job.looked.of(n)) for n in numbers if inputs.ok[n] and n not in failed}
    name = key_of(job.keys.looked, inputs.records[begin:end], same, failed, records)
    folder = job.work("shards", job.keys.look)
    clips, vectors, sources = (join(folder, f"{name}{kind}.parquet") for kind in ("", ".vectors", ".sources"))
    listed = tuple(zip(inputs.records[begin:end], inputs.first[begin:end], strict=True))
    return ShardPlan(clips, vectors, sources, listed, same, failed, records)


def _gather(plan: ShardPlan, recipe: Recipe) -> None:
    """In a worker: the clips of a shard, by source and time, and its sources' rows."""
    wanted = sorted({uri for records in plan.records.values() for uri in records})
    facts: dict[str, dict[str, Any]] = {}
    tables: dict[str, pa.Table] = {}
    for uri in wanted:
        footer = facts_of(uri)
        facts |= {**footer["items"], **footer["passing"]}
        tables[uri] = storage.read_table(uri)
    sources, rows, kept = [], [], []
    for record, first in plan.inputs:
        for place, row in enumerate(probed_rows(record)):
            number, source = first + place, Source(**row)
            items = parts_of(source) if number in plan.records else []
            for item, uri in zip(items, plan.records.get(number, ()), strict=True):
                kept.append((uri, item.key, source.uri))
            sources.append(_source_row(source, number, plan, [facts[item.key] for item in items]))
    for uri, table in tables.items():
        mine = {key: name for of, key, name in kept if of == uri}
        chosen = table.filter(pc.is_in(table["item"], pa.array(list(mine), pa.string())))
        names = pa.array([mine[key] for key in chosen["item"].to_pylist()], pa.string())
        rows.append(with_column(chosen.drop_columns(["item"]), "uri", names))  # a file may have another name today
    clips = pa.concat_tables(rows) if rows else _no_clips(recipe)
    clips = clips.sort_by([("uri", "ascending"), ("start_s", "ascending")]).combine_chunks()
    counts = Counter(clips["source_id"].to_pylist())
    table = pa.Table.from_pylist(sources, manifest.SOURCES)
    clip_counts = [counts.get(row["source_id"], 0) if row["status"] != "duplicate" else 0 for row in sources]
    storage.write_table(plan.sources, with_column(table, "clips", pa.array(clip_counts, pa.int32())))
    seen = clips.select(VECTORS).filter(pc.or_(pc.is_valid(clips["semantic"]), pc.is_valid(clips["copy"])))
    storage.write_table(plan.vectors, seen)
    storage.write_table(plan.clips, clips.drop_columns(VECTORS[1:]))


def _source_row(source: Source, number: int, plan: ShardPlan, facts: list[dict[str, Any]]) -> dict[str, Any]:
    if number in plan.same:
        return {**source.row(), "status": "duplicate", "error": f"the same content as {plan.same[number]}"}
    if number in plan.failed:
        return source.failed(plan.failed[number]).row()
    return {**facts[0], "uri": source.uri} if facts else source.row()


def _no_clips(recipe: Recipe) -> pa.Table:
    from rushes.curation.look import Looker
    from rushes.pipelines.stages.worker import look_schema

    return look_schema(recipe, Looker(recipe)).empty_table().drop_columns(["item"])


# ---- content and decisions -------------------------------------------------------------------------------------------


def measure_content(job: Job) -> None:
    """Copy groups and concepts over all shards (curation.content)."""
    stage = job.bus.stage(CONTENT, job.survivors, "clips")
    job.groups = measure(job.vectors, job.work("content", job.keys.content), job.recipe, job.pool.map)
    if job.recipe.models.semantic == "clip":
        job.vocabulary = job.work("vocabulary", f"{job.recipe.part_hash('look')}-{key_of(phrases())}.parquet")
        missing = [job.vocabulary] if not storage.exists(job.vocabulary) else []
        list(job.pool.map(partial(_write_vocabulary, recipe=job.recipe), missing, job.pool.kind(LOOK)))
    stage.step(job.survivors)
    stage.end()


def _write_vocabulary(file: str, recipe: Recipe) -> None:
    """In a worker: words and their vectors, by the model that made the clips' semantic vectors."""
    storage.write_table(file, vocabulary(tower_of(recipe, "cuda" if gpu_share(recipe) else "cpu")))


@dataclass(frozen=True)
class Decided:
    """Of a shard: clips, those kept, and how many each rule rejected."""

    clips: int
    kept: int
    rejected: dict[str, int]


def decide_all(job: Job) -> None:
    """Rules, one clip of each group of copies, sampling: a file of decisions for every shard."""
    stage = job.bus.stage(DECIDE, len(job.shards), "shards")
    pairs = list(zip(job.shards, job.groups, strict=True))
    chosen = solve(shard_rows, pairs, job.recipe, job.pool.map)
    job.warnings += chosen.notes
    folder = job.work("decided", key_of(job.recipe.full_hash(), job.shards, job.groups))
    job.decided = [join(folder, f"{number:05d}.parquet") for number in range(len(pairs))]
    tasks = list(zip(pairs, job.decided, strict=True))
    for decided in job.pool.map(partial(_decide, recipe=job.recipe, chosen=chosen), tasks):
        stage.reject(decided.rejected)
        stage.step(1)
    stage.end()


def shard_rows(pair: tuple[str, str | None]) -> pa.Table:
    """A shard's rows, with what content measured beside them."""
    shard, groups = pair
    table = storage.read_table(shard)
    return table if groups is None else left_join(table, storage.read_table(groups))


def _decide(task: tuple[tuple[str, str | None], str], recipe: Recipe, chosen: Global) -> Decided:
    pair, out = task
    clips = shard_rows(pair)
    table = with_decisions(clips, decide(clips, chosen, recipe), recipe)
    storage.write_table(out, table)
    return told(table)


def told(table: pa.Table) -> Decided:
    counts = {row["values"]: row["counts"] for row in pc.value_counts(table["rejected_by"]).to_pylist()}
    counts.pop(None, None)
    return Decided(table.num_rows, pc.sum(table["kept"]).as_py() or 0, counts)


def with_decisions(clips: pa.Table, decisions: Decisions, recipe: Recipe) -> pa.Table:
    """Columns kept, rejected_by, duplicate_of, cluster_size, keep_prob; those of the crop, and its orientation."""
    clips = rescue.with_crops(clips, recipe)
    wide = pa.array(np.greater_equal(*rescue.size(clips)))
    clips = with_column(clips, "orientation", pc.if_else(wide, "landscape", "portrait"))
    clips = with_column(clips, "kept", pa.array(decisions.kept, pa.bool_()))
    clips = with_column(clips, "rejected_by", pa.array(decisions.rejected_by, pa.string()))
    clips = with_column(clips, "duplicate_of", pa.array(decisions.duplicate_of, pa.string()))
    sizes = pa.array(decisions.cluster_size, mask=np.isnan(decisions.cluster_size)).cast(pa.int64())
    clips = with_column(clips, "cluster_size", sizes)
    probability = pa.array(decisions.keep_prob.astype(np.float32), mask=np.isnan(decisions.keep_prob))
    return with_column(clips, "keep_prob", probability)
