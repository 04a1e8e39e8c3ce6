"""Compare by HTTP: blind, in random order, one question at a time, each answer once."""

from __future__ import annotations

import json

import pytest

from tests.pipelines.review.conftest import new_id
from tests.pipelines.service.conftest import Served


@pytest.fixture(scope="module")
def made(served: Served) -> dict:
    """Twelve prompts by two models; model-b's videos are longer, so that a test can tell them apart."""
    for model, size in (("model-a", 100), ("model-b", 200)):
        folder = served.folder / "footage" / model
        folder.mkdir()
        for n in range(12):
            (folder / f"{n:03d}.mp4").write_bytes(bytes([n]) * size)
        (folder / "prompts.json").write_text(json.dumps({f"{n:03d}.mp4": f"prompt {n}" for n in range(12)}))
    (served.folder / "footage" / "model-b" / "more.mp4").write_bytes(b"x")
    body = form(served)
    assert served.post("/compare", body, "reviewer").status_code == 403
    answer = served.post("/compare", body)
    assert answer.status_code == 201
    return answer.json()


def form(served: Served, **change) -> dict:
    sides = {
        key: {"model": model, "folder": str(served.folder / "footage" / model)}
        for key, model in (("a", "model-a"), ("b", "model-b"))
    }
    return {"name": "one", "questions": ["quality", "motion"], "raters": 1, **sides, **change}


def size_of(served: Served, address: str) -> int:
    return len(served.get(address.removeprefix("/api/v1"), "reviewer").content)


def test_pairs_are_made_by_name_and_what_has_no_pair_is_told(made):
    assert (made["pairs"], made["unpaired"], made["wanted"]) == (12, 1, 24)


def test_neither_addresses_nor_order_tell_the_model(served: Served, made):
    asked = served.post("/compare/one/next", {"count": 20}, "reviewer").json()
    assert asked["left"] == 24
    assert "model" not in json.dumps(asked) and ".mp4" not in json.dumps(asked)
    assert [pair["question"] for pair in asked["pairs"]] == ["quality"] * 12 + ["motion"] * 8
    left_is_b = [size_of(served, pair["left"]) == 200 for pair in asked["pairs"]]
    assert 3 < sum(left_is_b) < 17
    again = served.post("/compare/one/next", {"count": 20}, "reviewer").json()
    assert again == asked
    other = served.post("/compare/one/next", {"count": 20}, "engineer").json()
    assert [pair["pair"] for pair in other["pairs"]] != [pair["pair"] for pair in asked["pairs"]]


def test_votes_count_once_and_say_who_won(served: Served, made):
    for _ in range(24):
        pair = served.post("/compare/one/next", {"count": 1}, "reviewer").json()["pairs"][0]
        b_is_left = size_of(served, pair["left"]) == 200
        choice = ("left" if b_is_left else "right") if pair["question"] == "quality" else "tie"
        body = {"id": new_id(), "pair": pair["pair"], "question": pair["question"], "choice": choice, "next": 1}
        first, again = (served.post("/compare/one/votes", body, "reviewer").json() for _ in range(2))
        assert (first["again"], again["again"]) == (False, True) and first["left"] == again["left"]
    quality, motion = served.get("/compare/one/results").json()["questions"]
    assert (quality["wins"], quality["losses"], quality["net_win_rate"]) == (0, 12, -100.0)
    assert quality["high"] < -50 and (motion["ties"], motion["net_win_rate"]) == (12, 0.0)
    assert served.get("/compare/one", "reviewer").json()["mine"] == 24
    assert served.post("/compare/one/next", {"count": 1}, "reviewer").json() == {"pairs": [], "left": 0}
    back = served.post("/compare/one/undo", {"id": new_id(), "next": 1}, "reviewer").json()
    assert back["vote"]["choice"] == "undo" and back["pairs"][0]["pair"] == pair["pair"] and back["left"] == 1


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({}, 409, "choose another name"),
        ({"name": "<script>"}, 422, "name"),
        ({"name": "two", "a": {"model": "m", "folder": "/etc"}}, 422, "outside the roots"),
        ({"name": "two", "a": {"model": "model-b", "folder": "FOOTAGE"}}, 422, "two names"),
        ({"name": "two", "a": {"model": "m", "folder": "FOOTAGE"}}, 422, "share no .mp4"),
    ],
)
def test_comparisons_that_cannot_be_are_told(served: Served, made, change, status, words):
    text = json.dumps(form(served, **change)).replace("FOOTAGE", str(served.folder / "footage"))
    answer = served.post("/compare", json.loads(text))
    assert answer.status_code == status and words in answer.json()["detail"]


def test_a_video_is_not_had_by_guessing_sides(served: Served, made):
    pair = served.post("/compare/one/next", {"count": 1}, "engineer").json()
    assert served.get("/compare/one/media/" + "0" * 24 + "/" + "0" * 24).status_code == 404
    if pair["pairs"]:
        theirs = pair["pairs"][0]["left"].removeprefix("/api/v1")
        assert served.get(theirs, "engineer").status_code == 200
        assert served.get(theirs, "reviewer").status_code == 404  # a rater's address is that rater's
