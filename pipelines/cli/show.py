"""How runs are printed on a terminal: the funnel, one clip's story, two funnels side by side, a recipe."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import STATUSES
from rushes.pipelines.cli.terminal import fitted, tell
from rushes.pipelines.cli.terminal import shown as harmless
from rushes.pipelines.view.advice import advise, sentences
from rushes.pipelines.view.funnel import funnel
from rushes.pipelines.view.story import story
from rushes.pipelines.view.tables import recipe_of
from rushes.pipelines.view.words import hours, percent, span

ERRORS_SHOWN = 5  # failed inputs named; the report and --json name them all
BUCKETS_SHOWN = 4  # commonest buckets named beside a set
NARROW = 70  # columns of a terminal below which bars and remarks are left out
RECIPE_FROM = 100  # columns of a terminal on which a key, its value and its meaning stand side by side
WIDEST = 10_000  # columns at which nothing is broken
BAR_CELLS = 24  # width of a funnel bar, where the terminal leaves so much ...
GAP = 2  # spaces between two columns
BAR_LEAST = 8  # ... and the least that still tells something


def print_funnel(run: Run, console: Console) -> None:
    """Print `funnel`: sources by status with errors, the clips' way through the rules, the sets."""
    found = funnel(run, ERRORS_SHOWN)
    sources = found["sources"]
    recipe = f"  recipe {found['recipe'].get('name')} "
    console.print(
        Text.assemble((run.root, "bold"), recipe, (str(found["recipe"].get("hash")), "dim")),
        soft_wrap=not console.is_terminal,
    )
    colours = {"ok": "green", "partial": "yellow", "duplicate": "blue", "failed": "red"}
    parts = [f"[{colours[status]}]{sources[status]:,} {status}[/]" for status in STATUSES if sources[status]]
    console.print(f"\n[bold]{sources['inputs']:,} sources[/], {hours(sources['footage_s'])}: {', '.join(parts)}")
    for row in sources["errors"]:
        colour = colours[row["status"]]
        name = harmless(os.path.basename(row["uri"]), line=True)
        line = Text.assemble(f"  {row['status']:<10}", (name, colour), f"  {row['error']}")
        console.print(line, soft_wrap=not console.is_terminal)
    if sources["troubled"] > ERRORS_SHOWN:
        console.print(f"  [dim]... and {sources['troubled'] - ERRORS_SHOWN:,} more: rushes report, or --json[/]")
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
    for row in found["rescued"]:
        console.print(
            f"rescued by a crop ({row['cause']}): {hours(row['kept_s'])} kept of {hours(row['seconds'])}, "
            f"{row['kept']:,} of {row['clips']:,} clips"
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
        if room < wide[name] or not any(shown[name]):
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


def print_story(run: Run, wanted: str, console: Console) -> None:
    """Print everything about one clip or source (see `story`). Raises ManifestError where it is not one thing."""
    found = story(run, wanted)
    if "clip" in found:
        _print_clip(found, console)
    for source in found.get("sources", ()):
        _print_source(source, console)


def _print_clip(found: dict[str, Any], console: Console) -> None:
    """One clip's story: its span, every rule in order, its duplicates, cluster, sets, caption."""
    row = found["clip"]
    fate = "[bold green]kept[/]" if row["kept"] else f"[bold red]rejected by {row['rejected_by']}[/]"
    console.print(f"[bold]{row['clip_id']}[/]  {fate}")
    where = f"{span(row['start_s'], row['end_s'])} ({row['duration_s']:.2f} s, {row['frames']} frames)"
    size = f"{row['width']} x {row['height']}, {row['fps']:g} fps, {row['orientation']}"
    tell(f"{row['uri']}\n{where}   {size}", to=console)
    console.print(_rules_table(found["rules"], row["rejected_by"], console))
    if found["pair"] is not None:
        console.print(_pair_table(row["clip_id"], found["pair"]))
    for label, text in (fact.values() for fact in found["facts"]):
        lines = fitted(f"{label:<18}{text}", console.width) if console.is_terminal else f"{label:<18}{text}"
        fact = Text(lines)
        fact.stylize("dim", 0, len(label))
        console.print(fact, soft_wrap=True)


def _rules_table(rules: list[dict[str, str]], rejected_by: str | None, console: Console) -> Table:
    """Rule, value, what it needs, verdict; on a narrow terminal the value stands below the rule."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("rule", "value", "needs", ""):
        table.add_column(name, no_wrap=name in ("rule", ""), justify="right" if name == "value" else "left")
    stacked = Table(box=None, padding=(0, 1), show_header=False)
    for key, value, wants, verdict in (rule.values() for rule in rules):
        decisive = key == rejected_by
        style = "bold red" if decisive else {"pass": "green", "not reached": "dim"}.get(verdict, "yellow")
        mark = f"{verdict}  <- rejected here" if decisive else verdict
        table.add_row(key, Text(value), Text(wants), Text(mark, style=style), style="bold" if decisive else "")
        value = f"{value}, " if value else ""
        stacked.add_row(Text.assemble((key, "bold"), "  ", (mark, style), f"\n  {value}needs: {wants}"))
    return table if _fits(table, console) else stacked


def _fits(table: Table, console: Console) -> bool:
    """Whether the table has room with no word of it broken; its columns become no narrower than their words."""
    wide = console.options.update(width=WIDEST)
    for column in table.columns:
        cells = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
        column.min_width = max(cell.maximum if column.no_wrap else cell.minimum for cell in cells)
    least = sum((column.min_width or 0) + GAP for column in table.columns)
    return not console.is_terminal or least <= console.width


def _pair_table(clip_id: str, pair: dict[str, Any]) -> Table:
    """A copy and the clip that stays, side by side, the line that decided marked."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in (f"{pair['decided_by'].replace('_', ' ')} decided", f"{clip_id} (goes)", f"{pair['clip_id']} (stays)"):
        table.add_column(name, overflow="fold")
    for line in pair["rows"]:
        mark = " <-" if line["decides"] else ""
        style = "bold" if line["decides"] else ""
        table.add_row(line["name"].replace("_", " ") + mark, Text(line["this"]), Text(line["other"]), style=style)
    return table


def _print_source(source: dict[str, Any], console: Console) -> None:
    tell(f"{source['uri']}  {source['status']}", "bold", console)
    if source["error"]:
        tell(source["error"], "red", console)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("clip", "span", "fate"):
        table.add_column(name, no_wrap=name != "fate")
    stacked = Table(box=None, padding=(0, 1), show_header=False)
    for row in source["clips"]:
        fate = Text("kept", style="green") if row["kept"] else Text(str(row["rejected_by"]), style="red")
        cells = (row["clip_id"], span(row["start_s"], row["end_s"]), fate)
        table.add_row(*cells)
        stacked.add_row(Text.assemble(cells[0], "\n  ", cells[1], "  ", fate))
    console.print((table if _fits(table, console) else stacked) if source["clips"] else "no clips")


def print_comparison(before: dict[str, Any], after: dict[str, Any], console: Console) -> None:
    """Two commit records' funnels side by side: what new thresholds do to every rule and every set."""
    was = {row["rule"]: row for row in before["funnel"]["clips"]}
    now = {row["rule"]: row for row in after["funnel"]["clips"]}
    table = Table(box=None, header_style="bold", pad_edge=False)
    before_name = "before" if console.width < NARROW else "rejected before"
    for name, justify in (("rule", "left"), (before_name, "right"), ("now", "right"), ("", "right")):
        table.add_column(name, justify=justify, overflow="fold")
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
        stacked = Table(box=None, show_header=False, padding=(0, 1))
        for key, knob in type(section).model_fields.items():
            value = getattr(section, key)
            held = ", ".join(value) if isinstance(value, dict) else str(value)
            table.add_row(f"{name}.{key}", held, knob.description, knob.json_schema_extra["part"])
            part = f"  ({knob.json_schema_extra['part']})"
            stacked.add_row(Text.assemble((f"{name}.{key}", "bold"), f"  {held}", (part, "dim")))
            stacked.add_row(Padding(Text(knob.description or ""), (0, 0, 0, 2)))
        console.print(stacked if console.is_terminal and console.width < RECIPE_FROM else table)
