"""The transformer: its published size, its positions, its text, and that it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from rushes.model.dit import (  # noqa: E402
    DIT_SIZES,
    DiT,
    DiTConfig,
    forward_flops,
    parameter_count,
    patchify,
    stretch,
    token_count,
    token_grid,
    unpatchify,
)
from rushes.model.flow import FlowMatching, VDiffusion, sample, training_loss  # noqa: E402

torch.set_num_threads(1)
SMALL = DiTConfig(layers=2, dim=32, ffn=64, heads=2, grid=(2, 4, 4), text_widths={"bytes": 12})


def awake(config: DiTConfig = SMALL, seed: int = 0) -> DiT:
    """A model none of whose branches is zero any more, as after some training."""
    torch.manual_seed(seed)
    model = DiT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def inputs(batch: int = 2, frames: int = 2, height: int = 8, width: int = 8, words: int = 5):
    torch.manual_seed(1)
    text = {"bytes": torch.randn(batch, words, 12)}
    masks = {"bytes": torch.ones(batch, words, dtype=torch.bool)}
    return torch.randn(batch, 16, frames, height, width), torch.rand(batch), text, masks


def test_30b_is_thirty_billion_within_three_percent():
    assert abs(parameter_count(DIT_SIZES["30b"]) / 30e9 - 1) < 0.03


@pytest.mark.parametrize("name, billions", [("1b", 1.0), ("5b", 5.0)])
def test_the_smaller_sizes_are_what_their_names_say(name, billions):
    assert abs(parameter_count(DIT_SIZES[name]) / (billions * 1e9) - 1) < 0.08


def test_sixteen_seconds_at_768_pixels_are_73728_tokens():
    assert token_count(DIT_SIZES["30b"], frames=256, height=768, width=768) == 73_728
    assert token_count(DIT_SIZES["30b"], frames=1, height=256, width=256) == 256


def test_patches_and_back_is_the_identity():
    latent = torch.randn(2, 16, 3, 4, 6)
    grid = token_grid(SMALL, latent.shape)
    patches = patchify(latent, SMALL.patch)
    assert grid == (3, 2, 3) and patches.shape == (2, 18, 64)
    assert torch.equal(unpatchify(patches, grid, SMALL), latent)


def test_the_patch_layer_is_a_convolution_with_kernel_equal_to_stride():
    latent, layer = torch.randn(1, 16, 2, 4, 4), DiT(SMALL).patch
    kernel = layer.weight.view(32, 16, 1, 2, 2)
    expected = torch.nn.functional.conv3d(latent, kernel, layer.bias, stride=(1, 2, 2)).flatten(2).transpose(1, 2)
    assert torch.allclose(layer(patchify(latent, SMALL.patch)), expected, atol=1e-5)


def test_the_untrained_model_answers_zero():
    assert DiT(SMALL)(*inputs()).abs().max() == 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 4, 12), (3, 14, 6)])
def test_any_size_and_length_goes_in_and_comes_out(shape):
    latent, t, text, masks = inputs(1, *shape)
    out = awake()(latent, t, text, masks)
    assert out.shape == latent.shape and torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(1, 8, 2, 8, 8), (1, 16, 2, 7, 8), (16, 2, 8, 8)])
def test_a_latent_that_does_not_fit_is_refused(shape):
    _, t, text, masks = inputs(1)
    with pytest.raises(ValueError, match=r"takes \[B|patches"):
        DiT(SMALL)(torch.zeros(shape), t, text, masks)


def test_positions_enter_every_layer():
    model, (latent, t, text, masks) = awake(), inputs()
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model(latent, t, text, masks)
    assert len(seen) == SMALL.layers and all(torch.equal(p, model.positions((2, 4, 4))) for p in seen)


def test_a_block_without_attention_moves_its_input_by_the_positions():
    block = DiT(SMALL).blocks[0]  # untrained: all branches are zero
    x, positions = torch.randn(1, 4, 32), torch.randn(1, 4, 32)
    out = block(x, positions, torch.zeros(1, 6, 32), torch.randn(1, 3, 32))
    assert torch.equal(out, x + positions)


def test_a_position_is_the_sum_of_its_three_tables():
    tables = awake().positions
    grid = tables((2, 4, 3)).view(2, 4, 3, 32)
    assert torch.allclose(grid[1, 3, 2], tables.t[1] + tables.h[3] + tables.w[2])


def test_a_grid_beyond_the_tables_stretches_them():
    tables = awake().positions
    rows = tables((1, 8, 1)).view(8, 32) - tables.t[0] - tables.w[0]
    assert torch.allclose(rows[0], tables.h[0], atol=1e-5) and torch.allclose(rows[-1], tables.h[-1], atol=1e-5)
    # Rows 1 and 2 of 8 lie a quarter of the way on either side of the border of rows 0 and 1 of 4.
    assert torch.allclose(rows[1], 0.75 * tables.h[0] + 0.25 * tables.h[1], atol=1e-5)


def test_grown_tables_give_the_positions_of_the_stretched_ones():
    model, grid = awake(), (4, 8, 12)
    grown = DiT(replace(SMALL, grid=grid)).positions
    with torch.no_grad():
        for table, old in zip(grown.parameters(), model.positions.parameters()):
            table.copy_(stretch(old, len(table)))
    assert torch.allclose(grown(grid), model.positions(grid), atol=1e-6)


def test_a_table_of_one_frame_grows_to_equal_frames():
    first = torch.randn(1, 32)
    assert torch.equal(stretch(first, 32), first.expand(32, -1))


def test_attention_looks_both_ways_in_time():
    model, (latent, t, text, masks) = awake(), inputs()
    first = model(latent, t, text, masks)[:, :, 0]
    latent[:, :, 1] += 1
    assert not torch.allclose(model(latent, t, text, masks)[:, :, 0], first, atol=1e-4)


def test_the_time_and_the_text_change_the_answer():
    model, (latent, t, text, masks) = awake(), inputs()
    out = model(latent, t, text, masks)
    assert not torch.allclose(model(latent, 1 - t, text, masks), out, atol=1e-4)
    assert not torch.allclose(model(latent, t, {"bytes": text["bytes"] + 1}, masks), out, atol=1e-4)


def test_padding_of_the_text_is_not_read():
    model, (latent, t, text, masks) = awake(), inputs()
    masks["bytes"][:, 3:] = False
    out = model(latent, t, text, masks)
    text["bytes"][:, 3:] = 99.0
    assert torch.allclose(model(latent, t, text, masks), out, atol=1e-6)
    assert torch.allclose(
        model(latent, t, {"bytes": text["bytes"][:, :3]}, {"bytes": masks["bytes"][:, :3]}), out, atol=1e-5
    )


def test_dropped_text_is_the_answer_to_no_text():
    model, (latent, t, text, masks) = awake(), inputs()
    dropped = model(latent, t, text, masks, drop_text=torch.tensor([True, False]))
    empty = model(latent, t, text, {"bytes": torch.zeros_like(masks["bytes"])})
    full = model(latent, t, text, masks)
    assert torch.allclose(dropped[0], empty[0], atol=1e-6) and torch.allclose(dropped[1], full[1], atol=1e-6)
    assert torch.isfinite(empty).all()


def test_samples_of_a_batch_do_not_touch_each_other():
    model, (latent, t, text, masks) = awake(), inputs()
    alone = model(latent[:1], t[:1], {"bytes": text["bytes"][:1]}, {"bytes": masks["bytes"][:1]})
    assert torch.allclose(model(latent, t, text, masks)[:1], alone, atol=1e-5)


def test_qk_norm_is_an_option_and_makes_attention_blind_to_scale():
    model, (latent, t, text, masks) = awake(replace(SMALL, qk_norm=True)), inputs()
    out = model(latent, t, text, masks)
    with torch.no_grad():
        for block in model.blocks:
            block.self_attention.q.weight.mul_(10)
    assert torch.allclose(model(latent, t, text, masks), out, atol=1e-4)
    assert "blocks.0.self_attention.q_norm.weight" not in DiT(SMALL).state_dict()


def test_tokens_can_be_rearranged_around_the_blocks():
    """The seam of context parallelism: the order of tokens between the two does not matter."""
    model, (latent, t, text, masks) = awake(), inputs()
    expected = model(latent, t, text, masks)

    class Reverse(torch.nn.Module):
        def forward(self, x):
            return x.flip(1)

    model.shard_tokens, model.gather_tokens = Reverse(), Reverse()
    assert torch.allclose(model(latent, t, text, masks), expected, atol=1e-5)


def test_a_model_built_on_the_meta_device_starts_like_any_other():
    expected = DiT(SMALL).state_dict()
    with torch.device("meta"):
        model = DiT(SMALL)
    model.to_empty(device="cpu")
    model.init_weights(3)
    again = DiT(SMALL)
    again.init_weights(3)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters()))
    assert {name: p.shape for name, p in model.state_dict().items()} == {n: p.shape for n, p in expected.items()}
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert model.final.weight.abs().max() == 0 and model.blocks[0].cross_norm.weight.eq(1).all()
    assert model.blocks[0].self_attention.q.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_the_block_compiles_as_one_graph():
    model = awake()
    block = torch.compile(model.blocks[0], fullgraph=True, backend="eager")
    args = (torch.randn(2, 8, 32), torch.randn(1, 8, 32), torch.randn(2, 6, 32), torch.randn(2, 3, 32))
    mask = torch.ones(2, 1, 1, 3, dtype=torch.bool)
    assert torch.allclose(block(*args, mask), model.blocks[0](*args, mask), atol=1e-6)


def test_projections_get_half_precision_where_norms_answer_in_float32():
    """As under CUDA's autocast; a projection that is given float32 makes and keeps a copy of its own."""
    model, (latent, t, text, masks), seen = awake(), inputs(), []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.RMSNorm | torch.nn.LayerNorm):
            module.register_forward_hook(lambda module, args, out: out.float())
        elif isinstance(module, torch.nn.Linear) and name.startswith("blocks"):
            module.register_forward_hook(lambda module, args, out, name=name: seen.append((name, args[0].dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        model(latent, t, text, masks)
    assert len(seen) == 11 * 2 and {kind for _, kind in seen} == {torch.bfloat16}, seen


def test_counted_flops_are_those_of_the_formula():
    model, (latent, t, text, masks) = awake(), inputs(batch=1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(latent, t, text, masks)
    projecting_text = 2 * 5 * 12 * 32
    assert counter.get_total_flops() == forward_flops(SMALL, tokens=32, text_tokens=5) + projecting_text


def _overfit(process, steps: int) -> float:
    """Correlation of a sample with the one latent the model was trained on."""
    torch.manual_seed(0)
    config = DiTConfig(layers=2, dim=64, ffn=128, heads=2, grid=(2, 4, 4), text_widths={"bytes": 12})
    model = DiT(config)
    data, _, text, masks = inputs(1, 2, 8, 8)
    words = {"bytes": text["bytes"].expand(8, -1, -1)}, {"bytes": masks["bytes"].expand(8, -1)}
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(steps):
        loss = training_loss(
            lambda x, t: model(x, t, *words),
            process,
            data.expand(8, -1, -1, -1, -1),
            torch.randn(8, *data.shape[1:]),
            process.sample_time(8),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    out = sample(lambda x, t: model(x, t, text, masks), torch.randn_like(data), process, process.times(20))
    return torch.corrcoef(torch.stack([out.flatten(), data.flatten()]))[0, 1].item()


@pytest.mark.parametrize("process", [FlowMatching(), VDiffusion()], ids=["flow", "diffusion"])
def test_a_model_trained_on_one_latent_samples_that_latent(process):
    assert _overfit(process, steps=250) > 0.9
