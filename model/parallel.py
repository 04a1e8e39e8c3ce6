"""Everything a model need not know about: ranks, devices, sharding, recomputation and compilation, from outside.

One process needs none of it. Under torchrun (or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)
the DiT is sharded by FSDP2, block by block; the autoencoder, 1/100 of its size, is replicated and its gradients are
averaged. Both give the loss and the gradients of one process with the same global batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """This process among the others, and the device it works on."""

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Rank 0 prints, writes logs and publishes."""
        return self.rank == 0


@contextmanager
def joined() -> Iterator[Place]:
    """This process's place; the process group is made where a launcher asks for one, and left at the end.

    CUDA where there is a GPU, one per local rank, with gloo beside NCCL for checkpoints; otherwise gloo on the CPU.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    started = world > 1 and not dist.is_initialized()
    if started:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=rank, world_size=world)
    try:
        yield Place(rank, world, device)
    finally:
        if started:
            dist.destroy_process_group()


def prepare_blocks(blocks: Iterable[nn.Module], checkpointing: bool, compiled: bool) -> None:
    """Per block, in place and before `shard`: activations recomputed in the backward pass; compiled by torch."""
    for block in blocks:
        if checkpointing:
            block.forward = _recomputed(block.forward)
        if compiled:
            block.compile()


def _recomputed(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of our own around torch's checkpoint, which torch.compile traces; torch's alone it leaves eager."""
    from torch.utils.checkpoint import checkpoint

    def recomputed(*inputs: Tensor) -> Tensor:
        return checkpoint(forward, *inputs, use_reentrant=False)

    return recomputed


def shard(model: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """FSDP2 in place: each of `model.blocks` is a unit, what is left is one more. Needs a process group.

    dtype: of the gathered parameters; parameters at rest, gradients and their reduction stay float32. Make the
    optimizer afterwards: the parameters are new objects.
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mp_policy=policy)
    fully_shard(model, mp_policy=policy)


def synchronize_gradients(model: nn.Module, on: bool) -> None:
    """For accumulation: gradients are reduced across ranks in the last micro-batch alone (sharded models)."""
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(on)


def average_gradients(model: nn.Module) -> None:
    """Mean over ranks of a replicated model's gradients, in one message; nothing in a single process."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not dist.is_initialized() or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def mean_over_ranks(values: Tensor) -> Tensor:
    """Mean of a tensor over ranks (any shape); itself in a single process."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def peak_flops(device: torch.device) -> float | None:
    """Dense bfloat16 peak of the GPU, FLOP/s, from the vendor's data sheets; None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None)


PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
