"""The layers of the temporal autoencoder (model/tae.py, which says what is unusual about them).

x is [B*T, C, H, W] in channels_last throughout, and `frames` is T.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rushes.model.tae_config import TAEConfig

NORM_EPS = 1e-6  # AutoencoderKL's
MAX_ATTENTION_BATCH = 65_535  # CUDA's limit on the grid's second axis, which SDPA kernels use for the batch


def by_time(x: Tensor, frames: int) -> Tensor:
    """[B*T, C, H, W] -> [B, T, H, W, C]: a view when x is channels_last."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n // frames, frames, h, w, c)


def fold(x: Tensor) -> Tensor:
    """[B, T, H, W, C] -> [B*T, C, H, W] in channels_last."""
    return x.flatten(0, 1).contiguous().permute(0, 3, 1, 2)


def _repeat_ends(x: Tensor) -> Tensor:
    """[B, T, ...] -> [B, T + 2, ...]: symmetric replicate padding in time."""
    return torch.cat([x[:, :1], x, x[:, -1:]], dim=1)


class TemporalConv(nn.Module):
    """k = 3 over time, replicate padding; starts as the identity (stride 2: every other frame).

    [B*T, C, H, W] -> [B*ceil(T / stride), C, H, W].
    """

    def __init__(self, channels: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, (3, 1), stride=(stride, 1))

    def forward(self, x: Tensor, frames: int) -> Tensor:
        h, w = x.shape[-2:]
        x = _repeat_ends(by_time(x, frames).flatten(2, 3))  # [B, T + 2, H*W, C]
        x = self.conv(x.permute(0, 3, 1, 2))  # [B, C, T', H*W]
        return fold(x.permute(0, 2, 3, 1).unflatten(2, (h, w)))

    def init_identity(self) -> None:
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, :, 1, 0].fill_diagonal_(1.0)
            self.conv.bias.zero_()


class SpaceTimeConv(nn.Module):
    """3x3 in space, then k = 3 in time (2.5D); or one 3x3x3 (`volume`). Stride 2 halves space only, the image way."""

    def __init__(self, cin: int, cout: int, volume: bool, stride: int = 1):
        super().__init__()
        # AutoencoderKL halves with one row and column of zeros at the far side only.
        self.pad = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        self.spatial = self.temporal = self.volume = None
        if volume:
            self.volume = nn.Conv3d(cin, cout, 3, stride=(1, stride, stride))
        else:
            inside = 1 if stride == 1 else 0
            self.spatial = nn.Conv2d(cin, cout, 3, stride=stride, padding=inside)
            self.temporal = TemporalConv(cout)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        if self.volume is not None:
            x = _repeat_ends(by_time(x, frames)).permute(0, 4, 1, 2, 3)  # [B, C, T + 2, H, W]
            return fold(self.volume(F.pad(x, self.pad)).permute(0, 2, 3, 4, 1))
        if self.spatial.stride == (2, 2):
            x = F.pad(x, self.pad)
        x = self.spatial(x.contiguous(memory_format=torch.channels_last))
        return self.temporal(x, frames)


class PointConv(nn.Conv2d):
    """1x1: sees no neighbour in space or time. [B*T, cin, H, W] -> [B*T, cout, H, W]."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(cin, cout, 1)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        return super().forward(x)


class GroupNorm(nn.GroupNorm):
    """Group norm over a frame that keeps type and channels_last.

    torch's CUDA kernel (2.13) answers in NCHW, and under autocast in float32: two transpositions and twice the memory
    around every convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":  # whose kernel keeps them
            return super().forward(x)
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """[N, C, H, W] in channels_last -> the same. Moments in float32, E x^2 - (E x)^2, without a copy of x in it."""
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).reshape(n, h * w, groups, c // groups)
    mean = y.mean((1, 3), keepdim=True, dtype=torch.float32)
    norm = torch.linalg.vector_norm(y, dim=(1, 3), keepdim=True, dtype=torch.float32)
    variance = (norm.square() / (h * w * c // groups) - mean.square()).clamp(min=0)
    scale = (variance + eps).rsqrt() * weight.view(groups, -1)  # [N, 1, groups, C / groups]
    out = torch.addcmul(bias.view(groups, -1) - mean * scale, y, scale).to(x.dtype)
    return out.reshape(n, h, w, c).permute(0, 3, 1, 2)


def normed(config: TAEConfig, channels: int) -> nn.Module:
    """[B*T, C, H, W] -> the same: the norm that the configuration asks for."""
    return GroupNorm(config.norm_groups, channels, eps=NORM_EPS) if config.norm_groups else nn.Identity()


def activate(norm: nn.Module, x: Tensor) -> Tensor:
    """SiLU of the norm, recomputed in the backward pass: of both, x alone is kept."""
    if torch.is_grad_enabled() and x.requires_grad:
        return checkpoint(lambda y: F.silu(norm(y)), x, use_reentrant=False, preserve_rng_state=False)
    return F.silu(norm(x))


class ResnetBlock(nn.Module):
    def __init__(self, config: TAEConfig, cin: int, cout: int):
        super().__init__()
        self.norm1 = normed(config, cin)
        self.conv1 = SpaceTimeConv(cin, cout, config.volume)
        self.norm2 = normed(config, cout)
        self.conv2 = SpaceTimeConv(cout, cout, config.volume)
        self.conv_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else None

    def forward(self, x: Tensor, frames: int) -> Tensor:
        y = self.conv1(activate(self.norm1, x), frames)
        y = self.conv2(activate(self.norm2, y), frames)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """[N, L, C] x3 -> [N, L, C]: one head, as in AutoencoderKL. Split where N is beyond what one kernel takes."""
    parts = zip(*(x.unsqueeze(1).split(MAX_ATTENTION_BATCH) for x in (q, k, v)))
    return torch.cat([F.scaled_dot_product_attention(*part) for part in parts]).squeeze(1)


class Attention(nn.Module):
    """Residual attention over "space" (within a frame), "time" (at one place) or "volume" (both)."""

    def __init__(self, config: TAEConfig, channels: int, over: str):
        super().__init__()
        self.over = over
        self.group_norm = normed(config, channels)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])  # a list for the name "to_out.0"

    def forward(self, x: Tensor, frames: int) -> Tensor:
        h, w = x.shape[-2:]
        y = by_time(self.group_norm(x), frames).flatten(2, 3)  # [B, T, H*W, C]
        if self.over == "time":
            y = y.transpose(1, 2)  # [B, H*W, T, C]
        tokens = y.flatten(1, 2) if self.over == "volume" else y.flatten(0, 1)  # [N, L, C]
        out = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        out = self.to_out[0](out).reshape(y.shape)
        if self.over == "time":
            out = out.transpose(1, 2)
        return x + fold(out.unflatten(2, (h, w)))

    def init_identity(self) -> None:
        nn.init.zeros_(self.to_out[0].weight)
        nn.init.zeros_(self.to_out[0].bias)


class MidBlock(nn.Module):
    def __init__(self, config: TAEConfig, channels: int):
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(config, channels, channels) for _ in range(2)])
        self.attentions = nn.ModuleList([Attention(config, channels, "volume" if config.volume else "space")])
        over_time = [] if config.volume else [Attention(config, channels, "time")]
        self.temporal_attentions = nn.ModuleList(over_time)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = self.resnets[0](x, frames)
        for attention in [*self.attentions, *self.temporal_attentions]:
            x = attention(x, frames)
        return self.resnets[1](x, frames)


class Downsample(nn.Module):
    """Half the size in space, then half in time: [B*T, C, H, W] -> [B*ceil(T/2), C, H/2, W/2]."""

    def __init__(self, config: TAEConfig, channels: int):
        super().__init__()
        self.conv = SpaceTimeConv(channels, channels, config.volume, stride=2)
        self.time = TemporalConv(channels, stride=2)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        return self.time(self.conv(x, frames), frames)


class Upsample(nn.Module):
    """Double in space, then in time, by nearest + convolution; frames beyond `out_frames` are spurious and dropped."""

    def __init__(self, config: TAEConfig, channels: int):
        super().__init__()
        self.conv = SpaceTimeConv(channels, channels, config.volume)
        self.time = TemporalConv(channels)

    def forward(self, x: Tensor, frames: int, out_frames: int) -> Tensor:
        x = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"), frames)
        x = by_time(x, frames).repeat_interleave(2, dim=1)[:, :out_frames]  # [B, T', H, W, C]
        return self.time(fold(x), out_frames)


class Level(nn.Module):
    """The residual blocks of one resolution, then the way to the next (none at the last)."""

    def __init__(self, config: TAEConfig, cin: int, cout: int, layers: int, down: bool = False, up: bool = False):
        super().__init__()
        blocks = [ResnetBlock(config, cin if i == 0 else cout, cout) for i in range(layers)]
        self.resnets = nn.ModuleList(blocks)
        self.downsamplers = nn.ModuleList([Downsample(config, cout)] if down else [])
        self.upsamplers = nn.ModuleList([Upsample(config, cout)] if up else [])

    def forward(self, x: Tensor, frames: int, out_frames: int) -> Tensor:
        for block in self.resnets:
            x = block(x, frames)
        for down in self.downsamplers:
            x = down(x, frames)
        for up in self.upsamplers:
            x = up(x, frames, out_frames)
        return x
