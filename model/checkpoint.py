"""Checkpoints: torch.distributed.checkpoint inside, published whole or not at all.

    OUT/checkpoints/step-00000100/   one folder per checkpoint, appears by one rename once all of it is on disk
        *.distcp, .metadata          sharded tensors: any number of ranks can read what another number wrote
        meta.json                    what it is: model, config, step, stage, data, the TAE it belongs to

A run that is killed while it saves leaves a folder whose name begins with a dot, which no reader looks at and the
next save removes.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.parallel import barrier

PREFIX = "step-"
DIGITS = 8


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


def save(folder: str | os.PathLike[str], state: dict[str, Any], meta: dict[str, Any], keep: int) -> Path:
    """Write a checkpoint of `meta["step"]` below `folder`, publish it, and remove all but the newest `keep`.

    state: nested dictionaries of tensors (sharded or not); every rank calls this. The checkpoints published before
    stay until the new one is. Raises CheckpointError where it cannot be written, a full disk included.
    """
    import torch.distributed.checkpoint as dcp

    root, name = Path(folder), f"{PREFIX}{meta['step']:0{DIGITS}d}"
    temporary, final = root / f".{name}.tmp", root / name
    leads = not dist.is_initialized() or dist.get_rank() == 0
    if leads:
        for stale in root.glob(f".{PREFIX}*"):
            shutil.rmtree(stale, ignore_errors=True)
    barrier()
    try:
        with _alone():
            dcp.save(state, checkpoint_id=temporary, no_dist=not dist.is_initialized())
        if leads:
            _publish(temporary, final, meta)
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_write_sentence(final, error)) from error
    barrier()
    if leads:
        for old in published(root)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    return final


@contextmanager
def _alone() -> Iterator[None]:
    """A single process is what is meant: no warning says so at every save."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _publish(temporary: Path, final: Path, meta: dict[str, Any]) -> None:
    with open(temporary / "meta.json", "w", encoding="utf-8") as stream:
        json.dump(meta, stream, indent=1, default=str)
        stream.flush()
        os.fsync(stream.fileno())
    if final.exists():  # the same step again, after a restart from an older checkpoint
        shutil.rmtree(final)
    os.rename(temporary, final)


def _write_sentence(final: Path, error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "No space left" in text or getattr(error, "errno", None) == 28:
        return f"No space is left to save {final}; free some and start the same command again: it goes on from the \
last checkpoint."
    return f"{final} cannot be saved: {text[:500]}"


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
    try:
        with _alone():
            dcp.load(state, checkpoint_id=checkpoint.path, no_dist=not dist.is_initialized())
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be read: {' '.join(str(error).split())[:500]}") from error


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


@torch.no_grad()
def load_weights(checkpoint: Checkpoint, model: nn.Module, averaged: bool = True) -> None:
    """The weights alone into a model of one process, in place: the moving average (EMA), or the raw ones."""
    state = {"ema" if averaged else "model": model.state_dict()}
    load(checkpoint, state)
    model.load_state_dict(next(iter(state.values())))


def fingerprint(model: nn.Module) -> str:
    """16 hexadecimal digits that change with any weight: which TAE a DiT's latents come from."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def read_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The moving-average weights of a checkpoint by name, on the CPU, without the model. Raises CheckpointError."""
    import torch.distributed.checkpoint as dcp

    prefix = "ema."
    known = dcp.FileSystemReader(checkpoint.path).read_metadata().state_dict_metadata
    state = {
        name[len(prefix) :]: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in known.items()
        if name.startswith(prefix) and hasattr(entry, "size")
    }
    load(checkpoint, {"ema": state})
    return state
