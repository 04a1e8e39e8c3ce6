"""`train_tae` and `train_dit`: from published manifests to checkpoints.

Both are a straight line: join the ranks, open the data, build the model as the recipe says, go on from the last
checkpoint where there is one, and run the stages. A stage begins from the checkpoint of the one before, read from
disk, so that a run which was killed between them and one which was not do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rushes.model import checkpoint as checkpoints
from rushes.model.blocks import fit
from rushes.model.data import Batch, Loader, Shape
from rushes.model.device import attention_order, peak_flops
from rushes.model.dit import DIT_SIZES, DiT, DiTConfig, parameter_count, stretch, token_count, train_flops
from rushes.model.flow import PROCESSES
from rushes.model.frozen import load_tae
from rushes.model.inflate import inflate
from rushes.model.latents import videos_only
from rushes.model.loop import Flops, Say, Session, stop_on_signal
from rushes.model.losses import Discriminator, TAELossConfig, l1_loss, load_perceptual
from rushes.model.parallel import Place, fill, joined, parallelize, prepare_blocks, ranks_of
from rushes.model.stages import take_over
from rushes.model.staging import Cost, Validation, begin, configured, held, inputs_of, introduce, loader_of, pixels
from rushes.model.steps import (
    dit_backward,
    dit_validation,
    precision,
    preparation,
    tae_backward,
    to_video,
)
from rushes.model.tae import TAE, heavy_parts
from rushes.model.tae_config import TAE_SIZES, TAEConfig
from rushes.model.train_recipe import Parallel, Stage, TrainRecipe, TrainRecipeError
from rushes.model.trained import Trained

FIT_BATCHES = 16  # of the first stage, that the transform of a TAE of blocks is fitted to


def describe(recipe: TrainRecipe, roots: Sequence[str], tae: str | None = None, ranks: int = 1) -> str:
    """What a training would do: each stage's buckets, the model's parameters, and how the ranks share the work.

    Nothing is written and no weight is made. tae: as in `train_dit`. Raises what the training would before its start.
    """
    lines = []
    if tae is None:
        with torch.device("meta"):
            parameters = sum(p.numel() for p in TAE(configured(TAE_SIZES, recipe)).parameters())
        sharing, data_ranks, cost = "each with the whole model", ranks, pixels
    else:
        frozen, mark = load_tae(tae)
        config = _dit_config(recipe, frozen, inputs_of(recipe, roots, frozen, mark, "cpu")[1])
        parameters, cost = parameter_count(config), _cost_of(config)
        sides = dict(zip(("replicate", "shard", "context", "tensor"), ranks_of(recipe.parallel, ranks)))
        sharing = " x ".join(f"{name} {count}" for name, count in sides.items())
        data_ranks = sides["replicate"] * sides["shard"]
    for index, stage in enumerate(recipe.stages):
        loader = loader_of(roots, recipe, index, 0, data_ranks, cost)
        lines += [f"Stage {stage.name}: {stage.steps} steps of {stage.batch} clips from sets/{stage.set}"]
        lines += [loader.description]
    lines.append(f"{recipe.model} '{recipe.size}': {parameters:,} parameters")
    return "\n".join([*lines, f"{ranks} rank{'s' * (ranks > 1)}: {sharing}"])


# ---- the autoencoder -----------------------------------------------------------------------------------------------


def train_tae(recipe: TrainRecipe, roots: Sequence[str], output: str, say: Say = print) -> bool:
    """Train the temporal autoencoder on the runs at `roots`; the same output goes on. True when it is finished.

    False: a signal ended it after a checkpoint. Raises DataError, ManifestError, CheckpointError, TrainingError,
    TrainRecipeError, each with a sentence.
    """
    config: TAEConfig = configured(TAE_SIZES, recipe)
    weights = TAELossConfig(**recipe.loss.model_dump(exclude={"vgg", "lpips"}))
    if recipe.parallel != Parallel():
        raise TrainRecipeError("Every rank holds a whole TAE: leave the section 'parallel' out of its recipe.")
    with joined() as place, held(output, place):
        videos_only(roots)
        session = Session(recipe, output, place, say)
        begin(session, roots, {"model": "tae"}, asdict(config))
        perceptual = _perceptual(recipe, place)
        while (index := session.progress.next_stage(recipe)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.data_rank, place.data_world)
            introduce(session, stage, loader)
            trained = _tae_models(session, config, weights, loader)
            model, rival = trained["tae"].model, trained["rival"].model if "rival" in trained else None
            backward = tae_backward(recipe, stage, model, weights, perceptual, rival)
            validation = Validation(roots, recipe, stage, session)
            check = partial(_reconstruction_error, recipe, model)
            with stop_on_signal(session), closing(loader):
                prepare = preparation(recipe, stage, config.latent_channels, place.device)
                if not session.run_stage(stage, loader, trained, backward, partial(validation.mean, check), prepare):
                    return False
            session.resumed = checkpoints.open_checkpoint(session.output)
    return True


def _reconstruction_error(recipe: TrainRecipe, model: TAE, batch: Batch) -> Tensor:
    video = to_video(batch.frames, model.latent_mean.device)
    with precision(recipe, video.device):
        return l1_loss(video, model(video)[0])


def _perceptual(recipe: TrainRecipe, place: Place) -> nn.Module | None:
    if not recipe.loss.perceptual:
        return None
    if recipe.loss.vgg is None or recipe.loss.lpips is None:
        raise TrainRecipeError("loss.perceptual needs the files loss.vgg and loss.lpips; name them, or set it to 0.")
    try:
        return load_perceptual(recipe.loss.vgg, recipe.loss.lpips).to(place.device)
    except (FileNotFoundError, ValueError) as error:
        raise TrainRecipeError(f"{error}.") from error


def _tae_models(session: Session, config: TAEConfig, weights: TAELossConfig, loader: Loader) -> dict[str, Trained]:
    """The autoencoder, and the discriminator where the adversarial term is on: fresh, or as they were."""
    recipe, place = session.recipe, session.place
    torch.manual_seed(recipe.seed)
    model = TAE(config)
    if session.resumed is None and recipe.image_autoencoder:
        from safetensors.torch import load_file

        try:
            inflate(model, load_file(recipe.image_autoencoder))
        except (OSError, ValueError) as error:
            raise TrainRecipeError(f"image_autoencoder: {error}.") from error
    if session.resumed is None and recipe.init_from:
        start = checkpoints.open_checkpoint(recipe.init_from)
        checkpoints.require(start, "tae", asdict(config))
        checkpoints.load_weights(start, model)
    model.to(place.device)
    if session.resumed is None and not recipe.init_from and config.blocks:
        fit(model.blocks, (to_video(batch.frames, place.device) for batch in loader.batches(range(FIT_BATCHES))))
    prepare_blocks(heavy_parts(model), recipe.checkpointing, recipe.compile)
    trained = {"tae": Trained(model, recipe.optimizer)}
    if weights.adversarial:
        trained["rival"] = Trained(Discriminator().to(place.device), recipe.optimizer)
    if session.resumed is not None:
        take_over(session.resumed, session.progress, trained)
    return trained


# ---- the transformer -----------------------------------------------------------------------------------------------


def train_dit(recipe: TrainRecipe, roots: Sequence[str], output: str, tae: str, say: Say = print) -> bool:
    """Train the transformer on latents: those of encoded runs, or made by the autoencoder at `tae` while it goes.

    tae: a checkpoint of a TAE, or a training's output. Otherwise as `train_tae`. Raises CheckpointError also where a
    resumed run belongs to another autoencoder, TextEncoderError where an encoder's weights are missing, DataError
    where encoded runs are of another autoencoder, other text encoders or other shapes.
    """
    if recipe.open_transformer:
        from rushes.model.train_open import train_lora

        return train_lora(recipe, roots, output, tae, say)
    with joined(recipe.parallel) as place, held(output, place):
        frozen, mark = load_tae(tae)
        inputs, text_widths = inputs_of(recipe, roots, frozen, mark, place.device)
        config = _dit_config(recipe, frozen, text_widths)
        process = PROCESSES[recipe.process]()
        session = Session(recipe, output, place, say)
        facts = {"model": "dit", "tae": mark, "text": recipe.text.model_dump(mode="json"), "process": recipe.process}
        begin(session, roots, facts, asdict(config))
        if session.resumed is not None and session.resumed.meta.get("tae") != mark:
            raise checkpoints.CheckpointError(
                f"{session.resumed.path} was trained on latents of another TAE ({session.resumed.meta.get('tae')}, "
                f"not {mark}): give that one with --tae, or another output folder."
            )
        while (index := session.progress.next_stage(recipe)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.data_rank, place.data_world, _cost_of(config))
            introduce(session, stage, loader)
            trained = {"dit": _dit_model(session, config, stage)}
            model = trained["dit"].model
            session.facts["config"] = asdict(model.config)
            backward = dit_backward(recipe, stage, model, inputs, process)
            validation = Validation(roots, recipe, stage, session)
            check = partial(validation.mean, dit_validation(recipe, model, inputs, process))
            peak = peak_flops(place.device)
            flops = _flops_of(model.config, peak * place.sharers if peak else None)  # of all that share a batch
            prepare = preparation(recipe, stage, config.latent_channels, place.device, process)
            with stop_on_signal(session), closing(loader), attention_order(place.device):
                if not session.run_stage(stage, loader, trained, backward, check, prepare, flops):
                    return False
            session.resumed = checkpoints.open_checkpoint(session.output)
    return True


def _dit_config(recipe: TrainRecipe, frozen: TAE, text_widths: dict[str, int]) -> DiTConfig:
    widths = {"text_widths": text_widths, "latent_channels": frozen.config.latent_channels}
    return configured(DIT_SIZES, recipe, **widths)


def _dit_model(session: Session, config: DiTConfig, stage: Stage) -> Trained:
    """The transformer at this stage: fresh, from the stage before with grown positions, or as it was in its middle.

    It is built without memory and sharded before a weight is made or read: no rank ever holds all of it.
    """
    recipe, place, resumed = session.recipe, session.place, session.resumed
    middle = resumed is not None and session.progress.stage_step > 0
    start = resumed
    if start is None and recipe.init_from:
        start = checkpoints.open_checkpoint(recipe.init_from)
        checkpoints.require(start, "dit", {k: v for k, v in asdict(config).items() if k != "grid"})
    grid = tuple(start.meta["config"]["grid"]) if start else config.grid
    grid = grid if middle or stage.grid is None else stage.grid
    with torch.device("meta"):
        model = DiT(replace(config, grid=grid))
    dtype = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
    parallelize(model, place, dtype, recipe.checkpointing, recipe.compile)
    model.to_empty(device=place.device)
    if start is None:
        model.init_weights(recipe.seed, fill)
    elif resumed is None:
        _start_from(start, model)
    trained = Trained(model, recipe.optimizer)
    if resumed is not None:
        take_over(resumed, session.progress, {"dit": trained})
    return trained


def _start_from(start: checkpoints.Checkpoint, model: DiT) -> None:
    """A checkpoint's average, each rank its own part; the position tables, which are small, are stretched."""
    tables = {name: p for name, p in model.named_parameters() if name.startswith("positions.")}
    checkpoints.load_weights(start, model, without=tables)
    for name, table in checkpoints.read_weights(start, prefix="positions.").items():
        fill(tables[name], stretch(table, len(tables[name])))


def _cost_of(config: DiTConfig) -> Cost:
    """What a clip costs the transformer, by its tokens and their squares; its text is left out."""

    def cost(shape: Shape) -> float:
        return train_flops(config, token_count(config, shape.frames, shape.height, shape.width), 0)

    return cost


def _flops_of(config: DiTConfig, peak: float | None) -> Flops | None:
    """Model FLOPs of this rank's share of a batch, over `peak`: the MFU of a step that takes one second."""
    if peak is None:
        return None

    def flops(batch: Batch, terms: dict[str, Any]) -> float | None:
        if terms["text_tokens"] is None:
            return None
        found = 0.0
        for group in batch.groups:
            tokens = token_count(config, group.shape.frames, group.shape.height, group.shape.width)
            found += group.clips * train_flops(config, tokens, terms["text_tokens"])
        return found / peak

    return flops
