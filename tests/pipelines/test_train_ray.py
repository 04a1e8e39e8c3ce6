"""Training on Ray is the training without it: the same log, the same sentences, the same way to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import ray  # noqa: E402

from rushes.model.checkpoint import open_checkpoint  # noqa: E402
from rushes.model.train import train_dit, train_tae  # noqa: E402
from rushes.model.train_recipe import TrainRecipe  # noqa: E402
from rushes.pipelines.cli.main import app  # noqa: E402
from rushes.pipelines.engine.pool import StopRun  # noqa: E402
from rushes.pipelines.train.on_ray import Workers, train_on_ray  # noqa: E402
from tests.model.small_run import dit_recipe, film_run, losses, tae_recipe  # noqa: E402
from tests.pipelines.commands import command_line, descendants  # noqa: E402

torch.set_num_threads(1)
LONG = 1000  # steps that no test waits for


def quiet(_: str) -> None:
    pass


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict[str, str]:
    """A run, an autoencoder, and the file of a recipe."""
    folder = tmp_path_factory.mktemp("small")
    run = film_run(folder / "run")
    assert train_tae(tae_recipe(steps=1), [run], str(folder / "tae"), quiet)
    (folder / "dit.yaml").write_text(dit_recipe("parallel.tensor=2").to_yaml())
    return {"run": run, "tae": str(folder / "tae"), "recipe": str(folder / "dit.yaml")}


@pytest.fixture(scope="module")
def train_on_two(small):
    """Train a recipe into a folder on two workers of a Ray of this machine; `then` is called at each line of rank 0."""

    def call(recipe: TrainRecipe, output: Path, then: Callable[[str], None] = quiet) -> list[str]:
        said: list[str] = []
        words = ["dit", small["run"], "--tae", small["tae"], "--output", str(output)]
        train_on_ray(Workers("local", 2), words, recipe.to_yaml(), lambda text: (said.append(text), then(text)))
        return said

    yield call
    ray.shutdown()


@pytest.mark.heavy
def test_stopped_by_a_signal_then_by_a_dead_worker_the_same_command_ends_with_the_log_of_one_process(
    train_on_two, small, tmp_path
):
    long, output = dit_recipe("parallel.tensor=2", steps=LONG), tmp_path / "two"

    def stop(text: str) -> None:
        if "step       3" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    assert "Stopped and saved" in train_on_two(long, output, stop)[-1]
    stopped = open_checkpoint(output).step
    assert 3 <= stopped == max(losses(output)) < LONG

    def kill(text: str) -> None:
        if " step " in text:
            ranks = {pid for pid, _ in descendants(os.getpid()) if "rushes.pipelines.cli train" in command_line(pid)}
            assert len(ranks) == 2
            os.kill(max(ranks), signal.SIGKILL)

    with pytest.raises(StopRun, match=r"Rank \d of 2 was ended by signal 9 .*; start the same command again"):
        train_on_two(long, output, kill)
    steps = open_checkpoint(output).step + 3
    said = train_on_two(dit_recipe("parallel.tensor=2", steps=steps), output)
    assert steps >= stopped + 3 and "Going on from" in said[0] and "Finished" in said[-1]
    assert train_dit(dit_recipe(steps=steps), [small["run"]], str(tmp_path / "one"), small["tae"], quiet)
    one, two = losses(tmp_path / "one"), losses(output)
    assert set(one) == set(two) == set(range(1, steps + 1))
    assert all(two[step] == pytest.approx(loss, abs=1e-5) for step, loss in one.items())


def test_what_is_wrong_is_the_sentence_of_a_rank_or_of_the_cluster(train_on_two, tmp_path):
    with pytest.raises(StopRun, match=r"^parallel: replicate 1 x shard 3 .* makes 3 ranks, and there are 2; start"):
        train_on_two(dit_recipe("parallel.shard=3"), tmp_path)
    with pytest.raises(StopRun, match="no room for 99 workers of 1 CPU each"):
        train_on_ray(Workers("local", 99), [], "", quiet)


@pytest.mark.parametrize("words", [["--ray", "local", "--workers", "2"], []])
def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(small, tmp_path, words):
    command = ["train", "dit", small["run"], "--tae", small["tae"], "-r", small["recipe"], "-o", str(tmp_path / "out")]
    plan = [] if words else ["--set", "parallel.tensor=1"]
    result = CliRunner().invoke(app, [*command, *words, *plan, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "48x16x8" in result.output and "parameters" in result.output
    ranks = "2 ranks: replicate 1 x shard 1 x context 1 x tensor 2" if words else "1 rank: replicate 1 x shard 1"
    assert ranks in result.output
    assert not (tmp_path / "out").exists()
