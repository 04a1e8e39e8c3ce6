"""From and to an object store: an S3-speaking server on loopback. Needs the extra `s3`, and is heavy."""

from __future__ import annotations

import os
import time

import pytest

pytest.importorskip("torch")
moto = pytest.importorskip("moto.server", reason="needs pip install 'rushes[s3]'")

import pyarrow.fs as pafs  # noqa: E402

from rushes.curation.manifest import open_run, resolve  # noqa: E402
from rushes.model import checkpoint as checkpoints  # noqa: E402
from rushes.model.data import DataOptions, Loader  # noqa: E402
from rushes.model.train import train_dit  # noqa: E402
from tests.model.small_run import dit_recipe, film_run, losses  # noqa: E402

STEP_S = 2.0  # of the model that the loader is read for
STEPS = 12


@pytest.fixture(scope="module")
def bucket():
    """s3://films on a server of this process."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    known = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**known, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
            patch.setenv(name, value)
        pafs.S3FileSystem(endpoint_override=f"{host}:{port}", scheme="http", allow_bucket_creation=True).create_dir(
            "films"
        )
        yield "s3://films"
    server.stop()


@pytest.fixture(scope="module")
def remote_run(bucket, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    local = film_run(folder)
    fs, path = resolve(f"{bucket}/run")
    for where, _, names in os.walk(os.path.realpath(local)):
        for name in names:
            here = os.path.join(where, name)
            with open(here, "rb") as source, fs.open_output_stream(f"{path}/{os.path.relpath(here, folder)}") as target:
                target.write(source.read())
    return f"{bucket}/run", local


@pytest.mark.heavy
def test_a_model_does_not_wait_for_clips_from_an_object_store(remote_run):
    run, _ = remote_run
    assert open_run(run).table("sets/pretrain-256").num_rows
    found = Loader([run], DataOptions(batch=4, frames_max=8, workers=2, prefetch=4))
    waited, before = [], time.perf_counter()
    for _ in found.batches(range(STEPS)):
        waited.append(time.perf_counter() - before)
        time.sleep(STEP_S)
        before = time.perf_counter()
    share = sum(waited[1:]) / (STEP_S * (STEPS - 1))
    print(f"waiting for data: {share:.2%} of {STEPS - 1} steps of {STEP_S} s, the first batch {waited[0]:.2f} s")
    assert share < 0.02 and not found.failures


@pytest.mark.heavy
def test_a_training_reads_from_and_writes_to_an_object_store_as_to_a_disk(remote_run, bucket, small_tae, tmp_path):
    run, local = remote_run
    recipe = dit_recipe(steps=4)
    shorter = recipe.model_copy(update={"stages": (recipe.stages[0].model_copy(update={"steps": 2}),)})
    for which in (shorter, recipe):
        assert train_dit(which, [run], f"{bucket}/dit", small_tae, lambda _: None)
    assert train_dit(recipe, [local], str(tmp_path / "dit"), small_tae, lambda _: None)
    fs, path = resolve(f"{bucket}/dit/log.jsonl")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "log.jsonl").write_bytes(fs.open_input_stream(path).read())
    assert losses(tmp_path / "away") == losses(tmp_path / "dit")
    there, here = (
        checkpoints.read_weights(checkpoints.open_checkpoint(o)) for o in (f"{bucket}/dit", tmp_path / "dit")
    )
    assert all((there[name] == value).all() for name, value in here.items())
