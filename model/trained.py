"""A model in training: the optimizer that moves it, and the moving average that is sampled and evaluated."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from rushes.model.parallel import by_mesh, clip_gradients
from rushes.model.train_recipe import Optimizer

EMA_RAMP = 10  # the average's decay is at most (1 + n) / (10 + n) after n steps, so that short runs have one too
BY_NAME = StateDictOptions(flatten_optimizer_state_dict=True)  # however the parameters are grouped


class Trained:
    """A model with its optimizer and its moving average. Build it after sharding."""

    def __init__(self, model: nn.Module, options: Optimizer) -> None:
        self.model, self.options = model, options
        learned = by_mesh(p for p in model.parameters() if p.requires_grad)
        self.optimizer = torch.optim.AdamW(
            [{"params": group} for group in learned], lr=0.0, betas=(options.beta1, options.beta2),
            weight_decay=options.weight_decay, fused=True,
        )  # fmt: skip
        self.begin_average()

    def begin_average(self) -> None:
        """The average is the weights as they are."""
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def step(self, lr: float, number: int, broken: Tensor | None = None) -> Tensor:
        """One clipped step at `lr`; `number`: steps of this average. Returns the gradient's norm before clipping.

        Where the norm is not finite, or `broken` (a bool on the device) is true, weights and moments stay as they are.
        The host is not asked: it may read the norm later.
        """
        norm = clip_gradients([p for p in self.model.parameters() if p.grad is not None], self.options.clip)
        found = ~norm.isfinite() if broken is None else broken | ~norm.isfinite()
        self.optimizer.found_inf = found.float()  # what torch's fused optimizers read on the device
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._average(average_decay(self.options, number))
        return norm

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        now = self.model.state_dict()
        learned = {name for name, _ in self.model.named_parameters()}
        for name, value in self.ema.items():
            old, new = _local(value), _local(now[name])
            if name in learned:
                old.lerp_(new, 1 - decay)
            else:
                old.copy_(new)  # buffers are measured, not learned

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        optimizer = get_optimizer_state_dict(self.model, self.optimizer, options=BY_NAME)
        return {"model": self.model.state_dict(), "ema": self.ema, "optimizer": optimizer}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, after the checkpoint was loaded into it."""
        self.model.load_state_dict(state["model"])
        set_optimizer_state_dict(self.model, self.optimizer, state["optimizer"], options=BY_NAME)


def average_decay(options: Optimizer, number: int) -> float:
    """The decay of the moving average after `number` steps of its own: rising to the recipe's."""
    return min(options.ema, (1 + number) / (EMA_RAMP + number))


def _local(value: Tensor) -> Tensor:
    return value.to_local() if hasattr(value, "to_local") else value
