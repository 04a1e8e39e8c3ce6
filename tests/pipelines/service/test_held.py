"""Columns that are held: read once however many ask, told while they are read, and errors are sentences."""

from __future__ import annotations

import asyncio
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rushes.curation.manifest import ManifestError, open_run
from rushes.pipelines.service import held as holding
from rushes.pipelines.service.held import Held
from rushes.pipelines.view.what_if import WhatIf
from tests.pipelines.synthetic_run import make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held")
    return [make_run(folder / f"run-{number}", clips=60, seed=number) for number in range(3)]


@pytest.fixture
def slow(monkeypatch):
    """Readings of run-0 stop after their first step until the event is set; the list has an entry for each begun."""
    going, began, reading = threading.Event(), [], WhatIf.reading

    def step_by_step(self, first=None):
        began.append(self)
        for number, share in enumerate(reading(self, first)):
            if number and self.held.run.root.endswith("run-0"):
                going.wait(10)
            yield share

    monkeypatch.setattr(WhatIf, "reading", step_by_step)
    yield going, began
    going.set()


def test_a_snapshot_is_read_once_and_another_does_not_wait_for_it(runs, slow):
    going, began = slow
    held = Held()
    slow_one = held.reading(runs[0])
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: held.of(runs[1]), range(8)))
    assert len({id(one) for one in found}) == 1 and len(began) == 2
    assert not slow_one.whole.done()
    going.set()
    assert slow_one.whole.result(10).rows == 60


def test_who_comes_first_is_told_what_is_there(runs, slow, monkeypatch):
    going, _ = slow
    monkeypatch.setattr(holding, "PATIENCE_S", 0.01)
    held = Held()
    first = asyncio.run(held.soon(runs[0], "vmaf_motion"))
    told = first.board()
    assert 0 < told["reading"]["share"] < 1 and "60 clips" in told["reading"]["sentence"]
    assert told["charts"]["vmaf_motion"]["inside"] and told["charts"]["mv_mean"] is None
    going.set()
    held.of(runs[0])
    assert asyncio.run(held.soon(runs[0], None)) is None


def test_the_one_not_asked_for_longest_gives_way(runs, slow):
    going, began = slow
    held = Held()
    readings = [held.reading(run) for run in runs]
    going.set()
    assert [reading.given_up for reading in readings] == [True, False, False]
    with pytest.raises(ManifestError, match="ask again"):
        readings[0].whole.result(10)
    assert held.of(runs[0]).rows == 60 and len(began) == 4


def test_a_table_that_is_gone_is_a_sentence_and_may_come_back(runs, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(runs[0].root, root, symlinks=True)
    run = open_run(str(root))
    (root / "snapshots").rename(root / "away")
    held = Held()
    with pytest.raises(ManifestError, match="cannot be read"):
        held.of(run)
    (root / "away").rename(root / "snapshots")
    assert held.of(run).rows == 60
