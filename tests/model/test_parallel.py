"""Parallelism is applied from outside and changes no number."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from model.dit import DiT, DiTConfig  # noqa: E402
from model.flow import FlowMatching, training_loss  # noqa: E402
from model.parallel import prepare_blocks  # noqa: E402
from tests.model.small_run import on_ranks  # noqa: E402

torch.set_num_threads(1)
BATCH = 4
SMALL = DiTConfig(layers=2, dim=24, ffn=40, heads=2, grid=(3, 3, 3), text_widths={"bytes": 8})


def small_dit() -> DiT:
    """A transformer none of whose branches is zero, as after some training."""
    torch.manual_seed(0)
    model = DiT(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch_of(rank: int, world: int) -> list:
    """This rank's part of one batch: data, noise, time, text, mask."""
    torch.manual_seed(1)
    data, noise = torch.randn(BATCH, 16, 2, 4, 6), torch.randn(BATCH, 16, 2, 4, 6)
    parts = [data, noise, torch.rand(BATCH), torch.randn(BATCH, 5, 8), torch.rand(BATCH, 5) < 0.7]
    share = BATCH // world
    return [part[rank * share : (rank + 1) * share] for part in parts]


def loss_of(model: DiT, batch: list):
    data, noise, time, text, mask = batch
    return training_loss(
        lambda x, t: model(x, t, {"bytes": text}, {"bytes": mask}), FlowMatching(), data, noise, time
    )  # fmt: skip


def single() -> tuple:
    model = small_dit()
    loss = loss_of(model, batch_of(0, 1))
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in model.named_parameters()}


def test_two_ranks_sharded_or_replicated_have_the_loss_and_the_gradients_of_one_process(tmp_path):
    assert on_ranks(2, "gradients", tmp_path / "found.pt") == [0, 0]
    found = torch.load(tmp_path / "found.pt")
    loss, gradients = single()
    assert torch.allclose(found["loss"], loss, atol=1e-5, rtol=0)
    assert set(found["gradients"]) == set(gradients)
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0, name
        assert torch.allclose(found["gradients"][name], gradient, atol=1e-5, rtol=0), name
        assert torch.allclose(found["replicated"][name], gradient, atol=1e-5, rtol=0), name


@pytest.mark.parametrize("checkpointing", [False, True])
def test_blocks_compile_once_for_all_of_them_and_change_nothing(checkpointing, monkeypatch):
    from torch._dynamo.testing import CompileCounterWithBackend

    backend = CompileCounterWithBackend("aot_eager")
    compile_module = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module: compile_module(module, backend=backend, fullgraph=True)
    )
    torch._dynamo.reset()
    loss, gradients = single()
    model = small_dit()
    prepare_blocks(model.blocks, checkpointing, compiled=True)
    again = loss_of(model, batch_of(0, 1))
    again.backward()
    assert backend.frame_count == 1  # of two blocks
    assert torch.allclose(again, loss, atol=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, gradients[name], atol=1e-5), name


def test_recomputed_activations_change_no_gradient():
    loss, gradients = single()
    model = small_dit()
    prepare_blocks(model.blocks, checkpointing=True, compiled=False)
    again = loss_of(model, batch_of(0, 1))
    again.backward()
    assert torch.equal(again.detach(), loss)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name
    assert set(model.state_dict()) == set(small_dit().state_dict())
