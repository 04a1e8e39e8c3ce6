"""The reviews' database: SQLite beside the runs, or PostgreSQL by URL; migrated when it is first opened."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from rushes.pipelines.review.tables import Base

FILE = "reviews.sqlite"
STATE_FOLDER = ".service"  # below the runs: the databases of jobs and reviews, jobs' input lists and logs
BUSY_MS = 20_000  # how long a writer waits for another
POOL, POOL_WAIT_S = 8, 30  # connections; seconds that a request waits for one
CONNECT_S = 5
MIGRATIONS = str(Path(__file__).parent / "migrations")
MIGRATION_LOCK = 0x52757368  # a number of ours for PostgreSQL's advisory lock


class ReviewError(ValueError):
    """Something that cannot be done with reviews: one sentence. code: as docs/studio.md lists them."""

    def __init__(self, sentence: str, code: str | None = None) -> None:
        super().__init__(sentence)
        self.code = code


class Missing(ReviewError):
    """There is no such queue, clip or comparison."""


class Conflict(ReviewError):
    """Somebody else was there first."""


class ReviewsAway(RuntimeError):
    """The database does not answer: one sentence. What was sent can be sent again."""


def default_url(runs: str | os.PathLike[str]) -> str:
    """The SQLite file of a folder of runs."""
    return f"sqlite:///{os.path.join(os.path.abspath(runs), STATE_FOLDER, FILE)}"


class Reviews:
    """`with reviews.writing() as session` is one transaction: all of it is kept, or nothing.

    Opening connects to nothing; the first use does, and brings the tables up to date.
    """

    def __init__(self, url: str) -> None:
        try:
            self.url = sa.make_url(url)
            self._engine = _engine(self.url)
        except (SQLAlchemyError, ImportError) as error:
            raise ReviewError(
                f"'{url.rpartition('@')[2]}' is no database address that can be used ({_first(error)}): write "
                f"sqlite:///FILE, or postgresql+psycopg://USER:PASSWORD@HOST/NAME with the package psycopg installed."
            ) from error
        self._ready, self._lock = False, threading.Lock()

    @property
    def where(self) -> str:
        """The address without a password."""
        return self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """Raises ReviewsAway."""
        with self._answering():
            self._prepare()
            with Session(self._engine) as session:
                yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """Raises ReviewsAway: then nothing was kept, or the answer was lost and the same id finds it."""
        with self._answering():
            self._prepare()
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                if self._engine.dialect.name == "sqlite":
                    session.execute(sa.text("BEGIN IMMEDIATE"))
                yield session

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sa.exc.TimeoutError, OSError) as error:
            if isinstance(error, sa.exc.IntegrityError):
                raise
            raise ReviewsAway(
                f"The reviews' database {self.where} does not answer ({_first(error)}): what was sent is not kept; "
                f"send it again."
            ) from error

    def _prepare(self) -> None:
        with self._lock:
            if self._ready and not self._vanished():
                return
            if self.url.get_backend_name() == "sqlite" and self.url.database:
                os.makedirs(os.path.dirname(self.url.database) or ".", mode=0o700, exist_ok=True)
            migrate(self._engine)
            self._ready = True

    def _vanished(self) -> bool:
        """A SQLite file that was taken away: connections would go on writing into a file without a name."""
        if self.url.get_backend_name() != "sqlite" or os.path.exists(self.url.database or ""):
            return False
        self._engine.dispose()
        raise OSError("its file is gone: put it back, or start the service again to begin a new one")


def migrate(engine: sa.Engine) -> None:
    """Bring the tables to this release's form; two processes that open a new database wait for each other."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", MIGRATIONS.replace("%", "%%"))
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(sa.text("BEGIN IMMEDIATE"))
        else:
            connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(
            url, pool_size=POOL, max_overflow=0, pool_timeout=POOL_WAIT_S, pool_pre_ping=True,
            connect_args={"connect_timeout": CONNECT_S},
        )  # fmt: skip
    engine = sa.create_engine(
        url, poolclass=sa.pool.QueuePool, pool_size=POOL, max_overflow=0, pool_timeout=POOL_WAIT_S,
        connect_args={"timeout": BUSY_MS / 1000, "isolation_level": None, "check_same_thread": False},
    )  # fmt: skip

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, record: Any) -> None:
        """WAL: readers and a writer at once. FULL: what was answered is on the disk, also after a power cut."""
        for pragma in (f"busy_timeout = {BUSY_MS}", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _first(error: BaseException) -> str:
    inner = getattr(error, "orig", None) or error
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0].rstrip(".")


__all__ = ["Base", "Conflict", "Missing", "ReviewError", "Reviews", "ReviewsAway", "default_url", "migrate"]
