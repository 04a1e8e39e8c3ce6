"""CURRICULUM and publication: sets over all shards, the final tables' files, the commit record."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rules, storage
from rushes.curation import sets as training_sets
from rushes.curation.content.arrays import Mapper
from rushes.curation.decide import set_table
from rushes.curation.manifest import Run, Snapshot, TableFiles
from rushes.curation.recipe import Recipe
from rushes.curation.sets import VALIDATION, Sets
from rushes.curation.signals import CAPTION_FAILED, CUT_FAILED, LOOK_FAILED, STATUSES
from rushes.curation.storage import join
from rushes.curation.table import in_schema, with_column
from rushes.pipelines.stages.job import Job
from rushes.pipelines.stages.records import key_of, record_versions

VALIDATION_RESOLUTION = 256  # pixels; the validation set is read at the smallest stage's size


@dataclass(frozen=True)
class Tables:
    """What is published, by table, and the funnel's counts."""

    files: dict[str, TableFiles]
    rejected: Counter[str]
    clips: int
    kept: int
    looked: dict[str, int]  # clips that models were asked for, and those at which they failed
    notes: list[str]


@dataclass(frozen=True)
class _Shard:
    number: int
    rows: dict[str, int]
    rejected: dict[str, int]
    kept: int
    looked: dict[str, int]


def write_tables(made: list[str], snapshot: Snapshot, recipe: Recipe, mapper: Mapper) -> Tables:
    """Clips and sets of a snapshot, a file for each shard. made: final rows without sets, a file for each shard."""
    sets = training_sets.solve(storage.read_table, made, recipe, mapper)
    write = partial(_write_shard, snapshot=snapshot, recipe=recipe, sets=sets)
    shards = list(mapper(write, list(enumerate(made))))
    names = ["clips", *(f"sets/{name}" for name in [*recipe.curriculum.sets, VALIDATION])]
    files = {}
    for name in names:
        listed = [shard for shard in shards if shard.rows.get(name)] or shards[:1]
        files[name] = TableFiles(
            tuple(snapshot.file(name, shard.number) for shard in listed), tuple(shard.rows[name] for shard in listed)
        )
    rejected = sum((Counter(shard.rejected) for shard in shards), Counter())
    clips = sum(shard.rows["clips"] for shard in shards)
    looked = {name: sum(shard.looked[name] for shard in shards) for name in ("clips", "failed")}
    return Tables(files, rejected, clips, sum(shard.kept for shard in shards), looked, list(sets.notes))


def _write_shard(task: tuple[int, str], snapshot: Snapshot, recipe: Recipe, sets: Sets) -> _Shard:
    """In a worker: a shard's part of the clips and of every set. Files without rows are written for the first alone."""
    number, made = task
    clips = storage.read_table(made)
    masks, bucket = training_sets.members(clips, sets, recipe)
    clips = with_column(clips, "bucket", pa.array(bucket, pa.string()))
    names = list(masks)
    member = np.stack([masks[name] for name in names], axis=1)
    flat = np.array(names, dtype=object)[np.nonzero(member)[1]]
    offsets = np.concatenate([[0], np.cumsum(member.sum(axis=1))]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.string()))
    clips = with_column(clips, "sets", lists)
    clips = in_schema(clips, manifest.CLIPS)
    rows = {"clips": clips.num_rows}
    _write(snapshot, "clips", number, clips, storage.ROWS_PER_GROUP)
    sizes = {name: spec.resolution for name, spec in recipe.curriculum.sets.items()}
    for name, mask in masks.items():
        table = set_table(clips, mask, name, sizes.get(name, VALIDATION_RESOLUTION))
        rows[f"sets/{name}"] = table.num_rows
        if table.num_rows or number == 0:
            _write(snapshot, f"sets/{name}", number, table, manifest.SET_ROWS_PER_GROUP)
    counts = {row["values"]: row["counts"] for row in pc.value_counts(clips["rejected_by"]).to_pylist()}
    counts.pop(None, None)
    asked = clips["looked"]
    looked = {"clips": len(asked) - asked.null_count, "failed": pc.sum(pc.invert(asked)).as_py() or 0}
    return _Shard(number, rows, counts, pc.sum(clips["kept"]).as_py() or 0, looked)


def _write(snapshot: Snapshot, name: str, number: int, table: pa.Table, per_group: int) -> None:
    storage.write_table(join(snapshot.root, snapshot.file(name, number)), table, per_group)


def listed(files: list[str], root: str) -> TableFiles:
    """Files that lie below the run as a table."""
    rows = []
    for uri in files:
        with storage.opened_table(uri) as parquet:
            rows.append(parquet.metadata.num_rows)
    prefix = root.rstrip("/") + "/"
    return TableFiles(tuple(uri.removeprefix(prefix) for uri in files), tuple(rows))


# ---- what is published already ---------------------------------------------------------------------------------------


def finished(job: Job) -> Run | None:
    """The published run, where it was made of these clips by this recipe, nothing failed for reasons that may be over,
    and all its media are there in their full size; else None.
    """
    if job.inputs.failed or job.unlooked or not storage.exists(join(job.root, "run.json")):
        return None
    run = manifest.open_run(job.root)
    rejected = {row["rule"]: row["rejected"] for row in run.record.get("funnel", {}).get("clips", [])}
    failed = any(rejected.get(rule.key) for rule in (LOOK_FAILED, CUT_FAILED, CAPTION_FAILED))
    if failed or run.record.get("made_from") != made_from(job):
        return None
    whole = all(job.pool.map(partial(_media_whole, root=job.root), run.files("clips")))
    return run if whole else None


def made_from(job: Job) -> str:
    return key_of(job.recipe.full_hash(), job.keys, job.shards, job.sources)


def _media_whole(clips: str, root: str) -> bool:
    table = storage.read_table(clips, ["kept", "media", "media_bytes"])
    return all(storage.size(join(root, row["media"])) == row["media_bytes"] for row in table.to_pylist() if row["kept"])


# ---- the commit record -----------------------------------------------------------------------------------------------


def parts_of(recipe: Recipe) -> dict[str, str]:
    return {part: recipe.part_hash(part) for part in ("observe", "measure", "look", "content", "cut", "caption")}


def commit_record(
    recipe: Recipe, sources: dict[str, Any], tables: Tables, warnings: list[str], footage_s: float
) -> dict[str, Any]:
    """sources: inputs by status."""
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": {"name": recipe.name, "hash": recipe.full_hash(), "parts": parts_of(recipe),
                   "resolved": recipe.model_dump(mode="json")},
        "versions": record_versions(),
        "footage_s": round(footage_s, 3),
        "funnel": {
            "sources": sources,
            "clips": rules.funnel_rows(dict(tables.rejected), tables.clips, recipe),
            "sets": {name.removeprefix("sets/"): sum(files.rows) for name, files in tables.files.items()
                     if name.startswith("sets/")},
        },
        "warnings": warnings,
    }  # fmt: skip


def source_summary(files: list[str]) -> tuple[dict[str, int], float]:
    """(inputs by status, seconds of footage) of the `sources` table's files."""
    counts, seconds = Counter(), 0.0
    for uri in files:
        table = storage.read_table(uri, ["status", "duration_s"])
        counts.update(table["status"].to_pylist())
        seconds += pc.sum(table["duration_s"]).as_py() or 0.0
    return {"inputs": counts.total(), **{status: counts.get(status, 0) for status in STATUSES}}, seconds
