"""What became of one clip or one source, and why: every rule, its value and its threshold, as plain data."""

from __future__ import annotations

import difflib
import os
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import rules
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import ALIKE, COPIES, DRAW, LATE_RULES, LOOK_FAILED, PUBLISHED
from rushes.pipelines.view.pair import pair_of, stands_for
from rushes.pipelines.view.tables import query, recipe_of, records
from rushes.pipelines.view.words import needs, number, reason

#: Rules that reject a clip because a column could not be made: the reason is noted under the column's name.
MISSING_OF = {late.key: late.missing.split(",")[0] for late in LATE_RULES if late.missing}
CLIPS_NAMED = 4  # candidates named where a prefix is not unique
NEAREST_POOL = 2_000  # ids that are compared letter by letter when nothing matches
ID_LENGTH = 40  # letters of a name that are compared with ids
CLIPS_LISTED = 10_000  # most clips of a source that are listed


def story(run: Run, wanted: str) -> dict[str, Any]:
    """Everything about a clip, by its id or a unique prefix of it, or about sources by address, file name or id.

    Returns {clip, rules, pair, facts} for a clip (see `story_of`), or {sources: [{uri, status, error, clips}]}. Raises
    ManifestError where nothing or more than one thing matches; the sentence names the nearest.
    """
    ids = _beginning(run, wanted)
    if ids and (len(ids) == 1 or ids[0] == wanted):
        return story_of(run, query(run, "SELECT * FROM {clips} WHERE clip_id = ? LIMIT 1", [ids[0]]))
    named = _sources(run, wanted)
    if named:
        return {"sources": named}
    if ids:
        (count,) = records(run, "SELECT count(*) AS n FROM {clips} WHERE starts_with(clip_id, ?)", [wanted])
        some = ", ".join(ids[:CLIPS_NAMED])
        raise ManifestError(f"'{wanted}' begins {count['n']:,} clips ({some} ...): give more of the id.")
    raise ManifestError(f"{run.root} has no clip or source '{wanted}'; {nearest_name(run, wanted)}")


def clip_named(run: Run, wanted: str) -> str:
    """The id of the clip whose id it is, or begins alone; what is given where there is none, or more than one."""
    ids = _beginning(run, wanted)
    return ids[0] if len(ids) == 1 else wanted


def _beginning(run: Run, wanted: str) -> list[str]:
    """Ids that begin so, the very one first; at most one more than are named."""
    if not wanted:
        return []
    asked = "SELECT clip_id FROM {clips} WHERE starts_with(clip_id, ?) ORDER BY clip_id <> ?, clip_id LIMIT ?"
    return [row["clip_id"] for row in records(run, asked, [wanted, wanted, CLIPS_NAMED + 1])]


def story_of(run: Run, clip: pa.Table) -> dict[str, Any]:
    """One clip (a table of one row): its row, every rule {rule, value, needs, verdict}, and facts {name, text}.

    pair: the clip that stays in its place beside it (`pair.pair_of`), null where it is no copy.
    """
    recipe = recipe_of(run)
    lines = explain(clip, recipe)
    copies = stands_for(run, clip["clip_id"][0].as_py())
    facts = [*([("stands for", copies)] if copies else []), *_facts(clip, recipe)]
    return {
        "clip": clip.to_pylist()[0],
        "rules": [dict(zip(("rule", "value", "needs", "verdict"), line, strict=True)) for line in lines],
        "pair": pair_of(run, clip, recipe),
        "facts": [{"name": name, "text": text} for name, text in facts],
    }


def _sources(run: Run, wanted: str) -> list[dict[str, Any]]:
    if not wanted:
        return []
    base = "regexp_extract(uri, '[^/]*$')"
    columns = "SELECT source_id, uri, status, error FROM {sources} WHERE "
    found = records(run, f"{columns} uri = ? OR source_id = ? OR {base} = ? ORDER BY uri", [wanted] * 3)
    found = found or records(run, f"{columns} uri = ? ORDER BY uri", [os.path.abspath(wanted)])
    for row in found:
        row["clips"] = records(
            run,
            """SELECT clip_id, start_s, end_s, kept, rejected_by FROM {clips} WHERE source_id = ?
               ORDER BY start_s LIMIT ?""",
            [row["source_id"], CLIPS_LISTED],
        ) if row["source_id"] else []  # fmt: skip
    return found


def nearest_name(run: Run, wanted: str) -> str:
    """The end of a sentence that names the clip or source nearest to what was written, or where to look."""
    letters = wanted[:ID_LENGTH]
    begun = " + ".join(["starts_with(clip_id, ?)::INT"] * len(letters)) or "0"  # letters in common at the beginning
    prefixes = [letters[: length + 1] for length in range(len(letters))]
    likeliest = f"SELECT clip_id AS name FROM {{clips}} ORDER BY {begun} DESC, clip_id LIMIT ?"
    pool = records(run, likeliest, [*prefixes, NEAREST_POOL])
    if "sources" in run.tables:
        pool += records(run, "SELECT regexp_extract(uri, '[^/]*$') AS name FROM {sources} LIMIT ?", [NEAREST_POOL])
    near = difflib.get_close_matches(letters, [row["name"] for row in pool], n=1, cutoff=0.6)
    total = run.record["tables"]["clips"]["rows"]
    return f"did you mean '{near[0]}'?" if near else f"it holds {total:,} clips: see `rushes funnel`."


def explain(clip: pa.Table, recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Every rule over one clip (a table of one row), in order: (key, value, needs, verdict).

    verdict: pass, fail, not measured (the value is then the reason), or not reached (later rules ask survivors only).
    """
    rejected_by = clip["rejected_by"][0].as_py()
    early = rules.judge(clip, recipe, "analyze")[0] is not None or rejected_by == LOOK_FAILED.key
    lines = []
    for rule, threshold in rules.active(recipe):
        missing = np.isnan(rules.column(clip, rule.column)[0])
        unasked = missing and early and rule.phase == "look"
        value = "not looked at" if unasked else deciding_value(clip, rule.key, recipe)
        verdict = "pass" if _holds(clip, rule, threshold) else "fail"
        verdict = "not reached" if unasked else "not measured" if missing else verdict
        lines.append((rule.key, value, needs(recipe, rule.key), verdict))
    reached = not any(key == rejected_by for key, *_ in lines)
    later = [key for key in rules.LATER_RULES if needs(recipe, key) != "off" or key == rejected_by]
    if rejected_by and reached and rejected_by not in later:
        later.append(rejected_by)
    for key in later:
        verdict = "fail" if key == rejected_by else "pass" if reached else "not reached"
        lines.append((key, deciding_value(clip, key, recipe) if reached else "", needs(recipe, key), verdict))
        reached = reached and verdict == "pass"
    return lines


def _holds(clip: pa.Table, rule: rules.Rule, threshold: float) -> bool:
    if rule.key in rules.BY_KEY:
        return bool(rules.passes(clip, rule.key, threshold)[0])
    value = rules.column(clip, rule.column)[0]  # rules of the recipe's own are bounds: >= or <=
    return bool(value >= threshold if rule.compare == ">=" else value <= threshold)


def deciding_value(clip: pa.Table, key: str, recipe: Recipe) -> str:
    """What a rule saw in a clip (a table of one row), in a few words; '' where it leaves no trace."""
    row = clip.to_pylist()[0]
    for rule, threshold in rules.active(recipe):
        if rule.key == key:
            value = float(rules.column(clip, rule.column)[0])
            missing = f"not measured: {reason(row['notes'], rule.column) or 'no reason noted'}"
            cropped = " (left out by the crop)" if rules.judged(clip, rule.column)[0] != value else ""
            return missing if np.isnan(value) else number(value, threshold) + cropped
    if key in (COPIES.key, ALIKE.key):
        return f"duplicate of {row['duplicate_of']}" if row["duplicate_of"] else "no duplicate"
    if key == PUBLISHED.key:
        return f"repeats {row['published_copy']}" if row["published_copy"] else "in no older run"
    if key == DRAW.key and row["keep_prob"] is not None:
        return f"probability {row['keep_prob']:.2f}, cluster of {row['cluster_size'] or 1:,}"
    return reason(row["notes"], MISSING_OF.get(key, key)) or ""


def _facts(clip: pa.Table, recipe: Recipe) -> list[tuple[str, str]]:
    row = clip.to_pylist()[0]
    lines = [("duplicate of", row["duplicate_of"] or "none")]
    if row["cluster_id"] is not None:
        chance = f", kept with probability {row['keep_prob']:.2f}" if row["keep_prob"] is not None else ""
        lines.append(("cluster", f"number {row['cluster_id']}, of {row['cluster_size'] or 1:,} clips{chance}"))
    names = [*recipe.curriculum.sets, *(name for name in row["sets"] or () if name not in recipe.curriculum.sets)]
    lines += [(name, _in_set(clip, recipe, name)) for name in names]
    for label in ("bucket", "media", "caption"):
        lines.append((label, str(row[label] if row[label] is not None else "none")))
    return lines + [("note", note) for note in row["notes"] or ()]


def _in_set(clip: pa.Table, recipe: Recipe, name: str) -> str:
    if name in (clip["sets"][0].as_py() or ()):
        return "in the set"
    if not clip["kept"][0].as_py():
        return "no: not kept"
    failed = []
    for key, threshold in recipe.curriculum.sets[name].rules.items():
        if threshold is not None and not rules.passes(clip, key, threshold)[0]:
            failed.append(f"{key} {rules.BY_KEY[key].compare} {threshold:g}")
    return f"no: fails {', '.join(failed)}" if failed else "no: held out, over a quota, or not in the set before it"
