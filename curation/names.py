"""Names that become folders and tables: of sets. It imports nothing of ours."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: The set of what is held out, which the curriculum makes itself.
RESERVED = ("validation",)


def wrong_name(name: str, reserved: tuple[str, ...] = RESERVED) -> str | None:
    """What is wrong with a set's name, None where nothing is: the rest of a sentence that begins with it."""
    if not NAME.fullmatch(name) or ".." in name:
        return "may have letters, digits, '.', '_' and '-' (64 at most, a letter or digit first)"
    if name.lower() in reserved:
        return "is the set of what is held out; choose another name"
    return None
