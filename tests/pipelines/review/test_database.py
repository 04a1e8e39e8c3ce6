"""The database: made by migrations, away and back, wrong addresses."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rushes.pipelines.review.database import ReviewError, Reviews, ReviewsAway
from rushes.pipelines.review.filling import fill
from rushes.pipelines.review.tables import Base
from tests.pipelines.review.conftest import SETTINGS, Desk


def test_the_migrations_make_the_tables_that_the_code_declares(desk: Desk):
    with desk.reviews.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
        assert session.scalar(sa.text("PRAGMA journal_mode")) == "wal"


def test_a_database_that_is_away_is_told_and_works_again_when_it_is_back(tmp_path):
    desk = Desk(Reviews(f"sqlite:///{tmp_path}/reviews.sqlite"))
    desk.fill()
    desk.lease("ann")
    form = desk.form("clip-00")
    for name in ("reviews.sqlite", "reviews.sqlite-wal", "reviews.sqlite-shm"):
        if (tmp_path / name).exists():
            (tmp_path / name).rename(tmp_path / f"away-{name}")
    with pytest.raises(ReviewsAway, match="send it again"):
        desk.queue.decide("ann", form)
    for path in tmp_path.glob("away-*"):
        path.rename(tmp_path / path.name.removeprefix("away-"))
    assert not desk.queue.decide("ann", form).again
    assert desk.queue.decide("ann", form).again


def test_a_transaction_that_breaks_keeps_nothing(desk: Desk):
    class Broken(RuntimeError):
        pass

    with pytest.raises(Broken), desk.reviews.writing() as session:
        session.execute(sa.text("UPDATE items SET state = 'accepted'"))
        raise Broken
    assert desk.queue.progress().accepted == 0


@pytest.mark.parametrize("url", ["nonsense", "nosuch://host/x", "postgresql+nosuch://h/x"])
def test_an_address_that_is_none_is_told_with_the_form_of_one(url):
    with pytest.raises(ReviewError, match="sqlite:///FILE"):
        Reviews(url)


def test_a_server_that_is_not_there_is_told_without_the_password():
    pytest.importorskip("psycopg")
    away = Reviews("postgresql+psycopg://me:secret@127.0.0.1:9/none")
    with pytest.raises(ReviewsAway) as told, away.reading():
        pass
    assert "secret" not in str(told.value) and "127.0.0.1" in str(told.value)


def test_a_queue_whose_name_is_a_script_is_refused(desk: Desk):
    with pytest.raises(ReviewError, match="letters, digits"):
        fill(desk.reviews, "first", "<script>alert(1)</script>", "000001-a", SETTINGS, [])
