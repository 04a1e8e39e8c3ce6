"""A run from and to an object store on its bad days: one request in twenty fails, answers are slow, it is away."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

pytest.importorskip("moto.server", reason="needs pip install 'rushes[s3]'")

from rushes.curation import storage
from tests.faults.runs import Published
from tests.faults.store import Store, in_environment
from tests.pipelines.commands import curate_command

ENDS_S = 280.0
AWAY_S = 60.0
MORE_REQUESTS = 1.1  # of a store that fails one in twenty, beside one that does not

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def store(footage_folder):
    """A bucket with some films in it."""
    folder, films = footage_folder
    with Store() as found, in_environment(found):
        for name in films:
            storage.write_bytes(found.address(f"footage/{name}"), (folder / name).read_bytes())
        yield found


def curate(store: Store, name: str, log: Path) -> Published:
    """A run of what is in the bucket into the bucket; what it published."""
    root = store.address(name)
    with open(log, "wb") as file:
        done = subprocess.run(
            curate_command([store.address("footage")], root), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            timeout=ENDS_S, env={**os.environ, **store.environment},
        )  # fmt: skip
    assert done.returncode == 0, log.read_text()[-2000:]
    return Published.of(root)


@pytest.fixture(scope="module")
def calm(store, tmp_path_factory) -> tuple[Published, int]:
    """An unbroken run, and its requests."""
    store.forget()
    published = curate(store, "calm", tmp_path_factory.mktemp("calm") / "log")
    return published, store.asked


def test_a_run_on_a_store_publishes_what_one_on_a_disk_does(calm, curated):
    published, asked = calm
    kept = [row["clip_id"] for row in published.tables["clips"].to_pylist() if row["kept"]]
    assert kept == [row["clip_id"] for row in curated.run.table("clips").to_pylist() if row["kept"]]
    print(f"{asked} requests for {len(published.tables['sources'])} sources and {len(kept)} clips")


def test_a_store_that_fails_one_request_in_twenty_costs_a_tenth_more_requests_and_no_row(store, calm, tmp_path):
    published, asked = calm
    store.forget()
    store.fails = 1 / 20
    try:
        again = curate(store, "failing", tmp_path / "log")
    finally:
        store.fails = 0.0
    print(f"{store.asked} requests, of which {store.failed} failed; {asked} without failures")
    assert store.failed > 0
    assert published.differs(again) == ""
    assert store.asked <= MORE_REQUESTS * asked


def test_a_slow_store_that_is_away_for_a_minute_costs_a_minute_and_no_row(store, calm, tmp_path):
    published, _ = calm
    store.slow_s = 0.2
    leaves = threading.Timer(12.0, store.away, [AWAY_S])
    leaves.start()
    try:
        again = curate(store, "away", tmp_path / "log")
    finally:
        leaves.cancel()
        store.slow_s = store.away_until = 0.0
    assert published.differs(again) == ""
