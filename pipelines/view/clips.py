"""Clips by filter, in pages: `where` conditions are checked word by word and their values travel as parameters."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from rushes.curation.manifest import ManifestError, Run
from rushes.pipelines.view.tables import query, records, schema_of

#: Columns of a page where none are named.
COLUMNS = (
    "clip_id", "uri", "start_s", "end_s", "duration_s", "width", "height", "fps", "orientation", "kept", "rejected_by",
    "sets", "bucket", "media", "caption",
)  # fmt: skip
PAGE_MOST = 500  # rows of a page
OFFSET_MOST = 10_000_000
CONDITIONS_MOST = 20
#: Columns that are worked out from others, in SQL.
DERIVED = {
    "size": "least(width, height)",
    "aspect": "greatest(width, height) / least(width, height)::DOUBLE",
}
_CONDITION = re.compile(r"\s*(\w+)\s*(>=|<=|!=|=|>|<|~)\s*(.*?)\s*", re.S)


class QueryError(ValueError):
    """A question that cannot be asked: one sentence with the nearest that can."""


def clips(
    run: Run,
    where: Sequence[str] = (),
    sort: str = "clip_id",
    descending: bool = False,
    limit: int = 50,
    offset: int = 0,
    columns: Sequence[str] = (),
) -> dict[str, Any]:
    """A page of the clips that meet all conditions: {total, offset, rows}.

    where: conditions such as `kept=true`, `vmaf_motion>=3`, `rejected_by=null`, `sets=finetune` (a list holds it),
    `caption~forest` (text holds it). sort: a column, nulls last, ties by clip_id. columns: "*" for all. Raises
    QueryError where a column, a comparison or a value will not do.
    """
    schema = schema_of(run, "clips")
    if not (0 < limit <= PAGE_MOST and 0 <= offset <= OFFSET_MOST):
        raise QueryError(f"A page has 1 to {PAGE_MOST} rows and begins at 0 to {OFFSET_MOST:,}.")
    text, values = conditions(where, schema)
    shown = schema.names if list(columns) == ["*"] else [known(name, schema) for name in columns or COLUMNS]
    shown = ", ".join(f"{quoted(name)} AS {_name(name)}" for name in dict.fromkeys(shown))
    order = f"{quoted(known(sort, schema))} {'DESC' if descending else 'ASC'} NULLS LAST, clip_id"
    (count,) = records(run, f"SELECT count(*) AS n FROM {{clips}} WHERE {text}", values)
    page = f"SELECT clip_id FROM {{clips}} WHERE {text} ORDER BY {order} LIMIT ? OFFSET ?"
    ids = query(run, page, [*values, limit, offset])["clip_id"].to_pylist()
    if not ids:
        return {"total": count["n"], "offset": offset, "rows": []}
    marks = ", ".join("?" * len(ids))
    rows = query(run, f"SELECT clip_id AS _id, {shown} FROM {{clips}} WHERE clip_id IN ({marks})", ids)
    by_id = {row.pop("_id"): row for row in plain(rows)}
    return {"total": count["n"], "offset": offset, "rows": [by_id[clip_id] for clip_id in ids]}


def conditions(where: Sequence[str], schema: pa.Schema) -> tuple[str, list[Any]]:
    """SQL and its parameters for conditions that must all hold. Raises QueryError."""
    if len(where) > CONDITIONS_MOST:
        raise QueryError(f"At most {CONDITIONS_MOST} conditions; combine them in several questions.")
    parts, values = ["true"], []
    for condition in where:
        match = _CONDITION.fullmatch(condition)
        if not match:
            raise QueryError(f"'{condition}' is no condition; write COLUMN=VALUE, with =, !=, >=, <=, > or <, or ~.")
        text, value = _condition(*match.groups(), schema)
        parts.append(text)
        values += value
    return " AND ".join(parts), values


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON values: what is not a number is null."""
    return [
        {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()}
        for row in table.to_pylist()
    ]


def _condition(name: str, compare: str, value: str, schema: pa.Schema) -> tuple[str, list[Any]]:
    column = quoted(known(name, schema))
    kind = pa.float64() if name in DERIVED else schema.field(name).type
    if value == "null" and compare in ("=", "!="):
        return f"{column} IS {'NOT ' * (compare == '!=')}NULL", []
    if pa.types.is_list(kind) and compare in ("=", "!="):
        return f"{'NOT ' * (compare == '!=')}list_contains({column}, ?)", [value]
    if pa.types.is_string(kind) and compare == "~":
        return f"contains(lower({column}), lower(?))", [value]
    if pa.types.is_string(kind) and compare in ("=", "!="):
        return f"{column} IS {'NOT ' * (compare == '=')}DISTINCT FROM ?", [value]
    if pa.types.is_boolean(kind) and compare in ("=", "!=") and value in ("true", "false"):
        return f"{column} {compare} ?", [value == "true"]
    if (pa.types.is_floating(kind) or pa.types.is_integer(kind)) and compare != "~":
        return f"{column} {compare} ?", [_number(name, value)]
    raise QueryError(f"'{name}{compare}{value}': {name} holds {kind}, which cannot be compared so.")


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise QueryError(f"'{value}' is no number to compare {name} with.")
    return number


def known(name: str, schema: pa.Schema) -> str:
    """The name of a column, stored or derived. Raises QueryError with the nearest where there is none."""
    if name not in schema.names and name not in DERIVED:
        near = difflib.get_close_matches(name, [*schema.names, *DERIVED], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"columns: {', '.join(schema.names)}."
        raise QueryError(f"The clips have no column '{name}'; {hint}")
    return name


def quoted(name: str) -> str:
    """A known column in SQL."""
    return DERIVED.get(name) or _name(name)


def _name(name: str) -> str:
    if "{" in name or "}" in name:
        raise ManifestError(f"The column '{name}' has a name that cannot be asked for; rename it in the meter.")
    return '"' + name.replace('"', '""') + '"'
