"""One clip's work at several ranks: tensor, sequence and context parallelism, put into a DiT by model/parallel.py."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from rushes.model.train_recipe import TrainRecipeError


def split_weights(model: nn.Module, mesh: DeviceMesh) -> None:
    """Tensor and sequence parallelism in place: each rank has some heads of every attention and a part of every
    feed-forward, and between them 1 / ranks of the tokens. Context parallelism comes before it.

    What is left (patches, positions, text, time) is computed by every rank alike. Raises TrainRecipeError where heads
    or feed-forward width do not divide.
    """
    from torch.distributed.tensor import Replicate, Shard
    from torch.distributed.tensor.parallel import (
        ColwiseParallel,
        PrepareModuleInput,
        RowwiseParallel,
        SequenceParallel,
        parallelize_module,
    )

    config, ranks = model.config, mesh.size()
    if config.heads % ranks or config.ffn % ranks:
        raise TrainRecipeError(
            f"parallel.tensor: {config.heads} heads and a feed-forward width of {config.ffn} do not divide among "
            f"{ranks} ranks; take a divisor of both."
        )
    mine, all_of_them = Shard(1), Replicate()  # of [B, N, dim]
    gathered = PrepareModuleInput(input_layouts=(mine,), desired_input_layouts=(all_of_them,))
    beside_text = PrepareModuleInput(
        input_layouts=(mine, all_of_them, None), desired_input_layouts=(all_of_them, all_of_them, None)
    )
    plan = {"ffn": gathered, "self_attention": gathered, "cross_attention": beside_text}
    plan |= {"ffn.gate": ColwiseParallel(), "ffn.up": ColwiseParallel()}
    plan |= {"ffn.down": RowwiseParallel(output_layouts=mine), "cross_norm": SequenceParallel(use_local_output=True)}
    for attention in ("self_attention", "cross_attention"):
        plan |= {f"{attention}.{name}": ColwiseParallel() for name in "qkv"}
        plan[f"{attention}.o"] = RowwiseParallel(output_layouts=mine)
        if config.qk_norm:  # one weight for all heads, dimension 1 of [B, heads, N, d]: its gradient is summed
            for name in ("q_norm", "k_norm"):
                plan[f"{attention}.{name}"] = SequenceParallel(sequence_dim=1, use_local_output=True)
    share = SequenceShare(mesh)
    model.shard_tokens = nn.Sequential(model.shard_tokens, share)
    model.gather_tokens = nn.Sequential(GatherSequence(share), model.gather_tokens)
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
        block.for_tokens = SumOfGradients(mesh)
        block.self_attention.attend = UnpaddedAttention(block.self_attention.attend, share)


class SequenceShare(nn.Module):
    """[B, N, dim], the same at all ranks -> this rank's ceil(N / ranks) tokens; what is filled up is zero."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self.mesh, self.tokens = mesh, 0  # of the forward pass that is on its way: N

    def forward(self, x: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, Replicate, Shard

        self.tokens = x.shape[1]
        x = F.pad(x, (0, 0, 0, -self.tokens % self.mesh.size()))
        whole = DTensor.from_local(x, self.mesh, [Replicate()], run_check=False)
        return whole.redistribute(placements=[Shard(1)]).to_local()


class GatherSequence(nn.Module):
    """The inverse of SequenceShare. What follows is computed by every rank alike, so its gradients are whole."""

    def __init__(self, share: SequenceShare) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, Replicate, Shard

        parts = DTensor.from_local(x, self.share.mesh, [Shard(1)], run_check=False)
        return parts.full_tensor(grad_placements=[Replicate()]).narrow(1, 0, self.share.tokens)


class SumOfGradients(nn.Module):
    """What every rank applies to its own tokens: passed on as it is; its gradient is the sum over the ranks."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self.mesh = mesh

    def forward(self, x: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor, Partial, Replicate

        return DTensor.from_local(x, self.mesh, [Replicate()], run_check=False).to_local(grad_placements=[Partial()])


class UnpaddedAttention(nn.Module):
    """Attention of [B, heads, N, d] without the tokens that only fill up."""

    def __init__(self, attend: nn.Module, share: SequenceShare) -> None:
        super().__init__()
        self.attend, self.share = attend, share

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.attend(*(x.narrow(2, 0, self.share.tokens) for x in (q, k, v)), mask)
        return F.pad(out, (0, 0, 0, q.shape[2] - self.share.tokens))


def split_tokens(model: nn.Module, mesh: DeviceMesh) -> None:
    """Context parallelism in place: each rank has 1 / ranks of the tokens from the first block to the last."""
    share = TokenShare(mesh)
    model.shard_tokens, model.gather_tokens = share, GatherTokens(share)
    for block in model.blocks:
        block.self_attention.attend = GatheredAttention(block.self_attention.attend, share)


class TokenShare(nn.Module):
    """[B, N, dim] -> this rank's ceil(N / ranks) tokens; the last rank's are filled up with zeros."""

    def __init__(self, mesh: DeviceMesh) -> None:
        super().__init__()
        self.mesh, self.tokens = mesh, 0  # of the forward pass that is on its way: N

    def forward(self, x: Tensor) -> Tensor:
        self.tokens, ranks = x.shape[1], self.mesh.size()
        share = -(-self.tokens // ranks)
        x = F.pad(x, (0, 0, 0, share * ranks - self.tokens))
        return x.narrow(1, self.mesh.get_local_rank() * share, share)

    def whole(self, x: Tensor, dim: int) -> Tensor:
        """All ranks' parts of `dim`, what was filled up taken off; gradients are summed over the ranks."""
        from torch.distributed.tensor import DTensor, Partial, Shard

        parts = DTensor.from_local(x, self.mesh, [Shard(dim)], run_check=False)
        return parts.full_tensor(grad_placements=[Partial()]).narrow(dim, 0, self.tokens)


class GatherTokens(nn.Module):
    """The inverse of TokenShare: [B, ceil(N / ranks), dim] -> [B, N, dim]."""

    def __init__(self, share: TokenShare) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return self.share.whole(x, 1)


class GatheredAttention(nn.Module):
    """Attention of a rank's own queries to all ranks' keys and values: [B, heads, N, d], one gather for both."""

    def __init__(self, attend: nn.Module, share: TokenShare) -> None:
        super().__init__()
        self.attend, self.share = attend, share

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.attend(q, *self.share.whole(torch.stack([k, v]), 3), mask)
