"""`rushes finetune`: candidates by stricter rules, the same number per concept, and the set that people chose.

Every step publishes a snapshot: candidates and balanced clips in the run itself, the finished set as a run of its own,
cut from the sources.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rushes.curation import manifest, rules
from rushes.curation.captioning.frames import FrameError, from_media
from rushes.curation.content.near import semantic, unit
from rushes.curation.decide import set_table
from rushes.curation.finetune.balance import Balance, Concept, balance
from rushes.curation.finetune.subject import METHOD, detected, subject_of
from rushes.curation.looking.base import ModelError
from rushes.curation.looking.detector import OnnxPeople
from rushes.curation.manifest import ManifestError, Run, Snapshot
from rushes.curation.recipe import Recipe
from rushes.curation.sets import VALIDATION
from rushes.curation.table import with_column
from rushes.pipelines.view.near import text_vector
from rushes.pipelines.view.stills import stills_of
from rushes.pipelines.view.tables import query

CANDIDATES, BALANCED = "sets/candidates", "sets/balanced"
STILLS_AT_ONCE = 200  # clips whose stills are in memory
PICTURES, SIDE = 3, 320  # taken of a clip whose stills are gone; px
EVERYTHING = "everything"  # the one concept of a run for which none was named
SUBJECT = pa.schema([
    pa.field("subject_frac", pa.float32(), metadata={"meaning": "share of the picture that the main subject's box "
                                                     "covers", "unit": "0-1", "null": "nothing stands out"}),
    pa.field("subject_box", pa.list_(pa.float32()), metadata={"meaning": "left, top, right, bottom", "unit": "0-1"}),
    pa.field("subject_by", pa.string(), metadata={"meaning": "who found it"}),
])  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What a step published, and what it says of it."""

    run: Run
    rows: int
    notes: list[str]


# --- candidates -------------------------------------------------------------------------------------------------------


def candidates(run: Run, recipe: Recipe) -> Step:
    """Publish the kept clips that pass `finetune.rules` and whose main subject is large enough, as sets/candidates.

    Clips of the sources that validation holds out are none. Raises ManifestError.
    """
    clips = kept_clips(run)
    notes = []
    open_ = np.ones(clips.num_rows, bool)
    held = _held_out(run)
    if held:
        inside = np.asarray(pc.is_in(clips["source_id"], pa.array(sorted(held), pa.string())))
        notes.append(f"validation holds out the sources of {int((open_ & inside).sum())} clips.")
        open_ &= ~inside
    for key, threshold in recipe.finetune.rules.items():
        if threshold is None:
            continue
        fails = open_ & ~rules.passes(clips, key, threshold)
        if fails.any():
            notes.append(f"{key}={threshold:g} leaves out {int(fails.sum())} of {int(open_.sum())} clips.")
        open_ &= ~fails
    clips = clips.filter(pa.array(open_))
    subjects = _subjects(run, recipe, clips)
    least = recipe.finetune.subject_min
    if least is not None and clips.num_rows:
        large = np.asarray(pc.fill_null(pc.greater_equal(subjects["subject_frac"], pa.scalar(least, pa.float32())),
                                        False))  # fmt: skip
        if not large.all():
            notes.append(f"finetune.subject_min={least:g} leaves out {int((~large).sum())} of {len(large)} clips.")
        clips, subjects = clips.filter(pa.array(large)), subjects.filter(pa.array(large))
    table = _set_of(clips, "candidates", recipe)
    order = pc.index_in(table["clip_id"], clips["clip_id"].combine_chunks())
    for name in SUBJECT.names:
        table = table.append_column(SUBJECT.field(name), subjects[name].take(order))
    return Step(_republish(run, {CANDIDATES: table}), table.num_rows, notes)


def kept_clips(run: Run, ids: list[str] | None = None) -> pa.Table:
    """Rows of the clips (all, or of these ids) that are kept and cut."""
    some = "" if ids is None else "AND list_contains(?, clip_id)"
    sql = f"SELECT * FROM {{clips}} WHERE kept AND media IS NOT NULL {some} ORDER BY clip_id"
    return query(run, sql, [] if ids is None else [ids])


def _held_out(run: Run) -> set[str]:
    name = f"sets/{VALIDATION}"
    return set(run.table(name, ["source_id"])["source_id"].to_pylist()) if name in run.tables else set()


def _set_of(clips: pa.Table, name: str, recipe: Recipe) -> pa.Table:
    return set_table(clips, np.ones(clips.num_rows, bool), name, recipe.finetune.resolution)


def _subjects(run: Run, recipe: Recipe, clips: pa.Table) -> pa.Table:
    """A row of SUBJECT for each clip, in their order."""
    media = dict(zip(clips["clip_id"].to_pylist(), clips["media"].to_pylist(), strict=True))
    find, by, rows = subject_of, METHOD, []
    if recipe.finetune.detector:
        try:
            detector = OnnxPeople(recipe.finetune.detector, key="finetune.detector")
        except ModelError as error:
            raise ManifestError(str(error)) from error
        find, by = detected(detector), detector.name
    for clip_id, pictures in _pictures(run, recipe, media):
        found = find(pictures)
        rows.append({
            "clip_id": clip_id, "subject_frac": found.frac if found else None,
            "subject_box": list(found.box) if found else None, "subject_by": by,
        })  # fmt: skip
    return pa.Table.from_pylist(rows, pa.schema([("clip_id", pa.string()), *SUBJECT])).select(SUBJECT.names)


def _pictures(run: Run, recipe: Recipe, media: dict[str, str]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Some pictures (uint8 BGR) of every clip: its stills, or frames of its file where those were cleared away."""
    import cv2

    ids = list(media)
    for start in range(0, len(ids), STILLS_AT_ONCE):
        some = ids[start : start + STILLS_AT_ONCE]
        stills = stills_of(run, recipe, some)
        for clip_id in some:
            jpegs = stills.get(clip_id) or _frames(run.address(media[clip_id]))
            decoded = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) for jpeg in jpegs)
            yield clip_id, [picture for picture in decoded if picture is not None]


def _frames(address: str) -> list[bytes]:
    try:
        return from_media(address, PICTURES, SIDE)
    except FrameError:
        return []


# --- balance ----------------------------------------------------------------------------------------------------------


def balanced(
    run: Run, recipe: Recipe, concepts: dict[str, dict[str, Any]], each: int | None = None, weights: str | None = None
) -> Step:
    """Publish the same number of candidates for each concept as sets/balanced, with a column `concept`.

    concepts: name -> {seeds: clip ids that people picked, text: words, where the vectors know any}; none: all
    candidates are one concept. weights: where those of the run's model lie, if not where its recipe says. Raises
    ManifestError for a seed that is no candidate's.
    """
    each = each or recipe.finetune.per_concept
    table = run.table(CANDIDATES)
    ids = set(table["clip_id"].to_pylist())
    if not ids:
        raise ManifestError(
            f"{run.root} has no candidates: loosen finetune.rules and run `rushes finetune candidates`."
        )
    if concepts:
        found = balance(_concepts(run, concepts, weights), _vectors(run, ids), each, recipe.finetune.near_min)
        named = {one.clip_id: one for one in found.chosen}
    else:
        found, named = Balance((), {}), dict.fromkeys(ids)
    notes = [f"the concept '{name}' lacks {count} of {each} clips." for name, count in found.missing.items()]
    table = table.filter(pc.is_in(table["clip_id"], pa.array(sorted(named), pa.string())))
    table = with_column(table, "set", pa.array(["balanced"] * len(table), pa.string()))
    chosen = [named[clip_id] for clip_id in table["clip_id"].to_pylist()]
    table = table.append_column("concept", pa.array([o.concept if o else EVERYTHING for o in chosen], pa.string()))
    table = table.append_column("concept_cosine", pa.array([o.cosine if o else None for o in chosen], pa.float32()))
    return Step(_republish(run, {BALANCED: table}), table.num_rows, notes)


def _concepts(run: Run, concepts: dict[str, dict[str, Any]], weights: str | None) -> list[Concept]:
    wanted = {seed for of in concepts.values() for seed in of.get("seeds") or ()}
    known = {clip_id: row for ids, rows in _vectors(run, wanted) for clip_id, row in zip(ids, rows, strict=True)}
    found = []
    for name, of in concepts.items():
        seeds = tuple(of.get("seeds") or ())
        for seed in seeds:
            if seed not in known:
                raise ManifestError(f"The concept '{name}' names the clip {seed}, of which {run.root} has no vector.")
        vectors = [known[seed] for seed in seeds]
        if of.get("text"):
            vectors.append(unit(np.asarray(text_vector(run, of["text"], weights), np.float32)[None])[0])
        if not vectors:
            raise ManifestError(f"The concept '{name}' has neither seeds nor a text: give it one.")
        found.append(Concept(name, seeds, np.stack(vectors)))
    return found


def _vectors(run: Run, wanted: set[str]) -> Iterable[tuple[list[str], np.ndarray]]:
    """Ids and unit vectors of some clips, in pieces."""
    for ids, rows in semantic(run):
        places = [place for place, clip_id in enumerate(ids) if clip_id in wanted]
        if places:
            yield [ids[place] for place in places], unit(rows[places])


# --- what every step shares -------------------------------------------------------------------------------------------


def _republish(run: Run, tables: dict[str, pa.Table]) -> Run:
    """The run with these tables beside its own, as a new snapshot of it. Raises ManifestError where it has moved on."""
    with manifest.lock(run.root):
        snapshot = Snapshot.begin(run.root)
        try:
            listed = {name: run.entry(name) for name in run.tables if name not in tables}
            listed |= {name: snapshot.write(name, table) for name, table in tables.items()}
            return manifest.publish_files(snapshot, listed, record_with(run, tables), run.snapshot)
        except BaseException:
            snapshot.discard()
            raise


def record_with(run: Run, tables: dict[str, pa.Table]) -> dict[str, Any]:
    """The run's commit record for a further snapshot, with the rows of new sets in its funnel."""
    own = ("schema_version", "snapshot", "parent", "history", "tables")
    record = {key: value for key, value in run.record.items() if key not in own}
    sets = {name.removeprefix("sets/"): table.num_rows for name, table in tables.items() if name.startswith("sets/")}
    if sets and "funnel" in record:
        record["funnel"] = {**record["funnel"], "sets": {**record["funnel"].get("sets", {}), **sets}}
    return {**record, "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}


def by_concept(run: Run) -> Counter[str]:
    """Clips of sets/balanced by concept."""
    return Counter(run.table(BALANCED, ["concept"])["concept"].to_pylist())


__all__ = ["BALANCED", "CANDIDATES", "Step", "balanced", "by_concept", "candidates", "kept_clips", "record_with"]
