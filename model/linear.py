"""A linear autoencoder of the TAE's shape: what a small TAE learns beside, so that minutes of training are enough.

`TAEConfig.linear` puts it next to the network: latents and pictures are the sums of both. It is no part of Movie Gen,
whose TAE starts from an image autoencoder; where there is none to inflate, this is a start of some use (WF-VAE gives
its encoder a wavelet path for the same reason). Inflated models leave it out.

Analysis is a fixed block transform: of each 8 x 8 x 8 block the 16 strongest components of the Karhunen-Loeve basis
of a separable first-order Markov process, which is what neighbouring pixels and frames of video resemble (Jain 1989,
ch. 5). Synthesis starts as its inverse and is learned: it reads the latents around a block too, so that it can take
the edges between blocks away (a lapped transform).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 8  # frames, rows and columns
NEIGHBOURS = 3  # latents that synthesis reads along each side
CORRELATION = 0.9  # of neighbours in space and in time; the best of four on the demo's validation clips
COLOUR_POWER = (1.0, 0.06, 0.02)  # variances of luma, red-blue and green-magenta
COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))  # of R, G, B; made to unit length
SCALE = 8.0  # of an orthonormal block's coefficients: latents come out near variance 1


class LinearCodec(nn.Module):
    """Video [B, 3, T, H, W] to latents [B, C, ceil(T/8), H/8, W/8] and back."""

    def __init__(self, channels: int):
        super().__init__()
        size = 3 * BLOCK**3
        self.register_buffer("analysis", torch.empty(size, channels))
        self.synthesis = nn.Conv3d(channels, size, NEIGHBOURS, bias=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """The basis, the same on every machine but for rounding."""
        basis = markov_basis(self.analysis.shape[1]).to(self.analysis)
        self.analysis.copy_(basis / SCALE)
        self.synthesis.weight.zero_()
        self.synthesis.weight[:, :, 1, 1, 1] = basis * SCALE

    def encode(self, video: Tensor) -> Tensor:
        """Frames beyond a multiple of 8 are filled up with the last one."""
        b, c, t, h, w = video.shape
        video = torch.cat([video, video[:, :, -1:].expand(-1, -1, -t % BLOCK, -1, -1)], dim=2)
        x = video.reshape(b, c, -1, BLOCK, h // BLOCK, BLOCK, w // BLOCK, BLOCK)
        x = x.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)  # [B, T/8, H/8, W/8, 8*8*8*3]
        return (x @ self.analysis).permute(0, 4, 1, 2, 3)

    def decode(self, latent: Tensor, frames: int) -> Tensor:
        """Frames beyond `frames` are dropped."""
        b, _, t, h, w = latent.shape
        x = self.synthesis(F.pad(latent, (1, 1, 1, 1, 1, 1), mode="replicate"))  # [B, 8*8*8*3, T', H', W']
        x = x.reshape(b, BLOCK, BLOCK, BLOCK, 3, t, h, w).permute(0, 4, 5, 1, 6, 2, 7, 3)
        return x.reshape(b, 3, t * BLOCK, h * BLOCK, w * BLOCK)[:, :, :frames]


def markov_basis(channels: int) -> Tensor:
    """[8*8*8*3, channels] orthonormal, strongest component first, rows in the order t, y, x, colour."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    power, side = torch.linalg.eigh(CORRELATION ** (place[:, None] - place[None]).abs())
    side = side * side[0].sign()  # a solver may choose either sign
    colours = torch.tensor(COLOURS, dtype=torch.float64).T
    colours = colours / colours.norm(dim=0)
    strength = torch.einsum("t,y,x,c->tyxc", power, power, power, torch.tensor(COLOUR_POWER, dtype=torch.float64))
    best = strength.flatten().argsort(descending=True, stable=True)[:channels]
    basis = torch.einsum("Tt,Yy,Xx,Cc->TYXCtyxc", side, side, side, colours)
    return basis.reshape(3 * BLOCK**3, -1)[:, best].float()
