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

from curation.manifest import ManifestError, lock
from model import checkpoint as checkpoints
from model.data import Batch, DataError, DataOptions, Loader, mix
from model.dit import DIT_SIZES, DiT, DiTConfig, forward_flops, resize_positions, token_count
from model.flow import PROCESSES
from model.loop import Say, Session, Trained, TrainingError, stop_on_signal
from model.losses import Discriminator, TAELossConfig, l1_loss, load_perceptual
from model.parallel import Place, joined, mean_over_ranks, peak_flops, prepare_blocks, shard
from model.steps import VALIDATION_SEED, dit_backward, dit_validation, tae_backward, to_video
from model.tae import TAE, TAE_SIZES, TAEConfig, inflate
from model.text import ByteEncoder, CLIPEncoder, T5Encoder, TextEncoder
from model.train_recipe import Stage, Text, TrainRecipe, TrainRecipeError

TRAIN_FLOPS = 3  # times the forward pass: once forward, twice backward
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


def loader_of(roots: Sequence[str], recipe: TrainRecipe, index: int, rank: int, world: int) -> Loader:
    """The batches of stage number `index`. Raises DataError, ManifestError."""
    stage, data = recipe.stages[index], recipe.data
    if stage.batch % (world * min(stage.micro_batch, stage.batch // world or 1)):
        raise DataError(
            f"Stage '{stage.name}': a batch of {stage.batch} clips does not divide into {world} ranks with "
            f"micro-batches of {stage.micro_batch}."
        )
    options = DataOptions(
        stage.set, stage.batch, mix(recipe.seed, STAGE_SEED, index), frames_max(stage), stage.resolution,
        stage.image_every, stage.buckets, stage.small_buckets, data.errors_max, data.workers, data.prefetch,
        stage.images,
    )  # fmt: skip
    return Loader(roots, options, rank, world)


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
            self.loader = Loader(roots, options)
        except (DataError, ManifestError) as error:
            session.say(f"There is no validation loss, so no plateau is seen: {str(error).splitlines()[-1]}")
            return
        self.clips = min(sum(self.loader.plan.sizes), data.validation_clips)

    def mean(self, loss: Callable[[Batch], Tensor]) -> float | None:
        """Mean over the clips of `loss(batch of one clip)`; None where there is nothing to validate on."""
        if self.loader is None:
            return None
        rounds = math.ceil(self.clips / self.place.world)  # equal on all ranks: a sharded model works in step
        mine = [turn * self.place.world + self.place.rank for turn in range(rounds)]
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


def _next_stage(session: Session) -> int | None:
    """The number of the stage that is to be run, its progress set to its beginning or its middle; None at the end."""
    progress, stages = session.progress, session.recipe.stages
    if progress.stage_step >= stages[progress.stage].steps:
        if progress.stage + 1 == len(stages):
            return None
        progress.stage, progress.stage_step = progress.stage + 1, 0
        progress.factor, progress.best, progress.waited = 1.0, None, 0
    return progress.stage


# ---- the autoencoder -----------------------------------------------------------------------------------------------


def train_tae(recipe: TrainRecipe, roots: Sequence[str], output: str, say: Say = print) -> bool:
    """Train the temporal autoencoder on the runs at `roots`; the same output goes on. True when it is finished.

    False: a signal ended it after a checkpoint. Raises DataError, ManifestError, CheckpointError, TrainingError,
    TrainRecipeError, each with a sentence.
    """
    config: TAEConfig = configured(TAE_SIZES, recipe)
    weights = TAELossConfig(**recipe.loss.model_dump(exclude={"vgg", "lpips"}))
    with joined() as place, _held(output, place):
        session = Session(recipe, output, place, say)
        _begin(session, roots, {"model": "tae"}, asdict(config))
        perceptual = _perceptual(recipe, place)
        while (index := _next_stage(session)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.rank, place.world)
            _introduce(session, stage, loader)
            trained = _tae_models(session, config, weights)
            model, rival = trained["tae"].model, trained["rival"].model if "rival" in trained else None
            backward = tae_backward(recipe, stage, model, weights, perceptual, rival)
            validation = Validation(roots, recipe, stage, session)
            check = partial(_reconstruction_error, model)
            with stop_on_signal(session), closing(loader):
                if not session.run_stage(stage, loader, trained, backward, partial(validation.mean, check)):
                    return False
            session.resumed = checkpoints.open_checkpoint(session.output)
    return True


def _reconstruction_error(model: TAE, batch: Batch) -> Tensor:
    video = to_video(batch.frames, model.latent_mean.device)
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


def _tae_models(session: Session, config: TAEConfig, weights: TAELossConfig) -> dict[str, Trained]:
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
    trained = {"tae": Trained(model.to(place.device), recipe.optimizer)}
    if weights.adversarial:
        trained["rival"] = Trained(Discriminator().to(place.device), recipe.optimizer)
    if session.resumed is not None:
        session.restore(trained)
    return trained


# ---- the transformer -----------------------------------------------------------------------------------------------


def load_tae(where: str, device: torch.device | str = "cpu") -> tuple[TAE, str]:
    """A frozen autoencoder (averaged weights) and its fingerprint. Raises CheckpointError."""
    found = checkpoints.open_checkpoint(where)
    checkpoints.require(found, "tae")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in found.meta["config"].items()}
    model = TAE(TAEConfig(**options))
    checkpoints.load_weights(found, model)
    return model.eval().requires_grad_(False).to(device), checkpoints.fingerprint(model)


def text_encoder(text: Text, device: torch.device | str = "cpu") -> TextEncoder:
    """The encoder that the recipe names. Raises TextEncoderError where its weights or its library are missing."""
    if text.encoder == "bytes":
        return ByteEncoder(text.width, text.max_tokens)
    if text.encoder == "clip":
        return CLIPEncoder(device=str(device))
    source = text.source or {"ul2": "google/ul2", "byt5": "google/byt5-small"}[text.encoder]
    return T5Encoder(source, text.encoder, text.max_tokens, text.encoder == "byt5", str(device))


def train_dit(recipe: TrainRecipe, roots: Sequence[str], output: str, tae: str, say: Say = print) -> bool:
    """Train the transformer on latents that the autoencoder at `tae` makes while it goes; as `train_tae` otherwise.

    tae: a checkpoint of a TAE, or a training's output. Raises CheckpointError also where a resumed run belongs to
    another autoencoder, TextEncoderError where the encoder's weights are missing.
    """
    with joined() as place, _held(output, place):
        frozen, mark = load_tae(tae, place.device)
        encoder = text_encoder(recipe.text, place.device)
        widths = {"text_widths": {encoder.name: encoder.width}, "latent_channels": frozen.config.latent_channels}
        config: DiTConfig = configured(DIT_SIZES, recipe, **widths)
        process = PROCESSES[recipe.process]()
        session = Session(recipe, output, place, say)
        facts = {"model": "dit", "tae": mark, "text": recipe.text.model_dump(), "process": recipe.process}
        _begin(session, roots, facts, asdict(config))
        if session.resumed is not None and session.resumed.meta.get("tae") != mark:
            raise checkpoints.CheckpointError(
                f"{session.resumed.path} was trained on latents of another TAE ({session.resumed.meta.get('tae')}, "
                f"not {mark}): give that one with --tae, or another output folder."
            )
        while (index := _next_stage(session)) is not None:
            stage = recipe.stages[index]
            loader = loader_of(roots, recipe, index, place.rank, place.world)
            _introduce(session, stage, loader)
            trained = {"dit": _dit_model(session, config, stage)}
            model = trained["dit"].model
            session.facts["config"] = asdict(model.config)
            backward = dit_backward(recipe, stage, model, frozen, encoder, process)
            validation = Validation(roots, recipe, stage, session)
            check = partial(validation.mean, dit_validation(recipe, model, frozen, encoder, process))
            flops, peak = _flops_of(model.config, encoder), peak_flops(place.device)
            with stop_on_signal(session), closing(loader):
                if not session.run_stage(stage, loader, trained, backward, check, flops, peak):
                    return False
            session.resumed = checkpoints.open_checkpoint(session.output)
    return True


def _dit_model(session: Session, config: DiTConfig, stage: Stage) -> Trained:
    """The transformer at this stage: fresh, from the stage before with grown positions, or as it was in its middle."""
    recipe, place, resumed = session.recipe, session.place, session.resumed
    middle = resumed is not None and session.progress.stage_step > 0
    start = resumed if resumed is not None else None
    if start is None and recipe.init_from:
        start = checkpoints.open_checkpoint(recipe.init_from)
        checkpoints.require(start, "dit", {k: v for k, v in asdict(config).items() if k != "grid"})
    torch.manual_seed(recipe.seed)
    model = DiT(replace(config, grid=tuple(start.meta["config"]["grid"])) if start else config)
    if not middle:
        if start is not None:
            checkpoints.load_weights(start, model, averaged=resumed is None)
        if stage.grid is not None:
            resize_positions(model, stage.grid)
    model.to(place.device)
    prepare_blocks(model.blocks, recipe.checkpointing, recipe.compile)
    if place.world > 1:
        shard(model, torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32)
    trained = Trained(model, recipe.optimizer)
    if middle:
        session.restore({"dit": trained})
    return trained


def _flops_of(config: DiTConfig, encoder: TextEncoder) -> Callable[[Batch], float]:
    length = getattr(encoder, "max_tokens", None) or 77

    def flops(batch: Batch) -> float:
        shape = batch.shape
        tokens = token_count(config, shape.frames, shape.height, shape.width)
        return TRAIN_FLOPS * len(batch.samples) * forward_flops(config, tokens, length)

    return flops
