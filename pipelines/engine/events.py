"""What happens in a run, as events: the terminal's bars, the log, the service and metrics listen to the same ones."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rushes.curation import storage

EventKind = Literal["begin", "stage", "progress", "stage_end", "lease", "load", "note", "end"]
WRITE_EVERY_S = 0.5  # progress of one stage is written to the log at most so often, seconds
LOG_FOLDER = "logs"  # of a run: events.jsonl, and what workers say


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    kind: begin and end of a run, begin (stage) and end (stage_end) of a stage, its progress, a note to people; a lease
    that has ended (data: lease, work, began, node, host), how busy the pool is (data: leases_waiting, gpu_share).
    done, total: in `unit` (sources, clips, ...) of the stage; footage_s: seconds of footage among what is done, and
    footage_total_s among all; errors: by kind, so far; rejected: clips by rule, so far; data: more of a kind's own.
    """

    kind: EventKind
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    footage_s: float = 0.0
    footage_total_s: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    text: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def line(self) -> str:
        """As a JSON line: fields that say nothing are left out."""
        return json.dumps({name: value for name, value in asdict(self).items() if value or name == "kind"})


Listener = Callable[[Event], None]


class Stage:
    """A stage in progress; every step is an event."""

    def __init__(self, bus: Bus, name: str, total: int, unit: str, footage_total_s: float = 0.0) -> None:
        self.name, self.total, self.done, self.unit = name, total, 0, unit
        self.footage_s, self.footage_total_s = 0.0, footage_total_s
        self.errors: dict[str, int] = {}
        self.rejected: dict[str, int] = {}
        self._bus, self._began = bus, time.monotonic()
        bus.emit(self._event("stage"))

    def step(self, count: int = 1, footage_s: float = 0.0) -> None:
        self.done += count
        self.footage_s += footage_s
        self._bus.emit(self._event("progress"))

    def grow(self, total: int) -> None:
        """More is to be done than was known."""
        self.total = total

    def error(self, kind: str, count: int = 1) -> None:
        self.errors[kind] = self.errors.get(kind, 0) + count

    def reject(self, counts: dict[str, int]) -> None:
        for rule, count in counts.items():
            self.rejected[rule] = self.rejected.get(rule, 0) + count

    def end(self) -> None:
        self._bus.times_s[self.name] = round(time.monotonic() - self._began, 3)
        self._bus.emit(self._event("stage_end"))

    def _event(self, kind: EventKind) -> Event:
        return Event(
            kind, self.name, self.done, self.total, self.unit, self.footage_s, self.footage_total_s,
            dict(self.errors), dict(self.rejected), data={"seconds": round(time.monotonic() - self._began, 3)},
        )  # fmt: skip


class Bus:
    """Where events go. times_s: seconds of every stage that has ended."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        self._listeners = list(listeners)
        self.times_s: dict[str, float] = {}

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def emit(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)

    def stage(self, name: str, total: int, unit: str, footage_total_s: float = 0.0) -> Stage:
        return Stage(self, name, total, unit, footage_total_s)

    def note(self, text: str) -> None:
        self.emit(Event("note", text=text))


class EventLog:
    """Listener that appends events to RUN/logs/events.jsonl, but for those of the pool's load, which are metrics.

    For a run on an object store it does nothing:
    an object store has no files to append to. There the run's record holds the stages' times, and the metrics the rest.
    """

    def __init__(self, root: str) -> None:
        fs, path = storage.resolve(root)
        self._file = None
        if storage.is_local(fs):
            with contextlib.suppress(OSError):
                os.makedirs(os.path.join(path, LOG_FOLDER), exist_ok=True)
                self._file = open(os.path.join(path, LOG_FOLDER, "events.jsonl"), "a", encoding="utf-8")  # noqa: SIM115
        self._written: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        if self._file is None or event.kind == "load":
            return
        if event.kind == "progress":
            if event.time - self._written.get(event.stage, 0.0) < WRITE_EVERY_S and event.done < event.total:
                return
            self._written[event.stage] = event.time
        with contextlib.suppress(OSError):  # a full disk ends the run where it matters
            self._file.write(event.line() + "\n")
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def log_folder(root: str) -> str | None:
    """Where workers' output goes: below a run on a disk; None on an object store."""
    fs, path = storage.resolve(root)
    return os.path.join(path, LOG_FOLDER) if storage.is_local(fs) else None
