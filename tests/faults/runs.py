"""Runs of the fault table: the command as a person starts it, and what it published, to compare."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from rushes.curation import storage
from rushes.curation.manifest import ManifestError, open_run
from rushes.pipelines.demo.pool import make_pool
from tests.faults.nodes import Nodes

#: Short films that are kept, rejected, cut into several clips, or damaged; small enough for a run of seconds.
FILMS = ("hard_cuts.mp4", "dissolve.mp4", "overhead.mp4", "close_up.mp4", "portrait.mp4", "street.mp4", "truncated.mp4",
         "not_a_video.mp4")  # fmt: skip
#: The recipe cpu without the reading of text, in small.
KEYS = ("visual.text=false", "cut.preset=ultrafast", "engine.error_budget=0.5")
ENDS_S = 240.0  # seconds after which a run hangs
HANGS = -1  # in place of the exit code of a run that had to be ended


def make_footage(folder: Path) -> Path:
    """The films, made once."""
    if not (folder / FILMS[-1]).exists():
        make_pool(folder, FILMS)
    return folder


@dataclass
class Started:
    """A command in a process of its own, whose output is in a file: pipes would be held by what it leaves behind."""

    process: subprocess.Popen[bytes]
    log: Path
    began: float

    def end(self, limit_s: float = ENDS_S) -> tuple[int, float]:
        """(exit code, seconds); HANGS where it does not end within the limit."""
        try:
            code = self.process.wait(max(1.0, limit_s - (time.monotonic() - self.began)))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler, where it is on, says where it stood
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.process.kill()
            self.process.wait()
            code = HANGS
        return code, time.monotonic() - self.began

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def start(nodes: Nodes, command: list[str], log: Path, **environment: str) -> Started:
    """Start a command of `rushes` at the head, where its output is appended to `log`."""
    words = [sys.executable, "-X", "faulthandler", "-m", "rushes.pipelines.cli", *command]
    with open(log, "ab") as file:
        process = subprocess.Popen(
            nodes.at(nodes.head, words), cwd=nodes.head.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env=nodes.environment(**environment), start_new_session=True,
        )  # fmt: skip
    return Started(process, log, time.monotonic())


def curate(nodes: Nodes, footage: str | Path, root: str | Path) -> list[str]:
    keys = [word for key in (*KEYS, f"engine.address={nodes.address}") for word in ("--set", key)]
    return ["curate", "--recipe", "cpu", "--input", str(footage), "--output", str(root), *keys]


@dataclass(frozen=True)
class Published:
    """What a run says: its tables, and a hash of every file that was cut."""

    tables: dict[str, pa.Table]
    media: dict[str, str]

    @staticmethod
    def of(root: str | Path) -> Published | None:
        """None where nothing is published."""
        try:
            run = open_run(str(root))
        except ManifestError:
            return None
        fs, path = storage.resolve(str(root))
        mine = {f"{path}/{name}" for name in run.table("clips", ["media"])["media"].to_pylist() if name}
        before = _media_before(fs, path) - mine
        found = fs.get_file_info(pa.fs.FileSelector(f"{path}/media", recursive=True, allow_not_found=True))
        media = {}
        for info in found:
            if info.is_file and info.path not in before:
                with fs.open_input_stream(info.path) as stream:
                    media[info.path.removeprefix(f"{path}/")] = hashlib.blake2b(stream.read()).hexdigest()
        return Published({name: run.table(name) for name in run.tables}, media)

    def differs(self, other: Published | None) -> str:
        """How another run differs from this one, "" where it does not."""
        if other is None:
            return "nothing is published"
        if set(self.tables) != set(other.tables):
            return f"tables {sorted(set(self.tables) ^ set(other.tables))}"
        for name, table in self.tables.items():
            if not table.equals(other.tables[name]):
                return f"{name}: {_rows(table, other.tables[name])}"
        odd = set(self.media.items()) ^ set(other.media.items())
        return f"media: {len(odd)} files differ" if odd else ""


def _media_before(fs: pa.fs.FileSystem, path: str) -> set[str]:
    """Paths of the clips that any snapshot of a run names: older ones keep theirs."""
    snapshots = fs.get_file_info(pa.fs.FileSelector(f"{path}/snapshots", recursive=True, allow_not_found=True))
    tables = [info.path for info in snapshots if "/clips/" in info.path and info.path.endswith(".parquet")]
    named = [pq.read_table(one, columns=["media"], filesystem=fs)["media"].to_pylist() for one in tables]
    return {f"{path}/{name}" for names in named for name in names if name}


def _rows(one: pa.Table, other: pa.Table) -> str:
    if one.schema != other.schema:
        return "another schema"
    if one.num_rows != other.num_rows:
        return f"{other.num_rows} rows, not {one.num_rows}"
    for name in one.column_names:
        if not one[name].equals(other[name]):
            places = [i for i, (a, b) in enumerate(zip(one[name].to_pylist(), other[name].to_pylist())) if a != b]
            place = places[0] if places else 0
            return f"{name} of row {place}: {other[name][place].as_py()!r}, not {one[name][place].as_py()!r}"[:300]
    return "the order of its columns"


def stage_of(root: str | Path) -> str:
    """The stage that a run under way is at, by its log."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = Path(root, "logs", "events.jsonl").read_text(encoding="utf-8").splitlines()
        staged = [event for event in map(json.loads, lines) if event.get("stage")]
        return staged[-1]["stage"].split(":")[0]
    return "start"


def wait_for_stage(root: str | Path, stage: str | tuple[str, ...], run: Started) -> bool:
    """Wait until a run has come to a stage whose name begins so, or in one of these ways. False: it ended before."""
    while run.process.poll() is None:
        if stage_of(root).startswith(stage):
            return True
        time.sleep(0.02)
    return False
