"""`rushes encode`: latents and text features of sets, once, for a training that reads instead of decoding.

    for each set that the recipe's stages read: rows -> jobs of a few clips of one bucket -> files -> rows again

A job's file is its record (model/latents.py): a killed run, started again, finds the files that were written and
repeats what was in flight. Every row of a set is accounted for: it is in the set's table of the new run, with its
latents, or in `failures` with a sentence.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, Run, open_run
from rushes.curation.sections import Engine
from rushes.model import checkpoint as checkpoints
from rushes.model.checkpoint import CheckpointError
from rushes.model.data import Clip, ClipTable, DataError, Shape
from rushes.model.frames import ClipError
from rushes.model.frozen import load_tae, text_encoders
from rushes.model.latents import (
    PRECISIONS,
    ClipEncoder,
    Job,
    Read,
    Settings,
    reads_of,
    statistics,
    text_widths,
    videos_only,
)
from rushes.model.open_weights import PREFIX
from rushes.model.tae import TAE
from rushes.model.text import TextEncoderError
from rushes.model.train_recipe import Text, TrainRecipe
from rushes.pipelines.cli.progress import Terminal
from rushes.pipelines.engine import pool as engine
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.cluster import Kind, RayCluster
from rushes.pipelines.engine.events import Bus, Stage
from rushes.pipelines.stages.worker import stop_reason as curation_stop_reason

CLIPS_PER_FILE = 32  # a kill costs at most so many clips per worker
FILE_BYTES_MAX = 256 << 20  # larger clips come fewer to a file: 27 of 768 px, 16 s
TASK_S_PER_CLIP = 900.0  # after which a task is taken to hang; 16 s at 768 px take one CPU core minutes
SHIFT_MAX, RATIO_MAX = 0.5, 1.5  # how far measured statistics may lie from the autoencoder's before it is said
PLAN_FROM = 90  # columns of a terminal on which the plan is a table
FAILURES = pa.schema([("set", pa.string()), ("clip_id", pa.string()), ("error", pa.string())])


@dataclass(frozen=True)
class Options:
    """How it is stored and run; the first four decide what is stored."""

    precision: str = "float16"
    parts: int = 1
    stills: int = 4
    compute: str = "float32"
    gpus: float = 0.0  # of a worker; 0: CPUs alone
    clips_per_file: int = CLIPS_PER_FILE
    retry_failed: bool = False
    engine: Engine = field(default_factory=Engine)


@dataclass
class SetPlan:
    """What is made of one set: its rows by bucket and frames, each at the shapes that the stages ask for."""

    table: ClipTable
    trained: bool  # False: only validated on
    buckets: dict[tuple[str, int], tuple[Shape, list[Shape], list[np.ndarray]]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(len(rows) for _, _, parts in self.buckets.values() for rows in parts)


def plan_sets(recipe: TrainRecipe, roots: Sequence[str], names: Sequence[str]) -> dict[str, SetPlan]:
    """The sets that the recipe's stages read, and the validation set at the shapes at which they validate.

    names: only stages that read these sets; empty: all. Raises DataError, ManifestError.
    """
    videos_only(roots)
    read = [stage.set for stage in recipe.stages]
    for name in names:
        if name not in read:
            raise DataError(
                f"No stage of the recipe reads the set '{name}'; they read: {', '.join(dict.fromkeys(read))}."
            )
    plans: dict[str, SetPlan] = {}
    for stage in recipe.stages:
        if names and stage.set not in names:
            continue
        *trained, validation = reads_of(recipe, stage)
        for read in trained:
            _add(plans, roots, read, trained=True)
        if any(f"sets/{validation.set}" in open_run(root).tables for root in roots):
            _add(plans, roots, validation, trained=False)
    return plans


def _add(plans: dict[str, SetPlan], roots: Sequence[str], read: Read, trained: bool) -> None:
    if read.set not in plans:
        plans[read.set] = SetPlan(ClipTable(roots, read.set), trained)
    plan = plans[read.set]
    table = plan.table
    for bucket, frames in dict.fromkeys(entry[:2] for entry in table.rows_by_bucket):
        if read.buckets is not None and bucket not in read.buckets:
            continue
        parts = [rows for *key, rows in table.rows_by_bucket if key == [bucket, frames]]
        shapes = {table.shape_of(int(rows[0])) for rows in parts}
        if len(shapes) > 1:
            raise DataError(
                f"The runs differ in the shape of {bucket} in sets/{table.name}: encode them apart, and train on both."
            )
        clip = shapes.pop()
        _, known, _ = plan.buckets.setdefault((bucket, frames), (clip, [], parts))
        known += [shape for shape in read.shapes(clip) if shape not in known]


# ---- the work ------------------------------------------------------------------------------------------------------


class Worker:
    """One process: an autoencoder, the text encoders, and jobs. Models are loaded when the first job needs them."""

    def __init__(self, tae: str, text: Text, settings: Settings, device: str, threads: int) -> None:
        self._tae, self._text, self._settings, self._device, self._threads = tae, text, settings, device, threads

    @cached_property
    def _encode(self) -> ClipEncoder:
        import torch

        if self._device == "cpu":
            torch.set_num_threads(self._threads)
        encoders = text_encoders(self._text, self._device)
        frozen, _ = load_tae(self._tae, self._device)
        return ClipEncoder(frozen, encoders, self._settings, self._threads)

    def encode(self, job: Job, retry: bool) -> tuple[str, pa.Table]:
        """The job's file below the run, and its record: clip_id, error and moments of each clip."""
        job = job.latest()
        found = job.record()
        if found is not None and retry and found["error"].null_count < found.num_rows:
            job, found = job.following(), None
        if found is None:
            self._encode(job)
            found = job.record()
        return job.media, found


def stop_reason(error: BaseException) -> str | None:
    """The sentence with which the whole run must stop, None where the error concerns one job only."""
    if isinstance(error, CheckpointError | TextEncoderError):
        return str(error)
    return curation_stop_reason(error)


def encode(
    recipe: TrainRecipe, roots: Sequence[str], tae: str, root: str, names: Sequence[str], options: Options,
    console: Console,
) -> tuple[Run, list[str]]:  # fmt: skip
    """Encode what the recipe's stages read, or what an earlier run with the same output left to do, and publish it.

    names: only these sets (and the validation set); empty: all. Returns the run and what a person should know of it.
    Raises CheckpointError, DataError, ManifestError, StopRun.
    """
    began = time.monotonic()
    roots, root = [_address(each) for each in roots], _address(root)
    frozen, mark = load_tae(tae)
    channels = frozen.config.latent_channels
    # A training may go on meanwhile: its newest checkpoint is named once.
    where = tae if tae.startswith(PREFIX) else _address(checkpoints.open_checkpoint(tae).path)
    settings = settings_of(recipe, frozen, mark, options)
    plans = plan_sets(recipe, roots, names)
    if not any(plan.rows for plan in plans.values()):
        raise DataError(
            f"There is nothing to encode: the sets {', '.join(plans)} have no clips; judge with looser thresholds, or "
            "name others with --set stages.all.set=NAME."
        )
    with manifest.lock(root):
        _own_folder(root)
        cpus = ray_start.start(options.engine)
        workers, threads = _place(cpus, options.gpus)
        workers = max(1, min(workers, job_count(plans, settings, channels, options.clips_per_file)))
        device, text = "cuda" if options.gpus else "cpu", recipe.text

        def build() -> Worker:
            return Worker(where, text, settings, device, threads)

        kind = Kind(engine.CPU, build, threads, options.gpus, most=workers)
        pool = engine.Pool(RayCluster(), [kind], options.engine.attempts, stop_reason)
        try:
            with Terminal(console) as terminal:
                bus = Bus([terminal])
                work = _Encoding(root, settings, options, pool, workers, channels, bus)
                found = {name: work.run(name, plan) for name, plan in plans.items()}
        finally:
            pool.close()
        tables, record = _published(recipe, settings, plans, found)
        record["times_s"] = {**bus.times_s, "total": round(time.monotonic() - began, 3)}
        run = manifest.publish(root, tables, record)
        return run, notes(run, frozen)


def settings_of(recipe: TrainRecipe, frozen: TAE, mark: str, options: Options) -> Settings:
    text = [encoder.model_dump(mode="json") for encoder in recipe.text.encoders]
    return Settings(mark, text, options.precision, options.parts, options.stills, options.compute,
                    frozen.time_factor, frozen.space_factor, frozen.own_tiles)  # fmt: skip


def _place(cpus: int, gpus: float) -> tuple[int, int]:
    """(workers, CPUs of each). Raises StopRun where workers of so many GPUs cannot be placed."""
    if not gpus:
        return cpus, 1
    workers = math.floor(ray_start.gpus() / gpus)
    if not workers:
        raise engine.StopRun(
            f"--gpus {gpus:g} asks for more GPUs than Ray sees ({ray_start.gpus():g}); give less, or 0 for CPUs alone."
        )
    return workers, ray_start.threads_beside(gpus)


def _address(root: str) -> str:
    """A folder as the workers of a cluster can name it."""
    return root.rstrip("/") if "://" in root else manifest.resolve(root)[1]


def _own_folder(root: str) -> None:
    """Raises ManifestError where `root` is a run of something else."""
    if manifest.exists(manifest.join(root, "run.json")) and "encoding" not in open_run(root).record:
        raise ManifestError(f"{root} is a curated run; latents go to a folder of their own: choose another --output.")


@dataclass
class SetResult:
    """Of one set: per row the address of its latents, or why it has none; moments of all latents."""

    media: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)
    moments: np.ndarray | None = None
    text_widths: dict[str, int] = field(default_factory=dict)


class _Encoding:
    """The jobs of one run in progress."""

    def __init__(
        self, root: str, settings: Settings, options: Options, pool: engine.Pool, workers: int, channels: int,
        bus: Bus,
    ) -> None:  # fmt: skip
        self.root, self.settings, self.options, self.pool, self.bus = root, settings, options, pool, bus
        self.workers, self.channels = workers, channels

    def run(self, name: str, plan: SetPlan) -> SetResult:
        result, stage = SetResult(), self.bus.stage(f"encode {name}", plan.rows, "clips")
        jobs = enumerate(self._jobs(plan, result, stage))
        waiting: dict[str, tuple[list[int], Job]] = {}
        moments: dict[int, np.ndarray] = {}

        def submit(count: int) -> None:
            for _, (number, (rows, job)) in zip(range(count), jobs):
                waiting[str(number)] = (rows, job)
                timeout_s = TASK_S_PER_CLIP * len(rows)
                self.pool.submit("encode", str(number), job, self.options.retry_failed, timeout_s=timeout_s)

        submit(2 * self.workers)  # a few in advance: the list of jobs may be long
        for task, told in self.pool.completed():
            rows, job = waiting.pop(task.key)
            if isinstance(told, engine.Failure):
                result.errors |= {row: f"{clip.uri}: {told.reason}" for row, clip in zip(rows, job.clips)}
            else:
                media, record = told
                moments[int(task.key)] = self._note(result, rows, media, record)
            stage.step(len(rows))
            submit(1)
        stage.end()
        in_order = [moments[number] for number in sorted(moments)]  # so that sums are the same whoever was first
        result.moments = np.sum(in_order, axis=0) if in_order else np.zeros(1 + 2 * self.channels)
        return result

    def _jobs(self, plan: SetPlan, result: SetResult, stage: Stage) -> Iterator[tuple[list[int], Job]]:
        """(rows, job) one after another; rows without media or span are failures at once."""
        for shape, shapes, parts in plan.buckets.values():
            size = clips_per_file(shape, shapes, self.settings, self.channels, self.options.clips_per_file)
            rows = np.concatenate(parts)
            for start in range(0, len(rows), size):
                clips: dict[int, Clip] = {}
                for row in rows[start : start + size].tolist():
                    try:
                        clips[row] = plan.table[row]
                    except ClipError as error:
                        result.errors[row] = str(error)
                        stage.step()
                if clips:
                    yield list(clips), Job(self.root, self.settings.key, tuple(clips.values()), tuple(shapes))

    def _note(self, result: SetResult, rows: list[int], media: str, record: pa.Table) -> np.ndarray:
        result.text_widths = text_widths(record.schema)
        total = np.zeros(1 + 2 * self.channels)
        for group, (row, entry) in enumerate(zip(rows, record.to_pylist())):
            if entry["error"] is not None:
                result.errors[row] = entry["error"]
            else:
                result.media[row] = f"{media}#{group}"
                total += np.array(entry["moments"])
        return total


def latent_bytes(clip: Shape, shapes: Sequence[Shape], settings: Settings, channels: int) -> int:
    """Size of one clip's latents at these shapes, without text features."""
    sides = {s: math.prod(settings.latent_sides(s)) for s in shapes}
    numbers = sum(settings.count(clip.frames, s) * size for s, size in sides.items())
    return channels * numbers * PRECISIONS[settings.precision].itemsize


def clips_per_file(clip: Shape, shapes: Sequence[Shape], settings: Settings, channels: int, most: int) -> int:
    return max(1, min(most, FILE_BYTES_MAX // latent_bytes(clip, shapes, settings, channels)))


def job_count(plans: dict[str, SetPlan], settings: Settings, channels: int, most: int) -> int:
    """How many files will be written."""
    buckets = [entry for plan in plans.values() for entry in plan.buckets.values()]
    sizes = [clips_per_file(clip, shapes, settings, channels, most) for clip, shapes, _ in buckets]
    return sum(math.ceil(sum(map(len, parts)) / size) for size, (_, _, parts) in zip(sizes, buckets))


# ---- what is published ---------------------------------------------------------------------------------------------


def _published(
    recipe: TrainRecipe,
    settings: Settings,
    plans: dict[str, SetPlan],
    found: dict[str, SetResult],
) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """The sets' tables with the latents' addresses, `failures`, and the commit record."""
    tables: dict[str, pa.Table] = {}
    failures: list[dict[str, str]] = []
    sets: dict[str, Any] = {}
    for name, plan in plans.items():
        result = found[name]
        rows = pa.concat_tables([run.table(f"sets/{name}") for run in plan.table.runs], promote_options="default")
        media = pa.array([result.media.get(row) for row in range(rows.num_rows)], pa.string())
        rows = rows.set_column(rows.column_names.index("media"), "media", media)
        for column in ("media_bytes", "media_hash"):  # of the clip, and this is a latent
            place = rows.column_names.index(column)
            rows = rows.set_column(place, rows.schema.field(place), pa.nulls(rows.num_rows, rows.schema.types[place]))
        tables[f"sets/{name}"] = rows.filter(rows["media"].is_valid())
        for row, error in sorted(result.errors.items()):
            failures.append({"set": name, "clip_id": rows["clip_id"][row].as_py(), "error": error})
        sets[name] = {
            "rows": rows.num_rows, "encoded": len(result.media), "failed": len(result.errors),
            "in_no_bucket_of_a_stage": rows.num_rows - plan.rows,
            "buckets": [
                {"bucket": bucket, "shape": asdict(clip),
                 "latents": {str(s): settings.count(clip.frames, s) for s in shapes}}
                for (bucket, _), (clip, shapes, _) in plan.buckets.items()
            ],
        }  # fmt: skip
    tables["failures"] = pa.Table.from_pylist(failures, FAILURES)
    mean, deviation = statistics(sum(found[name].moments for name, plan in plans.items() if plan.trained))
    record = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "encoding": {
            "settings": asdict(settings),
            "text_widths": next((r.text_widths for r in found.values() if r.text_widths), {}),
            "recipe": {"name": recipe.name, "hash": recipe_hash(recipe)},
            "runs": sorted({(run.root, run.record["snapshot"]) for plan in plans.values() for run in plan.table.runs}),
            "sets": sets,
        },
        "latent_mean": mean,
        "latent_std": deviation,
    }
    return tables, record


def recipe_hash(recipe: TrainRecipe) -> str:
    """16 hexadecimal digits that change with any key of the resolved recipe."""
    return hashlib.blake2b(recipe.to_yaml().encode(), digest_size=8).hexdigest()


# ---- what is said --------------------------------------------------------------------------------------------------


def plan_table(plans: dict[str, SetPlan], settings: Settings, channels: int, width: int = 120) -> Table:
    """One line per set, bucket and what is stored of its clips: how many they are, and how much that is."""
    lines: dict[tuple[str, str, str, int], int] = {}
    for name, plan in plans.items():
        for (bucket, _), (clip, shapes, parts) in plan.buckets.items():  # of each number of frames
            stored = ", ".join(f"{settings.count(clip.frames, s)} x {s}" for s in shapes)
            line = (name, bucket, stored, latent_bytes(clip, shapes, settings, channels))
            lines[line] = lines.get(line, 0) + sum(map(len, parts))
    table = Table(box=None, pad_edge=False, show_header=width >= PLAN_FROM)
    for name in ("set", "bucket") if width >= PLAN_FROM else ():
        table.add_column(name)
    for name in ("clips", "latents of a clip", "MB a clip", "GB") if width >= PLAN_FROM else ():
        table.add_column(name, justify="right")
    for (name, bucket, stored, size), clips in lines.items():
        cells = (name, bucket, f"{clips:,}", stored, f"{size / 1e6:.3f}", f"{clips * size / 1e9:.3f}")
        if width >= PLAN_FROM:
            table.add_row(*cells)
        else:
            table.add_row(f"{name} {bucket}: {clips:,} clips, {cells[4]} MB each, {cells[5]} GB")
            table.add_row(Padding(stored, (0, 0, 0, 2)))
    return table


def notes(run: Run, frozen: TAE) -> list[str]:
    """What a person should know of a finished run: clips that failed; statistics that are not the autoencoder's."""
    said = []
    failed = run.record["tables"]["failures"]["rows"]
    if failed:
        said.append(f"{failed} clips could not be encoded; {run.root}/failures says why, --retry-failed tries again.")
    mean, deviation = run.record["latent_mean"], run.record["latent_std"]
    if mean:
        own_mean, own = frozen.latent_mean.numpy(), frozen.latent_std.numpy()
        shift, ratio = np.abs(mean - own_mean) / own, np.array(deviation) / own
        if shift.max() > SHIFT_MAX or ratio.max() > RATIO_MAX or ratio.min() < 1 / RATIO_MAX:
            said.append(
                f"The autoencoder normalises by other statistics than these latents have (means differ by up to "
                f"{shift.max():.2f} deviations, deviations by {ratio.min():.2f} to {ratio.max():.2f} times): the "
                f"transformer will see data whose variance is not 1."
            )
    return said
