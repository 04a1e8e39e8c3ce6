"""Jobs of the service: commands beside it or on a Ray cluster, kept in SQLite so that a restart loses none."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rushes.curation import manifest
from rushes.curation.recipe import Recipe
from rushes.pipelines.engine.ray_jobs import ENDED, Cluster, ClusterError, exit_code

WATCH_EVERY_S = 0.5
#: Runs a command and leaves its exit code in a file, whoever is alive by then to read it.
KEEPER = 'exit_file="$0"; "$@"; echo $? > "$exit_file.tmp"; mv "$exit_file.tmp" "$exit_file"'
OPEN_STATES = ("queued", "running", "stopping")
_FIELDS = "id, owner, run, request, state, created, began, ended, exit_code, said, handle, events_from"


class JobError(ValueError):
    """A job that cannot be made, found or stopped: one sentence."""


@dataclass
class Job:
    """state: queued, running, stopping; then succeeded, failed, stopped or lost. exit_code: as `rushes curate` says it.

    handle: {pid, started} of a process or {ray} of a Ray job. events_from: where this job's events begin in the log.
    """

    id: str
    owner: str
    run: str
    request: dict[str, Any]
    state: str = "queued"
    created: float = field(default_factory=time.time)
    began: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    said: str = ""
    handle: dict[str, Any] = field(default_factory=dict)
    events_from: int = 0


class Jobs:
    """The queue, and the thread that starts what waits and looks after what runs."""

    def __init__(self, state: Path, runs: str, at_once: int = 1, address: str | None = None) -> None:
        self.state, self.runs, self.at_once, self.address = state, runs, at_once, address
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._base = sqlite3.connect(state / "jobs.sqlite", check_same_thread=False, isolation_level=None)
        self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute(
            """CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, owner TEXT, run TEXT, request TEXT, state TEXT,
            created REAL, began REAL, ended REAL, exit_code INTEGER, said TEXT, handle TEXT, events_from INTEGER)"""
        )
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop looking after jobs; they run on, and the next service finds them."""
        self._ending.set()
        self._watcher.join()
        self._base.close()

    def create(self, owner: str, run: str, recipe: Recipe, inputs: list[str], request: dict[str, Any]) -> Job:
        """Queue a curation into `run`. Raises JobError where a job for that run is open."""
        job = Job(uuid.uuid4().hex[:12], owner, run, request)
        with self._lock:
            if any(other.run == run for other in self.list(OPEN_STATES)):
                raise JobError(f"A job for the run '{run}' is open; wait for it, stop it, or choose another name.")
            folder = self._folder(job.id)
            folder.mkdir(mode=0o700)
            (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
            (folder / "inputs.txt").write_text("".join(f"{uri}\n" for uri in inputs), encoding="utf-8")
            self._save(job)
        return job

    def get(self, job_id: str) -> Job:
        with self._lock:
            row = self._base.execute(f"SELECT {_FIELDS} FROM jobs WHERE id = ?", [job_id]).fetchone()
        if row is None:
            raise JobError(f"There is no job '{job_id}'.")
        return _job(row)

    def list(self, states: tuple[str, ...] = (), limit: int = 1_000) -> list[Job]:
        """Newest first."""
        marks = ", ".join("?" * len(states))
        where = f"WHERE state IN ({marks})" if states else ""
        with self._lock:
            rows = self._base.execute(
                f"SELECT {_FIELDS} FROM jobs {where} ORDER BY created DESC LIMIT ?", [*states, limit]
            )
            return [_job(row) for row in rows.fetchall()]

    def stop(self, job_id: str) -> Job:
        """Ask a job to stop; what it has done stays, and the same request goes on from there."""
        with self._lock:
            job = self.get(job_id)
            if job.state == "queued":
                self._end(job, "stopped", None)
            elif job.state == "running":
                job.state = "stopping"
                self._save(job)
                self._signal(job)
            elif job.state not in OPEN_STATES:
                raise JobError(f"The job '{job_id}' has ended: {job.state}.")
        return job

    def log_file(self, job_id: str) -> Path:
        return self._folder(job_id) / "log.txt"

    def log(self, job: Job, most: int) -> str:
        """The last `most` bytes of what the job wrote."""
        if "ray" in job.handle:
            return Cluster(self.address or "").log(job.handle["ray"])[-most:]
        try:
            with open(self.log_file(job.id), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - most))
                return file.read(most).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def events_file(self, job: Job) -> Path | None:
        """Where the run's events are appended; None on an object store."""
        return None if "://" in self.runs else Path(self.runs) / job.run / "logs" / "events.jsonl"

    # --- the watcher ----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._ending.wait(WATCH_EVERY_S):
            with self._lock:
                running = self.list(("running", "stopping"))
                for job in running:
                    self._look_after(job)
                free = self.at_once - len(self.list(("running", "stopping")))
                for job in list(reversed(self.list(("queued",))))[: max(free, 0)]:
                    self._start(job)

    def _start(self, job: Job) -> None:
        folder = self._folder(job.id)
        events = self.events_file(job)
        job.events_from = events.stat().st_size if events and events.exists() else 0
        words = ["-m", "rushes.pipelines.cli", "curate", "--recipe", str(folder / "recipe.yaml")]
        words += ["--input", str(folder / "inputs.txt"), "--output", manifest.join(self.runs, job.run)]
        try:
            if self.address:
                job.handle = {"ray": Cluster(self.address).submit(["python", *words], f"rushes-{job.id}", {})}
            else:
                job.handle = self._spawn(job, [sys.executable, *words])
            job.state, job.began = "running", time.time()
        except (OSError, ClusterError) as error:
            self._end(job, "failed", None, str(error))
            return
        self._save(job)

    def _spawn(self, job: Job, command: list[str]) -> dict[str, Any]:
        with open(self.log_file(job.id), "ab") as log:
            child = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, str(self._folder(job.id) / "exit"), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder(job.id), start_new_session=True,
            )  # fmt: skip
        self._children[job.id] = child
        return {"pid": child.pid, "started": _started(child.pid)}

    def _look_after(self, job: Job) -> None:
        if "ray" in job.handle:
            try:
                found = Cluster(self.address or "").job(job.handle["ray"])
            except (ClusterError, ConnectionError):
                return  # a head that is away is asked again
            if found.state in ENDED:
                self._end_with(job, exit_code(found))
            return
        child = self._children.get(job.id)
        if child is not None:
            child.poll()  # a child that has ended is a zombie until it is asked for
        left = self._folder(job.id) / "exit"
        if left.exists():
            self._end_with(job, int(left.read_text() or 1))
        elif _started(job.handle["pid"]) != job.handle["started"]:
            state = "stopped" if job.state == "stopping" else "lost"
            self._end(job, state, None, "" if state == "stopped" else "the process ended without an exit code")

    def _end_with(self, job: Job, code: int) -> None:
        state = "stopped" if job.state == "stopping" and code != 0 else "succeeded" if code == 0 else "failed"
        said = {3: "finished, but more sources failed than the recipe's error budget allows"}.get(code, "")
        self._end(job, state, code, said)

    def _end(self, job: Job, state: str, code: int | None, said: str = "") -> None:
        job.state, job.exit_code, job.said, job.ended = state, code, said, time.time()
        self._children.pop(job.id, None)
        self._save(job)

    def _signal(self, job: Job) -> None:
        if "ray" in job.handle:
            Cluster(self.address or "").stop(job.handle["ray"])
        elif _started(job.handle["pid"]) == job.handle["started"]:
            os.killpg(job.handle["pid"], signal.SIGINT)

    def _save(self, job: Job) -> None:
        row = asdict(job) | {"request": json.dumps(job.request), "handle": json.dumps(job.handle)}
        marks = ", ".join(f":{name}" for name in row)
        with self._lock:
            self._base.execute(f"INSERT OR REPLACE INTO jobs ({', '.join(row)}) VALUES ({marks})", row)

    def _folder(self, job_id: str) -> Path:
        return self.state / f"job-{job_id}"


def _job(row: tuple[Any, ...]) -> Job:
    facts = dict(zip(_FIELDS.split(", "), row, strict=True))
    return Job(**facts | {"request": json.loads(facts["request"]), "handle": json.loads(facts["handle"])})


def _started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: with its number, a name that is not used twice. None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            facts = file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if facts[0] == "Z" else facts[19]
