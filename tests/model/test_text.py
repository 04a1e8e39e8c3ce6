"""Prompts, encoders and the projection into the model."""

from __future__ import annotations

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from rushes.model.data import Sample  # noqa: E402
from rushes.model.dit import PAPER_TEXT  # noqa: E402
from rushes.model.frozen import load_tae, text_encoders  # noqa: E402
from rushes.model.sample import load_dit, sample_video  # noqa: E402
from rushes.model.steps import prompts_of  # noqa: E402
from rushes.model.text import (  # noqa: E402
    ByteEncoder,
    CLIPEncoder,
    T5Encoder,
    TextEncoderError,
    TextEncoders,
    TextProjector,
    prompt,
    quoted,
)
from rushes.model.train import train_dit  # noqa: E402
from rushes.model.train_recipe import Text, TrainRecipeError, load  # noqa: E402
from tests.model.small_run import dit_recipe  # noqa: E402

torch.set_num_threads(1)
FIRST_BYTE = [-0.75662, 0.51233, 0.88591, 0.18699, -0.15915, 2.4391, 0.26473, -0.12956]  # of "a" at width 8


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("A dog runs.", 16, "pan left"), "FPS-16. pan left. A dog runs."),
        (("A dog runs.", 23.976, None), "FPS-24. A dog runs."),
        ((" A dog runs. ", None, "static shot."), "static shot. A dog runs."),
        (("", 16, ""), "FPS-16."),
        (("A dog runs.",), "A dog runs."),
    ],
)
def test_fps_and_camera_motion_stand_in_front_of_the_caption(arguments, expected):
    assert prompt(*arguments) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ('A sign that says "OPEN" and “closed”', "OPEN closed"),
        ("the dog's owner didn't stop", ""),
        ('an unfinished "quote', ""),
        ("«Привет» on a wall", "Привет"),
    ],
)
def test_only_what_stands_in_quotation_marks_is_quoted(text, expected):
    assert quoted(text) == expected


def test_the_byte_encoder_is_the_same_in_every_process():
    row = ByteEncoder(8).encode(["a"]).tokens[0, 0]
    # Literal numbers, so that a change of the table cannot pass unnoticed under cached features.
    expected = torch.tensor(FIRST_BYTE)
    assert torch.allclose(row, expected, atol=1e-5)


def test_bytes_have_variance_one_and_no_mean():
    table = ByteEncoder(64).table
    assert abs(table.mean().item()) < 0.03 and abs(table.var().item() - 1) < 0.03


def test_captions_of_other_words_or_another_order_have_other_features():
    features = ByteEncoder(16).encode(["ab", "ba", "ab"]).tokens
    assert torch.equal(features[0], features[2]) and not torch.allclose(features[0], features[1])


def test_short_prompts_are_padded_and_long_ones_cut():
    features = ByteEncoder(16, max_tokens=4).encode(["", "é", "abcdefgh"])
    assert features.tokens.shape == (3, 4, 16)
    assert features.mask.sum(1).tolist() == [0, 2, 4]
    assert features.tokens[~features.mask].abs().max() == 0


def test_encoders_side_by_side_read_the_same_prompts_each_in_its_way():
    encoders = TextEncoders([ByteEncoder(16), ByteEncoder(8, name="quoted", quoted_only=True)])
    found = encoders.encode(['A sign: "OPEN"', "A dog."])
    assert encoders.widths == {"bytes": 16, "quoted": 8}
    assert found["bytes"].mask.sum(1).tolist() == [14, 6] and found["quoted"].mask.sum(1).tolist() == [4, 0]
    assert torch.equal(found["quoted"].tokens[:1], ByteEncoder(8).encode(["OPEN"]).tokens)


def test_the_camera_motion_in_front_of_a_sets_caption_is_said_once():
    sample = Sample(np.empty(0), "pan left. A dog runs.", 16.0, "clip")
    assert prompts_of([sample], images=False) == ["FPS-16. pan left. A dog runs."]
    assert prompts_of([sample], images=True) == ["pan left. A dog runs."]


def test_the_published_recipe_reads_three_encoders_at_the_widths_that_the_model_expects():
    recipe = load("dit-moviegen", ["text.encoders.ul2.source=/weights/ul2"])
    assert [encoder.name for encoder in recipe.text.encoders] == list(PAPER_TEXT) == ["ul2", "byt5", "clip"]
    assert recipe.text.encoders[0].source == "/weights/ul2" and recipe.text.encoders[1].source == "google/byt5-small"


@pytest.mark.parametrize(
    "override, words",
    [
        ("text.encoders=[{name: t5}]", "must have a name of bytes, quoted, ul2, byt5, clip, llama"),
        ("text.encoders=[{width: 16}]", "must have a name of bytes, quoted, ul2, byt5, clip, llama"),
        ("text.encoders=[{name: bytes, widht: 16}]", "Did you mean 'text.encoders.bytes.width'"),
        ("text.encoders=[{name: bytes}, {name: bytes}]", "names an encoder twice: bytes, bytes"),
        ("text.encoders.ul2.source=a", "no text encoder 'ul2'; text encoders: bytes, or all"),
        ("text.encoders.bytes.width=15", "15 will not do; it should be a multiple of 2"),
    ],
)
def test_an_encoder_that_is_not_there_is_a_sentence(override, words):
    with pytest.raises(TrainRecipeError, match=words):
        load("dit-tiny", [override])


TWO = "text.encoders=[{name: bytes, width: 16, max_tokens: 24}, {name: quoted, width: 8}]"


def test_a_transformer_reads_several_encoders_and_sampling_builds_them_from_its_checkpoint(
    small_run, small_tae, tmp_path
):
    assert train_dit(dit_recipe(TWO, steps=1), [small_run], str(tmp_path), small_tae, lambda _: None)
    tae, mark = load_tae(small_tae)
    dit, meta = load_dit(str(tmp_path), mark)
    encoders = text_encoders(Text(**meta["text"]))
    assert [entry["name"] for entry in meta["text"]["encoders"]] == ["bytes", "quoted"]
    assert encoders.widths == dit.config.text_widths == {"bytes": 16, "quoted": 8}
    assert sample_video(dit, tae, encoders, 'A sign "OPEN".', 1, 32, 32, steps=2).shape == (1, 32, 32, 3)


def test_an_encoder_without_its_library_stops_a_training_before_the_first_step(
    monkeypatch, small_run, small_tae, tmp_path
):
    monkeypatch.setitem(sys.modules, "transformers", None)
    recipe = dit_recipe("text.encoders=[{name: bytes}, {name: ul2, source: /weights/ul2}]", steps=1)
    with pytest.raises(TextEncoderError, match="transformers"):
        train_dit(recipe, [small_run], str(tmp_path / "dit"), small_tae, lambda _: None)
    assert not (tmp_path / "dit" / "checkpoints").exists()


def test_no_prompts_and_empty_prompts_are_features_of_length_zero():
    assert ByteEncoder(16).encode([]).tokens.shape == (0, 0, 16)
    assert ByteEncoder(16).encode(["", ""]).tokens.shape == (2, 0, 16)


@pytest.mark.parametrize(
    "module, build", [("transformers", lambda: T5Encoder("google/ul2")), ("open_clip", CLIPEncoder)]
)
def test_a_missing_library_is_a_sentence_that_names_the_extra(monkeypatch, module, build):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TextEncoderError, match=rf"{module}.*rushes\[text\]"):
        build()


@pytest.fixture
def projector():
    torch.manual_seed(0)
    return TextProjector({"ul2": 12, "clip": 6}, dim=16)


@pytest.fixture
def features():
    texts = {"ul2": torch.randn(2, 5, 12), "clip": torch.randn(2, 3, 6)}
    masks = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in texts.items()}
    return texts, masks


def test_encoders_are_concatenated_behind_one_null_token(projector, features):
    tokens, mask = projector(*features)
    assert tokens.shape == (2, 1 + 5 + 3, 16) and mask.all()
    assert torch.equal(tokens[0, 0], projector.null[0, 0])


def test_each_encoder_arrives_normalised_whatever_its_scale(projector, features):
    texts, masks = features
    loud, _ = projector({**texts, "ul2": texts["ul2"] * 1000}, masks)
    assert loud[:, 1:].std(-1, unbiased=False).sub(1).abs().max() < 0.01


def test_dropping_the_text_leaves_the_null_token_alone(projector, features):
    _, mask = projector(*features, drop=torch.tensor([True, False]))
    assert mask[0].tolist() == [True] + [False] * 8 and mask[1].all()


def test_an_empty_prompt_still_has_something_to_look_at(projector, features):
    texts, masks = features
    _, mask = projector(texts, {name: torch.zeros_like(m) for name, m in masks.items()})
    assert (mask.sum(1) == 1).all()


def test_features_of_other_encoders_are_refused_by_name(projector, features):
    texts, masks = features
    with pytest.raises(ValueError, match=r"\['clip', 'ul2'\].*\['ul2'\]"):
        projector({"ul2": texts["ul2"]}, masks)
