"""Tables appear whole or not at all, and a reader keeps the snapshot that it opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pyarrow as pa
import pytest

from rushes.curation import manifest
from rushes.curation.manifest import ManifestError, open_run, publish


def tables(value: int) -> dict[str, pa.Table]:
    return {"clips": pa.table({"n": [value]}), "sets/one": pa.table({"n": [value, value]})}


def test_a_published_table_is_read_back(tmp_path):
    run = publish(str(tmp_path), tables(1), {"note": "kept"})
    assert open_run(str(tmp_path)).record == run.record
    assert run.record["note"] == "kept" and run.tables == ["clips", "sets/one"]
    assert run.table("sets/one", ["n"])["n"].to_pylist() == [1, 1]


def test_a_reader_keeps_its_snapshot_while_the_next_one_is_published(tmp_path):
    old = publish(str(tmp_path), tables(1), {})
    publish(str(tmp_path), tables(2), {})
    assert old.table("clips")["n"].to_pylist() == [1]
    assert open_run(str(tmp_path)).table("clips")["n"].to_pylist() == [2]


def test_a_publication_that_fails_leaves_the_last_one_and_no_rubbish(tmp_path, monkeypatch):
    publish(str(tmp_path), tables(1), {})
    before = sorted(p.name for p in (tmp_path / "snapshots").iterdir())
    real = os.replace

    def full(temporary, path):
        if "sets" in path:
            raise OSError(28, "No space left on device")
        real(temporary, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(manifest.DiskFull, match="No space is left"):
        publish(str(tmp_path), tables(2), {})
    assert open_run(str(tmp_path)).table("clips")["n"].to_pylist() == [1]
    assert sorted(p.name for p in (tmp_path / "snapshots").iterdir()) == before


def test_a_write_that_fails_leaves_neither_the_file_nor_its_half(tmp_path, monkeypatch):
    def fails(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(manifest.DiskFull):
        manifest.write_bytes(str(tmp_path / "a" / "record"), b"x" * 100)
    assert not list((tmp_path / "a").iterdir())


def test_an_unknown_table_or_column_is_answered_with_the_nearest(tmp_path):
    run = publish(str(tmp_path), {"clips": pa.table({"vmaf_motion": [1.0]})}, {})
    with pytest.raises(ManifestError, match="did you mean 'clips'"):
        run.table("clip")
    with pytest.raises(ManifestError, match="did you mean 'vmaf_motion'"):
        run.table("clips", ["vmaf_moton"])


def test_nothing_published_is_nothing_visible(tmp_path):
    manifest.write_table(
        str(tmp_path / "snapshots" / "000001-abc" / "clips" / "part-00000.parquet"), tables(1)["clips"]
    )
    with pytest.raises(ManifestError, match=r"it has no run\.json"):
        open_run(str(tmp_path))
    (tmp_path / "work").mkdir()
    with pytest.raises(ManifestError, match="has not finished"):
        open_run(str(tmp_path))


def test_a_record_of_another_version_is_refused(tmp_path):
    publish(str(tmp_path), tables(1), {})
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**record, "schema_version": 99}))
    with pytest.raises(ManifestError, match="manifest version 99"):
        open_run(str(tmp_path))


def test_the_lock_of_a_folder_goes_with_its_process(tmp_path):
    code = (
        "import os, sys\nfrom rushes.curation import manifest\n"
        "with manifest.lock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)  # fmt: skip
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ManifestError, match="Another rushes process"), manifest.lock(str(tmp_path)):
        pass
    holder.kill()
    holder.communicate()
    with manifest.lock(str(tmp_path)):
        pass


def test_file_uris_and_paths_name_the_same_place(tmp_path):
    manifest.write_table(f"file://{tmp_path}/t.parquet", tables(3)["clips"])
    assert manifest.read_table(str(tmp_path / "t.parquet"))["n"].to_pylist() == [3]
    with pytest.raises(ManifestError, match=r"no address that pyarrow\.fs can open"):
        manifest.resolve("nosuch://bucket")
