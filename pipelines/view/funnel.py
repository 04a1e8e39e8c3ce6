"""What became of every input and every clip, as plain data.

Everything is recomputed from the published tables, never copied from the commit record: a funnel that does not add
up is an error and not a picture.
"""

from __future__ import annotations

from typing import Any

from rushes.curation import rules
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import STATUSES
from rushes.pipelines.view.tables import recipe_of, records
from rushes.pipelines.view.words import needs


def funnel(run: Run, errors_most: int | None = None) -> dict[str, Any]:
    """What became of everything that went in, as JSON values, recomputed from the tables.

    Keys: recipe, created; sources {inputs, ok, partial, duplicate, failed, footage_s, seconds by status, errors (at
    most `errors_most`), troubled: how many there are}; clips: rows {rule, needs, rejected, remaining, share (0-1 of
    all clips), remaining_s}; kept; kept_s; rescued: rows {cause, clips, seconds, kept, kept_s} of clips that are
    cropped; sets: by name {clips, seconds, buckets, orientation shares, people share}.
    Raises ManifestError where it does not add up.
    """
    recipe = recipe_of(run)
    return {
        "recipe": {key: value for key, value in run.record["recipe"].items() if key != "resolved"},
        "created": run.record.get("created"),
        "sources": _sources(run, errors_most),
        **_clips(run, recipe),
        "sets": _sets(run, recipe),
    }


def _sources(run: Run, errors_most: int | None) -> dict[str, Any]:
    by_status = records(
        run,
        """SELECT status, count(*) AS n, coalesce(sum(duration_s), 0) AS seconds, count(error) AS troubled
           FROM {sources} GROUP BY status""",
    )
    counts = {row["status"]: row["n"] for row in by_status}
    inputs = sum(counts.values())
    if sum(counts.get(status, 0) for status in STATUSES) != inputs:
        raise ManifestError(
            f"The sources of {run.root} do not add up: {inputs} inputs, by status {counts}; curate it again."
        )
    seconds = {status: 0.0 for status in STATUSES} | {row["status"]: row["seconds"] for row in by_status}
    errors = records(
        run,
        """SELECT uri, status, error FROM {sources} WHERE error IS NOT NULL
           ORDER BY list_position(['failed', 'duplicate', 'partial', 'ok'], status), uri LIMIT ?""",
        [inputs if errors_most is None else errors_most],
    )
    return {
        "inputs": inputs,
        **{status: counts.get(status, 0) for status in STATUSES},
        "footage_s": seconds["ok"] + seconds["partial"],  # each content once
        "seconds": seconds,
        "errors": errors,
        "troubled": sum(row["troubled"] for row in by_status),
    }


def _clips(run: Run, recipe: Recipe) -> dict[str, Any]:
    by_rule = records(
        run,
        """SELECT rejected_by, count(*) AS n, count(*) FILTER (kept) AS kept, count(*) - count(kept) AS unjudged,
                  coalesce(sum(duration_s), 0) AS seconds
           FROM {clips} GROUP BY rejected_by""",
    )
    found = {row["rejected_by"]: row for row in by_rule}
    counts = {rule: row["n"] for rule, row in found.items() if rule is not None}
    total = sum(row["n"] for row in by_rule)
    kept = found[None]["kept"] if None in found else 0
    rows = rules.funnel_rows(counts, total, recipe)
    contradictory = sum(row["kept"] for row in by_rule) - kept  # kept and rejected at once
    if contradictory or rows[-1]["remaining"] != kept or any(row["unjudged"] for row in by_rule):
        raise ManifestError(
            f"The clips of {run.root} do not add up: {total} clips, {kept + contradictory} kept, "
            f"{sum(counts.values())} with a rule that rejected them; judge it again."
        )
    remaining_s = sum(row["seconds"] for row in by_rule)
    for row in rows:
        remaining_s -= found[row["rule"]]["seconds"] if row["rule"] in counts else 0.0
        row["needs"] = needs(recipe, row["rule"])
        row["share"] = row["remaining"] / total if total else None
        row["remaining_s"] = max(remaining_s, 0.0)
    kept_s = found[None]["seconds"] if None in found else 0.0
    return {"clips": rows, "kept": kept, "kept_s": kept_s, "rescued": _rescued(run)}


def _rescued(run: Run) -> list[dict[str, Any]]:
    """By what the crop leaves out: clips that have one and their seconds, and those of them that are kept."""
    return records(
        run,
        """SELECT crop_for AS cause, count(*) AS clips, sum(duration_s) AS seconds, count(*) FILTER (kept) AS kept,
                  coalesce(sum(duration_s) FILTER (kept), 0) AS kept_s
           FROM {clips} WHERE crop_for IS NOT NULL GROUP BY crop_for ORDER BY crop_for""",
    )


def _sets(run: Run, recipe: Recipe) -> dict[str, Any]:
    names = [name for name in run.tables if name.startswith("sets/")]
    order = [f"sets/{name}" for name in recipe.curriculum.sets]
    names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name.removeprefix("sets/"): _set(run, name, recipe.content.people_min) for name in names}


def _set(run: Run, name: str, people_min: float) -> dict[str, Any]:
    rows = records(
        run,
        f"""SELECT s.bucket, c.orientation, count(*) AS n, sum(s.media_end_s - s.media_start_s) AS seconds,
                   count(*) FILTER (c.human_score >= ?) AS people
            FROM {{{name}}} s LEFT JOIN {{clips}} c USING (clip_id) GROUP BY ALL""",
        [people_min],
    )
    total = sum(row["n"] for row in rows)
    buckets, orientation = _summed(rows, "bucket"), _summed(rows, "orientation")
    return {
        "clips": total,
        "seconds": sum(row["seconds"] or 0.0 for row in rows),
        "buckets": buckets,
        "orientation": {key: count / total for key, count in orientation.items()},
        "people": sum(row["people"] for row in rows) / total if total else None,
    }


def _summed(rows: list[dict[str, Any]], key: str) -> dict[Any, int]:
    """Values of `key` and how many clips have them, commonest first."""
    counts: dict[Any, int] = {}
    for row in rows:
        counts[row[key]] = counts.get(row[key], 0) + row["n"]
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0]))))
