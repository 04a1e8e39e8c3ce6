"""A plain image autoencoder with the names of diffusers' AutoencoderKL, and the TAE inflated from it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from rushes.model.inflate import image_config, inflate
from rushes.model.tae import TAE
from rushes.model.tae_config import TAEConfig

CHANNELS = (8, 16, 16, 24)
EXACT = 1e-5  # of values of about 1: float32 rounding in another order


class ImageResnet(nn.Module):
    def __init__(self, cin, cout, groups):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, cin, eps=1e-6), nn.GroupNorm(groups, cout, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv2d(cin, cout, 3, padding=1), nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.conv_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class ImageAttention(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x):
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)
        return x + self.to_out[0](weights @ v).transpose(1, 2).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class ImageStage(nn.Module):
    def __init__(self, cin, cout, layers, groups, down=False, up=False):
        super().__init__()
        self.resnets = nn.ModuleList(ImageResnet(cin if i == 0 else cout, cout, groups) for i in range(layers))
        if down:
            self.downsamplers = nn.ModuleList([Down(cout)])
        if up:
            self.upsamplers = nn.ModuleList([Up(cout)])

    def forward(self, x):
        for block in [*self.resnets, *getattr(self, "downsamplers", []), *getattr(self, "upsamplers", [])]:
            x = block(x)
        return x


class ImageHalf(nn.Module):
    """The encoder or the decoder."""

    def __init__(self, chans, layers, groups, cin, cout, decode):
        super().__init__()
        chans = chans[::-1] if decode else chans
        self.conv_in = nn.Conv2d(cin, chans[0], 3, padding=1)
        self.mid_block = nn.Module()
        middle = chans[0] if decode else chans[-1]
        self.mid_block.resnets = nn.ModuleList(ImageResnet(middle, middle, groups) for _ in range(2))
        self.mid_block.attentions = nn.ModuleList([ImageAttention(middle, groups)])
        stages = nn.ModuleList(
            ImageStage(
                chans[max(i - 1, 0)], c, layers + decode, groups, down=not decode and i < 3, up=bool(decode) and i < 3
            )
            for i, c in enumerate(chans)
        )
        self.decode = decode
        setattr(self, "up_blocks" if decode else "down_blocks", stages)
        self.conv_norm_out = nn.GroupNorm(groups, chans[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(chans[-1], cout, 3, padding=1)

    def forward(self, x):
        middle = [self.mid_block.resnets[0], self.mid_block.attentions[0], self.mid_block.resnets[1]]
        blocks = [*middle, *self.up_blocks] if self.decode else [*self.down_blocks, *middle]
        x = self.conv_in(x)
        for block in blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class ImageAutoencoder(nn.Module):
    def __init__(self, config: TAEConfig):
        super().__init__()
        c, shape = config.latent_channels, (config.block_channels, config.layers_per_block, config.norm_groups)
        self.encoder = ImageHalf(*shape, 3, 2 * c, decode=False)
        self.decoder = ImageHalf(*shape, c, 3, decode=True)
        if config.quant_conv:
            self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * c, 2 * c, 1), nn.Conv2d(c, c, 1)

    def encode(self, image):
        x = self.encoder(image)
        return (self.quant_conv(x) if hasattr(self, "quant_conv") else x).chunk(2, dim=1)[0]

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z) if hasattr(self, "post_quant_conv") else z)


def pair(volume: bool = False, quant_conv: bool = False) -> tuple[ImageAutoencoder, TAE]:
    """A random image autoencoder, and the TAE inflated from its weights alone."""
    torch.manual_seed(0)
    shape = TAEConfig(CHANNELS, 1, 4, norm_groups=4, quant_conv=quant_conv)
    image = ImageAutoencoder(shape).eval()
    with torch.no_grad():
        for parameter in image.parameters():  # norms and biases too, so that a mix-up cannot hide behind ones
            parameter.add_(torch.randn_like(parameter) * 0.05)
    state = image.state_dict()
    model = TAE(image_config(state, norm_groups=4, volume=volume))
    inflate(model, state)
    return image, model
