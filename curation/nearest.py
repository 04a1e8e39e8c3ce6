"""What a person may have meant by a name that is not there. Imports nothing of ours."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable

CUTOFF = 0.6  # difflib's share of letters in common from which a name counts as near
SIBLINGS_MOST = 10_000  # entries of a folder that are compared


def nearest(wanted: str, known: Iterable[str], cutoff: float = CUTOFF) -> str | None:
    """The known name that is nearest to what was written, None where none is near."""
    return next(iter(difflib.get_close_matches(wanted, list(known), n=1, cutoff=cutoff)), None)


def meant(wanted: str, known: Iterable[str], what: str, cutoff: float = CUTOFF) -> str:
    """The end of a sentence: "did you mean 'x'?", or "WHAT: x, y." where none is near."""
    names = list(known)
    near = nearest(wanted, names, cutoff)
    return f"did you mean '{near}'?" if near is not None else f"{what}: {', '.join(names) or 'none'}."


def path_meant(path: str) -> str | None:
    """The nearest path that exists, as it would be written: each part of it that is not there replaced by the nearest.

    None for an address of an object store, and where a part has nothing near it.
    """
    if "://" in path or not path:
        return None
    here = os.sep if os.path.isabs(path) else ""
    for part in [part for part in path.split(os.sep) if part]:
        there = os.path.join(here, part)
        if not os.path.exists(os.path.expanduser(there)):
            near = nearest(part, _names(here or os.curdir))
            if near is None:
                return None
            there = os.path.join(here, near)
        here = there
    return here


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(os.path.expanduser(folder)) as found:
            return sorted(entry.name for _, entry in zip(range(SIBLINGS_MOST), found) if not entry.name.startswith("."))
    except OSError:
        return []
