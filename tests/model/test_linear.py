"""The linear codec: an orthonormal basis that keeps what video has most of."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from rushes.model.inflate import inflate  # noqa: E402
from rushes.model.linear import LinearCodec, markov_basis  # noqa: E402
from rushes.model.tae import TAE, TAE_SIZES  # noqa: E402

torch.set_num_threads(1)
CHANNELS = 16


def drifting(frames: int) -> torch.Tensor:
    """Soft waves [1, 3, frames, 48, 64] in [-1, 1] that move by two pixels a frame."""
    t, y, x = (torch.arange(n, dtype=torch.float32) for n in (frames, 48, 64))
    wave = torch.sin((x[None, None] + 2 * t[:, None, None]) / 7) * torch.cos(y[None, :, None] / 9)
    return torch.stack([0.8 * wave, 0.7 * wave + 0.1, 0.8 * wave - 0.1])[None]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """dB of values in [-1, 1]."""
    return 10 * math.log10(4 / float((a - b).square().mean()))


def test_the_basis_is_orthonormal_and_begins_with_plain_grey():
    basis = markov_basis(CHANNELS)
    assert torch.allclose(basis.T @ basis, torch.eye(CHANNELS), atol=1e-5)
    first = basis[:, 0].reshape(8, 8, 8, 3)
    assert torch.allclose(first[..., 0], first[..., 1]) and (first > 0).all(), "no colour, and slowly varying"
    assert abs(float(first.mean())) > 0.95 / math.sqrt(basis.shape[0]), "nearly constant"


@pytest.mark.parametrize("frames", [1, 7, 8, 17])
@torch.no_grad()
def test_any_number_of_frames_goes_in_and_comes_out(frames):
    video = drifting(frames)
    codec = LinearCodec(CHANNELS)
    latent = codec.encode(video)
    assert latent.shape == (1, CHANNELS, math.ceil(frames / 8), 6, 8)
    made = codec.decode(latent, frames)
    assert made.shape == video.shape and psnr(made, video) > 20


@torch.no_grad()
def test_a_tiny_autoencoder_begins_with_it_ten_decibels_above_the_mean_frame():
    torch.manual_seed(0)
    model, video = TAE(TAE_SIZES["tiny"]), drifting(48)
    made, posterior, latent = model(video)
    assert torch.equal(latent, posterior.mean)
    assert torch.allclose(made, model.linear.decode(model.linear.encode(video), 48), atol=1e-6), "the network adds 0"
    still = video.mean(2, keepdim=True).expand_as(video)
    assert psnr(made, video) > psnr(still, video) + 10
    assert posterior.logvar.exp().sqrt().max() < 0.05, "little noise is drawn before anything is learned"


def test_synthesis_and_network_learn_and_analysis_stays():
    torch.manual_seed(0)
    model = TAE(TAE_SIZES["tiny"])
    video = drifting(16)
    (model(video)[0] - video).square().mean().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert "linear.synthesis.weight" in moved and "decoder.conv_out.spatial.weight" in moved
    assert "linear.analysis" in dict(model.named_buffers())


def test_an_image_autoencoder_is_not_inflated_into_it():
    with pytest.raises(ValueError, match=r"options\.linear"):
        inflate(TAE(TAE_SIZES["tiny"]), {})
