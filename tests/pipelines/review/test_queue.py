"""Leases, decisions, undo, captions: nothing twice, nothing lost, nobody in another's way."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rushes.pipelines.review.database import Conflict, Missing, ReviewError
from rushes.pipelines.review.filling import NewItem
from rushes.pipelines.review.forms import CaptionFields, CaptionForm, DecisionForm
from rushes.pipelines.review.queue import ReviewQueue
from tests.pipelines.review.conftest import ITEMS, Desk, new_id


def test_two_reviewers_are_never_given_one_clip(desk: Desk):
    assert not set(desk.lease("ann", 5)) & set(desk.lease("bob", 5))
    assert desk.lease("ann", 5) == [f"clip-{n:02d}" for n in range(5)]  # asking again renews, and gives no others


def test_a_lease_that_ends_gives_the_clip_to_the_next(desk: Desk):
    (clip,) = desk.lease("ann")
    desk.now[0] += 601
    assert desk.lease("bob") == [clip]
    with pytest.raises(Conflict) as refused:
        desk.decide("ann", clip)
    assert refused.value.code == "lease_lost"


def test_a_late_decision_counts_where_nobody_else_has_taken_the_clip(desk: Desk):
    (clip,) = desk.lease("ann")
    desk.now[0] += 601
    desk.decide("ann", clip)
    assert desk.state(clip) == "accepted"


def test_the_same_decision_sent_again_is_kept_once(desk: Desk):
    (clip,) = desk.lease("ann")
    form = desk.form(clip, next=2)
    first, second = desk.queue.decide("ann", form), desk.queue.decide("ann", form)
    assert not first.again and second.again and first.decision == second.decision
    assert desk.queue.decisions(0, 10)[0] == 1
    with pytest.raises(ReviewError, match="something else"):
        desk.queue.decide("ann", form.model_copy(update={"out_frame": 380}))
    with pytest.raises(ReviewError, match="something else"):
        desk.queue.decide("bob", form)


def test_a_decision_answers_with_the_next_clips(desk: Desk):
    (clip,) = desk.lease("ann")
    answer = desk.decide("ann", clip, "reject", reasons=["light"], next=3)
    assert [item.clip_id for item in answer.items] == ["clip-01", "clip-02", "clip-03"]
    assert (answer.progress.rejected, answer.progress.open, answer.progress.leased) == (1, 39, 3)


def test_undo_goes_ten_deep_and_brings_the_clip_back_in_front(desk: Desk):
    clips = desk.lease("ann", 12)
    for clip in clips:
        desk.decide("ann", clip, in_frame=3, out_frame=300)
        desk.now[0] += 2
    back = desk.undo("ann", next=2)
    assert back.items[0].clip_id == clips[-1] and back.items[0].in_frame == 3 and back.items[0].mine.out_frame == 300
    for clip in reversed(clips[2:-1]):
        assert desk.undo("ann").items[0].clip_id == clip
    with pytest.raises(Conflict) as refused:
        desk.undo("ann")
    assert refused.value.code == "nothing_to_undo"
    desk.decide("ann", clips[2])
    assert desk.undo("ann").decision.undoes is not None  # a decision in between, and it goes on
    assert desk.queue.decisions(0, 100)[0] == 12 + 10 + 2  # nothing was deleted
    assert [desk.state(clip) for clip in clips[:3]] == ["accepted", "accepted", "open"]


def test_two_reviewers_and_a_third_where_they_differ(desk: Desk):
    desk.fill(reviewers=2)
    for person in ("ann", "bob"):
        assert desk.lease(person, 2) == ["clip-00", "clip-01"]
    assert "clip-00" not in desk.lease("cid", 2)
    desk.decide("ann", "clip-00"), desk.decide("bob", "clip-00")
    desk.decide("ann", "clip-01"), desk.decide("bob", "clip-01", "reject", reasons=["motion"])
    assert desk.state("clip-00") == "accepted" and desk.state("clip-01") == "open"
    assert desk.queue.progress().disputed == 1
    held = desk.queue.lease("dee", 1).items
    assert [item.clip_id for item in held] == ["clip-01"] and held[0].tie_break
    assert "clip-01" not in desk.lease("eve", 3)
    desk.decide("dee", "clip-01", "reject", reasons=["motion", "light"])
    assert desk.state("clip-01") == "rejected"
    desk.undo("dee")
    assert desk.queue.progress().disputed == 1


def test_agreement_is_told_for_the_verdict_and_each_reason(desk: Desk):
    desk.fill(reviewers=2)
    for n in range(8):
        for person in ("ann", "bob"):
            assert f"clip-{n:02d}" in desk.lease(person, 20)
            verdict = "reject" if n < 4 or (n == 4 and person == "bob") else "accept"
            desk.decide(person, f"clip-{n:02d}", verdict, reasons=["light"] if verdict == "reject" and n < 3 else [])
    rows = {row["reason"]: row for row in desk.queue.agreement()}
    assert rows["accept"]["pairs"] == 8 and rows["accept"]["agreed"] == 7 / 8
    assert rows["accept"]["kappa"] == pytest.approx(0.75)  # (7/8 - 1/2) / (1 - 1/2)
    assert rows["light"]["kappa"] == 1.0 and rows["motion"]["kappa"] is None


def test_a_skipped_clip_is_asked_last(desk: Desk):
    first, second = desk.lease("ann", 2)
    assert desk.lease("ann", 2, skip=[first]) == [second, "clip-02"]
    assert desk.lease("bob") == [first]
    desk.fill(ITEMS[:3])
    desk.queue.release("ann", None), desk.queue.release("bob", None)
    assert desk.lease("ann", 3) == ["clip-01", "clip-02", "clip-00"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"in_frame": 300, "out_frame": 100}, "must lie behind"),
        ({"in_frame": 5}, "needs in_frame and out_frame"),
        ({"in_frame": -1, "out_frame": 300}, "greater than or equal"),
        ({"in_frame": 0, "out_frame": 300, "caption": {"subject": "x" * 10_000}}, "at most 1200"),
        ({"in_frame": 0, "out_frame": 300, "verdict": "maybe"}, "'accept' or 'reject'"),
    ],
)
def test_a_form_that_is_wrong_is_told_before_anything_is_kept(wrong, words):
    with pytest.raises(ValidationError, match=words):
        DecisionForm(**{"id": new_id(), "clip_id": "clip-00", "verdict": "accept", **wrong})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"out_frame": 385}, "has 384"),
        ({"out_frame": 200}, "8.33 s long, and 10.6 to 16 s"),
        ({"reasons": ["ugly"]}, "none of the reasons of this queue: angle, light"),
        ({"caption": CaptionFields(subject="a\x00b")}, r"U\+0000"),
    ],
)
def test_what_the_queue_does_not_take_is_told(desk: Desk, more, words):
    desk.lease("ann")
    with pytest.raises(ReviewError, match=words):
        desk.decide("ann", "clip-00", **more)
    assert desk.queue.decisions(0, 10)[0] == 0 and desk.state("clip-00") == "open"


def test_who_wrote_which_word_is_kept_over_several_hands(desk: Desk):
    draft = {"subject": "people", "light": "dim and muted", "camera_control": "pan left"}
    desk.fill([*ITEMS, NewItem("clip-99", 384, 24.0, 640, 360, rank=-1.0, fields=draft)])
    item = desk.queue.lease("ann", 1).items[0]
    assert item.clip_id == "clip-99" and item.caption.written_by["light"] == [("composed", "dim and muted")]
    fields = item.caption.fields.model_copy(update={"light": "dim and warm evening light", "shot_angle": "wide"})
    view = desk.queue.correct("ann", CaptionForm(id=new_id(), clip_id="clip-99", fields=fields))
    assert view.written_by["light"] == [("composed", "dim and"), ("ann", "warm evening light")]
    last = fields.model_copy(update={"subject": "two <b>people</b>, a dog", "light": "dim and cold evening light"})
    answer = desk.decide("ann", "clip-99", caption=last)
    caption = desk.queue.item("clip-99", "bob").caption
    assert answer.decision.verdict == "accept"
    assert caption.text == "Wide shot of two <b>people</b>, a dog. The light is dim and cold evening light."
    assert caption.written_by["subject"] == [("ann", "two <b>people</b>, a dog")]


def test_only_who_holds_a_clip_corrects_its_caption(desk: Desk):
    desk.lease("ann")
    form = CaptionForm(id=new_id(), clip_id="clip-00", fields=CaptionFields(subject="a cat"))
    with pytest.raises(Conflict):
        desk.queue.correct("bob", form)
    assert desk.queue.correct("ann", form) == desk.queue.correct("ann", form)


def test_a_run_published_anew_takes_away_what_it_lost_and_keeps_what_was_decided(desk: Desk):
    desk.lease("ann", 3)
    desk.decide("ann", "clip-00")
    desk.queue.reconcile("000002-b", lambda ids: set(ids) - {"clip-00", "clip-01"})
    assert desk.state("clip-00") == desk.state("clip-01") == "gone"
    with pytest.raises(Conflict) as refused:
        desk.decide("ann", "clip-01")
    assert refused.value.code == "gone" and "clip-01" not in desk.lease("bob", 5)
    desk.queue.reconcile("000003-c", lambda ids: set(ids))
    assert desk.state("clip-00") == "accepted" and desk.state("clip-01") == "open"


def test_filling_anew_keeps_decisions_and_withdraws_what_is_not_asked(desk: Desk):
    desk.lease("ann", 1)
    desk.decide("ann", "clip-00")
    filled = desk.fill([*ITEMS[1:10], NewItem("clip-77", 400, 25.0, 640, 360)])
    assert (filled.added, filled.stayed, filled.withdrawn) == (1, 9, 30)
    assert desk.state("clip-00") == "accepted" and desk.queue.progress().total == 11
    with pytest.raises(Conflict):
        desk.decide("ann", "clip-20")


def test_what_is_not_there_is_told(desk: Desk):
    with pytest.raises(Missing, match="no clip 'nowhere'"):
        desk.decide("ann", "nowhere")
    with pytest.raises(Missing, match="rushes finetune balance"):
        ReviewQueue(desk.reviews, "first", "other").progress()


def test_pace_leaves_out_the_breaks(desk: Desk):
    for clip in desk.lease("ann", 12)[:11]:
        desk.decide("ann", clip)
        desk.now[0] += 2.0 if clip != "clip-05" else 3_000.0
    (ann,) = desk.queue.progress().people
    assert ann.per_hour == pytest.approx(1_800) and ann.at_work_s == pytest.approx(10.0)
