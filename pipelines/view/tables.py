"""Questions to a published run's tables in SQL, without reading a table whole: what every view is made of.

DuckDB scans the Parquet files that the commit record lists and takes the columns and row groups that a question
needs. A snapshot never changes, so whoever asks often may keep answers by (run, snapshot).
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe, RecipeError, build

#: Memory that all questions of this process may take together; DuckDB spills or fails with a sentence beyond it.
MEMORY_LIMIT = "2GB"
_TABLE = re.compile(r"\{([^{}]+)\}")
_starting = threading.Lock()


def recipe_of(run: Run) -> Recipe:
    """The resolved recipe of a curated run. Raises RecipeError where this release cannot read it, and ManifestError."""
    return _known_recipe(run)[0]


def resolved_of(run: Run) -> dict[str, Any]:
    """As `recipe_of`, as it stands in the commit record."""
    return _known_recipe(run)[1]


def _known_recipe(run: Run) -> tuple[Recipe, dict[str, Any]]:
    resolved = recipe_record(run)
    try:
        return build(resolved), resolved
    except RecipeError as error:
        release = (run.record.get("versions") or {}).get("rushes")
        raise RecipeError(
            f"{run.root} was curated by another release of rushes{f' ({release})' if release else ''}, whose recipe "
            f"this one does not read: {str(error).rstrip('.')}. Curate it again with this release "
            "(`rushes curate -r RECIPE`, the same input and output: videos are decoded anew), or open it with the "
            "release that made it."
        ) from error


def recipe_record(run: Run) -> dict[str, Any]:
    """The recipe as the commit record has it, whichever release wrote it. Raises ManifestError where it has none."""
    if "recipe" not in run.record:
        raise ManifestError(f"{run.root} is not a curated run; name the one that it was made from.")
    return run.record["recipe"]["resolved"]


def schema_of(run: Run, table: str) -> pa.Schema:
    """Schema of a published table, without reading its rows."""
    fs, root = manifest.resolve(run.root)
    return pq.read_schema(f"{root}/{run.record['tables'][table]['files'][0]}", filesystem=fs)


def query(run: Run, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
    """The answer to `sql`, in which {clips}, {sources} or {sets/NAME} stand for the run's tables.

    Values belong into `parameters` (one per `?`), never into the text; names of columns are checked by the caller.
    Raises ManifestError where a file cannot be read.
    """
    cursor = _database().cursor()
    try:
        names = dict.fromkeys(_TABLE.findall(sql))
        for index, name in enumerate(names):
            names[name] = _relation(cursor, run, name, f"table_{index}")
        text = _TABLE.sub(lambda match: names[match.group(1)], sql)
        return cursor.sql(text, params=list(parameters)).to_arrow_table()
    except duckdb.BinderException as error:
        first = str(error).splitlines()[0]
        raise ManifestError(f"A table of {run.root} lacks what is asked of it ({first}); curate it again.") from error
    except (duckdb.IOException, duckdb.HTTPException, duckdb.InvalidInputException, FileNotFoundError) as error:
        first = str(error).splitlines()[0]
        raise ManifestError(
            f"A table of {run.root} cannot be read ({first}); published anew, or damaged (`rushes verify`)?"
        ) from error
    finally:
        cursor.close()


def records(run: Run, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """As `query`, as a list of rows."""
    return query(run, sql, parameters).to_pylist()


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


def _relation(cursor: duckdb.DuckDBPyConnection, run: Run, table: str, alias: str) -> str:
    """What stands for a table in SQL: its files on a disk, and a pyarrow data set of them on an object store."""
    if table not in run.record["tables"]:
        raise ManifestError(f"{run.root} has no table '{table}'; tables: {', '.join(run.tables)}.")
    fs, root = manifest.resolve(run.root)
    files = [f"{root}/{file}" for file in run.record["tables"][table]["files"]]
    if manifest.is_local(fs):
        quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
        return f"read_parquet([{quoted}])"
    cursor.register(alias, pads.dataset(files, filesystem=fs, format="parquet"))
    return alias


@functools.cache
def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
    connection.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false")
    connection.execute("SET parquet_metadata_cache = true")
    return connection


def _database() -> duckdb.DuckDBPyConnection:
    with _starting:
        return _connect()
