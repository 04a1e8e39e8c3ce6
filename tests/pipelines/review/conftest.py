"""A queue of forty clips in a database of its own, and a clock that the tests turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

pytest.importorskip("sqlalchemy", reason="the extra `serve`")

from rushes.pipelines.review.database import Reviews
from rushes.pipelines.review.filling import NewItem, fill
from rushes.pipelines.review.forms import DecisionForm, UndoForm
from rushes.pipelines.review.queue import ReviewQueue

SETTINGS = {
    "reasons": ["angle", "light", "colour", "motion", "subject"], "reviewers": 1,
    "span": {"min_s": 10.6, "max_s": 16.0}, "lease_s": 600.0, "break_after_s": 3000.0,
}  # fmt: skip
ITEMS = [NewItem(f"clip-{n:02d}", 384, 24.0, 1280, 720, rank=float(n)) for n in range(40)]
_numbers = itertools.count()


@dataclass
class Desk:
    """A queue, its clock, and short words for what people do at it."""

    reviews: Reviews
    now: list[float] = field(default_factory=lambda: [1_000.0])

    def fill(self, items: list[NewItem] = ITEMS, **settings):
        return fill(self.reviews, "first", "finetune", "000001-a", {**SETTINGS, **settings}, items)

    @property
    def queue(self) -> ReviewQueue:
        return ReviewQueue(self.reviews, "first", "finetune", lambda: self.now[0])

    def lease(self, person: str, count: int = 1, skip=()) -> list[str]:
        return [item.clip_id for item in self.queue.lease(person, count, skip).items]

    def form(self, clip: str, verdict: str = "accept", **more) -> DecisionForm:
        more = {"in_frame": 0, "out_frame": 384, **more} if verdict == "accept" else more
        return DecisionForm(**{"id": new_id(), "clip_id": clip, "verdict": verdict, **more})

    def decide(self, person: str, clip: str, verdict: str = "accept", **more):
        return self.queue.decide(person, self.form(clip, verdict, **more))

    def undo(self, person: str, **more):
        return self.queue.undo(person, UndoForm(id=new_id(), **more))

    def state(self, clip: str) -> str:
        return self.queue.item(clip, "nobody").state


def new_id() -> str:
    return f"id-{next(_numbers):012d}"


@pytest.fixture
def desk(tmp_path) -> Iterator[Desk]:
    found = Desk(Reviews(f"sqlite:///{tmp_path}/state/reviews.sqlite"))
    found.fill()
    yield found
    found.reviews.close()
