"""Answers about thresholds that are being moved: counts, histograms, sets, clips at the edge, two signals together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushes.curation import rules
from rushes.curation.recipe import Recipe
from rushes.curation.signals import BY_NAME, LOOK_FAILED
from rushes.pipelines.view.bins import BINS, Binned
from rushes.pipelines.view.clip_columns import LATE
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.counting import Sums
from rushes.pipelines.view.what_if import WhatIf

SAMPLES_MOST = 24


def board(held: WhatIf, overrides: Sequence[str] = (), brief: bool = False) -> dict[str, Any]:
    """What the moved thresholds would keep, for the whole run; brief: charts without what no threshold moves.

    rules: in order, {key, column, compare, published, value (None: off), rejected (it is the first that fails),
    alone (no other fails), limits, whole, text}. charts: by column {edges, all, nulls, inside, alone}: all clips, those
    that pass every rule, those that fail only rules of this column. kept and sets: {clips, seconds, landscape, people}
    after and before; of a set, what may enter it. said: sentences on what is not foreseen.
    """
    recipe = held.recipe_with(overrides)
    was = held.published.sums
    held, uncounted = held.as_cut_by(recipe)
    with held.judged(recipe) as state:
        now = state.sums
    parts = ["kept", *recipe.curriculum.sets]
    first = dict(zip(held.order, now.first.tolist()[:-1], strict=True))
    alone = dict(zip(held.order, now.alone.sum(axis=1).tolist(), strict=True))
    shown = {name: _part(now.parts[at]) | {"before": _part(was.parts[at])} for at, name in enumerate(parts)}
    return {
        "clips": held.rows,
        "rules": rules_of(held, recipe, first, alone),
        "charts": {column: _chart(held, column, now, brief) for column in held.columns},
        "passing": {"clips": now.passing, "before": was.passing},
        "kept": shown.pop("kept"),
        "enter": int(now.odd[0]),
        "leave": int(now.odd[1]),
        "late": _later(held, now),
        "sets": shown,
        "said": _said(now, was, uncounted),
    }


def edge(held: WhatIf, overrides: Sequence[str], key: str | None, count: int) -> dict[str, Any]:
    """Clips to look at while a threshold moves: {inside, outside, enter, leave}, lists of rows with `value`.

    inside and outside: that pass all rules, and that fail the rule `key` alone, those nearest to its threshold first.
    enter and leave: that pass by the moved thresholds and not by the published ones, and the other way round. key None:
    the last two alone, some of them.
    """
    if not 1 <= count <= SAMPLES_MOST:
        raise QueryError(f"Ask for 1 to {SAMPLES_MOST} clips.")
    recipe = held.recipe_with(overrides)
    held, _ = held.as_cut_by(recipe)
    column, threshold = _rule_of(held, recipe, key) if key else (None, None)
    with held.judged(recipe) as state:
        lists = dict(zip(("enter", "leave"), held.changes(state), strict=True))
        if key and threshold is not None:
            lists |= {"inside": held.passing(state), "outside": held.failing_alone(state, key)}
    chosen = {name: _nearest(held, some, column, threshold, count) for name, some in lists.items()}
    found: dict[str, Any] = {}
    for name, places in chosen.items():
        values = held.values[column][places].tolist() if column else [None] * len(places)
        found[name] = [row | {"value": value} for row, value in zip(held.held.shown(places), values, strict=True)]
    return {"key": key, "column": column, **found}


def two(held: WhatIf, overrides: Sequence[str], x: str, y: str) -> dict[str, Any]:
    """Two signals together: {x, y: {column, edges}, all, inside: [BINS][BINS] counts by row of y, thresholds}."""
    recipe = held.recipe_with(overrides)
    held, _ = held.as_cut_by(recipe)
    for column in (x, y):
        if column not in held.columns:
            raise QueryError(f"'{column[:60]}' has no threshold here; signals: {', '.join(held.columns)}.")
    with held.judged(recipe) as state:
        inside = held.passing(state)
    lines = [
        {"column": rule.column, "compare": rule.compare, "value": threshold}
        for rule, threshold in rules.active(recipe) if rule.column in (x, y)
    ]  # fmt: skip
    return {
        "x": {"column": x, "edges": held.bins.binned[x].edges.tolist()},
        "y": {"column": y, "edges": held.bins.binned[y].edges.tolist()},
        "all": held.bins.pairs(x, y).tolist(),
        "inside": held.bins.pairs(x, y, inside).tolist(),
        "thresholds": lines,
    }


# --- parts --------------------------------------------------------------------------------------------------------


def rules_of(held: WhatIf, recipe: Recipe, first: dict[str, int], alone: dict[str, int] | None) -> list[dict[str, Any]]:
    """The rules of a board; first: clips by the first rule that they fail; alone: by the only one, None: not known."""
    published = {rule.key: threshold for rule, threshold in rules.active(held.recipe)}
    moved = {rule.key: threshold for rule, threshold in rules.active(recipe)}
    return [
        {
            "key": rule.key, "column": rule.column, "compare": rule.compare, "phase": rule.phase, "text": rule.text,
            "limits": rule.limits, "whole": rule.whole, "published": published.get(rule.key),
            "value": moved.get(rule.key), "rejected": first.get(rule.key, 0),
            "alone": alone[rule.key] if alone is not None else None,
            "unit": BY_NAME[rule.column].unit if rule.column in BY_NAME else "",
            "meaning": BY_NAME[rule.column].meaning if rule.column in BY_NAME else "a signal of your own",
        }
        for rule in held.rules
    ]  # fmt: skip


def _chart(held: WhatIf, column: str, now: Sums, brief: bool) -> dict[str, Any]:
    own = [held.order.index(rule.key) for rule in held.rules if rule.column == column]
    alone = now.alone[own].sum(axis=0)[:BINS]
    moving = {"inside": now.inside[held.columns.index(column)].tolist(), "alone": alone.tolist()}
    return moving if brief else {**still(held.bins.binned[column]), **moving}


def still(binned: Binned) -> dict[str, Any]:
    """What no threshold moves of a column's chart."""
    return {"edges": binned.edges.tolist(), "all": binned.counts.tolist(), "nulls": binned.nulls}


def _later(held: WhatIf, now: Sums) -> dict[str, int]:
    """Clips by what rejected them beside thresholds: models that failed at them, copies, the draw, cutting."""
    failed = int(now.first[held.order.index(LOOK_FAILED.key)])
    counts = [(LOOK_FAILED.key, failed), *zip(LATE, now.late.tolist(), strict=True)]
    return {rule: n for rule, n in counts if n}


def _part(counts: np.ndarray) -> dict[str, Any]:
    """Counts of Sums.parts as people read them."""
    clips, ms, landscape, people = (int(count) for count in counts)
    return {
        "clips": clips, "seconds": ms / 1000, "landscape": landscape / clips if clips else None,
        "people": people / clips if clips else None,
    }  # fmt: skip


def _rule_of(held: WhatIf, recipe: Recipe, key: str) -> tuple[str, float | None]:
    column = next((rule.column for rule in held.rules if rule.key == key), None)
    if column is None:
        raise QueryError(f"'{key[:100]}' is no threshold of this run.")
    return column, next((threshold for rule, threshold in rules.active(recipe) if rule.key == key), None)


def _nearest(
    held: WhatIf, clips: np.ndarray, column: str | None, threshold: float | None, count: int
) -> list[int]:  # fmt: skip
    """The clips whose value is nearest to the threshold; some, evenly spread, where there is none."""
    if column is None or threshold is None:
        return clips[:: max(1, len(clips) // count)][:count].tolist()
    away = np.abs(held.values[column][clips] - threshold)
    some = np.argpartition(away, count)[:count] if len(clips) > count else np.arange(len(clips))
    return clips[some[np.argsort(away[some], kind="stable")]].tolist()


def _said(now: Sums, was: Sums, uncounted: int) -> list[str]:
    said = []
    if now.odd[0] or now.odd[1]:
        said.append("Copies and the draw are decided anew when it is published; here they are as they were.")
    unseen = int(now.odd[2] - was.odd[2])
    if unseen > 0:
        said.append(
            f"{unseen:,} more clips pass what the decode measured, but no model has looked at them: `rushes curate` "
            f"with these thresholds will."
        )
    if uncounted:
        said.append(f"{uncounted:,} clips with text would be cut otherwise; they are counted as they were cut.")
    return said
