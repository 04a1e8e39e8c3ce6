"""Batches from manifests: `sets/NAME` of one or more runs in, uint8 frames and captions of one bucket out.

Only the step needs saving: resuming is exact at any number of ranks and workers, all ranks see the same bucket at one
step, and rank r takes its share of the one global batch (plan.py).

What is unusual:
- A clip that cannot be decoded is recorded and replaced by a row that only depends on its place in the epoch.
- Frames stay uint8 [T, H, W, C] until they are on the device.
- Image batches (`image_every`) are single frames of the set's clips, or come from a set of images with buckets and an
  order of their own: then the n-th image batch and the n-th clip batch are pure functions of n.
- Every row of a set is equally likely; sets whose `weight` column says otherwise are refused.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rushes.model.data.draws import mix, unit
from rushes.model.data.plan import Bucket, DataOptions, buckets_of, plan_of, rounds_of
from rushes.model.data.table import Clip, ClipTable, DataError, Shape
from rushes.model.frames import ClipError, read_clip, read_image

if TYPE_CHECKING:
    from torch import Tensor

IMAGE_SEED = 4  # keeps the order of the images apart from the clips'
CROP_SEEDS = (5, 6)  # keep the places of crops apart from other draws: top, left


class Failed(NamedTuple):
    """A clip that could not be had: its number in its table, and why."""

    row: str
    why: str


@dataclass(frozen=True)
class Sample:
    """One clip's part in a batch. frames: uint8 [T, H, W, 3]; rate: frames per second; failed: those it stands for."""

    frames: np.ndarray
    caption: str
    rate: float
    clip_id: str
    failed: tuple[Failed, ...] = ()


@dataclass(frozen=True)
class EncodedSample(Sample):
    """A clip's part in a batch, without frames. latent: [C, T, H, W], not normalised; text: name -> [L, width]."""

    latent: Tensor | None = None
    text: dict[str, Tensor] | None = None


class Group(NamedTuple):
    """Neighbouring samples of one shape. clips: of this rank; whole: of it in a batch that has this shape alone."""

    shape: Shape
    clips: int
    whole: int


@dataclass(frozen=True)
class Batch:
    """This rank's share of the global batch at `step`; `places` are its samples' numbers within the global batch.

    groups: one, but for the mixed steps of DataOptions.balance. share: clips of this rank in a batch that is not
    enlarged. ready: what `prepare` (Loader.batches) made of it in the loader's thread.
    """

    step: int
    groups: tuple[Group, ...]
    places: tuple[int, ...]
    samples: tuple[Sample, ...]
    share: int
    ready: Any = None

    @property
    def shape(self) -> Shape:
        """Of its first samples; of all where it is not mixed."""
        return self.groups[0].shape

    @property
    def images(self) -> bool:
        """Single frames, without the rate in front of their captions."""
        return self.shape.frames == 1

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
        self.plan = plan_of(self.buckets, options, rounds_of(self.table, self.buckets))
        if self.plan.mixed:
            self.description += f"\nSteps take clips of several of them, {len(self.plan.mixed) - 1:,} steps an epoch."
        for root in self.table.without:
            self.description += f"\n{root} has no sets/{options.set}: nothing of it is read here."


def _found(groups: list[tuple[int, np.ndarray]], place: int) -> tuple[int, int]:
    """(bucket, place in its permutation) of a place in the global batch."""
    for bucket, places in groups:
        if place < len(places):
            return bucket, int(places[place])
        place -= len(places)
    raise IndexError(f"the batch ends {place + 1} places earlier")


class Loader:
    """Batches from `start` on, decoded ahead by threads (PyAV lets go of the interpreter while it decodes).

    rank, world: this process and how many there are; the global batch must divide by `world`. `table`, `buckets` and
    `plan` are those of the clips, or of the images where there is nothing else. Raises DataError, ManifestError.
    """

    def __init__(self, roots: Sequence[str], options: DataOptions, rank: int = 0, world: int = 1) -> None:
        for what, count in (("A global batch", options.batch), ("A balance", options.balance or 0)):
            if count % world:
                raise DataError(
                    f"{what} of {count} does not divide among {world} ranks; "
                    f"make it a multiple of {world}, or start fewer ranks."
                )
        self.options, self.rank, self.world = options, rank, world
        self._images = self._clips = None
        if options.images and options.image_every:
            seed = mix(options.seed, IMAGE_SEED)
            self._images = _Part(roots, replace(options, set=options.images, seed=seed, frames_max=1, buckets=None,
                                                balance=None))  # fmt: skip
        if self._images is None or options.image_every > 1:
            self._clips = _Part(roots, options)
        first = self._clips or self._images
        self.table, self.buckets, self.plan = first.table, first.buckets, first.plan
        self.failures: dict[str, str] = {}  # row -> why, of different clips
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

    def _at(self, step: int) -> tuple[_Part, int, list[tuple[int, np.ndarray]]]:
        """(set, epoch, (number of the bucket, places) of each group) of the global batch at `step`."""
        part, turn = self._turn(step)
        return part, *part.plan.at(turn)

    def rows_at(self, step: int) -> list[tuple[Bucket, np.ndarray]]:
        """The buckets and the rows (int64 [clips]) of the groups of the global batch at `step`."""
        part, epoch, groups = self._at(step)
        return [(part.buckets[n], part.buckets[n].rows[part.plan.rows(n, epoch, places)]) for n, places in groups]

    def groups_at(self, step: int) -> tuple[Group, ...]:
        """Shapes and clips of this rank's batch at `step`; an image batch has one frame."""
        part, _, groups = self._at(step)
        batches = part.plan.batches
        return tuple(
            Group(self._cut(self._whole(part, n, step)), len(places) // self.world, batches[n] // self.world)
            for n, places in groups
        )

    def _cut(self, whole: Shape) -> Shape:
        crop = self.options.crop
        return Shape(whole.frames, min(crop, whole.height), min(crop, whole.width)) if crop else whole

    def _whole(self, part: _Part, bucket: int, step: int) -> Shape:
        """The shape of a bucket's samples before they are cropped."""
        shape, every = part.buckets[bucket].shape, self.options.image_every
        return replace(shape, frames=1) if every and step % every == 0 else shape

    def batches(self, steps: Sequence[int], prepare: Callable[[Batch], Any] | None = None) -> Iterator[Batch]:
        """The batches of these steps, in this order; a range from where a run resumes to its end.

        prepare(batch): what becomes `ready`, made in a thread of the loader while the training is at batches before.
        """
        if not self.options.workers:
            for step in steps:
                yield self._finish(step, [self.sample_at(step, place) for place in self._share(step)], prepare)
            return
        pool = ThreadPoolExecutor(self.options.workers, thread_name_prefix="decode")
        last = ThreadPoolExecutor(1, thread_name_prefix="batch")  # in order: failures are counted as without threads
        self._pools += [pool, last]
        ahead = max(self.options.prefetch, math.ceil(self.options.workers / len(self._share(0))))  # none is idle
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                samples = [pool.submit(self.sample_at, step, place) for place in self._share(step)]
                waiting.append(last.submit(self._taken, step, samples, prepare))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            last.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """Decode nothing more: what waits is dropped, only what is in hand is finished."""
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _taken(self, step: int, futures: list[Future[Sample]], prepare: Callable[[Batch], Any] | None) -> Batch:
        return self._finish(step, [future.result() for future in futures], prepare)

    def _share(self, step: int) -> list[int]:
        """This rank's places in the global batch: its share of each group."""
        share, begin = [], 0
        for _, places in self._at(step)[2]:
            count = len(places) // self.world
            share += range(begin + self.rank * count, begin + (self.rank + 1) * count)
            begin += len(places)
        return share

    def _finish(self, step: int, samples: list[Sample], prepare: Callable[[Batch], Any] | None) -> Batch:
        for sample in samples:
            self.failures |= dict(sample.failed)
        if len(self.failures) > self.options.errors_max:
            raise DataError(
                f"{len(self.failures)} clips could not be decoded, more than errors_max = {self.options.errors_max}; "
                f"the last: {list(self.failures.values())[-1]}"
            )
        nominal = self.options.batch // self.world
        batch = Batch(step, self.groups_at(step), tuple(self._share(step)), tuple(samples), nominal)
        return replace(batch, ready=prepare(batch)) if prepare else batch

    def sample_at(self, step: int, place: int) -> Sample:
        """What stands at this place of the global batch at `step`. Raises DataError where nothing can be decoded."""
        part, epoch, groups = self._at(step)
        number, at_first = _found(groups, place)
        shape = self._whole(part, number, step)
        failed: list[Failed] = []
        for attempt in range(min(part.plan.sizes[number], self.options.errors_max + 1)):
            at = part.plan.replacement(number, at_first, attempt)
            row = part.buckets[number].rows[part.plan.rows(number, epoch, np.array([at]))[0]]
            try:
                sample = self._read(part.table[int(row)], shape, unit(self.options.seed, 3, step, place))
            except ClipError as error:
                failed.append(Failed(f"{part.table.name}/{row}", str(error)))
                continue
            if self.options.crop:
                sample = replace(sample, frames=self._cropped(sample.frames, step, place))
            return replace(sample, failed=tuple(failed))
        raise DataError(f"No clip of the bucket {shape} could be decoded in {len(failed)} attempts; {failed[-1].why}")

    def _cropped(self, frames: np.ndarray, step: int, place: int) -> np.ndarray:
        """uint8 [T, H, W, 3] -> the square of `crop` pixels, the same in all frames, that (seed, step, place) draws."""
        crop = self.options.crop
        lucks = [unit(self.options.seed, number, step, place) for number in CROP_SEEDS]
        top, left = (int(luck * (max(side - crop, 0) + 1)) for luck, side in zip(lucks, frames.shape[1:3]))
        return np.ascontiguousarray(frames[:, top : top + crop, left : left + crop])

    def _read(self, clip: Clip, shape: Shape, luck: float) -> Sample:
        """One clip's part in a batch; `luck` in [0, 1) places it. Raises ClipError."""
        return Sample(frames_of(clip, shape, luck), clip.caption, clip.rate, clip.clip_id)
