"""Who may do what: bearer tokens with a role each, of which only hashes are stored."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass

from rushes.curation.outputs import check_file

#: From the least to the most: who may look, who may also decide on clips, who may also start and stop jobs.
ROLES = ("viewer", "reviewer", "engineer")
TOKEN_BYTES = 32
_LINE = re.compile(r"(\w+)\s+([\w.@-]{1,64})\s+([0-9a-f]{64})")


class AccessError(ValueError):
    """A tokens file that cannot be used: one sentence with the fix."""


@dataclass(frozen=True)
class Person:
    name: str
    role: str

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


LOCAL = Person("local", "engineer")  # whoever is on the machine, where there are no tokens


class Tokens:
    """The people of a tokens file: lines `role name sha256`, `#` begins a comment. Read again when it changes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._people: dict[str, Person] = {}
        self._stamp: tuple[int, int] | None = None
        self._read()

    def person(self, token: str) -> Person | None:
        """Whose token it is, or None. A file that is gone or damaged lets nobody in."""
        try:
            self._read()
        except AccessError:
            self._people, self._stamp = {}, None
        wanted = hash_of(token)
        return next((who for known, who in self._people.items() if hmac.compare_digest(known, wanted)), None)

    def _read(self) -> None:
        try:
            status = os.stat(self.path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            with open(self.path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise AccessError(f"The tokens file {self.path} cannot be read: {error}.") from error
        people = {}
        for number, line in enumerate(lines, 1):
            text = line.partition("#")[0].strip()
            match = _LINE.fullmatch(text)
            if text and (not match or match.group(1) not in ROLES):
                raise AccessError(
                    f"{self.path}, line {number}: write 'role name sha256', the role one of {', '.join(ROLES)}; "
                    f"`rushes token` does it."
                )
            if match:
                people[match.group(3)] = Person(match.group(2), match.group(1))
        self._people, self._stamp = people, stamp


def hash_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def add_token(path: str, role: str, name: str) -> str:
    """Make a token, append its hash to the file (readable by its owner alone), and return it: it is not stored."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    line = f"{role} {name} {hash_of(token)}"
    if role not in ROLES or not _LINE.fullmatch(line):
        raise AccessError(f"A token is for one of {', '.join(ROLES)} and a name of letters, digits and . @ - _.")
    check_file(path)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
        file.write(line + "\n")
    return token
