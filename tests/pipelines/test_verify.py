"""`rushes verify` finds every file that is not what the run says, and the command that it names makes it anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rushes.curation.manifest import open_run
from rushes.pipelines.verify import cure, verify
from tests.conftest import curate_here


@pytest.fixture(scope="module")
def copied(curated, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("verified") / "run"
    shutil.copytree(curated.root, root, symlinks=True)
    return root


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_a_whole_run_has_nothing_damaged(copied):
    checked = verify(open_run(str(copied)))
    assert not checked.damages
    assert {"table", "clip", "record"} <= checked.counts.keys()


def test_every_kind_of_damage_is_found_and_curating_again_heals_the_clips(copied, curated):
    run = open_run(str(copied))
    media = [copied / m for m in run.table("clips")["media"].to_pylist() if m]
    assert len(media) >= 3
    whole = {path: path.read_bytes() for path in media}
    flipped(media[0], 2000)
    media[1].write_bytes(whole[media[1]][:-300])
    media[2].write_bytes(whole[media[0]])
    found = {copied / damage.path: damage.what for damage in verify(run).damages}
    assert found.keys() == set(media[:3])
    assert found[media[0]] == "some of its bytes have changed"
    assert len(verify(run, quick=True).damages) == 2, "flipped bits are for the thorough look"
    curate_here(curated.inputs, copied)
    assert [damage.what for damage in verify(open_run(str(copied))).damages] == ["some of its bytes have changed"]
    media[0].unlink()
    assert [damage.what for damage in verify(run).damages] == ["missing"]
    curate_here(curated.inputs, copied)
    assert not verify(open_run(str(copied))).damages
    assert {path: path.read_bytes() for path in media} == whole


def test_damaged_tables_and_records_are_found(copied):
    run = open_run(str(copied))
    table = copied / run.record["tables"]["clips"]["files"][0]
    record = next((copied / "work").rglob("*.parquet"))
    before = {path: path.read_bytes() for path in (table, record)}
    for damage in (lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PAR1 and no more PAR1"):
        for path in (table, record):
            path.write_bytes(damage(before[path]))
        assert {(d.kind, copied / d.path) for d in verify(run).damages} >= {("table", table), ("record", record)}
    table.unlink()
    assert ("table", "missing") in {(d.kind, d.what) for d in verify(run).damages}
    assert f"--output {copied}" in cure(run, verify(run).damages)
    for path, data in before.items():
        path.write_bytes(data)


def test_a_changed_byte_of_a_table_is_found_or_changes_no_value(copied):
    run = open_run(str(copied))
    table = copied / run.record["tables"]["sources"]["files"][0]
    data, values = table.read_bytes(), run.table("sources")
    found = 0
    for at in range(8, len(data) // 2, max(1, len(data) // 40)):
        flipped(table, at)
        damaged = any(d.kind == "table" for d in verify(run, quick=True).damages)
        assert damaged or run.table("sources").equals(values)
        found += damaged
        table.write_bytes(data)
    assert found > 8
