"""The tables of the reviews' database. Decisions, captions and votes are only ever added to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s",
}  # fmt: skip
#: A number that grows by one with every row: SQLite counts only plain integers.
SERIAL = BigInteger().with_variant(Integer, "sqlite")
WORDS, NAME, ID = String(64), String(100), String(64)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON, float: Float(53)}  # noqa: RUF012 - SQLAlchemy's form


class Queue(Base):
    """What is reviewed of a run. settings: a QueueView's rules; seen: the snapshot that the items were checked with."""

    __tablename__ = "queues"
    __table_args__ = (UniqueConstraint("run", "name"),)
    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    run: Mapped[str] = mapped_column(NAME)
    name: Mapped[str] = mapped_column(NAME)
    snapshot: Mapped[str] = mapped_column(WORDS)
    seen: Mapped[str] = mapped_column(WORDS)
    settings: Mapped[dict[str, Any]]
    created: Mapped[float]


class Item(Base):
    """A clip of a queue. state: open, disputed, accepted, rejected or gone; rank: the lowest is asked first."""

    __tablename__ = "items"
    __table_args__ = (UniqueConstraint("queue_id", "clip_id"), Index(None, "queue_id", "state", "rank"))
    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    queue_id: Mapped[int] = mapped_column(ForeignKey("queues.id"))
    clip_id: Mapped[str] = mapped_column(ID)
    state: Mapped[str] = mapped_column(String(16), default="open")
    rank: Mapped[float] = mapped_column(default=0.0)
    frames: Mapped[int]
    fps: Mapped[float]
    width: Mapped[int]
    height: Mapped[int]
    concept: Mapped[str | None] = mapped_column(String(200))
    suitability: Mapped[float | None]


class Lease(Base):
    """A person holds a clip until a time; one that was skipped is offered to that person again last."""

    __tablename__ = "leases"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    person: Mapped[str] = mapped_column(WORDS, primary_key=True)
    until: Mapped[float] = mapped_column(index=True)
    since: Mapped[float]
    skipped: Mapped[float | None]


class Decision(Base):
    """What a person said, once per id. An undo is a decision that names the one that it takes back."""

    __tablename__ = "decisions"
    __table_args__ = (UniqueConstraint("id"), Index(None, "queue_id", "person", "number"))
    number: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    id: Mapped[str] = mapped_column(ID)
    queue_id: Mapped[int] = mapped_column(ForeignKey("queues.id"))
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    person: Mapped[str] = mapped_column(WORDS)
    verdict: Mapped[str] = mapped_column(String(8))
    reasons: Mapped[list[str]]
    in_frame: Mapped[int | None]
    out_frame: Mapped[int | None]
    at: Mapped[float]
    took_ms: Mapped[int | None]
    undoes: Mapped[str | None] = mapped_column(ID)
    form: Mapped[str] = mapped_column(WORDS)  # hash of what was sent


class Standing(Base):
    """A person's decision on a clip that was not taken back: follows from the decisions."""

    __tablename__ = "standing"
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), primary_key=True)
    person: Mapped[str] = mapped_column(WORDS, primary_key=True)
    decision: Mapped[int] = mapped_column(ForeignKey("decisions.number"))


class Caption(Base):
    """A version of a clip's caption. written_by: field -> [[who, words], ...]."""

    __tablename__ = "captions"
    __table_args__ = (UniqueConstraint("id"),)
    number: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    id: Mapped[str] = mapped_column(ID)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id"), index=True)
    person: Mapped[str] = mapped_column(WORDS)
    at: Mapped[float]
    fields: Mapped[dict[str, Any]]
    written_by: Mapped[dict[str, Any]]
    text: Mapped[str] = mapped_column(Text)
    form: Mapped[str] = mapped_column(WORDS)


class Comparison(Base):
    """Two models' samples. settings: models, folders, questions, raters, seed."""

    __tablename__ = "comparisons"
    id: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, unique=True)
    settings: Mapped[dict[str, Any]]
    created: Mapped[float]


class Pair(Base):
    """The same prompt by both models: files a and b."""

    __tablename__ = "pairs"
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"), index=True)
    prompt: Mapped[str | None] = mapped_column(Text)
    a: Mapped[str] = mapped_column(Text)
    b: Mapped[str] = mapped_column(Text)


class Vote(Base):
    """A rater's answer. choice: left, right, tie or undo; won: what it means, a, b or tie."""

    __tablename__ = "votes"
    __table_args__ = (UniqueConstraint("id"), Index(None, "comparison_id", "person", "number"))
    number: Mapped[int] = mapped_column(SERIAL, primary_key=True)
    id: Mapped[str] = mapped_column(ID)
    comparison_id: Mapped[int] = mapped_column(ForeignKey("comparisons.id"))
    pair_id: Mapped[str] = mapped_column(ForeignKey("pairs.id"), index=True)
    question: Mapped[str] = mapped_column(String(40))
    person: Mapped[str] = mapped_column(WORDS)
    choice: Mapped[str] = mapped_column(String(8))
    won: Mapped[str | None] = mapped_column(String(8))
    at: Mapped[float]
    undoes: Mapped[str | None] = mapped_column(ID)
    form: Mapped[str] = mapped_column(WORDS)
