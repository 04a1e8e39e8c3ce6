"""Ends of a small TAE that starts from nothing: 8 x 8 x 8 pixels become one place of the latent grid at once.

`TAEConfig.blocks` puts them around the network, which then works on the latent grid alone: a step costs little, and
minutes of training are enough (LTX-Video patchifies for the same reason). A linear transform of each block goes beside
the network, whose answer is added to it at both ends; both are learned together. Synthesis reads the latents around a
block too, so that it can take the edges between blocks away (a lapped transform).

`fit` starts the transform as the principal components of the first training batches. No number in it is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushes.model.parallel import mean_over_ranks

BLOCK = 8  # frames, rows and columns
VALUES = 3 * BLOCK**3  # numbers of a block
UNIT = math.sqrt(VALUES)  # brings an orthonormal basis to weights of about 1, which Adam moves by 1/1000 a step
GAIN = 0.1  # of what the network adds: Adam moves all its last weights at once, and the transform is good already
NEIGHBOURS = 3  # latents that synthesis reads along each side
NARROW_LOGVAR = -10.0  # of the latents at the start: noise of 0.007 standard deviations of the strongest


def to_blocks(video: Tensor) -> Tensor:
    """[B, 3, T, H, W] -> [B, ceil(T/8), H/8, W/8, 1536]; the last frame fills up what is missing in time."""
    b, c, t, h, w = video.shape
    video = torch.cat([video, video[:, :, -1:].expand(-1, -1, -t % BLOCK, -1, -1)], dim=2)
    x = video.reshape(b, c, -1, BLOCK, h // BLOCK, BLOCK, w // BLOCK, BLOCK)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)


def from_blocks(x: Tensor, frames: int) -> Tensor:
    """The inverse of `to_blocks`: [B, T', H', W', 1536] -> [B, 3, frames, 8 H', 8 W']."""
    b, t, h, w, _ = x.shape
    x = x.reshape(b, t, h, w, BLOCK, BLOCK, BLOCK, 3).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(b, 3, t * BLOCK, h * BLOCK, w * BLOCK)[:, :, :frames]


class BlockEnds(nn.Module):
    """The linear way around the network: blocks to latents, and latents to blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.analysis = nn.Linear(VALUES, channels, bias=False)
        self.synthesis = nn.Conv3d(channels, VALUES, NEIGHBOURS, bias=False)
        self.register_buffer("scale", torch.ones(()))

    def encode(self, blocks: Tensor) -> Tensor:
        """[B, T', H', W', 1536] -> [B, C, T', H', W']."""
        return self.analysis(blocks).permute(0, 4, 1, 2, 3) / (UNIT * self.scale)

    def decode(self, latent: Tensor) -> Tensor:
        """The inverse: its edges see themselves repeated."""
        x = F.pad(latent, (1, 1, 1, 1, 1, 1), mode="replicate")
        return self.synthesis(x).permute(0, 2, 3, 4, 1) * (self.scale / UNIT)

    @torch.no_grad()
    def set_basis(self, basis: Tensor, scale: float) -> None:
        """basis: [1536, C] orthonormal; scale: what latents are divided by."""
        self.analysis.weight.copy_(basis.T * UNIT)
        self.synthesis.weight.zero_()
        self.synthesis.weight[:, :, 1, 1, 1] = basis * UNIT
        self.scale.fill_(scale)


@torch.no_grad()
def fit(ends: BlockEnds, videos: Iterable[Tensor]) -> None:
    """Start the transform as the strongest principal components of the blocks of all ranks' videos [B, 3, T, H, W].

    The strongest component's latent has variance 1.
    """
    device, count = ends.analysis.weight.device, 0
    moment = torch.zeros(VALUES, VALUES, device=device)
    for video in videos:
        blocks = to_blocks(video).flatten(0, 3).float()
        moment += blocks.T @ blocks / len(blocks)
        count += 1
    if not count:
        raise ValueError("there is no video to fit the transform to")
    power, basis = torch.linalg.eigh(mean_over_ranks(moment / count).double().cpu())
    best = basis[:, -ends.analysis.out_features :].flip(1)
    best = best * best[0].sign()  # a solver may choose either sign
    ends.set_basis(best.float().to(device), math.sqrt(float(power[-1])))
