"""The autoencoder: exact inflation from an image model, any length, tiling, and that it learns."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from model.losses import TAELossConfig, tae_loss  # noqa: E402
from model.tae import (  # noqa: E402
    TAE,
    TAE_SIZES,
    Attention,
    SpaceTimeConv,
    TAEConfig,
    TemporalConv,
    image_config,
    inflate,
    latent_frames,
)

torch.set_num_threads(1)
SMALL = TAEConfig(block_channels=(8, 16, 16, 24), layers_per_block=1, latent_channels=4, norm_groups=4)
EXACT = 1e-5  # of values of about 1: float32 rounding in another order


# ---- a plain image autoencoder with the names of diffusers' AutoencoderKL -------------------------------------------


class ImageResnet(nn.Module):
    def __init__(self, cin, cout, groups):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, cin, eps=1e-6), nn.GroupNorm(groups, cout, eps=1e-6)
        self.conv1, self.conv2 = nn.Conv2d(cin, cout, 3, padding=1), nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.conv_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        y = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return y + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class ImageAttention(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x):
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.to_q(tokens), self.to_k(tokens), self.to_v(tokens)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(q.shape[-1]), dim=-1)
        return x + self.to_out[0](weights @ v).transpose(1, 2).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class ImageStage(nn.Module):
    def __init__(self, cin, cout, layers, groups, down=False, up=False):
        super().__init__()
        self.resnets = nn.ModuleList(ImageResnet(cin if i == 0 else cout, cout, groups) for i in range(layers))
        if down:
            self.downsamplers = nn.ModuleList([Down(cout)])
        if up:
            self.upsamplers = nn.ModuleList([Up(cout)])

    def forward(self, x):
        for block in [*self.resnets, *getattr(self, "downsamplers", []), *getattr(self, "upsamplers", [])]:
            x = block(x)
        return x


class ImageHalf(nn.Module):
    """The encoder or the decoder."""

    def __init__(self, chans, layers, groups, cin, cout, decode):
        super().__init__()
        chans = chans[::-1] if decode else chans
        self.conv_in = nn.Conv2d(cin, chans[0], 3, padding=1)
        self.mid_block = nn.Module()
        middle = chans[0] if decode else chans[-1]
        self.mid_block.resnets = nn.ModuleList(ImageResnet(middle, middle, groups) for _ in range(2))
        self.mid_block.attentions = nn.ModuleList([ImageAttention(middle, groups)])
        stages = nn.ModuleList(
            ImageStage(
                chans[max(i - 1, 0)], c, layers + decode, groups, down=not decode and i < 3, up=bool(decode) and i < 3
            )
            for i, c in enumerate(chans)
        )
        self.decode = decode
        setattr(self, "up_blocks" if decode else "down_blocks", stages)
        self.conv_norm_out = nn.GroupNorm(groups, chans[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(chans[-1], cout, 3, padding=1)

    def forward(self, x):
        middle = [self.mid_block.resnets[0], self.mid_block.attentions[0], self.mid_block.resnets[1]]
        blocks = [*middle, *self.up_blocks] if self.decode else [*self.down_blocks, *middle]
        x = self.conv_in(x)
        for block in blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class ImageAutoencoder(nn.Module):
    def __init__(self, config: TAEConfig):
        super().__init__()
        c, shape = config.latent_channels, (config.block_channels, config.layers_per_block, config.norm_groups)
        self.encoder = ImageHalf(*shape, 3, 2 * c, decode=False)
        self.decoder = ImageHalf(*shape, c, 3, decode=True)
        if config.quant_conv:
            self.quant_conv, self.post_quant_conv = nn.Conv2d(2 * c, 2 * c, 1), nn.Conv2d(c, c, 1)

    def encode(self, image):
        x = self.encoder(image)
        return (self.quant_conv(x) if hasattr(self, "quant_conv") else x).chunk(2, dim=1)[0]

    def decode(self, z):
        return self.decoder(self.post_quant_conv(z) if hasattr(self, "post_quant_conv") else z)


def pair(volume: bool = False, quant_conv: bool = False) -> tuple[ImageAutoencoder, TAE]:
    """A random image autoencoder, and the TAE inflated from its weights alone."""
    torch.manual_seed(0)
    shape = TAEConfig(SMALL.block_channels, 1, 4, norm_groups=4, quant_conv=quant_conv)
    image = ImageAutoencoder(shape).eval()
    with torch.no_grad():
        for parameter in image.parameters():  # norms and biases too, so that a mix-up cannot hide behind ones
            parameter.add_(torch.randn_like(parameter) * 0.05)
    state = image.state_dict()
    model = TAE(image_config(state, norm_groups=4, volume=volume))
    inflate(model, state)
    return image, model


def trained(volume: bool = False, amount: float = 0.05) -> TAE:
    """A model that looks across time, as after some training."""
    torch.manual_seed(0)
    model = TAE(TAEConfig(SMALL.block_channels, 1, 4, norm_groups=4, volume=volume))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "temporal" in name or ".time." in name:
                parameter.add_(torch.randn_like(parameter) * amount)
    return model


# ---- inflation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quant_conv", [False, True])
@pytest.mark.parametrize("volume", [False, True], ids=["2.5d", "3d"])
@torch.no_grad()
def test_an_inflated_model_is_the_image_model_on_single_frames(volume, quant_conv):
    image, model = pair(volume, quant_conv)
    frame = torch.rand(2, 3, 24, 40) * 2 - 1
    z = image.encode(frame)
    expected = image.decode(z)
    reconstruction, _, latent = model(frame.unsqueeze(2))
    assert expected.std() > 0.05  # the comparison is of something
    assert (latent.squeeze(2) - z).abs().max() < EXACT
    assert (reconstruction.squeeze(2) - expected).abs().max() < EXACT


@torch.no_grad()
def test_every_eighth_frame_of_a_video_is_the_image_model_at_step_0():
    image, model = pair()
    video = torch.rand(1, 3, 17, 16, 16) * 2 - 1
    reconstruction, _, latent = model(video)
    for frame in (0, 8, 16):
        z = image.encode(video[:, :, frame])
        assert (latent[:, :, frame // 8] - z).abs().max() < EXACT
        assert (reconstruction[:, :, frame] - image.decode(z)).abs().max() < EXACT


def test_the_shape_is_read_from_the_weights():
    _, model = pair(quant_conv=True)
    assert model.config == TAEConfig((8, 16, 16, 24), 1, 4, norm_groups=4, quant_conv=True)


@torch.no_grad()
def test_attention_weights_under_their_old_names_and_shapes_are_read():
    image, model = pair()
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, value in image.state_dict().items():
        for new, old in names.items():
            if f"attentions.0.{new}." in name:
                name = name.replace(new, old)
                value = value[:, :, None, None] if value.ndim == 2 else value
        state[name] = value
    other = TAE(model.config)
    inflate(other, state)
    video = torch.randn(1, 3, 1, 16, 16)
    assert torch.equal(other(video)[0], model(video)[0])


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda s: _without(s, "decoder.conv_out.bias"), r"lacks 1 weights, 'decoder\.conv_out\.spatial\.bias'"),
        (lambda s: {**s, "encoder.extra.weight": torch.ones(1)}, r"'encoder\.extra\.weight' that the TAE has no place"),
        (lambda s: {**s, "decoder.conv_out.bias": torch.ones(4)}, r"'decoder\.conv_out\.bias' has the shape \[4\]"),
    ],
    ids=["missing", "unknown", "another shape"],
)
def test_weights_that_do_not_fit_are_named_and_nothing_is_changed(damage, message):
    image, model = pair()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {name: value + 1 for name, value in image.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        inflate(model, damage(state))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_of_something_else_are_refused():
    with pytest.raises(ValueError, match="not an AutoencoderKL"):
        image_config({"model.weight": torch.ones(1)})


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
    tiled = model.encode_tiled(video)
    assert (tiled.mean - whole.mean).abs().max() < EXACT and (tiled.logvar - whole.logvar).abs().max() < EXACT
    assert (model.decode_tiled(whole.mean, frames) - model.decode(whole.mean, frames)).abs().max() < EXACT


@torch.no_grad()
def test_tiling_stays_close_once_the_model_looks_across_time():
    model, video = trained(amount=0.02), waves(1, 96)
    whole = model.encode(video).mean
    decoded = model.decode(whole)

    def deviation(tiled, reference):
        return ((tiled - reference).square().mean().sqrt() / reference.std()).item()

    assert deviation(model.encode_tiled(video).mean, whole) < 0.2
    with_overlap = deviation(model.decode_tiled(whole), decoded)
    without = deviation(model.decode_tiled(whole, overlap=0), decoded)
    assert with_overlap < 0.05 and with_overlap < 0.6 * without


@torch.no_grad()
def test_neighbouring_tiles_are_blended_linearly():
    model, latent = trained(), torch.randn(1, 4, 6, 2, 2)
    left, right = model.decode(latent[:, :, :4]), model.decode(latent[:, :, 2:])
    tiled = model.decode_tiled(latent)
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
    latent = model.encode_tiled(torch.randn(1, 3, 200, 8, 8)).mean
    chunks = [chunk.shape[2] for chunk in model.decode_tiles(latent, 200)]
    assert max(seen) == 32 and max(chunks) <= 32 and sum(chunks) == 200


@pytest.mark.parametrize("call", [lambda m: m.encode_tiled(torch.zeros(1, 3, 8, 8, 8), tile=12),
                                  lambda m: m.decode_tiled(torch.zeros(1, 4, 4, 1, 1), tile=4, overlap=3)])  # fmt: skip
def test_tiles_that_cannot_be_are_refused(call):
    with pytest.raises(ValueError, match="tile"):
        call(TAE(SMALL))


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


@pytest.mark.slow
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
