"""What trainings have in common, of both models and of open transformers: data of a stage, validation, a begin.

Nothing here knows which model is trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rushes.curation.manifest import ManifestError, lock
from rushes.model import checkpoint as checkpoints
from rushes.model.data import Batch, DataError, DataOptions, Loader, Shape, mix
from rushes.model.frozen import text_encoders
from rushes.model.latents import encodings, loader_class, require_encoded
from rushes.model.loop import Session, TrainingError
from rushes.model.parallel import Place, mean_over_ranks
from rushes.model.steps import VALIDATION_SEED, MakeInputs, inputs_from_latents, inputs_from_videos
from rushes.model.tae import TAE
from rushes.model.train_recipe import Stage, TrainRecipe, TrainRecipeError

Cost = Callable[[Shape], float]
STAGE_SEED = 103  # keeps the stages' batches apart


def configured(sizes: dict[str, Any], recipe: TrainRecipe, **fixed: Any) -> Any:
    """The recipe's size with its options. Raises TrainRecipeError that names what there is."""
    if recipe.size not in sizes:
        raise TrainRecipeError(f"There is no size '{recipe.size}' of the {recipe.model}; sizes: {', '.join(sizes)}.")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.options.items()}
    try:
        return replace(sizes[recipe.size], **{**fixed, **options})
    except (TypeError, ValueError) as error:
        raise TrainRecipeError(f"The recipe's options do not fit the {recipe.model}: {error}.") from error


def loader_of(
    roots: Sequence[str], recipe: TrainRecipe, index: int, rank: int, world: int, cost: Cost | None = None
) -> Loader:
    """The batches of stage number `index`; cost: of a clip, for Stage.balance. Raises DataError, ManifestError."""
    stage, data = recipe.stages[index], recipe.data
    if stage.batch % (world * min(stage.micro_batch, stage.batch // world or 1)):
        raise DataError(
            f"Stage '{stage.name}': a batch of {stage.batch} clips does not divide into {world} ranks with "
            f"micro-batches of {stage.micro_batch}."
        )
    options = DataOptions(
        stage.set, stage.batch, mix(recipe.seed, STAGE_SEED, index), frames_max(stage), stage.resolution,
        stage.image_every, stage.buckets, stage.small_buckets, data.errors_max, data.workers, data.prefetch,
        stage.images, stage.crop, stage.balance, cost or pixels,
    )  # fmt: skip
    return loader_class(roots)(roots, options, rank, world)


def pixels(shape: Shape) -> float:
    """What a clip costs the autoencoder: its convolutions do as much for each pixel."""
    return float(shape.frames * shape.height * shape.width)


def frames_max(stage: Stage) -> int | None:
    """A stage of images alone needs no buckets by duration."""
    return 1 if stage.image_every == 1 else stage.frames_max


class Validation:
    """The first clips of the validation set, the same ones and the same draws every time, shared among the ranks."""

    def __init__(self, roots: Sequence[str], recipe: TrainRecipe, stage: Stage, session: Session) -> None:
        data, self.place, self.loader, self.clips = recipe.data, session.place, None, 0
        options = DataOptions(
            data.validation_set, 1, mix(recipe.seed, VALIDATION_SEED), frames_max(stage), stage.resolution,
            None, None, "stop", data.errors_max, data.workers, data.prefetch,
        )  # fmt: skip
        try:
            self.loader = loader_class(roots)(roots, options)
        except (DataError, ManifestError) as error:
            session.say(f"There is no validation loss, so no plateau is seen: {str(error).splitlines()[-1]}")
            return
        self.clips = min(sum(self.loader.plan.sizes), data.validation_clips)

    def mean(self, loss: Callable[[Batch], Tensor]) -> float | None:
        """Mean over the clips of `loss(batch of one clip)`; None where there is nothing to validate on."""
        if self.loader is None:
            return None
        rank, world = self.place.data_rank, self.place.data_world
        rounds = math.ceil(self.clips / world)  # equal on all ranks: a sharded model works in step
        mine = [turn * world + rank for turn in range(rounds)]
        told = torch.zeros(2, device=self.place.device)
        for number, batch in zip(mine, self.loader.batches([n % self.clips for n in mine])):
            value = loss(batch).float()
            told += torch.stack([value, torch.ones_like(value)]) * (number < self.clips)
        total, count = mean_over_ranks(told).tolist()
        return total / count


def held(output: str, place: Place) -> AbstractContextManager[None]:
    """The output's lock, held by rank 0: two trainings never write to one folder."""
    return lock(output) if place.leads else nullcontext()


def begin(session: Session, roots: Sequence[str], facts: dict[str, Any], config: dict[str, Any]) -> None:
    """Check what is resumed against what is asked for, and note it for the checkpoints to come."""
    session.facts = {**facts, "config": config, "recipe": session.recipe.name, "runs": list(roots)}
    if session.resumed is None:
        return
    checkpoints.require(session.resumed, facts["model"], {k: v for k, v in config.items() if k != "grid"})
    if session.progress.stage >= len(session.recipe.stages):
        raise TrainingError(f"{session.resumed.path} is of a recipe with more stages; use that one, or another output.")
    session.say(f"Going on from {session.resumed.path}.")


def _note_data(session: Session, loader: Loader) -> None:
    """Write down which data the stage reads; say so where a resumed stage read another snapshot before."""
    index, identity = session.progress.stage, loader.identity
    before = session.resumed.meta.get("data") if session.resumed else None
    if before and session.resumed.meta["stage"] == index and session.progress.stage_step and before != identity:
        session.say(
            "The data changed since the last checkpoint: batches from here on are not those of an unbroken run."
        )
    session.facts["data"] = identity


def introduce(session: Session, stage: Stage, loader: Loader) -> None:
    _note_data(session, loader)
    session.say(f"Stage {stage.name}: {stage.steps} steps of {stage.batch} clips from sets/{loader.table.name}")
    session.say(loader.description)


def inputs_of(
    recipe: TrainRecipe, roots: Sequence[str], frozen: TAE, mark: str, device: torch.device | str
) -> tuple[MakeInputs, dict[str, int]]:
    """What makes the transformer's inputs, and the widths of the text features."""
    if encodings(roots):
        widths = require_encoded(roots, recipe, mark)
        if recipe.options.get("first_frame"):
            raise DataError("Encoded runs hold no first frames by themselves: train from the runs of videos instead.")
        frozen.forget_network()  # the latents' statistics are all that is needed
        return inputs_from_latents(frozen.to(device)), widths
    encoders = text_encoders(recipe.text, device)
    first_frame = bool(recipe.options.get("first_frame"))
    return inputs_from_videos(frozen.to(device), encoders, first_frame), encoders.widths
