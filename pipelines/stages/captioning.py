"""CAPTIONING on the cluster: which clips are still to be asked, which servers answer, what is written down.

Two ways in, one path. By endpoint, the recipe names OpenAI-compatible servers. In the cluster, Ray places `vllm serve`
on its GPUs (pipelines/vllm_server.py) and the same client speaks to those: the same prompts, the same checks, the same
account of every answer, and vLLM keeps an environment of its own.

Requests are made by the workers of the run's pool, thousands of clips in one task: within a task the servers are kept
full all the time (a fixed number of requests in flight, no batches that wait for their slowest). Answers are written
down sixteen at a time or every two seconds, so a killed run asks again only for what was in flight.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

import pyarrow as pa

from rushes.curation import storage
from rushes.curation.captioning import Caption, Servers
from rushes.curation.captioning.prompt import load_template
from rushes.curation.recipe import Recipe
from rushes.curation.signals import CAPTION_FAILED
from rushes.curation.storage import join
from rushes.curation.table import reject
from rushes.curation.tracks import stills_of
from rushes.pipelines.engine.events import Event
from rushes.pipelines.engine.pool import Failure
from rushes.pipelines.stages.items import CaptionLease
from rushes.pipelines.stages.job import Job
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.stages.making import with_captions
from rushes.pipelines.stages.records import Index, Ledger, by_source, read_observed

CAPTION = "captioning"
CLIPS_PER_LEASE = 2000  # the tail of a lease, where requests run out, is then below two per cent of it
LEASE_S = 30 * 24 * 3600.0  # every request has its time-out: a lease of captions needs none of its own
ROW_COLUMNS = ["clip_id", "source_id", "start_s", "end_s", "duration_s", "media"]
CAPTIONS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("text", pa.string()),
        ("model", pa.string()),
        ("error", pa.string()),
        ("seed", pa.int64()),
        ("tokens_in", pa.int64()),
        ("tokens_out", pa.int64()),
        ("lasting", pa.bool_()),
    ]
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Captioned:
    """Of a lease: clips that got no caption, and tokens that models wrote."""

    failed: int
    tokens: int


def check(recipe: Recipe) -> None:
    """Say before any work what would fail after it: RecipeError where the recipe's captioners cannot work."""
    captioning = recipe.captioning
    if captioning.provider == "composed":
        return
    from rushes.curation.captioning.preflight import key_of, preflight

    template, key = load_template(captioning.prompt), key_of(captioning)
    if captioning.provider == "endpoint":
        preflight(captioning, captioning.endpoints, template, key)
    else:
        from rushes.pipelines.stages.vllm_server import check as check_vllm

        check_vllm(captioning, local=recipe.engine.address is None)


def caption(job: Job) -> None:
    """A caption for every clip that was cut; one that gets none is rejected by `captioning.failed`.

    Raises RecipeError or StopRun (no server); what was answered by then is recorded.
    """
    if job.recipe.captioning.provider == "composed":  # written beside the media, by the same step
        return
    known = job.work("caption", f"{_key(job.recipe)}.index")
    ledger_of(job.recipe, job.root).index().save(known)
    shards = list(job.pool.map(partial(_plan, known=known), job.made))
    found = [lease for leases, _ in shards for lease in leases]
    stage = job.bus.stage(CAPTION, sum(count for _, count in shards), "clips")
    stage.step(stage.total - sum(lease.clips for lease in found))
    lost: dict[tuple[str, int], str] = {}
    tokens = 0
    if found:
        with serving(job.recipe) as (servers, key):
            most = job.recipe.captioning.concurrency
            each = -(-most // min(job.pool.workers(), len(found)))
            for lease in found:
                job.pool.submit("caption", f"{lease.plan}#{lease.group}", lease, servers, key, each, timeout_s=LEASE_S)
            for task, result in job.pool.completed():
                lease = task.args[0]
                if isinstance(result, Failure):
                    lost[lease.plan, lease.group] = result.reason
                    stage.error("caption", lease.clips)
                else:
                    stage.error("caption", result.failed)
                    tokens += result.tokens
                stage.step(lease.clips)
                job.bus.emit(Event("load", data={"caption_tokens": tokens}))
    ledger_of(job.recipe, job.root).index(passing=True).save(known)
    why = "; ".join(dict.fromkeys(lost.values())) or "the captioner gave no answer"
    for _ in job.pool.map(partial(_with_captions, known=known, why=why), job.made):
        pass
    stage.end()


def _key(recipe: Recipe) -> str:
    """What decides a caption: the recipe's part, the prompt's wording, where frames come from."""
    captioning, keys = recipe.captioning, Keys.of(recipe)
    frames = keys.cut if captioning.frames_from == "media" else ""
    return f"{keys.observe}{frames}-{recipe.part_hash('caption')}-{load_template(captioning.prompt).key}"


def ledger_of(recipe: Recipe, root: str) -> Ledger:
    """Records of captions that this recipe asks for."""
    return Ledger(root, "caption", _key(recipe))


def _plan(made: str, known: str) -> tuple[list[CaptionLease], int]:
    """Clips of a shard that are to be asked for, a row group a lease; and how many clips have or get captions."""
    table = storage.read_table(made, [*ROW_COLUMNS, "kept"])
    table = table.filter(table["kept"]).select(ROW_COLUMNS)
    places = Index.load(known).find(table["clip_id"].to_pylist())
    todo = table.filter(pa.array([place is None for place in places], pa.bool_()))
    plan = made.replace("/made/", "/captions/")
    parts = [todo.slice(start, CLIPS_PER_LEASE) for start in range(0, len(todo), CLIPS_PER_LEASE)]
    storage.write_batches(plan, todo.schema, parts)
    return [CaptionLease(plan, group, len(part)) for group, part in enumerate(parts)], len(table)


def caption_lease(
    recipe: Recipe, root: str, lease: CaptionLease, servers: Servers, key: str | None, concurrency: int
) -> Captioned:
    """In a worker: captions of a lease, each recorded soon after it came. Raises ServersDown."""
    from rushes.curation.captioning.vision import VisionCaptioner

    with storage.opened_table(lease.plan) as parquet:
        rows = parquet.read_row_group(lease.group).to_pylist()
    ledger, done, parts = ledger_of(recipe, root), {}, []
    before = ledger.index().find([row["clip_id"] for row in rows])  # by a worker that died before us
    rows = [row for row, place in zip(rows, before, strict=True) if place is None]

    def record(captions: list[Caption]) -> None:
        parts.append(write(ledger, captions))
        done.update({caption.clip_id: caption for caption in captions})

    captioner = VisionCaptioner(recipe.captioning, servers, key, concurrency)
    captioner.run(rows, lambda row: frames_of(recipe, root, row), record)
    if len(parts) > 1:  # one record in place of many; a kill in between leaves both, which say the same
        write(ledger, list(done.values()))
        for part in parts:
            storage.delete(part)
    failed = sum(caption.text is None for caption in done.values())
    return Captioned(failed, sum(caption.tokens_out or 0 for caption in done.values()))


def write(ledger: Ledger, captions: list[Caption]) -> str:
    """Record a batch; its address."""
    table = pa.Table.from_pylist([asdict(caption) for caption in captions], CAPTIONS)
    lasting = {caption.clip_id: None for caption in captions if caption.lasting}
    passing = {caption.clip_id: caption.error for caption in captions if not caption.lasting}
    return ledger.write(lasting, CAPTIONS, [table], passing)


def _with_captions(made: str, known: str, why: str) -> None:
    """In a worker: a shard's rows with their captions, from the records."""
    table = storage.read_table(made)
    wanted = table.filter(table["kept"])["clip_id"].to_pylist()
    captions = recorded(Index.load(known), wanted)
    failed = {i: (captions[i].error or "no caption") if i in captions else why for i in wanted
              if i not in captions or captions[i].text is None}  # fmt: skip
    table = with_captions(table, (captions[i] for i in wanted if i in captions))
    storage.write_table(made, reject(table, failed, CAPTION_FAILED))


def recorded(index: Index, ids: list[str]) -> dict[str, Caption]:
    """What is recorded of these clips."""
    places = dict(zip(ids, index.find(ids), strict=True))
    found: dict[str, Caption] = {}
    for uri in dict.fromkeys(place for place in places.values() if place is not None):
        rows = (row for row in storage.read_table(uri).to_pylist() if places.get(row["clip_id"]) == uri)
        found |= {row["clip_id"]: Caption(**row) for row in rows}
    return found


@cache
def _observed(root: str, key: str) -> dict[str, list[str]]:
    return by_source(Ledger(root, "observe", key))


def frames_of(recipe: Recipe, root: str, row: Row) -> list[bytes]:
    """The JPEG frames of a clip that a model is shown. Raises FrameError."""
    from rushes.curation.captioning.frames import FrameError, from_media, from_stills

    captioning = recipe.captioning
    if captioning.frames_from == "stills":
        observed = _observed(root, Keys.of(recipe).observe).get(row["source_id"], [])
        table, span = read_observed(observed, row["source_id"]), (row["start_s"], row["end_s"])
        (stills,) = stills_of(table, row["source_id"], [span], recipe.visual.stills_max)
        return from_stills(stills, captioning.frames, captioning.side)
    if row["media"] is None:
        raise FrameError("the clip was not cut")
    return from_media(join(root, row["media"]), captioning.frames, captioning.side)


@contextlib.contextmanager
def serving(recipe: Recipe) -> Iterator[tuple[Servers, str | None]]:
    """(the servers of the recipe's models, their key); engines in the cluster are started, and ended with it."""
    from rushes.curation.captioning.preflight import key_of, preflight

    captioning = recipe.captioning
    template = load_template(captioning.prompt)
    if captioning.provider == "endpoint":
        key = key_of(captioning)
        yield preflight(captioning, captioning.endpoints, template, key), key
        return
    from rushes.pipelines.stages.vllm_server import Fleet

    with Fleet(captioning) as fleet:
        yield preflight(captioning, fleet.urls, template, fleet.key), fleet.key
