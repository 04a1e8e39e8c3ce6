"""A cluster in this process with a clock of its own, for what no real one does on demand: nodes that die, or lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rushes.pipelines.engine.cluster import Ended, Event, Kind, Place, Placed

TICK_S = 1.0


class Worker:
    def __init__(self, node: str | None) -> None:
        self.node, self.calls = node, []


class Cluster:
    """Workers go to the node with the fewest; a call takes a tick. work(stage, args, node) gives its value, or raises.

    unplaced: workers beyond so many stay without a place.
    """

    def __init__(
        self, nodes: list[str], work: Callable[..., Any], per_node: int = 2, unplaced: int | None = None
    ) -> None:
        self.alive, self.work, self.per_node, self.unplaced = set(nodes), work, per_node, unplaced
        self.workers: list[Worker] = []
        self.blind: set[str] = set()  # nodes that do not see the run's folder
        self.handed: list[tuple[str | None, str]] = []  # (node, stage) of every call
        self.clock = 0.0
        self._events: list[Event] = []

    def now(self) -> float:
        return self.clock

    def nodes(self) -> set[str]:
        return set(self.alive)

    def capacity(self, kinds: list[Kind]) -> dict[str, int]:
        return {kind.name: self.per_node * len(self.alive) for kind in kinds}

    def create(self, kind: Kind) -> Worker:
        held = {node: sum(w.node == node for w in self.workers) for node in sorted(self.alive)}
        full = self.unplaced is not None and len(self.workers) >= self.unplaced
        node = None if full or min(held.values()) >= self.per_node else min(held, key=held.get)
        worker = Worker(node)
        self.workers.append(worker)
        if node is not None:
            self._events.append(Placed(worker, Place(node, node, len(self.workers), node not in self.blind)))
        return worker

    def call(self, worker: Worker, call: int, stage: str, args: tuple[Any, ...]) -> None:
        self.handed.append((worker.node, stage))
        worker.calls.append((call, stage, args))

    def kill(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)

    def lose(self, node: str) -> None:
        """The node dies, and what runs there with it."""
        self.alive.discard(node)
        for worker in [w for w in self.workers if w.node == node]:
            self.workers.remove(worker)
            self._events += [Ended(worker, call, lost="died") for call, _, _ in worker.calls]

    def poll(self, timeout_s: float) -> list[Event]:
        self.clock += TICK_S
        found, self._events = self._events, []
        for worker in list(self.workers):
            if worker.calls and not found:
                call, stage, args = worker.calls.pop(0)
                found.append(self._ended(worker, call, stage, args))
        return found

    def _ended(self, worker: Worker, call: int, stage: str, args: tuple[Any, ...]) -> Ended:
        try:
            return Ended(worker, call, value=self.work(stage, args, worker.node))
        except SystemExit:
            self.kill(worker)
            self._events += [Ended(worker, other, lost="died") for other, _, _ in worker.calls]
            return Ended(worker, call, lost="died")
        except Exception as error:
            return Ended(worker, call, error=error)
