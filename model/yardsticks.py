"""What answers without learning reach: a figure of an autoencoder is worth what it has above them.

The linear transform keeps, of each 8 x 8 x 8 block, as many components as an autoencoder has latent channels: the
strongest of the Karhunen-Loeve basis of a separable first-order Markov process, which is what neighbouring pixels and
frames of video resemble (Jain 1989, ch. 5). Its one constant is chosen on the very clips that are evaluated, which
favours the yardstick and never the network.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rushes.model.blocks import BLOCK, VALUES, from_blocks, to_blocks

CORRELATIONS = (0.8, 0.9, 0.95, 0.99)  # of neighbours in space and in time; the best on the clips counts
COLOUR_POWER = (1.0, 0.06, 0.02)  # variances of luma, red-blue and green-magenta
COLOURS = ((1.0, 1.0, 1.0), (1.0, 0.0, -1.0), (-1.0, 2.0, -1.0))  # of R, G, B; made to unit length


def mean_frame(frames: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> the mean frame, float32 [H, W, 3], not rounded."""
    return frames.mean(0, dtype=np.float64).astype(np.float32)


@torch.no_grad()
def linear_reconstruction(frames: np.ndarray, channels: int, correlation: float) -> np.ndarray:
    """uint8 [T, H, W, 3], sides multiples of 8 -> the same through `channels` numbers a block."""
    basis = markov_basis(channels, correlation)
    video = torch.from_numpy(frames[None]).permute(0, 4, 1, 2, 3).float()
    made = from_blocks((to_blocks(video) @ basis) @ basis.T, len(frames))
    return made[0].permute(1, 2, 3, 0).round().clamp(0, 255).to(torch.uint8).numpy()


@lru_cache(maxsize=8)
def markov_basis(channels: int, correlation: float) -> Tensor:
    """[8*8*8*3, channels] orthonormal, strongest component first, rows in the order t, y, x, colour."""
    place = torch.arange(BLOCK, dtype=torch.float64)
    power, side = torch.linalg.eigh(correlation ** (place[:, None] - place[None]).abs())
    colours = torch.tensor(COLOURS, dtype=torch.float64).T
    colours = colours / colours.norm(dim=0)
    strength = torch.einsum("t,y,x,c->tyxc", power, power, power, torch.tensor(COLOUR_POWER, dtype=torch.float64))
    best = strength.flatten().argsort(descending=True, stable=True)[:channels]
    basis = torch.einsum("Tt,Yy,Xx,Cc->TYXCtyxc", side, side, side, colours)
    return basis.reshape(VALUES, -1)[:, best].float()
