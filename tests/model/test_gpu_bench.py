"""The GPU benchmark runs the trainer's code from end to end, at tiny sizes where there is no GPU."""

from __future__ import annotations

import time

import pytest

torch = pytest.importorskip("torch")

import typer  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rushes.model.dit import DiT, train_flops  # noqa: E402
from tests.bench import gpu  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture
def app():
    app = typer.Typer()
    app.command()(gpu.main)
    before = torch.compiler.get_default_backend()
    yield app
    torch.compiler.set_default_backend(before)
    torch.compiler.reset()


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def rows_of(app, *parts: str) -> list[list[str]]:
    """The cells of the tables that these parts print."""
    options = [word for part in parts for word in ("--part", part)]
    result = CliRunner().invoke(app, ["--device", "cpu", "--smoke", *options])
    assert result.exit_code == 0, result.exception
    return [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]


@pytest.mark.heavy
@pytest.mark.parametrize("part", ["dit", "stack"])
def test_every_row_of_the_transformer_is_measured(app, part):
    rows = [row for row in rows_of(app, part) if row[0] in ("yes", "no")]
    assert [row[:2] for row in rows] == [[c, r] for r in ("no", "selective", "yes") for c in ("yes", "no")]
    assert all(row[2] == "2" and number(row[4]) > 0 for row in rows)


def test_every_row_of_the_autoencoder_is_measured(app):
    rows = [row for row in rows_of(app, "tae") if row[0] == "TAE tiny"]
    assert len(rows) == 2 and all(number(row[3]) > 0 and number(row[4]) > 0 for row in rows)


@pytest.mark.heavy
def test_both_trainings_run_to_their_end(app):
    rows = [row for row in rows_of(app, "train") if row[0].startswith("train ")]
    assert len(rows) == 2 and all(number(row[1]) > 0 for row in rows)


def test_an_unknown_part_is_a_sentence(app):
    result = CliRunner().invoke(app, ["--device", "cpu", "--smoke", "--part", "dut"])
    assert result.exit_code == 2 and "parts: dit, stack, tae, train" in result.stderr


def test_what_fails_is_a_row_and_ends_nothing():
    def broken() -> str:
        raise RuntimeError("no | kernel")

    assert gpu.row_or_reason(broken, "| a |", 3, time.monotonic()) == "| a | RuntimeError: no / kernel | | |"
    assert "no time was left" in gpu.row_or_reason(broken, "| a |", 3, time.monotonic() - 1e4)


def test_the_flops_of_a_training_step_are_those_that_torch_counts():
    scale = gpu.SMOKE
    model = DiT(scale.dit)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # others recompute the scores
        gpu.loss_of(scale, model, 1, torch.device("cpu"))().backward()
    wanted = train_flops(scale.dit, 12, scale.text_tokens)  # 16 frames of 48 x 32 are 2 x 2 x 3 tokens
    assert counter.get_total_flops() == pytest.approx(wanted, rel=0.03)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("arguments", [[], ["--device", "cpu"]])
def test_without_a_gpu_it_says_so(app, arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "There is no GPU to measure here" in result.stderr
