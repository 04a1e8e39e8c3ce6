"""Open weights by diffusers: a frozen video autoencoder with the interface of ours.

    rushes encode RUN --tae diffusers:PATH ...           latents of an open autoencoder

PATH is a local folder in diffusers' layout or a hub id; `PATH/vae` is found by itself, as is what
model/open_transformers.py reads. What is unusual:
- Their convolutions are causal: the first frame has a latent of its own, and T frames make 1 + ceil((T - 1) / f). A
  video of another length is filled up with its last frame; what was filled up is dropped after decoding.
- They tile and cut long videos themselves; ours (model/tiling.py) would break what they carry from frame to frame.
- Latents are given to the transformer as it was trained on them: normalised by the published statistics.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rushes.curation.looking.torchvision_schemas import imported
from rushes.model.checkpoint import CheckpointError
from rushes.model.tae import Posterior

PREFIX = "diffusers:"
AUTOENCODERS = (
    "AutoencoderKLWan", "AutoencoderKLHunyuanVideo", "AutoencoderKLLTXVideo", "AutoencoderKLCogVideoX",
)  # fmt: skip
PROBE_FRAMES, PROBE_SIDE = 17, 64  # a video whose latents tell the factors in time and space
STD_FLOOR = 1e-6


@dataclass(frozen=True)
class OpenConfig:
    """What the trainer asks of an autoencoder's configuration."""

    latent_channels: int
    video_channels: int = 3
    volume: bool = True


class OpenTAE(nn.Module):
    """A diffusers video autoencoder with the TAE's interface; frozen. Raises CheckpointError where it cannot be had."""

    own_tiles = True

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        config = vae.config
        with torch.no_grad():  # measured: the classes have no common name for them
            video = torch.zeros(1, config.get("in_channels") or 3, PROBE_FRAMES, PROBE_SIDE, PROBE_SIDE)
            probe = vae.encode(video.to(vae.dtype)).latent_dist.mean
        channels = probe.shape[1]
        self.time_factor, self.space_factor = (PROBE_FRAMES - 1) // (probe.shape[2] - 1), PROBE_SIDE // probe.shape[3]
        self.config = OpenConfig(channels)
        mean, std = _statistics(vae, channels)
        self.register_buffer("latent_mean", mean)
        self.register_buffer("latent_std", std)
        for tiles in ("enable_tiling", "enable_slicing"):
            with contextlib.suppress(AttributeError, NotImplementedError):
                getattr(vae, tiles)()

    def latent_frames(self, frames: int) -> int:
        """1 + ceil((frames - 1) / factor)."""
        return 1 + -(-(frames - 1) // self.time_factor)

    def encode(self, video: Tensor) -> Posterior:
        """[B, 3, T, H, W] in [-1, 1], sides multiples of the factor -> Posterior of [B, C, T', H', W']."""
        if video.shape[3] % self.space_factor or video.shape[4] % self.space_factor:
            raise ValueError(f"height and width must be multiples of {self.space_factor}, not {list(video.shape[3:])}")
        short = 1 + (self.latent_frames(video.shape[2]) - 1) * self.time_factor - video.shape[2]
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, short, -1, -1)], 2)
        found = self.vae.encode(video.to(self.vae.dtype)).latent_dist
        logvar = getattr(found, "logvar", torch.zeros_like(found.mean))
        return Posterior(found.mean, logvar.expand_as(found.mean))

    def decode(self, latent: Tensor, frames: int | None = None) -> Tensor:
        """[B, C, T', H', W'] -> [B, 3, frames, H, W], about [-1, 1]."""
        made = self.vae.decode(latent.to(self.vae.dtype), return_dict=False)[0].float()
        return made if frames is None else made[:, :, :frames]

    def forward(self, video: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior, Tensor]:
        posterior = self.encode(video)
        latent = posterior.mean if noise is None else posterior.sample(noise)
        return self.decode(latent, video.shape[2]), posterior, latent

    def normalize(self, latent: Tensor) -> Tensor:
        """[B, C, ...] -> as the open transformer was trained on it."""
        shape = (1, -1, *[1] * (latent.ndim - 2))
        return (latent - self.latent_mean.view(shape)) / self.latent_std.view(shape)

    def denormalize(self, latent: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        shape = (1, -1, *[1] * (latent.ndim - 2))
        return latent * self.latent_std.view(shape) + self.latent_mean.view(shape)

    def forget_network(self) -> None:
        """Only the statistics are kept."""
        del self.vae


def load_open_tae(where: str, device: torch.device | str = "cpu") -> OpenTAE:
    """The autoencoder at `where` (without the prefix). Raises CheckpointError."""
    folder, name = described(where, "vae", AUTOENCODERS)
    return OpenTAE(load_model(name, where, folder)).eval().requires_grad_(False).to(device)


def _statistics(vae: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel that the latents are normalised by: (z - mean) / std."""
    config = vae.config
    if config.get("latents_mean") is not None:
        mean, std = (torch.tensor(config[f"latents_{what}"], dtype=torch.float32) for what in ("mean", "std"))
    elif "latents_mean" in (buffers := dict(vae.named_buffers())):  # LTX
        mean, std = (buffers[f"latents_{what}"].float().cpu() for what in ("mean", "std"))
    else:
        mean, std = torch.zeros(channels), torch.ones(channels)
        mean += config.get("shift_factor") or 0.0
    scale = config.get("scaling_factor") or 1.0
    return mean.clone(), (std / scale).clamp(min=STD_FLOOR)


def described(where: str, part: str, known: Any) -> tuple[str | None, str]:
    """(subfolder, class) of a model in diffusers' layout."""
    local = Path(where)
    if local.is_dir():
        for folder in (None, part):
            config = local / (folder or "") / "config.json"
            if config.is_file():
                name = json.loads(config.read_text(encoding="utf-8")).get("_class_name")
                break
        else:
            raise CheckpointError(f"{where} holds no config.json, and no {part}/config.json: name a diffusers folder.")
    else:
        folder, name = part, downloaded(where, f"{part}/config.json").get("_class_name")
    if name not in known:
        raise CheckpointError(f"{where} is a {name}; what is read as {part}: {', '.join(known)}.")
    return folder, name


def downloaded(where: str, name: str) -> dict[str, Any]:
    """A configuration on the hub. Raises CheckpointError."""
    hub = needs("huggingface_hub")
    try:
        path = hub.hf_hub_download(where, name)
    except Exception as error:
        raise CheckpointError(
            f"There is no folder '{where}', and no model of that name with {name} on the hub: {_brief(error)}"
        ) from error
    return json.loads(Path(path).read_text(encoding="utf-8"))


def load_model(name: str, where: str, folder: str | None) -> nn.Module:
    """A diffusers class from its weights. Raises CheckpointError."""
    diffusers = needs("diffusers")
    try:
        return getattr(diffusers, name).from_pretrained(where, subfolder=folder)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{name} at {where} cannot be loaded: {_brief(error)}") from error


def needs(module: str) -> Any:
    """A library of the extra `open`. Raises CheckpointError where it is missing."""
    try:
        return imported(module)
    except ImportError as error:
        raise CheckpointError(
            f"Open weights need {module}, which is not installed: pip install 'rushes[open]'"
        ) from error


def _brief(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
