"""What is cut of kept clips, and where. Rows stay in files by shard; leases name row groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import rescue, storage
from rushes.curation.captioning import Caption, ComposedCaptioner
from rushes.curation.recipe import Recipe
from rushes.curation.signals import CUT_FAILED
from rushes.curation.storage import DamagedFile, join
from rushes.curation.table import left_join, reject, with_column
from rushes.curation.video.cut import CutClip, Cutter, crop_of, media_name
from rushes.curation.video.source import Source, fingerprint
from rushes.pipelines.engine.pool import Failure
from rushes.pipelines.stages.items import CutLease
from rushes.pipelines.stages.job import Job
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.stages.records import key_of

CUT = "cutting kept clips"
LEASES_PER_WORKER = 16  # cutting is divided at least so finely, so that workers end together
LEASE_S = 300.0  # footage cut in one lease at most, seconds, but for the clips of one source in an object store
CLIP_COLUMNS = ["clip_id", "source_id", "uri", "start_s", "end_s", "frames", "fps", "duration_s", *rescue.COLUMNS]
CUTS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("media", pa.string()),
        ("media_bytes", pa.int64()),
        ("media_hash", pa.string()),
        ("error", pa.string()),
    ]
)


# ---- cut -------------------------------------------------------------------------------------------------------------


def cut(job: Job) -> None:
    """Cut what was kept; a clip that cannot be cut is rejected by `cut.failed`, with the reason in its notes."""
    seconds = sum(job.pool.map(_kept_seconds, job.decided))
    each = min(LEASE_S, max(seconds, 1.0) / (job.pool.workers() * LEASES_PER_WORKER))
    tasks = list(zip(job.decided, job.sources, strict=True))
    planned = list(job.pool.map(partial(_plan_cuts, each_s=each), tasks))
    leases = [lease for of_shard in planned for lease in of_shard]
    stage = job.bus.stage(CUT, sum(lease.clips for lease in leases), "clips", seconds)
    for number, lease in enumerate(leases):
        job.pool.submit("cut", str(number), lease, order=(-lease.seconds,),
                        timeout_s=job.timeout_s(lease.seconds, lease.clips))  # fmt: skip
    lost: dict[tuple[str, int, int | None], str] = {}  # leases that were divided or given up, and why
    for task, result in job.pool.completed():
        lease: CutLease = task.args[0]
        if isinstance(result, Failure):
            lost[lease.plan, lease.group, lease.only] = result.reason
            if lease.only is None:  # its clips are tried one by one
                for place in range(lease.clips):
                    one = CutLease(lease.plan, lease.group, 1, lease.seconds / lease.clips, place)
                    job.pool.submit("cut", f"{task.key}.{place}", one, timeout_s=job.timeout_s(one.seconds))
                continue
            stage.error("cut")
        else:
            stage.error("cut", result)
        stage.step(lease.clips, lease.seconds)
    stage.end()
    job.made = [path.replace("/decided/", "/made/") for path in job.decided]
    merged = [(*files, of_shard) for *files, of_shard in zip(job.decided, job.made, planned, strict=True)]
    for _ in job.pool.map(partial(_with_media, recipe=job.recipe, root=job.root, lost=lost), merged):
        pass


def _kept_seconds(decided: str) -> float:
    table = storage.read_table(decided, ["kept", "duration_s"])
    return pc.sum(table.filter(table["kept"])["duration_s"]).as_py() or 0.0


def plan_of(decided: str) -> str:
    return decided.replace("/decided/", "/plans/")


def _plan_cuts(task: tuple[str, str], each_s: float) -> list[CutLease]:
    """Kept clips of a shard in leases: a row group each, with what cutting needs to know of their sources."""
    decided, sources = task
    table = storage.read_table(decided, [*CLIP_COLUMNS, "kept"])
    table = table.filter(table["kept"]).select(CLIP_COLUMNS)
    facts = storage.read_table(sources, ["uri", "interlaced", "rotation", "first_pts_s", "hdr"])
    table = left_join(table, facts, "uri").sort_by([("uri", "ascending"), ("start_s", "ascending")])
    found: list[CutLease] = []

    def groups() -> Iterator[pa.Table]:
        for first, stop, seconds in _spans(table, each_s):
            found.append(CutLease(plan_of(decided), len(found), stop - first, seconds))
            yield table.slice(first, stop - first)

    storage.write_batches(plan_of(decided), table.schema, groups())
    return found


def _spans(table: pa.Table, each_s: float) -> Iterator[tuple[int, int, float]]:
    """(first row, stop, seconds) of leases: clips next to each other; those of one remote source stay together."""
    uris, lengths = table["uri"].to_pylist(), table["duration_s"].to_pylist()
    first, seconds = 0, 0.0
    for row, (uri, length) in enumerate(zip(uris, lengths, strict=True)):
        together = "://" in uri and row > first and uris[row - 1] == uri
        if row > first and seconds + length > each_s and not together:
            yield first, row, seconds
            first, seconds = row, 0.0
        seconds += length
    if len(uris) > first:
        yield first, len(uris), seconds


def cut_lease(recipe: Recipe, root: str, lease: CutLease) -> int:
    """In a worker: cut a lease's clips and record what became of them; how many could not be cut.

    What an earlier record says is there, and has its size, is not cut again.
    """
    rows, key = lease_rows(lease), Keys.of(recipe).cut
    uri = _cut_record(root, key, rows)
    known = _whole(root, uri)
    cutter, found = Cutter(recipe.cut, key, root), []
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_source.setdefault(row["uri"], []).append(row)
    for address, clips in by_source.items():
        todo = [clip for clip in clips if clip["clip_id"] not in known]
        made: dict[str, CutClip | str] = _cut_source(cutter, address, todo) if todo else {}
        for clip in clips:
            entry = known.get(clip["clip_id"]) or _cut_row(clip["clip_id"], made[clip["clip_id"]])
            found.append(entry)
    storage.write_table(uri, pa.Table.from_pylist(found, CUTS))
    return sum(entry["error"] is not None for entry in found)


def _cut_source(cutter: Cutter, uri: str, clips: list[dict[str, Any]]) -> dict[str, CutClip | str]:
    first = clips[0]
    source = Source(uri, first["source_id"], interlaced=first["interlaced"], rotation=first["rotation"],
                    first_pts_s=first["first_pts_s"], hdr=first["hdr"])  # fmt: skip
    try:
        if fingerprint(uri) != source.source_id:
            return dict.fromkeys((c["clip_id"] for c in clips), "the file was replaced since it was observed")
    except OSError as error:
        return dict.fromkeys((c["clip_id"] for c in clips), f"the source cannot be read any more: {error}")
    return cutter(source, clips)


def _cut_row(clip_id: str, made: CutClip | str) -> dict[str, Any]:
    if isinstance(made, str):
        return {"clip_id": clip_id, "error": made}
    seal = {"media_bytes": made.media_bytes, "media_hash": made.media_hash}
    return {"clip_id": clip_id, "media": made.media, **seal, "error": None}


def lease_rows(lease: CutLease) -> list[dict[str, Any]]:
    with storage.opened_table(lease.plan) as parquet:
        rows = parquet.read_row_group(lease.group).to_pylist()
    return rows if lease.only is None else [rows[lease.only]]


def _cut_record(root: str, key: str, rows: list[dict[str, Any]]) -> str:
    names = [media_name(row["clip_id"], crop_of(row)) for row in rows]
    return join(root, "work", "cut", key, f"{key_of(names)}.parquet")


def _whole(root: str, record: str) -> dict[str, dict[str, Any]]:
    """Rows of an earlier record whose media are there in their full size."""
    try:
        rows = storage.read_table(record).to_pylist()
    except FileNotFoundError:
        return {}
    except DamagedFile:
        storage.delete(record)
        return {}
    made = [row for row in rows if row["media"]]
    return {row["clip_id"]: row for row in made if storage.size(join(root, row["media"])) == row["media_bytes"]}


def _with_media(
    task: tuple[str, str, list[CutLease]], recipe: Recipe, root: str, lost: dict[tuple[str, int, int | None], str]
) -> None:
    """In a worker: a shard's rows with their media, and with captions where these are composed."""
    decided, made, leases = task
    key, cuts = Keys.of(recipe).cut, []
    for lease in leases:
        rows = lease_rows(lease)
        if (lease.plan, lease.group, None) not in lost:
            cuts += storage.read_table(_cut_record(root, key, rows)).to_pylist()
            continue
        for place, row in enumerate(rows):
            reason = lost.get((lease.plan, lease.group, place))
            if reason is None:
                cuts += storage.read_table(_cut_record(root, key, [row])).to_pylist()
            else:
                cuts.append({"clip_id": row["clip_id"], "error": reason})
    table = left_join(storage.read_table(decided), pa.Table.from_pylist(cuts, CUTS).drop_columns(["error"]))
    failed = {row["clip_id"]: row["error"] for row in cuts if row["error"] is not None}
    table = reject(table, failed, CUT_FAILED)
    if recipe.captioning.provider == "composed":
        table = with_captions(table, ComposedCaptioner()(table.filter(table["kept"]).to_pylist()))
    storage.write_table(made, table)


def with_captions(clips: pa.Table, captions: Iterable[Caption]) -> pa.Table:
    """Columns caption, caption_model, caption_words."""
    by_id = {caption.clip_id: caption for caption in captions if caption.text is not None}
    found = [by_id.get(clip_id) for clip_id in clips["clip_id"].to_pylist()]
    clips = with_column(clips, "caption", pa.array([c and c.text for c in found], pa.string()))
    clips = with_column(clips, "caption_model", pa.array([c and c.model for c in found], pa.string()))
    return with_column(clips, "caption_words", pa.array([c and len(c.text.split()) for c in found], pa.int32()))
