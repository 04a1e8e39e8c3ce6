"""What people said of a queue, for whoever publishes it or learns from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from rushes.pipelines.review import outcome
from rushes.pipelines.review.database import Reviews
from rushes.pipelines.review.queue import said_of
from rushes.pipelines.review.queue_views import no_queue
from rushes.pipelines.review.tables import Caption, Decision, Item, Queue


@dataclass(frozen=True)
class Verdict:
    """What became of a clip. span: in and out frame of an accepted one; fields, text: its caption, as it stands."""

    clip_id: str
    state: str
    span: tuple[int, int] | None
    people: tuple[str, ...]
    concept: str | None
    suitability: float | None
    fields: dict[str, str]
    text: str
    written_by: dict[str, list[list[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Reviewed:
    """settings: the queue's; decisions: rows of all that were made, in order; unheard: clips that are open."""

    settings: dict[str, Any]
    verdicts: list[Verdict]
    decisions: list[dict[str, Any]]
    unheard: int


def reviewed(reviews: Reviews, run: str, name: str) -> Reviewed:
    """All that was said in a queue. Raises Missing and ReviewsAway."""
    with reviews.reading() as session:
        queue = session.scalars(sa.select(Queue).where(Queue.run == run, Queue.name == name)).first()
        if queue is None:
            raise no_queue(session, run, name)
        mine = Item.queue_id == queue.id
        items = {item.id: item for item in session.scalars(sa.select(Item).where(mine).order_by(Item.clip_id))}
        captions = {
            one.item_id: one
            for one in session.scalars(
                sa.select(Caption).join(Item, Item.id == Caption.item_id).where(mine).order_by(Caption.number)
            )
        }  # the last of each stays
        said = said_of(session, mine)
        verdicts = [_verdict(item, said[item.id], captions.get(item.id)) for item in items.values() if item.id in said]
        made = session.scalars(sa.select(Decision).where(Decision.queue_id == queue.id).order_by(Decision.number))
        rows = [_row(one, items[one.item_id].clip_id) for one in made]
        unheard = sum(item.state in outcome.ASKED for item in items.values())
        return Reviewed(queue.settings, verdicts, rows, unheard)


def _verdict(item: Item, said: list[outcome.Said], caption: Caption | None) -> Verdict:
    accepted = item.state == outcome.ACCEPTED
    return Verdict(
        item.clip_id, item.state, outcome.span_of(said) if accepted else None, tuple(one.person for one in said),
        item.concept, item.suitability, caption.fields if caption else {}, caption.text if caption else "",
        caption.written_by if caption else {},
    )  # fmt: skip


def _row(one: Decision, clip_id: str) -> dict[str, Any]:
    names = ("id", "person", "verdict", "reasons", "in_frame", "out_frame", "at", "took_ms", "undoes")
    return {"number": one.number, "clip_id": clip_id, **{name: getattr(one, name) for name in names}}
