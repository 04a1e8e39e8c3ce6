"""Training on Ray is the training without it: the same log, the same sentences, the same way to go on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from model.checkpoint import open_checkpoint, published  # noqa: E402
from model.train import train_dit, train_tae  # noqa: E402
from pipelines.cli import app  # noqa: E402
from tests.model.small_run import dit_recipe, film_run, losses, tae_recipe  # noqa: E402
from tests.pipelines.commands import command_line, descendants, finish, start  # noqa: E402

torch.set_num_threads(1)
WAIT_S = 120.0


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


def train_command(small: dict[str, str], output: Path, *words: str) -> list[str]:
    dit = ["train", "dit", small["run"], "--tae", small["tae"], "--recipe", small["recipe"], "--output", str(output)]
    return [sys.executable, "-m", "pipelines.cli", *dit, "--ray", "local", "--workers", "2", *words]


def test_a_dead_worker_is_a_sentence_and_the_same_command_goes_on_to_the_log_of_one_process(small, tmp_path):
    output = tmp_path / "two"
    running = start(train_command(small, output, "--set", "stages.all.steps=1000"))
    try:
        end = time.monotonic() + WAIT_S
        while not published(output) and running.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        ranks = {pid for pid, _ in descendants(running.pid) if "pipelines.cli train" in command_line(pid)}
        assert len(ranks) == 2
        os.kill(max(ranks), signal.SIGKILL)
        _, said = running.communicate(timeout=WAIT_S)
    finally:
        running.kill()
    assert running.returncode == 2 and "Traceback" not in said, said
    assert "was ended by signal 9" in said and "start the same command again" in said
    steps = open_checkpoint(output).step + 3
    code, out, said = finish(train_command(small, output, "--set", f"stages.all.steps={steps}"))
    assert code == 0, said
    assert "Going on from" in out and "Finished" in out
    assert train_dit(dit_recipe(steps=steps), [small["run"]], str(tmp_path / "one"), small["tae"], quiet)
    one, two = losses(tmp_path / "one"), losses(output)
    assert set(one) == set(two) == set(range(1, steps + 1))
    assert all(two[step] == pytest.approx(loss, abs=1e-5) for step, loss in one.items())


def test_a_signal_lets_the_workers_save_and_end(small, tmp_path):
    running = start(
        train_command(small, tmp_path, "--set", "stages.all.steps=1000", "--set", "stages.all.save_every=1000")
    )
    try:
        end = time.monotonic() + WAIT_S
        while not (tmp_path / "log.jsonl").exists() and running.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        out, said = running.communicate(timeout=WAIT_S)
    finally:
        running.kill()
    assert running.returncode == 0, said
    assert "Stopped and saved" in out
    assert open_checkpoint(tmp_path).step == max(losses(tmp_path)) < 1000


def test_what_is_wrong_is_the_sentence_of_a_rank_or_of_the_cluster(small, tmp_path, monkeypatch):
    """In this process: Ray is started once for both."""
    import ray

    from pipelines.engine import StopRun
    from pipelines.train_ray import Workers, train_on_ray

    try:
        words = ["dit", small["run"], "--tae", small["tae"], "--output", str(tmp_path)]
        recipe = dit_recipe(batch=3, micro_batch=1).to_yaml()
        with pytest.raises(StopRun, match=r"^Stage 'one': a batch of 3 clips does not divide into 2 ranks"):
            train_on_ray(Workers("local", 2), words, recipe, quiet)
        with pytest.raises(StopRun, match="no room for 99 workers of 1 CPU each"):
            train_on_ray(Workers("local", 99), words, recipe, quiet)
        assert ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]
    finally:
        ray.shutdown()


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
