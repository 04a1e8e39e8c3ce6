"""Attacks on paths, recipes, tokens and sizes: no escape from the roots, no code that was not allowed, no 500."""

from __future__ import annotations

import json
import os
import urllib.parse

import pyarrow as pa
import pytest
from starlette.testclient import TestClient

from rushes.curation.manifest import open_run
from rushes.pipelines.service.access import AccessError, Tokens
from rushes.pipelines.service.app import create_app
from rushes.pipelines.service.settings import ServiceError, settings
from tests.pipelines.service.conftest import SECRET

OUTSIDE = (
    "../secret.txt", "..", ".", "/etc/passwd", "first/../../secret.txt", "..%2fsecret.txt", "first\x00", "-rf",
    ".service", "a" * 300, "first\n", "//etc", "\\..\\secret.txt", "%2e%2e", "ﬁrst", "first;ls", "~root",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("rest", ["", "/funnel", "/clips", "/clips/x/media", "/clips/x/proxy", "/histograms/fps"])
def test_no_run_name_leads_out_of_the_runs(served, name, rest):
    for text in (name, urllib.parse.quote(name, safe=""), urllib.parse.quote(name)):
        try:
            found = served.get(f"/runs/{text}{rest}")
        except Exception as error:  # the client itself refuses control characters
            assert type(error).__name__ == "InvalidURL"
            continue
        assert found.status_code in (200, 404, 405, 422)
        assert SECRET not in found.text and "root:" not in found.text


def test_a_run_that_is_a_link_out_is_refused(served):
    outside = served.folder / "outside"
    outside.mkdir()
    (outside / "run.json").write_text("{}")
    link = served.folder / "runs" / "link"
    link.symlink_to(outside)
    try:
        assert served.get("/runs/link/funnel").status_code == 422
        assert "link" not in served.get("/runs").json()["runs"]
    finally:
        link.unlink()


@pytest.mark.parametrize("file", ["../../secret.txt", "/etc/passwd", "snapshots/escape.parquet"])
def test_a_record_written_by_hand_reads_no_file_outside_its_run(served, file):
    run = open_run(str(served.folder / "runs" / "first"))
    forged = served.folder / "runs" / "forged"
    (forged / "snapshots").mkdir(parents=True, exist_ok=True)
    link = forged / "snapshots" / "escape.parquet"
    if not link.is_symlink():
        link.symlink_to(served.folder / "secret.txt")
    record = json.loads(json.dumps(run.record)) | {"tables": {"clips": {"files": [file], "rows": 1}}}
    (forged / "run.json").write_text(json.dumps(record))
    found = served.get("/runs/forged/clips")
    assert (found.status_code == 404 and "outside the run" in found.text) or "out of the run" in found.text


@pytest.mark.parametrize("media", ["../../secret.txt", "/etc/passwd", "file:///etc/passwd", "s3://other/secret"])
def test_a_media_column_written_by_hand_serves_no_file_outside(served, media):
    from rushes.curation.manifest import publish

    run = open_run(str(served.folder / "runs" / "first"))
    clips = run.table("clips").slice(0, 1)
    at = clips.schema.get_field_index("media")
    tables = {"sources": run.table("sources"), "clips": clips.set_column(at, "media", pa.array([media]))}
    publish(str(served.folder / "runs" / "hostile"), tables, {"recipe": run.record["recipe"]})
    for kind in ("media", "proxy"):
        found = served.get(f"/runs/hostile/clips/{clips['clip_id'][0]}/{kind}")
        assert found.status_code == 422 and "outside the roots" in found.json()["detail"]


def job(**changes):
    return {"run": "new", "recipe": "demo", "inputs": ["FOOTAGE/film.mp4"], "set": {}} | changes


def asked(served, body):
    body["inputs"] = [text.replace("FOOTAGE", str(served.folder / "footage")) for text in body["inputs"]]
    return served.post("/jobs", body)


@pytest.mark.parametrize(
    "inputs",
    [
        "/etc", "/etc/passwd", "FOOTAGE/../secret.txt", "FOOTAGE/../../../../etc/*", "../secret.txt", "~/.ssh",
        "file:///etc/passwd", "http://169.254.169.254/latest", "s3://bucket/x", "FOOTAGE/list.txt", "FOOTAGE/link.mp4",
        "/*/passwd", "concat:/etc/passwd", "FOOTAGE/\x00", "s3://key:secret@bucket/x?endpoint_override=1.2.3.4", "",
    ],
)  # fmt: skip
def test_no_input_leads_out_of_the_roots(served, inputs):
    footage = served.folder / "footage"
    (footage / "list.txt").write_text("/etc/passwd\n")
    if not (footage / "link.mp4").is_symlink():
        (footage / "link.mp4").symlink_to(served.folder / "secret.txt")
    found = asked(served, job(inputs=[inputs]))
    assert found.status_code == 422, found.text
    assert SECRET not in found.text


@pytest.mark.parametrize(
    "changes",
    [
        {"meters": ["os:system"]}, {"captioning.vllm_command": "/bin/sh"}, {"captioning.prompt": "/etc/passwd"},
        {"captioning": {"provider": "endpoint", "models": [{"name": "m"}], "endpoints": ["http://evil/"],
                        "api_key_env": "AWS_SECRET_ACCESS_KEY"}},
        {"cut.preset": "fast -i /etc/passwd"}, {"engine.address": "ray://evil:1"}, {"engine.num_cpus": 4096},
        {"curriculum.sets": {"../../escape": {}}}, {"no.such": 1}, {"motion.vmaf_min": "x" * 1000},
        {"motion.vmaf_min": [[[]]]}, {"motion": None}, {"": 1}, {"motion.vmaf_min": 1e400}, {"__class__": {}},
    ],
)  # fmt: skip
def test_no_recipe_runs_code_reads_files_or_speaks_to_servers(served, changes):
    body = json.dumps(job(inputs=[str(served.folder / "footage" / "film.mp4")], set=changes))
    found = served.client.post("/api/v1/jobs", content=body, headers=served.headers("engineer"))
    assert found.status_code in (400, 422), found.text


@pytest.mark.parametrize("recipe", ["../../secret", "/etc/passwd", "demo.yaml", "", "nothing"])
def test_only_shipped_recipes_are_read(served, recipe):
    assert asked(served, job(recipe=recipe)).status_code == 422
    assert served.get(f"/recipes/{urllib.parse.quote(recipe, safe='')}").status_code in (200, 404, 422)


@pytest.mark.parametrize("role", ["viewer", "reviewer"])
def test_only_engineers_start_and_stop_jobs(served, role):
    assert served.post("/jobs", job(), role).status_code == 403
    assert served.post("/jobs/0123456789ab/stop", None, role).status_code == 403


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic YTpi", "bearer \xff\xfe", "x" * 9000]
)
def test_without_a_known_token_nothing_is_said(served, header):
    headers = {"authorization": header.encode("latin-1")} if header is not None else {}
    for path in ("/runs", "/runs/first/funnel", "/jobs", "/me", "/session"):
        assert served.client.get(f"/api/v1{path}", headers=headers).status_code in (401, 405)
    assert served.client.get("/api/v1/health").status_code == 200


def test_a_token_that_is_taken_out_of_the_file_opens_nothing(served):
    path = served.folder / "tokens"
    text = path.read_text()
    try:
        path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("viewer")))
        assert served.get("/me", "viewer").status_code == 401 and served.get("/me", "reviewer").status_code == 200
    finally:
        path.write_text(text)
        os.utime(path)
    assert served.get("/me", "viewer").json()["role"] == "viewer"


def test_the_tokens_file_holds_hashes_alone_and_is_its_owners(served):
    path = served.folder / "tokens"
    assert not any(token in path.read_text() for token in served.tokens.values())
    assert path.stat().st_mode & 0o077 == 0
    (served.folder / "bad").write_text("root me 1234\n")
    with pytest.raises(AccessError, match="line 1"):
        Tokens(str(served.folder / "bad"))


def test_a_service_open_to_others_needs_tokens(served):
    with pytest.raises(ServiceError, match="--tokens"):
        settings(str(served.folder / "runs"), "0.0.0.0")


def test_on_loopback_pages_of_other_sites_get_nothing(served):
    app = create_app(settings(str(served.folder / "runs"), state=str(served.folder / "open")))
    with TestClient(app, base_url="http://127.0.0.1:8600") as client:
        assert client.get("/api/v1/me").json()["role"] == "engineer"
        assert client.get("/api/v1/me", headers={"host": "evil.example"}).status_code == 401
        assert client.post("/api/v1/jobs", json=job(), headers={"origin": "http://evil.example"}).status_code == 401


def test_bodies_addresses_and_rates_are_bounded(served):
    assert served.post("/jobs", job(inputs=["x" * 300_000])).status_code == 413
    chunks = (b" " * 65_536 for _ in range(8))  # of no declared length
    assert served.client.post("/api/v1/jobs", content=chunks, headers=served.headers("engineer")).status_code == 413
    assert served.get("/runs/first/clips", params={"where": "x" * 9_000}).status_code == 414
    tight = settings(str(served.folder / "runs"), state=str(served.folder / "tight"), requests_per_s=5.0)
    with TestClient(create_app(tight), base_url="http://127.0.0.1") as client:
        answers = [client.get("/api/v1/health").status_code for _ in range(40)]
    assert answers[:10] == [200] * 10 and 429 in answers


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"run": NaN}', b"\xff\xfe", b'"\\ud800"', b"[" * 5_000,
                                  b'{"run":"new","inputs":["\\ud800"],"set":{"\\ud800":"\\ud800"}}'])  # fmt: skip
def test_a_body_that_is_none_is_refused(served, body):
    headers = served.headers("engineer") | {"content-type": "application/json"}
    assert served.client.post("/api/v1/jobs", content=body, headers=headers).status_code in (400, 422)
