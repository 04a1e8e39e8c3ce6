"""Starting `rushes` as a person does, in a process of its own, and looking at the processes that it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import QUICK

#: Ray's housekeeping agents do nothing for the run and end by themselves, about a minute after Ray.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
WAIT_S = 120.0  # seconds after which a process that should have ended is taken to hang


def curate_command(inputs: list[str], root: Path, *overrides: str) -> list[str]:
    command = [sys.executable, "-m", "rushes.pipelines.cli", "curate", "--recipe", "demo", "--output", str(root)]
    command += [part for text in inputs for part in ("--input", text)]
    return command + [part for key in (*QUICK, *overrides) for part in ("--set", key)]


def start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
    )


def finish(command: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command that must end within WAIT_S."""
    done = subprocess.run(command, text=True, capture_output=True, timeout=WAIT_S, check=False)
    return done.returncode, done.stdout, done.stderr


def descendants(pid: int) -> set[tuple[int, str]]:
    """(pid, start time) of the processes below `pid`: the pair names a process for good."""
    children: dict[int, list[tuple[int, str]]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            children.setdefault(int(stat[1]), []).append((int(entry), stat[19]))
    found: set[tuple[int, str]] = set()
    open_ = [pid]
    while open_:
        new = set(children.get(open_.pop(), [])) - found
        found |= new
        open_ += [child for child, _ in new]
    return found


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those that still run; one that has ended and only waits to be collected does not."""
    stats = ((process, _stat(process[0])) for process in processes)
    return {process for process, stat in stats if stat and stat[19] == process[1] and stat[0] not in "ZX"}


def at_work(processes: set[tuple[int, str]]) -> list[str]:
    """Command lines of those that still run, Ray's agents aside."""
    return [words for pid, _ in alive(processes) if (words := command_line(pid)) and not words.startswith(AGENTS)]


def command_line(pid: int) -> str:
    """Its words, "" where it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state on, None where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(condition, seconds: float = WAIT_S, every_s: float = 0.02) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(every_s)
    return bool(condition())
