"""Inputs: the footage that files, folders, globs and lists name; every one of them becomes a row."""

from __future__ import annotations

import csv
import fnmatch
import glob
import io
import os

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from rushes.curation.manifest import ManifestError, is_local, resolve

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
     ".3gp", ".ogv", ".mxf", ".y4m", ".vob", ".asf", ".mjpeg"]
)  # fmt: skip
LIST_SUFFIXES = frozenset((".txt", ".csv", ".parquet", ".lst"))
#: What marks a folder as a run of ours, and what in it is made by us and so is no footage.
RUN_MARKS = ("run.json", ".lock")
RUN_PARTS = frozenset(("media", "work", "snapshots", "clips", "sets", "sources", "embeddings"))


class InputError(ValueError):
    """The request names no footage: one sentence with the fix."""


def list_inputs(inputs: list[str], suffixes: frozenset[str] = VIDEO_SUFFIXES, kind: str = "videos") -> list[str]:
    """URIs of all footage that files, folders, globs and lists (.txt, .csv, .parquet) name; sorted, each once.

    suffixes, kind: of the files that are looked for in folders, where they are not videos.
    A file named directly counts whatever its name is. In a folder, files with a suffix count, hidden ones
    (.name) do not; a folder that several links lead to is visited once. What a run of ours has made (its media,
    its work) is no input, so that an output folder may lie inside an input folder. Bytes of a name that are not
    UTF-8 are written as \\xNN. Raises InputError where an input does not exist or names nothing.
    """
    found: list[str] = []
    for text in inputs:
        found += _expand(_readable(text), suffixes, kind)
    if not found:
        raise InputError("No input: name files, folders, globs or a list of URIs with --input.")
    return sorted({_canonical(uri) for uri in found})


def _readable(name: str) -> str:
    """A name that can be written into a table: bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _canonical(uri: str) -> str:
    """One name for one place: local files as absolute paths, however they were written.

    An address that nothing can open stays as it is: it becomes a row that says so.
    """
    if "://" in uri and not uri.startswith("file://"):
        return uri
    try:
        return resolve(uri)[1]
    except ManifestError:
        return uri


def _expand(text: str, suffixes: frozenset[str], kind: str) -> list[str]:
    fs, path = resolve(text)
    prefix = text[: text.index("://") + 3] if "://" in text and not text.startswith("file://") else ""
    try:
        info = fs.get_file_info(path)
    except OSError as error:
        raise InputError(f"--input {text} cannot be reached: {error}.") from error
    if info.type == pafs.FileType.File:
        if os.path.splitext(path)[1].lower() in LIST_SUFFIXES:
            return _read_list(fs, path, text)
        return [prefix + path]
    if info.type == pafs.FileType.Directory:
        files = _walk(path) if is_local(fs) else _list(fs, path)
        chosen = [prefix + p for p in files if os.path.splitext(p)[1].lower() in suffixes]
        if not chosen:
            other = f" (its {len(files)} files have no {kind[:-1]}'s suffix; name them by a glob)" if files else ""
            raise InputError(f"--input {text}: the folder holds no {kind}{other}.")
        return chosen
    if any(mark in text for mark in "*?["):
        matched = _glob(fs, path)
        if not matched:
            raise InputError(f"--input {text}: nothing matches this pattern.")
        return [prefix + p for p in matched]
    raise InputError(f"--input {text}: there is no such file or folder.")


def _walk(top: str) -> list[str]:
    """Files below a local folder, links followed, each real folder once."""
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        ours = RUN_PARTS if _is_run(folder) else frozenset()
        folders[:] = sorted(name for name in folders if name not in ours and not name.startswith("."))
        found += [_readable(os.path.join(folder, name)) for name in sorted(files) if not name.startswith(".")]
    return found


def _is_run(folder: str) -> bool:
    return any(os.path.exists(os.path.join(folder, mark)) for mark in RUN_MARKS)


def _made_by_a_run(path: str) -> bool:
    parts = path.split("/")
    return any(
        part in RUN_PARTS and _is_run("/".join(parts[:place]) or "/") for place, part in enumerate(parts[:-1]) if place
    )


def _list(fs: pafs.FileSystem, path: str) -> list[str]:
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    return [info.path for info in fs.get_file_info(selector) if info.type == pafs.FileType.File]


def _glob(fs: pafs.FileSystem, path: str) -> list[str]:
    if is_local(fs):
        matched = glob.glob(path, recursive=True)
        return [_readable(p) for p in matched if os.path.isfile(p) and not _made_by_a_run(p)]
    fixed = path.split("*")[0].split("?")[0].split("[")[0]
    return [p for p in _list(fs, fixed.rpartition("/")[0]) if fnmatch.fnmatch(p, path)]


def _read_list(fs: pafs.FileSystem, path: str, text: str) -> list[str]:
    """URIs in a list: one a line, or the column `uri` (or the only column) of a CSV or Parquet file.

    Relative paths are taken from the list's own folder.
    """
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix == ".parquet":
            lines = _column(pq.read_table(path, filesystem=fs), text)
        else:
            with fs.open_input_stream(path) as stream:
                content = stream.read().decode("utf-8-sig", "backslashreplace")
            lines = _cells(content, text) if suffix == ".csv" else content.splitlines()
    except (OSError, pa.ArrowInvalid, csv.Error) as error:
        raise InputError(f"--input {text} cannot be read as a list of URIs: {error}.") from error
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        raise InputError(f"--input {text}: the list names no footage.")
    folder = os.path.dirname(path)
    return [line if "://" in line else os.path.join(folder, os.path.expanduser(line)) for line in lines]


def _column(table: pa.Table, text: str) -> list[str]:
    name = _uri_column(table.column_names, text)
    if not (pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type)):
        raise InputError(f"--input {text}: the column '{name}' holds {table[name].type}, not addresses.")
    return [value for value in table[name].to_pylist() if value is not None]


def _cells(content: str, text: str) -> list[str]:
    rows = [row for row in csv.reader(io.StringIO(content), strict=True) if row]
    if not rows:
        return []
    if len(rows[0]) == 1 and rows[0][0].strip() != "uri" and ";" not in rows[0][0]:
        return [row[0] for row in rows]  # a single column without a header
    at = rows[0].index(_uri_column([name.strip() for name in rows[0]], text))
    return [row[at] for row in rows[1:] if len(row) > at]


def _uri_column(names: list[str], text: str) -> str:
    if "uri" in names:
        return "uri"
    if len(names) == 1 and ";" not in names[0]:
        return names[0]
    raise InputError(f"--input {text} has no column 'uri'; columns: {', '.join(names)}.")
