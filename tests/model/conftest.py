"""A small run and an autoencoder trained on it for a moment, shared by the trainer's tests."""

from __future__ import annotations

import io

import pytest

from tests.model.small_run import film_run, tae_recipe, two_views


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> str:
    return film_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="session")
def small_tae(small_run, tmp_path_factory) -> str:
    """Output of a TAE trained for two steps."""
    torch = pytest.importorskip("torch")
    from rushes.model.train import train_tae

    torch.set_num_threads(1)
    output = str(tmp_path_factory.mktemp("tae"))
    assert train_tae(tae_recipe(steps=2), [small_run], output, lambda _: None)
    return output


@pytest.fixture(scope="session")
def small_latents(small_run, small_tae, tmp_path_factory) -> str:
    """The small run encoded, in float32."""
    from rich.console import Console

    from rushes.curation.sections import Engine
    from rushes.pipelines.encode import Options, encode

    root = str(tmp_path_factory.mktemp("latents"))
    options = Options("float32", stills=2, clips_per_file=3, engine=Engine(num_cpus=2))
    run, notes = encode(two_views(), [small_run], small_tae, root, [], options, Console(file=io.StringIO()))
    assert not notes
    return run.root
