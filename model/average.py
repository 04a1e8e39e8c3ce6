"""Model averaging (Movie Gen sec 3.3, after LLaMa3): the mean of the weights of several trainings of one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rushes.model import checkpoint as checkpoints
from rushes.model.checkpoint import CheckpointError


@torch.no_grad()
def average(inputs: Sequence[str], output: str, weights: Sequence[float] | None = None) -> Path:
    """Write the (weighted) mean of the inputs' averaged weights as a checkpoint below `output`; returns its folder.

    inputs: checkpoints or outputs of trainings, of one model and one size. weights: their shares, >= 0, scaled to
    sum to 1; equal by default. The mean is computed in float64 and holds no optimizer: sample from it, evaluate it,
    or start a training with it (`init_from`). Raises CheckpointError where the inputs do not belong together.
    """
    shares = list(weights) if weights else [1.0] * len(inputs)
    if not inputs or len(shares) != len(inputs) or min(shares) < 0 or sum(shares) == 0:
        raise CheckpointError(f"Averaging needs one share, not negative, for each of {len(inputs)} checkpoints.")
    opened = [checkpoints.open_checkpoint(path) for path in inputs]
    first = opened[0]
    for other in opened[1:]:
        checkpoints.require(other, first.meta["model"], first.meta["config"])
        if other.meta.get("tae") != first.meta.get("tae"):
            raise CheckpointError(f"{other.path} and {first.path} were trained on latents of different TAEs.")
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for one, share in zip(opened, shares):
        for name, value in checkpoints.read_weights(one).items():
            kinds[name] = value.dtype
            total[name] = total.get(name, 0.0) + value.double() * (share / sum(shares))
    mean = {name: value.to(kinds[name]) for name, value in total.items()}
    kept = {key: first.meta[key] for key in ("model", "config", "tae", "text", "process") if key in first.meta}
    progress = {"step": max(one.step for one in opened), "averaged": [str(one.path) for one in opened]}
    return checkpoints.save(Path(output) / "checkpoints", {"model": mean, "ema": mean}, {**kept, **progress}, keep=1)
