"""The autoencoder's losses: closed forms, switches, and refusals in place of silence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from rushes.model.losses import (  # noqa: E402
    AdaptiveWeight,
    Discriminator,
    PerceptualLoss,
    TAELossConfig,
    hinge_discriminator_loss,
    hinge_generator_loss,
    kl_loss,
    load_perceptual,
    outlier_penalty,
    tae_loss,
)
from rushes.model.tae import Posterior  # noqa: E402

torch.set_num_threads(1)
PLAIN = TAELossConfig(perceptual=0, opl=0, adversarial=0)


def batch(frames: int = 2, side: int = 16):
    """(video, reconstruction, posterior, latent) of one small batch; the reconstruction wants a gradient."""
    torch.manual_seed(0)
    video = torch.rand(2, 3, frames, side, side) * 2 - 1
    reconstruction = (video + 0.1 * torch.randn_like(video)).requires_grad_()
    posterior = Posterior(torch.randn(2, 16, 1, 4, 4), torch.randn(2, 16, 1, 4, 4))
    return video, reconstruction, posterior, posterior.mean


def test_kl_is_the_integral_of_the_definition():
    posterior = Posterior(torch.tensor([[[[[0.7]]]]]), torch.tensor([[[[[-0.5]]]]]))
    q = torch.distributions.Normal(0.7, math.exp(-0.25))
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    assert posterior.kl().item() == pytest.approx(expected.item(), rel=1e-5)


def test_kl_weighs_the_same_at_any_length_and_size():
    small, large = (Posterior(torch.ones(1, 16, n, n, n), torch.zeros(1, 16, n, n, n)) for n in (1, 2))
    a = kl_loss(small, torch.zeros(1, 3, 8, 8, 8))
    b = kl_loss(large, torch.zeros(1, 3, 16, 16, 16))
    assert a.item() == pytest.approx(b.item()) and a.item() == pytest.approx(0.5 * 16 / (3 * 512))


def test_a_latent_without_outliers_costs_nothing():
    torch.manual_seed(0)
    assert outlier_penalty(torch.randn(2, 16, 3, 8, 8)).item() == 0


def test_one_bright_place_is_penalised_by_the_formula():
    latent = torch.zeros(1, 4, 1, 10, 10)
    latent[0, 0, 0, 3, 7] = 100.0
    # One of 100 places: mean 1, std sqrt(99) in one channel; distance there 99, elsewhere 1 (below the limit).
    expected = (99 - 3 * math.sqrt(99)) / 100
    assert outlier_penalty(latent, r=3).item() == pytest.approx(expected, rel=1e-5)


def test_an_outlier_is_measured_against_its_own_frame():
    torch.manual_seed(0)
    latent = torch.randn(1, 4, 2, 8, 8)
    latent[:, :, 1] = latent[:, :, 1] * 50 + 1000  # a loud frame beside a quiet one is no outlier
    assert outlier_penalty(latent).item() == 0


def test_the_gradient_of_the_penalty_is_finite_on_a_constant_latent():
    latent = torch.ones(1, 4, 1, 3, 3, requires_grad=True)
    outlier_penalty(latent).backward()
    assert torch.isfinite(latent.grad).all()


def test_the_penalty_pulls_the_outlier_in():
    latent = torch.zeros(1, 4, 1, 10, 10)
    latent[0, 0, 0, 3, 7] = 100.0
    latent.requires_grad_()
    outlier_penalty(latent).backward()
    assert latent.grad[0, 0, 0, 3, 7] > 0


def test_hinge_losses_stop_at_the_margin():
    assert hinge_discriminator_loss(torch.full((4,), 1.5), torch.full((4,), -1.5)).item() == 0
    assert hinge_discriminator_loss(torch.zeros(4), torch.zeros(4)).item() == 1
    assert hinge_generator_loss(torch.tensor([1.0, 3.0])).item() == -2


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_the_discriminator_judges_patches_of_any_length(frames):
    logits = Discriminator(width=8)(torch.randn(2, 3, frames, 32, 32))
    assert logits.shape[:2] == (2, 1) and logits.numel() > 2


def test_the_discriminator_looks_across_time():
    torch.manual_seed(0)
    judge, video = Discriminator(width=8), torch.randn(1, 3, 8, 32, 32)
    shuffled = video[:, :, [1, 0, 3, 2, 5, 4, 7, 6]]
    assert not torch.allclose(judge(video).mean(), judge(shuffled).mean(), atol=1e-5)


def test_the_adaptive_weight_is_the_ratio_of_gradients():
    layer, weight = torch.ones(3, requires_grad=True), AdaptiveWeight()
    weight.measure((5 * layer).sum(), (1 * layer).sum(), layer)
    weight.measure((7 * layer).sum(), (3 * layer).sum(), layer)
    assert weight.value == 0  # until the step has ended
    weight.update()
    assert weight.value.item() == pytest.approx(3, rel=1e-3) and not weight.value.requires_grad
    weight.update()  # a step without the term
    assert weight.value.item() == pytest.approx(3, rel=1e-3)


def test_the_total_is_the_weighted_sum_of_its_terms():
    config = replace(PLAIN, l1=2.0, kl=3.0, opl=5.0, opl_r=0.5)
    total, terms = tae_loss(config, *batch())
    assert set(terms) == {"l1", "kl", "opl"} and terms["opl"] > 0
    assert total.item() == pytest.approx((2 * terms["l1"] + 3 * terms["kl"] + 5 * terms["opl"]).item(), rel=1e-6)


def test_a_perceptual_term_without_its_network_is_refused():
    with pytest.raises(ValueError, match=r"perceptual term .* weight to 0"):
        tae_loss(replace(PLAIN, perceptual=1.0), *batch())


def test_an_adversarial_term_without_its_network_is_refused_from_its_first_step():
    config = replace(PLAIN, adversarial=0.5, adversarial_start=10)
    tae_loss(config, *batch(), step=9)
    with pytest.raises(ValueError, match="adversarial term"):
        tae_loss(config, *batch(), step=10)


def test_the_adversarial_term_joins_at_its_step_and_is_scaled():
    config = replace(PLAIN, adversarial=0.5, adversarial_start=10)
    video, reconstruction, posterior, latent = batch(side=32)
    judge = Discriminator(width=8)
    for expected in (0.0, None):
        total, terms = tae_loss(
            config, video, reconstruction, posterior, latent, 10, discriminator=judge, last_layer=reconstruction
        )
        assert terms["adversarial_scale"] == expected or expected is None
        judge.adaptive.update()
    parts = terms["l1"] + 1e-6 * terms["kl"] + 0.5 * terms["adversarial_scale"] * terms["adversarial"]
    assert total.item() == pytest.approx(parts.item(), rel=1e-5) and terms["adversarial_scale"] > 0
    total.backward()
    assert torch.isfinite(reconstruction.grad).all()


@pytest.fixture(scope="module")
def lpips_files(tmp_path_factory):
    """Random weights in the two public layouts."""
    torch.manual_seed(0)
    folder, network = tmp_path_factory.mktemp("lpips"), PerceptualLoss()
    vgg = {f"features.{name}": p for name, p in network.features.state_dict().items()}
    lins = {f"lin{i}.model.1.weight": torch.rand(1, len(p), 1, 1) for i, p in enumerate(network.lins)}
    torch.save(vgg, folder / "vgg16.pth")
    torch.save(lins, folder / "lins.pth")
    return folder / "vgg16.pth", folder / "lins.pth"


def test_perceptual_distance_is_zero_for_equal_videos_and_grows_with_noise(lpips_files):
    loss, (video, *_) = load_perceptual(*lpips_files), batch()
    noise = torch.randn_like(video)
    assert loss(video, video).item() == 0
    assert 0 < loss(video, video + 0.05 * noise).item() < loss(video, video + 0.5 * noise).item()


def test_perceptual_weights_are_frozen_and_let_the_gradient_through(lpips_files):
    loss, (video, reconstruction, *_) = load_perceptual(*lpips_files), batch()
    loss(video, reconstruction).backward()
    assert reconstruction.grad.abs().max() > 0
    assert not any(p.requires_grad for p in loss.parameters())


def test_perceptual_weights_that_are_not_there_are_a_sentence(lpips_files, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"VGG16 weights.*nothing\.pth.*to 0"):
        load_perceptual(tmp_path / "nothing.pth", lpips_files[1])


def test_a_file_of_other_weights_is_named(lpips_files):
    vgg, lins = lpips_files
    with pytest.raises(ValueError, match=r"lins\.pth.*features\.0\.weight"):
        load_perceptual(lins, vgg)


def test_the_squared_error_is_a_term_of_its_own():
    video, reconstruction, posterior, latent = batch()
    total, terms = tae_loss(replace(PLAIN, l1=0.0, l2=2.0, kl=0.0), video, reconstruction, posterior, latent)
    assert torch.allclose(total, 2 * (video - reconstruction).square().mean())
    assert torch.allclose(terms["l2"], (video - reconstruction).square().mean())
    assert "l2" not in tae_loss(PLAIN, video, reconstruction, posterior, latent)[1]
