"""Inputs: the footage that files, folders, globs and lists name; every one of them becomes a row."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator

import pyarrow.fs as pafs

from rushes.curation import stores
from rushes.curation.manifest import ManifestError, is_local, resolve
from rushes.curation.nearest import path_meant
from rushes.curation.video.lists import LIST_SUFFIXES, InputError, read_list, short

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".wmv",
     ".3gp", ".ogv", ".mxf", ".y4m", ".vob", ".asf", ".mjpeg"]
)  # fmt: skip
LIST_PEEK_BYTES = 4096  # of a file that may be a list of footage by another name
MAGIC = re.compile(r"[*?\[]")
#: What marks a folder as a run of ours, and what in it is made by us and so is no footage.
RUN_MARKS = ("run.json", ".lock")
RUN_PARTS = frozenset(("media", "work", "snapshots", "clips", "sets", "sources", "embeddings"))


def list_inputs(
    inputs: list[str],
    suffixes: frozenset[str] = VIDEO_SUFFIXES,
    kind: str = "videos",
    column: str | None = None,
    limit: int | None = None,
) -> list[str]:
    """URIs of all footage that files, folders, globs and lists (see lists.py) name; sorted, each once.

    suffixes, kind: of the files that are looked for in folders, where they are not videos. column: of lists. limit:
    the first so many only. A file named directly counts whatever its name is. In a folder, files with a suffix count,
    hidden ones (.name) do not; a folder that several links lead to is visited once. What a run of ours has made (its
    media, its work) is no input, so that an output folder may lie inside an input folder. Bytes of a name that are not
    UTF-8 are written as \\xNN. Raises InputError where an input does not exist or names nothing.
    """
    found: list[str] = []
    for text in inputs:
        found += _expand(_readable(text), suffixes, kind, column)
    if not found:
        raise InputError("No input: name files, folders, globs or a list of URIs with --input.")
    return sorted({_canonical(uri) for uri in found})[:limit]


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


def _expand(text: str, suffixes: frozenset[str], kind: str, column: str | None) -> list[str]:
    fs, path = resolve(text)
    prefix = "" if path == text or "://" not in text or text.startswith("file://") else text[: text.index("://") + 3]
    shown = short(text)
    if (away := stores.unreachable(text)) is not None:
        raise InputError(f"--input {shown}: {away}.")
    try:
        info = fs.get_file_info(path)
    except (OSError, ValueError) as error:
        why = stores.told(str(error), text) or f"it cannot be reached: {short(str(error))}"
        raise InputError(f"--input {shown}: {why}.") from error
    if info.type == pafs.FileType.File:
        if os.path.splitext(path)[1].lower() in LIST_SUFFIXES:
            return read_list(fs, path, shown, column)
        if is_local(fs) and _is_a_list(path):
            raise InputError(
                f"--input {shown} is a text whose lines name files: a list is told by its suffix, so name it "
                f"{os.path.basename(path)}.txt (or .csv, .jsonl), or rename it to what it is."
            )
        return [prefix + path]
    if info.type == pafs.FileType.Unknown:  # a FIFO, a socket, a device: a row that says so
        return [prefix + path]
    if info.type == pafs.FileType.Directory:
        files = _walk(path) if is_local(fs) else _list(fs, path)
        chosen = [prefix + p for p in files if os.path.splitext(p)[1].lower() in suffixes]
        if not chosen:
            raise InputError(f"--input {shown}: the folder holds no {kind}{_what_else(fs, path, files, kind)}.")
        return chosen
    if MAGIC.search(text.partition("?")[0] if prefix else text):  # of an address, what follows ? are options
        matched = _glob(fs, path, suffixes)
        if not matched:
            why = stores.why_no_bucket(fs, _fixed(text))
            raise InputError(f"--input {shown}: nothing matches this pattern{f'; {why}' if why else ''}.")
        return [prefix + p for p in matched]
    if text.startswith(("http://", "https://")):
        raise InputError(f"--input {shown}: no server answers there with a file.")
    if (why := stores.why_nothing(fs, text)) is not None:
        raise InputError(f"--input {shown}: {why}.")
    near = path_meant(text)
    hint = f"; did you mean '{short(near)}'?" if near is not None and near != text else "."
    raise InputError(f"--input {shown}: there is no such file or folder{hint}")


def _fixed(pattern: str) -> str:
    """The folder below which a pattern is looked for."""
    return MAGIC.split(pattern)[0].rpartition("/")[0]


def _what_else(fs: pafs.FileSystem, path: str, files: list[str], kind: str) -> str:
    """What a folder holds that is none of what was looked for, and how that is named."""
    if is_local(fs) and _is_run(path):
        frames = "--clips gives frames of its clips" if kind == "images" else "name the footage that it was made from"
        return f": it is a run, {frames}"
    return f" (its {len(files)} files have no {kind[:-1]}'s suffix; name them by a glob)" if files else ""


def _is_a_list(path: str) -> bool:
    """Whether a file without a video's suffix is a text that names footage; playlists begin otherwise."""
    if os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES:
        return False
    try:
        with open(path, "rb") as file:
            lines = file.read(LIST_PEEK_BYTES).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    first = next((line.strip() for line in lines if line.strip()), "")
    suffix = os.path.splitext(first)[1].lower()
    return "\0" not in first and not first.startswith(("#", "<", "ffconcat")) and suffix in VIDEO_SUFFIXES


def _walk(top: str) -> list[str]:
    """Files below a local folder, links followed, each real folder once."""
    found: list[str] = []
    for folder, folders, files in _visit(top):
        ours = RUN_PARTS if _is_run(folder) else frozenset()
        folders[:] = sorted(name for name in folders if name not in ours and not name.startswith("."))
        found += [_readable(os.path.join(folder, name)) for name in sorted(files) if not name.startswith(".")]
    return found


def _visit(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk with links followed, each real folder once. Raises InputError where a folder cannot be read."""

    def unreadable(error: OSError) -> None:
        raise InputError(f"The folder {error.filename} cannot be read: {error.strerror}.") from error

    visited: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=unreadable):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        yield folder, folders, files


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


def _glob(fs: pafs.FileSystem, path: str, suffixes: frozenset[str]) -> list[str]:
    """Files that match a pattern, and folders that look like footage by their suffix: those become rows that fail."""
    if is_local(fs):
        pattern = path.split("/")
        first = next(place for place, part in enumerate(pattern) if MAGIC.search(part))
        return [_readable(p) for p in _matching("/".join(pattern[:first]) or "/", pattern[first:], suffixes)]
    fixed = MAGIC.split(path)[0]
    return [p for p in _list(fs, fixed.rpartition("/")[0]) if fnmatch.fnmatch(p, path)]


def _matching(top: str, pattern: list[str], suffixes: frozenset[str]) -> Iterator[str]:
    """Below a local folder what matches the pattern's parts; ** stands for any folders, hidden names need a dot."""
    if not os.path.isdir(top):
        return
    for folder, folders, files in _visit(top):
        parts = [] if folder == top else os.path.relpath(folder, top).split("/")
        named = [name for name in folders if os.path.splitext(name)[1].lower() in suffixes]
        for name in sorted(files + named):
            path = os.path.join(folder, name)
            if _matches([*parts, name], pattern) and not _made_by_a_run(path):
                yield path
        folders[:] = sorted(name for name in folders if _may_hold([*parts, name], pattern))


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (not parts[0].startswith(".") and _matches(parts[1:], pattern))
    return _matches_name(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _may_hold(parts: list[str], pattern: list[str]) -> bool:
    """Whether something below the folder can match."""
    for part, wanted in zip(parts, pattern):
        if wanted == "**":
            return not parts[-1].startswith(".")
        if not _matches_name(part, wanted):
            return False
    return len(parts) < len(pattern)


def _matches_name(name: str, wanted: str) -> bool:
    return fnmatch.fnmatchcase(name, wanted) and (wanted.startswith(".") or not name.startswith("."))
