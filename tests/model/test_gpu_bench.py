"""The GPU benchmark runs the trainer's code from end to end, at tiny sizes where there is no GPU."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import typer  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from rushes.model.dit import forward_flops  # noqa: E402
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


def test_every_row_is_measured(app):
    result = CliRunner().invoke(app, ["--device", "cpu", "--smoke"])
    assert result.exit_code == 0, result.exception
    cells = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    rows = [row for row in cells if row[0] in ("yes", "no", "TAE tiny")]
    assert [row[0] for row in rows] == ["yes", "no", "yes", "no", "TAE tiny", "TAE tiny"]
    assert all(row[2] == "2" and number(row[4]) > 0 for row in rows[:4])
    assert all(number(row[3]) > 0 and number(row[4]) > 0 for row in rows[4:])


def test_the_flops_of_a_clip_are_three_forward_passes():
    scale = gpu.SMOKE
    forward = forward_flops(scale.dit, 12, scale.text_tokens)  # 16 frames of 48 x 32 are 2 x 2 x 3 tokens
    assert 2.7 * forward < gpu.flops_of(scale, torch.device("cpu")) < 3.3 * forward


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("arguments", [[], ["--device", "cpu"]])
def test_without_a_gpu_it_says_so(app, arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and "There is no GPU to measure here" in result.stderr
