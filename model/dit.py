"""The video transformer (Movie Gen sec 3.1.3): noisy latents [B, 16, T, H, W] and text in, a velocity out.

What is unusual:
- LLaMa3's block, with bidirectional attention: RMSNorm, SwiGLU, no biases in the block, no grouped queries. Between
  self-attention and feed-forward stands cross-attention to the text. No QK-norm by default (no source mentions one).
- Positions are learned, one table each for t, h and w, summed, and added to the input of every layer (sec 3.1.3). A
  grid inside the tables takes their first rows; a longer side stretches the table linearly.
  `stretch` grows the tables between training stages.
- Adaptive layer norm from one modulation network shared by all layers, plus a small table per layer (6 x dim). A
  modulation matrix per layer would add 6 dim^2 each: 10.9 B parameters at 30b, whose published size has no room.
- Everything that joins the residual stream starts at zero: gates, the cross-attention's output, the last layer. The
  untrained network answers 0.
- Text features of several encoders are projected here, so one module holds all that is trained.
- The model knows nothing of a cluster. What parallelism needs to hold is in plain sight: `blocks` (a ModuleList),
  separate `q`, `k`, `v`, `o` and `gate`, `up`, `down` projections, heads counted from the width at hand, `attend`
  (a module that context parallelism replaces) and `shard_tokens` / `gather_tokens` (identities around the blocks).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushes.model.tae_config import SPACE_FACTOR, latent_frames
from rushes.model.text import TextProjector

TIME_FREQUENCIES = 256  # width of the sinusoidal time embedding (Peebles 2023)
TIME_SCALE = 1000.0  # t in [0, 1] is spread over DDPM's 1000 steps, for which the frequencies were chosen
TIME_PERIOD = 10_000.0
TRAIN_FLOPS = 3  # times the forward pass: once forward, twice backward
MODULATIONS = 6  # shift, scale, gate for self-attention and for feed-forward
INIT_STD = 0.02  # LLaMa's and GPT's
NORM_EPS = 1e-5  # LLaMa3's

UL2_WIDTH, METACLIP_WIDTH, BYT5_WIDTH = 4096, 1280, 1472
PAPER_TEXT = {"ul2": UL2_WIDTH, "byt5": BYT5_WIDTH, "clip": METACLIP_WIDTH}  # sec 3.1.3; widths of the public models


@dataclass(frozen=True)
class DiTConfig:
    """Shape of the transformer. `DIT_SIZES` names the ones in use."""

    layers: int = 4
    dim: int = 256  # width of the residual stream
    ffn: int = 768  # hidden width of SwiGLU
    heads: int = 4
    latent_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)  # latent frames, rows, columns per token
    grid: tuple[int, int, int] = (32, 64, 64)  # tokens (t, h, w) that the position tables hold: 16 s, 1024 px
    text_widths: dict[str, int] = field(default_factory=lambda: dict(PAPER_TEXT))  # encoder name -> feature width
    qk_norm: bool = False
    first_frame: bool = False  # image to video: the first frame's latent is told beside the noisy one

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"a width of {self.dim} does not divide into {self.heads} heads")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def patch_width(self) -> int:
        """Numbers in one token's patch: channels x 1 x 2 x 2 = 64."""
        return self.latent_channels * math.prod(self.patch)


# 30b: sec 3.1.3. 5b and 1b: public re-implementations of the same design; the paper prints no such sizes.
DIT_SIZES: dict[str, DiTConfig] = {
    "tiny": DiTConfig(layers=4, dim=256, ffn=768, heads=4, grid=(32, 16, 16)),
    "1b": DiTConfig(layers=24, dim=1536, ffn=4096, heads=16),
    "5b": DiTConfig(layers=32, dim=3072, ffn=8192, heads=24),
    "30b": DiTConfig(layers=48, dim=6144, ffn=16384, heads=48),
}


# ---- layers: x is [B, N, dim], N tokens ----------------------------------------------------------------------------


class ScaledDotProduct(nn.Module):
    """softmax(q k^T / sqrt(d)) v. q [B, heads, N, d]; k, v [B, heads, M, d]; mask [B, 1, 1, M], true = look."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Attention(nn.Module):
    """Attention from `x` to `source` (to itself where there is none), all heads of their own keys and values."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.head_dim = config.head_dim
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(4))
        self.q_norm = nn.RMSNorm(config.head_dim, eps=NORM_EPS) if config.qk_norm else None
        self.k_norm = nn.RMSNorm(config.head_dim, eps=NORM_EPS) if config.qk_norm else None
        self.attend = ScaledDotProduct()

    def forward(self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        source = x if source is None else source
        q, k, v = self.q(x), self.k(source), self.v(source)
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in (q, k, v))  # [B, heads, N, d]
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        out = self.attend(q, k, v, mask)
        return self.o(out.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, config: DiTConfig):
        super().__init__()
        self.gate = nn.Linear(config.dim, config.ffn, bias=False)
        self.up = nn.Linear(config.dim, config.ffn, bias=False)
        self.down = nn.Linear(config.ffn, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """x + positions -> self-attention -> cross-attention to the text -> feed-forward."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        # The modulation scales after the first and the last norm, so only the middle one has a weight of its own.
        self.self_norm = nn.RMSNorm(config.dim, eps=NORM_EPS, elementwise_affine=False)
        self.self_attention = Attention(config)
        self.cross_norm = nn.RMSNorm(config.dim, eps=NORM_EPS)
        self.cross_attention = Attention(config)
        self.ffn_norm = nn.RMSNorm(config.dim, eps=NORM_EPS, elementwise_affine=False)
        self.ffn = SwiGLU(config)
        self.modulation = nn.Parameter(torch.empty(MODULATIONS, config.dim))
        self.for_tokens = nn.Identity()  # where tokens are split over ranks, it sums the modulation's gradient

    def forward(
        self, x: Tensor, positions: Tensor, time: Tensor, text: Tensor, text_mask: Tensor | None = None
    ) -> Tensor:
        """x [B, N, dim]; positions [1, N, dim]; time [B, 6, dim]; text [B, L, dim]; text_mask [B, 1, 1, L] bool."""
        changes = self.for_tokens(self.modulation + time).to(x.dtype).unsqueeze(2).unbind(1)  # six of [B, 1, dim]
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = changes
        x = x + positions
        # Norms answer in float32 under CUDA's autocast: back to half precision once, not once in each projection.
        y = (self.self_norm(x) * (1 + scale_a) + shift_a).to(x.dtype)
        x = x + gate_a * self.self_attention(y)
        x = x + self.cross_attention(self.cross_norm(x).to(x.dtype), text, text_mask)
        y = (self.ffn_norm(x) * (1 + scale_f) + shift_f).to(x.dtype)
        return x + gate_f * self.ffn(y)


class TimeEmbedding(nn.Module):
    """t [B] in [0, 1] -> [B, dim]: sinusoids, then two linear layers (Peebles 2023)."""

    def __init__(self, dim: int):
        super().__init__()
        self.first = nn.Linear(TIME_FREQUENCIES, dim)
        self.second = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        half = TIME_FREQUENCIES // 2
        ramp = torch.arange(half, device=t.device, dtype=torch.float32) / half
        angles = t.float()[:, None] * TIME_SCALE * torch.exp(-math.log(TIME_PERIOD) * ramp)
        waves = torch.cat([angles.cos(), angles.sin()], dim=1).to(self.first.weight.dtype)
        return self.second(F.silu(self.first(waves)))


class Positions(nn.Module):
    """Factorised learned positions: tables for t, h, w, each [length, dim], summed over a grid of tokens."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.t, self.h, self.w = (nn.Parameter(torch.empty(n, config.dim)) for n in config.grid)

    def forward(self, grid: tuple[int, int, int]) -> Tensor:
        """(t, h, w) tokens -> [1, t*h*w, dim], the last side running fastest."""
        t, h, w = (_rows(table, n) for table, n in zip((self.t, self.h, self.w), grid))
        total = t[:, None, None] + h[None, :, None] + w[None, None, :]  # [t, h, w, dim]
        return total.flatten(0, 2).unsqueeze(0)


def _rows(table: Tensor, length: int) -> Tensor:
    """The first `length` rows; beyond the table's end, the whole table stretched to `length`."""
    return table[:length] if length <= len(table) else stretch(table, length)


def stretch(table: Tensor, length: int) -> Tensor:
    """[n, dim] -> [length, dim], linear between rows; row i covers the span [i, i + 1) / n of the side before and
    after, so a picture of twice the size keeps its positions. A table of one row is repeated.

    Between stages (sec 3.1.5) height and width grow x2 at the first joint stage and x3 at 768 px; a table of one frame
    becomes 32 equal rows.
    """
    # In float32: half precision has no linear interpolation on every device.
    rows = F.interpolate(table.float().T.unsqueeze(0), size=length, mode="linear", align_corners=False)
    return rows.squeeze(0).T.to(table.dtype)


# ---- the model -----------------------------------------------------------------------------------------------------


class DiT(nn.Module):
    """See the module. `with torch.device("meta")`, `to_empty`, then `init_weights` builds a sharded one."""

    def __init__(self, config: DiTConfig | None = None):
        super().__init__()
        self.config = config = DIT_SIZES["tiny"] if config is None else config
        dim = config.dim
        # A convolution whose kernel is its stride is a linear layer on patches.
        self.patch = nn.Linear(config.patch_width, dim)
        told = (config.latent_channels + 1) * math.prod(config.patch)  # a latent, and whether it is there
        self.first = nn.Linear(told, dim, bias=False) if config.first_frame else None
        self.positions = Positions(config)
        self.text = TextProjector(config.text_widths, dim)
        self.time = TimeEmbedding(dim)
        self.modulation = nn.Linear(dim, MODULATIONS * dim)
        self.shard_tokens = nn.Identity()  # of [B, N, dim] and [1, N, dim]: context parallelism keeps its share of N
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.layers)])
        self.gather_tokens = nn.Identity()
        self.final_norm = nn.RMSNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.final_modulation = nn.Parameter(torch.empty(2, dim))
        self.final = nn.Linear(dim, config.patch_width)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self, seed: int | None = None, fill: Callable[[Tensor, Tensor], object] = Tensor.copy_) -> None:
        """Normal(0, 0.02), and zero where a branch joins the residual stream; nothing on the meta device.

        A weight depends on (seed, its name) and the kind of device; one is made at a time, and `fill(parameter,
        whole)` puts it in its place: a sharded model takes a part. seed: None draws one from the global generator.
        """
        if self.final.weight.is_meta:
            return
        seed = int(torch.randint(1 << 62, ())) if seed is None else seed
        branches = ("first.weight", "modulation.weight", "cross_attention.o.weight", "final.weight")
        for name, parameter in self.named_parameters():
            whole = torch.zeros(parameter.shape, dtype=parameter.dtype, device=parameter.device)
            if name.endswith("norm.weight") or (name.startswith("text.norms") and name.endswith("weight")):
                whole.fill_(1.0)
            elif not name.endswith(("bias", "modulation", *branches)):
                digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
                maker = torch.Generator(parameter.device).manual_seed(int.from_bytes(digest[:8]) >> 1)
                whole.normal_(std=INIT_STD, generator=maker)
            fill(parameter, whole)

    def forward(
        self,
        latent: Tensor,
        t: Tensor,
        text: dict[str, Tensor],
        text_mask: dict[str, Tensor],
        drop_text: Tensor | None = None,
        first: Tensor | None = None,
        first_given: Tensor | None = None,
    ) -> Tensor:
        """The velocity at (latent, t).

        latent: [B, C, T, H, W], H and W multiples of 2; an image has T = 1. t: [B] in [0, 1], 0 = noise.
        text: encoder name -> features [B, L, width]; text_mask: name -> [B, L] bool, true = a real token.
        drop_text: [B] bool, true = answer without the text (classifier-free guidance).
        first: [B, C, 1, H, W], the latent of the first frame alone (options.first_frame); first_given: [B] bool, false:
        this clip is answered without it; None: all have it.
        Returns [B, C, T, H, W]. Raises ValueError on another shape.
        """
        grid = token_grid(self.config, latent.shape)
        x = self.patch(patchify(latent, self.config.patch))  # [B, N, dim]
        if first is not None:
            x = x + self.first(patchify(_told(first, first_given, latent), self.config.patch)).to(x.dtype)
        positions = self.positions(grid).to(x.dtype)  # [1, N, dim]
        context, mask = self.text(text, text_mask, drop_text)  # [B, L, dim], [B, L]
        context, mask = context.to(x.dtype), mask[:, None, None, :]
        time = self.time(t)  # [B, dim]
        changes = self.modulation(F.silu(time)).unflatten(-1, (MODULATIONS, -1))  # [B, 6, dim]

        x, positions = self.shard_tokens(x), self.shard_tokens(positions)
        for block in self.blocks:
            x = block(x, positions, changes, context, mask)
        x = self.gather_tokens(x)

        shift, scale = (self.final_modulation + time.unsqueeze(1)).to(x.dtype).unsqueeze(2).unbind(1)
        x = self.final(self.final_norm(x) * (1 + scale) + shift)  # [B, N, C*1*2*2]
        return unpatchify(x, grid, self.config)


def _told(first: Tensor, given: Tensor | None, latent: Tensor) -> Tensor:
    """[B, C + 1, T, H, W]: the first frame's latent at t = 0, zeros behind it; the last channel says where it is."""
    mask = torch.ones_like(first[:, :1])
    known = torch.cat([first, mask], 1).to(latent.dtype)
    known = known if given is None else known * given.view(-1, 1, 1, 1, 1)
    return F.pad(known, (0, 0, 0, 0, 0, latent.shape[2] - 1))


def patchify(latent: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """[B, C, T, H, W] -> [B, N, C*pt*ph*pw], tokens in the order t, h, w."""
    b, c, t, h, w = latent.shape
    pt, ph, pw = patch
    x = latent.reshape(b, c, t // pt, pt, h // ph, ph, w // pw, pw)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, -1, c * pt * ph * pw)


def unpatchify(x: Tensor, grid: tuple[int, int, int], config: DiTConfig) -> Tensor:
    """The inverse of `patchify`: [B, N, C*pt*ph*pw] -> [B, C, T, H, W]."""
    t, h, w = grid
    pt, ph, pw = config.patch
    x = x.reshape(len(x), t, h, w, config.latent_channels, pt, ph, pw).permute(0, 4, 1, 5, 2, 6, 3, 7)
    return x.reshape(len(x), config.latent_channels, t * pt, h * ph, w * pw)


def token_grid(config: DiTConfig, latent_shape: Sequence[int]) -> tuple[int, int, int]:
    """Tokens (t, h, w) of a latent [B, C, T, H, W]. Raises ValueError where the shape does not fit."""
    if len(latent_shape) != 5 or latent_shape[1] != config.latent_channels:
        raise ValueError(f"the DiT takes [B, {config.latent_channels}, T, H, W], not {list(latent_shape)}")
    sides = latent_shape[2:]
    if any(side % patch for side, patch in zip(sides, config.patch)):
        raise ValueError(f"a latent of {list(sides)} does not divide into patches of {list(config.patch)}")
    t, h, w = (side // patch for side, patch in zip(sides, config.patch))
    return t, h, w


# ---- sizes and costs -----------------------------------------------------------------------------------------------


def token_count(config: DiTConfig, frames: int, height: int, width: int) -> int:
    """Tokens of a video of `frames` frames of height x width pixels. 256 frames at 768 px: 73,728 (sec 3.1.3)."""
    shape = (1, config.latent_channels, latent_frames(frames), height // SPACE_FACTOR, width // SPACE_FACTOR)
    return math.prod(token_grid(config, shape))


def parameter_count(config: DiTConfig) -> int:
    """Trainable numbers, text projections included, text encoders not. Nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in DiT(config).parameters())


def train_flops(config: DiTConfig, tokens: int, text_tokens: float) -> float:
    """FLOPs of the model for one sample's training step: the forward pass and twice that for the backward.

    What is computed again (activations, attention's scores in its backward pass) and padding are not counted: the log's
    and the benchmark's MFU are this over time and peak.
    """
    return TRAIN_FLOPS * forward_flops(config, tokens, text_tokens)


def forward_flops(config: DiTConfig, tokens: int, text_tokens: float) -> float:
    """Multiply-adds x 2 of one sample's forward pass, matrix products alone.

    text_tokens: real ones of all encoders together, the null token not counted. Their projections, done once for all
    layers, are left out (under 0.1 %).
    """
    d, source = config.dim, text_tokens + 1
    projections = tokens * (4 * d * d + 2 * d * d + 3 * d * config.ffn) + source * 2 * d * d
    attention = 2 * tokens * tokens * d + 2 * tokens * source * d
    ends = tokens * 2 * d * config.patch_width
    once = TIME_FREQUENCIES * d + d * d + MODULATIONS * d * d
    return 2 * (config.layers * (projections + attention) + ends + once)
