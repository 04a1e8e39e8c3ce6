"""From `pip install` to the first submitted job by the page alone: its commands, copied, in a home of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rushes.curation.manifest import open_run
from tests.faults.nodes import MARK, end_marked, namespaces

ROOT = Path(__file__).parents[2]
COMMAND_S = 800.0

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not namespaces(), reason="needs a network of its own (and root)"),
]


def commands() -> list[str]:
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- first job -->\n```bash\n(.*?)```", page, re.S)
    return block.splitlines()


@pytest.fixture
def own_network() -> Iterator[str]:
    """A network with a loopback alone: what others listen on is not there."""
    name = f"rfirst{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_the_pages_commands_lead_from_a_clone_to_a_finished_job(bunny_video, tmp_path, own_network):
    clone, home, mark = tmp_path / "rushes", tmp_path / "home", uuid.uuid4().hex
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, tracked)):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, clone / name)
    (home / "footage").mkdir(parents=True)
    shutil.copy(bunny_video, home / "footage")
    temporary = tempfile.mkdtemp(prefix="rf", dir="/tmp")  # sockets' paths are short
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "VIRTUAL_ENV", "PYTHON"))}
    environment = {**kept, "HOME": str(home), "RAY_TMPDIR": temporary, MARK: mark}
    assert len(commands()) <= 4
    try:
        for number, line in enumerate(commands()):
            words = ["bash", "-c", line]
            if number:  # the first one installs, and needs the package index
                words = ["ip", "netns", "exec", own_network, *words]
            with open(tmp_path / "log", "wb") as log:
                done = subprocess.run(words, cwd=clone, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                      stderr=log, timeout=COMMAND_S)  # fmt: skip
            assert done.returncode == 0, f"{line}\n{(tmp_path / 'log').read_text()[-3000:]}"
        run = open_run(str(home / "runs" / "first"))
        assert run.table("sources")["status"].to_pylist() == ["ok"]
    finally:
        end_marked(mark)
        shutil.rmtree(temporary, ignore_errors=True)
