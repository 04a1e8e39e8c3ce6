"""`rushes finetune publish`: the clips that people accepted, cut from their sources at the frames that people named."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import manifest, storage
from rushes.curation.curriculum import DURATIONS, bucket_of, buckets
from rushes.curation.decide import set_table
from rushes.curation.finetune import trim
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.table import in_schema, with_column
from rushes.curation.video.cut import CutClip, Cutter
from rushes.curation.video.source import Source, clip_id
from rushes.curation.video.times import Times, TimesError, frame_times
from rushes.pipelines.finetune import kept_clips
from rushes.pipelines.review.outcome import ACCEPTED
from rushes.pipelines.review.said import Reviewed, Verdict
from rushes.pipelines.view.tables import query

SET = "finetune"
PEOPLE = "people"  # caption_model of a caption that a person corrected
SURE = 1.0  # camera_motion_conf of a motion that a person named
SHORTEST_S = min(one.min_s for one in DURATIONS)  # of a bucket
FAILURES_NAMED = 5  # in the notes

DECISIONS = pa.schema([
    pa.field("number", pa.int64(), metadata={"meaning": "order in which decisions were made"}),
    pa.field("id", pa.string(), metadata={"meaning": "the client's name of the decision"}),
    pa.field("clip_id", pa.string(), metadata={"meaning": "clip of the reviewed run"}),
    pa.field("published", pa.string(), metadata={"meaning": "clip of this set that came of it", "null": "none did"}),
    pa.field("person", pa.string(), metadata={"meaning": "who decided"}),
    pa.field("verdict", pa.string(), metadata={"meaning": "accept, reject or undo"}),
    pa.field("reasons", pa.list_(pa.string()), metadata={"meaning": "of the recipe's list"}),
    pa.field("in_frame", pa.int32(), metadata={"meaning": "first frame within the clip", "null": "not accepted"}),
    pa.field("out_frame", pa.int32(), metadata={"meaning": "first frame after the span", "null": "not accepted"}),
    pa.field("at", pa.timestamp("ms", "UTC"), metadata={"meaning": "when it was made"}),
    pa.field("took_ms", pa.int32(), metadata={"meaning": "from the clip's first picture to the key", "unit": "ms"}),
    pa.field("undoes", pa.string(), metadata={"meaning": "id of the decision that is taken back"}),
])  # fmt: skip
WORDS = pa.schema([
    pa.field("clip_id", pa.string(), metadata={"meaning": "clip of this set"}),
    pa.field("field", pa.string(), metadata={"meaning": "field of the caption"}),
    pa.field("part", pa.int32(), metadata={"meaning": "order within the field"}),
    pa.field("person", pa.string(), metadata={"meaning": "who wrote these words; a model's drafts by its name"}),
    pa.field("words", pa.string(), metadata={"meaning": "one or more words"}),
])  # fmt: skip


def publish(
    run: Run, recipe: Recipe, reviewed: Reviewed, output: str, workers: int, step: Callable[[], None] = lambda: None
) -> tuple[Run, list[str]]:
    """Cut and publish the accepted clips at `output`: (the run there, what is to be said).

    A clip that cannot be cut, or whose file holds other frames than its row says, is left out and named. The same
    decisions again cut nothing twice. Raises ManifestError where nothing was accepted.
    """
    accepted = {one.clip_id: one for one in reviewed.verdicts if one.state == ACCEPTED}
    rows = kept_clips(run, list(accepted)).to_pylist()
    notes = [f"{len(accepted) - len(rows)} accepted clips are not in the run any more."] * (len(accepted) > len(rows))
    trimmed, failures = _trim(run, recipe, rows, accepted)
    over = trim.left_out(
        [row["clip_id"] for row in trimmed], [row["duration_s"] for row in trimmed], recipe.finetune.long_share,
        [accepted[row["was"]].suitability for row in trimmed], recipe.content.seed,
    )  # fmt: skip
    if over:
        notes.append(
            f"{len(over)} accepted clips are left out, so that {recipe.finetune.long_share:.0%} of the set are 16 s "
            f"(finetune.long_share)."
        )
    trimmed = [row for row in trimmed if row["clip_id"] not in over]
    if reviewed.unheard:
        notes.append(f"{reviewed.unheard} clips of the queue are not decided yet.")
    root = storage.absolute(output)
    with manifest.lock(root):
        cut, more = _cut(run, recipe, trimmed, root, workers, step)
        failures |= more
        notes += _told(failures)
        if not cut:
            raise ManifestError("No accepted clip could be published: " + (" ".join(notes) or "none was accepted."))
        tables = _tables(run, recipe, cut, accepted, reviewed)
        return manifest.publish(root, tables, _record(run, recipe, tables, reviewed, notes)), notes


def _trim(
    run: Run, recipe: Recipe, rows: list[dict[str, Any]], accepted: dict[str, Verdict]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The clips' rows with the span that people chose: `was` is the clip it is of. And clip id -> why there is none."""
    trimmed, failures = [], {}
    for row in rows:
        first, after = accepted[row["clip_id"]].span or (0, row["frames"])
        try:
            span = trim.source_span(_times(run, row), row["start_s"], row["frames"], first, after)
        except (TimesError, OSError) as error:
            failures[row["clip_id"]] = str(error)
            continue
        length_s = span.end_s - span.start_s
        if bucket_of(row["width"], row["height"], length_s) is None:
            failures[row["clip_id"]] = (
                f"the span is {length_s:.2f} s long, and no bucket takes less than {SHORTEST_S:g} s"
            )
            continue
        trimmed.append({
            **row, "was": row["clip_id"], "clip_id": clip_id(row["source_id"], span.start_s, span.end_s),
            "start_s": span.start_s, "end_s": span.end_s, "duration_s": length_s,
            "frames": span.frames,
        })  # fmt: skip
    return trimmed, failures


def _times(run: Run, row: dict[str, Any]) -> Times:
    """Times of a clip's frames: by its own file, or by its source where that file is gone."""
    try:
        return frame_times(run.address(row["media"]))
    except FileNotFoundError:
        return trim.clip_times(frame_times(row["uri"]), row["start_s"], row["end_s"], row["frames"])


def _cut(
    run: Run, recipe: Recipe, trimmed: list[dict[str, Any]], root: str, workers: int, step: Callable[[], None]
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    by_source: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in trimmed:
        by_source[row["source_id"]].append(row)
    known = [one.name for one in fields(Source)]
    sources = query(run, "SELECT * FROM {sources} WHERE list_contains(?, source_id)", [list(by_source)]).to_pylist()
    found = {row["source_id"]: Source(**{key: row[key] for key in known}) for row in sources
             if row["status"] in ("ok", "partial")}  # fmt: skip
    cutter = Cutter(recipe.cut, recipe.part_hash("cut"), root)
    done, failures = [], {}
    with ThreadPoolExecutor(workers) as pool:
        jobs = {
            (row["clip_id"], row["was"]): pool.submit(_cut_one, cutter, found.get(of), row)
            for of, rows in by_source.items() for row in rows
        }  # fmt: skip
        for row in trimmed:
            outcome = jobs[row["clip_id"], row["was"]].result()
            step()
            if isinstance(outcome, str):
                failures[row["was"]] = outcome
                continue
            done.append({
                **row, "media": outcome.media, "media_bytes": outcome.media_bytes, "media_hash": outcome.media_hash,
            })  # fmt: skip
    return done, failures


def _cut_one(cutter: Cutter, source: Source | None, row: dict[str, Any]) -> CutClip | str:
    if source is None:
        return "its source is not in the run's sources"
    return cutter(source, [row])[row["clip_id"]]


def _told(failures: dict[str, str]) -> list[str]:
    some = [f"{clip}: {why}" for clip, why in sorted(failures.items())[:FAILURES_NAMED]]
    more = f", and {len(failures) - len(some)} more" if len(failures) > len(some) else ""
    return [f"{len(failures)} accepted clips could not be cut ({'; '.join(some)}{more})."] if failures else []


# --- what is published ------------------------------------------------------------------------------------------------


def _tables(
    run: Run, recipe: Recipe, cut: list[dict[str, Any]], accepted: dict[str, Verdict], reviewed: Reviewed
) -> dict[str, pa.Table]:
    rows = [{**row, **_caption(row, accepted[row["was"]])} for row in cut]
    clips = in_schema(pa.Table.from_pylist(rows, _schema(rows)).drop_columns(["was"]), manifest.CLIPS)
    size = (np.array([row[name] for row in rows], np.float64) for name in ("width", "height", "duration_s"))
    clips = with_column(clips, "bucket", pa.array(buckets(*size), pa.string()))
    clips = with_column(clips, "sets", pa.array([[SET]] * len(rows), pa.list_(pa.string())))
    ids = [row["source_id"] for row in rows]
    sources = query(run, "SELECT * FROM {sources} WHERE list_contains(?, source_id)", [sorted(set(ids))])
    published = {row["was"]: row["clip_id"] for row in rows}
    decisions = [{**row, "published": published.get(row["clip_id"]), "at": _time(row["at"])} for row in
                 reviewed.decisions]  # fmt: skip
    return {
        "sources": in_schema(sources, manifest.SOURCES), "clips": clips, f"sets/{SET}": _set(clips, recipe),
        "decisions": pa.Table.from_pylist(decisions, DECISIONS),
        "caption_words": pa.Table.from_pylist(_words(rows, accepted), WORDS),
    }  # fmt: skip


def _schema(rows: list[dict[str, Any]]) -> pa.Schema:
    """CLIPS, and the run's own columns as Arrow reads them."""
    own = [name for name in rows[0] if name not in manifest.CLIPS.names]
    return pa.schema([*manifest.CLIPS, *pa.table({name: [row[name] for row in rows] for name in own}).schema])


def _caption(row: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """The caption that people left; the run's own where nobody wrote one."""
    writers = {who for runs in verdict.written_by.values() for who, _ in runs}
    by_hand = writers & set(verdict.people)
    if not by_hand or not verdict.text:
        return {}
    camera = verdict.fields.get("camera_control") or None
    return {
        "caption": verdict.text, "caption_model": PEOPLE, "caption_words": len(verdict.text.split()),
        "camera_motion": camera or row["camera_motion"],
        "camera_motion_conf": SURE if camera else row["camera_motion_conf"],
    }  # fmt: skip


def _set(clips: pa.Table, recipe: Recipe) -> pa.Table:
    """As every set; 16 s at 16 fps and the rest at 24, over the span that people chose."""
    table = set_table(clips, np.ones(clips.num_rows, bool), SET, recipe.finetune.resolution)
    order = np.argsort(np.array(clips["clip_id"].to_pylist(), object), kind="stable")
    duration_s, fps = (np.asarray(clips[name].to_pylist(), np.float64)[order] for name in ("duration_s", "fps"))
    start_s, end_s, frames = trim.sampled(duration_s, fps)
    rate = frames / (end_s - start_s)
    new = {
        "media_start_s": start_s, "media_end_s": end_s, "bucket_frames": frames, "sample_fps": rate,
        "fps_token": [f"FPS-{round(one)}" for one in rate],
    }  # fmt: skip
    for name, values in new.items():
        table = with_column(table, name, pa.array(values, manifest.SET.field(name).type))
    return table.cast(manifest.SET)


def _words(rows: list[dict[str, Any]], accepted: dict[str, Verdict]) -> list[dict[str, Any]]:
    return [
        {"clip_id": row["clip_id"], "field": name, "part": part, "person": who, "words": words}
        for row in rows
        for name, runs in accepted[row["was"]].written_by.items()
        for part, (who, words) in enumerate(runs)
    ]


def _record(
    run: Run, recipe: Recipe, tables: dict[str, pa.Table], reviewed: Reviewed, notes: list[str]
) -> dict[str, Any]:
    verdicts = [one.state for one in reviewed.verdicts]
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": {"name": recipe.name, "hash": recipe.full_hash(), "resolved": recipe.model_dump(mode="json")},
        "finetune": {
            "run": run.root, "snapshot": run.snapshot, "people": sorted({row["person"] for row in reviewed.decisions}),
            "accepted": verdicts.count(ACCEPTED), "rejected": verdicts.count("rejected"), "settings": reviewed.settings,
        },
        "funnel": {"sets": {SET: tables[f"sets/{SET}"].num_rows}},
        "warnings": notes,
    }  # fmt: skip


def _time(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)
