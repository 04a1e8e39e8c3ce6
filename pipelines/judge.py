"""`rushes judge`: new thresholds on the signals that a run has stored. No video is opened, no vector is written again.

The published clips are the shards: each file is decided and written anew, one in memory at a time; sources, vectors and
media stay the files that they are.
"""

from __future__ import annotations

import shutil
import tempfile
import time

import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rescue, rules, storage
from rushes.curation import recipe as recipes
from rushes.curation.content.concepts import CONCEPTS
from rushes.curation.content.groups import RESULT, measure
from rushes.curation.decide import decide, solve
from rushes.curation.looking.vocabulary import VOCABULARY
from rushes.curation.manifest import Run, Snapshot, TableFiles
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.signals import CAPTION_FAILED, CUT_FAILED
from rushes.curation.storage import join
from rushes.curation.table import left_join, with_column
from rushes.curation.video.cut import crop_of, media_name
from rushes.pipelines.stages.deciding import shard_rows, with_decisions
from rushes.pipelines.stages.left_behind import left_behind
from rushes.pipelines.stages.publishing import commit_record, parts_of, source_summary, write_tables
from rushes.pipelines.view.tables import resolved_of


def judge(run: Run, recipe: Recipe, root: str | None) -> Run:
    """Publish the run's clips, judged anew, at `root` (None: nothing is published, the record alone is told).

    Clips that newly pass but were never looked at or cut are in no set, and are counted. Raises StorageError where
    another snapshot was published meanwhile.
    """
    if root is None:
        folder = tempfile.mkdtemp(prefix="rushes-judge-")
        try:
            return _judge(run, recipe, Snapshot(folder, "dry-run"), None)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    root = storage.absolute(root)
    with manifest.lock(root):
        here = root == storage.absolute(run.root)
        parent = run.snapshot if here else manifest.current(root)
        snapshot = Snapshot.begin(root)
        try:
            judged = _judge(run, recipe, snapshot, parent)
        except BaseException:
            snapshot.discard()
            raise
        manifest.write_bytes(join(root, "recipe.yaml"), recipe.to_yaml().encode())
        return judged


def _judge(run: Run, recipe: Recipe, snapshot: Snapshot, parent: str | None) -> Run:
    began, here = time.monotonic(), storage.absolute(run.root) == snapshot.root
    clips = run.files("clips")
    groups: list[str | None] = [None] * len(clips)
    concepts = None
    if "content" in changed_parts(run, recipe):
        folder = join(snapshot.root, "work", "content", parts_of(recipe)["content"])
        groups, concepts = measure(run.files("embeddings"), folder, recipe), join(folder, f"{CONCEPTS}.parquet")
    work = join(snapshot.root, "snapshots", snapshot.name, "judging")
    pairs = []
    for number, (file, of) in enumerate(zip(clips, groups, strict=True)):
        pairs.append((join(work, f"{number:05d}.parquet"), None))
        storage.write_table(pairs[-1][0], _undecided(storage.read_table(file), of, run, here))
    chosen = solve(shard_rows, pairs, recipe)
    warnings = list(chosen.notes)
    for file, _ in pairs:
        table = storage.read_table(file)
        judged = _cut_as_judged(with_decisions(table, decide(table, chosen, recipe), recipe))
        storage.write_table(file, _still_failed(judged, table))
    files = [file for file, _ in pairs]
    counts = [_counts(file, recipe) for file in files]
    tables = write_tables(files, snapshot, recipe, map)
    storage.delete_folder(work)
    sources, footage_s = source_summary(run.files("sources"))
    warnings += [*tables.notes, *_notes(sum(uncut for uncut, _ in counts), sum(unseen for _, unseen in counts))]
    kept = {
        name: _entry(run, name, here) for name in ("sources", "embeddings", CONCEPTS, VOCABULARY) if name in run.tables
    }
    warnings += left_behind(run, [*kept, *tables.files], scored=True)  # columns are taken over
    record = commit_record(recipe, sources, tables, warnings, footage_s)
    record["judged"] = {"run": run.root, "snapshot": run.snapshot}
    record["looked"] = tables.looked
    record["times_s"] = {"judge": round(time.monotonic() - began, 3)}
    if snapshot.name == "dry-run":
        return Run(run.root, {**run.record, **record, "tables": {}})
    if concepts is not None:
        kept[CONCEPTS] = snapshot.write(CONCEPTS, storage.read_table(concepts))
    return manifest.publish_files(snapshot, {**kept, **tables.files}, record, parent)


def _entry(run: Run, name: str, here: bool) -> TableFiles:
    """The run's files of a table as the new snapshot lists them."""
    entry = run.entry(name)
    return entry if here else TableFiles(tuple(storage.absolute(file) for file in run.files(name)), entry.rows)


def _undecided(table: pa.Table, groups: str | None, run: Run, here: bool) -> pa.Table:
    """A file's rows with their measured columns; media are named so that the other run's folder finds them."""
    if groups is not None:
        table = left_join(table.drop_columns([n for n in RESULT.names[1:] if n in table.column_names]),
                          storage.read_table(groups))  # fmt: skip
    if not here:
        there = pc.binary_join_element_wise(storage.absolute(run.root), table["media"], "/")
        table = with_column(table, "media", pc.if_else(pc.starts_with(table["media"], "media/"), there, table["media"]))
    return with_column(table, "was_rejected_by", table["rejected_by"])


def _cut_as_judged(clips: pa.Table) -> pa.Table:
    """Media that were cut in another rectangle than the one that is judged are none of the clip's."""
    where = [name for name in ("clip_id", "media", *rescue.COLUMNS) if name in clips.column_names]
    there = pc.and_(clips["kept"], pc.is_valid(clips["media"]))
    rows = clips.select(where).filter(there).to_pylist()
    other = {r["clip_id"] for r in rows if not r["media"].endswith("/" + media_name(r["clip_id"], crop_of(r)))}
    if not other:
        return clips
    gone = pc.and_(there, pc.is_in(clips["clip_id"], pa.array(sorted(other), pa.string())))
    for name in ("media", "media_bytes", "media_hash"):
        clips = with_column(clips, name, pc.if_else(gone, pa.scalar(None, clips[name].type), clips[name]))
    return clips


def _still_failed(clips: pa.Table, before: pa.Table) -> pa.Table:
    """Clips that pass, but of which no clip or caption could be made, stay rejected as they were."""
    for rule in (CUT_FAILED.key, CAPTION_FAILED.key):
        failed = pc.and_(clips["kept"], pc.fill_null(pc.equal(before["was_rejected_by"], rule), False))
        clips = with_column(clips, "kept", pc.and_not(clips["kept"], failed))
        clips = with_column(clips, "rejected_by", pc.if_else(failed, rule, clips["rejected_by"]))
    return clips.drop_columns(["was_rejected_by"])


def _counts(file: str, recipe: Recipe) -> tuple[int, int]:
    """(clips that pass and were not cut, clips rejected only because no model looked at them)."""
    table = storage.read_table(file, ["kept", "media", "rejected_by", "looked"])
    uncut = pc.sum(pc.and_(table["kept"], pc.is_null(table["media"]))).as_py() or 0
    asked = pa.array([rule.key for rule, _ in rules.active(recipe, "look")], pa.string())
    unseen = pc.and_(pc.is_in(table["rejected_by"], asked), pc.is_null(table["looked"]))
    return int(uncut), int(pc.sum(unseen).as_py() or 0)


def _notes(uncut: int, unseen: int) -> list[str]:
    notes = []
    if uncut:
        notes.append(
            f"{uncut} clips pass now but were not cut: run `rushes curate` again with these thresholds to add them "
            f"to the sets (what was measured is not measured again)."
        )
    if unseen:
        notes.append(
            f"{unseen} clips pass the new thresholds on what the decode measured, but no model has looked at them: "
            f"`rushes curate` with these thresholds will."
        )
    return notes


def changed_parts(run: Run, recipe: Recipe) -> list[str]:
    """Parts of the work whose recipe differs from the run's."""
    was = run.record["recipe"]["parts"]
    return [part for part, key in parts_of(recipe).items() if was.get(part) != key]


def recipe_for_judging(run: Run, name: str | None, overrides: list[str]) -> Recipe:
    """The recipe to judge a run with: the run's own, or another, with overrides.

    Raises RecipeError where it asks for other measurements than the run holds.
    """
    own = resolved_of(run)
    recipe = recipes.build(own, overrides) if name is None else recipes.load(name, overrides)
    rules.check(recipe, [name for name in run.schema("clips").names if name not in manifest.CLIPS.names])
    older = changed_parts(run, recipes.build(own))
    for part in changed_parts(run, recipe):
        if part != "content" and part in older:
            raise RecipeError(
                f"{run.root} was made by a release that measures '{part}' otherwise: run the same `rushes curate` "
                "again, which makes anew what differs, then judge."
            )
        if part != "content":
            raise RecipeError(
                f"This recipe changes '{part}', which {run.root} holds as it was made, and judging opens no video: "
                f"use thresholds only, or run `rushes curate` with it."
            )
    return recipe
