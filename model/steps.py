"""What one training step computes: a batch in, gradients of the global batch's mean loss left in the model.

All chance (noise, time, dropped text) is drawn per clip from (seed, stage, step, place in the global batch): any
number of ranks and any micro-batch sees the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rushes.model.data import Batch, Clip, Sample, mix
from rushes.model.dit import DiT
from rushes.model.flow import Process, training_loss
from rushes.model.losses import Discriminator, TAELossConfig, hinge_discriminator_loss, tae_loss
from rushes.model.parallel import average_gradients, mean_over_ranks, synchronize_gradients
from rushes.model.tae import SPACE_FACTOR, TAE, latent_frames
from rushes.model.text import TextEncoders, prompt
from rushes.model.tiling import encode_tiled
from rushes.model.train_recipe import Stage, TrainRecipe

if TYPE_CHECKING:
    from rushes.model.latents import EncodedSample

GREY = 127.5  # uint8 to [-1, 1]
LATENT_MOMENTUM = 0.01  # of the running statistics of the latents, per step
VARIANCE_FLOOR = 1e-12  # under the square root of a channel's variance
SEED_BITS = (1 << 63) - 1  # of a torch generator
VALIDATION_SEED, NOISE_SEED = 101, 102  # keep apart what is drawn for what

Backward = Callable[[Batch, int], dict[str, Tensor]]


def to_video(frames: Any, device: torch.device | str) -> Tensor:
    """uint8 [B, T, H, W, 3] (numpy) -> float32 [B, 3, T, H, W] in [-1, 1] on the device."""
    video = torch.from_numpy(frames).to(device, non_blocking=True)
    return video.permute(0, 4, 1, 2, 3).float().div_(GREY).sub_(1.0)


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on `numbers` alone."""
    return torch.Generator().manual_seed(mix(*numbers) & SEED_BITS)


def micro_batches(batch: Batch, size: int) -> list[tuple[tuple[int, ...], tuple[Sample, ...]]]:
    """(places in the global batch, samples) of each forward pass, all of the same size."""
    starts = range(0, len(batch.samples), size)
    return [(batch.places[i : i + size], batch.samples[i : i + size]) for i in starts]


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
    """The function that leaves in `model` (and the discriminator) the gradients of a global batch's mean loss."""
    device, number_of = model.latent_mean.device, recipe.stages.index(stage)

    def backward(batch: Batch, step: int) -> dict[str, Tensor]:
        parts = micro_batches(batch, stage.micro_batch)
        totals: dict[str, Tensor] = {}
        moments = torch.zeros(2, model.config.latent_channels, device=device)
        for places, samples in parts:
            video = to_video(Batch(step, batch.shape, places, samples).frames, device)
            shape = (
                model.config.latent_channels,
                latent_frames(video.shape[2]),
                *(n // SPACE_FACTOR for n in video.shape[3:]),
            )
            noise = torch.stack(
                [torch.randn(shape, generator=generator(recipe.seed, NOISE_SEED, number_of, step, p)) for p in places]
            )
            with precision(recipe, device):
                made, posterior, latent = model(video, noise.to(device))
                if rival is not None:
                    rival.requires_grad_(False)
                loss, terms = tae_loss(
                    weights, video, made, posterior, latent, step, perceptual, rival, model.last_layer
                )  # fmt: skip
            (loss / len(parts)).backward()
            if rival is not None:
                rival.requires_grad_(True)
                if step >= weights.adversarial_start:
                    with precision(recipe, device):
                        rivalry = hinge_discriminator_loss(rival(video), rival(made.detach()))
                    (rivalry / len(parts)).backward()
                    terms["discriminator"] = rivalry.detach()
            mean = posterior.mean.detach().float()
            moments += torch.stack([mean.mean((0, 2, 3, 4)), mean.square().mean((0, 2, 3, 4))]) / len(parts)
            for name, value in {"loss": loss.detach(), **terms}.items():
                totals[name] = totals.get(name, 0.0) + value / len(parts)
        average_gradients(model)
        if rival is not None:
            average_gradients(rival)
            rival.adaptive.update()
        note_latents(model, mean_over_ranks(moments), step)
        return totals

    return backward


@torch.no_grad()
def note_latents(model: TAE, moments: Tensor, step: int) -> None:
    """Running mean and deviation per channel of the latents, in the model's buffers. moments: [2, C], E x and E x^2."""
    pace = max(LATENT_MOMENTUM, 1 / (step + 1))
    mean, square = model.latent_mean, model.latent_std.square() + model.latent_mean.square()
    square = torch.lerp(square, moments[1], pace)
    model.latent_mean.copy_(torch.lerp(mean, moments[0], pace))
    model.latent_std.copy_((square - model.latent_mean.square()).clamp(min=VARIANCE_FLOOR).sqrt())


# ---- the transformer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """What the transformer learns from: a normalised latent [B, C, T, H, W], and what it is told.

    text: encoder's name -> [B, L, width]; masks: name -> [B, L] bool, true where a token is real.
    """

    latent: Tensor
    text: dict[str, Tensor]
    masks: dict[str, Tensor]


MakeInputs = Callable[[Sequence[Sample], bool], Inputs]  # of samples; true: they are single frames


def inputs_from_videos(frozen: TAE, encoders: TextEncoders) -> MakeInputs:
    """Frames through the frozen autoencoder, prompts through the frozen text encoders, while the training goes."""
    device = frozen.latent_mean.device

    @torch.no_grad()
    def make(samples: Sequence[Sample], images: bool) -> Inputs:
        latent = torch.cat([latent_of(frozen, sample.frames) for sample in samples])
        features = encoders.encode(prompts_of(samples, images))
        text = {name: found.tokens.to(device) for name, found in features.items()}
        masks = {name: found.mask.to(device) for name, found in features.items()}
        return Inputs(frozen.normalize(latent), text, masks)

    return make


def inputs_from_latents(frozen: TAE) -> MakeInputs:
    """Latents and features that `rushes encode` stored; of the autoencoder the statistics alone are used."""
    device = frozen.latent_mean.device

    def make(samples: Sequence[EncodedSample], images: bool) -> Inputs:
        latent = torch.stack([sample.latent for sample in samples]).to(device).float()
        text, masks = {}, {}
        for name in samples[0].text:
            parts = [sample.text[name] for sample in samples]
            text[name] = pad_sequence(parts, batch_first=True).to(device).float()
            lengths = torch.tensor([len(part) for part in parts], device=device)
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
    number_of = recipe.stages.index(stage)

    def backward(batch: Batch, step: int) -> dict[str, Tensor]:
        parts = micro_batches(batch, stage.micro_batch)
        losses = []
        for number, (places, samples) in enumerate(parts):
            synchronize_gradients(model, number == len(parts) - 1)
            data = inputs(samples, batch.shape.frames == 1)
            shape, device = data.latent.shape[1:], data.latent.device
            makers = [generator(recipe.seed, NOISE_SEED, number_of, step, place) for place in places]
            noise = torch.stack([torch.randn(shape, generator=g) for g in makers]).to(device)
            time = torch.cat([process.sample_time(1, g) for g in makers]).to(device)
            drop = torch.cat([torch.rand(1, generator=g) < recipe.text.drop for g in makers]).to(device)

            def predict(x: Tensor, t: Tensor, data=data, drop=drop) -> Tensor:
                return model(x, t, data.text, data.masks, drop)

            with precision(recipe, device):
                loss = training_loss(predict, process, data.latent, noise, time)
            (loss / len(parts)).backward()
            losses.append(loss.detach())
        return {"loss": torch.stack(losses).mean()}

    return backward


def dit_validation(recipe: TrainRecipe, model: DiT, inputs: MakeInputs, process: Process) -> Callable[[Batch], Tensor]:
    """Loss of a batch of one clip at fixed draws of noise and time, with its text."""
    draws = recipe.data.validation_draws

    def check(batch: Batch) -> Tensor:
        one = inputs(batch.samples, batch.shape.frames == 1)
        data = one.latent.expand(draws, -1, -1, -1, -1)
        maker = generator(recipe.seed, VALIDATION_SEED, batch.step)
        noise = torch.randn(data.shape, generator=maker).to(data.device)
        time = process.sample_time(draws, maker).to(data.device)
        text = {name: value.expand(draws, -1, -1) for name, value in one.text.items()}
        masks = {name: value.expand(draws, -1) for name, value in one.masks.items()}
        with precision(recipe, data.device):
            return training_loss(lambda x, t: model(x, t, text, masks), process, data, noise, time)

    return check
