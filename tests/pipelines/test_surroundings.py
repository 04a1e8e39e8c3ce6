"""Odd surroundings are a sentence or do no harm: missing folders, closed outputs, locales, users' own packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rushes.curation.manifest import open_run
from rushes.curation.sections import Engine
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.pool import StopRun

RUSHES = [sys.executable, "-m", "rushes.pipelines.cli"]
SHELL_S = 120.0  # seconds after which a command hangs


def say(command: str, folder: Path, **environment: str) -> list[tuple[int, str]]:
    """(exit code, stderr) of each line of a shell script, in `folder`; $RUSHES is the command."""
    env = {**os.environ, "RUSHES": " ".join(RUSHES), **environment}
    found = []
    for line in command.strip().splitlines():
        done = subprocess.run(
            ["bash", "-c", line.strip()], cwd=folder, env=env, capture_output=True, text=True, errors="replace",
            timeout=SHELL_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, (line, done.stderr)
        found.append((done.returncode, done.stderr))
    return found


@pytest.fixture
def alone(monkeypatch):
    """As if Ray had not been started in this process, and could not be."""
    import ray

    def refuse(*_, **options):
        raise RuntimeError(f"ray.init was called with {options}")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_outputs_that_are_closed_full_or_unread_and_a_folder_that_is_gone(tmp_path):
    (tmp_path / "gone").mkdir()
    said = say(
        """
        $RUSHES recipe demo >&-
        $RUSHES recipe demo | head -c 9 >/dev/null; exit ${PIPESTATUS[0]}
        $RUSHES recipe demo >/dev/full
        cd gone && rmdir ../gone && $RUSHES recipe demo
        $RUSHES recipe demo 2>&1 | head -c 9 >/dev/null; exit ${PIPESTATUS[0]}
        """,
        tmp_path,
    )
    assert [code for code, _ in said] == [0, 141, 2, 2, 141]
    assert said[1][1] == "" and "No space left" in said[2][1] and "does not exist any more" in said[3][1]


def test_what_is_no_run_is_not_written_over(bunny_video, tmp_path):
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "own" / "README.md").write_text("mine")
    (tmp_path / "other" / "notes.txt").write_text("mine")
    said = say(
        f"""
        $RUSHES curate -r demo -i '{bunny_video}' -o own
        $RUSHES curate -r demo -i '{bunny_video}' -o other --dry-run
        """,
        tmp_path,
    )
    assert [code for code, _ in said] == [2, 0] and "own is no run and holds README.md" in said[0][1]
    assert (tmp_path / "own" / "README.md").read_text() == "mine"


def test_names_do_not_command_the_terminal(bunny_video, tmp_path):
    shutil.copy(bunny_video, tmp_path / "red\033[31m\nrushes: good.mp4")
    done = subprocess.run(
        [*RUSHES, "curate", "-r", "demo", "-i", ".", "-o", "run", "--dry-run"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "\033" not in done.stdout and "red\\x1b[31m\\nrushes: good.mp4" in done.stdout


def test_a_service_is_refused_where_a_port_is_taken_and_where_a_run_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = say(f"$RUSHES serve . --port {taken.getsockname()[1]}\n$RUSHES serve run", tmp_path)
    assert [code for code, _ in said] == [2, 2]
    assert "is taken; choose another" in said[0][1] and "run is a run; name the folder that holds it" in said[1][1]


def test_names_that_the_locale_cannot_write_are_names_all_the_same(bunny_video, tmp_path):
    shutil.copy(bunny_video, tmp_path / "fünf ✓.mp4")
    command = "$RUSHES curate -r demo -i 'fünf ✓.mp4' -o run --dry-run"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert [code for code, _ in say(command, tmp_path, **plain)] == [0]


@pytest.mark.parametrize("inside", [(), ("__init__.py",)])
def test_a_users_own_folders_do_no_harm(tmp_path, bunny_video, inside):
    """Named like ours, with and without __init__.py, first on the path."""
    for name in ("pipelines", "curation", "model", "rushes_notes"):
        (tmp_path / name).mkdir()
        for file in inside:
            (tmp_path / name / file).write_text("raise SystemExit('the wrong package')")
    commands = f"$RUSHES --help\n$RUSHES curate -r demo -i {bunny_video} -o run --dry-run"
    assert [code for code, _ in say(commands, tmp_path, PYTHONPATH=".")] == [0, 0]


def test_with_optimisation_the_commands_answer(tmp_path, bunny_video):
    commands = f"$RUSHES --help\n$RUSHES curate -r demo -i {bunny_video} -o run --dry-run"
    assert [code for code, _ in say(commands, tmp_path, PYTHONOPTIMIZE="2")] == [0, 0]


def test_a_temporary_folder_that_cannot_be_used_is_named_before_ray_starts(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(StopRun, match=r"missing, which does not exist: set RAY_TMPDIR"):
        ray_start.start(Engine())
    monkeypatch.setenv("RAY_TMPDIR", "/proc")
    with pytest.raises(StopRun, match="/proc, which cannot be written to: set RAY_TMPDIR"):
        ray_start.start(Engine())
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(StopRun, match="too long a name for Ray's sockets"):
        ray_start.start(Engine())


def test_without_shared_memory_ray_keeps_its_store_in_the_temporary_folder(alone, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setattr(ray_start, "SHARED_MEMORY", str(tmp_path / "missing"))
    with pytest.raises(StopRun, match="'_plasma_directory': '/tmp'"):
        ray_start.start(Engine())


def test_without_loopback_it_is_a_sentence_at_once(tmp_path):
    code = (
        "from rushes.curation.sections import Engine; from rushes.pipelines.engine import ray_start\n"
        "try: ray_start.start(Engine())\n"
        "except RuntimeError as error: print(error)"
    )
    environment = {**os.environ, "RAY_TMPDIR": "/tmp"}
    command = ["unshare", "-n", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip("no namespace without a network can be made here (that needs root)")
    assert "127.0.0.1, which does not answer here" in done.stdout, done.stderr


def test_the_clusters_address_of_a_submitted_job_is_used(alone, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(StopRun, match=f"No Ray cluster answers at RAY_ADDRESS={address}") as told:
            ray_start.start(Engine())
    assert "num_cpus" not in str(told.value), "a cluster has its own"
    assert "RAY_AUTH_MODE=token" in str(told.value) and "RAY_AUTH_TOKEN_PATH" in str(told.value)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(StopRun, match="could not be started on this machine"):
        ray_start.start(Engine())


@pytest.mark.heavy
def test_a_whole_run_in_odd_surroundings_ends_well(tmp_path, bunny_video):
    """No home, users' own packages first on the path, no docstrings, an ASCII locale, odd names: all at once."""
    for name in ("pipelines", "curation", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    shutil.copy(bunny_video, tmp_path / "fünf ✓.mp4")
    odd = {
        "HOME": str(tmp_path / "no home"), "PYTHONPATH": ".", "PYTHONOPTIMIZE": "2", "LC_ALL": "C", "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }  # fmt: skip
    ((code, said),) = say("$RUSHES curate -r demo -i 'fünf ✓.mp4' -o rün --set visual.text=false", tmp_path, **odd)
    assert code == 0, said
    (source,) = open_run(str(tmp_path / "rün")).table("sources").to_pylist()
    assert source["status"] == "ok" and source["uri"].endswith("fünf ✓.mp4")
