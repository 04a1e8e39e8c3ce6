"""Fixtures of the whole suite: footage, and one curated run that many tests look at (a run costs seconds)."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes fill two cores; their threads would only wait

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rushes.curation.manifest import Run
from rushes.pipelines.demo.pool import PoolFile
from tests.footage import bad_inputs, bunny_video, pool  # noqa: F401 - fixtures

#: Every run of the tests is the demo recipe without the reading of text, which has tests of its own and is slow.
QUICK = (
    "visual.text=false", "cut.preset=ultrafast", "engine.num_cpus=2", "engine.error_budget=1",
    "curriculum.sets.pretrain-256.landscape=[0.5, 1]",  # filled whichever source is held out for validation
)  # fmt: skip
CURATED = ("hard_cuts.mp4", "dissolve.mp4", "landscape.mp4", "near_duplicate.mp4", "portrait.mp4", "not_a_video.mp4")
TWIN, MISSING = "the same content.mp4", "missing.mp4"
NO_ADDRESS = "nosuch://bucket/nowhere.mp4"  # in a list of inputs: its own fault, and no other's


@dataclass(frozen=True)
class Curated:
    """A finished run, what it was made from, and the films by their file's name."""

    run: Run
    inputs: list[str]
    films: dict[str, PoolFile]

    @property
    def root(self) -> Path:
        return Path(self.run.root)


def curate_here(inputs: list[str], root: Path, *overrides: str) -> Run:
    """Curate in this process: Ray is started once for all tests that do."""
    import io

    from rich.console import Console

    from rushes.curation import recipe
    from rushes.pipelines.curate import curate

    resolved = recipe.load("demo", [*QUICK, *overrides])
    return curate(resolved, inputs, str(root), Console(file=io.StringIO())).run


@pytest.fixture(scope="session")
def footage_folder(pool, tmp_path_factory) -> tuple[Path, dict[str, PoolFile]]:  # noqa: F811
    """Some films of the pool, one of them under two names, and a list that names two that are not there."""
    folder = tmp_path_factory.mktemp("footage")
    films = {}
    for film in pool:
        if film.path.name in CURATED:
            shutil.copyfile(film.path, folder / film.path.name)
            films[film.path.name] = film
    shutil.copyfile(folder / "portrait.mp4", folder / TWIN)
    (folder / "more.txt").write_text(f"# relative to this list\n{MISSING}\n{NO_ADDRESS}\n", encoding="utf-8")
    return folder, films


@pytest.fixture(scope="session")
def curated(footage_folder, tmp_path_factory) -> Iterator[Curated]:
    """The run that the other tests compare with: uninterrupted, two workers."""
    folder, films = footage_folder
    inputs = [str(folder), str(folder / "more.txt")]
    yield Curated(curate_here(inputs, tmp_path_factory.mktemp("runs") / "curated"), inputs, films)


@pytest.fixture(scope="session", autouse=True)
def _ray_ends() -> Iterator[None]:
    yield
    import sys

    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
