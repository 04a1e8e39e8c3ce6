"""Checkpoints: torch.distributed.checkpoint inside, published whole or not at all.

    OUT/checkpoints/step-00000100/   one folder per checkpoint, appears by one rename once all of it is on disk
        *.distcp, .metadata          sharded tensors: any number of ranks can read what another number wrote
        meta.json                    what it is: model, config, step, stage, data, the TAE it belongs to

They are written while the training goes on (`Saver`). A run that is killed meanwhile leaves a folder whose name begins
with a dot, which no reader looks at and the next save removes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

PREFIX = "step-"
DIGITS = 8
FULL = (errno.ENOSPC, errno.EDQUOT)  # no space, or none of this user's
SHORT_WRITE = "unexpected pos"  # torch's words where a file took fewer bytes than it was given


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used here: one sentence."""


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its folder and what meta.json says."""

    path: Path
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.meta["step"])


def published(folder: str | os.PathLike[str]) -> list[Path]:
    """The checkpoints below `folder` (a run's or a folder of checkpoints), oldest first."""
    root = Path(folder)
    root = root / "checkpoints" if (root / "checkpoints").is_dir() else root
    return sorted(p for p in root.glob(f"{PREFIX}*") if (p / "meta.json").is_file())


def open_checkpoint(where: str | os.PathLike[str]) -> Checkpoint:
    """A checkpoint's folder, or the newest below a run's. Raises CheckpointError."""
    path = Path(where)
    if not (path / "meta.json").is_file():
        found = published(path)
        if not found:
            raise CheckpointError(f"{path} holds no checkpoint; name a training's output or one of its checkpoints.")
        path = found[-1]
    try:
        return Checkpoint(path, json.loads((path / "meta.json").read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}/meta.json is damaged: {error}.") from error


def save(
    folder: str | os.PathLike[str],
    state: dict[str, Any],
    meta: dict[str, Any],
    keep: int,
    group: dist.ProcessGroup | None = None,
) -> Path:
    """Write a checkpoint of `meta["step"]` below `folder`, publish it, and remove all but the newest `keep`.

    state: nested dictionaries of tensors (sharded or not); group: the ranks that hold it, each of which calls this;
    None: this process alone. The checkpoints published before stay until the new one is. Raises CheckpointError where
    it cannot be written, a full disk included.
    """
    import torch.distributed.checkpoint as dcp

    root, name = Path(folder), f"{PREFIX}{meta['step']:0{DIGITS}d}"
    temporary, final = root / f".{name}.tmp", root / name
    leads = group is None or dist.get_rank(group) == 0
    _quiet()
    try:
        if leads:
            for stale in root.glob(f".{PREFIX}*"):
                shutil.rmtree(stale, ignore_errors=True)
        if group is not None:
            dist.barrier(group)
        dcp.save(state, checkpoint_id=temporary, process_group=group, no_dist=group is None)
        if leads:
            _publish(temporary, final, meta)
            for old in published(root)[:-keep]:
                shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        sentence = _write_sentence(final, error)
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(sentence) from error
    return final


class Saver:
    """Checkpoints that are written while the training goes on, one at a time; every rank saves at the same steps.

    `save` waits for the copy of the state in the machine's memory and no longer; a thread writes it, with a process
    group of its own, and publishes it.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int) -> None:
        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        cuda = torch.cuda.is_available()
        self.folder, self.keep = folder, keep
        self._group = dist.new_group(backend="gloo") if dist.is_initialized() else None
        self._stager = DefaultStager(StagingOptions(cuda, False, False, cuda))  # pinned memory, kept for the next save
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def save(self, state: dict[str, Any], meta: dict[str, Any]) -> None:
        """Begin a checkpoint, after the one in flight; raises CheckpointError, on all ranks, where that one failed."""
        self.finish()
        copy = self._stager.stage(state)
        self._writing = self._thread.submit(save, self.folder, copy, meta, self.keep, self._group)

    @property
    def failed(self) -> bool:
        """Whether this rank's part of the save has ended with an error, which `finish` raises."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def wait(self) -> None:
        """Until this rank's part of the save has ended, well or not. The other ranks are not asked."""
        if self._writing is not None:
            wait([self._writing])

    def finish(self) -> None:
        """Until the save is published; all ranks at once. Raises CheckpointError on all of them where one failed."""
        self.wait()
        failed, written = self.failed, self._writing
        self._writing = None
        anywhere = torch.tensor(float(failed))
        if self._group is not None:
            dist.all_reduce(anywhere, group=self._group)
        if failed:
            written.result()
        if anywhere:
            raise CheckpointError("A checkpoint could not be saved; the rank that failed says why.")


def _quiet() -> None:
    """A single process is what is meant: no warning says so at every save."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")


def _publish(temporary: Path, final: Path, meta: dict[str, Any]) -> None:
    with open(temporary / "meta.json", "w", encoding="utf-8") as stream:
        json.dump(meta, stream, indent=1, default=str)
        stream.flush()
        os.fsync(stream.fileno())
    if final.exists():  # the same step again, after a restart from an older checkpoint
        shutil.rmtree(final)
    os.rename(temporary, final)


def _write_sentence(final: Path, error: BaseException) -> str:
    causes = list(_causes(error))
    if any(getattr(cause, "errno", None) in FULL or SHORT_WRITE in str(cause) for cause in causes):
        return (
            f"No space is left to save {final}; free some and start the same command again: it goes on from the last "
            "checkpoint."
        )
    return f"{final} cannot be saved: {_one_line(causes[-1])}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it came from, the origin last; that of a failed save holds the ranks' errors."""
    yield error
    for failure, _ in getattr(error, "failures", {}).values():
        yield from _causes(failure)
    origin = error.__cause__ or error.__context__
    if origin is not None:
        yield from _causes(origin)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def load(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Fill the tensors of `state`, in place, with the checkpoint's, whatever number of ranks wrote them.

    Raises CheckpointError where it lacks one of them or one has another shape.
    """
    import torch.distributed.checkpoint as dcp

    known = dcp.FileSystemReader(checkpoint.path).read_metadata().state_dict_metadata
    for name, tensor in _flat(state):
        if isinstance(tensor, Tensor) and name not in known:
            raise CheckpointError(f"{checkpoint.path} has no '{name}': it was written by another model or release.")
        size = getattr(known.get(name), "size", None)
        if isinstance(tensor, Tensor) and size is not None and tuple(size) != tuple(tensor.shape):
            raise CheckpointError(
                f"{checkpoint.path} is of another size: '{name}' is {list(size)} there and {list(tensor.shape)} here."
            )
    _quiet()
    try:
        dcp.load(state, checkpoint_id=checkpoint.path, no_dist=not dist.is_initialized())
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be read: {_one_line(list(_causes(error))[-1])}.") from error


def _flat(state: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in state.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return found


def require(checkpoint: Checkpoint, model: str, config: dict[str, Any] | None = None) -> None:
    """Raises CheckpointError unless the checkpoint is of this model ("tae" or "dit") and, where given, this config."""
    if checkpoint.meta.get("model") != model:
        raise CheckpointError(
            f"{checkpoint.path} is a checkpoint of a {checkpoint.meta.get('model')}, not of a {model}."
        )
    there = checkpoint.meta.get("config", {})
    here = json.loads(json.dumps(config)) if config is not None else there
    for key in here:
        if here[key] != there.get(key):
            raise CheckpointError(
                f"{checkpoint.path} is of another size: its {key} is {there.get(key)}, the recipe's is {here[key]}; "
                "use that recipe, or another output folder."
            )


def load_weights(checkpoint: Checkpoint, model: nn.Module, averaged: bool = True, without: Container[str] = ()) -> None:
    """The weights alone into a model, in place: the moving average (EMA), or the raw ones.

    A sharded model reads its own parts. without: names of what is left as it is. Raises CheckpointError.
    """
    weights = {name: value for name, value in model.state_dict().items() if name not in without}
    load(checkpoint, {"ema" if averaged else "model": weights})


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that change with any weight: which TAE a DiT's latents come from."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_weights(checkpoint: Checkpoint, averaged: bool = True, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a checkpoint whose names begin with `prefix`, by name, on the CPU, without the model.

    averaged: the moving average (EMA), or the raw ones. Raises CheckpointError.
    """
    import torch.distributed.checkpoint as dcp

    part = "ema" if averaged else "model"
    known = dcp.FileSystemReader(checkpoint.path).read_metadata().state_dict_metadata
    weights = {
        name.removeprefix(f"{part}."): torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in known.items()
        if name.startswith(f"{part}.{prefix}") and hasattr(entry, "size")
    }
    load(checkpoint, {part: weights})
    return weights
