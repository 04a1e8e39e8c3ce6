"""Open video transformers to fine-tune by LoRA: Wan, LTX, HunyuanVideo, CogVideoX, as diffusers has them.

    open_transformer: PATH, lora: {rank: 16} (recipe)    LoRA on an open transformer over its autoencoder's latents

Each is asked as its own pipeline asks it. What is unusual:
- Theirs answer noise - data at noise level s (s = 1 is noise); ours data - noise at t = 1 - s: the same path walked the
  other way, so that recipes, samplers and losses fit both.
- CogVideoX is a diffusion: it answers v, as `VDiffusion` does, at the noise levels that its scheduler's file names.
- Text is filled up with zeros to the length that a model was trained at, where it has no mask for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushes.model.checkpoint import CheckpointError
from rushes.model.flow import FlowMatching, Process, VDiffusion
from rushes.model.open_weights import described, downloaded, load_model, needs

STEPS = 1000.0  # that open transformers count noise levels in
LTX_PLACES = (8 / 25, 32, 32)  # seconds, rows and columns of pixels between latents, as its pipeline has them
WAN_TOKENS = 512  # of text that its pipeline shows
HUNYUAN_GUIDANCE = 1.0  # told to models that were distilled with one: none is applied in training
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
SCHEDULER = "scheduler/scheduler_config.json"
KNOWN_LEVELS = {"beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


@dataclass(frozen=True)
class Text:
    """Of one encoder: features [B, L, width], mask [B, L] bool."""

    features: Tensor
    mask: Tensor

    def filled(self, length: int) -> Text:
        """Exactly so many tokens: zeros behind them, or cut."""
        more = length - self.features.shape[1]
        return Text(F.pad(self.features, (0, 0, 0, more)), F.pad(self.mask, (0, more)))


def _ask_wan(model: nn.Module, x: Tensor, level: Tensor, texts: Sequence[Text]) -> Tensor:
    """It has no mask for text."""
    text = texts[0].filled(WAN_TOKENS).features
    return model(hidden_states=x, timestep=level, encoder_hidden_states=text, return_dict=False)[0]


def _ask_ltx(model: nn.Module, x: Tensor, level: Tensor, texts: Sequence[Text]) -> Tensor:
    """Tokens are a latent each, and know their places in seconds and pixels."""
    frames, high, wide = x.shape[2:]
    answer = model(
        hidden_states=x.flatten(2).transpose(1, 2), timestep=level, encoder_hidden_states=texts[0].features,
        encoder_attention_mask=texts[0].mask, num_frames=frames, height=high, width=wide,
        rope_interpolation_scale=LTX_PLACES, return_dict=False,
    )[0]  # fmt: skip
    return answer.transpose(1, 2).unflatten(2, (frames, high, wide))


def _ask_hunyuan(model: nn.Module, x: Tensor, level: Tensor, texts: Sequence[Text]) -> Tensor:
    """Its second text is one feature: CLIP's at the end mark, the last token that is there."""
    text, second = texts[0].filled(max(1, texts[0].features.shape[1])), texts[1].filled(max(1, texts[1].mask.shape[1]))
    last = (second.mask.sum(1) - 1).clamp(min=0)
    mask = text.mask.clone()
    mask[:, 0] = True  # the mean of no token would not be a number
    guidance = torch.full_like(level, HUNYUAN_GUIDANCE * STEPS) if _config(model).guidance_embeds else None
    return model(
        hidden_states=x, timestep=level, encoder_hidden_states=text.features, encoder_attention_mask=mask,
        pooled_projections=second.features[torch.arange(len(last)), last], guidance=guidance, return_dict=False,
    )[0]  # fmt: skip


def _ask_cogvideox(model: nn.Module, x: Tensor, level: Tensor, texts: Sequence[Text]) -> Tensor:
    """Frames come before channels, and the least noise is level 0. Where tokens span several frames, the first one is
    repeated until they are full."""
    config = _config(model)
    text = texts[0].filled(config.max_text_seq_length).features
    short = -x.shape[2] % (config.patch_size_t or 1)
    frames = torch.cat([x[:, :, :1].expand(-1, -1, short, -1, -1), x], 2).transpose(1, 2)
    _, count, _, high, wide = frames.shape
    places = _rotary(config, count, high, wide, x.device)
    answer = model(
        hidden_states=frames, timestep=(level - 1).clamp(min=0), encoder_hidden_states=text, image_rotary_emb=places,
        return_dict=False,
    )[0]  # fmt: skip
    return answer.transpose(1, 2)[:, :, short:]


def _rotary(config: Any, frames: int, high: int, wide: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines of CogVideoX's tokens, as its pipeline makes them; None: it adds positions itself."""
    if not config.use_rotary_positional_embeddings:
        return None
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    side = config.patch_size
    grid, base = (high // side, wide // side), (config.sample_height // side, config.sample_width // side)
    if config.patch_size_t is not None:  # 1.5
        return get_3d_rotary_pos_embed(
            config.attention_head_dim, None, grid, frames // config.patch_size_t, grid_type="slice", max_size=base,
            device=device,
        )  # fmt: skip
    scale = min(base[0] / grid[0], base[1] / grid[1])  # the picture, as large as fits into the trained one
    size = [base[n] if base[n] / grid[n] == scale else round(scale * grid[n]) for n in (0, 1)]
    start = [round((base[n] - size[n]) / 2) for n in (0, 1)]
    corners = (tuple(start), (start[0] + size[0], start[1] + size[1]))
    return get_3d_rotary_pos_embed(config.attention_head_dim, corners, grid, frames, device=device)


@dataclass(frozen=True)
class Kind:
    """ask(model, x [B, C, T, H, W], noise level [B] in [0, 1000], texts) -> like x.

    text_keys: where its configuration has the widths of the text features that it reads, one for each encoder.
    """

    ask: Callable[[nn.Module, Tensor, Tensor, Sequence[Text]], Tensor]
    text_keys: tuple[str, ...]
    process: str = "flow"


TRANSFORMERS = {
    "WanTransformer3DModel": Kind(_ask_wan, ("text_dim",)),
    "LTXVideoTransformer3DModel": Kind(_ask_ltx, ("caption_channels",)),
    "HunyuanVideoTransformer3DModel": Kind(_ask_hunyuan, ("text_embed_dim", "pooled_projection_dim")),
    "CogVideoXTransformer3DModel": Kind(_ask_cogvideox, ("text_embed_dim",), "diffusion"),
}


class OpenDiT(nn.Module):
    """A diffusers transformer with the DiT's interface; what is trained of it is its LoRA.

    process: what it was trained by. text_widths: of the features of each encoder that it reads, None where any width
    fits. names: of these encoders, in this order; (): as they come. Its `state_dict` is the adapter alone.
    """

    names: tuple[str, ...] = ()

    def __init__(
        self, transformer: nn.Module, process: Process, rank: int, alpha: float, targets: tuple[str, ...] = LORA_TARGETS
    ):
        super().__init__()
        peft = needs("peft")
        self.kind, self.process = TRANSFORMERS[type(transformer).__name__], process
        self.channels: int = transformer.config.in_channels
        self.text_widths: list[int | None] = [transformer.config.get(key) for key in self.kind.text_keys]
        options = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), init_lora_weights=True)
        transformer.requires_grad_(False)
        self.transformer = peft.get_peft_model(transformer, options)

    def forward(
        self, x: Tensor, t: Tensor, text: dict[str, Tensor], masks: dict[str, Tensor], drop: Tensor | None = None
    ) -> Tensor:
        """x [B, C, T, H, W] in normalised latents; t [B] in [0, 1]; text of each encoder. -> the process's target."""
        texts = []
        for name in self.names or text:
            seen = text[name] * masks[name][..., None]
            if drop is not None:
                seen = seen * ~drop[:, None, None]
            texts.append(Text(seen.to(x.dtype), masks[name]))
        answer = self.kind.ask(self.transformer, x, (1 - t) * STEPS, texts)
        return -answer if self.kind.process == "flow" else answer

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
    folder, name = described(where, "transformer", TRANSFORMERS)
    process = FlowMatching() if TRANSFORMERS[name].process == "flow" else _diffusion(where)
    return OpenDiT(load_model(name, where, folder), process, rank, alpha).to(device)


def _diffusion(where: str) -> VDiffusion:
    """The noise levels that the scheduler's file names. Raises CheckpointError."""
    path = Path(where) / SCHEDULER
    if Path(where).is_dir() and not path.is_file():
        raise CheckpointError(
            f"{where} holds no {SCHEDULER}, which says what noise it was trained at: name a folder of the whole model."
        )
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else downloaded(where, SCHEDULER)
    if other := [f"{key} {told.get(key)}" for key, known in KNOWN_LEVELS.items() if told.get(key) != known]:
        raise CheckpointError(f"The scheduler of {where} has {', '.join(other)}; what is trained: {KNOWN_LEVELS}.")
    return VDiffusion(told["num_train_timesteps"], told["beta_start"], told["beta_end"], told["snr_shift_scale"])


def _config(model: nn.Module) -> Any:
    """Of the transformer within its adapter."""
    return model.get_base_model().config
