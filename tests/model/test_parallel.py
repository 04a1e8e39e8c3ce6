"""Parallelism is applied from outside and changes no number."""

from __future__ import annotations

from collections import Counter

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from rushes.model.dit import DiT, DiTConfig  # noqa: E402
from rushes.model.flow import FlowMatching, training_loss  # noqa: E402
from rushes.model.parallel import Place, fill, parallelize, prepare_blocks, ranks_of  # noqa: E402
from rushes.model.train_recipe import Optimizer, Parallel, TrainRecipeError, build  # noqa: E402
from rushes.model.trained import Trained  # noqa: E402
from tests.model.small_run import on_ranks  # noqa: E402

torch.set_num_threads(1)
BATCH = 4
# 3 x 1 x 3 tokens: they do not divide by 2, so that context parallelism has to fill up.
SMALL = DiTConfig(layers=2, dim=24, ffn=40, heads=4, grid=(3, 3, 3), text_widths={"bytes": 8}, qk_norm=True)
CLIPPED = Optimizer(clip=0.5)
LAYOUTS = {
    "HSDP 2 x 2": Parallel(replicate=2),
    "FSDP 2 x tensor 2": Parallel(tensor=2),
    "FSDP 2 x context 2": Parallel(context=2),
    "tensor 2 x context 2": Parallel(tensor=2, context=2),
}


def small_dit() -> DiT:
    """A transformer none of whose branches is zero, as after some training."""
    torch.manual_seed(0)
    model = DiT(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def fresh_dit(place: Place) -> DiT:
    """A transformer that was sharded before it had weights."""
    with torch.device("meta"):
        model = DiT(SMALL)
    parallelize(model, place)
    model.to_empty(device=place.device)
    model.init_weights(7, fill)
    return model


def batch_of(rank: int, world: int) -> list:
    """This rank's part of one batch: data, noise, time, text, mask."""
    torch.manual_seed(1)
    data, noise = torch.randn(BATCH, 16, 3, 2, 6), torch.randn(BATCH, 16, 3, 2, 6)
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


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("layouts") / "found.pt"
    assert on_ranks(4, "layouts", file) == [0] * 4
    return torch.load(file)


def close(found: dict, expected: dict) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=1e-5, rtol=0), name


@pytest.mark.parametrize("layout", [*LAYOUTS, "replicated"])
def test_four_ranks_have_the_loss_and_the_gradients_of_one_process(four_ranks, layout):
    loss, gradients = single()
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients.values())
    assert torch.allclose(four_ranks[layout]["loss"], loss, atol=1e-5, rtol=0)
    close(four_ranks[layout]["gradients"], gradients)


def test_tensor_and_context_ranks_share_the_tokens_between_attentions(four_ranks):
    shares = [four_ranks[layout]["tokens"] for layout in LAYOUTS]
    assert shares == [9, 5, 5, 3]  # of 9 tokens; what does not divide is filled up


@pytest.mark.parametrize("layout", LAYOUTS)
def test_between_micro_batches_no_rank_holds_a_whole_gradient(four_ranks, layout):
    assert four_ranks[layout]["held"] == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_four_ranks_clip_and_step_as_one_process_does(four_ranks, layout):
    model = small_dit()
    trained = Trained(model, CLIPPED)
    loss_of(model, batch_of(0, 1)).backward()
    norm = trained.step(1e-3, 0)
    assert norm > CLIPPED.clip  # so that clipping matters
    assert four_ranks[layout]["norm"].item() == pytest.approx(norm.item(), abs=1e-5)
    close(four_ranks[layout]["weights"], model.state_dict())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fresh_weights_do_not_depend_on_the_layout(four_ranks, layout):
    expected = fresh_dit(Place(0, 1, torch.device("cpu"))).state_dict()
    assert expected["blocks.1.ffn.up.weight"].std() > 0.01
    assert not torch.equal(expected["blocks.0.ffn.up.weight"], expected["blocks.1.ffn.up.weight"])
    assert all(torch.equal(four_ranks[layout]["fresh"][name], value) for name, value in expected.items())


def test_a_plan_for_another_number_of_ranks_is_a_sentence():
    assert ranks_of(Parallel(tensor=2, context=2, replicate=2), 16) == (2, 2, 2, 2)
    for plan, world in ((Parallel(tensor=2), 1), (Parallel(shard=4), 8), (Parallel(context=3), 8)):
        with pytest.raises(TrainRecipeError, match=rf"and there are {world}; start that many, or change"):
            ranks_of(plan, world)
    with pytest.raises(TrainRecipeError, match=r"key 'parallel.tensor': 0 will not do"):
        build({"model": "dit", "stages": [{"name": "one"}]}, ["parallel.tensor=0"])


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


class Calls(TorchDispatchMode):
    """Counts calls of torch's operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        self.counts[operation.name().partition("::")[2]] += 1
        return operation(*arguments, **(options or {}))


@pytest.mark.parametrize("checkpointing, times", [(True, 2), ("selective", 1)])
def test_recomputed_activations_change_no_gradient(checkpointing, times):
    loss, gradients = single()
    model = small_dit()
    prepare_blocks(model.blocks, checkpointing, compiled=False)
    with Calls() as calls:
        again = loss_of(model, batch_of(0, 1))
        again.backward()
    attended = sum(n for name, n in calls.counts.items() if "attention" in name and "backward" not in name)
    assert attended == times * 2 * SMALL.layers, "selective recomputation keeps attention's results"
    assert torch.equal(again.detach(), loss)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, gradients[name]), name
    assert set(model.state_dict()) == set(small_dit().state_dict())
