"""Which checkpoints lie in a folder, and what their meta.json says: asked before torch is imported."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from rushes.curation.nearest import path_meant
from rushes.model import store

PREFIX = "step-"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, read or used here: one sentence."""


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint: its folder and what meta.json says."""

    path: str
    meta: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.meta["step"])


def published(folder: str | os.PathLike[str]) -> list[str]:
    """The checkpoints below `folder` (a run's or a folder of checkpoints), oldest first. Addresses are pyarrow.fs's."""
    root = os.fspath(folder)
    for place in (store.join(root, "checkpoints"), root):
        names = sorted(name for name in store.folders(place) if name.startswith(PREFIX))
        found = [store.join(place, name) for name in names]
        if found := [path for path in found if store.is_file(store.join(path, "meta.json"))]:
            return found
    return []


def read_meta(path: str) -> dict[str, Any]:
    """What a checkpoint's meta.json says. Raises CheckpointError."""
    try:
        meta = json.loads(store.read_bytes(store.join(path, "meta.json")))
    except (OSError, ValueError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise CheckpointError(f"{path} is damaged: meta.json cannot be read ({said}).") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{path} is damaged: meta.json holds no mapping.")
    return meta


def newest(where: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint at `where`, or the newest below it, tensors' files not looked at. Raises CheckpointError."""
    path = os.fspath(where).rstrip("/")
    at = path if store.is_file(store.join(path, "meta.json")) else next(iter(published(path)[::-1]), None)
    if at is None:
        raise none_there(path)
    return Checkpoint(at, read_meta(at))


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


def none_there(path: str) -> CheckpointError:
    """That there is no checkpoint at `path`, and what was probably meant."""
    wanted = "name a training's output or one of its checkpoints"
    if store.is_file(path):
        why = f"it is a file; {wanted}."
    elif store.is_file(store.join(path, "run.json")):
        why = f"it is a run, not the output of a training; {wanted}."
    elif store.is_file(store.join(path, "log.jsonl")):
        why = "its training was stopped before it saved one; start the same `rushes train` again."
    elif "://" not in path and not os.path.exists(path):
        near = path_meant(path)
        why = f"there is no such folder; did you mean '{near}'?" if near else f"there is no such folder; {wanted}."
    else:
        why = f"{wanted}."
    return CheckpointError(f"{path} holds no checkpoint: {why}")
