"""The temporal autoencoder (Movie Gen sec 3.1.1): video [B, 3, T, H, W] in [-1, 1] to latents [B, 16, T/8, H/8, W/8].

It is an image autoencoder (diffusers `AutoencoderKL`) that learned about time. What is unusual:
- 2.5D: every 2D convolution with spatial extent is followed by a temporal one (k = 3), every spatial attention by a
  temporal one. Convolutions in time start as identities and attention in time adds nothing, so an inflated model
  answers at step 0 what the image model answers, on single frames and on every eighth frame of a video. 1x1
  convolutions see no neighbours and get none.
- Not causal: time is padded symmetrically by repeating the first and the last frame. Space is padded with zeros,
  as in the image model.
- Any number of frames, one included: T frames make ceil(T/8) latents, and the decoder, told T, drops the spurious
  frames at each level as they appear: an image costs one frame at every resolution, not eight.
- Upsampling is nearest + convolution, so one latent frame alone decodes to a still: motion lives in the differences
  between latents. Train on 16 frames or more.
- Normalisation is per frame, so that nothing but convolution and attention looks across time.
- Activations are [B*T, C, H, W] in channels_last everywhere. A temporal convolution is then a Conv2d with a (3, 1)
  kernel on a [B, C, T, H*W] view of the same memory: no transpose in either direction.
- `volume=True` is the full-3D variant of the ablation (sec 3.6.4): 3x3x3 convolutions, attention over space and
  time at once; also an exact image model on single frames after inflation.
- Noise comes from the caller: `forward(video, noise)` is a pure function.
- A norm and the SiLU behind it are recomputed in the backward pass: what is kept is the norm's input alone.
- Long and large videos go through it in tiles (model/tiling.py). Small models that start from nothing see blocks of
  8 x 8 x 8 pixels at once (`blocks`, model/blocks.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rushes.model.blocks import GAIN, NARROW_LOGVAR, VALUES, BlockEnds, from_blocks, to_blocks

SPACE_FACTOR = 8  # three spatial halvings
TIME_FACTOR = 8  # three temporal halvings, after the spatial ones
TIME_LEVELS = 3
LOGVAR_RANGE = (-30.0, 20.0)  # keeps exp() finite in float32; LDM's values
NORM_EPS = 1e-6  # AutoencoderKL's
MAX_ATTENTION_BATCH = 65_535  # CUDA's limit on the grid's second axis, which SDPA kernels use for the batch


@dataclass(frozen=True)
class TAEConfig:
    """Shape of the autoencoder. `TAE_SIZES` names the ones in use."""

    block_channels: tuple[int, ...] = (128, 256, 512, 512)  # per resolution: 1, 1/2, 1/4, 1/8; with blocks 1/8 alone
    layers_per_block: int = 2  # residual blocks per resolution in the encoder; one more in the decoder
    latent_channels: int = 16
    video_channels: int = 3
    norm_groups: int = 32  # 0: no norms
    quant_conv: bool = False  # 1x1 convolutions around the latent, as in Stable Diffusion 1 and 2
    volume: bool = False  # full 3D instead of 2.5D
    blocks: bool = False  # 8 x 8 x 8 pixels at once (model/blocks.py), for small models that start from nothing

    def __post_init__(self) -> None:
        resolutions = 1 if self.blocks else TIME_LEVELS + 1
        if len(self.block_channels) != resolutions:
            raise ValueError(f"the TAE has {resolutions} resolutions, block_channels names {len(self.block_channels)}")
        if bad := [c for c in self.block_channels if self.norm_groups and c % self.norm_groups]:
            raise ValueError(f"block_channels {bad} are not divisible by norm_groups = {self.norm_groups}")


TAE_SIZES: dict[str, TAEConfig] = {
    "tiny": TAEConfig(block_channels=(64,), layers_per_block=1, norm_groups=0, blocks=True),  # for a CPU
    "base": TAEConfig(),  # the shape of the Stable Diffusion 3 and Flux autoencoders
}


def latent_frames(frames: int) -> int:
    """ceil(frames / 8): latents that stand for `frames` frames."""
    return -(-frames // TIME_FACTOR)


def check_frames(latent: Tensor, frames: int | None) -> int:
    """The frames that a latent is decoded to. Raises ValueError where it does not stand for so many."""
    frames = latent.shape[2] * TIME_FACTOR if frames is None else frames
    if latent_frames(frames) != latent.shape[2]:
        raise ValueError(f"{latent.shape[2]} latent frames cannot be decoded to {frames} frames")
    return frames


# ---- layers: x is [B*T, C, H, W] in channels_last, `frames` is T ----------------------------------------------------


def _by_time(x: Tensor, frames: int) -> Tensor:
    """[B*T, C, H, W] -> [B, T, H, W, C]: a view when x is channels_last."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n // frames, frames, h, w, c)


def _fold(x: Tensor) -> Tensor:
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
        x = _repeat_ends(_by_time(x, frames).flatten(2, 3))  # [B, T + 2, H*W, C]
        x = self.conv(x.permute(0, 3, 1, 2))  # [B, C, T', H*W]
        return _fold(x.permute(0, 2, 3, 1).unflatten(2, (h, w)))

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
            x = _repeat_ends(_by_time(x, frames)).permute(0, 4, 1, 2, 3)  # [B, C, T + 2, H, W]
            return _fold(self.volume(F.pad(x, self.pad)).permute(0, 2, 3, 4, 1))
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
        y = _by_time(self.group_norm(x), frames).flatten(2, 3)  # [B, T, H*W, C]
        if self.over == "time":
            y = y.transpose(1, 2)  # [B, H*W, T, C]
        tokens = y.flatten(1, 2) if self.over == "volume" else y.flatten(0, 1)  # [N, L, C]
        out = attend(self.to_q(tokens), self.to_k(tokens), self.to_v(tokens))
        out = self.to_out[0](out).reshape(y.shape)
        if self.over == "time":
            out = out.transpose(1, 2)
        return x + _fold(out.unflatten(2, (h, w)))

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
        x = _by_time(x, frames).repeat_interleave(2, dim=1)[:, :out_frames]  # [B, T', H, W, C]
        return self.time(_fold(x), out_frames)


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


class Encoder(nn.Module):
    def __init__(self, config: TAEConfig):
        super().__init__()
        chans = config.block_channels
        video_end = PointConv if config.blocks else partial(SpaceTimeConv, volume=config.volume)
        self.conv_in = video_end(VALUES if config.blocks else config.video_channels, chans[0])
        self.down_blocks = nn.ModuleList(
            Level(config, chans[max(i - 1, 0)], c, config.layers_per_block, down=i < len(chans) - 1)
            for i, c in enumerate(chans)
        )
        self.mid_block = MidBlock(config, chans[-1])
        self.conv_norm_out = normed(config, chans[-1])
        self.conv_out = SpaceTimeConv(chans[-1], 2 * config.latent_channels, config.volume)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """[B*T, 3, H, W] -> [B*ceil(T/8), 2*C, H/8, W/8]: means and log variances. Blocks: the same grid."""
        x = self.conv_in(x, frames)
        for level in self.down_blocks:
            out_frames = -(-frames // 2) if len(level.downsamplers) else frames
            x = level(x, frames, out_frames)
            frames = out_frames
        x = self.mid_block(x, frames)
        return self.conv_out(activate(self.conv_norm_out, x), frames)


class Decoder(nn.Module):
    def __init__(self, config: TAEConfig):
        super().__init__()
        chans = config.block_channels[::-1]
        self.conv_in = SpaceTimeConv(config.latent_channels, chans[0], config.volume)
        self.mid_block = MidBlock(config, chans[0])
        self.up_blocks = nn.ModuleList(
            Level(config, chans[max(i - 1, 0)], c, config.layers_per_block + 1, up=i < len(chans) - 1)
            for i, c in enumerate(chans)
        )
        self.conv_norm_out = normed(config, chans[-1])
        video_end = PointConv if config.blocks else partial(SpaceTimeConv, volume=config.volume)
        self.conv_out = video_end(chans[-1], VALUES if config.blocks else config.video_channels)

    def forward(self, z: Tensor, frames: int) -> Tensor:
        """[B*ceil(T/8), C, H/8, W/8] -> [B*T, 3, H, W] for T = `frames`. Blocks: the same grid, T' = `frames`."""
        wanted = [frames]  # frames after each level, from the last to the first
        for _ in self.up_blocks[1:]:
            wanted.append(-(-wanted[-1] // 2))
        now = wanted.pop()
        x = self.mid_block(self.conv_in(z, now), now)
        for level in self.up_blocks:
            then = wanted.pop() if len(level.upsamplers) else now
            x, now = level(x, now, then), then
        return self.conv_out(activate(self.conv_norm_out, x), now)


# ---- the model -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Posterior:
    """A diagonal Gaussian over latents: mean and logvar, each [B, C, T', H', W']."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * noise, for standard normal noise of the mean's shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL to the standard normal in nats, summed over the latent: [B] float32."""
        mean, logvar = self.mean.float(), self.logvar.float()
        return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


class TAE(nn.Module):
    """See the module. `with torch.device("meta")`, `to_empty`, then `init_weights` builds a sharded one.

    `latent_mean` and `latent_std` [C] are measured after training, and `normalize` is what the DiT sees: flow
    matching starts from noise of variance 1 and wants data of about the same.
    """

    own_tiles = False  # model/tiling.py cuts what is too long or too large
    time_factor, space_factor = TIME_FACTOR, SPACE_FACTOR
    latent_frames = staticmethod(latent_frames)

    def __init__(self, config: TAEConfig | None = None):
        super().__init__()
        self.config = config = TAEConfig() if config is None else config
        channels = config.latent_channels
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1) if config.quant_conv else None
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if config.quant_conv else None
        self.blocks = BlockEnds(channels) if config.blocks else None
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_std", torch.ones(channels))
        self.init_weights()

    def init_weights(self) -> None:
        """torch's defaults in space, identity in time. Draws from torch's global generator."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear | nn.GroupNorm):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, TemporalConv) or (isinstance(module, Attention) and module.over == "time"):
                module.init_identity()
        if self.blocks is not None:
            self._start_blocks()
        self.latent_mean.zero_()
        self.latent_std.fill_(1.0)

    @torch.no_grad()
    def _start_blocks(self) -> None:
        """The network adds nothing to the linear transform yet, and the posterior is narrow."""
        inner = self.encoder.conv_out
        inner = inner.volume if self.config.volume else inner.spatial
        for last in (inner, self.decoder.conv_out):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        inner.bias[self.config.latent_channels :] = NARROW_LOGVAR

    def encode(self, video: Tensor) -> Posterior:
        """[B, 3, T, H, W] in [-1, 1], H and W multiples of 8 -> Posterior of [B, C, ceil(T/8), H/8, W/8].

        Raises ValueError on another shape.
        """
        self._check_video(video)
        batch = len(video)
        x = video.permute(0, 2, 3, 4, 1) if self.blocks is None else to_blocks(video)
        around = None if self.blocks is None else self.blocks.encode(x)
        x = self.encoder(_fold(x), x.shape[1])
        x = x if self.quant_conv is None else self.quant_conv(x)
        x = _by_time(x, len(x) // batch).permute(0, 4, 1, 2, 3).contiguous()  # [B, 2C, T', H', W']
        mean, logvar = x.chunk(2, dim=1)
        mean = mean if around is None else GAIN * mean + around
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, latent: Tensor, frames: int | None = None) -> Tensor:
        """[B, C, T', H', W'] -> [B, 3, frames, 8H', 8W'], about [-1, 1], not clamped.

        frames: between 8 (T' - 1) + 1 and 8 T'; the latter by default. Raises ValueError otherwise.
        """
        frames = check_frames(latent, frames)
        inside = frames if self.blocks is None else latent.shape[2]  # frames that the network answers
        x = _fold(latent.permute(0, 2, 3, 4, 1))
        x = x if self.post_quant_conv is None else self.post_quant_conv(x)
        x = _by_time(self.decoder(x, inside), inside)  # [B, T, H, W, C]
        if self.blocks is not None:
            return from_blocks(GAIN * x + self.blocks.decode(latent), frames).contiguous()
        return x.permute(0, 4, 1, 2, 3).contiguous()

    def forward(self, video: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Posterior, Tensor]:
        """(reconstruction, posterior, latent). noise: standard normal [B, C, T', H', W']; None decodes the mean."""
        posterior = self.encode(video)
        latent = posterior.mean if noise is None else posterior.sample(noise)
        return self.decode(latent, video.shape[2]), posterior, latent

    @property
    def last_layer(self) -> Tensor:
        """The weight next to the output, where the adaptive adversarial weight is taken."""
        conv = self.decoder.conv_out
        if self.config.blocks:
            return conv.weight
        return conv.volume.weight if self.config.volume else conv.temporal.conv.weight

    def normalize(self, latent: Tensor) -> Tensor:
        """[B, C, ...] -> zero mean and unit variance per channel, by the measured statistics."""
        shape = (1, -1, *[1] * (latent.ndim - 2))
        return (latent - self.latent_mean.view(shape)) / self.latent_std.view(shape)

    def denormalize(self, latent: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        shape = (1, -1, *[1] * (latent.ndim - 2))
        return latent * self.latent_std.view(shape) + self.latent_mean.view(shape)

    def forget_network(self) -> None:
        """Only the statistics are kept."""
        del self.encoder, self.decoder

    def _check_video(self, video: Tensor) -> None:
        channels = self.config.video_channels
        if video.ndim != 5 or video.shape[1] != channels or video.shape[2] == 0:
            raise ValueError(f"the TAE takes [B, {channels}, T, H, W], not {list(video.shape)}")
        if video.shape[3] % SPACE_FACTOR or video.shape[4] % SPACE_FACTOR:
            raise ValueError(f"height and width must be multiples of 8, not {list(video.shape[3:])}")


def heavy_parts(model: TAE) -> list[nn.Module]:
    """What is recomputed or compiled one by one: their inputs are small beside what is computed inside."""
    return [m for m in model.modules() if isinstance(m, ResnetBlock | Attention | Downsample | Upsample)]
