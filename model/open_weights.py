"""Open weights as parts of this trainer, by diffusers: a frozen video autoencoder, a transformer to fine-tune.

    rushes encode RUN --tae diffusers:PATH ...           latents of an open autoencoder
    open_transformer: PATH, lora: {rank: 16} (recipe)    LoRA on an open transformer over those latents

PATH is a local folder in diffusers' layout or a hub id; `PATH/vae` and `PATH/transformer` are found by themselves.
What is unusual:
- Their convolutions are causal: the first frame has a latent of its own, and T frames make 1 + ceil((T - 1) / f). A
  video of another length is filled up with its last frame; what was filled up is dropped after decoding.
- They tile and cut long videos themselves; ours (model/tiling.py) would break what they carry from frame to frame.
- Latents are given to the transformer as it was trained on them: normalised by the published statistics.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
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
STEPS = 1000.0  # that open flow-matching transformers count noise levels in
LTX_PLACES = (8 / 25, 32, 32)  # seconds, rows and columns of pixels between latents, as its pipeline has them
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
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
    folder, name = _described(where, "vae", AUTOENCODERS)
    return OpenTAE(_load(name, where, folder)).eval().requires_grad_(False).to(device)


def _ask_wan(model: nn.Module, x: Tensor, level: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """Its pipeline shows it text that is filled up with zeros, and no mask."""
    return model(hidden_states=x, timestep=level, encoder_hidden_states=text, return_dict=False)[0]


def _ask_ltx(model: nn.Module, x: Tensor, level: Tensor, text: Tensor, mask: Tensor) -> Tensor:
    """Tokens are a latent each, and know their places in seconds and pixels."""
    frames, high, wide = x.shape[2:]
    answer = model(
        hidden_states=x.flatten(2).transpose(1, 2), timestep=level, encoder_hidden_states=text,
        encoder_attention_mask=mask, num_frames=frames, height=high, width=wide, rope_interpolation_scale=LTX_PLACES,
        return_dict=False,
    )[0]  # fmt: skip
    return answer.transpose(1, 2).unflatten(2, (frames, high, wide))


@dataclass(frozen=True)
class Kind:
    """ask(model, x [B, C, T, H, W], noise level [B], text, mask) -> like x; text_key: of the text features' width."""

    ask: Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]
    text_key: str


TRANSFORMERS = {
    "WanTransformer3DModel": Kind(_ask_wan, "text_dim"),
    "LTXVideoTransformer3DModel": Kind(_ask_ltx, "caption_channels"),
}


class OpenDiT(nn.Module):
    """A diffusers flow-matching transformer with the DiT's interface; what is trained of it is its LoRA.

    Theirs answer noise - data at noise level s (s = 1 is noise); ours data - noise at t = 1 - s: the same path walked
    the other way, so that recipes, samplers and losses fit both. Its `state_dict` is the adapter alone.
    """

    def __init__(self, transformer: nn.Module, rank: int, alpha: float, targets: tuple[str, ...] = LORA_TARGETS):
        super().__init__()
        peft = _needs("peft")
        self.kind = TRANSFORMERS[type(transformer).__name__]
        self.text_width: int | None = transformer.config.get(self.kind.text_key)
        options = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=True)
        transformer.requires_grad_(False)
        self.transformer = peft.get_peft_model(transformer, options)

    def forward(
        self, x: Tensor, t: Tensor, text: dict[str, Tensor], masks: dict[str, Tensor], drop: Tensor | None = None
    ) -> Tensor:
        """x [B, C, T, H, W] in normalised latents; t [B] in [0, 1]; one text encoder. -> velocity, like x."""
        (name,) = text
        seen = text[name] * masks[name][..., None]
        if drop is not None:
            seen = seen * ~drop[:, None, None]
        noise_level = (1 - t) * STEPS
        return -self.kind.ask(self.transformer, x, noise_level, seen.to(x.dtype), masks[name])

    def state_dict(self, *arguments: Any, **options: Any) -> dict[str, Tensor]:
        """The adapter: what is trained and nothing else."""
        learned = {name for name, p in self.named_parameters() if p.requires_grad}
        return {name: value for name, value in super().state_dict(*arguments, **options).items() if name in learned}

    def load_state_dict(self, state: dict[str, Tensor], strict: bool = True, assign: bool = False) -> Any:
        """The inverse of `state_dict`."""
        return super().load_state_dict(state, strict=False, assign=assign)

    def save_adapter(self, folder: str | Path) -> None:
        """In peft's layout, which diffusers' `load_lora_adapter` and peft read."""
        self.transformer.save_pretrained(str(folder))


def load_open_dit(where: str, rank: int, alpha: float, device: torch.device | str = "cpu") -> OpenDiT:
    """The transformer at `where` with fresh adapters, which change nothing yet. Raises CheckpointError."""
    folder, name = _described(where, "transformer", TRANSFORMERS)
    return OpenDiT(_load(name, where, folder), rank, alpha).to(device)


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


def _described(where: str, part: str, known: Any) -> tuple[str | None, str]:
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
        folder, name = part, _remote_class(where, part)
    if name not in known:
        raise CheckpointError(f"{where} is a {name}; what is read as {part}: {', '.join(known)}.")
    return folder, name


def _remote_class(where: str, part: str) -> str:
    hub = _needs("huggingface_hub")
    try:
        path = hub.hf_hub_download(where, f"{part}/config.json")
    except Exception as error:
        raise CheckpointError(
            f"There is no folder '{where}', and no model of that name on the hub: {_brief(error)}"
        ) from error
    return json.loads(Path(path).read_text(encoding="utf-8")).get("_class_name")


def _load(name: str, where: str, folder: str | None) -> nn.Module:
    diffusers = _needs("diffusers")
    try:
        return getattr(diffusers, name).from_pretrained(where, subfolder=folder)
    except (OSError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{name} at {where} cannot be loaded: {_brief(error)}") from error


def _needs(module: str) -> Any:
    try:
        return imported(module)
    except ImportError as error:
        raise CheckpointError(
            f"Open weights need {module}, which is not installed: pip install 'rushes[open]'"
        ) from error


def _brief(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
