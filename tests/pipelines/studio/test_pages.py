"""The studio's files as they are served: without a token, small, tagged, under a policy."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra `serve`")

from importlib import resources

from starlette.testclient import TestClient

from rushes.pipelines.service.access import add_token
from rushes.pipelines.service.app import create_app
from rushes.pipelines.service.settings import settings


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    (folder / "runs").mkdir()
    add_token(str(folder / "tokens"), "viewer", "a-viewer")
    app = create_app(settings(str(folder / "runs"), "0.0.0.0", str(folder / "tokens"), state=str(folder / "state")))
    with TestClient(app, base_url="http://127.0.0.1") as found:
        yield found


@pytest.mark.parametrize("path", ["/", "/look", "/look/run/clip", "/review/run/queue", "/compare/one"])
def test_every_room_is_one_page_that_needs_no_token(client, path):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"


def test_a_file_is_sent_once_and_packed(client):
    first = client.get("/assets/look.js", headers={"accept-encoding": "gzip"})
    assert first.headers["content-encoding"] == "gzip" and int(first.headers["content-length"]) < len(first.text)
    again = client.get("/assets/look.js", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


@pytest.mark.parametrize("path", ["/assets/../pages.py", "/assets/%2e%2e/pages.py", "/assets/none.js", "/assets/"])
def test_only_the_studios_own_files_are_served(client, path):
    assert client.get(path).status_code in (401, 404)


def test_the_api_stays_closed(client):
    assert client.get("/api/v1/runs").status_code == 401
    assert client.post("/").status_code == 405


def test_no_page_holds_a_script_or_a_style_of_its_own_and_nothing_is_loaded_from_elsewhere():
    folder = resources.files("rushes.pipelines.studio") / "assets"
    page = (folder / "index.html").read_text()
    assert "style=" not in page and "<style" not in page and " on" not in page.replace(" only", "")
    assert all("src=" in line for line in page.splitlines() if "<script" in line)
    for entry in folder.iterdir():
        if entry.name.endswith(".js") and not entry.name.startswith("uplot"):
            text = entry.read_text()
            assert "innerHTML" not in text and "insertAdjacentHTML" not in text and "eval(" not in text, entry.name
            assert "https://" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", ""), (
                entry.name
            )
