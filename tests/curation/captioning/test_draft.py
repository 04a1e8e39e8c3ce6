"""Drafts for people have the fields that people correct, or a reason."""

from __future__ import annotations

import json

import pytest

from rushes.curation.captioning.draft import BadDraft, Draft, Drafter, parse_draft
from tests.curation.captioning.asking import captioning, clips, frames, servers
from tests.curation.captioning.stub import Behaviour, serving

GOOD = {
    "camera_control": "pan left", "shot_angle": "over the shoulder", "subject": "a man in a blue coat",
    "background": "a busy street", "action": "he turns and walks away",
    "light": "low evening sun", "style": "documentary",
}  # fmt: skip


def test_a_draft_is_read_also_between_fences_and_words():
    text = json.dumps(GOOD)
    for answer in (text, f"```json\n{text}\n```", f"Here it is: {text} I hope it helps."):
        assert parse_draft(answer).model_dump() == GOOD


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("no object", "no JSON object"),
        ('{"camera_control": "pan left"', "no JSON object"),
        ('{"camera_control": pan}', "broken"),
        (json.dumps({**GOOD, "shot_angle": "sideways"}), "shot_angle"),
        (json.dumps({**GOOD, "camera_control": "whirl"}), "camera_control"),
        (json.dumps({**GOOD, "subject": ""}), "subject"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "light"}), "light"),
        (json.dumps({**GOOD, "action": "on and " * 1000}), "action"),
    ],
)
def test_what_is_no_draft_is_told_with_the_field(answer, words):
    with pytest.raises(BadDraft, match=words):
        parse_draft(answer)


def test_the_fields_are_those_of_the_fine_tuning_set():
    assert set(Draft.model_fields) == set(GOOD)
    angles = Draft.model_json_schema()["properties"]["shot_angle"]["enum"]
    assert {"wide", "close-up", "aerial", "low angle", "over the shoulder", "first person"} <= set(angles)


def test_the_schema_goes_out_with_the_request_and_bad_drafts_are_asked_again():
    with serving(Behaviour(texts=("no", json.dumps(GOOD)))) as stub:
        spec = captioning(stub.url, concurrency=1)
        made = Drafter(spec, servers(spec), "small")(clips(1), frames)
        sent = stub.bodies[0]
    assert made[0].draft.shot_angle == "over the shoulder" and made[0].error is None
    assert sent["response_format"]["json_schema"]["schema"] == Draft.model_json_schema()
    assert "over the shoulder" in sent["messages"][-1]["content"][-1]["text"]
    assert len(stub.asked) == 2 and stub.bodies[0]["seed"] != stub.bodies[1]["seed"]


def test_a_clip_without_a_draft_has_a_reason_and_its_place():
    with serving(Behaviour(texts=("no",))) as stub:
        spec = captioning(stub.url, attempts=2)
        made = Drafter(spec, servers(spec), "small")(clips(3), frames)
    assert [d.clip_id for d in made] == [row["clip_id"] for row in clips(3)]
    assert all(d.draft is None and "2 answers failed" in d.error for d in made)
