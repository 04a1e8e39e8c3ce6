"""What one training step computes: a batch in, gradients of the global batch's mean loss left in the model.

All chance (noise, time, dropped text) is drawn per clip from (seed, stage, step, place in the global batch): any
number of ranks and any micro-batch sees the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rushes.model.data import Batch, Clip, EncodedSample, Sample, Shape, mix, unit
from rushes.model.dit import DiT
from rushes.model.flow import Process, training_loss
from rushes.model.losses import Discriminator, TAELossConfig, hinge_discriminator_loss, tae_loss
from rushes.model.parallel import average_gradients, mean_over_ranks, reduce_gradients
from rushes.model.tae import TAE
from rushes.model.tae_config import SPACE_FACTOR, latent_frames
from rushes.model.text import TextEncoders, prompt
from rushes.model.tiling import encode_tiled
from rushes.model.train_recipe import Stage, TrainRecipe

GREY = 127.5  # uint8 to [-1, 1]
LATENT_MOMENTUM = 0.01  # of the running statistics of the latents, per step
STATISTICS_KNOWN = 100  # steps after which they move by LATENT_MOMENTUM alone
VARIANCE_FLOOR = 1e-12  # under the square root of a channel's variance
SEED_BITS = (1 << 63) - 1  # of a torch generator
VALIDATION_SEED, NOISE_SEED, FIRST_SEED = 101, 102, 104  # keep apart what is drawn for what

Backward = Callable[[Batch, int], dict[str, Tensor]]


def to_video(frames: Any, device: torch.device | str) -> Tensor:
    """uint8 [B, T, H, W, 3] (array or tensor) -> float32 [B, 3, T, H, W] in [-1, 1] on the device."""
    video = to_device(torch.as_tensor(frames), device)
    return video.permute(0, 4, 1, 2, 3).float().div_(GREY).sub_(1.0)


def to_device(value: Tensor, device: torch.device | str) -> Tensor:
    """A tensor on the device. On CUDA the host waits neither for the copy nor for the work that is queued before it."""
    if torch.device(device).type == "cuda" and not value.is_cuda:
        return (value if value.is_pinned() else value.pin_memory()).to(device, non_blocking=True)
    return value.to(device)


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on `numbers` alone."""
    return torch.Generator().manual_seed(mix(*numbers) & SEED_BITS)


def micro_batches(batch: Batch, stage: Stage) -> list[slice]:
    """The samples of each forward pass. An enlarged batch (Stage.balance) has as many passes as one that is not.

    A pass has one shape, and images have passes of their own size (Stage.image_micro_batch). Sizes of a shape differ by
    at most one.
    """
    parts, begin = [], 0
    for group in batch.groups:
        if batch.images and stage.image_micro_batch:
            passes = -(-group.clips // stage.image_micro_batch)
        else:
            of_whole = -(-batch.share // stage.micro_batch)
            passes = -(-group.clips * of_whole // group.whole)
        edges = [begin + group.clips * number // passes for number in range(passes + 1)]
        parts += [slice(low, high) for low, high in pairwise(edges) if high > low]
        begin += group.clips
    return parts


@dataclass(frozen=True)
class Ready:
    """Of a batch, on the CPU: its samples, and what is drawn for each: noise [C, T, H, W], time [B], drop [B] bool.

    time and drop: of the transformer alone.
    """

    samples: tuple[Sample, ...]
    noise: tuple[Tensor, ...]
    time: Tensor | None = None
    drop: Tensor | None = None


def preparation(
    recipe: TrainRecipe, stage: Stage, channels: int, device: torch.device, process: Process | None = None
) -> Callable[[Batch], Ready]:
    """Draws a batch's chance, and lays what the device will read into memory that it reads without the host.

    Done by the loader's thread for batches to come: neither costs the device time.
    """
    number_of, pins = recipe.stages.index(stage), device.type == "cuda"

    def prepare(batch: Batch) -> Ready:
        shapes = [_latent_shape(channels, group.shape) for group in batch.groups for _ in range(group.clips)]
        ready = draw(recipe, number_of, batch, shapes, process)
        if not pins:
            return ready
        drawn: dict[str, Any] = {name: getattr(ready, name) for name in ("time", "drop")}
        drawn = {name: value.pin_memory() for name, value in drawn.items() if value is not None}
        drawn["noise"] = tuple(noise.pin_memory() for noise in ready.noise)
        return replace(ready, samples=tuple(_pinned(sample) for sample in ready.samples), **drawn)

    return prepare


def _latent_shape(channels: int, shape: Shape) -> tuple[int, ...]:
    return channels, latent_frames(shape.frames), shape.height // SPACE_FACTOR, shape.width // SPACE_FACTOR


def _pinned(sample: Sample) -> Sample:
    """A sample whose frames, latent and text features lie in pinned memory, the frames as a tensor."""
    changed: dict[str, Any] = {"frames": torch.from_numpy(np.ascontiguousarray(sample.frames)).pin_memory()}
    if getattr(sample, "latent", None) is not None:
        changed["latent"] = sample.latent.pin_memory()
        changed["text"] = {name: value.pin_memory() for name, value in sample.text.items()}
    return replace(sample, **changed)


def draw(
    recipe: TrainRecipe, stage: int, batch: Batch, shapes: Sequence[Sequence[int]], process: Process | None = None
) -> Ready:
    """What is drawn for each clip of a batch from (seed, stage, step, place). shapes: of the latents, [C, T, H, W]."""
    makers = [generator(recipe.seed, NOISE_SEED, stage, batch.step, place) for place in batch.places]
    noise = tuple(torch.randn(tuple(shape), generator=maker) for shape, maker in zip(shapes, makers))
    if process is None:
        return Ready(batch.samples, noise)
    time = torch.cat([process.sample_time(1, maker) for maker in makers])
    drop = torch.cat([torch.rand(1, generator=maker) < recipe.text.drop for maker in makers])
    return Ready(batch.samples, noise, time, drop)


def stacked(values: Sequence[Tensor], device: torch.device | str) -> Tensor:
    """[B, ...] on the device."""
    return torch.stack([to_device(value, device) for value in values])


def precision(recipe: TrainRecipe, device: torch.device) -> Any:
    """The context of a forward pass: bfloat16 where the recipe says so."""
    if recipe.precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


# ---- the autoencoder -----------------------------------------------------------------------------------------------


def tae_backward(
    recipe: TrainRecipe,
    stage: Stage,
    model: TAE,
    weights: TAELossConfig,
    perceptual: nn.Module | None = None,
    rival: Discriminator | None = None,
) -> Backward:
    """The function that leaves in `model` (and the discriminator) the gradients of a global batch's mean loss.

    The discriminator's start and the latents' statistics count the steps of all stages.
    """
    device, number_of = model.latent_mean.device, recipe.stages.index(stage)
    before = sum(earlier.steps for earlier in recipe.stages[:number_of])
    known = STATISTICS_KNOWN if recipe.init_from else 0  # steps that the latents' statistics already stand for
    prepare = preparation(recipe, stage, model.config.latent_channels, device)

    def backward(batch: Batch, stage_step: int) -> dict[str, Tensor]:
        parts, step = micro_batches(batch, stage), before + stage_step
        ready = batch.ready or prepare(batch)
        totals: dict[str, Tensor] = {}
        moments = torch.zeros(2, model.config.latent_channels, device=device)
        for part in parts:
            share = (part.stop - part.start) / len(ready.samples)
            frames = [torch.as_tensor(sample.frames) for sample in ready.samples[part]]
            video = torch.cat([to_video(one[None], device) for one in frames])
            noise = stacked(ready.noise[part], device)
            with precision(recipe, device):
                made, posterior, latent = model(video, noise)
                if rival is not None:
                    rival.requires_grad_(False)
                loss, terms = tae_loss(
                    weights, video, made, posterior, latent, step, perceptual, rival, model.last_layer
                )  # fmt: skip
            (loss * share).backward()
            if rival is not None:
                rival.requires_grad_(True)
                if step >= weights.adversarial_start:
                    with precision(recipe, device):
                        rivalry = hinge_discriminator_loss(rival(video), rival(made.detach()))
                    (rivalry * share).backward()
                    terms["discriminator"] = rivalry.detach()
            mean = posterior.mean.detach().float()
            moments += torch.stack([mean.mean((0, 2, 3, 4)), mean.square().mean((0, 2, 3, 4))]) * share
            for name, value in {"loss": loss.detach(), **terms}.items():
                totals[name] = totals.get(name, 0.0) + value * share
        average_gradients(model)
        if rival is not None:
            average_gradients(rival)
            rival.adaptive.update()
        note_latents(model, mean_over_ranks(moments), step + known)
        return totals

    return backward


@torch.no_grad()
def note_latents(model: TAE, moments: Tensor, step: int) -> None:
    """Running mean and deviation per channel of the latents, in the model's buffers. moments: [2, C], E x and E x^2.

    step: steps before this one. Moments that are not finite change nothing.
    """
    pace = max(LATENT_MOMENTUM, 1 / (step + 1)) * moments.isfinite().all()
    moments = moments.nan_to_num(0, 0, 0)
    mean, square = model.latent_mean, model.latent_std.square() + model.latent_mean.square()
    square = torch.lerp(square, moments[1], pace)
    model.latent_mean.copy_(torch.lerp(mean, moments[0], pace))
    model.latent_std.copy_((square - model.latent_mean.square()).clamp(min=VARIANCE_FLOOR).sqrt())


# ---- the transformer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What the transformer learns from: a normalised latent [B, C, T, H, W], and what it is told.

    text: encoder's name -> [B, L, width]; masks: name -> [B, L] bool, true where a token is real.
    first: the first frame's latent alone, normalised [B, C, 1, H, W]; None: it is not told (single frames never are).
    """

    latent: Tensor
    text: dict[str, Tensor]
    masks: dict[str, Tensor]
    first: Tensor | None = None


MakeInputs = Callable[[Sequence[Sample], bool], Inputs]  # of samples; true: they are single frames


def inputs_from_videos(frozen: TAE, encoders: TextEncoders, first_frame: bool = False) -> MakeInputs:
    """Frames through the frozen autoencoder, prompts through the frozen text encoders, while the training goes."""
    device = frozen.latent_mean.device

    @torch.no_grad()
    def make(samples: Sequence[Sample], images: bool) -> Inputs:
        latent = torch.cat([latent_of(frozen, sample.frames) for sample in samples])
        features = encoders.encode(prompts_of(samples, images))
        text = {name: to_device(found.tokens, device) for name, found in features.items()}
        masks = {name: to_device(found.mask, device) for name, found in features.items()}
        first = None
        if first_frame and not images:
            first = frozen.normalize(torch.cat([latent_of(frozen, sample.frames[:1]) for sample in samples]))
        return Inputs(frozen.normalize(latent), text, masks, first)

    return make


def inputs_from_latents(frozen: TAE) -> MakeInputs:
    """Latents and features that `rushes encode` stored; of the autoencoder the statistics alone are used."""
    device = frozen.latent_mean.device

    def make(samples: Sequence[EncodedSample], images: bool) -> Inputs:
        latent = torch.stack([to_device(sample.latent, device) for sample in samples]).float()
        text, masks = {}, {}
        for name in samples[0].text:
            parts = [to_device(sample.text[name], device) for sample in samples]
            text[name] = pad_sequence(parts, batch_first=True).float()
            lengths = to_device(torch.tensor([len(part) for part in parts]), device)
            masks[name] = torch.arange(text[name].shape[1], device=device) < lengths[:, None]
        return Inputs(frozen.normalize(latent), text, masks)

    return make


@torch.no_grad()
def latent_of(frozen: TAE, frames: np.ndarray, half: bool = False) -> Tensor:
    """uint8 [T, H, W, 3] -> float32 [1, C, ceil(T / 8), H / 8, W / 8]: the posterior's mean, encoded tile by tile.

    half: the network computes in bfloat16.
    """
    device = frozen.latent_mean.device
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        return encode_tiled(frozen, to_video(frames[None], device)).mean.float()


def prompts_of(samples: Sequence[Sample | Clip], images: bool) -> list[str]:
    """Captions with the frame rate in front; a single frame has none.

    A set's caption begins with the camera's motion where that is sure (docs/captioning.md), so none is added here.
    """
    return [prompt(s.caption, None if images else s.rate) for s in samples]


def dit_backward(recipe: TrainRecipe, stage: Stage, model: DiT, inputs: MakeInputs, process: Process) -> Backward:
    """The function that leaves in `model` the gradients of a global batch's mean loss."""
    number_of, deferred = recipe.stages.index(stage), recipe.parallel.reduce == "step"

    def backward(batch: Batch, step: int) -> dict[str, Tensor]:
        parts, ready = micro_batches(batch, stage), batch.ready
        samples = ready.samples if ready else batch.samples
        loss_of_all, words = 0.0, 0.0
        for part in parts:
            reduce_gradients(model, last=part is parts[-1], deferred=deferred)
            data = inputs(samples[part], batch.images)
            shape, device = data.latent.shape[1:], data.latent.device
            if ready is None or ready.noise[part.start].shape != shape:
                ready = draw(recipe, number_of, batch, [shape] * len(samples), process)
            noise = stacked(ready.noise[part], device)
            time, drop = (to_device(value, device) for value in (ready.time[part], ready.drop[part]))
            share = (part.stop - part.start) / len(samples)
            given = _first_given(recipe, number_of, batch, part, device)

            def predict(x: Tensor, t: Tensor, data=data, drop=drop, given=given) -> Tensor:
                told = {} if data.first is None else {"first": data.first, "first_given": given}
                return model(x, t, data.text, data.masks, drop, **told)

            with precision(recipe, device):
                loss = training_loss(predict, process, data.latent, noise, time)
            (loss * share).backward()
            loss_of_all = loss_of_all + loss.detach() * share
            words = words + sum(mask.sum() for mask in data.masks.values()) / len(samples)
        return {"loss": loss_of_all, "text_tokens": words}

    return backward


def _first_given(recipe: TrainRecipe, stage: int, batch: Batch, part: slice, device: torch.device) -> Tensor:
    """[n] bool: which clips of this pass are told their first frame, drawn from (seed, stage, step, place)."""
    draws = [unit(recipe.seed, FIRST_SEED, stage, batch.step, place) for place in batch.places[part]]
    return to_device(torch.tensor(draws) < recipe.first_frame, device)


def dit_validation(recipe: TrainRecipe, model: DiT, inputs: MakeInputs, process: Process) -> Callable[[Batch], Tensor]:
    """Loss of a batch of one clip at fixed draws of noise and time, with its text."""
    draws = recipe.data.validation_draws

    def check(batch: Batch) -> Tensor:
        one = inputs(batch.samples, batch.images)
        data = one.latent.expand(draws, -1, -1, -1, -1)
        maker = generator(recipe.seed, VALIDATION_SEED, batch.step)
        noise = torch.randn(data.shape, generator=maker).to(data.device)
        time = process.sample_time(draws, maker).to(data.device)
        text = {name: value.expand(draws, -1, -1) for name, value in one.text.items()}
        masks = {name: value.expand(draws, -1) for name, value in one.masks.items()}
        told = {} if one.first is None else {"first": one.first.expand(draws, -1, -1, -1, -1)}
        with precision(recipe, data.device):
            return training_loss(lambda x, t: model(x, t, text, masks, **told), process, data, noise, time)

    return check
