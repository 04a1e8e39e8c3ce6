"""A TAE of blocks: it begins as a linear transform that is fitted to the clips, and learns what is above it."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rushes.model.blocks import fit, from_blocks, stationary, to_blocks  # noqa: E402
from rushes.model.evaluate import psnr  # noqa: E402
from rushes.model.inflate import inflate  # noqa: E402
from rushes.model.losses import TAELossConfig, tae_loss  # noqa: E402
from rushes.model.tae import TAE  # noqa: E402
from rushes.model.tae_config import TAEConfig  # noqa: E402
from rushes.model.yardsticks import CORRELATIONS, linear_reconstruction, markov_basis  # noqa: E402

torch.set_num_threads(1)
SMALL = TAEConfig((16,), 1, norm_groups=0, blocks=True)


def drifting(frames: int, seed: int = 0) -> torch.Tensor:
    """[1, 3, frames, 48, 64] in [-1, 1]: soft waves that move by two pixels a frame, each seed another length."""
    t, y, x = (torch.arange(n, dtype=torch.float32) for n in (frames, 48, 64))
    wave = torch.sin((x[None, None] + 2 * t[:, None, None]) / (6 + seed)) * torch.cos(y[None, :, None] / (9 - seed))
    return torch.stack([0.8 * wave, 0.7 * wave + 0.1, 0.8 * wave - 0.1])[None]


def decibels(a: torch.Tensor, b: torch.Tensor) -> float:
    """dB of values in [-1, 1]."""
    return 10 * math.log10(4 / float((a - b).square().mean()))


@pytest.mark.parametrize("frames", [1, 7, 8, 17])
def test_blocks_come_back_at_any_number_of_frames(frames):
    video = drifting(frames)
    assert torch.equal(from_blocks(to_blocks(video), frames), video)


@pytest.mark.parametrize("frames", [1, 9])
@torch.no_grad()
def test_the_latents_are_those_of_any_tae(frames):
    made, _, latent = TAE(SMALL)(drifting(frames))
    assert latent.shape == (1, 16, math.ceil(frames / 8), 6, 8) and made.shape == (1, 3, frames, 48, 64)


@torch.no_grad()
def test_a_fitted_transform_is_above_the_linear_yardstick_on_its_clips():
    torch.manual_seed(0)
    model, video = TAE(SMALL), drifting(48)
    fit(model.blocks, [video])
    made, posterior, _ = model(video)
    frames = ((video[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
    fixed = max(psnr(frames, linear_reconstruction(frames, 16, one)) for one in CORRELATIONS)
    assert decibels(made, video) > fixed
    assert posterior.mean.std() < 1.5 and posterior.logvar.exp().sqrt().max() < 0.02


def test_moments_of_a_block_are_those_of_its_shifts_and_mirror_images():
    random = torch.Generator().manual_seed(0)
    blocks = torch.randn(3, 8, 8, 8, 3, generator=random, dtype=torch.float64)
    moments = [stationary(one.flatten(1).T @ one.flatten(1)) for one in (blocks, blocks.flip(2))]
    assert torch.allclose(*moments) and torch.allclose(moments[0], moments[0].T)
    table = moments[0].view(8, 8, 8, 3, 8, 8, 8, 3)
    assert torch.allclose(table[0, 2, 3, 1, 4, 2, 1, 2], table[5, 7, 0, 1, 1, 7, 2, 2]), "4 frames and 2 columns apart"
    assert torch.allclose(moments[0].trace(), blocks.square().sum())


@pytest.mark.heavy
def test_a_video_that_moves_much_does_not_count_for_more_than_others():
    """Of one quiet and one wild video the transform keeps what is best for the mean of their PSNR."""
    torch.manual_seed(0)
    wild, quiet = torch.rand(1, 3, 16, 48, 64) * 2 - 1, drifting(16)
    alone, both = TAE(SMALL), TAE(SMALL)
    fit(alone.blocks, [quiet])
    fit(both.blocks, [wild, quiet])
    errors = [decibels(model(quiet)[0].detach(), quiet) for model in (alone, both)]
    assert errors[1] > errors[0] - 1


def test_both_ends_and_the_network_learn_above_it():
    torch.manual_seed(0)
    model, video = TAE(SMALL), torch.cat([drifting(16, seed) for seed in (0, 3)])
    fit(model.blocks, [drifting(16, 1)])
    config = TAELossConfig(l1=0, l2=1, perceptual=0, opl=0, adversarial=0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    before = decibels(model(video)[0].detach(), video)
    for _ in range(30):
        loss, _ = tae_loss(config, video, *model(video))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.blocks.analysis.weight.grad.abs().max() > 0 and model.encoder.conv_in.weight.grad.abs().max() > 0
    assert decibels(model(video)[0].detach(), video) > before + 0.3


def test_an_image_autoencoder_is_not_inflated_into_it():
    with pytest.raises(ValueError, match=r"options\.blocks"):
        inflate(TAE(SMALL), {})


def test_the_yardstick_is_orthonormal_and_begins_with_plain_grey():
    basis = markov_basis(16, 0.9)
    assert torch.allclose(basis.T @ basis, torch.eye(16), atol=1e-5)
    first = basis[:, 0].reshape(8, 8, 8, 3)
    assert torch.allclose(first[..., 0], first[..., 1]) and (first.sign() == first.flatten()[0].sign()).all()
    grey = np.full((8, 16, 16, 3), 77, np.uint8)
    assert np.array_equal(linear_reconstruction(np.repeat(grey, 2, 0), 1536, 0.9), np.repeat(grey, 2, 0))
