"""What a service may do, decided once when it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from rushes.curation.manifest import ManifestError
from rushes.curation.nearest import path_meant
from rushes.curation.outputs import check_folder
from rushes.pipelines.review.database import FILE, STATE_FOLDER
from rushes.pipelines.service.access import Tokens

LOOPBACK = frozenset(("127.0.0.1", "::1", "localhost"))


class ServiceError(ValueError):
    """The service cannot be started so: one sentence with the fix."""


@dataclass(frozen=True)
class Settings:
    """runs: the folder (or object store prefix) of all runs. roots: where inputs may lie. tokens: None on loopback.

    allow_code: engineers' recipes may name meters, commands, files and servers. address: jobs are sent to this Ray
    cluster, else they are processes beside the service. reviews: the reviews' database, None: SQLite in the state
    folder. The bounds are per request, and per person for the rate.
    """

    runs: str
    roots: tuple[str, ...] = ()
    tokens: Tokens | None = None
    host: str = "127.0.0.1"
    state: Path = field(default_factory=Path)
    allow_code: bool = False
    address: str | None = None
    reviews: str | None = None
    jobs_at_once: int = 1
    body_bytes_most: int = 256 * 1024
    requests_per_s: float = 2_000.0
    streams_most: int = 200
    questions_at_once: int = 4
    cache_bytes: int = 64 * 1024 * 1024

    @property
    def reviews_url(self) -> str:
        return self.reviews or f"sqlite:///{self.state / FILE}"


def settings(
    runs: str, host: str = "127.0.0.1", tokens: str | None = None, roots: tuple[str, ...] = (),
    state: str | None = None, **more: object,
) -> Settings:  # fmt: skip
    """Settings from a command's words. Raises ServiceError where they would leave the service open or useless."""
    if tokens is None and host not in LOOPBACK:
        raise ServiceError(f"--host {host} is open to others: name a tokens file with --tokens (see `rushes token`).")
    if "://" in runs:
        if state is None:
            raise ServiceError("Runs on an object store need a local folder for the service's state: --state FOLDER.")
    else:
        if not os.path.isdir(runs):
            near = path_meant(runs)
            hint = f"did you mean '{near}'?" if near else "name the one that holds the runs (it may be empty)."
            raise ServiceError(f"{runs} is no folder; {hint}")
        if os.path.exists(os.path.join(runs, "run.json")):
            raise ServiceError(
                f"{runs} is a run; name the folder that holds it: {os.path.dirname(os.path.abspath(runs))}"
            )
        runs = os.path.realpath(runs)
    for root in roots:
        if "://" not in root and not os.path.isdir(root):
            raise ServiceError(f"--root {root} is no folder; name one that holds footage.")
    fixed = tuple(root.rstrip("/") if "://" in root else os.path.realpath(root) for root in roots)
    folder = Path(state) if state else Path(runs) / STATE_FOLDER
    try:
        check_folder(str(folder))
    except ManifestError as error:
        raise ServiceError(f"--state, where the service keeps its jobs and reviews: {error}") from error
    return Settings(runs, fixed, Tokens(tokens) if tokens else None, host, folder.absolute(), **more)
