"""Lists of footage: text, CSV, JSON Lines and Parquet files that name one address a line or row."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

LIST_SUFFIXES = frozenset((".txt", ".csv", ".jsonl", ".parquet", ".lst"))
#: Columns that hold the addresses where none is named, the first of them that is there.
COLUMNS = ("uri", "path", "video", "url")
LINE_BYTES = 1 << 16  # a longer line is no address: the file is no list
KEYS = re.compile(r"://[^/@\s]*@")
NAME_SHOWN = 200  # characters of a name in a sentence


class InputError(ValueError):
    """The request names no footage: one sentence with the fix."""


def short(text: str) -> str:
    """A name as a sentence can show it: not too long, and without the keys that an address may hold."""
    text = KEYS.sub("://", text)
    return text if len(text) <= NAME_SHOWN else f"{text[:NAME_SHOWN]}... ({len(text)} characters)"


def read_list(fs: pafs.FileSystem, path: str, text: str, column: str | None) -> list[str]:
    """Addresses in a list: one a line, or the column `column`; None: uri, path, video or url, or the only one.

    A CSV of one column whose first cell is no such name has no header. Lines that begin with # are left out in text
    files; relative paths are taken from the list's own folder. Raises InputError.
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".parquet":
            values = list(_parquet(fs, path, text, column))
        else:
            with fs.open_input_file(path) as stream:
                lines = _lines(stream, text)
                if suffix == ".csv":
                    values = list(_csv(lines, text, column))
                elif suffix == ".jsonl":
                    values = list(_jsonl(lines, text, column))
                else:
                    values = [line for line in lines if not line.lstrip().startswith("#")]
    except (OSError, pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"--input {text} cannot be read as a list of URIs: {error}.") from error
    values = [value.strip() for value in values if value.strip()]
    if not values:
        raise InputError(f"--input {text}: the list names no footage.")
    folder = os.path.dirname(path)
    return [value if "://" in value else os.path.join(folder, os.path.expanduser(value)) for value in values]


def _lines(stream: Any, text: str) -> Iterator[str]:
    """Lines with their ends, bytes that are not UTF-8 escaped."""
    reader = io.BufferedReader(stream)
    for number in range(1, 1 << 62):
        line = reader.readline(LINE_BYTES)
        if not line:
            return
        if len(line) == LINE_BYTES:
            raise InputError(f"--input {text}: line {number} has more than {LINE_BYTES} bytes, so this is no list.")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", "backslashreplace")


def _csv(lines: Iterator[str], text: str, column: str | None) -> Iterator[str]:
    rows = (row for row in csv.reader(lines, strict=True) if row)
    head = [name.strip() for name in next(rows, [])]
    if not head:
        return
    if len(head) == 1 and column is None and ";" not in head[0] and head[0].lower() not in COLUMNS:
        yield head[0]  # a single column without a header
        place = 0
    else:
        place = head.index(_column(head, text, column))
    for row in rows:
        if len(row) > place:
            yield row[place]


def _jsonl(lines: Iterator[str], text: str, column: str | None) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"--input {text}: line {number} is not JSON ({short(str(error))}).") from error
        if isinstance(value, dict):
            value = value[_column(list(value), f"{text}, line {number}", column)]
        if not isinstance(value, str):
            raise InputError(f"--input {text}: line {number} holds no address: a string, or an object with one.")
        yield value


def _parquet(fs: pafs.FileSystem, path: str, text: str, column: str | None) -> Iterator[str]:
    with fs.open_input_file(path) as stream, pq.ParquetFile(stream) as file:
        name = _column(file.schema_arrow.names, text, column)
        kind = file.schema_arrow.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise InputError(f"--input {text}: the column '{name}' holds {kind}, not addresses.")
        for batch in file.iter_batches(columns=[name]):
            yield from (value for value in batch.column(0).to_pylist() if value is not None)


def _column(names: list[str], text: str, column: str | None) -> str:
    if column is not None:
        if column in names:
            return column
        raise InputError(f"--input {text} has no column '{column}'; columns: {short(', '.join(names))}.")
    by_lower = {name.lower(): name for name in reversed(names)}
    for known in COLUMNS:
        if known in by_lower:
            return by_lower[known]
    if len(names) == 1 and ";" not in names[0]:
        return names[0]
    raise InputError(
        f"--input {text} has no column {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}; columns: "
        f"{short(', '.join(names))}. Name one with --column."
    )
