"""A training's log.jsonl: one line a step, on a disk or an object store."""

from __future__ import annotations

import json
from typing import Any

from rushes.model import store


class Journal:
    """Appends to a file; objects cannot be appended to, so there the whole log is written by `flush`.

    after: entries of later steps are dropped: a killed run wrote them, and does those steps again. Raises OSError.
    """

    def __init__(self, output: str, after: int) -> None:
        self._uri, self._local = store.join(output, "log.jsonl"), store.is_local(output)
        kept = []
        for line in store.read_bytes(self._uri).decode().splitlines() if store.is_file(self._uri) else ():
            try:
                if json.loads(line)["step"] <= after:
                    kept.append(line + "\n")
            except json.JSONDecodeError:  # killed in the middle of a line
                continue
        if kept or store.is_file(self._uri):
            store.write_bytes(self._uri, "".join(kept).encode())
        self._lines = [] if self._local else kept

    def write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry) + "\n"
        if not self._local:
            self._lines.append(line)
            return
        with open(self._uri, "a", encoding="utf-8") as stream:
            stream.write(line)

    def flush(self) -> None:
        """At a checkpoint: what was written until here can be read."""
        if not self._local:
            store.write_bytes(self._uri, "".join(self._lines).encode())
