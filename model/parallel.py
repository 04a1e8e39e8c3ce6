"""Everything a model need not know about: ranks, sharding, recomputation and compilation, from outside.

One process needs none of it. Under torchrun (or any launcher that sets RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)
the ranks share the DiT as the recipe's section `parallel` says; the autoencoder, 1/100 of its size, is replicated and
its gradients are averaged. All of it gives the loss and the gradients of one process with the same global batch.

    rank = ((replica * shard + shard_rank) * context + context_rank) * tensor + tensor_rank

- tensor: heads and feed-forward widths are split (Megatron's columns and rows, by torch's parallelize_module), and
  the tokens wherever none looks at another (sequence parallelism): norms, modulation, what a block is recomputed from.
- context: tokens are split; keys and values are gathered for self-attention. Any number of heads will do. Both stand in
  model/split.py.
- shard, replicate: FSDP2, and HSDP where there are several replicas. Weights are sharded over shard x context ranks:
  ranks of one context group hold gradients of their own tokens, which must be summed in any case.

Ranks of one tensor or context group read the same clips. Why gradients are right under context parallelism: a rank's
loss is that of all tokens, gathered; the backward of the gather sums over the group, so a parameter's gradient at a
rank is `context` times its tokens' part, and FSDP's mean over the group is the sum of the parts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from rushes.model.split import split_tokens, split_weights
from rushes.model.train_recipe import Parallel, TrainRecipeError


@dataclass(frozen=True)
class Place:
    """This process among the others, and the device it works on."""

    rank: int
    world: int
    device: torch.device
    sharers: int = 1  # ranks that work on the same clips: tensor x context
    mesh: DeviceMesh | None = None  # (replicate, shard x context, tensor); None in a single process
    context: DeviceMesh | None = None  # this rank's context group; None where tokens are not split

    @property
    def leads(self) -> bool:
        """Rank 0 prints, writes logs and publishes."""
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        """Which share of a global batch is this rank's, of `data_world`."""
        return self.rank // self.sharers

    @property
    def data_world(self) -> int:
        return self.world // self.sharers


@contextmanager
def joined(plan: Parallel | None = None) -> Iterator[Place]:
    """This process's place; the process group is made where a launcher asks for one, and left at the end.

    CUDA where there is a GPU, one per local rank, with gloo beside NCCL for checkpoints; otherwise gloo on the CPU.
    Raises TrainRecipeError where the plan is for another number of ranks.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    plan = plan or Parallel()
    ranks_of(plan, world)
    if cuda:
        torch.cuda.set_device(device)
    started = world > 1 and not dist.is_initialized()
    if started:
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", rank=rank, world_size=world)
    try:
        yield placed(plan, rank, world, device)
    finally:
        if started:
            dist.destroy_process_group()


def ranks_of(plan: Parallel, world: int) -> tuple[int, int, int, int]:
    """(replicate, shard, context, tensor), whose product is `world`. Raises TrainRecipeError where it cannot be."""
    others = plan.replicate * plan.context * plan.tensor
    shard = plan.shard or max(1, world // others)
    if others * shard != world:
        raise TrainRecipeError(
            f"parallel: replicate {plan.replicate} x shard {shard} x context {plan.context} x tensor {plan.tensor} "
            f"makes {others * shard} ranks, and there are {world}; start that many, or change the section parallel."
        )
    return plan.replicate, shard, plan.context, plan.tensor


def placed(plan: Parallel, rank: int, world: int, device: torch.device) -> Place:
    """The place of a rank; its meshes are made, which every rank must do at once. Raises TrainRecipeError."""
    replicate, shard, context, tensor = ranks_of(plan, world)
    if world == 1:
        return Place(rank, world, device)
    # The one thing it has to say is that a norm over two mesh dimensions takes two messages of one number.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)
    mesh = init_device_mesh(
        device.type, (replicate, shard * context, tensor), mesh_dim_names=("replicate", "shard", "tensor")
    )
    group = None
    if context > 1:
        sides = (replicate * shard, context, tensor)
        group = init_device_mesh(device.type, sides, mesh_dim_names=("data", "context", "tensor"))["context"]
    return Place(rank, world, device, context * tensor, mesh, group)


# ---- the transformer -----------------------------------------------------------------------------------------------


def parallelize(
    model: nn.Module,
    place: Place,
    dtype: torch.dtype = torch.float32,
    checkpointing: bool | str = False,
    compiled: bool = False,
) -> None:
    """A DiT in place, on any device (meta too): tensor and context parallel, blocks prepared, then FSDP2 or HSDP.

    dtype: of the gathered parameters; parameters at rest, gradients and their reduction stay float32. Make the
    optimizer afterwards: the parameters are new objects. Raises TrainRecipeError where the model does not divide.
    """
    if place.context is not None:
        split_tokens(model, place.context)
    if place.mesh is not None and place.mesh["tensor"].size() > 1:
        split_weights(model, place.mesh["tensor"])
    prepare_blocks(model.blocks, checkpointing, compiled)
    if place.mesh is not None:
        replicas = place.mesh["replicate"].size()
        shard(model, place.mesh["replicate", "shard"] if replicas > 1 else place.mesh["shard"], dtype)


def prepare_blocks(blocks: Iterable[nn.Module], checkpointing: bool | str, compiled: bool) -> None:
    """Per block, in place and before `shard`: activations recomputed in the backward pass; compiled by torch.

    checkpointing: True: all; "selective": all but attention and every second matrix product, which are kept.
    """
    for block in blocks:
        if checkpointing:
            block.forward = _recomputed(block.forward, checkpointing == "selective")
        if compiled:
            block.compile()


def _recomputed(forward: Callable[..., Tensor], selective: bool) -> Callable[..., Tensor]:
    """A function of our own around torch's checkpoint, which torch.compile traces; torch's alone it leaves eager."""
    from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

    def contexts() -> tuple[Any, Any]:
        return create_selective_checkpoint_contexts(_keeps_costly())

    options = {"context_fn": contexts} if selective else {}

    def recomputed(*inputs: Tensor) -> Tensor:
        return checkpoint(forward, *inputs, use_reentrant=False, **options)

    return recomputed


def _keeps_costly() -> Callable[..., Any]:
    """torch's policy for one pass through a block: attention and every second matrix product are kept (torchtitan)."""
    from torch.utils.checkpoint import CheckpointPolicy

    aten, seen = torch.ops.aten, {False: 0, True: 0}
    attention = {
        aten._scaled_dot_product_flash_attention.default,
        aten._scaled_dot_product_flash_attention_for_cpu.default,
        aten._scaled_dot_product_efficient_attention.default,
        aten._scaled_dot_product_cudnn_attention.default,
    }

    def policy(context: Any, operation: Any, *_: Any, **__: Any) -> CheckpointPolicy:
        keeps = operation in attention
        if operation == aten.mm.default:
            seen[context.is_recompute] += 1
            keeps = seen[context.is_recompute] % 2 == 1
        return CheckpointPolicy.MUST_SAVE if keeps else CheckpointPolicy.PREFER_RECOMPUTE

    return policy


def shard(model: nn.Module, mesh: DeviceMesh, dtype: torch.dtype = torch.float32) -> None:
    """FSDP2 in place, HSDP on a mesh of two dimensions: each of `model.blocks` is a unit, what is left is one more."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


@torch.no_grad()
def fill(parameter: Tensor, whole: Tensor) -> None:
    """Give a parameter its value; a sharded one takes this rank's part of `whole`, which every rank brings."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(parameter, DTensor):
        whole = distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    parameter.copy_(whole)


# ---- gradients -----------------------------------------------------------------------------------------------------


def by_mesh(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters that lie on one mesh together: torch's operations on many tensors at once take no others."""
    groups: dict[DeviceMesh | None, list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "device_mesh", None), []).append(parameter)
    return list(groups.values())


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale the gradients so that their norm over all ranks is at most `limit`; returns it as it was."""
    groups = by_mesh(parameters)
    norms = [nn.utils.get_total_norm([p.grad for p in group]) for group in groups]
    norms = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    total = torch.linalg.vector_norm(torch.stack(norms))
    for group in groups:
        nn.utils.clip_grads_with_norm_(group, limit, total)
    return total


def reduce_gradients(model: nn.Module, last: bool, deferred: bool = False) -> None:
    """For accumulation, before each micro-batch of a sharded model: whose gradients are summed over the ranks.

    Every micro-batch's, so that a rank holds its own part alone; replicas (HSDP) are summed in the last one. deferred:
    all in the last one: one message a step, and the whole model's gradient at every rank until then.
    """
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(last or not deferred)
        model.set_requires_all_reduce(last)


def reshard(model: nn.Module) -> None:
    """After forward passes that no backward pass follows: FSDP leaves what lies outside the blocks gathered."""
    if hasattr(model, "reshard"):
        model.reshard()


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
