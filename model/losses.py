"""What the temporal autoencoder is trained on (Movie Gen sec 3.1.1): the LDM objective and the outlier penalty.

    total = l1 |video - reconstruction|  +  l2 (video - reconstruction)^2  +  kl KL(posterior)  +  perceptual LPIPS
            +  opl OPL  +  adversarial a G

The paper prints the outlier penalty's r and weight and no other; the defaults are those of latent diffusion and of
the public re-implementation. A weight of 0 switches a term off. A term whose weight is not 0 and whose network is
not given is an error, never a term left out in silence.

Videos are [B, 3, T, H, W] in [-1, 1], latents [B, C, T', H', W'].
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rushes.model.parallel import mean_over_ranks
from rushes.model.tae import Posterior

VARIANCE_FLOOR = 1e-12  # under the square root of a variance: its gradient stays finite on a constant latent
ADAPTIVE_LIMIT = 1e4  # LDM's bounds of the adaptive weight
ADAPTIVE_EPS = 1e-4
LEAK = 0.2  # of the discriminator's leaky ReLU (Isola 2017)
FRAMES_AT_ONCE = 16  # of the perceptual network, to bound its memory


@dataclass(frozen=True)
class TAELossConfig:
    """Weights of the terms; each term is a mean, so weights hold at any size and length."""

    l1: float = 1.0
    l2: float = 0.0
    kl: float = 1e-6  # of nats per number in the video: comparable with LDM's sums
    perceptual: float = 1.0
    opl: float = 1e5  # sec 3.1.1; at small scale others report that a far lower weight is needed
    opl_r: float = 3.0  # sec 3.1.1: standard deviations that a latent may lie from its frame's mean
    adversarial: float = 0.5
    adversarial_start: int = 50_001  # step from which the discriminator takes part
    adaptive: bool = True  # scale the adversarial term to the gradient of the reconstruction (AdaptiveWeight)


# ---- terms ---------------------------------------------------------------------------------------------------------


def l1_loss(video: Tensor, reconstruction: Tensor) -> Tensor:
    """Mean absolute error, in [0, 2] for videos in range. float32 scalar."""
    return (video.float() - reconstruction.float()).abs().mean()


def kl_loss(posterior: Posterior, video: Tensor) -> Tensor:
    """Nats of the latent per number in the video: KL summed over the latent / (C T H W), mean over the batch."""
    return posterior.kl().mean() / video[0].numel()


def outlier_penalty(latent: Tensor, r: float = 3.0) -> Tensor:
    """Outlier penalty loss (sec 3.1.1) over each latent frame X [C, H, W], averaged over frames:

        L(X, r) = 1/(H W) sum_ij max( |X_ij - Mean(X)| - r |Std(X)|, 0 )

    with norms over the C channels, mean and (population) standard deviation per channel over the frame's H W places.
    It is 0 unless a place is far from its frame: the high-norm dots that decode to spots. float32 scalar.
    """
    x = latent.float().flatten(3)  # [B, C, T, H*W]
    centred = x - x.mean(3, keepdim=True)
    spread = (centred.square().mean(3) + VARIANCE_FLOOR).sqrt()  # [B, C, T]
    distance = torch.linalg.vector_norm(centred, dim=1)  # [B, T, H*W]
    limit = r * torch.linalg.vector_norm(spread, dim=1).unsqueeze(-1)  # [B, T, 1]
    return F.relu(distance - limit).mean()


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of the discriminator: (mean relu(1 - D(real)) + mean relu(1 + D(fake))) / 2."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def hinge_generator_loss(fake: Tensor) -> Tensor:
    """Hinge loss of the autoencoder: -mean D(fake)."""
    return -fake.float().mean()


class AdaptiveWeight(nn.Module):
    """|grad of the reconstruction| / |grad of the adversarial term| at the decoder's last weight, in [0, 1e4] (Esser
    2021, eq. 7): what the adversarial term is scaled with.

    Latent diffusion takes it from each GPU's own micro-batch, so that what is learned depends on how a batch is dealt
    out. Here one value holds for a step: that of the whole global batch of the step before, and 0 at the first. It is
    a buffer, saved with the discriminator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(()))
        self._gradients: list[Tensor] = []

    def measure(self, reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor) -> None:
        """Take the gradients of a micro-batch's two losses into account."""
        parts = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (reconstruction, adversarial)]
        self._gradients.append(torch.stack(parts).float())

    @torch.no_grad()
    def update(self) -> None:
        """At the end of a step, on all ranks at once: the value for the next one."""
        if not self._gradients:
            return
        reconstruction, adversarial = mean_over_ranks(torch.stack(self._gradients).mean(0))
        ratio = (reconstruction.norm() / (adversarial.norm() + ADAPTIVE_EPS)).clamp(0, ADAPTIVE_LIMIT)
        self.value.copy_(torch.where(ratio.isfinite(), ratio, self.value))
        self._gradients.clear()


# ---- networks ------------------------------------------------------------------------------------------------------

# VGG16's convolutions up to relu5_3: (index in torchvision's `features`, in, out); "M" is a max pool in front.
_VGG = (
    ((0, 3, 64), (2, 64, 64)),
    ((5, 64, 128), (7, 128, 128)),
    ((10, 128, 256), (12, 256, 256), (14, 256, 256)),
    ((17, 256, 512), (19, 512, 512), (21, 512, 512)),
    ((24, 512, 512), (26, 512, 512), (28, 512, 512)),
)
# LPIPS's own: images in [-1, 1] to VGG's normalised colours.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_UNIT_EPS = 1e-10


class PerceptualLoss(nn.Module):
    """LPIPS (Zhang 2018) with VGG16, version 0.1, frozen: per-frame distance of unit-normalised features.

    Build it with `load_perceptual`; a network of random weights is of use in tests alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {str(i): nn.Conv2d(cin, cout, 3, padding=1) for stage in _VGG for i, cin, cout in stage}
        )
        self.lins = nn.ParameterList([torch.zeros(stage[-1][2]) for stage in _VGG])
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def forward(self, video: Tensor, reconstruction: Tensor) -> Tensor:
        """Mean distance over all frames, >= 0, float32 scalar. At least 16 x 16 pixels."""
        a, b = (x.float().transpose(1, 2).flatten(0, 1) for x in (video, reconstruction))  # [B*T, 3, H, W]
        parts = zip(a.split(FRAMES_AT_ONCE), b.split(FRAMES_AT_ONCE))
        return torch.cat([self._distance(x, y) for x, y in parts]).mean()

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        n, total = len(a), 0.0
        x = (torch.cat([a, b]) - self.shift) / self.scale
        for number, stage in enumerate(_VGG):
            x = F.max_pool2d(x, 2) if number else x
            for index, _, _ in stage:
                x = F.relu(self.features[str(index)](x))
            unit = x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _UNIT_EPS)
            difference = (unit[:n] - unit[n:]).square() * self.lins[number].view(1, -1, 1, 1)
            total = total + difference.sum(1).mean((1, 2))
        return total  # [n]


def load_perceptual(vgg_path: str | os.PathLike[str], lins_path: str | os.PathLike[str]) -> PerceptualLoss:
    """LPIPS from two local files, or one that holds both, given twice.

    vgg_path: torchvision's VGG16 (`features.N.weight`), e.g. vgg16-397923af.pth.
    lins_path: the lpips package's linear weights (`linN.model.1.weight`), lpips/weights/v0.1/vgg.pth.
    Raises FileNotFoundError where a file is not there, ValueError where it lacks a weight or one has another shape.
    """
    loss = PerceptualLoss()
    vgg, lins = _load(vgg_path, "VGG16"), _load(lins_path, "LPIPS linear")
    wanted = {f"features.{name}": p for name, p in loss.features.named_parameters()}
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(_weight(vgg, name, parameter.shape, vgg_path))
        for number, parameter in enumerate(loss.lins):
            name = f"lin{number}.model.1.weight"
            parameter.copy_(_weight(lins, name, (1, len(parameter), 1, 1), lins_path).flatten())
    return loss


def _load(path: str | os.PathLike[str], what: str) -> Mapping[str, Tensor]:
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"the perceptual loss needs the {what} weights and there is no file {os.fspath(path)!r}; "
            "give a path that exists, or set the weight of the perceptual term to 0"
        )
    if os.fspath(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _weight(state: Mapping[str, Tensor], name: str, shape: tuple[int, ...], path: str | os.PathLike[str]) -> Tensor:
    if name not in state:
        raise ValueError(f"{os.fspath(path)!r} has no weight {name!r}, which the perceptual loss needs")
    if tuple(state[name].shape) != tuple(shape):
        raise ValueError(f"{name!r} in {os.fspath(path)!r} has the shape {list(state[name].shape)}, not {list(shape)}")
    return state[name]


class Discriminator(nn.Module):
    """3D patch discriminator: [B, 3, T, H, W] to one logit per patch [B, 1, T', H', W'], about 1/8 of each side.

    PatchGAN (Isola 2017) with 3D kernels; group norm in place of batch norm, which would tie a sample's gradient to
    its batch and its rank. A single frame is a video of length 1; frames of at least 32 x 32.
    """

    def __init__(self, width: int = 64, layers: int = 3, channels: int = 3, groups: int = 8):
        super().__init__()
        widths = [width * min(2**i, 8) for i in range(layers + 1)]
        self.first = nn.Conv3d(channels, width, (3, 4, 4), stride=(1, 2, 2), padding=1)
        self.convs = nn.ModuleList(
            nn.Conv3d(a, b, (3, 4, 4), stride=(2, 2, 2) if i < layers - 1 else 1, padding=1, bias=False)
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(groups, b) for b in widths[1:])
        self.last = nn.Conv3d(widths[-1], 1, (3, 4, 4), padding=1)
        self.adaptive = AdaptiveWeight()

    def forward(self, video: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(video), LEAK)
        for conv, norm in zip(self.convs, self.norms):
            x = F.leaky_relu(norm(conv(x)), LEAK)
        return self.last(x)


# ---- the objective -------------------------------------------------------------------------------------------------


def tae_loss(
    config: TAELossConfig,
    video: Tensor,
    reconstruction: Tensor,
    posterior: Posterior,
    latent: Tensor,
    step: int = 0,
    perceptual: nn.Module | None = None,
    discriminator: Discriminator | None = None,
    last_layer: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The autoencoder's loss on one batch, and its terms, unweighted and detached, by name.

    step: decides whether the discriminator takes part yet. perceptual(video, reconstruction) -> scalar.
    last_layer: the decoder's last weight, which the adaptive weight is taken at: end a step with the discriminator's
    `adaptive.update()`. Freeze the discriminator's parameters around this call, or clear their gradients after it.
    Raises ValueError where a term is switched on and what it needs is not given.
    """
    _need(config.perceptual, perceptual, "perceptual", "a perceptual network (load_perceptual)")
    fights = config.adversarial != 0 and step >= config.adversarial_start
    _need(fights, discriminator, "adversarial", "a discriminator")
    _need(fights and config.adaptive, last_layer, "adversarial", "the decoder's last layer for the adaptive weight")

    terms = {"l1": l1_loss(video, reconstruction), "kl": kl_loss(posterior, video)}
    if config.l2:
        terms["l2"] = F.mse_loss(reconstruction.float(), video.float())
    if config.perceptual:
        terms["perceptual"] = perceptual(video, reconstruction)
    if config.opl:
        terms["opl"] = outlier_penalty(latent, config.opl_r)
    total = sum(getattr(config, name) * value for name, value in terms.items())
    if fights:
        terms["adversarial"] = hinge_generator_loss(discriminator(reconstruction))
        scale = 1.0
        if config.adaptive:
            looks = sum(getattr(config, name) * terms[name] for name in ("l1", "l2", "perceptual") if name in terms)
            terms["adversarial_scale"] = scale = discriminator.adaptive.value.clone()
            if torch.is_grad_enabled():
                discriminator.adaptive.measure(looks, terms["adversarial"], last_layer)
        total = total + config.adversarial * scale * terms["adversarial"]
    return total, {name: value.detach() for name, value in terms.items()}


def _need(weight: float | bool, given: object, term: str, what: str) -> None:
    if weight and given is None:
        raise ValueError(f"the {term} term of the loss is switched on and needs {what}; or set its weight to 0")
