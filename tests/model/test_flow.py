"""Flow matching and diffusion: closed forms, and sampling along fields whose answer is known."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from rushes.model.flow import (  # noqa: E402
    SIGMA_MIN,
    FlowMatching,
    VDiffusion,
    guided,
    linear_quadratic_times,
    linear_times,
    sample,
    training_loss,
)

torch.set_num_threads(1)
MEAN, STD = 1.5, 0.4  # of the Gaussian "data" below


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_velocity(x, t):
    """E[X1 - (1 - s) X0 | X_t = x] for X1 ~ N(MEAN, STD^2): the best answer any network could give."""
    t = t.double().view(-1, 1)
    rest = 1 - (1 - SIGMA_MIN) * t
    offset = (x - t * MEAN) / (t**2 * STD**2 + rest**2)
    return MEAN + t * STD**2 * offset - (1 - SIGMA_MIN) * rest * offset


def gaussian_v(x, t):
    """The same for v = a X0 - s X1."""
    a, s = (c.double().view(-1, 1) for c in VDiffusion().coefficients(t.float()))
    offset = (x - a * MEAN) / (a**2 * STD**2 + s**2)
    return a * s * offset - s * (MEAN + a * STD**2 * offset)


def test_the_path_runs_from_noise_to_data():
    data, noise = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    flow = FlowMatching()
    assert torch.equal(flow.interpolate(data, noise, torch.zeros(3)), noise)
    assert torch.allclose(flow.interpolate(data, noise, torch.ones(3)), data + SIGMA_MIN * noise, atol=1e-6)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_the_target_is_the_derivative_of_the_path(t):
    data, noise = (torch.randn(3, 5, generator=generator(i), dtype=torch.float64) for i in (0, 1))
    flow, step = FlowMatching(), 1e-4
    now = torch.full((3,), t, dtype=torch.float64)
    slope = (flow.interpolate(data, noise, now + step) - flow.interpolate(data, noise, now - step)) / (2 * step)
    assert torch.allclose(slope, flow.target(data, noise, now), atol=1e-8)


def test_times_of_training_are_logit_normal():
    t = FlowMatching().sample_time(20_000, generator())
    logit = torch.logit(t)
    assert abs(logit.mean().item()) < 0.03 and abs(logit.std().item() - 1) < 0.03
    # quartiles of sigmoid(N(0, 1)): sigmoid(0.6745) = 0.6625
    assert torch.allclose(t.quantile(torch.tensor([0.25, 0.5, 0.75])), torch.tensor([0.3375, 0.5, 0.6625]), atol=0.01)


def test_the_same_generator_draws_the_same_times():
    for process in (FlowMatching(), VDiffusion()):
        assert torch.equal(process.sample_time(8, generator(3)), process.sample_time(8, generator(3)))


def test_the_first_half_of_the_schedule_is_linear_in_250():
    times = linear_quadratic_times()
    assert len(times) == 51 and times[0] == 0 and times[-1] == 1
    assert times[:26] == pytest.approx([i / 250 for i in range(26)])


def test_the_second_half_of_the_schedule_is_quadratic_and_joins_smoothly():
    times = linear_quadratic_times()
    # The public closed form: f(i) = a i^2 + b i + c for i >= L, with threshold 25/250.
    total, half, threshold = 50, 25, 0.1
    d = half - threshold * total
    a, b = d / (half * half**2), threshold / half - 2 * d / half**2
    expected = [a * i * i + b * i + a * half**2 for i in range(half, total + 1)]
    assert times[25:] == pytest.approx(expected)
    steps = [y - x for x, y in pairwise(times)]
    assert all(later >= earlier - 1e-12 for earlier, later in pairwise(steps))


@pytest.mark.parametrize("steps, linear", [(1, 250), (50, 40)])
def test_a_schedule_that_cannot_be_is_refused(steps, linear):
    with pytest.raises(ValueError, match="schedule needs"):
        linear_quadratic_times(steps, linear)


@pytest.mark.parametrize("times", [[0.0, 0.5], [0.0, 0.5, 0.5, 1.0], [1.0, 0.0]])
def test_sampling_times_must_run_from_noise_to_data(times):
    with pytest.raises(ValueError, match="increase from 0"):
        sample(lambda x, t: x, torch.zeros(1, 2), times=times)


def test_one_point_is_recovered_from_any_noise_in_any_number_of_steps():
    point = torch.randn(1, 4, generator=generator(5), dtype=torch.float64)
    noise = torch.randn(64, 4, generator=generator(6), dtype=torch.float64)

    def velocity(x, t):
        t = t.double().view(-1, 1)
        x0 = (x - t * point) / (1 - (1 - SIGMA_MIN) * t)
        return point - (1 - SIGMA_MIN) * x0

    for steps in (2, 50):
        out = sample(velocity, noise, times=linear_quadratic_times(steps))
        assert torch.allclose(out, point + SIGMA_MIN * noise, atol=1e-9)


FIELDS = pytest.mark.parametrize(
    "process, field", [(FlowMatching(), gaussian_velocity), (VDiffusion(), gaussian_v)], ids=["flow", "diffusion"]
)


@FIELDS
def test_a_gaussian_is_recovered(process, field):
    noise = torch.randn(1000, 1, generator=generator(1), dtype=torch.float64)
    out = sample(field, noise, process, linear_times(1000))
    # The exact flow between Gaussians is affine: noise n goes to MEAN + STD n.
    assert torch.allclose(out, MEAN + STD * noise, atol=0.012)


@FIELDS
def test_the_error_of_the_sampler_falls_with_the_number_of_steps(process, field):
    noise = torch.randn(500, 1, generator=generator(2), dtype=torch.float64)
    error = [
        (sample(field, noise, process, linear_times(steps)) - MEAN - STD * noise).abs().mean()
        for steps in (25, 50, 100)
    ]
    assert error[0] > 1.6 * error[1] > 1.6**2 * error[2]  # first order: halved, nearly, with each doubling


def test_diffusion_starts_from_pure_noise_and_ends_in_pure_data():
    data, noise = torch.randn(2, 6), torch.randn(2, 6)
    diffusion = VDiffusion()
    assert torch.equal(diffusion.interpolate(data, noise, torch.zeros(2)), noise)
    assert torch.equal(diffusion.interpolate(data, noise, torch.ones(2)), data)
    a, s = diffusion.coefficients(torch.linspace(0, 1, 101))
    assert torch.allclose(a**2 + s**2, torch.ones(101), atol=1e-6)
    assert (a.diff() > 0).all()


def test_a_diffusion_step_with_the_true_v_lands_on_the_path():
    data, noise = (torch.randn(2, 6, generator=generator(i)) for i in (0, 1))
    diffusion = VDiffusion()
    now, then = torch.full((2,), 0.3), torch.full((2,), 0.7)
    x = diffusion.step(diffusion.interpolate(data, noise, now), diffusion.target(data, noise, now), 0.3, 0.7)
    assert torch.allclose(x, diffusion.interpolate(data, noise, then), atol=1e-5)


def test_diffusion_never_trains_on_clean_data():
    t = VDiffusion().sample_time(5000, generator())
    assert t.min() >= 0 and t.max() < 1 and abs(t.mean().item() - 0.5) < 0.02


@pytest.mark.parametrize("process", [FlowMatching(), VDiffusion()], ids=["flow", "diffusion"])
def test_the_loss_is_zero_for_the_true_answer_and_counts_each_sample(process):
    data, noise = (torch.randn(3, 2, 4, generator=generator(i)) for i in (0, 1))
    t = torch.tensor([0.2, 0.5, 0.8])
    truth = process.target(data, noise, t)
    assert training_loss(lambda x, t: truth, process, data, noise, t).item() == 0
    wrong = truth.clone()
    wrong[1] += 2
    each = training_loss(lambda x, t: wrong, process, data, noise, t, reduce=False)
    assert torch.allclose(each, torch.tensor([0.0, 4.0, 0.0]), atol=1e-5)


def test_guidance_moves_away_from_the_unconditional_answer():
    x, t = torch.zeros(2, 3), torch.zeros(2)
    predict = guided(lambda x, t: x + 2, lambda x, t: x + 1, scale=7.5)
    assert torch.allclose(predict(x, t), torch.full((2, 3), 1 + 7.5))


def test_guidance_of_one_does_not_ask_the_second_network():
    def never(x, t):
        raise AssertionError("asked")

    assert torch.equal(guided(lambda x, t: x, never, 1.0)(torch.ones(1), torch.ones(1)), torch.ones(1))
