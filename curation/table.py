"""Small operations on Arrow tables that several rooms need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    """The table with a column set, where it stands or at the end."""
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def left_join(table: pa.Table, more: pa.Table, on: str = "clip_id") -> pa.Table:
    """Columns of `more` beside the table's rows, null where it has no row; the rows' order stays."""
    at = pc.index_in(table[on], more[on].combine_chunks())
    for name in more.column_names:
        if name != on:
            table = with_column(table, name, more[name].take(at))
    return table


def in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns in the schema's order and types, null where the table lacks one; others come after."""
    own = [field for field in table.schema if field.name not in schema.names]
    full = pa.schema([*schema, *own])
    for field in full:
        if field.name not in table.column_names:
            table = table.append_column(field.name, pa.nulls(table.num_rows, field.type))
    return table.select(full.names).cast(full)


def noted(table: pa.Table, notes: Iterable[list[str] | None]) -> pa.Table:
    """The table with more notes: a list per row, None where there is nothing to say."""
    both = [(had or []) + (more or []) for had, more in zip(table["notes"].to_pylist(), notes, strict=True)]
    return with_column(table, "notes", pa.array(both, pa.list_(pa.string())))


def reject(table: pa.Table, failed: dict[str, str], rule: str, what: str) -> pa.Table:
    """Clips (clip_id -> reason) rejected by `rule` after they had been kept; the note names `what` is missing."""
    if not failed:
        return table
    ids = table["clip_id"].to_pylist()
    mask = pa.array(np.fromiter((i in failed for i in ids), bool, len(ids)))
    table = with_column(table, "kept", pc.and_not(table["kept"], mask))
    table = with_column(table, "rejected_by", pc.if_else(mask, rule, table["rejected_by"]))
    return noted(table, ([f"{what}: {failed[i]}"] if i in failed else None for i in ids))
