"""What a command was given, looked at before anything that takes seconds to import: each refusal is a sentence."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rushes.pipelines.cli.terminal import fail, stderr

if TYPE_CHECKING:
    from rushes.curation.manifest import Run
    from rushes.model.train_recipe import TrainRecipe

OPEN_WEIGHTS = "diffusers:"  # other people's models: looked for when they are loaded


@contextlib.contextmanager
def loading(what: str = "the trainer") -> Iterator[None]:
    """Imports that take seconds: at a terminal a line moves meanwhile. Without torch it is a sentence."""
    if importlib.util.find_spec("torch") is None:
        fail("training needs torch, which is not installed: pip install 'rushes[train]'")
    alone = os.environ.get("RANK", "0") == "0"
    with stderr.status(f"Loading {what} ...") if alone else contextlib.nullcontext():
        try:
            import torch  # noqa: F401
        except ImportError as error:
            fail(f"torch is installed and cannot be loaded ({error}): pip install --force-reinstall 'rushes[train]'")
        yield


def runs(roots: Sequence[str], videos: bool = False) -> list[Run]:
    """The runs, opened. videos: runs of latents are refused. Raises ManifestError where one of them is none."""
    from rushes.curation.manifest import open_run

    opened = [open_run(root) for root in roots]
    for run in opened if videos else ():
        if (latents := run.record.get("encoding")) is not None:
            parents = ", ".join(root for root, _ in latents["runs"])
            fail(f"{run.root} holds latents, not videos; name the runs it was made from: {parents}.")
    return opened


def sets(opened: Sequence[Run], names: Sequence[str], option: str) -> None:
    """Refuses names of sets that none of the runs has."""
    from rushes.curation.nearest import meant

    known = sorted({name.removeprefix("sets/") for run in opened for name in run.tables if name.startswith("sets/")})
    for name in names:
        if name not in known:
            where = ", ".join(run.root for run in opened)
            fail(f"{option}: there is no set '{name}' in {where}; {meant(name, known, 'sets')}")


def stages_read(recipe: TrainRecipe, names: Sequence[str]) -> None:
    """Refuses --set-name where no stage of the recipe reads that set."""
    from rushes.curation.nearest import nearest

    read = list(dict.fromkeys(stage.set for stage in recipe.stages))
    for name in names:
        if name not in read:
            near = nearest(name, read)
            hint = f"did you mean '{near}'?" if near else f"they read: {', '.join(read)}."
            fail(f"No stage of the recipe reads the set '{name}'; {hint}")


def checkpoint(where: str | None, model: str | None = None) -> None:
    """Refuses what holds no checkpoint, or one of another model than "tae" or "dit". Raises CheckpointError."""
    if where is None or where.startswith(OPEN_WEIGHTS):
        return
    from rushes.model.published import newest, require

    found = newest(where)
    if model is not None:
        require(found, model)


def folder(output: str) -> None:
    """Raises ManifestError where a command cannot write its output's folder."""
    from rushes.curation.outputs import check_folder

    check_folder(output)


def file(output: str) -> None:
    """Raises ManifestError where a command cannot write its output's file."""
    from rushes.curation.outputs import check_file

    check_file(output)
