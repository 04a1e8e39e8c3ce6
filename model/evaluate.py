"""How well an autoencoder reproduces a set: PSNR and SSIM, beside the baseline of showing each clip's mean frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.data import DataOptions, Loader
from model.steps import to_video
from model.tae import TAE

PEAK = 255.0  # of 8-bit pixels
PSNR_MOST = 100.0  # dB that an exact copy (a still clip against its mean frame) counts in a mean
WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window, pixels (Wang 2004)
K1, K2 = 0.01, 0.03  # SSIM's constants (Wang 2004)


@dataclass(frozen=True)
class Evaluation:
    """Means over clips. psnr, baseline_psnr: dB, higher is better; ssim: up to 1."""

    clips: int
    psnr: float
    ssim: float
    baseline_psnr: float


def psnr(truth: np.ndarray, made: np.ndarray) -> float:
    """10 log10(255^2 / mean squared error) over all of two uint8 arrays of one shape, dB; infinite where equal."""
    error = float(np.mean((truth.astype(np.float64) - made.astype(np.float64)) ** 2))
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


def ssim(truth: np.ndarray, made: np.ndarray) -> float:
    """Structural similarity (Wang 2004): mean over frames, colours and places of the 11 x 11 Gaussian window.

    truth, made: uint8 [T, H, W, 3], sides of at least 11. 1 where equal.
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(a)).permute(0, 3, 1, 2).double() for a in (truth, made))
    line = torch.exp(-((torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    line = line / line.sum()

    def blur(z: Tensor) -> Tensor:
        flat = z.flatten(0, 1).unsqueeze(1)  # [T*3, 1, H, W]
        return F.conv2d(F.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    score = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return float(score.mean())


@torch.no_grad()
def reconstruct(tae: TAE, frames: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> the same through the autoencoder, tile by tile."""
    from model.sample import to_frames

    video = to_video(frames[None], tae.latent_mean.device)
    return to_frames(tae.decode_tiled(tae.encode_tiled(video).mean, len(frames)))


def evaluate_tae(tae: TAE, roots: Sequence[str], options: DataOptions, limit: int) -> Evaluation:
    """The autoencoder on at most `limit` clips of `sets/NAME` of the runs, at the options' shapes.

    options.batch must be 1. Raises DataError, ManifestError.
    """
    loader = Loader(roots, options)
    clips = min(limit, sum(loader.plan.sizes))
    scores = []
    for batch in loader.batches(range(clips)):
        frames = batch.frames[0]
        made = reconstruct(tae, frames)
        still = np.broadcast_to(frames.mean(0, keepdims=True).round().astype(np.uint8), frames.shape)
        scores.append((psnr(frames, made), ssim(frames, made), psnr(frames, still)))
    means = np.mean(np.minimum(scores, PSNR_MOST), axis=0)
    return Evaluation(clips, *map(float, means))
