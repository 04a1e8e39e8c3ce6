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
from torch import Tensor, nn

from rushes.model.blocks import GAIN, NARROW_LOGVAR, VALUES, BlockEnds, from_blocks, to_blocks
from rushes.model.tae_config import SPACE_FACTOR, TIME_FACTOR, TAEConfig, check_frames, latent_frames
from rushes.model.tae_layers import (
    Attention,
    Downsample,
    Level,
    MidBlock,
    PointConv,
    ResnetBlock,
    SpaceTimeConv,
    TemporalConv,
    Upsample,
    activate,
    by_time,
    fold,
    normed,
)

LOGVAR_RANGE = (-30.0, 20.0)  # keeps exp() finite in float32; LDM's values


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
        x = self.encoder(fold(x), x.shape[1])
        x = x if self.quant_conv is None else self.quant_conv(x)
        x = by_time(x, len(x) // batch).permute(0, 4, 1, 2, 3).contiguous()  # [B, 2C, T', H', W']
        mean, logvar = x.chunk(2, dim=1)
        mean = mean if around is None else GAIN * mean + around
        return Posterior(mean, logvar.clamp(*LOGVAR_RANGE))

    def decode(self, latent: Tensor, frames: int | None = None) -> Tensor:
        """[B, C, T', H', W'] -> [B, 3, frames, 8H', 8W'], about [-1, 1], not clamped.

        frames: between 8 (T' - 1) + 1 and 8 T'; the latter by default. Raises ValueError otherwise.
        """
        frames = check_frames(latent, frames)
        inside = frames if self.blocks is None else latent.shape[2]  # frames that the network answers
        x = fold(latent.permute(0, 2, 3, 4, 1))
        x = x if self.post_quant_conv is None else self.post_quant_conv(x)
        x = by_time(self.decoder(x, inside), inside)  # [B, T, H, W, C]
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
