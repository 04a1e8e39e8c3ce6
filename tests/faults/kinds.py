"""What may go wrong, each as a function that does it to a run under way. `FAULTS` is the list."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import runs
from tests.faults.nodes import SILENT_S, Nodes
from tests.faults.runs import Published, Started, curate, start
from tests.faults.store import Store

PAUSE_S = 4.0
AWAY_S = 1.5
STORE_AWAY_S = 15.0
HEAD_LOST_S = 45.0  # a driver that has lost its cluster must have said so within this time
FULL_BYTES = 1 << 20


@dataclass
class Trial:
    """One run of the table.

    root: of the run; run: the command under way; moment_s: after the run's start, when it is to happen; same: what the
    tables must equal; log: what the commands say; notes: what a fault found worth telling; wrong: what it found broken.
    """

    nodes: Nodes
    footage: Path
    root: str
    run: Started
    chance: random.Random
    moment_s: float
    same: Published
    log: Path
    disk: Path
    store: Store | None = None
    other: Published | None = None
    stage: str = "start"
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def wait(self) -> None:
        """Until the moment, or the run's end."""
        while not self._begun() and self.run.process.poll() is None:
            time.sleep(0.02)
        until = time.monotonic() + self.moment_s
        while time.monotonic() < until and self.run.process.poll() is None:
            time.sleep(0.02)
        self.stage = "had ended" if self.run.process.poll() is not None else self.where()

    def where(self) -> str:
        return runs.stage_of(self.root) if "://" not in self.root else "?"

    def _begun(self) -> bool:
        if "://" in self.root:
            return time.monotonic() - self.run.began > 3.0
        return (Path(self.root) / "logs" / "events.jsonl").exists()

    def driver(self) -> int:
        """The process of the command itself."""
        return self.run.process.pid

    def some_worker(self) -> int | None:
        """A process that hosts a worker, once there is one."""
        until = time.monotonic() + 10
        while time.monotonic() < until and self.run.process.poll() is None:
            found = [pid for node in self.nodes.nodes for pid in self.nodes.workers(node)]
            if found:
                return self.chance.choice(found)
            time.sleep(0.05)
        return None


@dataclass(frozen=True)
class Fault:
    """name; what it is, in words; do: to a trial. where: "disk" (a small one), "store" or "" for the output.

    ends: the run may end for it, with a sentence; the same command goes on from there.
    """

    name: str
    what: str
    do: Callable[[Trial], None]
    where: str = ""
    ends: bool = False


def kill(pid: int | None, number: int = signal.SIGKILL) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def worker(trial: Trial) -> None:
    kill(trial.some_worker())


def node(trial: Trial) -> None:
    trial.nodes.kill(trial.nodes.nodes[-1])


def head(trial: Trial) -> None:
    trial.nodes.kill(trial.nodes.head)
    began = time.monotonic()
    trial.run.end(HEAD_LOST_S + began - trial.run.began)
    trial.notes.append(f"ended {time.monotonic() - began:.0f} s after it")


def driver(trial: Trial) -> None:
    kill(trial.driver())


def stop(trial: Trial) -> None:
    kill(trial.driver(), trial.chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))


def network(trial: Trial) -> None:
    cut = trial.nodes.nodes[-1]
    trial.nodes.cut(cut)
    time.sleep(SILENT_S)
    trial.nodes.mend(cut)


def blink(trial: Trial) -> None:
    cut = trial.nodes.nodes[-1]
    trial.nodes.cut(cut)
    time.sleep(1.0)
    trial.nodes.mend(cut)


def disk(trial: Trial) -> None:
    """Fill all of it but for a little; what the run ends with is seen, then the file is taken away."""
    filler = trial.disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * FULL_BYTES):
            pass
    trial.run.end()
    filler.unlink()


def store_away(trial: Trial) -> None:
    trial.store.away(STORE_AWAY_S)


def store_fails(trial: Trial) -> None:
    """One request in twenty, for the rest of the run."""
    trial.store.fails = 1 / 20
    trial.run.end()
    trial.store.fails = 0.0


def pause(trial: Trial) -> None:
    """A worker or the driver stands still for some seconds."""
    pid = trial.chance.choice([trial.some_worker, trial.driver])()
    kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    kill(pid, signal.SIGCONT)


def replaced(trial: Trial) -> None:
    """Another film under the name of one that is being read."""
    place = trial.footage / "overhead.mp4"
    temporary = place.with_name("new.tmp")
    shutil.copyfile(place.parent.with_name("spare") / "landscape.mp4", temporary)
    os.replace(temporary, place)


def away(trial: Trial) -> None:
    """A film that is not there for a moment."""
    place = trial.chance.choice(sorted(trial.footage.glob("[chops]*.mp4")))
    hidden = trial.footage.with_name("hidden.tmp")
    place.rename(hidden)
    time.sleep(AWAY_S)
    hidden.rename(place)


def two_and_a_judge(trial: Trial) -> None:
    """A second run into the same folder and a judge: both are refused with a sentence."""
    other = start(trial.nodes, curate(trial.nodes, trial.footage, trial.root), trial.log.with_suffix(".second"))
    judge = start(
        trial.nodes, ["judge", trial.root, "--set", "scenes.duration_min_s=6"], trial.log.with_suffix(".judge")
    )
    ended = trial.run.process.poll() is not None
    for name, one in (("second run", other), ("judge", judge)):
        code, _ = one.end()
        if "Traceback" in one.said or code not in (0, 2):
            trial.wrong.append(f"{name}: exit code {code}: {one.said[-300:]}")
        elif not ended and code == 0:
            trial.notes.append(f"the {name} came after the first")


def service(trial: Trial) -> None:
    """The service that started the run is killed; the next one knows how the run ended (see `serving`)."""
    kill(trial.run.process.pid)


FAULTS = (
    Fault("worker", "kill a worker", worker),
    Fault("node", "kill a node", node),
    Fault("head", "kill the head", head, ends=True),
    Fault("driver", "kill the driver", driver, ends=True),
    Fault("stop", "interrupt the driver (INT, TERM, HUP)", stop, ends=True),
    Fault("service", "kill the service", service),
    Fault("network", "cut a node's network", network),
    Fault("blink", "cut a node's network for a second", blink),
    Fault("disk", "fill the disk", disk, where="disk", ends=True),
    Fault("store-fails", "the store fails one request in twenty", store_fails, where="store"),
    Fault("store-away", f"the store is away for {STORE_AWAY_S:.0f} s", store_away, where="store", ends=True),
    Fault("pause", f"stop a process for {PAUSE_S:.0f} s", pause),
    Fault("replaced", "replace an input while it is read", replaced),
    Fault("away", f"an input is away for {AWAY_S} s", away),
    Fault("two", "two runs and a judge at once", two_and_a_judge),
)
