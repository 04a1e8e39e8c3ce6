"""Checkpoints: torch.distributed.checkpoint inside, published whole or not at all.

    OUT/checkpoints/step-00000100/   one folder per checkpoint
        *.distcp, .metadata          sharded tensors: any number of ranks can read what another number wrote
        meta.json                    what it is: model, config, step, stage, data, the TAE it belongs to; and of each
                                     other file the size and a hash, which readers compare before they read

On a disk the folder appears by one rename once all of it is there; on an object store meta.json is written last, and a
folder without it is no checkpoint. They are written while the training goes on (`Saver`). What a killed run leaves,
no reader looks at and the next save removes.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from rushes.model import store
from rushes.model.published import PREFIX, Checkpoint, CheckpointError, none_there, published, read_meta, require

__all__ = [
    "Checkpoint", "CheckpointError", "Saver", "fingerprint", "load", "load_weights", "open_checkpoint", "published",
    "read_weights", "require", "save",
]  # fmt: skip
DIGITS = 8
FULL = (errno.ENOSPC, errno.EDQUOT)  # no space, or none of this user's
SHORT_WRITE = "unexpected pos"  # torch's words where a file took fewer bytes than it was given


def open_checkpoint(where: str | os.PathLike[str], say: Callable[[str], None] | None = None) -> Checkpoint:
    """A checkpoint's folder, or the newest whole one below a run's. All ranks at once. Raises CheckpointError.

    say: is told of each newer one that is damaged; None: they are told on standard error.
    """
    path, say = os.fspath(where).rstrip("/"), say or (lambda text: print(text, file=sys.stderr))
    if store.is_file(store.join(path, "meta.json")):
        return _opened(path)
    for one in reversed(found := published(path)):
        try:
            return _opened(one)
        except CheckpointError as error:
            if one == found[0]:
                raise
            say(f"{error} The one before is taken.")
    raise none_there(path)


def _opened(path: str) -> Checkpoint:
    """Raises CheckpointError, on all ranks, where a file of it has other bytes than were written."""
    meta = read_meta(path)
    _verify(path, meta)
    return Checkpoint(path, meta)


def _verify(path: str, meta: dict[str, Any]) -> None:
    """Compare all files with their hashes, shared out among the ranks."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    wrong = []
    for name, wanted in sorted(meta.get("files", {}).items())[rank::world]:
        try:
            if list(store.digest(store.join(path, name))) != wanted:
                wrong.append(f"{name} has other bytes than were written")
        except OSError as error:
            wrong.append(f"{name} cannot be read ({_one_line(error)})")
    everyone = [wrong]
    if world > 1:
        everyone = [[] for _ in range(world)]
        dist.all_gather_object(everyone, wrong)
    for text in (text for some in everyone for text in some):
        raise CheckpointError(f"{path} is damaged: {text}.")


def save(
    folder: str | os.PathLike[str],
    state: dict[str, Any],
    meta: dict[str, Any],
    keep: int,
    group: dist.ProcessGroup | None = None,
) -> str:
    """Write a checkpoint of `meta["step"]` below `folder`, publish it, and remove all but the newest `keep`.

    state: nested dictionaries of tensors (sharded or not); group: the ranks that hold it, each of which calls this;
    None: this process alone. The checkpoints published before stay until the new one is. Raises CheckpointError where
    it cannot be written, a full disk included.
    """
    import torch.distributed.checkpoint as dcp

    root, name = os.fspath(folder), f"{PREFIX}{meta['step']:0{DIGITS}d}"
    final, away = store.join(root, name), not store.is_local(root)
    # An object store's files are written here first, each rank's by itself.
    temporary = Path(tempfile.mkdtemp(prefix="rushes-") if away else root) / f".{name}.tmp"
    leads = group is None or dist.get_rank(group) == 0
    _quiet()
    try:
        if leads:
            _sweep(root, final, away)
        if group is not None:
            dist.barrier(group)
        dcp.save(state, checkpoint_id=temporary, process_group=group, no_dist=group is None)
        files = _files(temporary, final if away else None, group)
        if leads:
            _publish(temporary, final, {**meta, "files": files}, away)
            for old in published(root)[:-keep]:
                store.remove(old)
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        sentence = _write_sentence(final, error)
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(sentence) from error
    finally:
        if away:
            shutil.rmtree(temporary.parent, ignore_errors=True)
    return final


def _sweep(root: str, final: str, away: bool) -> None:
    """Remove what killed runs left of checkpoints that they did not publish."""
    if away:
        store.remove(final)
        return
    for stale in Path(root).glob(f".{PREFIX}*"):
        shutil.rmtree(stale, ignore_errors=True)


def _files(folder: Path, target: str | None, group: dist.ProcessGroup | None) -> dict[str, list[Any]]:
    """Size and hash of every file of all ranks, for rank 0; each rank reads its own, and copies them to `target`."""
    rank = dist.get_rank(group) if group is not None else 0
    mine = [
        path for path in folder.iterdir() if path.name.startswith(f"__{rank}_") or (not rank and path.name[0] == ".")
    ]
    told = {path.name: list(store.digest(str(path))) for path in mine}
    for path in mine if target else ():
        store.copy(str(path), store.join(target, path.name))
    everyone: list[Any] = [told]
    if group is not None:
        everyone = [None] * dist.get_world_size(group)
        dist.all_gather_object(everyone, told, group=group)
    return {name: facts for some in everyone for name, facts in some.items()}


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
        self._writing: Future[str] | None = None

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


def _publish(temporary: Path, final: str, meta: dict[str, Any], away: bool) -> None:
    if away:
        store.write_bytes(store.join(final, "meta.json"), json.dumps(meta, indent=1, default=str).encode())
        return
    with open(temporary / "meta.json", "w", encoding="utf-8") as stream:
        json.dump(meta, stream, indent=1, default=str)
        stream.flush()
        os.fsync(stream.fileno())
    if os.path.exists(final):  # the same step again, after a restart from an older checkpoint
        shutil.rmtree(final)
    os.rename(temporary, final)


def _write_sentence(final: str, error: BaseException) -> str:
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

    known = _known(checkpoint)
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
        dcp.load(state, storage_reader=store.reader(checkpoint.path), no_dist=not dist.is_initialized())
    except (OSError, RuntimeError, dcp.api.CheckpointException) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be read: {_one_line(list(_causes(error))[-1])}.") from error


def _flat(state: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, value in state.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return found


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
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def sizes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in a checkpoint, by name."""
    return {name: tuple(entry.size) for name, entry in _known(checkpoint).items() if hasattr(entry, "size")}


def _known(checkpoint: Checkpoint) -> dict[str, Any]:
    """What torch knows of each tensor in a checkpoint, by name. Raises CheckpointError."""
    try:
        return store.reader(checkpoint.path).read_metadata().state_dict_metadata
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{checkpoint.path} cannot be read: {_one_line(error)}.") from error


def read(checkpoint: Checkpoint, name: str) -> Tensor:
    """One tensor of a checkpoint, whole, on the CPU. Raises CheckpointError."""
    entry = _known(checkpoint)[name]
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype)}
    load(checkpoint, state)
    return state[name]


def read_weights(checkpoint: Checkpoint, averaged: bool = True, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a checkpoint whose names begin with `prefix`, by name, on the CPU, without the model.

    averaged: the moving average (EMA), or the raw ones. Raises CheckpointError.
    """
    part = "ema" if averaged else "model"
    known = _known(checkpoint)
    weights = {
        name.removeprefix(f"{part}."): torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in known.items()
        if name.startswith(f"{part}.{prefix}") and hasattr(entry, "size")
    }
    load(checkpoint, {part: weights})
    return weights
