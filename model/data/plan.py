"""Which rows at which step: buckets, how many clips of each make a batch, and the order of an epoch.

The batch at a step is a pure function of (seed, step): the step chooses a bucket, and within it a slice of a
permutation that is computed, not stored (a Feistel network). An epoch visits each bucket without repetition; what does
not fill a batch waits for the next one. Where nothing else makes the steps of a small set cost alike, they have clips
of several buckets (pack.py). A set of more rows than the table holds in memory is permuted window by window, so that
each of its row groups is read about once an epoch: a set's rows are sorted by a hash, so a window is as mixed as the
set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

import rushes.model.data.table as tables
from rushes.model.data.draws import mix, permute
from rushes.model.data.pack import GOAL, UNITS_MOST, packed
from rushes.model.data.table import ClipTable, DataError, Shape


@dataclass(frozen=True)
class DataOptions:
    """What is read and how it is batched."""

    set: str = "pretrain-256"
    batch: int = 8  # clips of a global batch, all ranks together
    seed: int = 0
    frames_max: int | None = None  # at most so many frames, a random contiguous part of the clip; None: the bucket's
    resolution: int | None = None  # pixels, square root of the area; None: the set's
    image_every: int | None = None  # every n-th batch holds images: 4 is 1 : 3, 11 is 1 : 10, 1 is images only
    buckets: tuple[str, ...] | None = None  # only these, each of which must have clips; None: all
    small_buckets: str = "stop"  # with fewer clips than a batch: "stop" with a sentence, or "leave_out"
    errors_max: int = 16  # different clips that a rank may fail to decode before the run stops
    workers: int = 2  # decoding threads; 0: none, decode when asked
    prefetch: int = 2  # batches ahead
    images: str | None = None  # the set that image batches come from; None: they are single frames of clips
    crop: int | None = None  # pixels: a random square of the picture, the whole side where it is shorter; None: all
    # With `balance`, `batch` is that of the costliest bucket; the others have more clips, in multiples of `balance`,
    # so that steps cost alike by `cost`; steps of a small set may have clips of several buckets. None: `batch` clips.
    balance: int | None = None
    cost: Callable[[Shape], float] | None = None  # of a clip of this shape, in any unit


@dataclass(frozen=True)
class Bucket:
    """Rows that are batched together: those whose clips get the same shape. rows: int64 [N], ascending per run."""

    shape: Shape
    names: tuple[str, ...]
    rows: np.ndarray
    batch: int  # clips of a global batch


def buckets_of(table: ClipTable, options: DataOptions) -> tuple[list[Bucket], str]:
    """The buckets that are trained on, and the table that is printed before the first step.

    Raises DataError for a bucket asked for that is empty, for one with fewer clips than a batch (unless small ones
    are left out), and where nothing is left.
    """
    there = {name for name, _, _ in table.rows_by_bucket}
    for name in options.buckets or ():
        if name not in there:
            raise DataError(
                f"The bucket '{name}' of the set '{table.name}' is empty; it has: {', '.join(sorted(there)) or 'none'}."
            )
    if not there:
        raise DataError(f"The set '{table.name}' has no clips; judge with looser thresholds, or name another set.")
    merged: dict[Shape, list[tuple[str, np.ndarray]]] = {}
    for name, _, rows in table.rows_by_bucket:
        if options.buckets is None or name in options.buckets:
            shape = table.shape_of(int(rows[0])).scaled(options.frames_max, options.resolution)
            merged.setdefault(shape, []).append((name, rows))
    clips = {shape: sum(len(rows) for _, rows in parts) for shape, parts in merged.items()}
    batches = batch_sizes(clips, options)
    everything = [_bucket(s, parts, batches[s]) for s, parts in sorted(merged.items(), key=lambda item: str(item[0]))]
    text = bucket_table(everything)
    small = [bucket for bucket in everything if len(bucket.rows) < bucket.batch]
    if small and (options.small_buckets == "stop" or len(small) == len(everything)):
        one = min(small, key=lambda bucket: len(bucket.rows))
        raise DataError(
            f"{text}\nThe bucket {one.shape} has {len(one.rows)} clips, fewer than one batch of {one.batch}: "
            f"make the batch smaller (--set stages.all.batch={max(1, len(one.rows))}, and micro_batch no larger), "
            f"curate more"
            + (
                "."
                if len(small) == len(everything)
                else ", or leave it out (--set stages.all.small_buckets=leave_out)."
            )
        )
    return [bucket for bucket in everything if len(bucket.rows) >= bucket.batch], text


def batch_sizes(clips: dict[Shape, int], options: DataOptions) -> dict[Shape, int]:
    """Clips of a global batch of each shape, of which there are so many `clips`.

    Alike, or, with `balance`, such that every batch costs what one of the costliest shape does, to the nearest multiple
    of `balance`; never fewer than `batch`, nor more than there are.
    """
    if options.balance is None or options.cost is None:
        return dict.fromkeys(clips, options.batch)
    step, most = options.balance, max(options.cost(shape) for shape in clips)
    wanted = {shape: options.batch * most / options.cost(shape) for shape in clips}
    fitting = {shape: min(round(wanted[shape] / step), count // step) * step for shape, count in clips.items()}
    return {shape: max(options.batch, count) for shape, count in fitting.items()}


def plan_of(buckets: Sequence[Bucket], options: DataOptions, rounds: int = 1) -> Plan:
    """Batches of one bucket each; of several where balanced ones of a small set cost too differently."""
    sizes, batches = (tuple(sizes) for sizes in zip(*((len(bucket.rows), bucket.batch) for bucket in buckets)))
    plan = Plan(sizes, batches, options.seed, rounds)
    if options.balance is None or options.cost is None or rounds > 1:
        return plan
    costs = np.array([options.cost(bucket.shape) for bucket in buckets])
    units = np.array(sizes) // options.balance
    if imbalance(plan, costs) <= GOAL or units.sum() > UNITS_MOST:
        return plan
    steps = packed(units, costs * options.balance, options.batch * costs.max()) * options.balance
    ends = np.cumsum(np.vstack([np.zeros_like(units), steps]), axis=0)
    return replace(plan, mixed=tuple(map(tuple, ends.tolist())))


def imbalance(plan: Plan, costs: np.ndarray) -> float:
    """Cost of the costliest step over that of the mean step of an epoch; 1 where all cost alike. costs: of a clip."""
    if plan.mixed:
        steps = np.diff(np.array(plan.mixed), axis=0) @ costs
        return float(steps.max() / steps.mean())
    steps = np.array([size // batch for size, batch in zip(plan.sizes, plan.batches)])
    each = np.array(plan.batches) * costs
    return float(each[steps > 0].max() * steps.sum() / (each * steps).sum())


def _bucket(shape: Shape, parts: list[tuple[str, np.ndarray]], batch: int) -> Bucket:
    rows = parts[0][1] if len(parts) == 1 else np.concatenate([rows for _, rows in parts])
    return Bucket(shape, tuple(sorted({name for name, _ in parts})), np.sort(rows), batch)


def bucket_table(buckets: Sequence[Bucket]) -> str:
    """One line per bucket: shape, clips, clips of a batch, batches in an epoch, and the manifest's buckets in it."""
    lines = [f"{'shape':>16} {'clips':>10} {'a batch':>8} {'batches':>9}  buckets"]
    for bucket in buckets:
        rows, count = len(bucket.rows), len(bucket.rows) // bucket.batch
        note = "" if count else "  (fewer than one batch: not trained on)"
        names = ", ".join(bucket.names)
        lines.append(f"{bucket.shape!s:>16} {rows:>10,} {bucket.batch:>8,} {count:>9,}  {names}{note}")
    return "\n".join(lines)


def rounds_of(table: ClipTable, buckets: Sequence[Bucket]) -> int:
    """Windows that each bucket is divided into: 1 where the table's rows stay in memory.

    One window of every bucket fits into half of the rows that the table holds, so two of each, at their seams, do.
    """
    return 1 if table.rows <= tables.ROWS_HELD else -(-2 * len(buckets) * table.rows // tables.ROWS_HELD)


@dataclass(frozen=True)
class Plan:
    """(seed, step) -> (bucket, places in its permutation): a pure function, nothing is stored."""

    sizes: tuple[int, ...]  # clips of each bucket, none smaller than its batch
    batches: tuple[int, ...]  # clips of a global batch of each bucket
    seed: int
    rounds: int = 1  # of an epoch, in each of which about one window of every bucket is read
    # Clips of each bucket that an epoch has seen when each of its steps begins, and at its end [steps + 1, buckets].
    # (): a step is a batch of one bucket.
    mixed: tuple[tuple[int, ...], ...] = ()

    def at(self, step: int) -> tuple[int, list[tuple[int, np.ndarray]]]:
        """(epoch, (bucket, places int64 [clips]) of each bucket in it) of the global batch at `step`."""
        if self.mixed:
            epoch, index = divmod(step, len(self.mixed) - 1)
            turn = int(permute(np.array([index]), len(self.mixed) - 1, mix(self.seed, 1, epoch))[0])
            both = enumerate(zip(self.mixed[turn], self.mixed[turn + 1]))
            return epoch, [(bucket, np.arange(begin, end)) for bucket, (begin, end) in both if end > begin]
        edges = _round_edges(self.sizes, self.batches, self.rounds)
        ends = edges.sum(1)
        epoch, index = divmod(step, int(ends[-1]))
        number = int(np.searchsorted(ends, index, side="right")) - 1
        last = np.cumsum(edges[number + 1] - edges[number])
        place = np.array([index - ends[number]])
        turn = int(permute(place, int(last[-1]), mix(self.seed, 1, epoch, number))[0])
        bucket = int(np.searchsorted(last, turn, side="right"))
        turn -= int(last[bucket - 1]) if bucket else 0
        batch = self.batches[bucket]
        begin = (int(edges[number, bucket]) + turn) * batch
        return epoch, [(bucket, np.arange(begin, begin + batch))]

    def rows(self, bucket: int, epoch: int, places: np.ndarray) -> np.ndarray:
        """Which of the bucket's clips stand at these places of its permutation in this epoch: int64 [N]."""
        size, key = self.sizes[bucket], mix(self.seed, 2, epoch, bucket)
        return permute(places, size, key) if self.rounds == 1 else _in_windows(places, size, self.rounds, key)

    def replacement(self, bucket: int, place: int, attempt: int) -> int:
        """The place whose clip stands in for an undecodable one: `attempt` batches on, at last every clip's."""
        size, stride = self.sizes[bucket], self.batches[bucket]
        while math.gcd(stride, size) > 1:
            stride += 1
        return (place + attempt * stride) % size


def _in_windows(places: np.ndarray, size: int, count: int, key: int) -> np.ndarray:
    """A permutation of range(size) at `places`: `count` windows of neighbours in turn, each permuted alone."""
    order, ends, edges = _window_order(size, count, key)
    at = np.searchsorted(ends, places, side="right")
    out = np.empty(len(places), np.int64)
    for turn in np.unique(at).tolist():
        number, begin = int(order[turn]), int(ends[turn - 1]) if turn else 0
        low, high = int(edges[number]), int(edges[number + 1])
        inside = at == turn
        out[inside] = low + permute(places[inside] - begin, high - low, mix(key, number))
    return out


@lru_cache(maxsize=256)
def _window_order(size: int, count: int, key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(windows in turn [K], places before the end of each turn [K], first rows of the windows and `size` [K + 1])."""
    edges = np.arange(count + 1, dtype=np.int64) * size // count
    order = permute(np.arange(count), count, key)
    return order, np.cumsum(np.diff(edges)[order]), edges


@lru_cache(maxsize=16)
def _round_edges(sizes: tuple[int, ...], batches: tuple[int, ...], rounds: int) -> np.ndarray:
    """int64 [rounds + 1, buckets]: how many batches of each bucket an epoch has seen when a round begins."""
    counts = np.array([size // batch for size, batch in zip(sizes, batches)], np.int64)
    return np.arange(rounds + 1, dtype=np.int64)[:, None] * counts // rounds
