"""SIGINT, SIGTERM and SIGHUP: how a command is asked to stop.

All three raise KeyboardInterrupt, which is the only exception that Ray's own waiting passes on unharmed: SystemExit,
which Ray's handler of SIGTERM raises, ends in an abort of its C++ code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTED_BYTES = 4096
SHELL_CODE = 128  # a command that a signal ended has this exit code and the signal's number: 130, 143, 129

_asked: int | None = None  # the signal that came last
_held = False
_stopping = False
_wakeup = -1  # where Python writes the number of every signal that it handles


def exit_code() -> int:
    """That of a command which a signal ended, whoever has handled it."""
    noted = [number for number in _noted() if number in ASKING]
    return SHELL_CODE + (_asked or (noted or [signal.SIGTERM])[-1])


def _noted() -> bytes:
    """Numbers of the signals that came within `heeded`: also those that a training's own handler has taken."""
    try:
        return os.read(_wakeup, NOTED_BYTES) if _wakeup >= 0 else b""
    except BlockingIOError:
        return b""


def _ask(number: int, _: Any) -> None:
    global _asked
    again, _asked = _asked is not None, number
    if not _held or again:
        raise KeyboardInterrupt


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Within, the three signals raise KeyboardInterrupt in the main thread; those that were ignored stay ignored."""
    global _asked, _wakeup, _stopping
    _asked, _stopping = None, False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.getsignal(number) for number in ASKING}
    _wakeup, writing = os.pipe()
    os.set_blocking(_wakeup, False)
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _listen(old)
    try:
        yield
    finally:
        if not _stopping:  # what others do at the interpreter's end is not interrupted either
            for number, handler in old.items():
                signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(_wakeup)
        os.close(writing)
        _wakeup = -1


@contextlib.contextmanager
def held() -> Iterator[None]:
    """A signal that comes within is heeded at the end, a second one at once; handlers that were put in are taken out.

    For code that must not be left in the middle, and that sets handlers of its own: Ray's start.
    """
    global _held
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.getsignal(number) for number in ASKING}
    ours = old[signal.SIGTERM] is _ask
    before, _held = _held, ours
    try:
        yield
    finally:
        _held = before
        for number, handler in old.items():
            signal.signal(number, handler)
    if ours and _asked is not None:
        raise KeyboardInterrupt


def stopping() -> None:
    """From here on the command cleans up: another SIGTERM changes nothing, another SIGINT ends it at once."""

    def at_once(*_: Any) -> None:
        os._exit(exit_code())

    global _stopping
    if threading.current_thread() is threading.main_thread():
        _stopping = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, at_once)


def _listen(old: dict[signal.Signals, Any]) -> None:
    for number, handler in old.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _ask)
