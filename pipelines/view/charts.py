"""What the report draws: a histogram per signal around its thresholds, and the clips of a set by bucket.

Plain numbers in drawing units come out of here; the template turns them into SVG and tables.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import rules
from rushes.curation.curriculum import ASPECTS, DURATIONS
from rushes.curation.manifest import Run
from rushes.curation.recipe import Recipe
from rushes.curation.signals import BY_NAME, Signal, charted
from rushes.pipelines.view.clips import quoted
from rushes.pipelines.view.histograms import TAIL, drawn_range, thresholds
from rushes.pipelines.view.tables import records, schema_of
from rushes.pipelines.view.words import number, reason

CHART = (320.0, 96.0)  # units of the histogram's drawing, width x height
BINS = 48
Count = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
ROUNDING = 1e-6  # of a bin: a range that ends on an edge gets no bin beyond it
COUNTED_LEAST = 7  # a histogram of whole numbers has room for at least so many above the smallest
REASONS_SHOWN = 3  # commonest reasons for a null named under a histogram
NOTES_READ = 2_000  # distinct notes looked at, commonest first
CATEGORIES_SHOWN = 8
TICKS = 6  # at most so many on an axis


def signals(run: Run, recipe: Recipe) -> list[tuple[str, list[dict[str, Any]]]]:
    """Charts by stage: a histogram of every number and the shares of every category, with the kept part of each.

    Everything is counted by the data base. Columns that meters of your own wrote come last.
    """
    early = [rule.key for rule, _ in rules.active(recipe, "analyze")]
    reasons = _null_reasons(run)
    schema = schema_of(run, "clips")
    own = [f for f in schema if _is_number(f.type) and f.name not in BY_NAME]
    mine = [Signal(f.name, f.type, "", chart="range") for f in own]
    stages = []
    for stage, drawn in [*charted().items(), ("meters of your own", mine)]:
        charts = []
        for signal in drawn:
            name = signal.name
            if signal.chart == "categories":
                charts.append(_shares(run, name))
            elif name in rules.DERIVED or name in schema.names:
                facts = _facts(run, name, early)
                count = partial(_counted, run, name)
                chart = histogram(facts, count, *_lines(name, recipe), pa.types.is_integer(_type(schema, name)))
                nulls = _nulls(name, facts, reasons)
                charts.append({"name": name, "unit": signal.unit, "what": signal.meaning, **chart, "nulls": nulls})
        if any(chart["total"] for chart in charts):
            stages.append((stage, charts))
    return stages


def _number(name: str) -> str:
    """A column in SQL, null where it is no finite number."""
    column = f"({quoted(name)})::DOUBLE"
    return f"CASE WHEN isfinite({column}) THEN {column} END"


def _facts(run: Run, name: str, early: list[str]) -> dict[str, Any]:
    """Of a column: total, min, max, first and last (TAIL from either end), nulls, and unasked.

    unasked: nulls of clips that the rules `early`, those of the decode, rejected.
    """
    (facts,) = records(
        run,
        f"""SELECT count(v) AS total, min(v) AS min, max(v) AS max, approx_quantile(v, {TAIL}) AS first,
                   approx_quantile(v, {1 - TAIL}) AS last, count(*) - count(v) AS nulls,
                   count(*) FILTER (v IS NULL AND list_contains(?, rejected_by)) AS unasked
            FROM (SELECT {_number(name)} AS v, rejected_by FROM {{clips}})""",
        [early],
    )
    return facts


def _counted(run: Run, name: str, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips between the edges [B + 1], all and the kept ones [B]; the outermost count what lies beyond them."""
    inner = edges[1:-1]
    place = " + ".join(["0", *["(v >= ?)::INT"] * len(inner)])
    rows = records(
        run,
        f"""SELECT {place} AS bin, count(*) AS n, count(*) FILTER (kept) AS kept
            FROM (SELECT {_number(name)} AS v, kept FROM {{clips}}) WHERE v IS NOT NULL GROUP BY 1""",
        inner.tolist(),
    )
    counts, kept = np.zeros(len(inner) + 1, np.int64), np.zeros(len(inner) + 1, np.int64)
    for row in rows:
        counts[row["bin"]], kept[row["bin"]] = row["n"], row["kept"]
    return counts, kept


def sortable(run: Run) -> list[str]:
    """The numbers that clips can be sorted and filtered by, those of meters of your own among them."""
    drawn = {signal.name for of_stage in charted().values() for signal in of_stage}
    return [
        f.name for f in schema_of(run, "clips") if _is_number(f.type) and (f.name in drawn or f.name not in BY_NAME)
    ]


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Round values within low..high, at most `most`, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    power = 10.0 ** np.floor(np.log10((high - low) / most))
    for step in (digit * power for digit in (1, 2, 5, 10, 20)):
        first, last = np.ceil(low / step - ROUNDING), np.floor(high / step + ROUNDING)
        if last - first < most:
            break
    return [float(f"{n * step:.10g}") + 0.0 for n in np.arange(first, last + 1)]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_floating(kind) or pa.types.is_integer(kind)


def _type(schema: pa.Schema, name: str) -> pa.DataType:
    return schema.field(name).type if name in schema.names else pa.float64()


def _lines(name: str, recipe: Recipe) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Thresholds on a column: those of the base rules, and those that the sets raise above them."""
    found = thresholds(name, recipe)
    return [line for line in found if not line["sets"]], [line for line in found if line["sets"]]


def histogram(
    facts: dict[str, Any], count: Count, base: list[dict[str, Any]], sets: list[dict[str, Any]], whole: bool = False
) -> dict[str, Any]:
    """A histogram in drawing units (CHART), heights by the square root of the count.

    facts: total, min, max, first and last of the values. count: edges [B + 1] -> how many values lie between them, all
    and kept. base, sets: thresholds {key, value, compare, sets}. whole: the values are counts, one bar each where they
    are few. Returns {total, bars, lines, failing, x_ticks, y_ticks}: bars [{x, width, height, kept_height, text}];
    lines: the thresholds with their `x`; failing: spans (x, width) that the base rules reject; ticks: (x or y, text).
    Where a few values lie far out, the outermost bars count them.
    """
    total = facts["total"]
    lines = [dict(line) for line in [*base, *sets]]
    if not total:
        return {"total": 0, "bars": [], "lines": lines, "failing": [], "x_ticks": [], "y_ticks": []}
    low, high = drawn_range(facts, [line["value"] for line in lines])
    counted = whole and high - low < BINS
    if counted:
        edges = np.arange(np.floor(low), max(np.floor(high), np.floor(low) + COUNTED_LEAST) + 2) - 0.5
    else:
        edges = _edges(low, high, lines[0]["value"] if lines else low)
    counts, counts_kept = count(edges)
    scale = CHART[0] / (edges[-1] - edges[0])
    for line in lines:
        line["x"] = (line["value"] - edges[0]) * scale
        line["text"] = f"{line['compare']} {line['value']:g}"
    return {
        "total": total,
        "bars": list(_bars(edges, counts, counts_kept, scale)),
        "lines": lines,
        "failing": [(0.0, x["x"]) if ">" in x["compare"] else (x["x"], CHART[0] - x["x"]) for x in lines[: len(base)]],
        "x_ticks": [(scale * (value - edges[0]), f"{value:,g}") for value in _x_ticks(edges, counted)],
        "y_ticks": [
            (CHART[1] * (1 - np.sqrt(value / counts.max())), f"{value:,g}") for value in _y_ticks(counts.max())
        ],
    }


def _x_ticks(edges: np.ndarray, counted: bool) -> list[float]:
    if counted:
        return [value for value in ticks(edges[0] + 0.5, edges[-1] - 0.5) if value == round(value)]
    return ticks(edges[0], edges[-1])


def _y_ticks(most: int) -> list[int]:
    """The largest of 1, 2, 5, 10, 20, ... up to a count, and the one at about a quarter of it."""
    series = [digit * 10**power for power in range(10) for digit in (1, 2, 5)]
    top = max(value for value in series if value <= most)
    return [value for value in series if value in (top, max((v for v in series if v <= top / 4), default=top))]


def _edges(low: float, high: float, anchor: float) -> np.ndarray:
    """About BINS bins over low..high, one edge exactly at `anchor`: no bar stands on both sides of a threshold."""
    width = (high - low) / BINS or max(abs(high), 1.0) / BINS
    start = anchor - np.ceil((anchor - low) / width - ROUNDING) * width
    return start + width * np.arange(max(np.ceil((high - start) / width - ROUNDING), 1) + 1)


def _bars(edges: np.ndarray, counts: np.ndarray, kept: np.ndarray, scale: float) -> Iterator[dict[str, Any]]:
    unit = CHART[1] / np.sqrt(counts.max())
    for index in np.flatnonzero(counts):
        span = f"{number(edges[index])} to {number(edges[index + 1], edges[index])}"
        yield {
            "x": (edges[index] - edges[0]) * scale,
            "width": max((edges[index + 1] - edges[index]) * scale - 0.8, 0.8),
            "height": np.sqrt(counts[index]) * unit,
            "kept_height": np.sqrt(kept[index]) * unit,
            "text": f"{span}: {counts[index]:,} clips, {kept[index]:,} kept",
        }


def _shares(run: Run, name: str) -> dict[str, Any]:
    counted = records(
        run,
        f"""SELECT {quoted(name)} AS name, count(*) AS count, count(*) FILTER (kept) AS kept FROM {{clips}}
            GROUP BY 1 ORDER BY count DESC, name""",
    )
    missing = sum(row["count"] for row in counted if row["name"] is None)
    present = [row for row in counted if row["name"] is not None]
    most = max((row["count"] for row in present), default=1)
    rows = [
        {**row, "share": row["count"] / most, "kept_share": row["kept"] / most} for row in present[:CATEGORIES_SHOWN]
    ]
    nulls = {"count": missing, "reasons": [], "more": 0}
    return {"name": name, "categories": rows, "total": sum(row["count"] for row in present), "nulls": nulls}


def _null_reasons(run: Run) -> dict[str, Counter[str]]:
    """column -> how often each reason for a null was noted."""
    counted = records(
        run,
        "SELECT note, count(*) AS n FROM (SELECT unnest(notes) AS note FROM {clips}) GROUP BY note "
        "ORDER BY n DESC, note LIMIT ?",
        [NOTES_READ],
    )
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in counted:
        names, colon, _ = row["note"].partition(":")
        for name in names.split(",") if colon else ():
            found[name.strip()][reason([row["note"]], name.strip()) or ""] += row["n"]
    return found


def _nulls(name: str, facts: dict[str, Any], reasons: dict[str, Counter[str]]) -> dict[str, Any]:
    named = Counter(reasons.get(name, {}))
    rest = facts["nulls"] - sum(named.values())  # nulls that no note explains
    early = min(rest, facts["unasked"]) if name in rules.LOOK_COLUMNS else 0
    rest -= early
    if early > 0:
        named["rejected before the models looked"] += early
    if rest > 0:
        later = name in BY_NAME and BY_NAME[name].part in ("content", "judge", "caption")
        named["rejected before this stage" if later else "no reason noted"] += rest
    top = named.most_common(REASONS_SHOWN)
    return {"count": facts["nulls"], "reasons": top, "more": len(named) - len(top)}


def bucket_matrices(sets: dict[str, Any]) -> list[dict[str, Any]]:
    """Per set the clips by aspect (rows) and duration (columns); every bucket of Table 2 has its place, also empty.

    sets: by name {clips, buckets: {"16x9/12-16s": count}}. Returns rows [(aspect, [{count, share of the fullest}])].
    A bucket of another name, or none, gets a row or column of its own after them.
    """
    matrices = []
    for name, facts in sets.items():
        counts: Counter[tuple[str, str]] = Counter()
        for bucket, count in facts["buckets"].items():
            aspect, _, duration = (bucket or "none/none").partition("/")
            counts[aspect, duration] += count
        aspects = list(dict.fromkeys([*ASPECTS, *(aspect for aspect, _ in counts)]))
        durations = list(dict.fromkeys([*(row.name for row in DURATIONS), *(duration for _, duration in counts)]))
        most = max(counts.values(), default=1)
        rows = [
            (aspect, [{"count": counts[aspect, d], "share": counts[aspect, d] / most} for d in durations])
            for aspect in aspects
        ]
        matrices.append({"name": name, "columns": durations, "rows": rows, "clips": facts["clips"]})
    return matrices
