"""Latents and text features that are computed once: what `rushes encode` stores and how the training reads it.

An encoded run is a published run with the sets' tables of the runs it was made from; `media` names a latent's file
and row group: `latents/<what decides the numbers>/<which clips>.parquet#3`. Such a file has one row per clip and one
row group per row, so that one clip is read without its neighbours, and in it one column for each thing that can be
read alone:

    clip_id, error        a clip that cannot be encoded keeps its row, with the reason
    moments               count, sum and sum of squares of the latents per channel
    128x64x16:0           a latent of WIDTHxHEIGHTxFRAMES: the posterior's mean, not normalised, [C, T/8, H/8, W/8]
    ul2:video, ul2:image  text features [L, width], of the prompt with the frame rate and of the one without

Which part of a clip (Stage.frames_max) or which still (Stage.image_every) a batch gets is drawn when it is read from
video; here there are `parts` and `stills` of each clip, in the middle of as many equal shares of all places there
are. The draw is the same number; it picks the share. A clip that is read whole is stored once and has the very
numbers that training from video has.

Latents are stored as they are and normalised when they are read, by the statistics of the autoencoder, as in
training from video and in sampling: a transformer can change between both and knows one scale. The statistics
measured while encoding stand in run.json beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from rushes.curation.manifest import Run, exists, join, open_run, read_table, resolve, write_batches
from rushes.model.data import Clip, DataError, DataOptions, EncodedSample, Loader, Shape, frames_of
from rushes.model.frames import ClipError
from rushes.model.steps import latent_of, prompts_of
from rushes.model.tae import TAE
from rushes.model.tae_config import SPACE_FACTOR, TIME_FACTOR
from rushes.model.text import TextEncoders
from rushes.model.train_recipe import Stage, TrainRecipe

FOLDER = "latents"
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
AHEAD_MAX = 4  # clips decoded ahead of the encoder: 256 frames of 1024x576 take 0.45 GB each
OPEN_FILES = 128  # whose footers are kept by a reader
RECORD = ("clip_id", "error", "moments")
TEXT_WIDTHS = b"text_widths"  # key in a file's metadata


# ---- what is stored ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What decides a stored number beside the clip: the key of all files made with it."""

    tae: str  # fingerprint of the autoencoder
    text: list[dict[str, Any]]  # the recipe's text.encoders
    precision: str = "float16"  # of what is stored
    parts: int = 1  # places from which a clip longer than frames_max is taken
    stills: int = 4  # single frames of a clip, where a stage trains on images
    compute: str = "float32"  # of the autoencoder: float32 or bfloat16
    time: int = TIME_FACTOR  # frames of a latent
    space: int = SPACE_FACTOR  # pixels of a latent's side
    causal: bool = False  # the first frame has a latent of its own (model/open_weights.py)

    @property
    def key(self) -> str:
        return _digest(asdict(self))

    def latent_sides(self, shape: Shape) -> tuple[int, int, int]:
        """(T', H', W') of the latents of a clip of this shape."""
        frames = 1 + -(-(shape.frames - 1) // self.time) if self.causal else -(-shape.frames // self.time)
        return frames, shape.height // self.space, shape.width // self.space

    def count(self, clip_frames: int, shape: Shape) -> int:
        """How many latents of this shape a clip of so many frames has."""
        return 1 if shape.frames >= clip_frames else self.stills if shape.frames == 1 else self.parts


@dataclass(frozen=True)
class Job:
    """One file of a run: its clips, of one bucket, and the shapes at which each is stored.

    attempt: counts from 1 where clips that could not be encoded are tried again; a written file is never changed.
    """

    root: str
    settings: str  # Settings.key
    clips: tuple[Clip, ...]
    shapes: tuple[Shape, ...]
    attempt: int = 1

    @property
    def media(self) -> str:
        """The file, below the run. Another clip, span, caption, shape or setting is another file."""
        name = _digest([[asdict(clip) for clip in self.clips], [str(shape) for shape in self.shapes], self.attempt])
        return f"{FOLDER}/{self.settings}/{name}.parquet"

    @property
    def uri(self) -> str:
        return join(self.root, self.media)

    def following(self) -> Job:
        return replace(self, attempt=self.attempt + 1)

    def latest(self) -> Job:
        """The last attempt that was written down, or the first one."""
        following = self.following()
        return following.latest() if exists(following.uri) else self

    def record(self) -> pa.Table | None:
        """What was made of the clips: clip_id, error and moments, a row each; None where the file is not there."""
        return read_table(self.uri, columns=list(RECORD)) if exists(self.uri) else None


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=10).hexdigest()


@dataclass(frozen=True)
class Read:
    """What a stage reads of a set: clips or parts of them (`video`), single frames of them (`still`), at which size.

    buckets: only these; None: all. frames_max, resolution: as in Stage.
    """

    set: str
    buckets: tuple[str, ...] | None
    video: bool
    still: bool
    frames_max: int | None
    resolution: int | None

    def shapes(self, clip: Shape) -> list[Shape]:
        """The shapes at which clips are read whose bucket has the shape `clip`."""
        video = clip.scaled(self.frames_max, self.resolution)
        still = replace(video, frames=1)
        return list(dict.fromkeys([video] * self.video + [still] * self.still))


def reads_of(recipe: TrainRecipe, stage: Stage) -> list[Read]:
    """What a stage trains on, and last what it validates on."""
    video, still = stage.image_every != 1, stage.image_every is not None
    size = (stage.frames_max, stage.resolution)
    images = Read(stage.images, None, False, True, *size) if stage.images and still else None
    clips = Read(stage.set, stage.buckets, video, still and images is None, *size)
    validation = Read(recipe.data.validation_set, None, video, not video, *size)
    trained = [clips, images] if video and images else [images or clips]
    return [*trained, validation]


# ---- writing -------------------------------------------------------------------------------------------------------


class ClipEncoder:
    """Clips to files of latents and text features. Plain Python: a stage of any engine."""

    def __init__(self, frozen: TAE, encoders: TextEncoders, settings: Settings, threads: int = 1) -> None:
        self.frozen, self.encoders, self.settings = frozen, encoders, settings
        self._ahead = max(1, min(threads, AHEAD_MAX))
        self._dtype = PRECISIONS[settings.precision]

    def __call__(self, job: Job) -> None:
        """Write the job's file. A clip that cannot be encoded is a row with its error."""
        schema = self._schema(job)
        rows = (self._row(clip, frames, job.shapes) for clip, frames in zip(job.clips, self._decoded(job)))
        batches = (pa.RecordBatch.from_pylist([row], schema) for row in rows)
        # Of no use for bytes that look random, and statistics would copy whole latents into the footer.
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        write_batches(job.uri, schema, batches, **plain)

    def _schema(self, job: Job) -> pa.Schema:
        fields = [("clip_id", pa.string()), ("error", pa.string()), ("moments", pa.list_(pa.float64()))]
        frames = job.clips[0].frames
        fields += [(column(s, k), pa.binary()) for s in job.shapes for k in range(self.settings.count(frames, s))]
        fields += [(f"{name}:{kind}", pa.binary()) for kind in kinds(job.shapes) for name in self.encoders.widths]
        return pa.schema(fields, {TEXT_WIDTHS: json.dumps(self.encoders.widths)})

    def _decoded(self, job: Job) -> Iterator[dict[str, np.ndarray] | str]:
        """Of each clip the frames of every column, or why there are none; decoded ahead by threads."""
        waiting: deque = deque()
        with ThreadPoolExecutor(self._ahead, thread_name_prefix="decode") as pool:
            for clip in job.clips:
                waiting.append(pool.submit(self._frames, clip, job.shapes))
                if len(waiting) > self._ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _frames(self, clip: Clip, shapes: tuple[Shape, ...]) -> dict[str, np.ndarray] | str:
        found = {}
        try:
            for shape in shapes:
                count = self.settings.count(clip.frames, shape)
                for part in range(count):
                    found[column(shape, part)] = frames_of(clip, shape, (part + 0.5) / count)
        except ClipError as error:
            return str(error)
        return found

    def _row(self, clip: Clip, frames: dict[str, np.ndarray] | str, shapes: tuple[Shape, ...]) -> dict[str, Any]:
        if isinstance(frames, str):
            return {"clip_id": clip.clip_id, "error": frames}
        row: dict[str, Any] = {}
        moments = np.zeros(1 + 2 * self.frozen.config.latent_channels)
        for name, pictures in frames.items():
            latent = latent_of(self.frozen, pictures, self.settings.compute == "bfloat16")[0].cpu()
            stored = latent.to(self._dtype)
            if not stored.isfinite().all():
                return {"clip_id": clip.clip_id, "error": f"{clip.uri}: latents too large for {self._dtype}."}
            row[name] = _bytes(stored)
            moments += moments_of(latent)
        for kind in kinds(shapes):
            for name, features in self.encoders.encode(prompts_of([clip], kind == "image")).items():
                row[f"{name}:{kind}"] = _bytes(features.tokens[0][features.mask[0]].to(self._dtype))
        return {"clip_id": clip.clip_id, "moments": moments.tolist(), **row}


def text_widths(schema: pa.Schema) -> dict[str, int]:
    """The widths of the text features in a file with this schema."""
    return json.loads(schema.metadata[TEXT_WIDTHS])


def column(shape: Shape, part: int) -> str:
    return f"{shape}:{part}"


def kinds(shapes: Sequence[Shape]) -> list[str]:
    """The kinds of prompts: `video` with the frame rate in front, `image` without."""
    return sorted({"image" if shape.frames == 1 else "video" for shape in shapes})


def moments_of(latent: Tensor) -> np.ndarray:
    """[C, T, H, W] -> float64 [1 + 2 C]: numbers of a channel, their sums, the sums of their squares."""
    flat = latent.double().flatten(1)
    return torch.cat([torch.tensor([float(flat.shape[1])]), flat.sum(1), flat.square().sum(1)]).numpy()


def statistics(moments: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of sums of `moments_of`; empty where nothing was encoded."""
    if not moments[0]:
        return [], []
    mean, square = np.split(moments[1:] / moments[0], 2)
    return mean.tolist(), np.sqrt(np.maximum(square - mean**2, 0)).tolist()


def _bytes(value: Tensor) -> bytes:
    return value.cpu().contiguous().view(torch.uint8).numpy().tobytes()


# ---- reading -------------------------------------------------------------------------------------------------------


def encodings(roots: Sequence[str]) -> list[tuple[Run, dict[str, Any]]]:
    """(run, what run.json says of its latents); none for runs of videos. Raises DataError where both are mixed."""
    runs = [open_run(root) for root in roots]
    found = [(run, run.record["encoding"]) for run in runs if "encoding" in run.record]
    if found and len(found) < len(runs):
        other = next(run.root for run in runs if "encoding" not in run.record)
        raise DataError(
            f"{found[0][0].root} holds latents and {other} holds videos: train on one kind, or encode both."
        )
    return found


def loader_class(roots: Sequence[str]) -> type[Loader]:
    return LatentLoader if encodings(roots) else Loader


def videos_only(roots: Sequence[str]) -> None:
    """Raises DataError where a run holds latents and a reader of frames was about to open it."""
    for run, found in encodings(roots):
        raise DataError(f"{run.root} holds latents, not videos; name the runs it was made from: {_parents(found)}.")


def _parents(found: dict[str, Any]) -> str:
    return ", ".join(root for root, _ in found["runs"])


def require_encoded(roots: Sequence[str], recipe: TrainRecipe, tae: str) -> dict[str, int]:
    """Check before the first step that encoded runs hold what the recipe asks for; the widths of the text features.

    tae: fingerprint of the autoencoder that the training was given. Raises DataError.
    """
    wanted = [encoder.model_dump(mode="json") for encoder in recipe.text.encoders]
    found = encodings(roots)
    for run, facts in found:
        again = f"encode {_parents(facts)} again"
        if facts["settings"]["tae"] != tae:
            raise DataError(
                f"{run.root} holds latents of another TAE ({facts['settings']['tae']}, not {tae}): "
                f"give that one with --tae, or {again} with this one."
            )
        if facts["settings"]["text"] != wanted:
            there, here = ([_brief(e) for e in encoders] for encoders in (facts["settings"]["text"], wanted))
            raise DataError(
                f"{run.root} holds text features of {', '.join(there)}; the recipe asks for {', '.join(here)}: "
                f"set text.encoders to those, or {again} with this recipe."
            )
        for stage in recipe.stages:
            *trained, validation = reads_of(recipe, stage)
            for read in [*trained, validation] if validation.set in facts["sets"] else trained:
                _require_shapes(run, facts, stage, read, again)
    return found[0][1]["text_widths"]


def _require_shapes(run: Run, facts: dict[str, Any], stage: Stage, read: Read, again: str) -> None:
    if read.set not in facts["sets"]:
        run.table(f"sets/{read.set}")  # says which sets there are
    for entry in facts["sets"][read.set]["buckets"]:
        bucket = entry["bucket"]
        if read.buckets and bucket not in read.buckets:
            continue
        for shape in read.shapes(Shape(**entry["shape"])):
            if str(shape) not in entry["latents"]:
                raise DataError(
                    f"Stage '{stage.name}' reads clips of {bucket} in sets/{read.set} at {shape}; {run.root} holds "
                    f"them at {', '.join(entry['latents'])}: {again} with this recipe."
                )


def _brief(encoder: dict[str, Any]) -> str:
    return f"{encoder['name']} ({', '.join(f'{k} {v}' for k, v in encoder.items() if k != 'name')})"


class LatentLoader(Loader):
    """`Loader` over encoded runs: the same plan, buckets and draws; a sample is read, not decoded."""

    def __init__(self, roots: Sequence[str], options: DataOptions, rank: int = 0, world: int = 1) -> None:
        super().__init__(roots, options, rank, world)
        found = encodings(roots)
        self._facts = {run.root.rstrip("/"): facts for run, facts in found}

    def _read(self, clip: Clip, shape: Shape, luck: float) -> EncodedSample:
        facts = self._facts[clip.uri.rpartition(f"/{FOLDER}/")[0]]
        settings = Settings(**facts["settings"])
        part = int(luck * settings.count(clip.frames, shape))
        return read_encoded(clip, shape, part, facts["text_widths"], settings)


def read_encoded(clip: Clip, shape: Shape, part: int, widths: dict[str, int], settings: Settings) -> EncodedSample:
    """One latent and its prompt's features from the row group that the clip's address names. Raises ClipError."""
    uri, _, group = clip.uri.rpartition("#")
    kind, dtype = kinds([shape])[0], PRECISIONS[settings.precision]
    latent, texts = column(shape, part), {name: f"{name}:{kind}" for name in widths}
    try:
        fs, path = resolve(uri)
        with pq.ParquetFile(path, filesystem=fs, metadata=_footer(uri)) as file:
            table = file.read_row_group(int(group), columns=[latent, *texts.values()], use_threads=False)
        (row,) = table.to_pylist()
        value = _tensor(row[latent], dtype).view(-1, *settings.latent_sides(shape))
        text = {name: _tensor(row[texts[name]], dtype).view(-1, width) for name, width in widths.items()}
    except (OSError, pa.ArrowException, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ClipError(f"{clip.uri} cannot be read: {' '.join(str(error).split())}.") from error
    frames = np.empty((0, shape.height, shape.width, 3), np.uint8)
    return EncodedSample(frames, clip.caption, clip.rate, clip.clip_id, latent=value, text=text)


def _tensor(data: bytes | None, dtype: torch.dtype) -> Tensor:
    if data is None:
        raise ValueError("the clip was not encoded")
    return torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)


@lru_cache(maxsize=OPEN_FILES)
def _footer(uri: str) -> pq.FileMetaData:
    fs, path = resolve(uri)
    return pq.read_metadata(path, filesystem=fs)
