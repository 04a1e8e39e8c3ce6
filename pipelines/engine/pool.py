"""A pool of workers: leases in, results out, nothing lost on the way.

A stage is plain Python (`pipelines.stages`); this file knows only how to hand work to it. Work comes as *leases*: a
call of a worker's method with some tens of sources or clips. Results are counts and small lists; no frame and no table
passes the object store.

Only workers that have their place get leases, so that a lease's time starts when somebody can do it. A worker that
dies costs its lease one try; a node that dies, or a worker that is preempted, costs it none. A lease that takes too
long is ended with its worker. The pool has kinds of workers, and grows and shrinks with what is waiting and with what
the cluster can place.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rushes.pipelines.engine import events
from rushes.pipelines.engine.cluster import APPLY, Cluster, Ended, Event, Gone, Kind, Place, Placed
from rushes.pipelines.engine.events import LOG_FOLDER

CPU = "cpu"  # the kind of worker that most stages run on
LOOK = "look"  # workers with GPUs, where the models of looking want them
POLL_S = 1.0  # how often, while nothing ends, hanging leases and dead nodes are looked for, seconds
LOOK_EVERY_S = 5.0  # how often the cluster is asked for its nodes, seconds
IDLE_S = 60.0  # a worker without work for so long is given back, seconds
WAITING = 2  # leases waiting per worker from which no more are planned
PLANNED_AT_ONCE = 100  # leases planned between two looks at what has happened
AHEAD_FROM = 4  # leases waiting per worker from which a second one waits at the worker itself
EXCUSED_MAX = 20  # lost nodes after which a lease is given up all the same: it may be what kills them
LOST = (
    "Ray does not answer any more: the head of its cluster, or its node on this machine, has died; what was done is "
    "kept: start the same command again once it is up."
)
MAP_S = 24 * 3600.0  # a step over shards may take so long, seconds


@dataclass(eq=False)
class Task:
    """A lease: a call of the worker's method `stage`. Lower `order` goes first; timeout_s counts from its start.

    key: names it to the caller; avoid: nodes on which it failed for reasons of theirs.
    """

    order: tuple[float, ...]
    number: int
    stage: str
    key: str
    args: tuple[Any, ...]
    timeout_s: float
    kind: str = CPU
    attempts: int = 1
    avoid: frozenset[str] = frozenset()
    tried: int = 0
    excused: int = 0
    place: Place | None = None  # where it was done, or is


@dataclass(frozen=True)
class Failure:
    """A lease that gave no result: one sentence. lost: its worker ended, or was ended, while at it."""

    reason: str
    lost: bool = False


class StopRun(RuntimeError):
    """The run as a whole cannot go on: one sentence (a full disk, a missing package)."""


class ClusterLost(StopRun):
    """The cluster is gone: no call of Ray's may follow, as it would wait for the cluster and end the process."""


@dataclass
class _Worker:
    """A worker and what was handed to it, first to last."""

    handle: Any
    kind: str
    place: Place | None = None
    tasks: list[Task] = field(default_factory=list)
    since: float = 0.0  # when the first of its tasks began, or it became idle
    left_out: bool = False


class Pool:
    """`kinds` of workers on a cluster; leases are submitted at any time and come back as they end.

    attempts: tries of a lease whose worker dies; stop_reason(error) is the sentence with which an error that a lease
    raised stops the whole run, None where it concerns that lease alone; limit: workers at most, over all kinds; tell: a
    listener to leases that ended and to how busy the workers are.
    """

    def __init__(
        self, cluster: Cluster, kinds: Sequence[Kind], attempts: int, stop_reason: Callable[..., str | None],
        limit: int | None = None, tell: Callable[[events.Event], None] | None = None,
    ):  # fmt: skip
        self._cluster, self._kinds = cluster, {kind.name: kind for kind in kinds}
        self._tell = tell or (lambda _: None)
        self._attempts, self._stop_reason, self._limit = attempts, stop_reason, limit
        self._waiting: dict[str, list[tuple[tuple[float, ...], int, Task]]] = {kind.name: [] for kind in kinds}
        self._workers: dict[str, dict[int, _Worker]] = {kind.name: {} for kind in kinds}
        self._idle: dict[str, dict[int, _Worker]] = {kind.name: {} for kind in kinds}  # placed, with nothing to do
        self._busy: dict[str, dict[int, _Worker]] = {kind.name: {} for kind in kinds}  # with one lease, and none ahead
        self._calls: dict[int, tuple[_Worker, Task]] = {}
        self._numbers = itertools.count()
        self._ready: list[tuple[Task, Any]] = []  # ended, not told yet
        self._capacity = cluster.capacity(list(kinds))
        self._nodes = cluster.nodes()
        self._looked = self._swept = cluster.now()
        self._left_out: set[str] = set()
        self._planned = True  # whether all leases are made that are planned
        self.notes: list[str] = []  # sentences about nodes that were left out

    # ---- what callers use --------------------------------------------------------------------------------------------

    def submit(
        self, stage: str, key: str, *args: Any, order: tuple[float, ...] = (), timeout_s: float = 3600.0,
        kind: str = CPU, attempts: int | None = None, avoid: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        task = Task(order, next(self._numbers), stage, key, args, timeout_s, kind, attempts or self._attempts, avoid)
        self._wait(task)

    def _wait(self, task: Task) -> None:
        heapq.heappush(self._waiting[task.kind], (task.order, task.number, task))

    def completed(self, plan: Iterator[None] | None = None) -> Iterator[tuple[Task, Any]]:
        """(task, result or Failure) as they end, until nothing is waiting or running; more may be submitted meanwhile.

        plan: submits some more at each step, and is asked when few leases wait, so that they are not all made at once.
        Raises StopRun where an error concerns the whole run.
        """
        self._planned, plan = plan is None, plan or iter(())
        while self._plan(plan) or self.waiting or self.running or self._ready:
            self._grow()
            self._hand_out()
            if not self._ready:
                for event in self._cluster.poll(POLL_S if self._planned or self._enough() else 0.0):
                    self._take(event)
                self._sweep()
            ready, self._ready = self._ready, []
            yield from ready

    def _enough(self) -> bool:
        return self.waiting >= WAITING * sum(self.workers(kind) for kind in self._kinds)

    def _plan(self, plan: Iterator[None]) -> bool:
        """Some more leases where few wait. Whether any were planned."""
        steps = 0
        while not self._planned and steps < PLANNED_AT_ONCE and not self._enough():
            steps += 1
            self._planned = next(plan, self) is self
        return steps > 0

    def map(self, function: Callable[[Any], Any], values: Sequence[Any], kind: str = CPU) -> Iterator[Any]:
        """As the built-in map, on the workers: results in the order of `values`. function: one of a module's own.

        Nothing else may be waiting or running. Raises StopRun where one of the calls fails.
        """
        done: dict[int, Any] = {}
        for number, value in enumerate(values):
            self.submit(APPLY, str(number), function, value, order=(number,), timeout_s=MAP_S, kind=kind)
        told = 0
        for task, result in self.completed():
            if isinstance(result, Failure):
                raise StopRun(f"{getattr(function, '__name__', 'a step')}: {result.reason}.")
            done[int(task.key)] = result
            while told in done:
                yield done.pop(told)
                told += 1

    def kind(self, wanted: str) -> str:
        """The kind `wanted`, or CPU where the pool has none of it."""
        return wanted if wanted in self._kinds else CPU

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        return len(self._calls)

    def workers(self, kind: str = CPU) -> int:
        """How many workers of the kind there are, or could be placed."""
        return max(1, self._most(kind))

    def elsewhere(self, avoid: frozenset[str], kind: str = CPU) -> bool:
        """Whether a node is left on which work that failed on the nodes `avoid` could be tried."""
        return bool(self._nodes - avoid - self._left_out)

    def leave_out(self, place: Place, why: str) -> None:
        """Give no further work to a node, unless it is the last; the sentence is in `notes`."""
        if place.node in self._left_out or not self._nodes - self._left_out - {place.node}:
            return
        self._left_out.add(place.node)
        for kind, workers in self._workers.items():
            for name, worker in workers.items():
                if worker.place is not None and worker.place.node == place.node:
                    worker.left_out = True
                    self._idle[kind].pop(name, None)
        self.notes.append(f"The node {place.host} was left out: {why}.")

    def close(self) -> None:
        for workers in self._workers.values():
            for worker in workers.values():
                self._cluster.kill(worker.handle)
            workers.clear()
        for workers in (*self._idle.values(), *self._busy.values()):
            workers.clear()
        self._calls.clear()

    # ---- growing and shrinking ---------------------------------------------------------------------------------------

    def _most(self, kind: str) -> int:
        """Workers wanted at most. With a limit, more than fit now may be asked for: an autoscaler acts on that."""
        most = self._capacity[kind] if self._limit is None else self._limit
        own = self._kinds[kind].most
        return most if own is None else min(most, own)

    def _grow(self) -> None:
        for name, waiting in self._waiting.items():
            workers = self._workers[name]
            busy = len(workers) - len(self._idle[name])
            wanted = min(max(1, self._most(name)), busy + len(waiting))
            for _ in range(wanted - len(workers)):
                handle = self._cluster.create(self._kinds[name])
                workers[id(handle)] = _Worker(handle, name, since=self._cluster.now())

    def _give_back(self, worker: _Worker) -> None:
        self._workers[worker.kind].pop(id(worker.handle), None)
        self._idle[worker.kind].pop(id(worker.handle), None)
        self._busy[worker.kind].pop(id(worker.handle), None)
        self._cluster.kill(worker.handle)

    # ---- handing out -------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        for name, waiting in self._waiting.items():
            idle = self._idle[name]
            passed: list[Task] = []
            while waiting and idle:
                task = heapq.heappop(waiting)[-1]
                worker = self._for(task, idle)
                if worker is None:
                    passed.append(task)
                    continue
                del idle[id(worker.handle)]
                self._begin(task, worker)
            for task in passed:
                self._wait(task)
            if waiting and (not self._planned or len(waiting) > AHEAD_FROM * len(self._workers[name])):
                self._hand_ahead(name, waiting)

    def _hand_ahead(self, name: str, waiting: list[tuple[tuple[float, ...], int, Task]]) -> None:
        busy = self._busy[name]
        while busy and waiting and not waiting[0][-1].avoid:
            worker = busy.pop(next(iter(busy)))
            if not worker.left_out:
                self._begin(heapq.heappop(waiting)[-1], worker)

    def _for(self, task: Task, idle: dict[int, _Worker]) -> _Worker | None:
        """An idle worker on a node that the task does not avoid; where it avoids all nodes, any."""
        if not task.avoid or not self.elsewhere(task.avoid):
            return next(iter(idle.values()))
        return next((worker for worker in idle.values() if worker.place.node not in task.avoid), None)

    def _begin(self, task: Task, worker: _Worker) -> None:
        call = next(self._numbers)
        if not worker.tasks:
            worker.since = self._cluster.now()
        worker.tasks.append(task)
        if len(worker.tasks) == 1:
            self._busy[worker.kind][id(worker.handle)] = worker
        task.place = worker.place
        self._calls[call] = (worker, task)
        self._cluster.call(worker.handle, call, task.stage, task.args)

    # ---- what happens ------------------------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, Ended):
            if event.call in self._calls:
                self._ended(event)
            return
        for workers in self._workers.values():
            worker = workers.get(id(event.worker))
            if worker is None:
                continue
            if isinstance(event, Gone):
                self._give_back(worker)
            elif isinstance(event, Placed):
                self._placed(worker, event.place)
            return

    def _placed(self, worker: _Worker, place: Place) -> None:
        if not place.sees:
            raise StopRun(
                f"The node {place.host} does not see the run's folder as this machine does: name an --output that all "
                "nodes share (a network file system, or an object store such as s3://bucket/run)."
            )
        worker.place, worker.since = place, self._cluster.now()
        worker.left_out = place.node in self._left_out
        if not worker.left_out:
            self._idle[worker.kind][id(worker.handle)] = worker

    def _ended(self, event: Ended) -> None:
        worker, task = self._calls[event.call]
        if event.lost is not None:
            self._lost(worker, event)
            return
        del self._calls[event.call]
        self._tell_lease(worker, task)
        worker.tasks.remove(task)
        worker.since = self._cluster.now()
        worker.left_out = worker.place is not None and worker.place.node in self._left_out
        if worker.tasks:
            self._busy[worker.kind][id(worker.handle)] = worker
        else:
            self._busy[worker.kind].pop(id(worker.handle), None)
            if not worker.left_out:
                self._idle[worker.kind][id(worker.handle)] = worker
        if event.error is None:
            self._ready.append((task, event.value))
            return
        reason = self._stop_reason(event.error)
        if reason is not None:
            raise StopRun(reason) from event.error
        said = (str(event.error).strip().splitlines() or [""])[0]
        self._ready.append((task, Failure(f"{task.stage} failed: {type(event.error).__name__}: {said}")))

    def _lost(self, worker: _Worker, event: Ended) -> None:
        """A worker is gone with the lease it was at; those that only waited there were not tried."""
        task, *others = worker.tasks
        self._forget(worker)
        for other in others:
            self._wait(other)
        self._nodes = self._cluster.nodes() or self._nodes
        excused = event.excused or (worker.place is not None and worker.place.node not in self._nodes)
        if excused and task.excused < EXCUSED_MAX:
            task.excused += 1
            self._wait(task)
            return
        task.tried += 1
        if task.tried < task.attempts:
            self._wait(task)
            return
        log = f"; what it said is in the run's {LOG_FOLDER}" if task.place and task.place.log else ""
        times = f", {task.tried} times out of {task.tried}" if task.tried > 1 else ""
        self._ready.append((task, Failure(f"the worker {event.lost} in {task.stage}{times}{log}", lost=True)))

    def _sweep(self) -> None:
        """Once in a while: end leases that take too long, look for nodes, give idle workers back."""
        now = self._cluster.now()
        if now - self._swept < POLL_S:
            return
        self._swept = now
        self._tell_load()
        for workers in self._workers.values():
            for worker in list(workers.values()):
                if worker.tasks and now - worker.since > worker.tasks[0].timeout_s:
                    self._overdue(worker)
                elif not worker.tasks and worker.place and now - worker.since > IDLE_S and self._limit is not None:
                    self._give_back(worker)
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            self._nodes = self._cluster.nodes()
            self._capacity = self._cluster.capacity(list(self._kinds.values()))
            if not self._nodes:
                raise ClusterLost(LOST)

    def _tell_lease(self, worker: _Worker, task: Task) -> None:
        """When a lease began, and where it was done."""
        began = time.time() - (self._cluster.now() - worker.since)
        node, host = (worker.place.node, worker.place.host) if worker.place else ("", "")
        told = {"lease": task.key, "work": task.stage, "began": round(began, 3), "node": node, "host": host}
        self._tell(events.Event("lease", data=told))

    def _tell_load(self) -> None:
        """Leases that no worker has, and the share of the GPUs that we hold on which a lease is done."""
        told: dict[str, float] = {"leases_waiting": self.waiting}
        held = {name: kind.gpus * len(self._workers[name]) for name, kind in self._kinds.items() if kind.gpus}
        if sum(held.values()):
            idle = sum(self._kinds[name].gpus * len(self._idle[name]) for name in held)
            told["gpu_share"] = 1 - idle / sum(held.values())
        self._tell(events.Event("load", data=told))

    def _forget(self, worker: _Worker) -> None:
        """A worker that is gone, or is ended now, and what it was called for."""
        for call in [call for call, (of, _) in self._calls.items() if of is worker]:
            del self._calls[call]
        self._give_back(worker)

    def _overdue(self, worker: _Worker) -> None:
        late, *others = worker.tasks
        self._forget(worker)
        for task in others:
            self._wait(task)
        reason = f"{late.stage} took longer than {late.timeout_s:.0f} s and was ended"
        self._ready.append((late, Failure(reason, lost=True)))
