"""The engine's driver by itself: a simulated cluster whose workers take the time that real ones were measured to take.

    python -m tests.bench.engine            hand-out, efficiency at 128 to 10,000 workers, the tail
    python -m tests.bench.engine memory N   the driver's peak memory for N sources of ten clips (one process, one N)

The driver's code is the real one (`Pool`, `observe_and_look`); a worker is an entry in a heap. Its clock is virtual,
but every second of CPU that the driver takes is added to it: a driver that is too slow shows as workers that wait.
"""

from __future__ import annotations

import heapq
import itertools
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from rushes.curation import recipe, storage
from rushes.pipelines.engine.cluster import APPLY, Ended, Event, Kind, Place, Placed
from rushes.pipelines.engine.events import Bus
from rushes.pipelines.engine.pool import CPU, Pool
from rushes.pipelines.stages.items import PROBED, Looked, Probed, Seen
from rushes.pipelines.stages.job import Inputs, Job
from rushes.pipelines.stages.keys import Keys
from rushes.pipelines.stages.probing import probe
from rushes.pipelines.stages.reading import observe_and_look
from rushes.pipelines.stages.records import number_of

PLACED_S = 3.0  # a worker's start
#: Seconds of work of a second of footage, and of a source: measured on two cores (docs/benchmarks.md).
PROBE_S, OBSERVE_PER_S, LOOK_PER_S, SOURCE_S = 0.006, 0.02, 0.01, 0.01
NODE_WORKERS = 16


class Simulated:
    """A cluster of `workers`; work(stage, args) is (seconds that a call takes, its value)."""

    def __init__(self, workers: int, work: Callable[[str, tuple[Any, ...]], tuple[float, Any]]) -> None:
        self._workers, self._work = workers, work
        self._clock, self._cpu = 0.0, time.process_time()
        self._events: list[tuple[float, int, Event]] = []
        self._numbers = itertools.count()
        self._free: dict[int, float] = {}
        self.busy_s = 0.0
        self.placed: list[float] = []  # when each worker had its place

    def now(self) -> float:
        self._clock += time.process_time() - self._cpu
        self._cpu = time.process_time()
        return self._clock

    def nodes(self) -> set[str]:
        return {str(n) for n in range(-(-self._workers // NODE_WORKERS))}

    def capacity(self, kinds: list[Kind]) -> dict[str, int]:
        return {kind.name: self._workers for kind in kinds}

    def create(self, kind: Kind) -> Any:
        number = next(self._numbers)
        self.placed.append(self.now() + PLACED_S)
        self._push(self.placed[-1], Placed(worker := _Worker(number), Place(str(number % 8), "host", number)))
        return worker

    def call(self, worker: _Worker, call: int, stage: str, args: tuple[Any, ...]) -> None:
        now, began = self.now(), time.process_time()
        seconds, value = self._work(stage, args)
        self._cpu += time.process_time() - began
        worker.free = max(worker.free, now) + seconds
        self.busy_s += seconds
        self._push(worker.free, Ended(worker, call, value=value))

    def kill(self, worker: Any) -> None:
        pass

    def poll(self, timeout_s: float) -> list[Event]:
        now = self.now()
        if not self._events or self._events[0][0] > now + timeout_s:
            self._clock = now + timeout_s
            return []
        self._clock = max(now, self._events[0][0])
        found = []
        while self._events and self._events[0][0] <= self._clock:
            found.append(heapq.heappop(self._events)[2])
        return found

    def _push(self, at: float, event: Event) -> None:
        heapq.heappush(self._events, (at, next(self._numbers), event))


class _Worker:
    def __init__(self, number: int) -> None:
        self.number, self.free = number, 0.0


def work(stage: str, args: tuple[Any, ...]) -> tuple[float, Any]:
    """What a worker would tell of a lease, and how long it would take; lengths of footage come from the addresses."""
    if stage == "probe":
        uris, record = args
        rows = [_row(uri) for uri in uris]
        storage.write_table(record, pa.Table.from_pylist(rows, PROBED))
        seconds = [row["duration_s"] for row in rows]
        numbers = [number_of(row["source_id"]) for row in rows]
        return PROBE_S * len(uris), Probed(record, numbers, seconds, [True] * len(uris), [])
    if stage == "observe":
        lengths = [item.length_s for item in args[0]]
        took = sum(SOURCE_S + OBSERVE_PER_S * length for length in lengths)
        return took, [Seen(item.key, "observe/0123456789abcdef.parquet", item.length_s) for item in args[0]]
    if stage == "look":
        took = sum(SOURCE_S + LOOK_PER_S * todo.item.length_s for todo in args[0])
        rejected, record = {"motion.vmaf_min": 2}, "look/0123456789abcdef.parquet"
        return took, [Looked(todo.item.key, record, 10, 8, todo.item.length_s, rejected) for todo in args[0]]
    if stage == "read":
        took, seen = work("observe", ([todo.item for todo in args[0]],))
        more, looked = work("look", args)
        return took + more, (seen, looked)
    if stage == APPLY:
        return 0.1, None
    return 0.0, None


def _row(uri: str) -> dict[str, Any]:
    name = uri.rpartition("/")[2]
    number, _, length = name.partition("-")
    duration_s = float(length.removesuffix(".mp4"))
    return {
        "uri": uri, "source_id": f"{int(number):016x}", "status": "ok", "size_bytes": 1, "codec": "h264",
        "width": 1920, "height": 1080, "fps": 25.0, "duration_s": duration_s, "stamp": "1:1",
    }  # fmt: skip


def simulate(lengths: np.ndarray, workers: int) -> tuple[float, float, Simulated]:
    """(share of the workers' time at work, driver's CPU seconds, cluster) of probing, observing and looking."""
    uris = pa.array([f"/footage/{n:09d}-{length:g}.mp4" for n, length in enumerate(lengths)])
    with tempfile.TemporaryDirectory() as root:
        cluster = Simulated(workers, work)
        pool = Pool(cluster, [Kind(CPU, dict)], 2, lambda error: None)
        setting = recipe.build({})
        job = Job(setting, root, pool, Bus(), Inputs(uris), Keys.of(setting))
        cpu = time.process_time()
        probe(job)
        began, busy = cluster.now(), cluster.busy_s
        observe_and_look(job)
        end = cluster.now()
        held = sum(end - max(placed, began) for placed in cluster.placed)  # workers' time, from their places on
        return (cluster.busy_s - busy) / held, time.process_time() - cpu, cluster


def handed_out(sources: int = 100_000) -> float:
    """Sources a second that the driver hands out and takes back, with workers that take no time; CPU seconds."""
    lengths = np.full(sources, 28.0)
    _, cpu, _ = simulate(lengths, 64)
    return sources / cpu


def main() -> None:
    if sys.argv[1:2] == ["memory"]:
        simulate(np.full(int(sys.argv[2]), 28.0), 1000)
        print(f"{int(sys.argv[2]):,} sources: peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        return
    print(f"driver: {handed_out():,.0f} sources a second (probed, observed, looked at) by one core")
    for workers in (128, 1000, 10_000):
        share, cpu, _ = simulate(np.full(100_000, 28.0), workers)
        print(f"{workers:6,} workers, 100,000 sources of 28 s: at work {share:.3f} of the time; driver {cpu:.1f} CPU s")
    lengths = np.append(np.full(1000, 30.0), 7200.0)
    share, _, _ = simulate(lengths, 16)
    print(f"tail: 1,000 files of 30 s and one of 2 h on 16 workers: idle {1 - share:.1%} of the time")


if __name__ == "__main__":
    main()
