"""What lies where a run was looked for, and which run was probably meant: the ends of sentences."""

from __future__ import annotations

import os

from rushes.curation import storage, stores
from rushes.curation.nearest import path_meant
from rushes.curation.storage import is_local, join, resolve

LISTS = (".txt", ".csv", ".jsonl", ".parquet", ".lst")
RUNS_NAMED = 4  # runs of a folder that are named
ABOVE_MOST = 4  # folders above the named one in which a run is looked for


def why_no_run(root: str) -> str:
    """Why no run can be opened at `root`, and what to name instead: "it is a file; name the folder of a run"."""
    fs, path = resolve(root)
    if not is_local(fs):
        if (away := stores.unreachable(root) or stores.why_no_bucket(fs, root)) is not None:
            return away
        if storage.exists(join(root, "work")):
            return _UNFINISHED
        inside = _runs_in(root)
        return _choose(inside) if inside else "it has no run.json"
    if os.path.isfile(path):
        listed = "; a list of footage goes to `rushes curate --input`" if path.endswith(LISTS) else ""
        return f"it is a file; name the folder of a run, which `rushes curate` wrote{_or_above(root, path) or listed}"
    if not os.path.isdir(path):
        near = path_meant(root)
        hint = f"; did you mean '{near}'?" if near is not None and os.path.isfile(f"{near}/run.json") else ""
        return f"there is no such folder{hint or _others(root)}"
    if any(os.path.exists(f"{path}/{mark}") for mark in ("work", ".lock")):
        return _UNFINISHED
    if above := _or_above(root, path):
        return f"it has no run.json{above}"
    if inside := _runs_in(root):
        return _choose(inside)
    if os.path.isdir(f"{path}/checkpoints"):
        return "it is the output of a training; name the run that it was trained on"
    return "it has no run.json"


def snapshots_run(root: str) -> str | None:
    """The run that a folder is a snapshot of; None where it is none."""
    parts = root.rstrip("/").split("/")
    if len(parts) < 3 or parts[-2] != "snapshots":
        return None
    whole = "/".join(parts[:-2])
    return whole if storage.exists(join(whole, "run.json")) else None


_UNFINISHED = "its curation has not finished; run the same `rushes curate` again"


def _choose(inside: list[str]) -> str:
    more = ", ..." if len(inside) > RUNS_NAMED else ""
    return f"it is a folder of runs; name one of them: {', '.join(inside[:RUNS_NAMED])}{more}"


def _runs_in(root: str) -> list[str]:
    """Addresses of the runs directly in a folder, one more than are named at most."""
    found = []
    for name in storage.folders(root):
        if not name.startswith(".") and storage.exists(join(root, name, "run.json")):
            found.append(join(root, name))
        if len(found) > RUNS_NAMED:
            break
    return found


def _others(root: str) -> str:
    """The runs that lie beside a folder that is not there."""
    above = os.path.dirname(root.rstrip("/")) or "."
    beside = _runs_in(above) if os.path.isdir(resolve(above)[1]) else []
    names = [name.removeprefix("./") for name in beside]
    return f"; beside it lie: {', '.join(names[:RUNS_NAMED])}" if names else ""


def _or_above(root: str, path: str) -> str:
    """The run that a file or folder lies in."""
    above, shown = path, root.rstrip("/")
    for _ in range(ABOVE_MOST):
        above, shown = os.path.dirname(above), os.path.dirname(shown)
        if os.path.isfile(f"{above}/run.json"):
            return f"; it lies in the run {shown or above}, name that"
    return ""
