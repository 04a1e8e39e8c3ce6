"""Where something is to be written: what stands in the way is one sentence before any work."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rushes.curation import stores
from rushes.curation.storage import StorageError, is_local, resolve


def check_folder(root: str) -> Path | None:
    """The local folder, None for an address of an object store. Raises StorageError where nothing can be written.

    The folder need not be there; nothing is left behind.
    """
    if root.startswith(("http://", "https://")):
        raise StorageError(f"{root} can be read from, not written to; choose a folder or an object store.")
    fs, path = resolve(root)
    if not is_local(fs):
        away = stores.unreachable(root) or stores.why_no_bucket(fs, root)
        if away is not None:
            raise StorageError(f"{root} cannot be written: {away}.")
        return None
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{root} is a file, not a folder; choose another output.")
    there = folder
    while not os.path.lexists(there):
        there = there.parent
    _check_writable(there, root)
    return folder


def check_file(file: str) -> None:
    """Raises StorageError where no file can be written at that name; folders above it are made when it is."""
    fs, path = resolve(file)
    if not is_local(fs):
        return
    if os.path.isdir(path):
        raise StorageError(f"{file} is a folder; name a file in it, such as {os.path.join(file, 'NAME')}.")
    there = Path(path).parent
    while not os.path.lexists(there):
        there = there.parent
    _check_writable(there, file)


def _check_writable(there: Path, named: str) -> None:
    if not there.is_dir():
        raise StorageError(f"{named} cannot be written: {there} is no folder; choose another output.")
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise StorageError(
            f"{named} cannot be written: {error.strerror} in {there}; choose another output, or make that folder "
            "writable."
        ) from error
