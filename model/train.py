"""`train_tae` and `train_dit`: from published manifests to checkpoints.

Both are a straight line: join the ranks, open the data, build the model as the recipe says, go on from the last
checkpoint where there is one, and run the stages. A stage begins from the checkpoint of the one before, read from
disk, so that a run which was killed between them and one which was not do the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rushes.curation.manifest import ManifestError, lock
from rushes.model import checkpoint as checkpoints
from rushes.model.blocks import fit
from rushes.model.data import Batch, DataError, DataOptions, Loader, Shape, mix
from rushes.model.device import attention_order, peak_flops
from rushes.model.dit import DIT_SIZES, DiT, DiTConfig, parameter_count, stretch, token_count, train_flops
from rushes.model.flow import PROCESSES
from rushes.model.frozen import load_tae, text_encoders
from rushes.model.inflate import inflate
from rushes.model.latents import encodings, loader_class, require_encoded, videos_only
from rushes.model.loop import Flops, Say, Session, TrainingError, stop_on_signal
from rushes.model.losses import Discriminator, TAELossConfig, l1_loss, load_perceptual
from rushes.model.parallel import Place, fill, joined, mean_over_ranks, parallelize, prepare_blocks, ranks_of
from rushes.model.stages import take_over
from rushes.model.steps import (
    VALIDATION_SEED,
    MakeInputs,
    dit_backward,
    dit_validation,
    inputs_from_latents,
    inputs_from_videos,
    precision,
    preparation,
    tae_backward,
    to_video,
)
from rushes.model.tae import TAE, heavy_parts
from rushes.model.tae_config import TAE_SIZES, TAEConfig
from rushes.model.train_recipe import Parallel, Stage, TrainRecipe, TrainRecipeError
from rushes.model.trained import Trained

Cost = Callable[[Shape], float]
FIT_BATCHES = 16  # of the first stage, that the transform of a TAE of blocks is fitted to
STAGE_SEED = 103  # keeps the stages' batches apart


# ---- shared --------------------------------------------------------------------------------------------------------


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


def _held(output: str, place: Place) -> AbstractContextManager[None]:
    """The output's lock, held by rank 0: two trainings never write to one folder."""
    return lock(output) if place.leads else nullcontext()


def _begin(session: Session, roots: Sequence[str], facts: dict[str, Any], config: dict[str, Any]) -> None:
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
        config = _dit_config(recipe, frozen, _inputs(recipe, roots, frozen, mark, "cpu")[1])
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
    with joined() as place, _held(output, place):
        videos_only(roots)
        session = Session(recipe, output, place, say)
        _begin(session, roots, {"model": "tae"}, asdict(config))
        perceptual = _perceptual(recipe, place)
        while (index := session.progress.next_stage(recipe)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.data_rank, place.data_world)
            _introduce(session, stage, loader)
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


def _introduce(session: Session, stage: Stage, loader: Loader) -> None:
    _note_data(session, loader)
    session.say(f"Stage {stage.name}: {stage.steps} steps of {stage.batch} clips from sets/{loader.table.name}")
    session.say(loader.description)


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
    with joined(recipe.parallel) as place, _held(output, place):
        frozen, mark = load_tae(tae)
        inputs, text_widths = _inputs(recipe, roots, frozen, mark, place.device)
        config = _dit_config(recipe, frozen, text_widths)
        process = PROCESSES[recipe.process]()
        session = Session(recipe, output, place, say)
        facts = {"model": "dit", "tae": mark, "text": recipe.text.model_dump(mode="json"), "process": recipe.process}
        _begin(session, roots, facts, asdict(config))
        if session.resumed is not None and session.resumed.meta.get("tae") != mark:
            raise checkpoints.CheckpointError(
                f"{session.resumed.path} was trained on latents of another TAE ({session.resumed.meta.get('tae')}, "
                f"not {mark}): give that one with --tae, or another output folder."
            )
        while (index := session.progress.next_stage(recipe)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.data_rank, place.data_world, _cost_of(config))
            _introduce(session, stage, loader)
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


def _inputs(
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
