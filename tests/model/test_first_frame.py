"""Image to video: the transformer is told the first frame, learns from it, and samples with it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rushes.model.data import DataError  # noqa: E402
from rushes.model.dit import DiT, DiTConfig  # noqa: E402
from rushes.model.frozen import load_tae  # noqa: E402
from rushes.model.sample import load_dit, sample_video  # noqa: E402
from rushes.model.text import ByteEncoder, TextEncoders  # noqa: E402
from rushes.model.train import train_dit  # noqa: E402
from tests.model.small_run import dit_recipe  # noqa: E402

torch.set_num_threads(1)
TOLD = "options.first_frame=true"


def small(**options) -> DiT:
    torch.manual_seed(0)
    model = DiT(DiTConfig(1, 32, 48, 2, 4, grid=(2, 4, 4), text_widths={"bytes": 8}, **options))
    torch.nn.init.normal_(model.final.weight)  # a trained model answers something
    return model


@torch.no_grad()
def test_a_first_frame_changes_nothing_at_the_start_and_only_the_clips_it_is_given_to():
    model, x, t = small(first_frame=True), torch.randn(2, 4, 2, 4, 4), torch.tensor([0.3, 0.6])
    text, mask = {"bytes": torch.randn(2, 3, 8)}, {"bytes": torch.ones(2, 3, dtype=torch.bool)}
    first, given = torch.randn(2, 4, 1, 4, 4), torch.tensor([True, False])
    plain = model(x, t, text, mask)
    assert torch.equal(model(x, t, text, mask, first=first), plain), "its weights start at zero"
    torch.nn.init.normal_(model.first.weight)
    told = model(x, t, text, mask, first=first, first_given=given)
    assert not torch.allclose(told[0], plain[0]) and torch.allclose(told[1], plain[1], atol=1e-6)
    black = model(x, t, text, mask, first=torch.zeros_like(first))
    assert not torch.allclose(black, plain), "a black frame is not the same as none"


def test_it_is_trained_and_sampled_with(small_run, small_tae, tmp_path):
    assert train_dit(dit_recipe(TOLD, steps=2, lr=1e-2), [small_run], str(tmp_path), small_tae, lambda _: None)
    tae, mark = load_tae(small_tae)
    model, _ = load_dit(str(tmp_path), mark)
    assert model.first.weight.abs().max() > 0
    encoders = TextEncoders([ByteEncoder(16, 24)])
    frames = [np.full((1, 32, 32, 3), value, np.uint8) for value in (0, 255)]
    made = [sample_video(model, tae, encoders, "A clip.", 8, 32, 32, 2, 1.0, first=one) for one in frames]
    assert made[0].shape == (8, 32, 32, 3) and not np.array_equal(*made)


def test_half_precision_samples_are_close(small_run, small_tae, tmp_path):
    assert train_dit(dit_recipe(steps=1, lr=1e-2), [small_run], str(tmp_path), small_tae, lambda _: None)
    tae, encoders, made = load_tae(small_tae)[0], TextEncoders([ByteEncoder(16, 24)]), []
    for half in (False, True):
        model, _ = load_dit(str(tmp_path), half=half)
        assert next(model.parameters()).dtype == (torch.bfloat16 if half else torch.float32)
        made.append(sample_video(model, tae, encoders, "A clip.", 8, 32, 32, 4, 1.0).astype(int))
    assert np.abs(made[0] - made[1]).mean() < 3


def test_runs_of_latents_have_no_first_frames(small_latents, small_tae, tmp_path):
    with pytest.raises(DataError, match="no first frames"):
        train_dit(dit_recipe(TOLD, steps=1), [small_latents], str(tmp_path), small_tae, lambda _: None)
