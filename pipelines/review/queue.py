"""A queue of clips that people decide on: leases, decisions, undo, captions, progress.

Every change is one transaction that holds the queue's row, so that two people are never given one clip and a decision
is kept whole or not at all. What a client sends has an id of the client's; the same again is answered and not repeated.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from rushes.pipelines.review import outcome, words
from rushes.pipelines.review.database import Conflict, Missing, ReviewError, Reviews
from rushes.pipelines.review.forms import (
    CHOICES,
    FIELDS,
    CaptionForm,
    CaptionView,
    Decided,
    DecisionForm,
    DecisionView,
    Form,
    Held,
    Progress,
    QueueView,
    UndoForm,
)
from rushes.pipelines.review.outcome import ASKED, DISPUTED, GONE, WITHDRAWN, Said
from rushes.pipelines.review.queue_views import (
    MeasureSpan,
    check_decision,
    decision_view,
    item_view,
    no_queue,
    person_progress,
)
from rushes.pipelines.review.tables import Caption, Decision, Item, Lease, Queue, Standing

UNDO_DEEP = 10
Clock = Callable[[], float]


class ReviewQueue:
    """The queue `name` of the run `run`. Its methods raise Missing, Conflict, ReviewError and ReviewsAway."""

    def __init__(self, reviews: Reviews, run: str, name: str, clock: Clock = time.time) -> None:
        self._reviews, self._run, self._name, self._clock = reviews, run, name, clock

    # --- what reviewers do ----------------------------------------------------------------------------------------

    def lease(self, person: str, count: int, skip: Sequence[str] = ()) -> Held:
        """Hold `count` clips: renew what is held, add what nobody else holds; `skip` is given back and asked last."""
        with self._reviews.writing() as session:
            queue, now = self._locked(session), self._clock()
            for clip in skip:
                mine = session.get(Lease, (self._item(session, queue, clip).id, person))
                if mine is not None:
                    mine.until, mine.skipped = 0.0, now
            return Held(items=self._hold(session, queue, person, count, now),
                        progress=self._progress(session, queue, now, person))  # fmt: skip

    def release(self, person: str, clips: Sequence[str] | None) -> Progress:
        with self._reviews.writing() as session:
            queue, now = self._locked(session), self._clock()
            mine = sa.select(Item.id).where(Item.queue_id == queue.id)
            if clips is not None:
                mine = mine.where(Item.clip_id.in_(clips))
            session.execute(sa.update(Lease).where(Lease.person == person, Lease.item_id.in_(mine)).values(until=0.0))
            return self._progress(session, queue, now, person)

    def decide(self, person: str, form: DecisionForm, seconds: MeasureSpan | None = None) -> Decided:
        """Keep a decision. seconds: the length of a span of frames of a clip, where its frames' times are known."""
        with self._reviews.writing() as session:
            queue, now = self._locked(session), self._clock()
            before = known(session, Decision, form, person)
            if before is not None:
                return self._decided(session, queue, before, form.next, now, again=True)
            item = self._item(session, queue, form.clip_id)
            self._may_decide(session, queue, item, person, now)
            check_decision(form, item, queue.settings, seconds)
            made = Decision(
                id=form.id, queue_id=queue.id, item_id=item.id, person=person, verdict=form.verdict,
                reasons=list(dict.fromkeys(form.reasons)), in_frame=form.in_frame, out_frame=form.out_frame, at=now,
                took_ms=form.took_ms, undoes=None, form=form_hash(form),
            )  # fmt: skip
            if form.verdict == outcome.REJECT:
                made.in_frame = made.out_frame = None
            if form.caption is not None:
                self._write(session, item, person, f"{form.id}", form.caption.model_dump(), now, made.form)
            session.add(made)
            session.flush()
            session.add(Standing(item_id=item.id, person=person, decision=made.number))
            session.execute(sa.update(Lease).where(Lease.item_id == item.id, Lease.person == person).values(until=0.0))
            session.flush()
            item.state = self._state(session, queue, item)
            return self._decided(session, queue, made, form.next, now)

    def undo(self, person: str, form: UndoForm) -> Decided:
        """Take back the person's last decision that stands, at most ten in a row; the clip is held again."""
        with self._reviews.writing() as session:
            queue, now = self._locked(session), self._clock()
            before = known(session, Decision, form, person)
            if before is not None:
                return self._decided(session, queue, before, form.next, now, again=True)
            lately = session.scalars(
                sa.select(Decision.verdict).where(Decision.queue_id == queue.id, Decision.person == person)
                .order_by(Decision.number.desc()).limit(UNDO_DEEP)
            ).all()  # fmt: skip
            last = session.scalars(
                sa.select(Decision).join(Standing, Standing.decision == Decision.number)
                .where(Decision.queue_id == queue.id, Decision.person == person)
                .order_by(Decision.number.desc()).limit(1)
            ).first()  # fmt: skip
            if last is None or lately == ["undo"] * UNDO_DEEP:
                raise Conflict(
                    f"There is nothing to take back: at most {UNDO_DEEP} decisions in a row can be.", "nothing_to_undo"
                )
            made = Decision(
                id=form.id, queue_id=queue.id, item_id=last.item_id, person=person, verdict="undo", reasons=[], at=now,
                undoes=last.id, form=form_hash(form),
            )  # fmt: skip
            session.add(made)
            session.execute(sa.delete(Standing).where(Standing.item_id == last.item_id, Standing.person == person))
            item = session.get_one(Item, last.item_id)
            if item.state not in (GONE, WITHDRAWN):
                item.state = self._state(session, queue, item)
                if self._room(session, queue, item, person, now):
                    self._take(session, queue, item.id, person, now, first=True)
            session.flush()
            return self._decided(session, queue, made, form.next, now)

    def correct(self, person: str, form: CaptionForm) -> CaptionView:
        """Keep a version of a clip's caption; the person holds the clip or has decided on it."""
        with self._reviews.writing() as session:
            queue, now = self._locked(session), self._clock()
            item = self._item(session, queue, form.clip_id)
            before = known(session, Caption, form, person)
            if before is None:
                lease = session.get(Lease, (item.id, person))
                if not (lease and lease.until > now) and session.get(Standing, (item.id, person)) is None:
                    raise Conflict("Somebody else may hold this clip now: ask for clips again.", "lease_lost")
                before = self._write(session, item, person, form.id, form.fields.model_dump(), now, form_hash(form))
            return CaptionView(fields=before.fields, text=before.text, written_by=before.written_by)

    # --- what is asked --------------------------------------------------------------------------------------------

    def view(self, snapshot: str | None = None) -> QueueView:
        """snapshot: the run's current one."""
        with self._reviews.reading() as session:
            queue = self._queue(session)
            return QueueView(
                run=queue.run, name=queue.name, snapshot=queue.snapshot, fields=list(FIELDS),
                choices={name: list(some) for name, some in CHOICES.items()},
                republished=snapshot is not None and snapshot != queue.snapshot, **queue.settings,
            )  # fmt: skip

    def progress(self) -> Progress:
        with self._reviews.reading() as session:
            return self._progress(session, self._queue(session), self._clock(), None)

    def item(self, clip: str, person: str) -> Any:
        with self._reviews.reading() as session:
            queue = self._queue(session)
            return self._views(session, queue, [self._item(session, queue, clip)], person, self._clock())[0]

    def decisions(self, offset: int, limit: int) -> tuple[int, list[DecisionView]]:
        """(how many there are, a page of them), the newest first, undone ones and undos among them."""
        with self._reviews.reading() as session:
            queue = self._queue(session)
            mine = Decision.queue_id == queue.id
            total = session.scalar(sa.select(sa.func.count()).select_from(Decision).where(mine)) or 0
            rows = session.execute(
                sa.select(Decision, Item.clip_id).join(Item, Item.id == Decision.item_id).where(mine)
                .order_by(Decision.number.desc()).offset(offset).limit(limit)
            )  # fmt: skip
            return total, [decision_view(made, clip) for made, clip in rows]

    def agreement(self) -> list[dict[str, Any]]:
        with self._reviews.reading() as session:
            queue = self._queue(session)
            said = said_of(session, Item.queue_id == queue.id)
            pairs = [(some[0], some[1]) for some in said.values() if len(some) > 1]
            return outcome.agreement(pairs, queue.settings["reasons"])

    def reconcile(self, snapshot: str, present: Callable[[list[str]], set[str]]) -> None:
        """After the run was published anew: clips that it no longer has are gone, those that came back are asked.

        present: which of some clip ids the run still has media of.
        """
        with self._reviews.reading() as session:
            queue = self._queue(session)
            if queue.seen == snapshot:
                return
            ids = list(session.scalars(sa.select(Item.clip_id).where(Item.queue_id == queue.id)))
        there = present(ids)
        with self._reviews.writing() as session:
            queue = self._locked(session)
            for item in session.scalars(sa.select(Item).where(Item.queue_id == queue.id)):
                if item.state == WITHDRAWN:
                    continue
                if item.clip_id not in there:
                    item.state = GONE
                elif item.state == GONE:
                    item.state = self._state(session, queue, item)
            queue.seen = snapshot

    # --- inside a transaction -------------------------------------------------------------------------------------

    def _queue(self, session: Session, lock: bool = False) -> Queue:
        wanted = sa.select(Queue).where(Queue.run == self._run, Queue.name == self._name)
        queue = session.scalars(wanted.with_for_update() if lock else wanted).first()
        if queue is None:
            raise no_queue(session, self._run, self._name)
        return queue

    def _locked(self, session: Session) -> Queue:
        return self._queue(session, lock=True)

    def _item(self, session: Session, queue: Queue, clip: str) -> Item:
        item = session.scalars(sa.select(Item).where(Item.queue_id == queue.id, Item.clip_id == clip)).first()
        if item is None:
            raise Missing(f"The queue '{self._name}' has no clip '{clip}'.")
        return item

    def _state(self, session: Session, queue: Queue, item: Item) -> str:
        said = said_of(session, Item.id == item.id).get(item.id, [])
        return outcome.state_of(said, queue.settings["reviewers"])

    def _room(self, session: Session, queue: Queue, item: Item, person: str, now: float) -> bool:
        """Whether one more person is needed for a clip, beside those who decided on it and those who hold it."""
        free = sa.select(Item.id).where(Item.id == item.id, Item.state.in_(ASKED), self._free(queue, person, now))
        return session.scalar(free) is not None

    def _free(self, queue: Queue, person: str, now: float) -> Any:
        """SQL: a clip that the person has not decided on, and that has room for one more."""
        decided = sa.select(sa.func.count()).where(Standing.item_id == Item.id).correlate(Item).scalar_subquery()
        held = (
            sa.select(sa.func.count()).where(Lease.item_id == Item.id, Lease.person != person, Lease.until > now)
            .correlate(Item).scalar_subquery()
        )  # fmt: skip
        mine = sa.exists().where(Standing.item_id == Item.id, Standing.person == person).correlate(Item)
        wanted = queue.settings["reviewers"] + sa.case((Item.state == DISPUTED, 1), else_=0)
        return sa.and_(Item.queue_id == queue.id, ~mine, decided + held < wanted)

    def _may_decide(self, session: Session, queue: Queue, item: Item, person: str, now: float) -> None:
        if item.state in (GONE, WITHDRAWN):
            raise Conflict("The run or the queue was made anew without this clip: it is not asked any more.", "gone")
        if session.get(Standing, (item.id, person)) is not None:
            raise Conflict("You have decided on this clip already: undo it first.", "decided")
        if item.state not in ASKED:
            raise Conflict("This clip has all its decisions.", "decided")
        if not self._room(session, queue, item, person, now):
            raise Conflict("Your time for this clip was over, and somebody else holds it now.", "lease_lost")

    def _take(self, session: Session, queue: Queue, item_id: int, person: str, now: float, first: bool = False) -> None:
        lease = session.get(Lease, (item_id, person))
        if lease is None:
            lease = Lease(item_id=item_id, person=person, until=0.0, since=now)
            session.add(lease)
        if lease.until <= now:
            lease.since = now
        if first:
            lease.since = 0.0
        lease.until = now + queue.settings["lease_s"]

    def _hold(self, session: Session, queue: Queue, person: str, count: int, now: float) -> list[Any]:
        """The clips that a person holds, in order, after renewing them and adding others up to `count`."""
        session.flush()
        held = self._held(session, queue, person, now)
        for item in held[:count]:
            self._take(session, queue, item.id, person, now)
        if len(held) < count:
            more = self._more(session, queue, person, count - len(held), [item.id for item in held], now)
            for item in more:
                self._take(session, queue, item.id, person, now)
            session.flush()
            held = [*held, *more]
        return self._views(session, queue, held, person, now)

    def _more(self, session: Session, queue: Queue, person: str, count: int, held: list[int], now: float) -> list[Item]:
        """Clips that the person can be given, the lowest rank first, those that the person skipped at the end.

        A question for each state, in the order of an index: of a large queue only its beginning is read.
        """
        passed = Lease.item_id == Item.id, Lease.person == person, Lease.skipped.is_not(None)
        free = sa.select(Item).where(self._free(queue, person, now), Item.id.not_in(held))
        found: list[Item] = []
        for state in ASKED:
            unskipped = free.where(Item.state == state, ~sa.exists().where(*passed).correlate(Item))
            found += session.scalars(unskipped.order_by(Item.rank, Item.id).limit(count))
        found = sorted(found, key=lambda item: (item.rank, item.id))[:count]
        if len(found) < count:
            skipped = free.join(Lease, sa.and_(*passed)).where(Item.state.in_(ASKED)).order_by(Lease.skipped, Item.rank)
            found += session.scalars(skipped.limit(count - len(found)))
        return found

    def _held(self, session: Session, queue: Queue, person: str, now: float) -> list[Item]:
        leases = session.scalars(sa.select(Lease).where(Lease.until > now, Lease.person == person))
        since = {one.item_id: one.since for one in leases}
        items = session.scalars(
            sa.select(Item).where(Item.id.in_(since), Item.queue_id == queue.id, Item.state.in_(ASKED))
        )
        return sorted(items, key=lambda item: (since[item.id], item.rank, item.id))

    def _decided(
        self, session: Session, queue: Queue, made: Decision, count: int, now: float, again: bool = False
    ) -> Decided:
        items = self._hold(session, queue, made.person, count, now)
        clip = session.get_one(Item, made.item_id).clip_id
        return Decided(
            decision=decision_view(made, clip), again=again, items=items,
            progress=self._progress(session, queue, now, made.person),
        )  # fmt: skip

    def _views(self, session: Session, queue: Queue, items: Sequence[Item], person: str, now: float) -> list[Any]:
        """Clips as the person sees them, in their order."""
        ids = [item.id for item in items]
        leases = session.scalars(sa.select(Lease).where(Lease.item_id.in_(ids), Lease.person == person))
        until = {one.item_id: one.until for one in leases if one.until > now}
        mine = session.scalars(
            sa.select(Decision)
            .where(Decision.item_id.in_(ids), Decision.person == person, Decision.verdict != "undo")
            .order_by(Decision.number)
        )  # fmt: skip
        last = {one.item_id: one for one in mine}
        newest = sa.select(sa.func.max(Caption.number)).where(Caption.item_id.in_(ids)).group_by(Caption.item_id)
        captions = {one.item_id: one for one in session.scalars(sa.select(Caption).where(Caption.number.in_(newest)))}
        return [item_view(queue, one, until.get(one.id), last.get(one.id), captions.get(one.id)) for one in items]

    def _write(
        self, session: Session, item: Item, person: str, id_: str, fields: dict[str, str], now: float, form: str
    ) -> Caption:
        try:
            fields = words.clean(fields)
        except words.BadText as error:
            raise ReviewError(str(error)) from error
        before = _newest(session, item)
        made = Caption(
            id=id_, item_id=item.id, person=person, at=now, fields=fields, text=words.compose(fields), form=form,
            written_by=words.written_by(before.written_by if before else None, fields, person),
        )  # fmt: skip
        session.add(made)
        session.flush()
        return made

    def _progress(self, session: Session, queue: Queue, now: float, person: str | None) -> Progress:
        states = dict(session.execute(
            sa.select(Item.state, sa.func.count()).where(Item.queue_id == queue.id).group_by(Item.state)
        ).all())  # fmt: skip
        leased = session.scalar(
            sa.select(sa.func.count(sa.distinct(Lease.item_id))).where(
                Lease.until > now, sa.exists().where(Item.id == Lease.item_id, Item.queue_id == queue.id)
            )
        )  # fmt: skip
        states.pop(WITHDRAWN, None)
        counts = {name: states.get(name, 0) for name in ("open", "accepted", "rejected", "disputed", "gone")}
        people = person_progress(session, queue.id, now, person)
        return Progress(total=sum(states.values()), leased=leased or 0, people=people, **counts)


def _newest(session: Session, item: Item) -> Caption | None:
    return session.scalars(
        sa.select(Caption).where(Caption.item_id == item.id).order_by(Caption.number.desc()).limit(1)
    ).first()


def known(session: Session, table: type[Any], form: Any, person: str) -> Any:
    """What was kept under the form's id; None where it is new. Raises ReviewError where it was something else."""
    before = session.scalars(sa.select(table).where(table.id == form.id)).first()
    if before is not None and (before.person != person or before.form != form_hash(form)):
        raise ReviewError("This id stands for something else that was sent before: make a new one for each thing.")
    return before


def form_hash(form: Form) -> str:
    """Of what was sent, but for how many clips are wanted next."""
    said = form.model_dump(mode="json", exclude={"next"})
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def queues(reviews: Reviews, run: str) -> list[str]:
    """Names of a run's queues, the oldest first."""
    with reviews.reading() as session:
        return list(session.scalars(sa.select(Queue.name).where(Queue.run == run).order_by(Queue.id)))


def said_of(session: Session, where: Any) -> dict[int, list[Said]]:
    """Decisions that stand, by item, in their order."""
    rows = session.execute(
        sa.select(Decision).join(Standing, Standing.decision == Decision.number)
        .join(Item, Item.id == Decision.item_id).where(where).order_by(Decision.number)
    )  # fmt: skip
    found: dict[int, list[Said]] = {}
    for (one,) in rows:
        said = Said(one.person, one.verdict, tuple(one.reasons), one.in_frame, one.out_frame)
        found.setdefault(one.item_id, []).append(said)
    return found
