"""A service over a synthetic run: its folder of runs, a root of footage, and a client for each role."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra `serve`")

from starlette.testclient import TestClient

from rushes.pipelines.service.access import add_token
from rushes.pipelines.service.app import create_app
from rushes.pipelines.service.settings import settings
from tests.pipelines.synthetic_run import film_stills, make_run

SECRET = "this file lies outside every root"


@dataclass
class Served:
    """app: the ASGI application. tokens: by role. folder: holds runs/, footage/ and secret.txt."""

    app: object
    folder: Path
    tokens: dict[str, str]
    client: TestClient

    def get(self, path: str, role: str | None = "viewer", **more: object):
        return self.client.get(f"/api/v1{path}", headers=self.headers(role) | more.pop("headers", {}), **more)

    def post(self, path: str, body: object, role: str | None = "engineer", **more: object):
        return self.client.post(f"/api/v1{path}", json=body, headers=self.headers(role), **more)

    def headers(self, role: str | None) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[role]}"} if role else {}


@pytest.fixture(scope="package")
def served(tmp_path_factory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    runs, footage = folder / "runs", folder / "footage"
    footage.mkdir()
    run = make_run(runs / "first", stills=film_stills(8))
    (runs / "first" / "media").mkdir()
    for row in run.table("clips", ["clip_id", "media"]).to_pylist():
        if row["media"]:
            (runs / "first" / row["media"]).write_bytes(row["clip_id"].encode() * 1_000)
            break
    (folder / "secret.txt").write_text(SECRET)
    (footage / "film.mp4").write_bytes(b"no film, but a file")
    tokens = {role: add_token(str(folder / "tokens"), role, f"a-{role}") for role in ("viewer", "reviewer", "engineer")}
    chosen = settings(str(runs), "0.0.0.0", str(folder / "tokens"), (str(footage),), str(folder / "state"))
    app = create_app(chosen)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield Served(app, folder, tokens, client)
    shutil.rmtree(folder, ignore_errors=True)
