"""How a column of the clips is spread, counted by the data base: a histogram of numbers, shares of words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rushes.curation import rules
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.pipelines.view.clips import DERIVED, QueryError, conditions, known, quoted
from rushes.pipelines.view.tables import recipe_of, records, schema_of

BINS, BINS_MOST = 48, 500
TAIL = 0.005  # share of the values on each side that may lie beyond the edges ...
OUTLYING = 3.0  # ... where the whole range is this many times that of the values between
VALUES_MOST = 50  # distinct words that are listed, commonest first


def histogram(
    run: Run,
    name: str,
    bins: int = BINS,
    low: float | None = None,
    high: float | None = None,
    where: Sequence[str] = (),
) -> dict[str, Any]:
    """The values of a column of clips that meet all conditions (see `clips`), with the kept part of each.

    Numbers: {column, total, nulls, min, max, edges [bins + 1], counts, kept, thresholds}; the outermost bins count
    what lies beyond the edges, which are chosen where low or high are None. Text, flags and lists: {column, total,
    nulls, values: [{value, count, kept}]}. Raises QueryError where there is no such column.
    """
    schema = schema_of(run, "clips")
    known(name, schema)
    text, values = conditions(where, schema)
    kind = pa.float64() if name in DERIVED else schema.field(name).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return _words(run, name, pa.types.is_list(kind), text, values)
    if not 1 <= bins <= BINS_MOST:
        raise QueryError(f"A histogram has 1 to {BINS_MOST} bins.")
    if low is not None and high is not None and low >= high:
        raise QueryError(f"low={low:g} must lie below high={high:g}.")
    lines = thresholds(name, recipe_of(run))
    column = f"{quoted(name)}::DOUBLE"
    (facts,) = records(
        run,
        f"""SELECT count(v) AS total, count(*) - count(v) AS nulls, min(v) AS min, max(v) AS max,
                   approx_quantile(v, {TAIL}) AS first, approx_quantile(v, {1 - TAIL}) AS last
            FROM (SELECT {column} AS v FROM {{clips}} WHERE {text}) WHERE v IS NULL OR isfinite(v)""",
        values,
    )
    found = {"column": name, **{key: facts[key] for key in ("total", "nulls", "min", "max")}, "thresholds": lines}
    if not facts["total"]:
        return {**found, "edges": [], "counts": [], "kept": []}
    start, stop = drawn_range(facts, [line["value"] for line in lines])
    start, stop = start if low is None else low, stop if high is None else high
    if start >= stop:
        start, stop = (start, start + 1.0) if high is None else (stop - 1.0, stop)
    width = (stop - start) / bins
    counted = records(
        run,
        f"""SELECT greatest(0, least({bins - 1}, floor((v - ?) / ?)))::INT AS bin, count(*) AS n,
                   count(*) FILTER (kept) AS kept
            FROM (SELECT {column} AS v, kept FROM {{clips}} WHERE {text}) WHERE isfinite(v) GROUP BY 1""",
        [start, width, *values],
    )
    counts, kept = [0] * bins, [0] * bins
    for row in counted:
        counts[row["bin"]], kept[row["bin"]] = row["n"], row["kept"]
    return {**found, "edges": [start + width * at for at in range(bins + 1)], "counts": counts, "kept": kept}


def thresholds(name: str, recipe: Recipe) -> list[dict[str, Any]]:
    """Thresholds on a column, {key, value, compare, sets}: base rules (no sets), then what sets raise above them."""
    base = [
        {"key": rule.key, "value": float(threshold), "compare": rule.compare, "sets": []}
        for rule, threshold in rules.active(recipe)
        if rule.column == name
    ]
    raised: dict[tuple[str, float], list[str]] = defaultdict(list)
    for of, spec in recipe.curriculum.sets.items():
        for key, threshold in spec.rules.items():
            same = any(line["key"] == key and line["value"] == threshold for line in base)
            if threshold is not None and not same and key in rules.BY_KEY and rules.BY_KEY[key].column == name:
                raised[key, float(threshold)].append(of)
    return base + [
        {"key": key, "value": value, "compare": rules.BY_KEY[key].compare, "sets": names}
        for (key, value), names in sorted(raised.items())
    ]


def drawn_range(facts: dict[str, Any], lines: list[float]) -> tuple[float, float]:
    """All values and thresholds, unless a few outliers would squeeze the rest."""
    low, high = facts["min"], facts["max"]
    if high - low > OUTLYING * (facts["last"] - facts["first"]) > 0:
        low, high = facts["first"], facts["last"]
    return min([low, *lines]), max([high, *lines])


def _words(run: Run, name: str, listed: bool, text: str, values: list[Any]) -> dict[str, Any]:
    column = f"unnest({quoted(name)})" if listed else quoted(name)
    counted = records(
        run,
        f"""SELECT v AS value, count(*) AS count, count(*) FILTER (kept) AS kept
            FROM (SELECT {column} AS v, kept FROM {{clips}} WHERE {text}) GROUP BY 1 ORDER BY count DESC, value""",
        values,
    )
    nulls = sum(row["count"] for row in counted if row["value"] is None)
    present = [row for row in counted if row["value"] is not None]
    total = sum(row["count"] for row in present)
    return {"column": name, "total": total, "nulls": nulls, "values": present[:VALUES_MOST]}
