"""How a command is asked to stop: heard at once, also where it cannot stop at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rushes.pipelines.engine import signals


def test_a_signal_is_told_of_at_once_where_it_is_held_and_its_number_is_the_exit_code():
    told = threading.Event()
    with pytest.raises(KeyboardInterrupt), signals.heeded(told.set):
        with signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            assert told.wait(5), "the main thread goes on meanwhile"
            time.sleep(0.01)
        raise AssertionError("it was not heeded at the end")
    with signals.heeded():
        assert signals.exit_code() == signals.SHELL_CODE + signal.SIGTERM, "that of a process nobody asked"


def test_a_command_that_ends_by_itself_tells_of_nothing():
    told = threading.Event()
    with signals.heeded(told.set):
        pass
    assert not told.wait(0.2)
    assert "signals" not in {thread.name for thread in threading.enumerate()}


def test_a_signal_while_the_command_is_imported_is_no_traceback():
    code = (
        "import sys\n"
        "class Signal:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'rushes.pipelines.cli.main': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Signal())\n"
        "from rushes.pipelines.cli.entry import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr == "rushes: Stopped before it began.\n"
