"""Ray as the pool sees it: where workers can be placed, workers that say when they are, calls that say how they ended.

Everything that happens is put into one queue (`poll`), so that a driver of ten thousand workers never asks all of them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

LOW_MEMORY = "running low on memory"  # Ray's words where its memory monitor has ended a worker
#: Ray's words where a worker went with its node.
NODE_LOST = ("its node has died", "node was terminated", "node is dead", "node died", "node is terminated")
LOST_S = 20.0  # a cluster whose head takes no connection for so long is lost, seconds (Ray itself waits a minute)
KNOCK_S = 2.0
APPLY = "apply"  # the stage of a call that brings its own function: see Pool.map


@dataclass(frozen=True)
class Kind:
    """A kind of worker.

    build: makes the worker in its own process; cpus, gpus, memory (bytes): what each holds; most: workers at most,
    None: as many as the cluster places.
    """

    name: str
    build: Callable[[], Any]
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    most: int | None = None


@dataclass(frozen=True)
class Place:
    """Where a worker is. sees: whether it finds the run's folder; log: what the process says goes there."""

    node: str
    host: str
    pid: int
    sees: bool = True
    log: str | None = None


@dataclass(frozen=True)
class Placed:
    """A worker has its place and takes calls."""

    worker: Any
    place: Place


@dataclass(frozen=True)
class Ended:
    """A call has ended: with a value, with an error that it raised, or with its worker (lost)."""

    worker: Any
    call: int
    value: Any = None
    error: BaseException | None = None
    lost: str | None = None  # how the worker ended: "died", "ran out of memory"
    excused: bool = False  # its node went, or the worker was preempted: no fault of the call


@dataclass(frozen=True)
class Gone:
    """A worker ended before it was placed."""

    worker: Any
    reason: str


Event = Placed | Ended | Gone


class Cluster(Protocol):
    """What a pool needs. `RayCluster` is one; tests/bench simulates another to measure the driver alone."""

    def capacity(self, kinds: list[Kind]) -> dict[str, int]: ...

    def nodes(self) -> set[str]: ...

    def create(self, kind: Kind) -> Any: ...

    def call(self, worker: Any, call: int, stage: str, args: tuple[Any, ...]) -> None: ...

    def kill(self, worker: Any) -> None: ...

    def poll(self, timeout_s: float) -> list[Event]: ...

    def now(self) -> float: ...


class RayCluster:
    """The cluster that this process is connected to (`ray_start.start`).

    token: a file that the driver has written into the run's folder; a worker that does not see it cannot see what it
    would be given to read and write. logs: a local folder for what workers say.
    """

    def __init__(self, token: str | None = None, logs: str | None = None) -> None:
        import ray

        self._ray, self._token, self._logs = ray, token, logs
        self._happened: queue.SimpleQueue[tuple[str, Any, int, Any]] = queue.SimpleQueue()
        self._actors: dict[str, Any] = {}
        self._head = self._ray.get_runtime_context().gcs_address
        self._answered = time.monotonic()
        self._known: list[dict[str, Any]] = []

    def now(self) -> float:
        return time.monotonic()

    def nodes(self) -> set[str]:
        """Names of the nodes that are alive; none once the head has not answered for LOST_S."""
        return {node["NodeID"] for node in self._alive()}

    def _alive(self) -> list[dict[str, Any]]:
        """Nodes that are alive, as they were when the head last answered. Ray is not asked while it does not: its own
        calls wait for a minute, and then end the process without a word to us.
        """
        now = time.monotonic()
        if answers(self._head):
            self._answered = now
            self._known = [node for node in self._ray.nodes() if node["Alive"]]
        elif now - self._answered > LOST_S:
            self._known = []
        return self._known

    def capacity(self, kinds: list[Kind]) -> dict[str, int]:
        """How many workers of each kind the nodes hold; kinds with GPUs take their CPUs first."""
        found = dict.fromkeys((kind.name for kind in kinds), 0)
        for node in self._alive():
            free = dict(node["Resources"])
            for kind in sorted(kinds, key=lambda kind: -kind.gpus):
                needs = {"CPU": kind.cpus, "GPU": kind.gpus, "memory": kind.memory}
                fits = min((free.get(name, 0.0) // amount for name, amount in needs.items() if amount), default=1)
                count = int(fits) if kind.most is None else min(int(fits), kind.most)
                found[kind.name] += count
                for name, amount in needs.items():
                    free[name] = free.get(name, 0.0) - count * amount
        return found

    def create(self, kind: Kind) -> Any:
        if kind.name not in self._actors:
            self._actors[kind.name] = self._actor_class(kind)
        worker = self._actors[kind.name].remote()
        self._listen("placed", worker, 0, worker.place.remote(self._token, self._logs))
        return worker

    def _actor_class(self, kind: Kind) -> Any:
        import cloudpickle

        packed = cloudpickle.dumps(kind.build)  # unpacked, and so imported, once the process has its own standard input

        class Host:
            """The actor: one plain worker, built in its own process when the first call comes."""

            def __init__(self) -> None:
                empty = os.open(os.devnull, os.O_RDONLY)
                os.dup2(empty, 0)  # not the terminal's, which a node that was started by hand hands on
                self._worker: Any = None

            def place(self, token: str | None, logs: str | None) -> Place:
                from rushes.pipelines.engine.cluster import place_of

                return place_of(token, logs)

            def call(self, stage: str, args: tuple[Any, ...]) -> Any:
                if stage == "apply":
                    function, value = args
                    return function(value)
                if self._worker is None:
                    self._worker = cloudpickle.loads(packed)()
                return getattr(self._worker, stage)(*args)

        options = {"num_cpus": kind.cpus, "num_gpus": kind.gpus, "max_restarts": 0}
        if kind.memory:
            options["memory"] = kind.memory
        return self._ray.remote(**options)(Host)

    def call(self, worker: Any, call: int, stage: str, args: tuple[Any, ...]) -> None:
        self._listen("ended", worker, call, worker.call.remote(stage, args))

    def _listen(self, what: str, worker: Any, call: int, ref: Any) -> None:
        ref.future().add_done_callback(lambda future: self._happened.put((what, worker, call, future)))

    def kill(self, worker: Any) -> None:
        if not answers(self._head):  # Ray would wait for it; the worker goes with its cluster
            return
        with contextlib.suppress(Exception):  # it may have ended by itself
            self._ray.kill(worker)

    def poll(self, timeout_s: float) -> list[Event]:
        found: list[Event] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._event(*self._happened.get(timeout=timeout_s)))
            while True:
                found.append(self._event(*self._happened.get_nowait()))
        return found

    def _event(self, what: str, worker: Any, call: int, future: Any) -> Event:
        error = future.exception()
        if what == "placed":
            return Gone(worker, str(error)) if error is not None else Placed(worker, future.result())
        if error is None:
            return Ended(worker, call, value=future.result())
        if isinstance(error, self._ray.exceptions.RayTaskError):
            cause = getattr(error, "cause", None)
            return Ended(worker, call, error=cause if isinstance(cause, Exception) else error)
        starved = isinstance(error, self._ray.exceptions.OutOfMemoryError) or LOW_MEMORY in str(error)
        return Ended(
            worker, call, lost="ran out of memory" if starved else "died", excused=not starved and self._excused(error)
        )

    def _excused(self, error: BaseException) -> bool:
        """Whether the worker went with its node, or was preempted."""
        if getattr(error, "preempted", False):
            return True
        return any(words in str(error) for words in NODE_LOST)


def answers(address: str) -> bool:
    """Whether somebody takes connections at host:port."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()
    except (OSError, ValueError):
        return False
    return True


def place_of(token: str | None, logs: str | None) -> Place:
    """In a worker: where it is, and whether it sees the run's folder. What the process says goes to a file there."""
    import ray

    from rushes.curation.storage import StorageError, exists

    node, host, log = ray.get_runtime_context().get_node_id(), socket.gethostname(), None
    try:
        sees = token is None or exists(token)
    except (OSError, StorageError):
        sees = False
    if sees and logs is not None:
        with contextlib.suppress(OSError):
            log = _say_into(os.path.join(logs, f"worker-{host}-{os.getpid()}.log"))
    return Place(node, host, os.getpid(), sees, log)


def _say_into(path: str) -> str:
    """Standard output and error of this process go to a file, and what it was doing when a signal ended it."""
    import faulthandler

    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable()
    return path
