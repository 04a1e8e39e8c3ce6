"""Claims about learned lookers: loading by the real path, and what bad weights and bad answers become."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation.looking.base import Clip, ModelError, in_batches
from rushes.curation.looking.clip import ClipLooker, Tower
from rushes.curation.looking.detector import OnnxPeople, person_scores
from rushes.curation.looking.heads import Head
from rushes.curation.looking.registry import check
from rushes.curation.looking.sscd import ScriptedCopies
from rushes.curation.looking.zeroshot import verbs
from rushes.curation.meter import Unmeasured
from rushes.curation.recipe import RecipeError, build
from tests.curation.looking.conftest import MODEL, WIDTH

FLAT = [np.full((64, 64, 3), 90, np.uint8)] * 2


def clip(name: str, pictures) -> Clip:
    return Clip(name, [float(i) for i in range(len(pictures))], list(pictures))


@pytest.fixture(scope="module")
def tower(weights):
    return Tower(MODEL, str(weights / "clip.pt"))


# --- CLIP -------------------------------------------------------------------------------------------------------


def test_pictures_and_texts_are_unit_rows_of_one_space(tower, pictures):
    rows, words = tower.pictures(pictures), tower.texts(["a street", "a field"])
    assert rows.shape == (4, WIDTH) and words.shape == (2, WIDTH)
    for found in (rows, words):
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_preprocessing_is_that_of_open_clip(tower, pictures):
    from PIL import Image

    from rushes.curation.looking.torchvision_schemas import import_open_clip

    transform = import_open_clip().image_transform(32, is_train=False)
    small = pictures[0][:32, :48]  # its shorter side is the model's: nothing is interpolated
    theirs = transform(Image.fromarray(small[..., ::-1])).numpy()
    np.testing.assert_allclose(tower._pixels(small), theirs, atol=1e-5)


def test_all_columns_of_a_clip_come_from_one_pass(recipe, weights, pictures):
    asked = recipe(
        "models.semantic=clip", f"models.aesthetics={weights / 'mlp.pth'}", "models.people=clip", "models.nsfw=clip",
        f"models.watermark={weights / 'linear.pth'}", "models.rendered=clip",
    )  # fmt: skip
    looker = ClipLooker(asked, "cpu")
    one, two = looker([clip("a", pictures[:1]), clip("b", pictures)])
    assert set(one) == set(looker.columns) and len(looker.columns) == 7
    assert np.linalg.norm(two["semantic"]) == pytest.approx(1, abs=1e-5)
    for name in ("human_score", "nsfw_score", "watermark_score", "rendered_score"):
        assert 0 <= two[name] <= 1
    assert looker.made_by("aesthetic").startswith("mlp.pth@") and MODEL in looker.made_by("aesthetic")
    alone = looker([clip("b", pictures)])[0]
    np.testing.assert_allclose(alone["semantic"], two["semantic"], atol=1e-5)


def test_a_picture_of_one_colour_is_null_with_a_reason_and_moves_no_other(recipe, pictures):
    looker = ClipLooker(recipe("models.semantic=clip"), "cpu")
    flat, real = looker([clip("flat", FLAT), clip("real", pictures)])
    assert isinstance(flat["semantic"], Unmeasured) and "flat colour" in flat["semantic"].reason
    np.testing.assert_allclose(real["semantic"], looker([clip("real", pictures)])[0]["semantic"], atol=1e-5)


def test_an_answer_that_is_no_number_is_null_with_the_models_name(recipe, weights, pictures):
    looker = ClipLooker(recipe(f"models.aesthetics={weights / 'nan.pth'}", "models.semantic=clip"), "cpu")
    row = looker([clip("a", pictures)])[0]
    assert isinstance(row["aesthetic"], Unmeasured) and "nan.pth" in row["aesthetic"].reason
    assert np.isfinite(row["semantic"]).all()


def test_weights_of_another_model_are_refused_in_a_sentence(weights):
    with pytest.raises(ModelError, match=r"clip_weights=.*clip\.pt does not fit models\.clip=tiny-for-tests-wide"):
        Tower(f"{MODEL}-wide", str(weights / "clip.pt"))
    with pytest.raises(ModelError, match=r"models\.clip=no-such-model"):
        Tower("no-such-model", str(weights / "clip.pt"))
    with pytest.raises(ModelError, match="has no weights"):
        Tower(MODEL, None)


def test_memory_that_runs_out_halves_the_batch_and_says_so(recipe, pictures, monkeypatch):
    looker = ClipLooker(recipe("models.semantic=clip"), "cpu")
    whole = looker([clip("a", pictures)])[0]["semantic"]
    encode = looker.tower._model.encode_image

    def greedy(pixels, **options):
        if len(pixels) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return encode(pixels, **options)

    monkeypatch.setattr(looker.tower._model, "encode_image", greedy)
    given = clip("a", pictures)
    np.testing.assert_allclose(looker([given])[0]["semantic"], whole, atol=1e-5)
    assert given.notes == ["semantic: memory ran out, batches of 2 pictures from here on"]


def test_other_errors_of_a_model_are_not_taken_for_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        in_batches([1, 2], lambda some: (_ for _ in ()).throw(RuntimeError("shapes differ")), 2, lambda batch: None)


# --- heads ------------------------------------------------------------------------------------------------------


def test_a_head_in_laions_form_answers_what_its_layers_answer(weights):
    import torch

    state = torch.load(weights / "mlp.pth", weights_only=True)
    rows = torch.randn(3, WIDTH)
    expected = rows
    for number in (0, 2, 3):
        expected = expected @ state[f"layers.{number}.weight"].T + state[f"layers.{number}.bias"]
    found = Head(str(weights / "mlp.pth"), WIDTH, "models.aesthetics", MODEL)(rows.numpy())
    np.testing.assert_allclose(found, expected[:, 0].numpy(), atol=1e-5)


def test_a_head_of_another_width_or_no_head_is_refused(weights, tmp_path):
    with pytest.raises(ModelError, match=r"models\.aesthetics=.*reads embeddings of 768 numbers, and tiny .*writes 16"):
        Head(str(weights / "wide.pth"), WIDTH, "models.aesthetics", "tiny")
    with pytest.raises(ModelError, match="no head of linear layers"):
        Head(str(weights / "clip.pt"), WIDTH, "models.nsfw", "tiny")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ModelError, match="no state dict"):
        Head(str(tmp_path / "text.pth"), WIDTH, "models.nsfw", "tiny")


# --- copies and people ------------------------------------------------------------------------------------------


def test_a_scripted_model_embeds_clips_and_refuses_what_is_none(weights, pictures):
    looker = ScriptedCopies(str(weights / "copies.pt"))
    one, flat, two = looker([clip("a", pictures[:2]), clip("flat", FLAT), clip("b", pictures)])
    assert one["copy"].shape == (looker.dim,) and np.linalg.norm(two["copy"]) == pytest.approx(1, abs=1e-5)
    assert isinstance(flat["copy"], Unmeasured)
    with pytest.raises(ModelError, match="no TorchScript file"):
        ScriptedCopies(str(weights / "clip.pt"))


def test_a_detectors_score_is_that_of_its_best_person(weights, pictures):
    people = OnnxPeople(str(weights / "person.onnx"))
    bright, dark = np.full((64, 64, 3), 250, np.uint8), np.zeros((64, 64, 3), np.uint8)
    bright[:4], dark[:8] = 0, 255
    scores = [row["human_score"] for row in people([clip("bright", [dark, bright]), clip("dark", [dark])])]
    assert scores[0] == pytest.approx(250 / 255 * 60 / 64, abs=0.01) and scores[1] == pytest.approx(8 / 64, abs=0.01)
    with pytest.raises(ModelError, match="no form that is understood"):
        OnnxPeople(str(weights / "strange.onnx"))


def test_the_known_forms_of_detectors_are_told_apart():
    rows = np.zeros((100, 85), np.float32)
    rows[7, 4], rows[7, 5] = 0.8, 0.5
    assert person_scores([rows[None]], 0).max() == pytest.approx(0.4)  # objectness x class
    assert person_scores([rows[None, :, :84].transpose(0, 2, 1)], 0).max() == pytest.approx(0.8)
    suppressed = np.array([[[0, 0, 9, 9, 0.9, 16], [0, 0, 9, 9, 0.7, 0]]], np.float32)
    assert person_scores([suppressed], 0).max() == pytest.approx(0.7)
    logits = np.full((1, 10, 92), -9, np.float32)
    logits[0, 3, 1] = 0
    assert person_scores([logits, np.zeros((1, 10, 4), np.float32)], 1).max() == pytest.approx(0.5)


def test_there_are_600_verbs_and_each_once():
    words = [verb for group in verbs().values() for verb in group]
    assert len(words) == len(set(words)) == 600


# --- before the first file --------------------------------------------------------------------------------------


def test_what_is_missing_is_said_before_the_first_file(recipe, weights):
    assert check(recipe("models.semantic=clip"), gpus=0) is None
    assert "models.gpus=0.5 asks for a GPU and the cluster has 0" in check(
        recipe("models.semantic=clip", "models.gpus=0.5"), gpus=0
    )
    assert check(build({}, ["models.gpus=1", "visual.text=false"]), gpus=0) is None  # nothing of it runs on one
    assert "models.copies=/no/such.pt" in check(build({}, ["models.copies=/no/such.pt"]), gpus=0)
    with pytest.raises(RecipeError, match=r"models\.clip names no model"):
        build({}, ["models.semantic=clip"])


def test_a_gpu_recipe_on_torch_without_cuda_is_refused(recipe):
    import torch

    if torch.backends.cuda.is_built():
        pytest.skip("this torch has CUDA")
    assert "needs torch with CUDA" in check(recipe("models.semantic=clip", "models.gpus=1"), gpus=8)
