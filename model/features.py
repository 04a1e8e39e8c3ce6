"""Feature extractors and the Frechet distance between two sets of frames (FID; Heusel 2017, sec 2).

A FID is a number of its extractor: values of two extractors have nothing to do with each other, and published ones are
Inception's. So an extractor carries its name wherever its number goes:

    FILE.pt              a TorchScript module: images float32 [N, 3, H, W] in [0, 1] to features [N, D]; it resizes and
                         normalises as its network wants. An exported Inception gives comparable values
    open_clip:NAME/TAG   the image tower of an open_clip model; TAG is a pretrained tag or a checkpoint's path
    random-conv          a small convolutional network of fixed random weights: offline, sees blur and noise, compares
                         models on the same frames with each other and with nothing else

FVD (Unterthiner 2018) is the same distance between features of pieces of 16 frames (`VideoExtractor`). Its file takes
videos float32 [N, 3, 16, H, W] in [0, 1], an exported I3D for example; its random-conv looks over time as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushes.curation.looking.torchvision_schemas import import_open_clip

OFFLINE, CLIP_PREFIX = "random-conv", "open_clip:"
OFFLINE_NAME = "random-conv features, seed 0: comparable only with itself"
OFFLINE_VIDEO_NAME = "random-conv over space and time, seed 0: comparable only with itself"
PIECE = 16  # frames of one feature (FVD's)
OFFLINE_CHANNELS = (3, 16, 32, 64)  # of the offline network; its features are the means of the last three
AT_ONCE = 64  # frames that go through an extractor together


class FeaturesError(ValueError):
    """An extractor that cannot be had or used: one sentence."""


@dataclass(frozen=True)
class Extractor:
    """name: what a figure made with it is labelled with. network: images [N, 3, H, W] in [0, 1] -> [N, D]."""

    name: str
    network: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] -> float64 [T, D]. Raises FeaturesError where the network's answer is something else."""
        parts = []
        for start in range(0, len(frames), AT_ONCE):
            pixels = torch.from_numpy(np.ascontiguousarray(frames[start : start + AT_ONCE])).to(self.device)
            images = pixels.permute(0, 3, 1, 2).float() / 255
            try:
                found = self.network(images)
            except RuntimeError as error:  # what TorchScript raises, whatever is wrong
                reason = " ".join(str(error).split())[-300:]
                raise FeaturesError(f"{self.name} does not take images {list(images.shape)}: {reason}") from error
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
                got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise FeaturesError(
                    f"{self.name} must answer [N, D] for N images, and answered {got} for {len(images)}."
                )
            parts.append(found.double().cpu().numpy())
        return np.concatenate(parts)


@dataclass(frozen=True)
class VideoExtractor:
    """As Extractor, of pieces of 16 frames. network: videos [N, 3, 16, H, W] in [0, 1] -> [N, D]."""

    name: str
    network: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] -> float64 [N, D], N = T // 16; a shorter video is one piece, its last frame held.

        Raises FeaturesError.
        """
        if len(frames) < PIECE:
            frames = np.concatenate([frames, np.repeat(frames[-1:], PIECE - len(frames), 0)])
        found = []
        for start in range(0, len(frames) - PIECE + 1, PIECE):
            pixels = torch.from_numpy(np.ascontiguousarray(frames[start : start + PIECE])).to(self.device)
            video = pixels.permute(3, 0, 1, 2)[None].float() / 255
            try:
                told = self.network(video)
            except RuntimeError as error:  # what TorchScript raises, whatever is wrong
                reason = " ".join(str(error).split())[-300:]
                raise FeaturesError(f"{self.name} does not take videos {list(video.shape)}: {reason}") from error
            if not isinstance(told, Tensor) or told.ndim != 2 or len(told) != 1:
                got = list(told.shape) if isinstance(told, Tensor) else type(told).__name__
                raise FeaturesError(f"{self.name} must answer [N, D] for N videos, and answered {got} for one.")
            found.append(told.double().cpu().numpy())
        return np.concatenate(found)


def load_video_extractor(source: str = OFFLINE, device: torch.device | str = "cpu") -> VideoExtractor:
    """The extractor of videos that `source` names: a TorchScript file or random-conv. Raises FeaturesError."""
    if source == OFFLINE:
        return VideoExtractor(OFFLINE_VIDEO_NAME, RandomConv(time=True).to(device), device)
    return VideoExtractor(f"TorchScript {Path(source).name}", _script(source, device, "a TorchScript file"), device)


def _script(source: str, device: torch.device | str, known: str) -> nn.Module:
    if not Path(source).is_file():
        raise FeaturesError(f"There is no extractor '{source}': name {known}, or {OFFLINE}.")
    try:
        return torch.jit.load(source, map_location=device).eval()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise FeaturesError(f"{source} is not a TorchScript file (torch.jit.save): {reason}") from error


def load_extractor(source: str = OFFLINE, device: torch.device | str = "cpu") -> Extractor:
    """The extractor that `source` names (see the module). Raises FeaturesError."""
    if source == OFFLINE:
        return Extractor(OFFLINE_NAME, RandomConv().to(device), device)
    if source.startswith(CLIP_PREFIX):
        return Extractor(source, _open_clip(source, device), device)
    network = _script(source, device, "a TorchScript file, open_clip:NAME/TAG")
    return Extractor(f"TorchScript {Path(source).name}", network, device)


class RandomConv(nn.Module):
    """Three strided convolutions of fixed random weights; [N, 3, H, W] in [0, 1] -> [N, 16 + 32 + 64].

    time: [N, 3, T, H, W], and the kernels look over time as well.
    """

    def __init__(self, time: bool = False) -> None:
        super().__init__()
        self.convolve, sides = (F.conv3d, (3, 3, 3)) if time else (F.conv2d, (3, 3))
        random = torch.Generator().manual_seed(0)
        self.kernels = nn.ParameterList(
            torch.randn(cout, cin, *sides, generator=random)
            * (2 / (math.prod(sides) * cin)) ** 0.5  # He 2015: keeps the variance
            for cin, cout in pairwise(OFFLINE_CHANNELS)
        )
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        x, means = 2 * images - 1, []
        for kernel in self.kernels:
            x = F.relu(self.convolve(x, kernel, stride=2, padding=1))
            means.append(x.flatten(2).mean(2))
        return torch.cat(means, dim=1)


def _open_clip(source: str, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    model, _, tag = source.removeprefix(CLIP_PREFIX).partition("/")
    if not model or not tag:
        raise FeaturesError(f"'{source}' names no weights; for example open_clip:ViT-B-32/laion2b_s34b_b79k.")
    try:
        open_clip = import_open_clip()
    except ImportError as error:
        raise FeaturesError(
            f"'{source}' needs open_clip, which is not installed: pip install 'rushes[text]'"
        ) from error
    try:
        clip = open_clip.create_model(model, pretrained=tag, device=device).eval().requires_grad_(False)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise FeaturesError(f"There is no open_clip model {model!r} with the weights {tag!r}: {reason}") from error
    colours = clip.visual.image_mean, clip.visual.image_std
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in colours)
    side = clip.visual.image_size
    size = (side, side) if isinstance(side, int) else tuple(side)

    def network(images: Tensor) -> Tensor:
        fitted = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return clip.encode_image((fitted - mean) / std)

    return network


# ---- the distance --------------------------------------------------------------------------------------------------


class Moments:
    """Mean and covariance of features, added up batch by batch in float64 (Chan 1979): no feature is kept."""

    def __init__(self) -> None:
        self.count, self.mean, self.scatter = 0, np.zeros(()), np.zeros(())

    def add(self, features: np.ndarray) -> None:
        """features: float64 [N, D], N >= 1."""
        here, centre = len(features), features.mean(0)
        apart = features - centre
        step = centre - self.mean
        total = self.count + here
        self.scatter = self.scatter + apart.T @ apart + np.outer(step, step) * self.count * here / total
        self.mean = self.mean + step * here / total
        self.count = total

    @property
    def width(self) -> int:
        """D: of one feature."""
        return self.mean.shape[0]

    @property
    def covariance(self) -> np.ndarray:
        """[D, D], unbiased (divided by N - 1)."""
        return self.scatter / max(self.count - 1, 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), float64: 0 for equal moments.

    By eigenvalues of symmetric matrices alone, so that singular covariances (fewer frames than dimensions) do no harm
    to the arithmetic. They do to the meaning: the distance then depends on the number of frames.
    """
    values, vectors = scipy.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    both = scipy.linalg.eigvalsh(root @ b.covariance @ root).clip(min=0)
    apart = a.mean - b.mean
    distance = apart @ apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(both).sum()
    return max(float(distance), 0.0)
