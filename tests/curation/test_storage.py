"""Files appear whole or not at all, on a disk and on what behaves as an object store: a closed stream is published."""

from __future__ import annotations

import io
import json
import time

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from rushes.curation import manifest, storage
from rushes.curation.manifest import ManifestError, Snapshot, open_run, publish, publish_files
from rushes.curation.storage import DamagedFile, StorageError


@pytest.fixture
def store(monkeypatch) -> pafs.FileSystem:
    """An object store in memory: `bucket/...` at mem://, every object published when its stream is closed."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    fs = pafs.PyFileSystem(pafs.FSSpecHandler(memory))
    real = storage.resolve

    def resolve(uri):
        return (fs, str(uri).removeprefix("mem://")) if str(uri).startswith("mem://") else real(uri)

    monkeypatch.setattr(storage, "resolve", resolve)
    monkeypatch.setattr(manifest, "resolve", resolve)
    return fs


@pytest.fixture(params=["disk", "store"])
def root(request, tmp_path) -> str:
    if request.param == "disk":
        return str(tmp_path / "run")
    request.getfixturevalue("store")
    return "mem://bucket/run"


def table(number: int) -> pa.Table:
    return pa.table({"n": pa.array(range(number), pa.int64())})


def test_a_generator_that_fails_half_way_leaves_no_file(root):
    def batches():
        yield table(3)
        raise ValueError("no more")

    uri = storage.join(root, "work", "record.parquet")
    with pytest.raises(ValueError, match="no more"):
        storage.write_batches(uri, table(0).schema, batches())
    assert not storage.exists(uri)


@pytest.mark.parametrize("size", [10, storage.ONE_REQUEST + 1])
def test_what_is_written_is_there_whole(root, size):
    uri = storage.join(root, "file")
    storage.write_bytes(uri, b"x" * size)
    assert storage.read_bytes(uri) == b"x" * size and storage.size(uri) == size
    assert [info.base_name for info in storage.listing(root)] == ["file"], "nothing else is left beside it"


def test_an_upload_that_breaks_off_never_has_the_final_name(store):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 0:
                raise ConnectionError("the disk went away")
            return super().read(1 << 20)

    with pytest.raises(ConnectionError):
        storage.upload(store, Broken(b"x" * (4 << 20)), "bucket/large")
    assert store.get_file_info("bucket/large").type == pafs.FileType.NotFound


def test_a_file_that_was_cut_short_or_has_other_bytes_is_damaged_and_one_that_is_away_is_not(tmp_path):
    uri = str(tmp_path / "t.parquet")
    storage.write_table(uri, pa.table({"n": list(range(5000)), "s": ["word"] * 5000}))
    whole = (tmp_path / "t.parquet").read_bytes()
    for wrong in (whole[:1000], whole[:200] + bytes([whole[200] ^ 255]) + whole[201:], b""):
        (tmp_path / "t.parquet").write_bytes(wrong)
        with pytest.raises(DamagedFile, match=r"t\.parquet is damaged"):
            storage.read_table(uri)
    (tmp_path / "t.parquet").unlink()
    with pytest.raises(FileNotFoundError):
        storage.read_table(uri)


def test_a_lock_is_refused_while_another_holds_it_and_a_lease_that_ran_out_is_not_in_the_way(root, monkeypatch):
    monkeypatch.setattr(storage, "SETTLE_S", 0.01)
    with (
        storage.lock(root),
        pytest.raises(StorageError, match="Another rushes process is writing"),
        storage.lock(root),
    ):
        pass
    with storage.lock(root):
        pass
    if root.startswith("mem:"):
        storage.write_bytes(storage.join(root, ".lock"), json.dumps({"by": "dead", "until": time.time() - 1}).encode())
        with storage.lock(root):
            pass


def test_publishing_names_its_parent_and_is_refused_when_that_is_no_longer_current(root):
    first = publish(root, {"clips": table(1)}, {})
    mine = Snapshot.begin(root)
    files = {"clips": mine.write("clips", table(2))}
    publish(root, {"clips": table(3)}, {})
    with pytest.raises(ManifestError, match="was published by another process meanwhile"):
        publish_files(mine, files, {}, first.snapshot)
    assert open_run(root).table("clips").num_rows == 3


def test_an_interrupted_publication_evicts_no_snapshot_that_a_reader_has_open(root):
    publish(root, {"clips": table(1)}, {})
    reader = open_run(root)
    for _ in range(3):  # killed before run.json
        Snapshot.begin(root).write("clips", table(9))
    publish(root, {"clips": table(2)}, {})
    assert reader.table("clips").num_rows == 1
    publish(root, {"clips": table(3)}, {})
    assert len(storage.folders(storage.join(root, "snapshots"))) == manifest.SNAPSHOTS_KEPT


def test_files_of_an_older_snapshot_stay_while_a_newer_one_lists_them(root):
    old = publish(root, {"clips": table(1), "embeddings": table(7)}, {})
    for number in (2, 3, 4):
        snapshot = Snapshot.begin(root)
        files = {"clips": snapshot.write("clips", table(number)), "embeddings": open_run(root).entry("embeddings")}
        publish_files(snapshot, files, {}, open_run(root).snapshot)
    run = open_run(root)
    assert run.files("embeddings") == old.files("embeddings") and run.table("embeddings").num_rows == 7
