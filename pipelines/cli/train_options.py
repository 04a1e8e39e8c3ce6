"""What the commands of the trainer share: their options, and errors as sentences."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.pipelines.cli.terminal import fail, tell

if TYPE_CHECKING:
    from rushes.model.train_recipe import TrainRecipe

Runs = Annotated[list[str], typer.Argument(help="One or more curated runs, whose sets the recipe's stages name.")]
Output = Annotated[
    str, typer.Option("--output", "-o", help="Checkpoints, log and recipe go there; the same folder again goes on.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override a key; stages.all.KEY or stages.NAME.KEY."),
]
Ray = Annotated[
    str | None, typer.Option("--ray", help="Start the ranks on this Ray cluster: HOST:PORT, auto, or local.")
]
WorkerCount = Annotated[int, typer.Option("--workers", help="With --ray: how many ranks.", min=1)]
GpusPerWorker = Annotated[
    float | None, typer.Option(help="With --ray: GPUs of a rank; default 1 where the cluster has any.", min=0)
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be trained on what, and by which ranks, and stop.")
]
Tae = Annotated[str, typer.Option("--tae", help="Output of `rushes train tae`, or one of its checkpoints.")]


#: Errors that are sentences; of modules that were not imported, none can have been raised.
SENTENCES = {
    "rushes.curation.storage": "StorageError", "rushes.model.data.table": "DataError",
    "rushes.model.features": "FeaturesError", "rushes.model.frames": "ClipError", "rushes.model.loop": "TrainingError",
    "rushes.model.published": "CheckpointError", "rushes.model.text": "TextEncoderError",
    "rushes.model.train_recipe": "TrainRecipeError",
}  # fmt: skip


@contextmanager
def sentences() -> Iterator[None]:
    """What a person can act on is a sentence and exit code 2. What takes seconds to import waits for `loading`."""
    try:
        yield
    except Exception as error:
        loaded = ((sys.modules.get(module), name) for module, name in SENTENCES.items())
        if not isinstance(error, tuple(getattr(module, name) for module, name in loaded if module is not None)):
            raise
        fail(str(error))


def say(text: str) -> None:
    tell(text)


def of_model(recipe: TrainRecipe, model: str) -> TrainRecipe:
    from rushes.model.train_recipe import TrainRecipeError

    if recipe.model != model:
        raise TrainRecipeError(f"The recipe '{recipe.name}' trains a {recipe.model}: rushes train {recipe.model}.")
    return recipe
