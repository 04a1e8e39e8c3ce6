"""`rushes train dit` with `open_transformer`: LoRA fine-tuning of an open transformer on our sets.

The same straight line as `train_dit`, with an adapter in place of the model: what is saved, averaged and resumed is the
adapter alone. The weights it belongs to stay where they are, and every rank reads all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial

from torch import Tensor

from rushes.model import checkpoint as checkpoints
from rushes.model.data import Batch
from rushes.model.frozen import load_tae
from rushes.model.loop import Say, Session, stop_on_signal
from rushes.model.open_transformers import OpenDiT, load_open_dit
from rushes.model.parallel import Place, average_gradients, joined
from rushes.model.stages import take_over
from rushes.model.staging import Validation, begin, held, inputs_of, introduce, loader_of
from rushes.model.steps import Backward, dit_backward, dit_validation, preparation
from rushes.model.train_recipe import Parallel, TrainRecipe, TrainRecipeError
from rushes.model.trained import Trained


def train_lora(recipe: TrainRecipe, roots: Sequence[str], output: str, tae: str, say: Say = print) -> bool:
    """As `train_dit`, whose errors it raises. True when it is finished."""
    _check(recipe)
    with joined() as place, held(output, place):
        frozen, mark = load_tae(tae)
        inputs, widths = inputs_of(recipe, roots, frozen, mark, place.device)
        session = Session(recipe, output, place, say)
        facts = {
            "model": "dit", "tae": mark, "text": recipe.text.model_dump(mode="json"), "process": recipe.process,
            "open_transformer": recipe.open_transformer, "lora": recipe.lora.model_dump(mode="json"),
        }  # fmt: skip
        begin(session, roots, facts, {"open_transformer": recipe.open_transformer, **facts["lora"]})
        model = _model(recipe, place, widths, frozen.config.latent_channels)
        process = model.process
        while (index := session.progress.next_stage(recipe)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.data_rank, place.data_world)
            introduce(session, stage, loader)
            trained = {"dit": Trained(model, recipe.optimizer)}
            if session.resumed is not None:
                take_over(session.resumed, session.progress, trained)
            backward = _averaged(dit_backward(recipe, stage, model, inputs, process), model)
            validation = Validation(roots, recipe, stage, session)
            check = partial(validation.mean, dit_validation(recipe, model, inputs, process))
            prepare = preparation(recipe, stage, frozen.config.latent_channels, place.device, process)
            with stop_on_signal(session), closing(loader):
                if not session.run_stage(stage, loader, trained, backward, check, prepare):
                    return False
            session.resumed = checkpoints.open_checkpoint(session.output)
    return True


def _check(recipe: TrainRecipe) -> None:
    if recipe.parallel != Parallel():
        raise TrainRecipeError("Every rank holds a whole open transformer: leave the section 'parallel' out.")


def _model(recipe: TrainRecipe, place: Place, widths: dict[str, int], channels: int) -> OpenDiT:
    """The transformer with fresh adapters. Raises TrainRecipeError where process, latents or text do not fit it."""
    where = recipe.open_transformer
    model = load_open_dit(where, recipe.lora.rank, recipe.lora.alpha, place.device)
    if recipe.process != model.kind.process:
        raise TrainRecipeError(f"{where} was trained by {model.kind.process}: set process to {model.kind.process}.")
    if model.channels != channels:
        raise TrainRecipeError(
            f"{where} reads {model.channels} channels, and the latents have {channels}: name the transformer from text "
            "to video that belongs to the autoencoder."
        )
    if len(widths) != len(model.text_widths):
        raise TrainRecipeError(
            f"{where} reads {len(model.text_widths)} text encoders, not {len(widths)}: name those it was trained with."
        )
    model.names = tuple(encoder.name for encoder in recipe.text.encoders)
    for name, wanted in zip(model.names, model.text_widths):
        if wanted not in (None, widths[name]):
            raise TrainRecipeError(
                f"{where} reads text features of width {wanted}, and '{name}' makes {widths[name]}: name the encoder "
                "it was trained with."
            )
    return model


def _averaged(backward: Backward, model: OpenDiT) -> Backward:
    """Gradients are averaged over the ranks after each step: the adapter is small."""

    def step(batch: Batch, number: int) -> dict[str, Tensor]:
        told = backward(batch, number)
        average_gradients(model)
        return told

    return step
