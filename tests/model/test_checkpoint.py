"""Checkpoints: whole or not there, readable by any number of ranks, and refused where they do not belong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pyarrow.fs as pafs
import pytest

torch = pytest.importorskip("torch")

from rushes.curation import manifest, storage  # noqa: E402
from rushes.model import checkpoint as checkpoints  # noqa: E402
from rushes.model import store  # noqa: E402
from rushes.model.average import average  # noqa: E402
from rushes.model.checkpoint import CheckpointError, Saver  # noqa: E402
from rushes.model.frozen import load_tae  # noqa: E402
from rushes.model.loop import TrainingError  # noqa: E402
from rushes.model.train import train_dit, train_tae  # noqa: E402
from tests.model.small_run import dit_recipe, losses, on_ranks, tae_recipe  # noqa: E402

torch.set_num_threads(1)
SAME = 1e-5
SMALL_DISK_MB = 6


@pytest.fixture(scope="module")
def whole(small_run, small_tae, tmp_path_factory):
    """The output of a training that nothing broke, on one process."""
    output = tmp_path_factory.mktemp("whole")
    assert train_dit(dit_recipe(), [small_run], str(output), small_tae, quiet)
    return output


def quiet(_: str) -> None:
    pass


def state(value: float = 1.0) -> dict:
    return {"model": {"w": torch.full((4, 2), value)}, "ema": {"w": torch.full((4, 2), value)}}


def meta(step: int, **more) -> dict:
    return {"step": step, "model": "tae", "config": {"width": 2}, **more}


@pytest.mark.parametrize("sharing", ["parallel.shard=2", pytest.param("parallel.tensor=2", marks=pytest.mark.heavy)])
def test_killed_on_two_ranks_and_resumed_on_one_a_run_has_the_losses_of_an_unbroken_one(
    sharing, whole, small_run, small_tae, tmp_path
):
    ended = on_ranks(2, "train", small_run, small_tae, tmp_path, 5, sharing)
    assert set(ended) == {-signal.SIGKILL}
    assert checkpoints.open_checkpoint(tmp_path).step in (2, 4)  # saved every second step; the last perhaps in flight
    two_ranks = losses(tmp_path)
    assert train_dit(dit_recipe(), [small_run], str(tmp_path), small_tae, quiet)
    resumed = losses(tmp_path)
    assert set(losses(whole)) == set(resumed) == set(range(1, 7)) and set(two_ranks) == set(range(1, 5))
    for step, loss in losses(whole).items():
        assert resumed[step] == pytest.approx(loss, abs=SAME)
        assert two_ranks.get(step, loss) == pytest.approx(loss, abs=SAME)
    ends = [checkpoints.read_weights(checkpoints.open_checkpoint(path)) for path in (whole, tmp_path)]
    assert all(torch.allclose(ends[0][name], ends[1][name], atol=SAME) for name in ends[0])


def test_the_newest_are_kept_and_what_was_written_comes_back(tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, state(step), meta(step), keep=2)
    assert [path.rpartition("/")[2] for path in checkpoints.published(tmp_path)] == ["step-00000002", "step-00000003"]
    into = state(0.0)
    checkpoints.load(checkpoints.open_checkpoint(tmp_path), into)
    assert torch.equal(into["model"]["w"], torch.full((4, 2), 3.0))


def test_a_checkpoint_that_was_not_finished_is_not_listed_and_goes_with_the_next_save(tmp_path):
    checkpoints.save(tmp_path, state(), meta(1), keep=3)
    (tmp_path / ".step-00000002.tmp").mkdir()
    (tmp_path / ".step-00000002.tmp" / "__0_0.distcp").write_bytes(b"half")
    assert checkpoints.open_checkpoint(tmp_path).step == 1
    checkpoints.save(tmp_path, state(), meta(2), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a few megabytes; skipped where this user may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here (that needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_a_sentence_the_last_checkpoint_stays_and_with_room_the_next_is_saved(small_disk):
    saver = Saver(small_disk, keep=1)
    saver.save(state(5.0), meta(1))
    large = {"model": {"w": torch.zeros(SMALL_DISK_MB << 18)}}  # float32: as large as the disk
    saver.save(large, meta(2))
    with pytest.raises(CheckpointError, match=r"^No space is left to save .*step-00000002; .* same command again"):
        saver.finish()
    assert [path.name for path in small_disk.iterdir()] == ["step-00000001"]
    assert float(checkpoints.read_weights(checkpoints.open_checkpoint(small_disk))["w"][0, 0]) == 5.0
    saver.save(state(6.0), meta(2))
    saver.finish()
    assert float(checkpoints.read_weights(checkpoints.open_checkpoint(small_disk))["w"][0, 0]) == 6.0


def test_a_training_whose_disk_is_full_stops_soon_with_the_sentence(small_run, small_tae, small_disk):
    filled = small_disk / "filled"
    said = []

    def fill_up(text: str) -> None:  # at the validation of the third step; the next save is that of the fourth
        said.append(text)
        if " step " in text and not filled.exists():
            while not checkpoints.published(small_disk):  # that of the second step, which is being written
                time.sleep(0.01)
            with contextlib.suppress(OSError), open(filled, "wb") as stream:
                stream.write(bytes(SMALL_DISK_MB << 20))

    with pytest.raises((CheckpointError, TrainingError), match=r"No space .* the same command again"):
        train_dit(dit_recipe(steps=60), [small_run], str(small_disk), small_tae, fill_up)
    assert checkpoints.open_checkpoint(small_disk).step == 2
    filled.unlink()
    assert train_dit(dit_recipe(), [small_run], str(small_disk), small_tae, quiet)


def test_a_save_fails_on_all_ranks_at_once_and_a_kill_in_its_middle_leaves_the_checkpoints_before(tmp_path):
    assert set(on_ranks(2, "killed_saving", tmp_path)) == {-signal.SIGKILL}
    assert checkpoints.published(tmp_path) == [f"{tmp_path}/step-00000001"]
    assert list(tmp_path.glob(".step-00000002.tmp/*.distcp"))  # it was on its way
    assert float(checkpoints.read_weights(checkpoints.open_checkpoint(tmp_path))["w"][0, 0]) == 5.0
    checkpoints.save(tmp_path, state(7.0), meta(3), keep=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000003"]


def test_a_checkpoint_holds_what_was_there_when_it_began(tmp_path):
    saver, given = Saver(tmp_path, keep=2), {"ema": {"w": torch.ones(4 << 20)}}
    for step in (1, 2):
        saver.save(given, meta(step))
        given["ema"]["w"].zero_()  # the training goes on
        saver.finish()
        found = checkpoints.read_weights(checkpoints.open_checkpoint(tmp_path))["w"]
        assert found.min() == found.max() == 2 - step


def test_a_checkpoint_of_another_size_is_a_sentence(small_run, small_tae, tmp_path):
    train_dit(dit_recipe(steps=1), [small_run], str(tmp_path), small_tae, quiet)
    with pytest.raises(CheckpointError, match="of another size: its dim is 32, the recipe's is 64"):
        train_dit(dit_recipe("options.dim=64", steps=2), [small_run], str(tmp_path), small_tae, quiet)
    with pytest.raises(CheckpointError, match="is a checkpoint of a dit, not of a tae"):
        load_tae(str(tmp_path))
    wrong = {"ema": {**checkpoints.read_weights(checkpoints.open_checkpoint(tmp_path)), "final.bias": torch.ones(3)}}
    with pytest.raises(CheckpointError, match=r"'ema.final.bias' is \[64\] there and \[3\] here"):
        checkpoints.load(checkpoints.open_checkpoint(tmp_path), wrong)


def test_a_transformer_does_not_go_on_with_latents_of_another_tae(small_run, small_tae, tmp_path):
    train_dit(dit_recipe(steps=1), [small_run], str(tmp_path / "dit"), small_tae, quiet)
    train_tae(tae_recipe("seed=9", steps=1), [small_run], str(tmp_path / "tae"), quiet)
    with pytest.raises(CheckpointError, match="trained on latents of another TAE"):
        train_dit(dit_recipe(steps=2), [small_run], str(tmp_path / "dit"), str(tmp_path / "tae"), quiet)


def test_no_checkpoint_and_a_damaged_one_are_sentences(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.open_checkpoint(tmp_path / "nothing")
    saved = checkpoints.save(tmp_path, state(), meta(1), keep=1)
    (Path(saved) / "meta.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"step-00000001 is damaged: meta\.json cannot be read"):
        checkpoints.open_checkpoint(tmp_path)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_taken(tmp_path, damage, name):
    for step in (1, 2):
        saved = checkpoints.save(tmp_path, state(step), meta(step), keep=2)
    damage(Path(saved) / name)
    with pytest.raises(CheckpointError, match=f"step-00000002 is damaged: {name}"):
        checkpoints.open_checkpoint(saved)
    said = []
    assert checkpoints.open_checkpoint(tmp_path, said.append).step == 1
    assert len(said) == 1 and said[0].endswith("The one before is taken.")


def test_a_training_whose_last_checkpoint_is_damaged_goes_on_from_the_one_before(whole, small_run, small_tae, tmp_path):
    output, said = tmp_path / "dit", []
    shutil.copytree(whole, output)
    flip(Path(checkpoints.published(output)[-1]) / "__0_0.distcp")
    assert train_dit(dit_recipe(), [small_run], str(output), small_tae, said.append)
    assert any("step-00000006 is damaged" in text for text in said) and losses(output) == losses(whole)


def test_a_training_writes_to_and_goes_on_from_an_object_store(small_run, small_tae, tmp_path, monkeypatch):
    folder = tmp_path / "bucket"
    folder.mkdir()
    remote = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
    known = manifest.resolve

    def resolve(uri):
        text = os.fspath(uri)
        if not text.startswith("s3://bucket"):
            return known(uri)
        path = text.removeprefix("s3://bucket").strip("/")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)  # an object needs no folder
        return remote, path

    for module in (storage, manifest, store):
        monkeypatch.setattr(module, "resolve", resolve)
    output = "s3://bucket/dit"
    recipe = dit_recipe(steps=4)
    shorter = recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"steps": 2}),)})
    for which in (shorter, recipe):
        assert train_dit(which, [small_run], output, small_tae, quiet)
    assert checkpoints.published(output) == [f"{output}/checkpoints/step-{n:08d}" for n in (2, 4)]
    assert len(losses(folder / "dit")) == 4 and not (folder / "dit" / "tensorboard").exists()
    assert checkpoints.open_checkpoint(output).step == 4


def test_an_average_is_the_weighted_mean_of_the_moving_averages(tmp_path):
    for name, value in (("a", 1.0), ("b", 5.0)):
        checkpoints.save(tmp_path / name, state(value), meta(3), keep=1)
    inputs = [str(tmp_path / "a"), str(tmp_path / "b")]
    average(inputs, str(tmp_path / "mean"))
    average(inputs, str(tmp_path / "mostly"), weights=[3, 1])
    found = [checkpoints.read_weights(checkpoints.open_checkpoint(tmp_path / n))["w"] for n in ("mean", "mostly")]
    assert torch.equal(found[0], torch.full((4, 2), 3.0)) and torch.equal(found[1], torch.full((4, 2), 2.0))
    assert checkpoints.open_checkpoint(tmp_path / "mean").meta["averaged"]


def test_models_of_different_sizes_are_not_averaged(tmp_path):
    checkpoints.save(tmp_path / "a", state(), meta(1), keep=1)
    checkpoints.save(tmp_path / "b", state(), meta(1, config={"width": 3}), keep=1)
    with pytest.raises(CheckpointError, match="of another size: its width is 3"):
        average([str(tmp_path / "a"), str(tmp_path / "b")], str(tmp_path / "mean"))


@pytest.mark.parametrize("part_gb", [5.0, 0.00005])
def test_exported_weights_are_the_averaged_ones_in_one_file_or_several(small_tae, tmp_path, part_gb):
    import json

    from safetensors.torch import load_file

    from rushes.model.checkpoint import open_checkpoint, read_weights
    from rushes.model.export import export

    written = export(small_tae, str(tmp_path), "bfloat16", part_gb=part_gb)
    found = {key: value for path in written if path.suffix == ".safetensors" for key, value in load_file(path).items()}
    expected = read_weights(open_checkpoint(small_tae))
    assert found.keys() == expected.keys() and len(written) == (2 if part_gb > 1 else len(written))
    for name, value in expected.items():
        kind = torch.float32 if name in ("latent_mean", "latent_std") else torch.bfloat16
        assert torch.equal(found[name], value.to(kind)), name
    assert json.loads((tmp_path / "config.json").read_text())["config"]["latent_channels"] == 16
    if part_gb < 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
        assert len(set(index.values())) > 1 and index.keys() == expected.keys()


def test_the_fingerprint_of_a_model_with_a_single_number_changes_with_it():
    model = torch.nn.Module()
    model.register_buffer("scale", torch.tensor(1.0))
    before = checkpoints.fingerprint(model)
    model.scale += 1
    assert checkpoints.fingerprint(model) != before


def test_weights_that_find_no_space_leave_no_file_and_are_a_sentence(small_tae, tmp_path, monkeypatch):
    import safetensors.torch

    from rushes.model.export import export

    def full(group: dict, path: Path, *_: object) -> None:
        Path(path).write_bytes(b"a part of it")
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space is left while writing .*model.safetensors; free some"):
        export(small_tae, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
