"""What became of every input and every clip, in words: `rushes funnel` and `rushes why`.

Everything is recomputed from the published tables, never copied from the commit record: a funnel that does not add
up is an error and not a picture.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rushes.curation import manifest, rules
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe, build
from rushes.curation.signals import DRAW, LATE_RULES, STATUSES
from rushes.pipelines.view.advice import advise, sentences
from rushes.pipelines.view.words import hours, needs, number, percent, reason, span

ERRORS_SHOWN = 5  # failed inputs named on the terminal; the report and --json name them all
BUCKETS_SHOWN = 4  # commonest buckets named beside a set
NARROW = 70  # columns of a terminal below which bars and remarks are left out
BAR_CELLS = 24  # width of a funnel bar, where the terminal leaves so much ...
GAP = 2  # spaces between two columns
BAR_LEAST = 8  # ... and the least that still tells something
#: Rules that reject a clip because a column could not be made: the reason is noted under the column's name.
MISSING_OF = {late.key: late.missing for late in LATE_RULES if late.missing}
CLIPS_NAMED = 4  # candidates named where a prefix is not unique
NEAREST_POOL = 2_000  # ids that are compared letter by letter when nothing matches


def recipe_of(run: Run) -> Recipe:
    """The resolved recipe of a curated run. Raises RecipeError where this release cannot read it."""
    return build(resolved_of(run))


def resolved_of(run: Run) -> dict[str, Any]:
    """As `recipe_of`, as it stands in the commit record. Raises ManifestError where the run was not curated."""
    if "recipe" not in run.record:
        raise ManifestError(f"{run.root} is not a curated run; name the one that it was made from.")
    return run.record["recipe"]["resolved"]


def schema_of(run: Run, table: str) -> pa.Schema:
    """Schema of a published table, without reading its rows."""
    fs, root = manifest.resolve(run.root)
    return pq.read_schema(f"{root}/{run.record['tables'][table]['files'][0]}", filesystem=fs)


def rows_at(run: Run, table: str, indices: Sequence[int], columns: list[str] | None = None) -> pa.Table:
    """The rows at `indices` (any order, repeats allowed) of a table. Holds one row group in memory at a time."""
    fs, root = manifest.resolve(run.root)
    wanted = np.unique(np.asarray(indices, dtype=np.int64))
    parts, begin = [], 0
    for file in run.record["tables"][table]["files"]:
        with fs.open_input_file(f"{root}/{file}") as handle:
            parquet = pq.ParquetFile(handle)
            for group in range(parquet.num_row_groups):
                stop = begin + parquet.metadata.row_group(group).num_rows
                here = wanted[(wanted >= begin) & (wanted < stop)] - begin
                if len(here):
                    parts.append(parquet.read_row_group(group, columns=columns).take(here))
                begin = stop
    if not parts:
        return schema_of(run, table).empty_table().select(columns or schema_of(run, table).names)
    return pa.concat_tables(parts).take(np.searchsorted(wanted, np.asarray(indices, dtype=np.int64)))


# --- the funnel ---------------------------------------------------------------------------------------------------


def funnel_dict(run: Run) -> dict[str, Any]:
    """What became of everything that went in, as JSON values, recomputed from the tables.

    Keys: recipe, created; sources {inputs, ok, partial, duplicate, failed, footage_s, seconds by status, errors};
    clips: rows {rule, needs, rejected, remaining, share (0-1 of all clips), remaining_s}; kept; kept_s; advice: the
    rules that cost most {rule, needs, rejected, changes}; sets: by name {clips, seconds, buckets, orientation shares,
    people share}. Raises ManifestError where it does not add up.
    """
    recipe = recipe_of(run)
    return {
        "recipe": run.record.get("recipe") or {"name": recipe.name, "hash": recipe.full_hash()},
        "created": run.record.get("created"),
        "sources": _sources(run),
        **_clips(run, recipe),
        "advice": [advice.as_dict() for advice in advise(run, recipe)],
        "sets": _sets(run, recipe),
    }


def _sources(run: Run) -> dict[str, Any]:
    table = run.table("sources", ["uri", "status", "error", "duration_s"])
    counts = _counts(table["status"])
    if sum(counts.get(status, 0) for status in STATUSES) != table.num_rows:
        raise ManifestError(
            f"The sources of {run.root} do not add up: {table.num_rows} inputs, by status {counts}; curate it again."
        )
    seconds = {}
    for status in STATUSES:
        mine = table.filter(pc.equal(table["status"], status))
        seconds[status] = pc.sum(mine["duration_s"]).as_py() or 0.0
    trouble = table.filter(pc.is_valid(table["error"])).select(["uri", "status", "error"]).to_pylist()
    return {
        "inputs": table.num_rows,
        **{status: counts.get(status, 0) for status in STATUSES},
        "footage_s": seconds["ok"] + seconds["partial"],  # each content once
        "seconds": seconds,
        "errors": sorted(trouble, key=lambda row: (-STATUSES.index(row["status"]), row["uri"])),
    }


def _clips(run: Run, recipe: Recipe) -> dict[str, Any]:
    table = run.table("clips", ["kept", "rejected_by", "duration_s"])
    rows = rules.funnel(table["rejected_by"], recipe)
    kept = pc.sum(table["kept"]).as_py() or 0
    both = pc.sum(pc.equal(table["kept"], pc.is_valid(table["rejected_by"]))).as_py() or 0
    if both or rows[-1]["remaining"] != kept or table["kept"].null_count:
        raise ManifestError(
            f"The clips of {run.root} do not add up: {table.num_rows} clips, {kept} kept, "
            f"{sum(row['rejected'] for row in rows)} with a rule that rejected them; judge it again."
        )
    per_rule = table.group_by("rejected_by").aggregate([("duration_s", "sum")]).to_pylist()
    lost = {row["rejected_by"]: row["duration_s_sum"] or 0.0 for row in per_rule}
    remaining_s = sum(lost.values())
    for row in rows:
        remaining_s -= lost.get(row["rule"], 0.0)
        row["needs"] = needs(recipe, row["rule"])
        row["share"] = row["remaining"] / table.num_rows if table.num_rows else None
        row["remaining_s"] = max(remaining_s, 0.0)
    return {"clips": rows, "kept": kept, "kept_s": lost.get(None, 0.0)}


def _sets(run: Run, recipe: Recipe) -> dict[str, Any]:
    names = [name for name in run.tables if name.startswith("sets/")]
    order = [f"sets/{name}" for name in recipe.curriculum.sets]
    names.sort(key=lambda name: (order.index(name) if name in order else len(order), name))
    clips = run.table("clips", ["clip_id", "orientation", "human_score"]) if names else None
    found = {}
    for name in names:
        table = run.table(name, ["clip_id", "media_start_s", "media_end_s", "bucket"])
        mine = clips.take(pc.index_in(table["clip_id"], value_set=clips["clip_id"].combine_chunks()))
        people = pc.sum(pc.greater_equal(mine["human_score"], recipe.content.people_min)).as_py() or 0
        rows = table.num_rows
        found[name.removeprefix("sets/")] = {
            "clips": rows,
            "seconds": pc.sum(pc.subtract(table["media_end_s"], table["media_start_s"])).as_py() or 0.0,
            "buckets": _counts(table["bucket"]),
            "orientation": {key: count / rows for key, count in _counts(mine["orientation"]).items()},
            "people": people / rows if rows else None,
        }
    return found


def _counts(values: pa.ChunkedArray) -> dict[Any, int]:
    """Values and how often they occur, commonest first."""
    pairs = [(row["values"], row["counts"]) for row in pc.value_counts(values).to_pylist()]
    return dict(sorted(pairs, key=lambda pair: (-pair[1], str(pair[0]))))


def print_funnel(run: Run, console: Console) -> None:
    """Print `funnel_dict`: sources by status with errors, the clips' way through the rules, the sets."""
    found = funnel_dict(run)
    sources = found["sources"]
    recipe = f"  recipe {found['recipe'].get('name')} "
    console.print(
        Text.assemble((run.root, "bold"), recipe, (str(found["recipe"].get("hash")), "dim")),
        soft_wrap=not console.is_terminal,
    )
    colours = {"ok": "green", "partial": "yellow", "duplicate": "blue", "failed": "red"}
    parts = [f"[{colours[status]}]{sources[status]:,} {status}[/]" for status in STATUSES if sources[status]]
    console.print(f"\n[bold]{sources['inputs']:,} sources[/], {hours(sources['footage_s'])}: {', '.join(parts)}")
    for row in sources["errors"][:ERRORS_SHOWN]:
        colour = colours[row["status"]]
        line = Text.assemble(f"  {row['status']:<10}", (os.path.basename(row["uri"]), colour), f"  {row['error']}")
        console.print(line, soft_wrap=not console.is_terminal)
    if len(sources["errors"]) > ERRORS_SHOWN:
        console.print(f"  [dim]... and {len(sources['errors']) - ERRORS_SHOWN:,} more: rushes report, or --json[/]")
    console.print()
    console.print(_funnel_table(found, console.width))
    quiet = [row["rule"] for row in found["clips"][1:] if not row["rejected"] and row["needs"] not in ("", "off")]
    if quiet:
        console.print(f"[dim]rejected nothing: {', '.join(quiet)}[/]")
    total = found["clips"][0]["remaining"]
    console.print(
        f"\n[bold green]{found['kept']:,} of {total:,} clips kept[/], {hours(found['kept_s'])} "
        f"of {hours(sources['footage_s'])} of footage"
    )
    print_advice(run, console)
    if found["sets"]:
        console.print()
        console.print(_sets_table(found["sets"], console.width))


def print_advice(run: Run, console: Console) -> None:
    """Which rules cost most, and what loosening each would bring; nothing where nothing was rejected."""
    for line in sentences(advise(run, recipe_of(run)), run.root):
        console.print(line, style="dim", highlight=False, markup=False)


def _funnel_table(found: dict[str, Any], width: int) -> Table:
    """The clips' way through the rules; of what stands beside a rule, as much as the terminal's width holds."""
    rows = [row for row in found["clips"] if row["rejected"] or row["rule"] == "clips"]
    lost, left = ("lost", "left") if width < NARROW else ("rejected", "remaining")
    shown = {
        "rule": [row["rule"] for row in rows],
        "needs": [row["needs"] for row in rows],
        lost: [f"-{row['rejected']:,}" if row["rejected"] else "" for row in rows],
        left: [f"{row['remaining']:,}" for row in rows],
        "": [""] * len(rows),
        "%": [percent(row["share"]) for row in rows],
    }
    wide = {name: max(map(len, [name, *cells])) + GAP for name, cells in shown.items()}
    room = width - sum(wide[name] for name in ("rule", lost, left))
    for name in ("%", "needs"):
        if room < wide[name]:
            del shown[name]
        else:
            room -= wide[name]
    cells = min(BAR_CELLS, room - GAP)
    if cells < BAR_LEAST:
        del shown[""]
    else:
        full = [round(cells * (row["share"] or 0)) for row in rows]
        shown[""] = [Text("█" * n, style="green").append("·" * (cells - n), style="dim") for n in full]
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim", pad_edge=False)
    for name in shown:
        right = name in (lost, left, "%")
        table.add_column(
            name, justify="right" if right else "left", style="dim" if name == "needs" else "",
            no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
    for cell in zip(*shown.values(), strict=True):
        table.add_row(*cell)
    return table


def _sets_table(sets: dict[str, Any], width: int) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), header_style="dim", pad_edge=False)
    if width < NARROW:
        table.add_column("set", overflow="fold")
        for name in ("clips", "length"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, facts in sets.items():
            table.add_row(name, f"{facts['clips']:,}", hours(facts["seconds"]))
        return table
    table.add_column("set", no_wrap=True)
    for name in ("clips", "length", "landscape", "people"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("buckets", style="dim")
    for name, facts in sets.items():
        buckets = [f"{bucket} {count:,}" for bucket, count in facts["buckets"].items()]
        more = f", +{len(buckets) - BUCKETS_SHOWN}" if len(buckets) > BUCKETS_SHOWN else ""
        landscape = facts["orientation"].get("landscape", 0.0) if facts["clips"] else None
        shown = ", ".join(buckets[:BUCKETS_SHOWN]) + more
        length, people = hours(facts["seconds"]), percent(facts["people"])
        table.add_row(name, f"{facts['clips']:,}", length, percent(landscape), people, shown)
    return table


# --- one clip -----------------------------------------------------------------------------------------------------


def why(run: Run, wanted: str, console: Console) -> None:
    """Print everything about one clip: by its id, a unique prefix of it, or its source (address, name or id).

    A source is answered with its status and its clips' fates. Raises ManifestError where nothing or more than one
    thing matches; the sentence names the nearest.
    """
    ids = run.table("clips", ["clip_id", "source_id"])
    exact = _where(pc.equal(ids["clip_id"], wanted))
    found = exact if len(exact) else _where(pc.starts_with(ids["clip_id"], wanted))
    sources = run.table("sources", ["source_id", "uri", "status", "error"]).to_pylist()
    named = [row for row in sources if wanted in (row["uri"], os.path.basename(row["uri"]), row["source_id"])]
    named = named or [row for row in sources if row["uri"] == os.path.abspath(wanted)]
    if wanted and len(found) == 1:
        print_clip(rows_at(run, "clips", found), recipe_of(run), console)
    elif named:
        for row in named:
            mine = _where(pc.equal(ids["source_id"], row["source_id"])) if row["source_id"] else []
            _print_source(row, rows_at(run, "clips", mine).to_pylist() if len(mine) else [], console)
    elif wanted and len(found):
        some = ", ".join(ids["clip_id"].take(found[:CLIPS_NAMED]).to_pylist())
        raise ManifestError(f"'{wanted}' begins {len(found):,} clips ({some} ...): give more of the id.")
    else:
        raise ManifestError(f"{run.root} has no clip or source '{wanted}'; {_nearest(wanted, ids, sources)}")


def _where(mask: pa.ChunkedArray) -> np.ndarray:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def _nearest(wanted: str, ids: pa.Table, sources: list[dict[str, Any]]) -> str:
    pool = [os.path.basename(row["uri"]) for row in sources[:NEAREST_POOL]]
    for length in range(len(wanted) - 1, -1, -1):  # ids that share the longest beginning are the likeliest
        matches = _where(pc.starts_with(ids["clip_id"], wanted[:length]))
        if len(matches):
            pool += ids["clip_id"].take(matches[:NEAREST_POOL]).to_pylist()
            break
    near = difflib.get_close_matches(wanted, pool, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"it holds {ids.num_rows:,} clips: see `rushes funnel`."


def print_clip(clip: pa.Table, recipe: Recipe, console: Console) -> None:
    """Print one clip (a table of one row): its span, every rule in order, its duplicates, cluster, sets, caption."""
    row = clip.to_pylist()[0]
    fate = "[bold green]kept[/]" if row["kept"] else f"[bold red]rejected by {row['rejected_by']}[/]"
    console.print(f"[bold]{row['clip_id']}[/]  {fate}")
    where = f"{span(row['start_s'], row['end_s'])} ({row['duration_s']:.2f} s, {row['frames']} frames)"
    size = f"{row['width']} x {row['height']}, {row['fps']:g} fps, {row['orientation']}"
    console.print(Text(f"{row['uri']}\n{where}   {size}"), soft_wrap=True)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("rule", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("needs")
    table.add_column("", no_wrap=True)
    for key, value, wants, verdict in explain(clip, recipe):
        decisive = key == row["rejected_by"]
        style = "bold red" if decisive else {"pass": "green", "not reached": "dim"}.get(verdict, "yellow")
        mark = f"{verdict}  <- rejected here" if decisive else verdict
        table.add_row(key, Text(value), Text(wants), Text(mark, style=style), style="bold" if decisive else "")
    console.print(table)
    for label, text in _facts(clip, recipe):
        console.print(Text.assemble((f"{label:<18}", "dim"), text), soft_wrap=True)


def explain(clip: pa.Table, recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Every rule over one clip (a table of one row), in order: (key, value, needs, verdict).

    verdict: pass, fail, not measured (the value is then the reason), or not reached (later rules ask survivors only).
    """
    rejected_by = clip["rejected_by"][0].as_py()
    early = rules.judge(clip, recipe, "analyze")[0] is not None
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
            return missing if np.isnan(value) else number(value, threshold)
    if key == "content.copy_threshold":
        return f"duplicate of {row['duplicate_of']}" if row["duplicate_of"] else "no duplicate"
    if key == DRAW.key and row["keep_prob"] is not None:
        return f"probability {row['keep_prob']:.2f}, cluster of {row['cluster_size'] or 1:,}"
    return reason(row["notes"], MISSING_OF.get(key, key)) or ""


def _facts(clip: pa.Table, recipe: Recipe) -> list[tuple[str, str]]:
    row = clip.to_pylist()[0]
    lines = [("duplicate of", row["duplicate_of"] or "none")]
    if row["cluster_id"] is not None:
        chance = f", kept with probability {row['keep_prob']:.2f}" if row["keep_prob"] is not None else ""
        lines.append(("cluster", f"{row['cluster_id']} of {row['cluster_size'] or 1:,} clips{chance}"))
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


def _print_source(source: dict[str, Any], clips: list[dict[str, Any]], console: Console) -> None:
    console.print(Text(f"{source['uri']}  {source['status']}", style="bold"), soft_wrap=True)
    if source["error"]:
        console.print(Text(source["error"], style="red"), soft_wrap=True)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("clip", "span", "fate"):
        table.add_column(name, no_wrap=name != "fate")
    for row in sorted(clips, key=lambda row: row["start_s"]):
        fate = Text("kept", style="green") if row["kept"] else Text(str(row["rejected_by"]), style="red")
        table.add_row(row["clip_id"], span(row["start_s"], row["end_s"]), fate)
    console.print(table if clips else "no clips")


def print_comparison(before: dict[str, Any], after: dict[str, Any], console: Console) -> None:
    """Two commit records' funnels side by side: what new thresholds do to every rule and every set."""
    was = {row["rule"]: row for row in before["funnel"]["clips"]}
    now = {row["rule"]: row for row in after["funnel"]["clips"]}
    table = Table(box=None, header_style="bold")
    for name, justify in (("rule", "left"), ("rejected before", "right"), ("now", "right"), ("", "right")):
        table.add_column(name, justify=justify)
    for rule in [*now, *(rule for rule in was if rule not in now)]:
        old, new = was.get(rule, {}).get("rejected", 0), now.get(rule, {}).get("rejected", 0)
        if old or new:
            table.add_row(rule, str(old), str(new), f"{new - old:+d}" if new != old else "")
    kept = [rows[-1]["remaining"] if rows else 0 for rows in (before["funnel"]["clips"], after["funnel"]["clips"])]
    table.add_row(
        "kept", str(kept[0]), str(kept[1]), f"{kept[1] - kept[0]:+d}" if kept[0] != kept[1] else "", style="bold"
    )
    for name, size in after["funnel"]["sets"].items():
        old = before["funnel"]["sets"].get(name, 0)
        table.add_row(f"set {name}", str(old), str(size), f"{size - old:+d}" if size != old else "")
    console.print(table)
    for warning in after["warnings"]:
        console.print(f"note: {warning}", style="yellow", markup=False, highlight=False)


def print_recipe(recipe: Recipe, console: Console) -> None:
    """Every key of a recipe with its value and what it means, section by section."""
    from pydantic import BaseModel

    console.print(f"recipe {recipe.name}  {recipe.full_hash()}", style="bold", highlight=False)
    for name, field in type(recipe).model_fields.items():
        section = getattr(recipe, name)
        if not isinstance(section, BaseModel):
            console.print(f"{name}: {section}   [dim]{field.description}[/dim]", highlight=False)
            continue
        console.print(f"\n[bold]{name}[/bold]  [dim]{(type(section).__doc__ or name).splitlines()[0]}[/dim]")
        table = Table(box=None, show_header=False, padding=(0, 1))
        for key, knob in type(section).model_fields.items():
            value = getattr(section, key)
            shown = ", ".join(value) if isinstance(value, dict) else str(value)
            table.add_row(f"{name}.{key}", shown, knob.description, knob.json_schema_extra["part"])
        console.print(table)
