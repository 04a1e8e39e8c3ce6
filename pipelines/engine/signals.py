"""SIGINT, SIGTERM and SIGHUP: how a command is asked to stop.

All three raise KeyboardInterrupt, which is the only exception that Ray's own waiting passes on unharmed: SystemExit,
which Ray's handler of SIGTERM raises, ends in an abort of its C++ code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
NOTED_BYTES = 4096
LOOK_EVERY_S = 0.1  # seconds between two looks where other signals came first
SHELL_CODE = 128  # a command that a signal ended has this exit code and the signal's number: 130, 143, 129

_asked: int | None = None  # the signal that came last
_held = False
_stopping = False
_wakeup: socket.socket | None = None  # where Python writes the number of every signal that it handles


def exit_code() -> int:
    """That of a command which a signal ended, whoever has handled it."""
    noted = [number for number in _noted() if number in ASKING]
    return SHELL_CODE + (_asked or (noted or [signal.SIGTERM])[-1])


def _noted() -> bytes:
    """Numbers of the signals that came within `heeded`: also those that a training's own handler has taken."""
    try:
        return _wakeup.recv(NOTED_BYTES, socket.MSG_DONTWAIT) if _wakeup is not None else b""
    except BlockingIOError:
        return b""


def _tell(reading: socket.socket, said: Callable[[], None]) -> None:
    """Call `said` once one of the three signals has come, whatever the main thread waits for. A thread of its own."""
    with contextlib.suppress(OSError):  # the command has ended
        while noted := reading.recv(NOTED_BYTES, socket.MSG_PEEK):  # it stays there for `exit_code`
            if any(number in ASKING for number in noted):
                said()
                return
            time.sleep(LOOK_EVERY_S)


def _ask(number: int, _: Any) -> None:
    global _asked
    again, _asked = _asked is not None, number
    if not _held or again:
        raise KeyboardInterrupt


@contextlib.contextmanager
def heeded(said: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Within, the three signals raise KeyboardInterrupt in the main thread; those that were ignored stay ignored.

    said: is called as soon as the first of them comes, in another thread, also where the main thread cannot be
    interrupted for seconds.
    """
    global _asked, _wakeup, _stopping
    _asked, _stopping = None, False
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.getsignal(number) for number in ASKING}
    _wakeup, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_tell, args=(_wakeup, said), name="signals", daemon=True).start()
    _listen(old)
    try:
        yield
    finally:
        if not _stopping:  # what others do at the interpreter's end is not interrupted either
            for number, handler in old.items():
                signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        _wakeup.shutdown(socket.SHUT_RDWR)  # ends the thread
        _wakeup.close()
        writing.close()
        _wakeup = None


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
