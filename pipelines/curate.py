"""`rushes curate`: raw footage to published training sets. The stages are the list STAGES, in order.

Each stage takes the run in progress (`stages.job.Job`), does what is not recorded yet by leases to the pool's workers,
and leaves its results in files. Leave a stage's result out, or put one of your own in between, by another list.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from rich.console import Console

from rushes.curation import manifest, storage
from rushes.curation.content.concepts import CONCEPTS
from rushes.curation.looking.registry import check as check_models
from rushes.curation.looking.registry import gpu_share
from rushes.curation.looking.vocabulary import VOCABULARY
from rushes.curation.manifest import Run, Snapshot
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.storage import join
from rushes.curation.video.cut import sweep
from rushes.pipelines.checks import check
from rushes.pipelines.cli.progress import Terminal
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.cluster import Kind, RayCluster
from rushes.pipelines.engine.events import Bus, Event, EventLog, log_folder
from rushes.pipelines.engine.observe import announce, observers
from rushes.pipelines.engine.pool import CPU, LOOK, Pool
from rushes.pipelines.stages.captioning import caption
from rushes.pipelines.stages.deciding import decide_all, gather, measure_content
from rushes.pipelines.stages.job import Inputs, Job
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.stages.left_behind import left_behind
from rushes.pipelines.stages.making import cut
from rushes.pipelines.stages.probing import probe
from rushes.pipelines.stages.publishing import commit_record, finished, listed, made_from, source_summary, write_tables
from rushes.pipelines.stages.reading import observe_and_look
from rushes.pipelines.stages.worker import Worker, stop_reason


@dataclass(frozen=True)
class Outcome:
    """A finished run, and whether more of it failed than the recipe's error budget allows.

    published: whether this command published it; an earlier one did where there was nothing to do.
    """

    run: Run
    over_budget: bool
    sentence: str | None
    published: bool = True


def publish(job: Job) -> Run:
    """CURRICULUM: who is in which set; then all tables, by one atomic step."""
    stage = job.bus.stage("curriculum", len(job.made), "shards")
    snapshot, parent = Snapshot.begin(job.root), manifest.current(job.root)
    try:
        tables = write_tables(job.made, snapshot, job.recipe, job.pool.map)
        files = {
            "sources": listed(job.sources, job.root), **tables.files, "embeddings": listed(job.vectors, job.root),
        }  # fmt: skip
        concepts = job.work("content", job.keys.content, f"{CONCEPTS}.parquet")
        files[CONCEPTS] = snapshot.write(CONCEPTS, storage.read_table(concepts))
        if job.vocabulary is not None:
            files[VOCABULARY] = snapshot.write(VOCABULARY, storage.read_table(job.vocabulary))
        sources, footage_s = source_summary(job.sources)
        stage.step(len(job.made))
        stage.end()
        warnings = [*job.warnings, *tables.notes, *job.pool.notes]
        if job.unlooked:
            warnings.append(
                f"{job.unlooked} clips could not be looked at (rejected by look.failed); their notes say why, and the "
                "same command tries them again."
            )
        if parent is not None:
            warnings += left_behind(manifest.open_run(job.root), files, scored=False)
        record = commit_record(job.recipe, sources, tables, warnings, footage_s)
        record["looked"] = tables.looked
        record["made_from"] = made_from(job)
        record["times_s"] = {**job.bus.times_s, "total": round(time.monotonic() - job.began, 3)}
        run = manifest.publish_files(snapshot, files, record, parent)
    except BaseException:
        snapshot.discard()
        raise
    manifest.write_bytes(join(job.root, "recipe.yaml"), job.recipe.to_yaml().encode())
    return run


#: What happens to footage, in order; the one that gives a Run is the last.
STAGES: tuple[Callable[[Job], object], ...] = (
    probe,  # what every input is
    observe_and_look,  # scenes, visual, motion: one decode; then models on stills of what passes
    gather,  # records of leases to shards of clips
    finished,  # what was published from the same clips by the same recipe stays as it is
    measure_content,  # content: copies and concepts, over all shards
    decide_all,  # rules, one of each group of copies, sampling
    cut,  # files for what was kept, and for nothing else
    caption,  # captioning
    publish,  # curriculum, and the tables
)


def curate(
    recipe: Recipe, inputs: list[str], root: str, console: Console, column: str | None = None,
    limit: int | None = None, stages: Sequence[Callable[[Job], object]] = STAGES,
) -> Outcome:  # fmt: skip
    """Run the whole pipeline, or what an earlier run with the same output left to do.

    column: of lists that name their addresses by another name; limit: only so many inputs.

    Raises InputError, RecipeError, StorageError or StopRun: one sentence each.
    """
    uris, root = check(recipe, inputs, root, column, limit), storage.absolute(root)
    uris = pa.array(uris, pa.string())  # a tenth of what Python's own strings take
    with manifest.lock(root), Terminal(console) as terminal:
        sweep(root)
        log = EventLog(root)
        bus = Bus([terminal, log, *observers(root)])
        before = manifest.current(root)
        bus.emit(Event("begin", text=root, total=len(uris), unit="sources", data={"recipe": recipe.name}))
        ray_start.start(recipe.engine)
        missing = check_models(recipe, ray_start.gpus())
        if missing is not None:
            raise RecipeError(missing)
        token = join(root, "work", f"seen-{uuid.uuid4().hex[:8]}")
        manifest.write_bytes(token, b"")
        cluster = RayCluster(token, log_folder(root))
        engine = recipe.engine
        pool = Pool(cluster, _kinds(recipe, root), engine.attempts, stop_reason, engine.num_cpus, bus.emit)
        job = Job(recipe, root, pool, bus, Inputs(uris), Keys.of(recipe))
        try:
            run = next(found for found in (stage(job) for stage in stages) if isinstance(found, Run))
            outcome = replace(_outcome(run, recipe), published=run.snapshot != before)
            announce(run, inputs)
            bus.emit(Event("end", text=outcome.sentence or "", data={"snapshot": run.snapshot}))
            return outcome
        finally:
            pool.close()
            log.close()
            storage.delete(token)


def _kinds(recipe: Recipe, root: str) -> list[Kind]:
    """One process per core hosts every stage; where models on stills want a GPU, looking has workers of its own."""

    def build() -> Worker:
        return Worker(recipe, root)

    share = gpu_share(recipe)
    return [Kind(CPU, build), *([Kind(LOOK, build, gpus=share)] if share else [])]


def _outcome(run: Run, recipe: Recipe) -> Outcome:
    """More failed than the budget allows: of the sources, or of the clips that models were to look at."""
    counts, looked = run.record["funnel"]["sources"], run.record["looked"]
    budget = recipe.engine.error_budget
    for what, failed, total, where in (
        ("sources", counts["failed"], counts["inputs"], f"their errors stand in {run.root}/sources"),
        ("looked-at clips", looked["failed"], looked["clips"], f"their notes in {run.root}/clips say why"),
    ):
        if failed > budget * max(total, 1):
            sentence = (
                f"{failed} of {total} {what} failed ({failed / total:.0%}), more than engine.error_budget="
                f"{budget:.0%} allows; {where}."
            )
            return Outcome(run, True, sentence)
    return Outcome(run, False, None)
