"""What is known of inputs: from the record, where they are as they were and the record is this program's."""

from __future__ import annotations

from rushes.curation import recipe, storage
from rushes.pipelines.stages.worker import Worker
from tests.footage import make_video


def test_inputs_are_probed_again_where_the_record_is_of_another_version(tmp_path):
    path, record = make_video(tmp_path / "a.mp4", seconds=0.5), str(tmp_path / "record.parquet")
    worker = Worker(recipe.load("demo"), str(tmp_path / "run"))
    first = worker.probe([str(path)], record)
    whole = storage.read_table(record)
    before = (tmp_path / "record.parquet").stat().st_mtime_ns
    assert worker.probe([str(path)], record) == first
    assert (tmp_path / "record.parquet").stat().st_mtime_ns == before  # nothing was probed, nothing written
    storage.write_table(record, whole.drop_columns(["hdr"]))
    assert worker.probe([str(path)], record) == first and storage.read_table(record).equals(whole)
