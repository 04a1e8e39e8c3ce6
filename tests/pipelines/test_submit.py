"""A run as a job of a real Ray cluster: sent with a meter of its own, followed, listed, stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("aiohttp_cors", reason="the extra `cluster`")

from tests.conftest import QUICK

METER = """
import pyarrow as pa

class Constant:
    tracks = ()
    columns = (pa.field("constant", pa.float32()),)

    def __init__(self, info):
        pass

    def observe(self, batch):
        return {}

    def measure(self, tracks, span):
        return {"constant": 7.0}
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head of its own, with its dashboard, in the foreground of a process group that is ended afterwards."""
    import tempfile

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets' paths are short
    port, dashboard, client, agent, metrics = free_ports(5)
    head = subprocess.Popen(
        [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}",
         f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}",
         f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}", f"--temp-dir={folder}",
         "--num-cpus=3", "--include-dashboard=true", "--disable-usage-stats"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    try:
        until = time.monotonic() + 200
        while rushes("jobs", "--address", address).returncode != 0:
            assert time.monotonic() < until and head.poll() is None, "the head did not come up"
            time.sleep(1)
        yield address
    finally:
        _end(head, folder)


def _end(head: subprocess.Popen[bytes], folder: str) -> None:
    """End the head and what it started, which names its folder on the command line; nobody else's Ray is touched."""
    os.killpg(head.pid, signal.SIGTERM)
    try:
        head.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue
    shutil.rmtree(folder, ignore_errors=True)


def rushes(*words: object, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rushes.pipelines.cli", *map(str, words)]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_run_is_sent_with_its_meter_and_followed_to_its_exit_code(cluster, footage_folder, tmp_path):
    folder, _ = footage_folder
    (tmp_path / "mine.py").write_text(METER)
    sets = [word for pair in QUICK if not pair.startswith("engine.num_cpus") for word in ("--set", pair)]
    sent = rushes(
        "submit", "--address", cluster, "-i", folder / "portrait.mp4", "-o", tmp_path / "run", "-r", "demo", *sets,
        "--set", 'meters=["mine:Constant"]', "--module", tmp_path / "mine.py", "--job-id", "first",
    )  # fmt: skip
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "clips kept" in sent.stdout and "first: succeeded" in sent.stdout
    from rushes.curation.manifest import open_run

    assert set(open_run(str(tmp_path / "run")).table("clips", ["constant"])["constant"].to_pylist()) == {7.0}
    assert "first" in rushes("jobs", "--address", cluster).stdout
    assert "clips kept" in rushes("logs", "first", "--address", cluster).stdout
    assert "had ended" in rushes("stop", "first", "--address", cluster).stdout


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_a_request_that_is_wrong_ends_with_its_own_exit_code(cluster, tmp_path):
    sent = rushes("submit", "--address", cluster, "-i", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert sent.returncode == 2 and "no such file or folder" in sent.stdout


def test_a_cluster_that_does_not_answer_is_a_sentence(tmp_path):
    (port,) = free_ports(1)
    sent = rushes("submit", "--address", f"http://127.0.0.1:{port}", "-i", "x", "-o", "y")
    assert sent.returncode == 2 and "No Ray cluster answers" in sent.stderr and "Traceback" not in sent.stderr


def test_a_dry_run_counts_hours_and_cores(footage_folder):
    folder, _ = footage_folder
    said = rushes("submit", "-i", folder / "portrait.mp4", "-o", "y", "--dry-run", "--cores", 10).stdout
    assert "1 inputs" in said and "analyze" in said and "on 10 cores" in said
