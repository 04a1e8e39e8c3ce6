"""Training: it learns, it stops and goes on without a trace, and what is wrong is a sentence."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import av  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rushes.curation.manifest import ManifestError, lock  # noqa: E402
from rushes.model import checkpoint as checkpoints  # noqa: E402
from rushes.model import train  # noqa: E402
from rushes.model.data import DataError  # noqa: E402
from rushes.model.frozen import text_encoders  # noqa: E402
from rushes.model.loop import Session, TrainingError  # noqa: E402
from rushes.model.sample import load_dit, sample_video, write_mp4  # noqa: E402
from rushes.model.stages import Progress, learning_rate, note_validation  # noqa: E402
from rushes.model.train_recipe import Stage, TrainRecipeError, load, shipped  # noqa: E402
from rushes.pipelines.cli.main import app  # noqa: E402
from tests.model.small_run import (  # noqa: E402
    BUCKET,
    CLIPS,
    TALL,
    dit_recipe,
    film_run,
    losses,
    make_film,
    make_run,
    on_ranks,
    row,
    tae_recipe,
)

torch.set_num_threads(1)
ADVERSARIAL, BATTLE = ("loss.adversarial=0.5", "loss.adversarial_start=1"), {"steps": 4, "resolution": None}


def quiet(_: str) -> None:
    pass


def entries(output) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_the_autoencoder_learns_and_knows_its_latents(small_run, tmp_path):
    assert train.train_tae(tae_recipe(steps=30, lr=5e-3, validate_every=30), [small_run], str(tmp_path), quiet)
    validations = [entry["validation"] for entry in entries(tmp_path) if "validation" in entry]
    assert validations[-1] < 0.8 * losses(tmp_path)[1]
    model, _ = train.load_tae(str(tmp_path))
    assert (model.latent_std != 1).all() and (model.latent_std > 0).all()


def test_tensorboard_has_the_losses_of_the_log_and_no_step_twice(small_run, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        assert train.train_tae(tae_recipe(steps=3, save_every=1), [small_run], str(tmp_path), quiet)
        events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
        assert [event.step for event in events] == [1, 2, 3]
        assert [event.value for event in events] == pytest.approx(list(losses(tmp_path).values()), abs=1e-6)
        shutil.rmtree(checkpoints.published(tmp_path)[-1])  # the third step is done again


def test_the_discriminator_takes_part_from_its_step_on(small_run, tmp_path):
    assert train.train_tae(tae_recipe(*ADVERSARIAL, **BATTLE), [small_run], str(tmp_path), quiet)
    first, second, third, _ = entries(tmp_path)
    assert "discriminator" not in first and second["discriminator"] > 0
    assert second["adversarial_scale"] == 0 and third["adversarial_scale"] > 0


@pytest.mark.heavy
def test_the_adversarial_term_does_not_depend_on_how_a_batch_is_dealt_out(small_run, tmp_path):
    assert train.train_tae(tae_recipe(*ADVERSARIAL, **BATTLE), [small_run], str(tmp_path / "one"), quiet)
    micro = tae_recipe(*ADVERSARIAL, **{**BATTLE, "micro_batch": 1})
    assert train.train_tae(micro, [small_run], str(tmp_path / "micro"), quiet)
    assert on_ranks(2, "train_tae", small_run, tmp_path / "two") == [0, 0]
    for whole, parts, ranks in zip(*(entries(tmp_path / name) for name in ("one", "micro", "two"))):
        for name in ("loss", "gradient", *(("adversarial_scale",) if whole["step"] > 1 else ())):
            assert ranks[name] == pytest.approx(parts[name], abs=1e-5), (whole["step"], name)
            # Adam's first steps magnify how a sum was rounded, up to 3e-4 here.
            assert parts[name] == pytest.approx(whole[name], rel=2e-3), (whole["step"], name)


def test_steps_are_told_of_between_validations(small_run, tmp_path, monkeypatch):
    monkeypatch.setattr("rushes.model.loop.TELL_EVERY_S", 0.0)
    said: list[str] = []
    assert train.train_tae(tae_recipe(steps=3), [small_run], str(tmp_path), said.append)
    told = [line.split()[2] for line in said if " step " in line and "loss" in line]
    assert told == ["1", "2", "3"] and sum("validation" in line for line in said if " step " in line) == 1


def test_a_smaller_micro_batch_changes_no_loss(small_run, small_tae, tmp_path):
    for micro in (4, 1):
        assert train.train_dit(dit_recipe(micro_batch=micro), [small_run], str(tmp_path / str(micro)), small_tae, quiet)
    whole, parts = losses(tmp_path / "4"), losses(tmp_path / "1")
    assert len(whole) == 6 and len(set(whole.values())) == 6
    assert all(parts[step] == pytest.approx(loss, abs=1e-5) for step, loss in whole.items())


def test_a_step_of_several_buckets_has_the_mean_loss_of_its_clips(small_tae, tmp_path):
    make_film(tmp_path)
    shapes = [(BUCKET, 16)] * 2 + [(BUCKET, 8)] * 2 + [(TALL, 8)] * 2
    rows = [row(n, f"{tmp_path}/film.mp4", bucket, bucket_frames=frames) for n, (bucket, frames) in enumerate(shapes)]
    run = make_run(tmp_path / "run", rows)
    stage = {"steps": 4, "batch": 2, "balance": 2, "frames_max": None, "resolution": None}
    for micro in (2, 1):
        recipe = dit_recipe(**stage, micro_batch=micro)
        assert train.train_dit(recipe, [run], str(tmp_path / str(micro)), small_tae, quiet)
    whole, parts = losses(tmp_path / "2"), losses(tmp_path / "1")
    assert all(parts[step] == pytest.approx(loss, abs=1e-5) for step, loss in whole.items())
    shapes = [entry["shape"] for entry in entries(tmp_path / "2")]
    assert sorted(shapes[:2]) == sorted(shapes[2:]) == ["32x64x8 + 64x32x8", "64x32x16"], "two steps an epoch"


def test_sigterm_saves_and_the_same_command_goes_on_with_the_same_losses(small_run, small_tae, tmp_path, monkeypatch):
    assert train.train_dit(dit_recipe(), [small_run], str(tmp_path / "whole"), small_tae, quiet)
    one_step, output = Session._step, tmp_path / "stopped"

    def disturbed(self, *arguments):
        if self.progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_step", disturbed)
        assert train.train_dit(dit_recipe(save_every=100), [small_run], str(output), small_tae, quiet) is False
    assert checkpoints.open_checkpoint(output).step == 3
    assert train.train_dit(dit_recipe(save_every=100), [small_run], str(output), small_tae, quiet)
    assert losses(output) == losses(tmp_path / "whole")


def test_a_loss_that_is_not_a_number_stops_with_a_sentence_and_keeps_the_last_checkpoint(
    small_run, small_tae, tmp_path, monkeypatch
):
    make = train.dit_backward

    def poisoned(*arguments):
        backward = make(*arguments)

        def step_of(batch, step):
            terms = backward(batch, step)
            return {"loss": terms["loss"] * math.nan} if step == 3 else terms

        return step_of

    monkeypatch.setattr(train, "dit_backward", poisoned)
    skipped = tmp_path / "skipped"
    assert train.train_dit(dit_recipe(), [small_run], str(skipped), small_tae, quiet)
    fourth = entries(skipped)[3]
    assert fourth["skipped"] == "loss is nan" and fourth["loss"] is None and fourth["gradient"] > 0
    assert checkpoints.open_checkpoint(skipped).meta["skipped"] == 1
    before, after = (
        checkpoints.read_weights(checkpoints.Checkpoint(p, {}), averaged=False)
        for p in checkpoints.published(skipped)[:2]
    )
    assert len(entries(skipped)) == 6 and not torch.equal(before["final.weight"], after["final.weight"])
    with pytest.raises(TrainingError, match=r"loss is nan at step 4 .*last good checkpoint is .*step-00000002"):
        train.train_dit(dit_recipe("optimizer.skip_max=0"), [small_run], str(tmp_path), small_tae, quiet)
    weights = checkpoints.read_weights(checkpoints.open_checkpoint(tmp_path))
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_positions_grow_from_stage_to_stage_and_a_finished_training_stays_finished(small_run, small_tae, tmp_path):
    stages = [
        dit_recipe(steps=2, image_every=1, name="images").stages[0],
        dit_recipe(steps=2, grid=(1, 3, 4)).stages[0],
    ]
    recipe = dit_recipe().model_copy(update={"stages": tuple(stages)})
    for _ in range(2):
        assert train.train_dit(recipe, [small_run], str(tmp_path), small_tae, quiet)
    assert [entry["stage"] for entry in entries(tmp_path)] == ["images", "images", "one", "one"]
    assert entries(tmp_path)[0]["shape"].endswith("x1") and entries(tmp_path)[2]["shape"].endswith("x8")
    assert checkpoints.open_checkpoint(tmp_path).meta["config"]["grid"] == [1, 3, 4]


def test_a_sample_is_a_video_of_the_size_asked_for(small_run, small_tae, tmp_path):
    recipe = dit_recipe(steps=1)
    train.train_dit(recipe, [small_run], str(tmp_path / "dit"), small_tae, quiet)
    tae, mark = train.load_tae(small_tae)
    dit, meta = load_dit(str(tmp_path / "dit"), mark)
    encoders = text_encoders(type(recipe.text)(**meta["text"]))
    videos = [sample_video(dit, tae, encoders, "A clip.", 9, 32, 48, steps=2, seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(videos[0], videos[1]) and not np.array_equal(videos[0], videos[2])
    with av.open(str(write_mp4(tmp_path / "out" / "a.mp4", videos[0], fps=16))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 9
    with pytest.raises(checkpoints.CheckpointError, match="another TAE"):
        load_dit(str(tmp_path / "dit"), "0" * 16)


def test_without_clips_to_validate_on_the_loss_is_null_and_a_sentence_says_why(small_tae, tmp_path):
    film_run(tmp_path / "run")
    run = make_run(tmp_path / "run", [row(n, "film.mp4") for n in range(4)])
    said: list[str] = []
    assert train.train_dit(dit_recipe(steps=1), [run], str(tmp_path / "dit"), small_tae, said.append)
    assert entries(tmp_path / "dit")[0]["validation"] is None
    assert any("no validation loss" in text and "'validation' has no clips" in text for text in said)


def test_the_buckets_are_printed_before_the_first_step(small_run, small_tae, tmp_path):
    said: list[str] = []
    train.train_dit(dit_recipe(steps=1), [small_run], str(tmp_path), small_tae, said.append)
    table = next(index for index, text in enumerate(said) if "48x16x8" in text)
    assert str(CLIPS) in said[table] and table < next(i for i, text in enumerate(said) if " step " in text)


def test_two_trainings_do_not_write_to_one_folder(small_run, tmp_path):
    with lock(str(tmp_path)), pytest.raises(ManifestError, match="Another rushes process is writing"):
        train.train_tae(tae_recipe(steps=1), [small_run], str(tmp_path), quiet)


def test_a_batch_that_does_not_divide_is_a_sentence(small_run, small_tae, tmp_path):
    with pytest.raises(DataError, match="batch of 4 clips does not divide into 1 ranks with micro-batches of 3"):
        train.train_dit(dit_recipe(micro_batch=3), [small_run], str(tmp_path), small_tae, quiet)


def test_the_rate_warms_up_halves_on_a_plateau_and_follows_a_cosine():
    stage = Stage(name="s", steps=100, lr=1.0, warmup=3, schedule="plateau", patience=2)
    assert [learning_rate(stage, step, 1.0) for step in (0, 1, 3, 50)] == [0.25, 0.5, 1.0, 1.0]
    progress, halved = Progress(), []
    for loss in (1.0, 0.9, 0.9, 0.9, 0.95, 0.5, 0.5, 0.5):
        halved.append(note_validation(progress, stage, loss))
    assert halved == [False, False, False, True, False, False, False, True]
    assert progress.factor == 0.25 and learning_rate(stage, 50, progress.factor) == 0.25
    slow, floored = Progress(), Progress()
    assert not any(note_validation(slow, stage, 0.9997**n) for n in range(200)), "0.03 % a validation is progress"
    for _ in range(100):
        note_validation(floored, stage, 1.0)
    assert floored.factor == stage.lr_floor
    cosine = Stage(name="s", steps=100, lr=1.0, schedule="cosine")
    assert learning_rate(cosine, 0, 0.25) == 1.0 and learning_rate(cosine, 50, 1.0) == pytest.approx(0.5)
    assert learning_rate(cosine, 99, 1.0) < 1e-3


@pytest.mark.parametrize("name", shipped())
def test_the_shipped_recipes_are_valid(name):
    assert load(name).name == name


@pytest.mark.parametrize(
    "override, words",
    [
        ("stages.all.step=3", r"no key 'stages.all.step'.*'stages.all.steps'"),
        ("stages.nowhere.steps=3", "no stage 'nowhere'; stages: joint, or all"),
        ("optimizer.clip=-1", r"key 'optimizer.clip': -1 will not do"),
        ("size", "wants key=value"),
    ],
)
def test_a_wrong_key_is_a_sentence(override, words):
    with pytest.raises(TrainRecipeError, match=words):
        load("tae-tiny", [override])


@pytest.mark.parametrize(
    "command, words",
    [
        (["train", "tae", "nowhere", "-o", "out"], "holds no published run"),
        (["train", "tae", "nowhere", "-o", "out", "-r", "dit-tiny"], "trains a dit: rushes train dit"),
        (["train", "dit", "nowhere", "-o", "out", "--tae", "none"], "nowhere holds no published run"),
        (["sample", "--dit", "a", "--tae", "b", "-p", "x", "--size", "100x80"], "wants WIDTHxHEIGHT, multiples of 16"),
    ],
)
def test_a_wrong_command_is_a_sentence_and_exit_code_2(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and words in " ".join(result.stderr.split())


def test_an_unknown_size_is_a_sentence(small_run, tmp_path):
    with pytest.raises(TrainRecipeError, match="no size 'huge' of the tae; sizes: tiny, base"):
        train.train_tae(tae_recipe("size=huge"), [small_run], str(tmp_path), quiet)
