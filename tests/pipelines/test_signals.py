"""Ctrl-C, SIGTERM and SIGHUP end a command with one sentence and a code of their own, at whatever moment they come."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rushes.pipelines.engine import signals
from tests.pipelines.commands import at_work, curate_command, descendants, start, wait_until

GONE_S = 30.0  # seconds after which nothing of a stopped run may work on
SENTENCE = "rushes: Stopped; the same command goes on from here.\n"
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@pytest.mark.parametrize(
    ("number", "code", "moment"),
    [(signal.SIGTERM, 143, "work/observe/*/*"), (signal.SIGINT, 130, ".lock")],
)
def test_a_signal_stops_curating_with_its_sentence_and_code_and_nothing_works_on(
    footage_folder, tmp_path, number, code, moment
):
    """In the midst of the analysis, and while Ray starts."""
    folder, _ = footage_folder
    process = start(curate_command([str(folder / "hard_cuts.mp4"), str(folder / "dissolve.mp4")], tmp_path / "run"))
    assert wait_until(lambda: any((tmp_path / "run").glob(moment)))
    below = descendants(process.pid)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (code, SENTENCE)
    assert wait_until(lambda: not at_work(below), GONE_S, every_s=0.1), at_work(below)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_signal_is_heeded_where_no_handler_was_and_held_where_it_must_wait():
    """In a process of its own: a signal within `held` waits for its end, also where other handlers are put in."""
    code = (
        "import os, signal\n"
        "from rushes.pipelines.engine import signals\n"
        "with signals.heeded():\n"
        "    try:\n"
        "        with signals.held():\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "            print('held', flush=True)\n"
        "            signal.signal(signal.SIGTERM, lambda *_: os._exit(9))\n"
        "    except KeyboardInterrupt:\n"
        "        print('heeded', signals.exit_code(), flush=True)\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "    except KeyboardInterrupt:\n"
        "        print(signals.exit_code(), flush=True)\n"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["held", "heeded", "143", "129", "True"], done.stderr


def test_handlers_are_as_they_were_after_a_command():
    before = [signal.getsignal(number) for number in signals.ASKING]
    with signals.heeded():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in signals.ASKING] == before


def test_a_signal_that_a_trainings_own_handler_has_taken_gives_its_exit_code_too():
    code = (
        "import os, signal\n"
        "from rushes.pipelines.engine import signals\n"
        "for number in (signal.SIGINT, signal.SIGTERM):\n"
        "    with signals.heeded():\n"
        "        signal.signal(number, lambda *_: None)\n"
        "        os.kill(os.getpid(), number)\n"
        "        print(signals.exit_code())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["130", "143"], done.stderr
