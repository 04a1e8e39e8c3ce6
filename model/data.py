"""Batches from manifests: `sets/NAME` of one or more runs in, uint8 frames and captions of one bucket out.

The batch at a step is a pure function of (seed, step): the step chooses a bucket, and within it a slice of a
permutation that is computed, not stored (a Feistel network). So only the step needs saving, resuming is exact at any
number of ranks and workers, all ranks see the same bucket at one step, and rank r takes its share of the one global
batch. An epoch visits each bucket without repetition; what does not fill a batch waits for the next one.

What is unusual:
- Of the manifest only the buckets are read up front (8 bytes a row). Other columns are read
  a row group at a time, when a clip of it is wanted.
- A clip that cannot be decoded is recorded and replaced by a row that only depends on its place in the epoch.
- Frames stay uint8 [T, H, W, C] until they are on the device.
- Image batches (`image_every`) are single frames of the set's clips, or come from a set of images with buckets and an
  order of their own: then the n-th image batch and the n-th clip batch are pure functions of n.
- Every row of a set is equally likely; sets whose `weight` column says otherwise are refused.
"""

from __future__ import annotations

import difflib
import math
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from rushes.curation.manifest import ManifestError, Run, open_run, resolve
from rushes.model.frames import ClipError, read_clip, read_image

SIDE_STEP = 16  # pixels: the TAE shrinks a side 8 times, the DiT's patches take 2 of what is left
FEISTEL_ROUNDS = 6  # enough that neighbours in the epoch are not neighbours in the manifest
ROWS_HELD = 1 << 20  # of the row groups kept in memory: about 300 MB with captions of 150 characters
COLUMNS = ["clip_id", "media", "media_start_s", "media_end_s", "bucket_frames", "bucket_width", "bucket_height",
           "caption"]  # fmt: skip
IMAGE_SEED = 4  # keeps the order of the images apart from the clips'
CROP_SEEDS = (5, 6)  # keep the places of crops apart from other draws: top, left
_MASK = (1 << 64) - 1


class DataError(RuntimeError):
    """A set that cannot be trained on: one sentence with what to do."""


# ---- numbers that are drawn without a generator --------------------------------------------------------------------


def mix(*numbers: int) -> int:
    """A hash in [0, 2^64) of integers (splitmix64), the same on every machine."""
    state = 0
    for number in numbers:
        state = _splitmix(np.uint64((state ^ (number & _MASK)) & _MASK))
    return state


def unit(*numbers: int) -> float:
    """A uniform number in [0, 1) that depends on `numbers` alone."""
    return (mix(*numbers) >> 11) / 2**53


def _splitmix(value: np.uint64) -> int:
    return int(_splitmix_array(np.array([value], dtype=np.uint64))[0])


def _splitmix_array(x: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele 2014), uint64 [N]: sums and products wrap around."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def permute(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a permutation of range(size) sends `index` (int64 [N] in [0, size)); `key` chooses the permutation.

    A Feistel network over the next even number of bits; what falls outside is sent on until it is inside ("cycle
    walking"). No table: the cost is that of the indices asked for.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    low, shift = np.uint64((1 << half) - 1), np.uint64(half)
    keys = [np.uint64(mix(key, number)) for number in range(FEISTEL_ROUNDS)]
    out = np.asarray(index, dtype=np.uint64).copy()
    todo = np.arange(len(out))
    while len(todo):
        left, right = out[todo] >> shift, out[todo] & low
        for round_key in keys:
            left, right = right, left ^ (_splitmix_array(right ^ round_key) & low)
        out[todo] = (left << shift) | right
        todo = todo[out[todo] >= np.uint64(size)]
    return out.astype(np.int64)


# ---- the manifest --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What a batch of a bucket holds: frames, and sides in pixels."""

    frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"

    def scaled(self, frames_max: int | None, resolution: int | None) -> Shape:
        """At most `frames_max` frames, at about `resolution` ** 2 pixels with the same aspect; sides of 16 n."""
        frames = min(self.frames, frames_max or self.frames)
        if resolution is None:
            return Shape(frames, self.height, self.width)
        factor = resolution / math.sqrt(self.height * self.width)
        sides = (max(1, round(side * factor / SIDE_STEP)) * SIDE_STEP for side in (self.height, self.width))
        return Shape(frames, *sides)


@dataclass(frozen=True)
class Clip:
    """A row of a set. start_s, end_s: inside the media file, seconds; frames: sampled over the whole span.

    An image is a row of one frame, shown for one second.
    """

    clip_id: str
    uri: str
    start_s: float
    end_s: float
    frames: int
    caption: str

    @property
    def rate(self) -> float:
        """Frames per second at which the clip is sampled."""
        return self.frames / (self.end_s - self.start_s)

    @property
    def is_image(self) -> bool:
        return self.frames == 1


class ClipTable:
    """The rows of `sets/NAME` of those runs that have it, numbered through. Raises ManifestError, DataError."""

    def __init__(self, roots: Sequence[str], name: str) -> None:
        opened = [open_run(root) for root in roots]
        self.runs: list[Run] = [run for run in opened if f"sets/{name}" in run.tables]
        self.without = [run.root for run in opened if run not in self.runs]
        if not self.runs:
            raise ManifestError(_no_set(opened, name))
        self.name = name
        self._groups: list[tuple[int, str, int, str]] = []  # first row, file, row group, run's root
        self._firsts: list[int] = []  # the first rows alone
        self._held: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        self._lock = Lock()
        self.rows_by_bucket: list[tuple[str, int, np.ndarray]] = []  # bucket, frames, rows of one run
        self.rows = 0
        self._weights: set[float] = set()
        for run in self.runs:
            self._index(run)
        if len(self._weights) > 1:
            raise DataError(
                f"The weights in sets/{name} go from {min(self._weights):g} to {max(self._weights):g}, but training "
                f"draws every row equally often: publish the set with one weight, holding the rows that are wanted."
            )

    @property
    def identity(self) -> list[list[str]]:
        """Which data this is: per run its address and snapshot, and the set."""
        return [[run.root, run.record["snapshot"], self.name] for run in self.runs]

    def _index(self, run: Run) -> None:
        table = f"sets/{self.name}"
        fs, root = resolve(run.root)
        parts: dict[tuple[str, int], list[np.ndarray]] = {}
        for path in run.record["tables"][table]["files"]:
            with pq.ParquetFile(f"{root}/{path}", filesystem=fs, read_dictionary=["bucket"]) as file:
                self._weights |= _weights_of(file)
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["bucket", "bucket_frames"])
                    column = table["bucket"].combine_chunks()
                    codes = column.indices.fill_null(len(column.dictionary)).to_numpy()
                    frames = table["bucket_frames"].combine_chunks().fill_null(0).to_numpy()
                    for code, bucket in enumerate(column.dictionary.to_pylist()):
                        here = np.flatnonzero(codes == code)
                        for count in np.unique(frames[here]).tolist():
                            parts.setdefault((bucket, count), []).append(here[frames[here] == count] + self.rows)
                    self._groups.append((self.rows, path, group, run.root))
                    self._firsts.append(self.rows)
                    self.rows += len(codes)
        self.rows_by_bucket += [(*key, np.concatenate(rows)) for key, rows in sorted(parts.items())]

    def __getitem__(self, row: int) -> Clip:
        """A row as a clip. Raises ClipError where it has no media file or no span."""
        value, root = self._row(row)
        start_s, end_s, media = value["media_start_s"], value["media_end_s"], value["media"]
        if not media or start_s is None or end_s is None or end_s <= start_s or not value["bucket_frames"]:
            raise ClipError(f"Clip {value['clip_id']} has no media file or no span in the manifest of {root}.")
        uri = media if "://" in media or media.startswith("/") else f"{root.rstrip('/')}/{media}"
        return Clip(value["clip_id"], uri, start_s, end_s, value["bucket_frames"], value["caption"] or "")

    def shape_of(self, row: int) -> Shape:
        """The shape that the manifest gives a row. Raises DataError where it lacks one."""
        value, root = self._row(row)
        sides = [value[name] for name in ("bucket_frames", "bucket_height", "bucket_width")]
        if not all(sides):
            raise DataError(
                f"Clip {value['clip_id']} lacks bucket_frames, bucket_height or bucket_width in the manifest of {root}."
            )
        return Shape(*sides)

    def _row(self, row: int) -> tuple[dict[str, Any], str]:
        at = bisect_right(self._firsts, row) - 1
        first, path, group, root = self._groups[at]
        columns = self._columns(at, path, group, root)
        return {name: columns[name][row - first].as_py() for name in COLUMNS}, root

    def _columns(self, at: int, path: str, group: int, root: str) -> dict[str, Any]:
        with self._lock:
            if at in self._held:
                self._held.move_to_end(at)
                return self._held[at]
        fs, folder = resolve(root)
        with pq.ParquetFile(f"{folder}/{path}", filesystem=fs) as file:
            table = file.read_row_group(group, columns=COLUMNS, use_threads=False)
        columns = {name: table[name] for name in COLUMNS}
        with self._lock:
            self._held[at] = columns
            while len(self._held) * len(columns["clip_id"]) > ROWS_HELD and len(self._held) > 1:
                self._held.popitem(last=False)
        return columns


def _no_set(runs: Sequence[Run], name: str) -> str:
    sets = sorted({table.removeprefix("sets/") for run in runs for table in run.tables if table.startswith("sets/")})
    near = difflib.get_close_matches(name, sets, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"sets: {', '.join(sets) or 'none'}."
    return f"There is no set '{name}' in {', '.join(run.root for run in runs)}; {hint}"


def _weights_of(file: pq.ParquetFile) -> set[float]:
    """Least and largest `weight` of each row group, from the statistics where the file has them; nulls are left out."""
    found: set[float] = set()
    at = file.schema_arrow.get_field_index("weight")
    for group in range(file.num_row_groups if at >= 0 else 0):
        told = file.metadata.row_group(group).column(at).statistics
        if told is not None and told.has_min_max:
            found |= {told.min, told.max}
        elif told is None or told.null_count != file.metadata.row_group(group).num_rows:
            found |= set(file.read_row_group(group, columns=["weight"])["weight"].drop_null().to_pylist())
    return found


# ---- which rows at which step --------------------------------------------------------------------------------------


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
    errors_max: int = 16  # clips a rank may fail to decode before the run stops
    workers: int = 2  # decoding threads; 0: none, decode when asked
    prefetch: int = 2  # batches ahead
    images: str | None = None  # the set that image batches come from; None: they are single frames of clips
    crop: int | None = None  # pixels: a random square of the picture, the whole side where it is shorter; None: all


@dataclass(frozen=True)
class Bucket:
    """Rows that are batched together: those whose clips get the same shape. rows: int64 [N]."""

    shape: Shape
    names: tuple[str, ...]
    rows: np.ndarray


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
    everything = [_bucket(shape, parts) for shape, parts in sorted(merged.items(), key=lambda item: str(item[0]))]
    text = bucket_table(everything, options.batch)
    small = [bucket for bucket in everything if len(bucket.rows) < options.batch]
    if small and (options.small_buckets == "stop" or len(small) == len(everything)):
        one = min(small, key=lambda bucket: len(bucket.rows))
        raise DataError(
            f"{text}\nThe bucket {one.shape} has {len(one.rows)} clips, fewer than one batch of {options.batch}: "
            f"make the batch smaller, curate more"
            + ("." if len(small) == len(everything) else ", or set small_buckets to leave_out.")
        )
    return [bucket for bucket in everything if len(bucket.rows) >= options.batch], text


def _bucket(shape: Shape, parts: list[tuple[str, np.ndarray]]) -> Bucket:
    rows = parts[0][1] if len(parts) == 1 else np.concatenate([rows for _, rows in parts])
    return Bucket(shape, tuple(sorted({name for name, _ in parts})), rows)


def bucket_table(buckets: Sequence[Bucket], batch: int) -> str:
    """One line per bucket: shape, clips, batches in an epoch, and the manifest's buckets in it."""
    lines = [f"{'shape':>16} {'clips':>10} {'batches':>9}  buckets"]
    for bucket in buckets:
        count = len(bucket.rows) // batch
        note = "" if count else "  (fewer than one batch: not trained on)"
        lines.append(f"{bucket.shape!s:>16} {len(bucket.rows):>10,} {count:>9,}  {', '.join(bucket.names)}{note}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Plan:
    """(seed, step) -> (bucket, places in its permutation): a pure function, nothing is stored."""

    sizes: tuple[int, ...]  # clips of each bucket, none smaller than a batch
    batch: int
    seed: int

    def at(self, step: int) -> tuple[int, int, np.ndarray]:
        """(bucket, epoch, places int64 [batch]) of the global batch at `step`."""
        ends = np.cumsum([size // self.batch for size in self.sizes])
        epoch, index = divmod(step, int(ends[-1]))
        turn = int(permute(np.array([index]), int(ends[-1]), mix(self.seed, 1, epoch))[0])
        bucket = int(np.searchsorted(ends, turn, side="right"))
        begin = (turn - (int(ends[bucket - 1]) if bucket else 0)) * self.batch
        return bucket, epoch, np.arange(begin, begin + self.batch)

    def rows(self, bucket: int, epoch: int, places: np.ndarray) -> np.ndarray:
        """Which of the bucket's clips stand at these places of its permutation in this epoch: int64 [N]."""
        return permute(places, self.sizes[bucket], mix(self.seed, 2, epoch, bucket))

    def replacement(self, bucket: int, place: int, attempt: int) -> int:
        """The place whose clip stands in for an undecodable one: `attempt` batches on, at last every clip's."""
        size, stride = self.sizes[bucket], self.batch
        while math.gcd(stride, size) > 1:
            stride += 1
        return (place + attempt * stride) % size


# ---- batches -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One clip's part in a batch. frames: uint8 [T, H, W, 3]; rate: frames per second; failed: sentences."""

    frames: np.ndarray
    caption: str
    rate: float
    clip_id: str
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Batch:
    """This rank's share of the global batch at `step`; `places` are its samples' numbers within the global batch."""

    step: int
    shape: Shape
    places: tuple[int, ...]
    samples: tuple[Sample, ...]

    @property
    def frames(self) -> np.ndarray:
        """uint8 [B, T, H, W, 3]."""
        return np.stack([sample.frames for sample in self.samples])


def sample_times(clip: Clip, count: int, luck: float) -> np.ndarray:
    """float64 [count]: times at the clip's rate, uniformly over a contiguous part that `luck` in [0, 1) places."""
    count_s = count / clip.rate
    offset = luck * max(clip.end_s - clip.start_s - count_s, 0.0)
    return clip.start_s + offset + (np.arange(count) + 0.5) / clip.rate


def frames_of(clip: Clip, shape: Shape, luck: float) -> np.ndarray:
    """uint8 [T, H, W, 3] of an image, or of the part of a clip that `luck` in [0, 1) places. Raises ClipError."""
    if clip.is_image:
        return read_image(clip.uri, shape.height, shape.width)
    return read_clip(clip.uri, sample_times(clip, shape.frames, luck), shape.height, shape.width)


class _Part:
    """A set that batches are drawn from: its rows, its buckets, and which rows are in which of its batches."""

    def __init__(self, roots: Sequence[str], options: DataOptions) -> None:
        self.table = ClipTable(roots, options.set)
        self.buckets, self.description = buckets_of(self.table, options)
        self.plan = Plan(tuple(len(bucket.rows) for bucket in self.buckets), options.batch, options.seed)
        for root in self.table.without:
            self.description += f"\n{root} has no sets/{options.set}: nothing of it is read here."


class Loader:
    """Batches from `start` on, decoded ahead by threads (PyAV lets go of the interpreter while it decodes).

    rank, world: this process and how many there are; the global batch must divide by `world`. `table`, `buckets` and
    `plan` are those of the clips, or of the images where there is nothing else. Raises DataError, ManifestError.
    """

    def __init__(self, roots: Sequence[str], options: DataOptions, rank: int = 0, world: int = 1) -> None:
        if options.batch % world:
            raise DataError(
                f"A global batch of {options.batch} does not divide among {world} ranks; "
                f"make the batch a multiple of {world}, or start fewer ranks."
            )
        self.options, self.rank, self.world = options, rank, world
        self._images = self._clips = None
        if options.images and options.image_every:
            seed = mix(options.seed, IMAGE_SEED)
            self._images = _Part(roots, replace(options, set=options.images, seed=seed, frames_max=1, buckets=None))
        if self._images is None or options.image_every > 1:
            self._clips = _Part(roots, options)
        first = self._clips or self._images
        self.table, self.buckets, self.plan = first.table, first.buckets, first.plan
        self.failures: list[str] = []
        self._pools: list[ThreadPoolExecutor] = []

    @property
    def description(self) -> str:
        """The bucket tables that are printed before the first step."""
        parts = [] if self._clips is None else [self._clips.description]
        if self._images is not None:
            parts += [f"Images from sets/{self.options.images}, in one of {self.options.image_every} batches:"]
            parts += [self._images.description]
        return "\n".join(parts)

    @property
    def identity(self) -> list[list[str]]:
        """Which data this is: see ClipTable.identity; clips first, then images."""
        return [entry for part in (self._clips, self._images) if part is not None for entry in part.table.identity]

    def _turn(self, step: int) -> tuple[_Part, int]:
        """The set that the batch at `step` comes from, and the batch's number among those of this set."""
        every = self.options.image_every
        if self._images is None:
            return self._clips, step
        if step % every == 0:
            return self._images, step // every
        return self._clips, step - 1 - step // every

    def rows_at(self, step: int) -> tuple[Bucket, np.ndarray]:
        """The bucket and the rows (int64 [batch]) of the global batch at `step`."""
        part, turn = self._turn(step)
        number, epoch, places = part.plan.at(turn)
        return part.buckets[number], part.buckets[number].rows[part.plan.rows(number, epoch, places)]

    def shape_at(self, step: int) -> Shape:
        """The shape of the batch at `step`; an image batch has one frame."""
        whole, crop = self._whole(step), self.options.crop
        return Shape(whole.frames, min(crop, whole.height), min(crop, whole.width)) if crop else whole

    def _whole(self, step: int) -> Shape:
        """`shape_at` before pictures are cropped."""
        part, turn = self._turn(step)
        shape, every = part.buckets[part.plan.at(turn)[0]].shape, self.options.image_every
        return replace(shape, frames=1) if every and step % every == 0 else shape

    def batches(self, steps: Sequence[int]) -> Iterator[Batch]:
        """The batches of these steps, in this order; a range from where a run resumes to its end."""
        if not self.options.workers:
            for step in steps:
                yield self._finish(step, [self._sample(step, place) for place in self._share()])
            return
        pool = ThreadPoolExecutor(self.options.workers, thread_name_prefix="decode")
        self._pools.append(pool)
        ahead = max(self.options.prefetch, math.ceil(self.options.workers / len(self._share())))  # none is idle
        waiting: deque[tuple[int, list[Future[Sample]]]] = deque()
        try:
            for step in steps:
                waiting.append((step, [pool.submit(self._sample, step, place) for place in self._share()]))
                if len(waiting) > ahead:
                    yield self._taken(waiting)
            while waiting:
                yield self._taken(waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Decode nothing more: what waits is dropped, only what is in hand is finished."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _taken(self, waiting: deque[tuple[int, list[Future[Sample]]]]) -> Batch:
        step, futures = waiting.popleft()
        return self._finish(step, [future.result() for future in futures])

    def _share(self) -> range:
        share = self.options.batch // self.world
        return range(self.rank * share, (self.rank + 1) * share)

    def _finish(self, step: int, samples: list[Sample]) -> Batch:
        for sample in samples:
            self.failures += sample.failed
        if len(self.failures) > self.options.errors_max:
            raise DataError(
                f"{len(self.failures)} clips could not be decoded, more than errors_max = {self.options.errors_max}; "
                f"the last: {self.failures[-1]}"
            )
        return Batch(step, self.shape_at(step), tuple(self._share()), tuple(samples))

    def _sample(self, step: int, place: int) -> Sample:
        part, turn = self._turn(step)
        number, epoch, places = part.plan.at(turn)
        shape, failed = self._whole(step), []
        for attempt in range(min(part.plan.sizes[number], self.options.errors_max + 1)):
            at = part.plan.replacement(number, int(places[place]), attempt)
            row = part.buckets[number].rows[part.plan.rows(number, epoch, np.array([at]))[0]]
            try:
                sample = self._read(part.table[int(row)], shape, unit(self.options.seed, 3, step, place))
            except ClipError as error:
                failed.append(str(error))
                continue
            if self.options.crop:
                sample = replace(sample, frames=self._cropped(sample.frames, step, place))
            return replace(sample, failed=tuple(failed))
        raise DataError(f"No clip of the bucket {shape} could be decoded in {len(failed)} attempts; {failed[-1]}")

    def _cropped(self, frames: np.ndarray, step: int, place: int) -> np.ndarray:
        """uint8 [T, H, W, 3] -> the square of `crop` pixels, the same in all frames, that (seed, step, place) draws."""
        crop = self.options.crop
        lucks = [unit(self.options.seed, number, step, place) for number in CROP_SEEDS]
        top, left = (int(luck * (max(side - crop, 0) + 1)) for luck, side in zip(lucks, frames.shape[1:3]))
        return np.ascontiguousarray(frames[:, top : top + crop, left : left + crop])

    def _read(self, clip: Clip, shape: Shape, luck: float) -> Sample:
        """One clip's part in a batch; `luck` in [0, 1) places it. Raises ClipError."""
        return Sample(frames_of(clip, shape, luck), clip.caption, clip.rate, clip.clip_id)
