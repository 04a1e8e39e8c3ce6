"""The same on PostgreSQL: a server of this test's own, where one is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rushes.pipelines.review import forms
from rushes.pipelines.review.compare import Compared, create
from rushes.pipelines.review.database import Reviews, ReviewsAway
from rushes.pipelines.review.tables import Base
from tests.pipelines.review.conftest import Desk, new_id

pytestmark = pytest.mark.heavy
pytest.importorskip("psycopg", reason="the extra `postgres`")
FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if os.path.isdir("/usr/lib/postgresql") else []


def as_owner(*command: str) -> None:
    """PostgreSQL does not run as root."""
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    subprocess.run([*user, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Path, str]]:
    """(address, data folder, folder of the programs)."""
    if not FOLDERS or (os.geteuid() == 0 and shutil.which("runuser") is None):
        pytest.skip("PostgreSQL is not installed")
    programs = str(FOLDERS[-1])
    folder = Path(tempfile.mkdtemp(prefix="rushes-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    as_owner(f"{programs}/initdb", "-D", str(data), "-A", "trust", "-U", "rushes", "--no-sync")
    with open(folder / "options", "w") as options:
        options.write(f"-p {port} -c listen_addresses=127.0.0.1 -k {folder}")
    start = [f"{programs}/pg_ctl", "-D", str(data), "-w", "-o", (folder / "options").read_text(), "-l", f"{folder}/log"]
    as_owner(*start, "start")
    try:
        yield f"postgresql+psycopg://rushes@127.0.0.1:{port}/postgres", data, programs
    finally:
        subprocess.run(["runuser", "-u", "postgres", "--", f"{programs}/pg_ctl", "-D", str(data), "-m", "immediate",
                        "stop"] if os.geteuid() == 0 else [f"{programs}/pg_ctl", "-D", str(data), "-m", "immediate",
                        "stop"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def desk(server) -> Iterator[Desk]:
    found = Desk(Reviews(server[0]))
    with found.reviews.writing() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())
    found.fill()
    yield found
    found.reviews.close()


def test_the_migrations_make_the_tables_that_the_code_declares(desk: Desk):
    with desk.reviews.reading() as session:
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []


def test_eight_at_once_are_given_different_clips_and_every_decision_is_kept_once(desk: Desk):
    said, errors = [], []

    def work(person: str) -> None:
        try:
            items = desk.queue.lease(person, 2).items
            while items:
                form = desk.form(items[0].clip_id, next=2)
                answers = [desk.queue.decide(person, form) for _ in range(2)]
                assert answers[1].again
                said.append((form.id, form.clip_id))
                items = answers[1].items
        except Exception as error:
            errors.append(error)

    people = [threading.Thread(target=work, args=(f"person-{n}",)) for n in range(8)]
    for one in people:
        one.start()
    for one in people:
        one.join()
    assert errors == []
    total, rows = desk.queue.decisions(0, 100)
    assert total == 40 == len({row.clip_id for row in rows}) and {(row.id, row.clip_id) for row in rows} == set(said)


def test_undo_ties_and_votes_work_alike(desk: Desk, tmp_path):
    desk.fill(reviewers=2)
    for person, verdict in (("ann", "accept"), ("bob", "reject"), ("cid", "accept")):
        assert desk.lease(person)[0] == "clip-00"
        desk.decide(person, "clip-00", verdict)
    assert desk.state("clip-00") == "accepted"
    assert desk.undo("cid").items[0].clip_id == "clip-00" and desk.queue.progress().disputed == 1
    for model in ("a", "b"):
        (tmp_path / model).mkdir()
        (tmp_path / model / "1.mp4").write_bytes(b"x")
    sides = {side: {"model": side, "folder": str(tmp_path / side)} for side in "ab"}
    create(desk.reviews, forms.ComparisonForm(name="one", raters=1, questions=["quality"], **sides))
    asked = Compared(desk.reviews, "one").next("ann", 1).pairs[0]
    vote = forms.VoteForm(id=new_id(), pair=asked.pair, question="quality", choice="tie")
    assert Compared(desk.reviews, "one").vote("ann", vote).left == 0
    assert Compared(desk.reviews, "one").results().questions[0].ties == 1


def test_a_server_that_stops_is_told_and_works_again_when_it_is_back(desk: Desk, server):
    _, data, programs = server
    options = (data.parent / "options").read_text()
    desk.lease("ann")
    form = desk.form("clip-00")
    as_owner(f"{programs}/pg_ctl", "-D", str(data), "-m", "fast", "-w", "stop")
    try:
        with pytest.raises(ReviewsAway, match="send it again"):
            desk.queue.decide("ann", form)
    finally:
        as_owner(f"{programs}/pg_ctl", "-D", str(data), "-w", "-o", options, "-l", f"{data.parent}/log", "start")
    assert not desk.queue.decide("ann", form).again
