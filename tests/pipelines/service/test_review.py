"""Review by HTTP: roles, leases, the same decision twice, bad forms, a database that is away."""

from __future__ import annotations

import pytest

from rushes.pipelines.review.filling import NewItem, fill
from tests.pipelines.review.conftest import SETTINGS, new_id
from tests.pipelines.service.conftest import Served

QUEUE = "/runs/first/review/finetune"


@pytest.fixture(scope="module")
def clips(served: Served) -> list[str]:
    """A queue of the clips of the run that have media."""
    run = served.app.state.library.run("first")
    rows = [row for row in run.table("clips", ["clip_id", "media"]).to_pylist() if row["media"]]
    items = [NewItem(row["clip_id"], 384, 24.0, 1280, 720, rank=float(n)) for n, row in enumerate(rows)]
    fill(served.app.state.reviews, "first", "finetune", run.snapshot, SETTINGS, items)
    return [row["clip_id"] for row in rows]


def decision(clip: str, **more):
    return {"id": new_id(), "clip_id": clip, "verdict": "accept", "in_frame": 0, "out_frame": 384, **more}


def test_reviewers_decide_and_viewers_only_look(served: Served, clips):
    assert served.get(QUEUE).json()["reasons"] == SETTINGS["reasons"]
    for path, body in (("lease", {"count": 1}), ("decisions", decision(clips[0])), ("undo", {"id": new_id()})):
        assert served.post(f"{QUEUE}/{path}", body, "viewer").status_code == 403
    held = served.post(f"{QUEUE}/lease", {"count": 2}, "reviewer").json()
    assert [item["clip_id"] for item in held["items"]] == clips[:2]
    assert held["items"][0]["media"] == f"/api/v1/runs/first/clips/{clips[0]}/media"
    assert served.post(f"{QUEUE}/lease", {"count": 1}, "engineer").json()["items"][0]["clip_id"] == clips[2]


def test_a_decision_sent_twice_is_one_and_another_page_is_refused_with_a_code(served: Served, clips):
    held = served.post(f"{QUEUE}/lease", {"count": 2}, "reviewer").json()["items"]
    body = decision(held[0]["clip_id"], next=2)
    first = served.post(f"{QUEUE}/decisions", body, "reviewer").json()
    again = served.post(f"{QUEUE}/decisions", body, "reviewer").json()
    assert (first["again"], again["again"]) == (False, True) and first["decision"] == again["decision"]
    late = served.post(f"{QUEUE}/decisions", decision(held[0]["clip_id"]), "engineer")
    assert late.status_code == 409 and late.json()["code"] == "decided"
    back = served.post(f"{QUEUE}/undo", {"id": new_id()}, "reviewer").json()
    assert back["items"][0]["clip_id"] == held[0]["clip_id"] and back["items"][0]["mine"]["in_frame"] == 0
    assert served.get(f"{QUEUE}/decisions").json()["total"] == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_frame": 300, "out_frame": 20}, "must lie behind"),
        ({"out_frame": 400}, "it has 384"),
        ({"reasons": ["<script>alert(1)</script>"]}, "none of the reasons"),
        ({"caption": {"subject": "y" * 10_000}}, "at most 1200"),
        ({"id": "<b>"}, "id"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_wrong_decisions_are_told_in_a_sentence(served: Served, clips, change, words):
    held = served.post(f"{QUEUE}/lease", {"count": 1}, "reviewer").json()["items"]
    answer = served.post(f"{QUEUE}/decisions", decision(held[0]["clip_id"], **change), "reviewer")
    assert answer.status_code == 422 and words in answer.json()["detail"]


def test_markup_in_a_caption_stays_text(served: Served, clips):
    held = served.post(f"{QUEUE}/lease", {"count": 1}, "reviewer").json()["items"]
    fields = {"subject": "<img src=x onerror=alert(1)> a  cat", "style": "</script>"}
    body = {"id": new_id(), "clip_id": held[0]["clip_id"], "fields": fields}
    view = served.post(f"{QUEUE}/captions", body, "reviewer").json()
    assert view["fields"]["subject"] == "<img src=x onerror=alert(1)> a cat"
    assert served.get(f"{QUEUE}/items/{held[0]['clip_id']}").json()["caption"]["written_by"]["style"] == [
        ["a-reviewer", "</script>"]
    ]
    composed = served.post(f"{QUEUE}/compose", {"subject": "a cat", "shot_angle": "wide"}, "reviewer")
    assert composed.json() == {"text": "Wide shot of a cat."}


def test_what_is_not_there_is_told(served: Served, clips):
    assert served.get("/runs/first/review/other").status_code == 404
    assert served.get("/runs/none/review/finetune").status_code == 404
    assert "fit suitability" in served.get("/runs/first/suitability").json()["detail"]
    assert served.get(f"/runs/first/clips/{clips[-1]}/frames").status_code == 404
    assert served.get(f"{QUEUE}/agreement").json()["agreement"][0]["reason"] == "accept"
    assert [queue["name"] for queue in served.get("/runs/first/review").json()["queues"]] == ["finetune"]
    released = served.post(f"{QUEUE}/release", {}, "reviewer").json()
    assert released["total"] == len(clips) and released["people"] == []


def test_a_database_that_is_away_is_503_and_nothing_is_lost(served: Served, clips):
    held = served.post(f"{QUEUE}/lease", {"count": 1}, "reviewer").json()["items"]
    body = decision(held[0]["clip_id"])
    file = served.folder / "state" / "reviews.sqlite"
    file.rename(file.with_suffix(".away"))
    away = served.post(f"{QUEUE}/decisions", body, "reviewer")
    file.with_suffix(".away").rename(file)
    assert away.status_code == 503 and "send it again" in away.json()["detail"] and away.headers["retry-after"] == "1"
    answer = served.post(f"{QUEUE}/decisions", body, "reviewer")
    assert answer.status_code == 200 and not answer.json()["again"]
