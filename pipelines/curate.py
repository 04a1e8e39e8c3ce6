"""`rushes curate` and `rushes judge`: raw footage to published pre-training sets.

Curating reads top to bottom in `curate`: list, probe, analyze (scenes, visual, motion in one decode), look (text,
people, aesthetics, embeddings on a few stills), content, cut, caption, curriculum, publish.
"""

from __future__ import annotations

import datetime
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from rushes.curation import manifest, rules, signals, storage
from rushes.curation import recipe as recipes
from rushes.curation.captioning import Caption
from rushes.curation.content import RESULT, measure_table
from rushes.curation.content.concepts import CONCEPTS
from rushes.curation.decide import Decisions, decide_all, set_table
from rushes.curation.looking import check as check_models
from rushes.curation.looking import gpu_share
from rushes.curation.manifest import Run, join
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.sets import curriculum
from rushes.curation.signals import CAPTION_FAILED, CUT_FAILED, STATUSES, LateRule
from rushes.curation.video.cut import CutClip, sweep
from rushes.curation.video.source import Source
from rushes.pipelines.checks import check
from rushes.pipelines.cli.progress import Terminal
from rushes.pipelines.engine import pool as engine
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.cluster import Kind, RayCluster
from rushes.pipelines.engine.events import Bus, EventLog, log_folder
from rushes.pipelines.engine.observe import announce, observers
from rushes.pipelines.stages.captioning import caption_all
from rushes.pipelines.stages.records import WorkStore, record_versions
from rushes.pipelines.stages.worker import Worker, stop_reason
from rushes.pipelines.view.tables import resolved_of, schema_of

CLIPS_PER_CUT = 4  # clips cut in one task: a killed run repeats at most so many per worker
VALIDATION_RESOLUTION = 256  # pixels; the validation set is read at the smallest stage's size

ANALYZE = "scenes, visual, motion"
LOOK = "visual: text, people, look"
CONTENT = "content"
CUT = "cutting kept clips"
CAPTION = "captioning"
CURRICULUM = "curriculum"


VECTORS = ["clip_id", "semantic", "copy"]


@dataclass(frozen=True)
class Outcome:
    """A finished run, and whether more sources failed than the recipe's error budget allows."""

    run: Run
    over_budget: bool
    sentence: str | None


def curate(
    recipe: Recipe, inputs: list[str], root: str, console: Console, column: str | None = None, limit: int | None = None
) -> Outcome:
    """Run the whole pipeline, or what an earlier run with the same output left to do.

    column: of lists that name their addresses by another name; limit: only so many inputs.

    Raises InputError, RecipeError, ManifestError or StopRun: one sentence each.
    """
    uris = check(recipe, inputs, root, column, limit)
    root = storage.absolute(root)
    with manifest.lock(root), Terminal(console) as terminal:
        sweep(root)
        log = EventLog(root)
        bus = Bus([terminal, log, *observers(root)])
        cpus = ray_start.start(recipe.engine)
        missing = check_models(recipe, ray_start.gpus())
        if missing is not None:
            raise RecipeError(missing)
        workers = max(1, min(cpus, len(uris)))
        token = join(root, ".seen")
        manifest.write_bytes(token, b"")
        cluster = RayCluster(token, log_folder(root))
        kind = Kind(engine.CPU, lambda: Worker(recipe, root), gpus=gpu_share(recipe), most=workers)
        pool = engine.Pool(cluster, [kind], recipe.engine.attempts, stop_reason)
        try:
            return _Curation(recipe, root, pool, workers, bus).run(uris)
        finally:
            pool.close()
            log.close()


class _Curation:
    """One run in progress."""

    def __init__(self, recipe: Recipe, root: str, pool: engine.Pool, workers: int, bus: Bus) -> None:
        self.recipe, self.root, self.pool, self.workers, self.bus = recipe, root, pool, workers, bus
        self.store = WorkStore(root, recipe)
        self.began = time.monotonic()
        self.warnings: list[str] = []
        self.concepts: pa.Table | None = None

    def run(self, uris: list[str]) -> Outcome:
        sources = self._probe(uris)
        sources, analyzed, looks = self._analyze_and_look(sources)
        clips = _with_looks(analyzed, looks)
        clips = self._content(clips, looks)
        decisions, notes = decide_all(clips, self.recipe)
        self.warnings += notes
        clips = with_decisions(clips, decisions)
        clips = self._cut(clips, sources)
        clips = self._caption(clips)
        tables = self._curriculum(sources, clips, looks)
        record = commit_record(self.recipe, tables, self.warnings)
        record["times_s"] = {**self.bus.times_s, "total": round(time.monotonic() - self.began, 3)}
        run = publish(self.root, tables, record, self.recipe)
        announce(run, uris)
        return _outcome(run, self.recipe)

    def _probe(self, uris: list[str]) -> list[Source]:
        """A Source for every URI, sorted; files with the same content as an earlier one are marked."""
        stage = self.bus.stage("probe", len(uris), "sources")
        found: dict[str, Source] = {}
        for uri in uris:
            self.pool.submit("probe", uri, uri, timeout_s=self.recipe.engine.timeout_min_s)
        for task, result in self.pool.completed():
            failed = isinstance(result, engine.Failure)
            found[task.key] = Source(uri=task.key).failed(result.reason) if failed else result
            stage.step()
        stage.end()
        first: dict[str, str] = {}
        sources = []
        for source in (found[uri] for uri in uris):
            if source.status == "ok" and source.source_id in first:
                source = replace(
                    source, status="duplicate", error=f"the same content as {first[source.source_id]}", clips=0
                )
            elif source.status == "ok" and source.source_id:
                first[source.source_id] = source.uri
            sources.append(source)
        return sources

    def _timeout(self, seconds: float | None) -> float:
        return self.recipe.engine.timeout_min_s + self.recipe.engine.timeout_factor * (seconds or 0.0)

    def _analyze_and_look(self, sources: list[Source]) -> tuple[list[Source], pa.Table, pa.Table | None]:
        """Decode every good source once, longest first; look at a source's survivors as soon as they are known."""
        todo = {source.uri: source for source in sources if source.status == "ok"}
        seconds = sum(source.duration_s or 0 for source in todo.values())
        analyze = self.bus.stage(ANALYZE, len(todo), "sources", seconds)
        look = self.bus.stage(LOOK, 0, "sources")
        for source in todo.values():
            self.pool.submit("analyze", source.uri, source, order=(1, -(source.duration_s or 0)),
                             timeout_s=self._timeout(source.duration_s))  # fmt: skip
        clips: dict[str, pa.Table] = {}
        looks: dict[str, pa.Table] = {}
        to_look = 0
        for task, result in self.pool.completed():
            if task.stage == "analyze":
                analyze.step(1, todo[task.key].duration_s or 0.0)
                if isinstance(result, engine.Failure):
                    todo[task.key] = todo[task.key].failed(result.reason)
                    continue
                todo[task.key], table = result
                clips[task.key] = table
                survivors = table["clip_id"].filter(
                    pa.array(np.equal(rules.judge(table, self.recipe, "analyze"), None))
                )
                if len(survivors):
                    to_look += 1
                    look.grow(to_look)
                    source = todo[task.key]
                    self.pool.submit("look", task.key, source.source_id, survivors.to_pylist(), order=(0,),
                                     timeout_s=self._timeout(source.duration_s))  # fmt: skip
            else:
                look.step()
                if isinstance(result, engine.Failure):
                    self.warnings.append(f"{task.key}: its clips could not be looked at: {result.reason}")
                else:
                    looks[task.key] = result
        analyze.end()
        look.end()
        done = [todo.get(source.uri, source) for source in sources]
        tables = [clips[source.uri] for source in done if source.uri in clips]
        schema = tables[0].schema if tables else manifest.ANALYZED
        analyzed = pa.concat_tables(tables) if tables else schema.empty_table()
        parts = [looks[source.uri] for source in done if source.uri in looks]
        return done, analyzed, (pa.concat_tables(parts) if parts else None)

    def _content(self, clips: pa.Table, looks: pa.Table | None) -> pa.Table:
        stage = self.bus.stage(CONTENT, 1, "clips")
        groups = RESULT.empty_table()
        if looks is not None:
            groups, self.concepts = measure_table(looks.select(VECTORS), self.store.content_folder, self.recipe)
        stage.step()
        return _left_join(clips, groups)

    def _cut(self, clips: pa.Table, sources: list[Source]) -> pa.Table:
        """Cut what was kept; a clip that cannot be cut is rejected by CUT_FAILED, with the reason in its notes."""
        kept = clips.filter(clips["kept"])
        by_uri = {source.uri: source for source in sources}
        rows = kept.select(["clip_id", "uri", "start_s", "end_s", "frames", "fps", "duration_s"]).to_pylist()
        stage = self.bus.stage(CUT, len(rows), "clips")
        batch: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            batch.setdefault(row["uri"], []).append(row)
        for uri, of_source in batch.items():
            for start in range(0, len(of_source), CLIPS_PER_CUT):
                some = of_source[start : start + CLIPS_PER_CUT]
                length = sum(row["duration_s"] for row in some)
                self.pool.submit("cut", ",".join(row["clip_id"] for row in some), by_uri[uri], some,
                                 order=(-length,), timeout_s=self._timeout(length))  # fmt: skip
        done: dict[str, CutClip | str] = {}
        for task, result in self.pool.completed():
            for clip_id in task.key.split(","):
                done[clip_id] = result.reason if isinstance(result, engine.Failure) else result[clip_id]
                stage.step()
        stage.end()
        failed = {clip_id: why for clip_id, why in done.items() if isinstance(why, str)}
        cuts = {clip_id: cut for clip_id, cut in done.items() if isinstance(cut, CutClip)}
        ids = clips["clip_id"].to_pylist()
        for name, type_ in (("media", pa.string()), ("media_bytes", pa.int64()), ("media_hash", pa.string())):
            values = [getattr(cuts[clip_id], name) if clip_id in cuts else None for clip_id in ids]
            clips = _set(clips, name, pa.array(values, type_))
        return _reject(clips, failed, CUT_FAILED)

    def _caption(self, clips: pa.Table) -> pa.Table:
        kept = clips.filter(clips["kept"])
        stage = self.bus.stage(CAPTION, kept.num_rows, "clips")

        def step(count: int) -> None:
            for _ in range(count):
                stage.step()

        found = caption_all(self.recipe, self.store, self.pool, self.workers, kept, step)
        captions = {caption.clip_id: caption for caption in found}
        stage.end()
        clips = with_captions(clips, captions.values())
        failed = {i: c.error or "no caption" for i, c in captions.items() if c.text is None}
        failed |= {i: "the captioner gave no answer" for i in kept["clip_id"].to_pylist() if i not in captions}
        return _reject(clips, failed, CAPTION_FAILED)

    def _curriculum(self, sources: list[Source], clips: pa.Table, looks: pa.Table | None) -> dict[str, pa.Table]:
        stage = self.bus.stage(CURRICULUM, 1, "clips")
        clips, sets, warnings = with_sets(clips, self.recipe)
        self.warnings += warnings
        columns = ["clip_id", "semantic", "copy"]
        empty = pa.table({"clip_id": pa.array([], pa.string())})
        embeddings = looks.select(columns) if looks is not None else empty
        mine = embeddings.filter(pc.is_in(embeddings["clip_id"], clips["clip_id"])).sort_by("clip_id")
        rows = pa.Table.from_pylist([source.row() for source in sources], manifest.SOURCES)
        stage.step()
        tables = {"sources": rows, "clips": clips, "embeddings": mine, **sets}
        return tables if self.concepts is None else {**tables, CONCEPTS: self.concepts}


def judge(run: Run, recipe: Recipe, root: str | None, console: Console) -> Run:
    """New thresholds on the stored signals of a run; publishes the result at `root` (None: nothing is written).

    No video is opened: clips that newly pass but were never looked at or cut are not in any set, and are counted.
    """
    began = time.monotonic()
    before = run.table("clips")
    clips = before
    concepts = run.table(CONCEPTS) if CONCEPTS in run.tables else None
    if "content" in changed_parts(run, recipe):
        embeddings = run.table("embeddings")
        clips = clips.drop_columns([name for name in RESULT.names if name != "clip_id" and name in clips.column_names])
        with tempfile.TemporaryDirectory() as folder:
            groups, concepts = measure_table(embeddings.select(VECTORS), folder, recipe)
        clips = _left_join(clips, groups)
    decisions, notes = decide_all(clips, recipe)
    clips = _still_failed(with_decisions(clips, decisions), before)
    if root is not None and root != run.root:  # the clips stay where they were cut
        there = pc.binary_join_element_wise(_address(run.root), clips["media"], "/")
        relative = pc.starts_with(clips["media"], "media/")
        clips = _set(clips, "media", pc.if_else(relative, there, clips["media"]))
    clips, sets, warnings = with_sets(clips, recipe)
    warnings = [*notes, *warnings]
    uncut = int(pc.sum(pc.and_(clips["kept"], pc.is_null(clips["media"]))).as_py() or 0)
    if uncut:
        warnings.append(
            f"{uncut} clips pass now but were not cut: run `rushes curate` again with these thresholds to add them "
            f"to the sets (what was measured is not measured again)."
        )
    unseen = _unseen(clips, recipe)
    if unseen:
        warnings.append(
            f"{unseen} clips pass the new thresholds on what the decode measured, but no model has looked at them: "
            f"`rushes curate` with these thresholds will."
        )
    tables = {"sources": run.table("sources"), "clips": clips, "embeddings": run.table("embeddings"), **sets}
    if concepts is not None:
        tables[CONCEPTS] = concepts
    record = commit_record(recipe, tables, warnings)
    record["parent"] = {"run": run.root, "snapshot": run.record["snapshot"]}
    record["times_s"] = {"judge": round(time.monotonic() - began, 3)}
    if root is None:
        return Run(run.root, {**run.record, **record, "tables": {}})
    with manifest.lock(root):
        return publish(root, tables, record, recipe)


def publish(root: str, tables: dict[str, pa.Table], record: dict[str, Any], recipe: Recipe) -> Run:
    """Publish the tables; the recipe is part of the commit record, and lies beside it for whoever reads by hand."""
    run = manifest.publish(root, tables, record)
    manifest.write_bytes(join(root, "recipe.yaml"), recipe.to_yaml().encode())
    return run


def _still_failed(clips: pa.Table, before: pa.Table) -> pa.Table:
    """Clips that pass, but of which no clip or caption could be made, stay rejected as they were."""
    for rule in (CUT_FAILED.key, CAPTION_FAILED.key):
        failed = pc.and_(clips["kept"], pc.fill_null(pc.equal(before["rejected_by"], rule), False))
        clips = _set(clips, "kept", pc.and_not(clips["kept"], failed))
        clips = _set(clips, "rejected_by", pc.if_else(failed, rule, clips["rejected_by"]))
    return clips


def _address(root: str) -> str:
    """A run's root as other folders can name it."""
    return root.rstrip("/") if "://" in root else manifest.resolve(root)[1]


def changed_parts(run: Run, recipe: Recipe) -> list[str]:
    """Parts of the work whose recipe differs from the run's."""
    was = run.record["recipe"]["parts"]
    return [part for part, key in parts_of(recipe).items() if was.get(part) != key]


def parts_of(recipe: Recipe) -> dict[str, str]:
    return {part: recipe.part_hash(part) for part in ("observe", "measure", "look", "content", "cut", "caption")}


def _unseen(clips: pa.Table, recipe: Recipe) -> int:
    """Clips rejected only because no model looked at them."""
    asked = pa.array([rule.key for rule, _ in rules.active(recipe, "look")], pa.string())
    by_look = pc.is_in(clips["rejected_by"], asked)
    return int(pc.sum(pc.and_(by_look, pc.is_null(clips["aesthetic"]))).as_py() or 0)


def with_decisions(clips: pa.Table, decisions: Decisions) -> pa.Table:
    clips = _set(clips, "kept", pa.array(decisions.kept, pa.bool_()))
    clips = _set(clips, "rejected_by", pa.array(decisions.rejected_by, pa.string()))
    clips = _set(clips, "duplicate_of", pa.array(decisions.duplicate_of, pa.string()))
    sizes = pa.array(decisions.cluster_size, mask=np.isnan(decisions.cluster_size)).cast(pa.int64())
    clips = _set(clips, "cluster_size", sizes)
    return _set(
        clips, "keep_prob", pa.array(decisions.keep_prob.astype(np.float32), mask=np.isnan(decisions.keep_prob))
    )


def with_captions(clips: pa.Table, captions: Iterable[Caption]) -> pa.Table:
    by_id = {caption.clip_id: caption for caption in captions if caption.text is not None}
    found = [by_id.get(clip_id) for clip_id in clips["clip_id"].to_pylist()]
    clips = _set(clips, "caption", pa.array([c and c.text for c in found], pa.string()))
    clips = _set(clips, "caption_model", pa.array([c and c.model for c in found], pa.string()))
    return _set(clips, "caption_words", pa.array([c and len(c.text.split()) for c in found], pa.int32()))


def with_sets(clips: pa.Table, recipe: Recipe) -> tuple[pa.Table, dict[str, pa.Table], list[str]]:
    """The clips table in its published order and schema, the tables of the sets, and what people should know."""
    masks, bucket, warnings = curriculum(clips, recipe)
    clips = _set(clips, "bucket", pa.array(bucket, pa.string()))
    names = list(masks)
    member = np.stack([masks[name] for name in names], axis=1)
    flat = np.array(names, dtype=object)[np.nonzero(member)[1]]
    offsets = np.concatenate([[0], np.cumsum(member.sum(axis=1))]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, pa.string()))
    clips = _set(clips, "sets", lists)
    sizes = {name: spec.resolution for name, spec in recipe.curriculum.sets.items()}
    sets = {
        f"sets/{name}": set_table(clips, mask, name, sizes.get(name, VALIDATION_RESOLUTION))
        for name, mask in masks.items()
    }
    return _in_schema(clips), sets, warnings


def commit_record(recipe: Recipe, tables: dict[str, pa.Table], warnings: list[str]) -> dict[str, Any]:
    sources, clips = tables["sources"], tables["clips"]
    by_status = Counter(sources["status"].to_pylist())
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": {"name": recipe.name, "hash": recipe.full_hash(), "parts": parts_of(recipe),
                   "resolved": recipe.model_dump(mode="json")},
        "versions": record_versions(),
        "footage_s": round(pc.sum(sources["duration_s"]).as_py() or 0.0, 3),
        "funnel": {
            "sources": {"inputs": sources.num_rows} | {status: by_status.get(status, 0) for status in STATUSES},
            "clips": rules.funnel(clips["rejected_by"], recipe),
            "sets": {name.removeprefix("sets/"): t.num_rows for name, t in tables.items() if name.startswith("sets/")},
        },
        "warnings": warnings,
    }  # fmt: skip


def _outcome(run: Run, recipe: Recipe) -> Outcome:
    counts = run.record["funnel"]["sources"]
    share = counts["failed"] / max(counts["inputs"], 1)
    if share <= recipe.engine.error_budget:
        return Outcome(run, False, None)
    return Outcome(
        run, True,
        f"{counts['failed']} of {counts['inputs']} sources failed ({share:.0%}), more than engine.error_budget="
        f"{recipe.engine.error_budget:.0%} allows; their errors stand in {run.root}/sources.",
    )  # fmt: skip


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _left_join(clips: pa.Table, more: pa.Table) -> pa.Table:
    """Columns of `more` beside the clips, null where it has no row; the clips' order stays."""
    at = pc.index_in(clips["clip_id"], more["clip_id"])
    for name in more.column_names:
        if name != "clip_id":
            clips = _set(clips, name, more[name].take(at))
    return clips


def _with_looks(clips: pa.Table, looks: pa.Table | None) -> pa.Table:
    names = signals.schema("look").names
    if looks is None:
        for field in signals.schema("look"):
            clips = clips.append_column(field.name, pa.nulls(clips.num_rows, field.type))
        return clips
    clips = _left_join(clips, looks.select(["clip_id", *names, "look_notes"]))
    before, after = clips["notes"].to_pylist(), clips["look_notes"].to_pylist()
    missing = ["text_score, aesthetic, human_score: not looked at, the clip was rejected before"]
    notes = [(a or []) + (missing if b is None else b) for a, b in zip(before, after, strict=True)]
    clips = _set(clips, "notes", pa.array(notes, pa.list_(pa.string())))
    return clips.drop_columns(["look_notes"])


def _reject(clips: pa.Table, failed: dict[str, str], rule: LateRule) -> pa.Table:
    if not failed:
        return clips
    ids = clips["clip_id"].to_pylist()
    rejected, notes = clips["rejected_by"].to_pylist(), clips["notes"].to_pylist()
    kept = clips["kept"].to_pylist()
    for index, clip_id in enumerate(ids):
        if clip_id in failed:
            rejected[index], kept[index] = rule.key, False
            notes[index] = [*(notes[index] or []), f"{rule.missing}: {failed[clip_id]}"]
    clips = _set(clips, "kept", pa.array(kept, pa.bool_()))
    clips = _set(clips, "rejected_by", pa.array(rejected, pa.string()))
    return _set(clips, "notes", pa.array(notes, pa.list_(pa.string())))


def _in_schema(clips: pa.Table) -> pa.Table:
    """Published columns in the schema's order, then those of the recipe's own meters; rows by source and time."""
    own = [field for field in clips.schema if field.name not in manifest.CLIPS.names]
    schema = pa.schema(list(manifest.CLIPS) + own)
    for field in schema:
        if field.name not in clips.column_names:
            clips = clips.append_column(field.name, pa.nulls(clips.num_rows, field.type))
    return clips.select(schema.names).cast(schema).sort_by([("uri", "ascending"), ("start_s", "ascending")])


def recipe_for_judging(run: Run, name: str | None, overrides: list[str]) -> Recipe:
    """The recipe to judge a run with: the run's own, or another, with overrides.

    Raises RecipeError where it asks for other measurements than the run holds.
    """
    own = resolved_of(run)
    recipe = recipes.build(own, overrides) if name is None else recipes.load(name, overrides)
    for part in ("observe", "measure", "look", "cut", "caption"):
        if part in changed_parts(run, recipe):
            raise RecipeError(
                f"This recipe changes '{part}', which {run.root} holds as it was made, and judging opens no video: "
                f"use thresholds only, or run `rushes curate` with it."
            )
    rules.check(recipe, [name for name in schema_of(run, "clips").names if name not in manifest.CLIPS.names])
    return recipe
