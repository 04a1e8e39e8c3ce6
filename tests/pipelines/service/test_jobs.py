"""Jobs of the service: real curations as processes of their own, followed, stopped, and found again after a restart."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from starlette.testclient import TestClient

from rushes.curation.recipe import load
from rushes.pipelines.service.app import create_app
from rushes.pipelines.service.jobs import Jobs
from rushes.pipelines.service.settings import settings
from tests.conftest import QUICK

QUICK_SET = {key: json.loads(value) if value[0] in "[0123456789tf" else value for key, value in
             (word.split("=", 1) for word in QUICK)}  # fmt: skip


def ended(store, job_id, timeout_s=240):
    until = time.monotonic() + timeout_s
    while (job := store.get(job_id)).state in ("queued", "running", "stopping"):
        assert time.monotonic() < until, job
        time.sleep(0.1)
    return job


@pytest.fixture
def place(tmp_path, footage_folder):
    folder, _ = footage_folder
    (tmp_path / "footage").mkdir()
    shutil.copy(folder / "portrait.mp4", tmp_path / "footage")
    (tmp_path / "runs").mkdir()
    return tmp_path


def test_a_job_made_by_http_curates_and_its_events_can_be_followed(place):
    chosen = settings(str(place / "runs"), roots=(str(place / "footage"),), allow_code=True)
    with TestClient(create_app(chosen), base_url="http://127.0.0.1") as client:
        body = {"run": "made", "recipe": "demo", "inputs": [str(place / "footage")], "set": QUICK_SET}
        made = client.post("/api/v1/jobs", json=body)
        assert made.status_code == 201, made.text
        assert client.post("/api/v1/jobs", json=body).status_code == 409
        kinds = []
        with client.stream("GET", f"/api/v1/jobs/{made.json()['id']}/events") as stream:
            states = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
        kinds = [state.get("state") or state.get("kind") for state in states]
        job = client.get(f"/api/v1/jobs/{made.json()['id']}").json()
        log = client.get(f"/api/v1/jobs/{job['id']}/log").text
        assert job["state"] == "succeeded" and job["exit_code"] == 0, log
        assert kinds[-1] == "succeeded" and "running" in kinds
        assert client.get("/api/v1/runs/made/funnel").json()["sources"]["ok"] == 1
        assert "kept" in log


def test_a_job_outlives_the_service_and_its_end_is_known_to_the_next(tmp_path):
    (tmp_path / "runs").mkdir()
    first = Jobs(tmp_path / "state", str(tmp_path / "runs"))
    job = first.create("me", "gone", load("demo"), ["/nowhere/film.mp4"], {})
    while first.get(job.id).state == "queued":
        time.sleep(0.05)
    first.close()
    assert first._children[job.id].wait(120) == 0  # the keeper has ended while no service was there
    second = Jobs(tmp_path / "state", str(tmp_path / "runs"))
    try:
        found = ended(second, job.id)
        assert found.state == "failed" and found.exit_code in (2, 3)
    finally:
        second.close()


def test_a_process_that_was_killed_is_lost_and_one_that_was_stopped_is_stopped(tmp_path):
    import os
    import signal

    (tmp_path / "runs").mkdir()
    store = Jobs(tmp_path / "state", str(tmp_path / "runs"), at_once=1)
    spawn = store._spawn
    store._spawn = lambda job, command: spawn(job, ["sleep", "60"])
    try:
        killed, stopped, waiting = (store.create("me", name, load("demo"), [], {}) for name in ("a", "b", "c"))
        while store.get(killed.id).state == "queued":
            time.sleep(0.05)
        assert store.get(stopped.id).state == "queued"
        os.killpg(store.get(killed.id).handle["pid"], signal.SIGKILL)
        assert ended(store, killed.id).state == "lost"
        while store.get(stopped.id).state == "queued":
            time.sleep(0.05)
        store.stop(stopped.id)
        assert store.stop(waiting.id).state == "stopped"
        assert ended(store, stopped.id).state == "stopped"
    finally:
        store.close()
