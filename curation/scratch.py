"""One temporary folder per process: what a killed one leaves there, the next one that starts removes.

The folder's owner holds the kernel's lock on a file in it, which goes with the process however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import IO

LOCK = ".lock"


def scratch_file(suffix: str = "") -> str:
    """A name for a new file that no one else uses, in this process's folder."""
    return str(_folder(os.getpid())[0] / f"{uuid.uuid4().hex}{suffix}")


def sweep() -> None:
    """Remove the folders of processes that have ended."""
    for folder in _top().glob("*"):
        with contextlib.suppress(OSError), (folder / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)


def _top() -> Path:
    return Path(tempfile.gettempdir()) / f"rushes-{os.getuid()}"


@cache
def _folder(pid: int) -> tuple[Path, IO[str]]:
    """This process's folder, and its lock: the file is held open as long as the process lives."""
    sweep()
    _top().mkdir(mode=0o700, exist_ok=True)
    if _top().lstat().st_uid != os.getuid():  # somebody else's folder or link, in a place where everybody may write
        raise PermissionError(f"{_top()} belongs to another user; remove it, or set TMPDIR to a folder of your own")
    folder = _top() / f"{pid}-{uuid.uuid4().hex[:6]}"
    folder.mkdir(mode=0o700)
    lock = (folder / LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder, lock
