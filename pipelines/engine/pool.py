"""Ray, and nothing but Ray: a pool of worker actors, tasks in, results out, nothing lost on the way.

A stage is plain Python (`pipelines.worker.Worker`); this file knows only how to place it. Tasks are small (a source,
clip rows), results are signals; no frame passes the object store. A worker that dies takes one task with it: the task
is tried again by a fresh worker, and given up with a reason after `attempts`. A task that hangs is killed with its
worker when its time is up.

Why actors and not Ray Data: a run is a few hundred to a few million uneven tasks over files, whose results are tiny.
Ray Data adds 4-6 s to a job, plans blocks where there are none, and stalls for ever on one or two CPUs when an actor
pool holds them all (docs/architecture.md).
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rushes.curation.recipe import Engine

LOW_MEMORY = "running low on memory"  # Ray's words where its memory monitor has ended a worker
NODES_EVERY_S = 10.0  # how often, while nothing ends, it is asked whether any node is alive, seconds
POLL_S = 1.0  # how often hanging tasks are looked for, seconds


@dataclass(order=True)
class Task:
    """A call of the worker's method `stage`. Lower `order` goes first; timeout_s counts from its start."""

    order: tuple[float, ...]
    number: int = field(compare=True)
    stage: str = field(compare=False)
    key: str = field(compare=False)
    args: tuple[Any, ...] = field(compare=False)
    timeout_s: float = field(compare=False)
    tried: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Failure:
    """A task that gave no result: one sentence."""

    reason: str


class StopRun(RuntimeError):
    """The run as a whole cannot go on: one sentence (a full disk, a missing package)."""


def start(engine: Engine) -> int:
    """See ray_start.start."""
    from rushes.pipelines.engine import ray_start

    return ray_start.start(engine)


def gpus() -> float:
    """GPUs of the cluster, after `start`."""
    from rushes.pipelines.engine import ray_start

    return ray_start.gpus()


class Pool:
    """`workers` actors built by `build()`; tasks are submitted at any time and come back as they end.

    cpus, gpus: that each actor holds; all actors together must fit the cluster.
    """

    def __init__(
        self, build: Callable[[], Any], workers: int, attempts: int, stop_reason: Callable[..., str | None],
        cpus: int = 1, gpus: float = 0.0,
    ):  # fmt: skip
        import cloudpickle
        import ray

        packed = cloudpickle.dumps(build)  # unpacked, and so imported, once the process has its own standard input

        class Host:
            """The actor: one plain worker, built in its own process."""

            def __init__(self) -> None:
                empty = os.open(os.devnull, os.O_RDONLY)
                os.dup2(empty, 0)  # not the terminal's, which a node that was started by hand hands on (cli.terminal)
                self._worker = cloudpickle.loads(packed)()

            def call(self, stage: str, args: tuple[Any, ...]) -> Any:
                return getattr(self._worker, stage)(*args)

        self._ray = ray
        # Never more actors than there are CPUs for: every actor can always be placed, so nothing waits for ever.
        self._actor = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(Host)
        self._attempts, self._stop_reason = attempts, stop_reason
        self._idle = [self._actor.remote() for _ in range(workers)]
        self._waiting: list[Task] = []
        self._running: dict[Any, tuple[Task, Any, float]] = {}
        self._numbers = itertools.count()
        self._nodes_seen = time.monotonic()

    def submit(
        self, stage: str, key: str, *args: Any, order: tuple[float, ...] = (), timeout_s: float = 3600.0
    ) -> None:
        heapq.heappush(self._waiting, Task(order, next(self._numbers), stage, key, args, timeout_s))

    def completed(self) -> Iterator[tuple[Task, Any]]:
        """(task, result or Failure) as they end, until nothing is waiting or running; more may be submitted meanwhile.

        Raises StopRun where an error concerns the whole run.
        """
        while self._waiting or self._running:
            while self._waiting and self._idle:
                self._start(heapq.heappop(self._waiting), self._idle.pop())
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=POLL_S)
            for ref in done:
                yield from self._finish(ref)
            yield from self._overdue()
            if not done:
                self._look_for_nodes()

    def close(self) -> None:
        for actor in [*self._idle, *(actor for _, actor, _ in self._running.values())]:
            self._ray.kill(actor)
        self._idle, self._running = [], {}

    def _look_for_nodes(self) -> None:
        """Raises StopRun once no node of the cluster is left: nothing that is waited for can come then."""
        now = time.monotonic()
        if now - self._nodes_seen < NODES_EVERY_S:
            return
        self._nodes_seen = now
        if not any(node["Alive"] for node in self._ray.nodes()):
            raise StopRun("Ray's node on this machine died; start the same command again, what was done is kept.")

    def _start(self, task: Task, actor: Any) -> None:
        task.tried += 1
        self._running[actor.call.remote(task.stage, task.args)] = (task, actor, time.monotonic())

    def _finish(self, ref: Any) -> Iterator[tuple[Task, Any]]:
        task, actor, _ = self._running.pop(ref)
        try:
            result = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            self._idle.append(actor)
            cause = error.cause if isinstance(error.cause, Exception) else error
            reason = self._stop_reason(cause)
            if reason is not None:
                raise StopRun(reason) from cause
            result = Failure(f"{task.stage} failed: {type(cause).__name__}: {cause}".splitlines()[0])
        except self._ray.exceptions.RayError as error:
            self._idle.append(self._actor.remote())
            starved = isinstance(error, self._ray.exceptions.OutOfMemoryError) or LOW_MEMORY in str(error)
            why = "ran out of memory" if starved else "died"
            if task.tried < self._attempts:
                heapq.heappush(self._waiting, task)
                return
            result = Failure(f"the worker {why} in {task.stage}, {task.tried} times out of {task.tried}")
        else:
            self._idle.append(actor)
        yield task, result

    def _overdue(self) -> Iterator[tuple[Task, Any]]:
        now = time.monotonic()
        for ref, (task, actor, began) in list(self._running.items()):
            if now - began > task.timeout_s:
                del self._running[ref]
                self._ray.kill(actor)
                self._idle.append(self._actor.remote())
                yield task, Failure(f"{task.stage} took longer than {task.timeout_s:.0f} s and was ended")
