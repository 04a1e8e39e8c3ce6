"""A published run of any size, from a small synthetic one repeated: for what must not slow down with the clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from rushes.curation import manifest
from tests.pipelines.synthetic_run import make_run

UNIT = 10_000  # clips of the run that is repeated


def make_large_run(root: Path, clips: int, sources: int = 1_000, seed: int = 0) -> manifest.Run:
    """Publish `clips` clips (a multiple of UNIT) in which ids differ and every number is slightly moved."""
    unit = make_run(root.parent / f"{root.name}-unit", UNIT, sources, seed)
    rng = np.random.default_rng(seed)
    parts, sets = [], {name: [] for name in unit.tables if name.startswith("sets/")}
    for number in range(clips // UNIT):
        parts.append(_moved(unit.table("clips"), number, rng))
        for name, tables in sets.items():
            tables.append(_renamed(unit.table(name), number))
    tables = {"sources": unit.table("sources"), "clips": pa.concat_tables(parts)}
    tables |= {name: pa.concat_tables(some) for name, some in sets.items()}
    record = {key: value for key, value in unit.record.items() if key not in ("tables", "snapshot", "schema_version")}
    return manifest.publish(str(root), tables, record)


def _renamed(table: pa.Table, number: int) -> pa.Table:
    ids = pa.array([f"{clip_id[:14]}{number:06x}" for clip_id in table["clip_id"].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("clip_id"), "clip_id", ids)


def _moved(table: pa.Table, number: int, rng: np.random.Generator) -> pa.Table:
    table = _renamed(table, number)
    for name in ("luma_mean", "sharpness", "mv_mean"):
        at = table.schema.get_field_index(name)
        values = table[name].to_numpy() * rng.uniform(0.999, 1.001, table.num_rows)
        table = table.set_column(at, table.schema.field(at), pa.array(values, pa.float32(), mask=np.isnan(values)))
    return table
