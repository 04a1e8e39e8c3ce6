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
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from rushes.curation.captioning import Caption, ComposedCaptioner, Servers
from rushes.curation.manifest import join
from rushes.curation.recipe import Recipe
from rushes.pipelines.engine import pool as engine
from rushes.pipelines.stages.records import WorkStore

CLIPS_PER_TASK = 2000  # the tail of a task, where requests run out, is then below two per cent of it
TASK_S = 30 * 24 * 3600.0  # every request has its time-out: a caption task needs none of its own
ROW_COLUMNS = ["clip_id", "source_id", "duration_s", "media"]

Row = dict[str, Any]


def check(recipe: Recipe) -> None:
    """Say before any work what would fail after it: RecipeError where the recipe's captioners cannot work."""
    captioning = recipe.captioning
    if captioning.provider == "composed":
        return
    from rushes.curation.captioning.preflight import key_of, preflight
    from rushes.curation.captioning.prompt import load_template

    template, key = load_template(captioning.prompt), key_of(captioning)
    if captioning.provider == "endpoint":
        preflight(captioning, captioning.endpoints, template, key)
    else:
        from rushes.pipelines.stages.vllm_server import check as check_vllm

        check_vllm(captioning, local=recipe.engine.address is None)


def caption_all(
    recipe: Recipe, store: WorkStore, pool: engine.Pool, workers: int, kept: pa.Table, step: Callable[[int], None]
) -> list[Caption]:
    """A Caption for every row of `kept` (clips table); step(n) is told of every n clips that are done.

    Raises RecipeError or StopRun (no server); what was answered by then is in the store.
    """
    if recipe.captioning.provider == "composed":
        captions = ComposedCaptioner()(kept.to_pylist())
        step(len(captions))
        return captions
    known = {caption.clip_id: caption for caption in store.captions() if caption.lasting}
    rows = kept.select(ROW_COLUMNS).to_pylist()
    todo = [row for row in rows if row["clip_id"] not in known]
    step(len(rows) - len(todo))
    if todo:
        with serving(recipe) as (servers, key):
            known |= _ask(recipe, store, pool, workers, todo, (servers, key), step)
    return [known[row["clip_id"]] for row in rows if row["clip_id"] in known]


def _ask(
    recipe: Recipe, store: WorkStore, pool: engine.Pool, workers: int, todo: list[Row],
    at: tuple[Servers, str | None], step: Callable[[int], None],
) -> dict[str, Caption]:  # fmt: skip
    most = recipe.captioning.concurrency
    tasks = max(-(-len(todo) // CLIPS_PER_TASK), min(workers, -(-len(todo) // most)))
    each = -(-most // min(workers, tasks))
    for index in range(tasks):
        pool.submit("caption", str(index), todo[index::tasks], *at, each, timeout_s=TASK_S)
    done: dict[str, Caption] = {}
    for task, result in pool.completed():
        rows = task.args[0]
        if isinstance(result, engine.Failure):  # what it had written down before it died counts
            written = {caption.clip_id: caption for caption in store.captions()}
            lost = [Caption(row["clip_id"], None, "", result.reason, lasting=False) for row in rows]
            result = [written.get(caption.clip_id, caption) for caption in lost]
        done |= {caption.clip_id: caption for caption in result}
        step(len(rows))
    return done


def caption_rows(
    recipe: Recipe, store: WorkStore, rows: list[Row], servers: Servers, key: str | None, concurrency: int
) -> list[Caption]:
    """In a worker: captions of these rows, each written down soon after it came. Raises ServersDown."""
    from rushes.curation.captioning.vision import VisionCaptioner

    wanted = {row["clip_id"] for row in rows}
    before = [c for c in store.captions() if c.clip_id in wanted and c.lasting]  # by the worker that died before us
    done = {caption.clip_id: caption for caption in before}
    parts: list[str] = []

    def record(captions: list[Caption]) -> None:
        parts.append(store.put_captions(captions))
        done.update({caption.clip_id: caption for caption in captions})

    todo = [row for row in rows if row["clip_id"] not in done]
    captioner = VisionCaptioner(recipe.captioning, servers, key, concurrency)
    captioner.run(todo, lambda row: frames_of(recipe, store, row), record)
    store.merge_captions([done[row["clip_id"]] for row in todo], parts)
    return [done[row["clip_id"]] for row in rows]


def frames_of(recipe: Recipe, store: WorkStore, row: Row) -> list[bytes]:
    """The JPEG frames of a clip that a model is shown. Raises FrameError."""
    from rushes.curation.captioning.frames import FrameError, from_media, from_stills

    captioning = recipe.captioning
    if captioning.frames_from == "stills":
        stills = store.stills(row["source_id"], [row["clip_id"]]).to_pylist()
        return from_stills([(still["t_s"], still["jpeg"]) for still in stills], captioning.frames, captioning.side)
    if row["media"] is None:
        raise FrameError("the clip was not cut")
    media = row["media"] if "://" in row["media"] or row["media"].startswith("/") else join(store.root, row["media"])
    return from_media(media, captioning.frames, captioning.side)


@contextlib.contextmanager
def serving(recipe: Recipe) -> Iterator[tuple[Servers, str | None]]:
    """(the servers of the recipe's models, their key); engines in the cluster are started, and ended with it."""
    from rushes.curation.captioning.preflight import key_of, preflight
    from rushes.curation.captioning.prompt import load_template

    captioning = recipe.captioning
    template = load_template(captioning.prompt)
    if captioning.provider == "endpoint":
        key = key_of(captioning)
        yield preflight(captioning, captioning.endpoints, template, key), key
        return
    from rushes.pipelines.stages.vllm_server import Fleet

    with Fleet(captioning) as fleet:
        yield preflight(captioning, fleet.urls, template, fleet.key), fleet.key
