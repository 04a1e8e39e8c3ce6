"""What a stage takes over from the one before, what it begins anew, and its learning rate, for both models.

                            middle of a stage   next stage                          first stage
    weights                 as they were        those of the last step              fresh, or init_from's average
    optimizer               as it was           goes on                             anew, with a warm-up
    moving average          as it was           anew, from the stage's first steps  anew
    plateau's memory        as it was           anew                                anew
    position tables (DiT)   as they were        stretched to the stage's grid, and the optimizer's moments with them

Counted over all stages: the discriminator's start, the latents' statistics, the steps that were left out.

A moving average over 10,000 steps would still be what it was before a fine-tuning of 5,000; so it begins anew, and its
decay rises with the steps of the stage. Adam's first steps are as long as the rate allows, 2 to 4 times its later
ones: so it goes on where it can, and where it cannot, the rate warms up while its first moment settles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rushes.model import checkpoint as checkpoints
from rushes.model.checkpoint import Checkpoint
from rushes.model.dit import stretch
from rushes.model.parallel import fill
from rushes.model.train_recipe import Stage, TrainRecipe

if TYPE_CHECKING:
    from rushes.model.trained import Trained

TABLES = "positions."  # of the parameters that grow
PROGRESS = 1e-4  # by how much, relatively, a validation loss must fall to count as progress; its draws are fixed
HALF = 0.5  # what the learning rate is multiplied with on a plateau (3.1.5)


@dataclass
class Progress:
    """Where a training is, and the plateau schedule's memory. Saved with every checkpoint."""

    step: int = 0  # optimizer steps of all stages
    stage: int = 0
    stage_step: int = 0  # optimizer steps of this stage
    factor: float = 1.0  # what plateaus have made of the learning rate
    best: float | None = None  # lowest validation loss of this stage
    waited: int = 0  # validations since then
    skipped: int = 0  # steps left out for a number that was not finite, of all stages

    def next_stage(self, recipe: TrainRecipe) -> int | None:
        """The number of the stage that is to be run, at its beginning or in its middle; None at the end."""
        if self.stage_step >= recipe.stages[self.stage].steps:
            if self.stage + 1 == len(recipe.stages):
                return None
            self.stage, self.stage_step = self.stage + 1, 0
            self.factor, self.best, self.waited = 1.0, None, 0
        return self.stage


def warmup_of(recipe: TrainRecipe, index: int) -> int:
    """Steps over which the rate of stage number `index` rises: the recipe's, and where the optimizer begins, at least
    the 1 / (1 - beta1) for which Adam's first moment stands.
    """
    stage = recipe.stages[index]
    return stage.warmup if index else max(stage.warmup, round(1 / (1 - recipe.optimizer.beta1)))


def take_over(found: Checkpoint, progress: Progress, trained: Mapping[str, Trained]) -> None:
    """Fill models, optimizers and averages from a checkpoint, as the table above says. Raises CheckpointError."""
    state = {name: one.state() for name, one in trained.items()}
    first = next(iter(state))
    whole = {**state[first], **{name: one for name, one in state.items() if name != first}}
    checkpoints.load(found, _without_grown(whole, checkpoints.sizes(found)))
    for name, tensor in _grown(whole, checkpoints.sizes(found)).items():
        fill(tensor, stretch(checkpoints.read(found, name), len(tensor)))
    for name, one in trained.items():
        one.restore(state[name])
        if progress.stage_step == 0:
            one.begin_average()


def _grown(state: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    """Tensors of position tables that the checkpoint has with fewer rows, by their name there."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= _grown(value, sizes, f"{name}.")
        elif TABLES in name and isinstance(value, Tensor) and sizes.get(name, value.shape) != tuple(value.shape):
            found[name] = value
    return found


def _without_grown(state: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    grown = _grown(state, sizes)

    def kept(part: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        names = {key: f"{prefix}{key}" for key in part}
        return {
            key: kept(value, f"{names[key]}.") if isinstance(value, dict) else value
            for key, value in part.items()
            if names[key] not in grown
        }

    return kept(state, "")


def learning_rate(stage: Stage, step: int, factor: float, warmup: int | None = None) -> float:
    """The rate at `step` of the stage (0 is the first): linear warm-up, then constant, halved or cosine to 0.

    warmup: steps of it; None: the stage's.
    """
    rate = stage.lr * min(1.0, (step + 1) / ((stage.warmup if warmup is None else warmup) + 1))
    if stage.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / stage.steps))
    return rate * (factor if stage.schedule == "plateau" else 1.0)


def note_validation(progress: Progress, stage: Stage, loss: float) -> bool:
    """Record a validation loss; True where it is the one after which the rate is halved (schedule `plateau`)."""
    if progress.best is None or loss < progress.best * (1 - PROGRESS):
        progress.best, progress.waited = loss, 0
        return False
    progress.waited += 1
    if stage.schedule != "plateau" or progress.waited < stage.patience or progress.factor <= stage.lr_floor:
        return False
    progress.factor, progress.waited = max(progress.factor * HALF, stage.lr_floor), 0
    return True
