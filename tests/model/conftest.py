"""A small run and an autoencoder trained on it for a moment, shared by the trainer's tests."""

from __future__ import annotations

import pytest

from tests.model.small_run import film_run, tae_recipe


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> str:
    return film_run(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="session")
def small_tae(small_run, tmp_path_factory) -> str:
    """Output of a TAE trained for two steps."""
    torch = pytest.importorskip("torch")
    from model.train import train_tae

    torch.set_num_threads(1)
    output = str(tmp_path_factory.mktemp("tae"))
    assert train_tae(tae_recipe(steps=2), [small_run], output, lambda _: None)
    return output
