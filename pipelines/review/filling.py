"""What is asked of people: queues made and filled, and asked in another order."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from rushes.pipelines.review import words
from rushes.pipelines.review.database import ReviewError, Reviews
from rushes.pipelines.review.outcome import ASKED, WITHDRAWN, state_of
from rushes.pipelines.review.queue import said_of
from rushes.pipelines.review.queue_views import no_queue
from rushes.pipelines.review.tables import Caption, Item, Queue

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # as in addresses
BATCH = 5_000  # rows written at a time


@dataclass(frozen=True)
class NewItem:
    """A clip to be asked about, in the order of `rank`; fields: the draft of its caption, and who wrote that."""

    clip_id: str
    frames: int
    fps: float
    width: int
    height: int
    rank: float = 0.0
    concept: str | None = None
    suitability: float | None = None
    fields: Mapping[str, str] | None = None
    drafted_by: str = words.MEASURED


@dataclass(frozen=True)
class Filled:
    added: int
    stayed: int
    withdrawn: int  # undecided clips that are not asked about any more


def fill(
    reviews: Reviews, run: str, name: str, snapshot: str, settings: dict[str, Any], items: list[NewItem]
) -> Filled:
    """Make a queue of these clips, or make an old one to be of them: what was decided stays, whatever the clip.

    Raises ReviewError for a name that is none.
    """
    if not re.fullmatch(NAME, name):
        raise ReviewError("A queue's name has letters, digits and . _ - only, and begins with one of the first two.")
    with reviews.writing() as session:
        wanted = sa.select(Queue).where(Queue.run == run, Queue.name == name)
        queue = session.scalars(wanted.with_for_update()).first()
        if queue is None:
            queue = Queue(run=run, name=name, created=time.time(), snapshot="", seen="", settings={})
            session.add(queue)
        queue.snapshot = queue.seen = snapshot
        queue.settings = settings
        session.flush()
        there = {item.clip_id: item for item in session.scalars(sa.select(Item).where(Item.queue_id == queue.id))}
        asked = {item.clip_id for item in items}
        withdrawn = [item for clip, item in there.items() if clip not in asked and item.state in ASKED]
        for item in withdrawn:
            item.state = WITHDRAWN
        new = [item for item in items if item.clip_id not in there]
        for item in items:
            old = there.get(item.clip_id)
            if old is not None:
                old.rank, old.concept, old.suitability = item.rank, item.concept, item.suitability
                if old.state == WITHDRAWN:
                    said = said_of(session, Item.id == old.id).get(old.id, [])
                    old.state = state_of(said, settings["reviewers"])
        for start in range(0, len(new), BATCH):
            _add(session, queue, new[start : start + BATCH])
        return Filled(len(new), len(items) - len(new), len(withdrawn))


def _add(session: Any, queue: Queue, items: list[NewItem]) -> None:
    rows = [
        Item(
            queue_id=queue.id, clip_id=one.clip_id, state="open", rank=one.rank, frames=one.frames, fps=one.fps,
            width=one.width, height=one.height, concept=one.concept, suitability=one.suitability,
        )
        for one in items
    ]  # fmt: skip
    session.add_all(rows)
    session.flush()
    for row, one in zip(rows, items, strict=True):
        fields = words.clean(dict(one.fields or {}))
        if any(fields.values()):
            session.add(Caption(
                id=f"draft-{row.id}", item_id=row.id, person=one.drafted_by[:64], at=queue.created, fields=fields,
                written_by=words.written_by(None, fields, one.drafted_by[:64]), text=words.compose(fields), form="",
            ))  # fmt: skip


def rerank(
    reviews: Reviews, run: str, name: str, ranks: Mapping[str, tuple[float, float | None]], snapshot: str
) -> int:
    """Ask in another order: clip -> (rank, suitability). How many clips that are still asked about were moved.

    snapshot: of the run, with the same clips as the queue's and their new scores.
    """
    with reviews.writing() as session:
        wanted = sa.select(Queue).where(Queue.run == run, Queue.name == name)
        queue = session.scalars(wanted.with_for_update()).first()
        if queue is None:
            raise no_queue(session, run, name)
        queue.snapshot = queue.seen = snapshot
        moved = 0
        for item in session.scalars(sa.select(Item).where(Item.queue_id == queue.id)):
            if item.clip_id in ranks:
                item.rank, item.suitability = ranks[item.clip_id]
                moved += item.state in ASKED
        return moved
