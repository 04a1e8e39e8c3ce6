"""Ends of a small TAE that starts from nothing: 8 x 8 x 8 pixels become one place of the latent grid at once.

`TAEConfig.blocks` puts them around the network, which then works on the latent grid alone: a step costs little, and
minutes of training are enough (LTX-Video patchifies for the same reason). A linear transform of each block goes beside
the network, whose answer is added to it at both ends; both are learned together. Synthesis reads the latents around a
block too, so that it can take the edges between blocks away (a lapped transform).

`fit` starts the transform as the principal components of the first training batches, of which every video counts alike
and every shift of a block as much as another. No number in it is chosen.
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
REWEIGHTED = 4  # times that `fit` weighs videos by their errors; further ones change little
GREY_LEVEL = 2 / 255  # of errors in [-1, 1]: smaller ones do not count
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
    """Start the transform as principal components of the blocks of all ranks' videos [B, 3, T, H, W].

    They are those of least mean logarithm of the error of a video, which is what PSNR is, by reweighting: an average of
    squares would be that of the few that move most. The strongest component's latent has variance 1. The blocks of all
    videos are held in memory meanwhile.
    """
    device = ends.analysis.weight.device
    blocks = [one.flatten(0, 2).float() for video in videos for one in to_blocks(video)]
    if not blocks:
        raise ValueError("there is no video to fit the transform to")
    errors = [1.0] * len(blocks)
    for _ in range(REWEIGHTED):
        moment = sum(one.T @ (one / (len(one) * error)) for one, error in zip(blocks, errors)) / len(blocks)
        basis = torch.linalg.eigh(stationary(mean_over_ranks(moment).double().cpu())).eigenvectors
        best = basis[:, -ends.analysis.out_features :].flip(1).float().to(device)
        errors = [float((one - one @ best @ best.T).square().mean()) + GREY_LEVEL**2 for one in blocks]
    best = best * best[0].sign()  # a solver may choose either sign
    strongest = sum(float((one @ best[:, 0]).square().mean()) for one in blocks) / len(blocks)
    ends.set_basis(best, math.sqrt(float(mean_over_ranks(torch.tensor(strongest, device=device)))))


def stationary(moment: Tensor) -> Tensor:
    """Second moments of a block [1536, 1536], averaged over pairs of pixels equally far apart in time, height, width.

    These are what shifted and mirrored blocks would have, of which a few batches hold too few.
    """
    place = torch.arange(BLOCK)
    apart = (place[:, None] - place).abs().flatten()
    x = moment.view(*[BLOCK] * 3, 3, *[BLOCK] * 3, 3)
    for axis in range(3):
        pairs = x.movedim((axis, axis + 4), (0, 1)).flatten(0, 1)
        sums = torch.zeros_like(pairs[:BLOCK]).index_add_(0, apart, pairs)
        means = sums / apart.bincount().view(-1, *[1] * (sums.ndim - 1))
        x = means[apart].unflatten(0, (BLOCK, BLOCK)).movedim((0, 1), (axis, axis + 4))
    return x.reshape(VALUES, VALUES)
