"""A command at a terminal: a pseudo-terminal of its own of which the command is the foreground, as a shell starts it.

    python -m tests.terminal [--columns 80] [--timeout 900] COMMAND ...

shows what the command prints and exits with its exit code; it fails where a process below the command is stopped by
the terminal (state T), which a pipe or an empty standard input never shows.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence

from tests.pipelines.commands import _stat, descendants

ROWS = 40
LOOK_EVERY_S = 0.5  # seconds between two looks at the processes; stopped at both of them is stopped
CTRL_C = b"\x03"


class Stopped(AssertionError):
    """Processes below a command that the terminal has stopped."""


class Terminal:
    """`with Terminal(command, columns=40) as terminal: code = terminal.wait()`; `terminal.text` is what was printed."""

    def __init__(self, command: Sequence[str], columns: int = 80, echo: bool = False) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        own = {"TERM": "xterm-256color"}
        leave = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={name: value for name, value in os.environ.items() if name not in leave} | own,
        )  # fmt: skip
        os.close(slave)
        self._echo, self._said = echo, bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            for pid in [self.process.pid, *(pid for pid, _ in descendants(self.process.pid))]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        os.close(self._master)

    @property
    def output(self) -> bytes:
        return bytes(self._said)

    @property
    def text(self) -> str:
        return self.output.decode("utf-8", errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self, seconds: float = 180.0, until: Callable[[], bool] = lambda: False) -> int | None:
        """The exit code once the command has ended, None as soon as `until` holds.

        Raises Stopped where the terminal stopped a process, TimeoutError with what was printed last.
        """
        end, before, next_look = time.monotonic() + seconds, set(), 0.0
        while self.process.poll() is None:
            if until():
                return None
            if time.monotonic() > end:
                raise TimeoutError(f"not done after {seconds:g} s; last words:\n{self.text[-2000:]}")
            if time.monotonic() > next_look:
                found = {pid for pid, _ in descendants(self.process.pid) if (_stat(pid) or "-")[0] == "T"}
                if found & before:
                    raise Stopped(f"the terminal stopped {len(found)} processes; last words:\n{self.text[-2000:]}")
                before, next_look = found, time.monotonic() + LOOK_EVERY_S
            time.sleep(0.02)
        self._reader.join(5)
        return self.process.returncode

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last process with the terminal has ended
            while data := os.read(self._master, 65536):
                self._said += data
                if self._echo:
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=80)
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    with Terminal(asked.command, asked.columns, echo=True) as terminal:
        return terminal.wait(asked.timeout) or 0


if __name__ == "__main__":
    raise SystemExit(main())
