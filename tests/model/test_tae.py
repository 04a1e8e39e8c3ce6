"""The autoencoder: any length, tiling, and that it learns."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from rushes.model.losses import TAELossConfig, tae_loss  # noqa: E402
from rushes.model.parallel import prepare_blocks  # noqa: E402
from rushes.model.tae import TAE, heavy_parts  # noqa: E402
from rushes.model.tae_config import TAE_SIZES, TAEConfig, latent_frames  # noqa: E402
from rushes.model.tae_layers import Attention, SpaceTimeConv, TemporalConv, group_norm  # noqa: E402
from rushes.model.tiling import decode_tiled, decode_tiles, encode_tiled, spans  # noqa: E402
from tests.model.image_autoencoder import EXACT, pair  # noqa: E402

torch.set_num_threads(1)
SMALL = TAEConfig(block_channels=(8, 16, 16, 24), layers_per_block=1, latent_channels=4, norm_groups=4)


def trained(volume: bool = False, amount: float = 0.05) -> TAE:
    """A model that looks across time, as after some training."""
    torch.manual_seed(0)
    model = TAE(TAEConfig(SMALL.block_channels, 1, 4, norm_groups=4, volume=volume))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "temporal" in name or ".time." in name:
                parameter.add_(torch.randn_like(parameter) * amount)
    return model


# ---- shapes and time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("volume", [False, True], ids=["2.5d", "3d"])
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 17])
@torch.no_grad()
def test_any_number_of_frames_goes_in_and_comes_out(frames, volume):
    model = trained(volume)
    reconstruction, _, latent = model(torch.randn(2, 3, frames, 16, 24))
    assert latent.shape == (2, 4, math.ceil(frames / 8), 2, 3) and latent_frames(frames) == latent.shape[2]
    assert reconstruction.shape == (2, 3, frames, 16, 24) and torch.isfinite(reconstruction).all()


def test_the_published_shape_is_8x8x8_with_16_channels():
    with torch.device("meta"):
        latent = TAE(TAE_SIZES["base"]).encode(torch.empty(1, 3, 32, 64, 64)).mean
    assert latent.shape == (1, 16, 4, 8, 8)


@pytest.mark.parametrize("shape", [(1, 3, 8, 20, 16), (1, 4, 8, 16, 16), (3, 8, 16, 16), (1, 3, 0, 16, 16)])
def test_a_video_that_does_not_fit_is_refused(shape):
    with pytest.raises(ValueError, match=r"multiples of 8|takes \[B"):
        TAE(SMALL).encode(torch.zeros(shape))


@pytest.mark.parametrize("frames", [8, 17])
def test_a_latent_cannot_be_decoded_to_a_length_it_does_not_stand_for(frames):
    with pytest.raises(ValueError, match="2 latent frames"):
        TAE(SMALL).decode(torch.zeros(1, 4, 2, 2, 2), frames)


def test_time_is_padded_alike_at_both_ends():
    torch.manual_seed(0)
    conv = TemporalConv(3)
    with torch.no_grad():
        conv.conv.weight.normal_()
        x = torch.randn(5, 3, 2, 2)
        out = conv(x, 5)
        kernel = conv.conv.weight[..., 0]  # [out, in, 3]
        bias = conv.conv.bias.view(-1, 1, 1)
        first = torch.einsum("oik,kihw->ohw", kernel, torch.stack([x[0], x[0], x[1]])) + bias
        last = torch.einsum("oik,kihw->ohw", kernel, torch.stack([x[3], x[4], x[4]])) + bias
    assert torch.allclose(out[0], first, atol=1e-5) and torch.allclose(out[-1], last, atol=1e-5)


@pytest.mark.parametrize("volume", [False, True], ids=["2.5d", "3d"])
@torch.no_grad()
def test_a_frame_sees_the_frames_before_and_after_it(volume):
    model = trained(volume)
    video = torch.randn(1, 3, 24, 16, 16)
    middle = model.encode(video).mean[:, :, 1]
    for frame in (6, 18):
        other = video.clone()
        other[:, :, frame] += 1
        assert not torch.allclose(model.encode(other).mean[:, :, 1], middle, atol=1e-6)


@pytest.mark.parametrize("volume", [False, True], ids=["2.5d", "3d"])
@torch.no_grad()
def test_one_latent_alone_decodes_to_a_still(volume):
    """A limit of nearest + convolution with replicate padding: motion is read from the differences of latents."""
    out = trained(volume).decode(torch.randn(1, 4, 1, 2, 2))
    assert (out - out[:, :, :1]).abs().max() < EXACT
    assert trained(volume).decode(torch.randn(1, 4, 2, 2, 2)).std(2).min() > 0


@torch.no_grad()
def test_videos_of_a_batch_do_not_touch_each_other():
    model, video = trained(), torch.randn(2, 3, 9, 16, 16)
    assert torch.allclose(model(video)[0][:1], model(video[:1])[0], atol=EXACT)


def test_temporal_layers_follow_every_spatial_one():
    model = TAE(SMALL)
    spatial = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    convs = [m for m in model.modules() if isinstance(m, SpaceTimeConv)]
    assert len(spatial) == len(convs) and all(m.temporal is not None for m in convs)
    kinds = [m.over for m in model.modules() if isinstance(m, Attention)]
    assert kinds == ["space", "time"] * 2


def test_activations_stay_in_channels_last():
    model, wrong = trained(), []

    def check(module, _, out):
        if out.ndim == 4 and not out.is_contiguous(memory_format=torch.channels_last):
            wrong.append(type(module).__name__)

    for module in model.modules():
        if isinstance(module, nn.Conv2d | SpaceTimeConv | TemporalConv | Attention | nn.GroupNorm):
            module.register_forward_hook(check)
    with torch.no_grad():
        model(torch.randn(1, 3, 9, 16, 16))
    assert wrong == []


@pytest.mark.parametrize("shape", [(3, 8, 5, 7), (1, 16, 1, 1)])
def test_the_norm_of_gpus_is_the_group_norm_and_keeps_layout_and_type(shape):
    torch.manual_seed(0)
    x = (torch.randn(shape) + 3).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(shape[1], requires_grad=True), torch.randn(shape[1], requires_grad=True)
    pull, results = torch.randn(shape), []
    for norm in (group_norm, F.group_norm):
        out = norm(x, 4, weight, bias, 1e-6)
        results.append((out, *torch.autograd.grad((out * pull).sum(), (x, weight, bias))))
    assert all(torch.allclose(mine, torchs, atol=1e-4, rtol=1e-4) for mine, torchs in zip(*results))
    half = x.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = group_norm(half, 4, weight, bias, 1e-6)
    assert out.dtype == torch.bfloat16 and out.is_contiguous(memory_format=torch.channels_last)
    expected = F.group_norm(half.float(), 4, weight, bias, 1e-6)
    assert torch.allclose(out.float(), expected, rtol=2**-7, atol=1e-5)  # bfloat16 has 8 bits


def test_the_posterior_samples_with_the_noise_it_is_given():
    model, video = trained(), torch.randn(1, 3, 8, 16, 16)
    noise = torch.randn(1, 4, 1, 2, 2)
    with torch.no_grad():
        _, posterior, latent = model(video, noise)
    assert torch.allclose(latent, posterior.mean + (0.5 * posterior.logvar).exp() * noise)


def test_normalised_latents_come_back():
    model = TAE(SMALL)
    latent = torch.randn(2, 4, 3, 2, 2) * 5 + 3
    model.latent_mean.copy_(latent.mean((0, 2, 3, 4)))
    model.latent_std.copy_(latent.std((0, 2, 3, 4), unbiased=False))
    scaled = model.normalize(latent)
    assert abs(scaled.mean().item()) < 1e-5 and abs(scaled.std(unbiased=False).item() - 1) < 1e-4
    assert torch.allclose(model.denormalize(scaled), latent, atol=1e-5)


def test_a_model_built_on_the_meta_device_starts_like_any_other():
    with torch.device("meta"):
        model = TAE(SMALL)
    model.to_empty(device="cpu")
    torch.manual_seed(7)
    model.init_weights()
    video = torch.randn(1, 3, 8, 16, 16)
    with torch.no_grad():
        first, all_equal = model(video)[0], model(video[:, :, :1].expand(-1, -1, 8, -1, -1))[0]
    # Identity in time: a latent knows the first of its eight frames, so both answers are the same.
    assert torch.isfinite(first).all() and torch.allclose(first, all_equal, atol=EXACT)
    assert model.latent_std.eq(1).all() and model.latent_mean.eq(0).all()


def test_the_encoder_compiles_as_one_graph():
    model, video = trained(), torch.randn(1, 3, 9, 16, 16)
    compiled = torch.compile(lambda x: model.encode(x).mean, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.allclose(compiled(video), model.encode(video).mean, atol=EXACT)


# ---- tiling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [1, 32, 33, 75, 96])
@torch.no_grad()
def test_tiling_changes_nothing_while_time_is_an_identity(frames):
    _, model = pair()
    video = torch.randn(1, 3, frames, 16, 16)
    whole = model.encode(video)
    tiled = encode_tiled(model, video)
    assert (tiled.mean - whole.mean).abs().max() < EXACT and (tiled.logvar - whole.logvar).abs().max() < EXACT
    assert (decode_tiled(model, whole.mean, frames) - model.decode(whole.mean, frames)).abs().max() < EXACT


@torch.no_grad()
def test_tiling_stays_close_once_the_model_looks_across_time():
    model, video = trained(amount=0.02), waves(1, 96)
    whole = model.encode(video).mean
    decoded = model.decode(whole)

    def deviation(tiled, reference):
        return ((tiled - reference).square().mean().sqrt() / reference.std()).item()

    assert deviation(encode_tiled(model, video).mean, whole) < 0.2
    with_overlap = deviation(decode_tiled(model, whole), decoded)
    without = deviation(decode_tiled(model, whole, overlap=0), decoded)
    assert with_overlap < 0.05 and with_overlap < 0.6 * without


@torch.no_grad()
def test_neighbouring_tiles_are_blended_linearly():
    model, latent = trained(), torch.randn(1, 4, 6, 2, 2)
    left, right = model.decode(latent[:, :, :4]), model.decode(latent[:, :, 2:])
    tiled = decode_tiled(model, latent)
    ramp = (torch.arange(1, 17) / 17).view(1, 1, -1, 1, 1)
    expected = left[:, :, 16:] * (1 - ramp) + right[:, :, :16] * ramp
    assert torch.allclose(tiled[:, :, 16:32], expected, atol=EXACT)
    assert torch.allclose(tiled[:, :, :16], left[:, :, :16], atol=EXACT)
    assert torch.allclose(tiled[:, :, 32:], right[:, :, 16:], atol=EXACT)


@torch.no_grad()
def test_no_tile_is_longer_than_asked_whatever_the_length():
    model, seen = trained(), []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    model.decoder.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    latent = encode_tiled(model, torch.randn(1, 3, 200, 8, 8)).mean
    chunks = [chunk.shape[2] for chunk in decode_tiles(model, latent, 200)]
    assert max(seen) == 32 and max(chunks) <= 32 and sum(chunks) == 200


@pytest.mark.parametrize(
    "call",
    [
        lambda m: encode_tiled(m, torch.zeros(1, 3, 8, 8, 8), tile=12),
        lambda m: decode_tiled(m, torch.zeros(1, 4, 4, 1, 1), tile=4, overlap=3),
    ],
)
def test_tiles_that_cannot_be_are_refused(call):
    with pytest.raises(ValueError, match="tile"):
        call(TAE(SMALL))


@pytest.mark.parametrize("length, most, overlap", [(128, 80, 16), (72, 80, 16), (200, 80, 16), (9, 4, 2)])
def test_the_tiles_of_a_side_cover_it_and_share_enough(length, most, overlap):
    found = spans(length, most, overlap)
    assert found[0][0] == 0 and found[-1][1] == length and all(stop - start <= most for start, stop in found)
    assert all(before[1] - after[0] >= overlap for before, after in pairwise(found))


@torch.no_grad()
def test_a_large_picture_in_tiles_is_exact_away_from_seams_and_close_there():
    torch.manual_seed(0)  # norms and attention see a tile alone: without them the geometry is left
    model, video = TAE(TAEConfig((4, 4, 4, 4), 1, 4, norm_groups=0)), waves(1, 8, 160)
    for attention in (m for m in model.modules() if isinstance(m, Attention)):
        attention.init_identity()
    seen = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[-1]))
    tiled = encode_tiled(model, video, side=14).mean
    assert max(seen) == 14 * 8, "no tile is larger than asked"
    whole = model.encode(video).mean
    made, reference = decode_tiled(model, whole, side=14), model.decode(whole)
    for close, exact, corner in ((tiled, whole, 3), (made, reference, 24)):
        assert close.shape == exact.shape
        assert torch.allclose(close[..., :corner, :corner], exact[..., :corner, :corner], atol=EXACT)
        assert torch.allclose(close[..., -corner:, -corner:], exact[..., -corner:, -corner:], atol=EXACT)
        assert (close - exact).square().mean().sqrt() < 0.2 * exact.std()


# ---- memory --------------------------------------------------------------------------------------------------------


def kept_for_backward(model: TAE, video: torch.Tensor) -> int:
    """Bytes that the forward pass in bfloat16 keeps, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            found[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        out = model(video)
    kept = sum(storage.nbytes() for storage in found.values())
    del out
    return kept


@pytest.mark.heavy
def test_a_step_at_the_published_widths_keeps_less_than_with_torchs_norms_and_a_third_recomputed(monkeypatch):
    config = TAEConfig()  # the published widths; the count grows with pixels, and weights in bfloat16 are left out
    small, large = torch.randn(1, 3, 8, 16, 16), torch.randn(1, 3, 8, 16, 32)
    kept = {}
    for kind in ("torch", "ours", "recomputed"):
        torch.manual_seed(0)
        model = TAE(config)
        with monkeypatch.context() as patch:
            if kind == "torch":
                for module in ("tae", "tae_layers"):
                    patch.setattr(f"rushes.model.{module}.activate", lambda norm, x: F.silu(norm(x)))
            if kind == "recomputed":
                prepare_blocks(heavy_parts(model), checkpointing=True, compiled=False)
            kept[kind] = kept_for_backward(model, large) - kept_for_backward(model, small)
    assert kept["ours"] <= kept["torch"] and kept["recomputed"] <= kept["torch"] / 3, kept


def test_recomputing_changes_no_gradient():
    video, gradients = torch.randn(1, 3, 9, 16, 16), []
    for checkpointing in (False, True):
        model = trained()
        prepare_blocks(heavy_parts(model), checkpointing, compiled=False)
        model(video)[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    plain, again = gradients
    assert all(torch.allclose(again[name], value, atol=1e-7) for name, value in plain.items() if value is not None)


# ---- learning ------------------------------------------------------------------------------------------------------


def waves(batch: int, frames: int, side: int = 16, seed: int = 3) -> torch.Tensor:
    """[batch, 3, frames, side, side] in [-0.8, 0.8]: coloured waves that travel, each in its own direction."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return torch.empty(batch, 1, 1, 1).uniform_(low, high, generator=generator)

    y, x = torch.meshgrid(torch.arange(side) / 32, torch.arange(side) / 32, indexing="ij")
    t = torch.arange(frames).view(1, -1, 1, 1) / 8
    phase = draw(0.5, 2) * x + draw(0.5, 2) * y + draw(0.3, 1) * t + draw(0, 1)
    colour = torch.empty(batch, 3, 1, 1, 1).uniform_(-0.8, 0.8, generator=generator)
    return colour * torch.sin(2 * math.pi * phase).unsqueeze(1)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * math.log10(4 / (a - b).square().mean().item())


def test_a_tiny_model_learns_what_moves():
    torch.manual_seed(0)
    model = TAE(TAEConfig((8, 16, 32, 48), 1, norm_groups=4))
    config = TAELossConfig(perceptual=0, opl=0, adversarial=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0)
    video = waves(2, 32)
    for _ in range(70):
        loss, _ = tae_loss(config, video, *model(video))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        reconstruction = model(video)[0]
    still = video.mean(2, keepdim=True).expand_as(video)  # the best that a model blind to time could do
    assert psnr(reconstruction, video) > psnr(still, video) + 2
