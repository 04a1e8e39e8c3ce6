"""Answers about thresholds that are being moved: counts, histograms, sets, clips at the edge, two signals together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rushes.curation import rules
from rushes.curation.recipe import Recipe
from rushes.curation.signals import BY_NAME, LOOK_FAILED
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.what_if import BINS, LATE, Judged, Tally, WhatIf

SAMPLES_MOST = 24


def board(held: WhatIf, overrides: Sequence[str] = (), brief: bool = False) -> dict[str, Any]:
    """What the moved thresholds would keep, for the whole run; brief: charts without what no threshold moves.

    rules: in order, {key, column, compare, published, value (None: off), rejected (it is the first that fails),
    alone (no other fails), limits, whole, text}. charts: by column {edges, all, nulls, inside, alone}: all clips, those
    that pass every rule, those that fail only rules of this column. kept and sets: {clips, seconds, landscape, people}
    after and before; of a set, what may enter it. said: sentences on what is not foreseen.
    """
    recipe = held.recipe_with(overrides)
    now = held.judge(recipe)
    enter, leave = changes(held, now)
    was = held.tally_of_base
    tally = was + held.tally(enter) - held.tally(leave) if len(enter) or len(leave) else was
    parts = ["kept", *recipe.curriculum.sets]
    shown = {name: _part(tally.parts[at]) | {"before": _part(was.parts[at])} for at, name in enumerate(parts)}
    return {
        "clips": held.rows,
        "rules": _rules(held, recipe, now),
        "charts": {column: _chart(held, column, now, tally, brief) for column in held.columns},
        "passing": {"clips": tally.inside, "before": was.inside},
        "kept": shown.pop("kept"),
        "enter": len(enter),
        "leave": len(leave),
        "late": _later(now, tally),
        "sets": shown,
        "said": _said(held, recipe, now, len(enter)),
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
    now = held.judge(recipe)
    enter, leave = changes(held, now)
    column, threshold = _rule_of(held, recipe, key) if key else (None, None)
    lists = {"enter": enter, "leave": leave}
    if key and threshold is not None:
        lists |= {"inside": np.flatnonzero(now.inside), "outside": _only(now, (key,))}
    chosen = {name: _nearest(held, some, column, threshold, count) for name, some in lists.items()}
    found: dict[str, Any] = {}
    for name, places in chosen.items():
        values = held.values[column][places].tolist() if column else [None] * len(places)
        found[name] = [row | {"value": value} for row, value in zip(held.shown(places), values, strict=True)]
    return {"key": key, "column": column, **found}


def two(held: WhatIf, overrides: Sequence[str], x: str, y: str) -> dict[str, Any]:
    """Two signals together: {x, y: {column, edges}, all, inside: [BINS][BINS] counts by row of y, thresholds}."""
    recipe = held.recipe_with(overrides)
    now = held.judge(recipe)
    for column in (x, y):
        if column not in held.columns:
            raise QueryError(f"'{column[:60]}' has no threshold here; signals: {', '.join(held.columns)}.")
    lines = [
        {"column": rule.column, "compare": rule.compare, "value": threshold}
        for rule, threshold in rules.active(recipe) if rule.column in (x, y)
    ]  # fmt: skip
    return {
        "x": {"column": x, "edges": held.codes(x)[1].tolist()},
        "y": {"column": y, "edges": held.codes(y)[1].tolist()},
        "all": held.pairs(x, y).tolist(),
        "inside": held.pairs(x, y, np.flatnonzero(now.inside)).tolist(),
        "thresholds": lines,
    }


# --- parts --------------------------------------------------------------------------------------------------------


def _rules(held: WhatIf, recipe: Recipe, now: Judged) -> list[dict[str, Any]]:
    published = {rule.key: threshold for rule, threshold in rules.active(held.recipe)}
    moved = {rule.key: threshold for rule, threshold in rules.active(recipe)}
    first = dict(zip(now.order, now.first.tolist(), strict=True))
    alone = dict(zip(now.order, np.bincount(now.alone_at, minlength=len(now.order)).tolist(), strict=True))
    return [
        {
            "key": rule.key, "column": rule.column, "compare": rule.compare, "phase": rule.phase, "text": rule.text,
            "limits": rule.limits, "whole": rule.whole, "published": published.get(rule.key),
            "value": moved.get(rule.key), "rejected": first.get(rule.key, 0), "alone": alone.get(rule.key, 0),
            "unit": BY_NAME[rule.column].unit if rule.column in BY_NAME else "",
            "meaning": BY_NAME[rule.column].meaning if rule.column in BY_NAME else "a signal of your own",
        }
        for rule in held.rules
    ]  # fmt: skip


def _chart(held: WhatIf, column: str, now: Judged, tally: Tally, brief: bool) -> dict[str, Any]:
    codes, edges, counts, nulls = held.codes(column)
    own = tuple(rule.key for rule in held.rules if rule.column == column)
    alone = np.bincount(codes[_only(now, own)], minlength=BINS + 1)[:BINS]
    moving = {"inside": tally.bins[column].tolist(), "alone": alone.tolist()}
    return moving if brief else {"edges": edges.tolist(), "all": counts.tolist(), "nulls": nulls, **moving}


def _later(now: Judged, tally: Tally) -> dict[str, int]:
    """Clips by what rejected them beside thresholds: models that failed at them, copies, the draw, cutting."""
    failed = int(now.first[now.order.index(LOOK_FAILED.key)])
    counts = [(LOOK_FAILED.key, failed), *zip(LATE, tally.late.tolist(), strict=True)]
    return {rule: n for rule, n in counts if n}


def _only(now: Judged, keys: Sequence[str]) -> np.ndarray:
    """Clips that fail one rule alone, and it is one of these."""
    mine = np.zeros(len(now.order), bool)
    mine[[now.order.index(key) for key in keys if key in now.order]] = True
    return now.alone[mine[now.alone_at]]


def changes(held: WhatIf, now: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Places of the clips that pass and did not as published, and of those that did and do not."""
    if now is held.base:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    moved = np.flatnonzero(now.inside != held.base.inside)
    enters = now.inside[moved]
    return moved[enters], moved[~enters]


def _part(counts: np.ndarray) -> dict[str, Any]:
    """Counts of Tally.parts as people read them."""
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


def _said(held: WhatIf, recipe: Recipe, now: Judged, enter: int) -> list[str]:
    said = []
    if enter:
        said.append("Copies and the draw are decided anew when it is published; here they are as they were.")
    unseen = now.unseen - held.base.unseen
    if unseen > 0:
        said.append(
            f"{unseen:,} more clips pass what the decode measured, but no model has looked at them: `rushes curate` "
            f"with these thresholds will."
        )
    return said
