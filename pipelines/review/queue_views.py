"""What a queue's rows look like to reviewers, and what a decision must pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from rushes.curation.nearest import meant
from rushes.pipelines.review.database import Missing, ReviewError
from rushes.pipelines.review.forms import (
    FIELDS,
    CaptionFields,
    CaptionView,
    DecisionForm,
    DecisionView,
    PersonProgress,
)
from rushes.pipelines.review.forms import Item as ItemView
from rushes.pipelines.review.outcome import ACCEPT, DISPUTED, WITHDRAWN
from rushes.pipelines.review.tables import Caption, Decision, Item, Queue, Standing

PAUSE_S = 300.0  # without a decision for so long, a person is not at work
LATELY = 2_000  # decisions from which a person's pace is told
SHOWN = {DISPUTED: "open", WITHDRAWN: "gone"}  # states as reviewers see them
#: (clip id, in frame, out frame) -> seconds; None where the frames' times are not known.
MeasureSpan = Callable[[str, int, int], float | None]


def no_queue(session: Session, run: str, name: str) -> Missing:
    """That the run has no such queue, and which it has."""
    known = session.scalars(sa.select(Queue.name).where(Queue.run == run).order_by(Queue.name)).all()
    hint = f"; {meant(name, known, 'queues')}" if known else "."
    return Missing(f"The run '{run}' has no queue '{name}'{hint} `rushes finetune balance` makes one.")


def check_decision(form: DecisionForm, item: Item, settings: dict[str, Any], seconds: MeasureSpan | None) -> None:
    """Raises ReviewError for a reason that the recipe does not name, and for a span outside the clip or its limits."""
    for reason in form.reasons:
        if reason not in settings["reasons"]:
            raise ReviewError(f"'{reason}' is none of the reasons of this queue: {', '.join(settings['reasons'])}.")
    if form.verdict != ACCEPT:
        return
    first, after = form.in_frame or 0, form.out_frame or 0
    if after > item.frames:
        raise ReviewError(f"The out point {after} lies behind the clip's last frame: it has {item.frames}.")
    length_s = seconds(form.clip_id, first, after) if seconds else None
    length_s = (after - first) / item.fps if length_s is None else length_s
    low, high, frame_s = settings["span"]["min_s"], settings["span"]["max_s"], 1 / item.fps
    if not low - frame_s <= length_s <= high + frame_s:
        raise ReviewError(f"The span is {length_s:.2f} s long, and {low:g} to {high:g} s are wanted: move in or out.")


def suggested(item: Item, settings: dict[str, Any]) -> tuple[int, int]:
    """In and out point of the whole clip, or of its centre where it is longer than a span may be."""
    most = round(settings["span"]["max_s"] * item.fps)
    first = max(0, (item.frames - most) // 2)
    return first, min(item.frames, first + most)


def item_view(
    queue: Queue, item: Item, until: float | None, mine: Decision | None, caption: Caption | None
) -> ItemView:
    first, after = suggested(item, queue.settings)
    if mine is not None and mine.in_frame is not None and mine.out_frame is not None:
        first, after = mine.in_frame, mine.out_frame
    fields = CaptionFields(**caption.fields) if caption else CaptionFields()
    return ItemView(
        clip_id=item.clip_id, state=SHOWN.get(item.state, item.state), lease_until=until,
        media=f"/api/v1/runs/{queue.run}/clips/{item.clip_id}/media",
        proxy=f"/api/v1/runs/{queue.run}/clips/{item.clip_id}/proxy", frames=item.frames, fps=item.fps,
        width=item.width, height=item.height, in_frame=first, out_frame=after, concept=item.concept,
        suitability=item.suitability, tie_break=item.state == DISPUTED,
        mine=decision_view(mine, item.clip_id) if mine else None,
        caption=CaptionView(
            fields=fields, text=caption.text if caption else "",
            written_by=caption.written_by if caption else {name: [] for name in FIELDS},
        ),
    )  # fmt: skip


def decision_view(made: Decision, clip_id: str) -> DecisionView:
    return DecisionView(
        id=made.id, clip_id=clip_id, person=made.person, verdict=made.verdict, reasons=made.reasons,
        in_frame=made.in_frame, out_frame=made.out_frame, at=made.at, undoes=made.undoes,
    )  # fmt: skip


def person_progress(session: Session, queue_id: int, now: float, only: str | None) -> list[PersonProgress]:
    """What each person (or one) has decided, and how fast."""
    mine = [Decision.queue_id == queue_id] + ([Decision.person == only] if only else [])
    stand = session.execute(
        sa.select(Decision.person, Decision.verdict, sa.func.count())
        .join(Standing, Standing.decision == Decision.number).where(*mine)
        .group_by(Decision.person, Decision.verdict)
    )  # fmt: skip
    counts: dict[str, dict[str, int]] = {}
    for person, verdict, count in stand:
        counts.setdefault(person, {})[verdict] = count
    found = []
    for person, of in sorted(counts.items()):
        times = session.scalars(
            sa.select(Decision.at).where(Decision.queue_id == queue_id, Decision.person == person)
            .order_by(Decision.number.desc()).limit(LATELY)
        ).all()  # fmt: skip
        per_hour, at_work_s = pace(list(reversed(times)), now)
        accepted, rejected = of.get("accept", 0), of.get("reject", 0)
        found.append(
            PersonProgress(
                person=person, decisions=accepted + rejected, accepted=accepted, rejected=rejected,
                per_hour=per_hour, at_work_s=at_work_s,
            )
        )  # fmt: skip
    return found


def pace(times: list[float], now: float) -> tuple[float | None, float]:
    """(decisions an hour while at work, length of the present stretch of work in s) from times in their order."""
    gaps = [after - before for before, after in itertools.pairwise(times)]
    work = [gap for gap in gaps if gap < PAUSE_S]
    per_hour = 3600 * len(work) / sum(work) if sum(work) > 0 else None
    if not times or now - times[-1] >= PAUSE_S:
        return per_hour, 0.0
    begin = times[-1]
    for before, gap in zip(reversed(times[:-1]), reversed(gaps)):
        if gap >= PAUSE_S:
            break
        begin = before
    return per_hour, now - begin
