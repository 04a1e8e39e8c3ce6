"""What every input is, on the driver's side: leases of addresses next to each other; nodes that do not find them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rushes.curation import storage
from rushes.curation.video.source import Source
from rushes.pipelines.engine.cluster import Place
from rushes.pipelines.engine.pool import Failure
from rushes.pipelines.stages.items import LONG_S, PROBED, Probed
from rushes.pipelines.stages.job import Inputs, Job
from rushes.pipelines.stages.records import key_of, number_of

MANY = 100_000  # addresses from which they are not all made Python strings at once
PROBE_MEAN, PROBE_MOST = 128, 512  # inputs of a lease of probing
PROBE_S = 5.0  # an input's share of such a lease's time limit, beside engine.timeout_min_s
BLAMED_MAX = 3  # inputs found elsewhere after which the node that did not find them is left out
PROBE = "probe"


def probe(job: Job) -> None:
    """What every input is; of inputs with the same content the first goes on."""
    stage = job.bus.stage(PROBE, len(job.inputs.uris), "sources")
    blame = Blame(job)
    for number, some in enumerate(_probe_leases(job.inputs.uris)):
        _submit_probe(job, some, (number,))
    done: dict[tuple[float, ...], Probed] = {}
    for task, result in job.pool.completed():
        uris, record = task.args
        if isinstance(result, Failure):
            if len(uris) > 1:  # one of them; the others lose nothing by it
                for place, uri in enumerate(uris):
                    _submit_probe(job, [uri], (*task.order, place))
                continue
            result = _not_probed(uris[0], record, result.reason)
        elif result.missing and job.pool.elsewhere(task.avoid | {task.place.node}):
            _submit_probe(job, uris, task.order, task.avoid | {task.place.node})
            blame.suspect(task.order, task.place, len(result.missing))
            continue
        blame.cleared(task.order, len(result.missing))
        done[task.order] = result
        stage.error("probe", sum(not ok for ok in result.ok))
        stage.step(len(uris))
    job.inputs.take([done[order] for order in sorted(done)])
    stage.end()


def _submit_probe(job: Job, uris: list[str], order: tuple[float, ...], avoid: frozenset[str] = frozenset()) -> None:
    record = job.work("sources", f"{key_of(uris)}.parquet")
    limit = job.recipe.engine.timeout_min_s + PROBE_S * (len(uris) - 1)
    job.pool.submit("probe", str(order[0]), uris, record, order=order, timeout_s=limit, avoid=avoid)


def _probe_leases(uris: pa.Array) -> Iterator[list[str]]:
    """Addresses next to each other. A lease ends where an address's hash says so: one more input changes one lease."""
    some: list[str] = []
    for uri in uris.to_pylist() if len(uris) < MANY else (value.as_py() for value in uris):
        some.append(uri)
        if number_of(uri) % PROBE_MEAN == 0 or len(some) >= PROBE_MOST:
            yield some
            some = []
    if some:
        yield some


def _not_probed(uri: str, record: str, reason: str) -> Probed:
    """An input that ended every worker that probed it: a row all the same."""
    source = Source(uri=uri).failed(reason)
    storage.write_table(record, pa.Table.from_pylist([{**source.row(), "stamp": None}], PROBED))
    return Probed(record, [0], [0.0], [False], [])


class Blame:
    """Nodes that do not find what others find: after some such inputs a node is left out."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._suspects: dict[Any, list[tuple[Place, int]]] = {}
        self._blamed: Counter[str] = Counter()

    def suspect(self, key: Any, place: Place, count: int) -> None:
        """So many inputs of a lease were not found there."""
        self._suspects.setdefault(key, []).append((place, count))

    def cleared(self, key: Any, missing: int) -> None:
        """The lease was done, by another node where there are suspects, which found all but `missing`."""
        for place, count in self._suspects.pop(key, []):
            self._blamed[place.node] += max(0, count - missing)
            if self._blamed[place.node] >= BLAMED_MAX:
                self._job.pool.leave_out(place, "it does not find files that other nodes find")


def sources_of(inputs: Inputs) -> Iterator[tuple[int, Source]]:
    """(number, source) of every input that is worth decoding, long ones first; a lease's rows at a time."""
    long = inputs.seconds > LONG_S
    for wanted in (inputs.ok & long, inputs.ok & ~long):
        for record, first, stop in zip(inputs.records, inputs.first, inputs.first[1:], strict=False):
            if wanted[first:stop].any():
                for place, row in enumerate(probed_rows(record)):
                    if wanted[first + place]:
                        yield first + place, Source(**row)


def probed_rows(record: str) -> list[dict[str, Any]]:
    """Rows of `sources` in a record of probing."""
    return storage.read_table(record, columns=[name for name in PROBED.names if name != "stamp"]).to_pylist()
