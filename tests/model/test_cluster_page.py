"""The commands of docs/training-cluster.md train, on loopback, with one rank in the place of a machine's eight."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from rushes.model import checkpoint as checkpoints
from tests.model.small_run import dit_recipe, losses

PAGE = Path(__file__).parents[2] / "docs" / "training-cluster.md"
TIMEOUT_S = 280
SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit=1
export SLURM_NNODES=2
SLURM_NODEID=1 "$@" & other=$!
SLURM_NODEID=0 "$@"; first=$?
wait $other && exit $first
"""


def commands() -> dict[str, str]:
    """The page's first block of commands below each heading, and the second below torchrun's."""
    found = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        blocks = re.findall(r"```bash\n(.*?)```", section, re.S)
        for number, block in enumerate(blocks):
            found[f"{section.splitlines()[0]} {number}"] = block
    return found


@pytest.fixture
def here(small_run, small_tae, tmp_path):
    """What the page's capitals stand for, and a PATH with torchrun and stand-ins for SLURM's commands."""
    (tmp_path / "my.yaml").write_text(dit_recipe(steps=2).to_yaml())
    tools = {
        "torchrun": f'#!/bin/bash\nexec {sys.executable} -m torch.distributed.run "$@"\n',
        "scontrol": "#!/bin/bash\necho 127.0.0.1\n",
        "srun": SRUN,
    }
    for name, text in tools.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def filled(command: str) -> str:
        values = {"RUNS": small_run, "OUT": str(tmp_path / "out"), "TAE": small_tae, "HOST": "127.0.0.1"}
        for word, value in values.items():
            command = re.sub(rf"\b{word}\b", value, command)
        command = command.replace("my.yaml", str(tmp_path / "my.yaml")).replace("29500", str(port))
        return command.replace("--nproc-per-node 8", "--nproc-per-node 1")

    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return filled, env, tmp_path / "out"


def ends(started: list[subprocess.Popen], output: Path) -> None:
    try:
        assert [one.wait(TIMEOUT_S) for one in started] == [0] * len(started)
    finally:
        for one in started:
            one.kill()
    assert checkpoints.open_checkpoint(output).step == 2 and len(losses(output)) == 2


@pytest.mark.heavy
@pytest.mark.parametrize("name, nodes", [("torchrun 0", [""]), ("torchrun 1", ["0", "1"]), ("SLURM 0", [""])])
def test_each_command_trains(name, nodes, here):
    filled, env, output = here
    command = filled(commands()[name])
    ends([subprocess.Popen(["bash", "-c", command.replace("NODE ", f"{n} ")], env=env) for n in nodes], output)
