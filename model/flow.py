"""Flow matching as Movie Gen trains it (sec 3.1.2), and the diffusion it is compared with (sec 3.6.2).

Both are a `Process` with one clock: t = 0 is pure noise, t = 1 is data. x0 is the noise, x1 the data, any shape
[B, ...]. A process knows five things: how t is drawn, what the noisy input is, what the network must answer, how
one sampling step is taken, and which times to visit. The training loop and the sampler know nothing else, so the
ablation swaps one object.

What is unusual here:
- Nothing draws noise in secret: x0 comes from the caller, and `sample_time` takes a generator. The loss of a batch
  is a pure function of its inputs, whatever the number of ranks.
- The diffusion has zero terminal SNR: at t = 0 the input is noise alone, as it is when sampling starts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

SIGMA_MIN = 1e-5  # sec 3.1.2
GUIDANCE = 7.5  # sec 3.4: classifier-free guidance weight
SAMPLING_STEPS = 50  # sec 3.4
LINEAR_STEPS = 250  # sec 3.4: the N of the linear schedule that the first half of the steps is taken from
DIFFUSION_STEPS = 1000  # DDPM's number of training noise levels
BETA_START, BETA_END = 0.00085, 0.012  # the "scaled linear" betas of latent diffusion (Rombach 2022, app. D)

Predictor = Callable[[Tensor, Tensor], Tensor]
"""(x [B, ...], t [B] in [0, 1]) -> the network's answer, same shape as x."""


class Process(Protocol):
    """What a training loop and the sampler ask of flow matching or diffusion. x0 noise, x1 data: [B, ...]; t: [B]."""

    def sample_time(
        self, batch: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor: ...

    def interpolate(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor: ...

    def target(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor: ...

    def step(self, x: Tensor, prediction: Tensor, t: float, t_next: float) -> Tensor: ...

    def times(self, steps: int) -> list[float]: ...


@dataclass(frozen=True)
class FlowMatching:
    """Optimal-transport path (Lipman 2023; Movie Gen sec 3.1.2):

    X_t = t X1 + (1 - (1 - sigma_min) t) X0        the noisy input
    V   = dX_t/dt = X1 - (1 - sigma_min) X0        the target
    t   ~ sigmoid(N(time_mean, time_std))          logit-normal
    X_{t'} = X_t + (t' - t) u(X_t, t)              Euler
    """

    sigma_min: float = SIGMA_MIN
    time_mean: float = 0.0  # of logit(t)
    time_std: float = 1.0  # of logit(t)
    linear_steps: int = LINEAR_STEPS  # N of `linear_quadratic_times`

    def sample_time(
        self, batch: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """[batch] float32 in (0, 1), logit-normal. The generator must live on `device`."""
        logit = torch.randn(batch, generator=generator, device=device) * self.time_std + self.time_mean
        return torch.sigmoid(logit)

    def interpolate(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        t = _like(t, x1)
        return t * x1 + (1 - (1 - self.sigma_min) * t) * x0

    def target(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """The velocity; t does not matter, since the path is a straight line."""
        return x1 - (1 - self.sigma_min) * x0

    def step(self, x: Tensor, prediction: Tensor, t: float, t_next: float) -> Tensor:
        return x + (t_next - t) * prediction

    def times(self, steps: int = SAMPLING_STEPS) -> list[float]:
        return linear_quadratic_times(steps, self.linear_steps)


@dataclass(frozen=True)
class VDiffusion:
    """v-prediction diffusion with zero terminal SNR (Salimans 2022; Lin 2024), the baseline of sec 3.6.2:

        X_t = a(t) X1 + s(t) X0,  a^2 + s^2 = 1,  a(0) = 0,  a(1) = 1      the noisy input
        v   = a(t) X0 - s(t) X1                                           the target
        X1' = a X_t - s v,  X0' = s X_t + a v,  X_{t'} = a(t') X1' + s(t') X0'     DDIM, deterministic

    a(t) is the scaled-linear schedule of latent diffusion with its `levels` noise levels, rescaled so that the last
    has no signal, and linear between levels. Training draws the noisy levels alone, uniformly.
    """

    levels: int = DIFFUSION_STEPS
    beta_start: float = BETA_START
    beta_end: float = BETA_END
    snr_shift: float = 1.0  # before that, every level's a^2 / s^2 is divided by it (CogVideoX, after SD3)

    def sample_time(
        self, batch: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """[batch] float32 in [0, 1): 1 - k / levels for k uniform in 1..levels."""
        level = torch.randint(1, self.levels + 1, (batch,), generator=generator, device=device)
        return 1 - level.float() / self.levels

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """t [...] in [0, 1] -> (a, s) of X_t = a X1 + s X0, float32, same shape."""
        table = torch.tensor(
            _signal_table(self.levels, self.beta_start, self.beta_end, self.snr_shift), device=t.device
        )
        position = (1 - t.float()).clamp(0, 1) * self.levels
        low = position.floor().long().clamp(max=self.levels - 1)
        a = torch.lerp(table[low], table[low + 1], position - low)
        return a, (1 - a * a).clamp(min=0).sqrt()

    def interpolate(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        a, s = (_like(c, x1) for c in self.coefficients(t))
        return a * x1 + s * x0

    def target(self, x1: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        a, s = (_like(c, x1) for c in self.coefficients(t))
        return a * x0 - s * x1

    def step(self, x: Tensor, prediction: Tensor, t: float, t_next: float) -> Tensor:
        (a, a_next), (s, s_next) = self.coefficients(torch.tensor([t, t_next], device=x.device))
        data = a * x - s * prediction
        noise = s * x + a * prediction
        return (a_next * data + s_next * noise).to(x.dtype)

    def times(self, steps: int = SAMPLING_STEPS) -> list[float]:
        """Evenly spaced from the pure noise on ("trailing" spacing, Lin 2024 sec 3.3)."""
        return linear_times(steps)


PROCESSES: dict[str, type] = {"flow": FlowMatching, "diffusion": VDiffusion}


@lru_cache(maxsize=8)
def _signal_table(levels: int, beta_start: float, beta_end: float, shift: float) -> list[float]:
    """a at noise levels 0..levels: 1 for clean data, then sqrt(cumprod(1 - beta)) rescaled to end in exactly 0."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, levels, dtype=torch.float64) ** 2
    power = torch.cumprod(1 - betas, 0)
    signal = (power / (shift + (1 - shift) * power)).sqrt()
    first, last = signal[0].clone(), signal[-1].clone()
    signal = (signal - last) * first / (first - last)
    return [1.0, *signal.tolist()]


def _like(t: Tensor, x: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, ...] with the rank and type of x."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def linear_times(steps: int) -> list[float]:
    """steps + 1 times from 0 to 1, evenly spaced."""
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, not {steps}")
    return [i / steps for i in range(steps + 1)]


def linear_quadratic_times(steps: int = SAMPLING_STEPS, linear_steps: int = LINEAR_STEPS) -> list[float]:
    """steps + 1 times from 0 to 1: the first half as in a linear schedule of `linear_steps`, the rest quadratic.

        t_i     = i / N                                        i <= L = steps // 2
        t_{L+j} = L/N + j/N + a j^2,  a = (1 - (L + Q)/N)/Q^2   j <= Q = steps - L

    The quadratic continues with the slope 1/N it is handed and ends in 1 (sec 3.4: 50 steps for the quality of 250).
    """
    if steps < 2 or linear_steps < steps:
        raise ValueError(
            f"the linear-quadratic schedule needs 2 <= steps <= linear_steps, not {steps} and {linear_steps}"
        )
    first = steps // 2
    rest = steps - first
    curve = (1 - steps / linear_steps) / rest**2
    head = [i / linear_steps for i in range(first + 1)]
    tail = [(first + j) / linear_steps + curve * j * j for j in range(1, rest)]
    return [*head, *tail, 1.0]


def training_loss(
    predict: Predictor, process: Process, x1: Tensor, x0: Tensor, t: Tensor, reduce: bool = True
) -> Tensor:
    """Mean squared error of the network's answer on one batch.

    x1 [B, ...]: data; x0 [B, ...]: standard normal noise; t [B] in [0, 1]. Computed in float32.
    Returns a scalar, or with `reduce=False` one value per sample [B].
    """
    prediction = predict(process.interpolate(x1, x0, t), t)
    error = (prediction.float() - process.target(x1, x0, t).float()).square().flatten(1).mean(1)
    return error.mean() if reduce else error


def guided(conditional: Predictor, unconditional: Predictor, scale: float = GUIDANCE) -> Predictor:
    """Classifier-free guidance: u = u_null + scale (u_text - u_null). At scale 1 the second network is not asked."""
    if scale == 1.0:
        return conditional

    def predict(x: Tensor, t: Tensor) -> Tensor:
        without = unconditional(x, t)
        return without + scale * (conditional(x, t) - without)

    return predict


@torch.no_grad()
def sample(
    predict: Predictor,
    noise: Tensor,
    process: Process | None = None,
    times: Sequence[float] | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Noise [B, ...] to data [B, ...], one network call per interval of `times`.

    process: FlowMatching by default. times: increasing, from 0 to 1; the process's own 50 steps by default.
    on_step(i, x) is told after each step: progress, previews. Raises ValueError on times that do not run 0 to 1.
    """
    process = FlowMatching() if process is None else process
    times = list(process.times(SAMPLING_STEPS) if times is None else times)
    if len(times) < 2 or times[0] != 0 or times[-1] != 1 or any(a >= b for a, b in pairwise(times)):
        raise ValueError("sampling times must increase from 0 (noise) to 1 (data)")
    x = noise
    for index, (t, t_next) in enumerate(pairwise(times)):
        prediction = predict(x, torch.full((len(x),), t, device=x.device))
        x = process.step(x, prediction, t, t_next)
        if on_step is not None:
            on_step(index, x)
    return x
