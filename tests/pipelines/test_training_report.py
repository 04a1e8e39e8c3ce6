"""The report's section on trainings is made of what the trainings left."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("torch")

from rushes.model.checkpoint import CheckpointError
from rushes.model.train import train_dit
from rushes.pipelines.view.training import _curve, training_section
from tests.model.conftest import small_run, small_tae  # noqa: F401
from tests.model.small_run import dit_recipe


def test_it_shows_losses_reconstructions_and_samples(small_run, small_tae, tmp_path):  # noqa: F811
    dit = str(tmp_path / "dit")
    assert train_dit(dit_recipe(), [small_run], dit, small_tae, lambda _: None)
    title, html = training_section(small_run, small_tae, dit)
    assert title == "Training"
    curves = re.findall(r'points="([^"]+)"', html)
    assert len(curves) == 1, "the autoencoder was validated once, which is no curve"
    assert len(curves[0].split()) == 2, "the transformer after three steps and after six"
    assert html.count("<b>original</b>") == html.count("<b>reconstruction</b>") == 2, "two clips are validated on"
    assert html.count("<b>sample</b>") == 3 and "Clip number" in html, "with the captions they were made for"
    assert html.count("nearest of") == 3, "beside each the clip that it is nearest to"
    assert html.count("data:image/jpeg;base64,") == 2 * 2 + 3 * 2


def test_a_curve_that_rises_says_why_beside_it():
    falls = _curve("Transformer: joint", "loss", [(10, 0.5), (20, 0.4), (30, 0.39)])
    rises = _curve("Transformer: finetune", "loss", [(10, 0.5), (20, 0.4), (30, 0.6)])
    assert falls["note"] == "" and "Lowest at step 20" in rises["note"] and "by heart" in rises["note"]


def test_without_a_transformer_there_are_no_samples(small_run, small_tae):  # noqa: F811
    _, html = training_section(small_run, small_tae, None)
    assert "<b>sample</b>" not in html and "<b>reconstruction</b>" in html


def test_what_is_no_training_is_a_sentence(small_run, small_tae, tmp_path):  # noqa: F811
    with pytest.raises(CheckpointError, match="holds no log of a training"):
        training_section(small_run, small_tae, str(tmp_path))
