"""Inflation: the TAE starts as exactly the image autoencoder whose weights it was given."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from rushes.model.inflate import image_config, inflate  # noqa: E402
from rushes.model.tae import TAE  # noqa: E402
from rushes.model.tae_config import TAEConfig  # noqa: E402
from tests.model.image_autoencoder import EXACT, pair  # noqa: E402

torch.set_num_threads(1)


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
        image_config({"rushes.model.weight": torch.ones(1)})
