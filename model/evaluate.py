"""How good models are, several side by side on the same clips: autoencoders by what they reproduce, transformers by
what they sample.

An autoencoder's PSNR says little alone, so answers that learned nothing stand beside it (model/yardsticks.py): one mean
frame for all clips of a shape, the best that could be answered without looking; each clip's own mean frame; and a
linear transform at the same compression. What a network is worth is what it has above the last.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rushes.model.data import Batch, DataOptions, Loader, Sample, Shape
from rushes.model.dit import DiT
from rushes.model.features import Extractor, Moments, VideoExtractor, frechet_distance
from rushes.model.flow import Process
from rushes.model.sample import sample_video, to_frames
from rushes.model.steps import to_video
from rushes.model.tae import TAE
from rushes.model.text import TextEncoders
from rushes.model.tiling import TILE_FRAMES, decode_tiled, encode_tiled
from rushes.model.yardsticks import CORRELATIONS, linear_reconstruction, mean_frame

PEAK = 255.0  # of 8-bit pixels
PSNR_MOST = 100.0  # dB that an exact copy (a still clip against its mean frame) counts in a mean
WINDOW, SIGMA = 11, 1.5  # SSIM's Gaussian window, pixels (Wang 2004)
K1, K2 = 0.01, 0.03  # SSIM's constants (Wang 2004)
FRAMES_AT_ONCE = 16  # of SSIM, to bound its memory
PACES = 3  # timed runs, after one to warm up

Sampler = Callable[[Sample, Shape, int], np.ndarray]
"""(clip, shape, number) -> uint8 [T, H, W, 3]: a video for the clip's caption, its noise chosen by the number."""


@dataclass(frozen=True)
class Reconstruction:
    """Means over clips. psnr: dB, higher is better; ssim: up to 1; fid, fvd: 0 is best; pace: frames/s, both ways."""

    psnr: float
    ssim: float
    fid: float
    fvd: float
    encode_pace: float
    decode_pace: float


@dataclass(frozen=True)
class Truth:
    """The clips that are evaluated on, and what answers without a model reach on them.

    clip_mean_psnr: each clip against its own mean frame; set_mean_psnr: against the mean frame of all clips of its
    shape; both dB, mean over clips. features: of all frames; video_features: of pieces of 16. pace_shape: what paces
    are measured on.
    """

    clips: int
    features: Moments
    video_features: Moments
    clip_mean_psnr: float
    set_mean_psnr: float
    pace_shape: Shape


# ---- pixels --------------------------------------------------------------------------------------------------------


def psnr(truth: np.ndarray, made: np.ndarray) -> float:
    """10 log10(255^2 / mean squared error) over all of two uint8 arrays of one shape, dB; infinite where equal."""
    return _decibels(float(np.mean((truth.astype(np.float64) - made.astype(np.float64)) ** 2)))


def _decibels(error: float) -> float:
    return 10 * math.log10(PEAK**2 / error) if error else math.inf


def ssim(truth: np.ndarray, made: np.ndarray) -> float:
    """Structural similarity (Wang 2004): mean over frames, colours and places of the 11 x 11 Gaussian window.

    truth, made: uint8 [T, H, W, 3], sides of at least 11. 1 where equal.
    """
    parts = [slice(at, at + FRAMES_AT_ONCE) for at in range(0, len(truth), FRAMES_AT_ONCE)]
    return float(np.average([_ssim(truth[p], made[p]) for p in parts], weights=[len(truth[p]) for p in parts]))


def _ssim(truth: np.ndarray, made: np.ndarray) -> float:
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


# ---- the clips -----------------------------------------------------------------------------------------------------


class Clips:
    """At most `limit` clips of `sets/NAME` of the runs at the options' shapes, the same ones in the same order each
    time they are gone through. options.batch must be 1. Raises DataError, ManifestError.
    """

    def __init__(self, roots: Sequence[str], options: DataOptions, limit: int) -> None:
        self.loader = Loader(roots, options)
        self.count = min(limit, sum(self.loader.plan.sizes))

    def __iter__(self) -> Iterator[Batch]:
        return self.loader.batches(range(self.count))


@dataclass(frozen=True)
class Extractors:
    """Of frames (FID) and of pieces of 16 frames (FVD)."""

    frames: Extractor
    videos: VideoExtractor


class Seen:
    """Moments of the features of all videos that are added."""

    def __init__(self, extractors: Extractors) -> None:
        self.extractors, self.frames, self.videos = extractors, Moments(), Moments()

    def add(self, frames: np.ndarray) -> None:
        """uint8 [T, H, W, 3]."""
        self.frames.add(self.extractors.frames(frames))
        self.videos.add(self.extractors.videos(frames))

    def distances(self, truth: Truth) -> tuple[float, float]:
        """(FID, FVD) to the truth."""
        return frechet_distance(truth.features, self.frames), frechet_distance(truth.video_features, self.videos)


def survey(clips: Clips, extractors: Extractors) -> Truth:
    """What is true of the clips, before any model: decodes them twice."""
    seen, means = Seen(extractors), {}
    for batch in clips:
        frames = batch.frames[0]
        seen.add(frames)
        count, mean = means.get(batch.shape, (0, np.float32(0)))
        means[batch.shape] = count + 1, mean + (mean_frame(frames) - mean) / (count + 1)
    scores = []
    for batch in clips:
        frames = batch.frames[0]
        stills = mean_frame(frames), means[batch.shape][1]
        scores.append([_decibels(float(np.mean((frames - still) ** 2, dtype=np.float64))) for still in stills])
    own, whole = np.mean(np.minimum(scores, PSNR_MOST), axis=0)
    return Truth(clips.count, seen.frames, seen.videos, float(own), float(whole), batch.shape)


def linear_psnr(clips: Clips, channels: int) -> tuple[float, float]:
    """(dB, mean over the clips; its correlation) of the linear transform with `channels` numbers a block.

    The correlation is the one that does best on these clips.
    """
    scores = [
        [min(psnr(f, linear_reconstruction(f, channels, one)), PSNR_MOST) for one in CORRELATIONS]
        for f in (batch.frames[0] for batch in clips)
    ]
    means = np.mean(scores, axis=0)
    return float(means.max()), CORRELATIONS[int(means.argmax())]


# ---- autoencoders --------------------------------------------------------------------------------------------------


@torch.no_grad()
def reconstruct(tae: TAE, frames: np.ndarray) -> np.ndarray:
    """uint8 [T, H, W, 3] -> the same through the autoencoder, tile by tile."""
    video = to_video(frames[None], tae.latent_mean.device)
    return to_frames(decode_tiled(tae, encode_tiled(tae, video).mean, len(frames)))


def evaluate_tae(tae: TAE, clips: Clips, truth: Truth, extractors: Extractors) -> Reconstruction:
    """The autoencoder on the clips; its pace on one tile of their last shape."""
    scores, seen = [], Seen(extractors)
    for batch in clips:
        frames = batch.frames[0]
        made = reconstruct(tae, frames)
        scores.append((min(psnr(frames, made), PSNR_MOST), ssim(frames, made)))
        seen.add(made)
    means = map(float, np.mean(scores, axis=0))
    return Reconstruction(*means, *seen.distances(truth), *paces(tae, truth.pace_shape))


@torch.no_grad()
def paces(tae: TAE, shape: Shape) -> tuple[float, float]:
    """Frames per second, encoded and decoded, of one video of the shape, one tile long at most: medians."""
    device, frames = tae.latent_mean.device, min(shape.frames, TILE_FRAMES)
    video = torch.zeros(1, tae.config.video_channels, frames, shape.height, shape.width, device=device)
    latent = tae.encode(video).mean
    runs = (lambda: tae.encode(video)), (lambda: tae.decode(latent, frames))
    return tuple(frames / seconds(run, device) for run in runs)


def seconds(run: Callable[[], object], device: torch.device, repeats: int = PACES) -> float:
    """Median wall time of `run`, the device's work included, after one run to warm up."""
    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


# ---- transformers --------------------------------------------------------------------------------------------------


def sampler(
    dit: DiT, tae: TAE, encoders: TextEncoders, process: Process, steps: int, guidance: float, seed: int
) -> Sampler:
    """Videos for captions as `rushes sample` makes them; clip number n starts from the noise of seed + n."""

    def make(clip: Sample, shape: Shape, number: int) -> np.ndarray:
        rate = clip.rate if shape.frames > 1 else None
        sides = shape.frames, shape.height, shape.width
        return sample_video(dit, tae, encoders, clip.caption, *sides, steps, guidance, seed + number, process, rate)

    return make


def evaluate_samples(make: Sampler, clips: Clips, truth: Truth, extractors: Extractors) -> tuple[float, float]:
    """(FID, FVD) between the clips and one video of the same shape for the caption of each."""
    seen = Seen(extractors)
    for number, batch in enumerate(clips):
        seen.add(make(batch.samples[0], batch.shape, number))
    return seen.distances(truth)
