"""A studio that is served for real, over made films in which every frame shows its own number, and a browser."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the extra `serve`")

from rushes.curation import manifest
from rushes.pipelines.review import compare
from rushes.pipelines.review.database import Reviews
from rushes.pipelines.review.filling import NewItem, fill
from rushes.pipelines.review.forms import ComparisonForm, SamplesOf
from rushes.pipelines.service.app import create_app
from rushes.pipelines.service.settings import settings
from tests.pipelines.synthetic_run import film_stills, make_run

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BITS = 12  # stripes of a frame, a bit of its number each
RATES = {"23.976": Fraction(24000, 1001), "25": Fraction(25), "59.94": Fraction(60000, 1001), "variable": None}
FRAMES = 96
SETTINGS = {
    "reasons": ["angle", "light", "colour", "motion", "subject"], "reviewers": 1, "span": {"min_s": 0.1, "max_s": 60.0},
    "lease_s": 600.0, "break_after_s": 3000.0,
}  # fmt: skip


@dataclass
class Studio:
    """address: of the service. run: the one with films. films: rate by clip. A page for each test."""

    address: str
    folder: Path
    run: manifest.Run
    films: dict[str, str] = field(default_factory=dict)

    def comparison(self, name: str) -> str:
        """A comparison of the two folders of samples, by its name."""
        reviews = Reviews(f"sqlite:///{self.folder}/state/reviews.sqlite")
        sides = {side: SamplesOf(model=side, folder=str(self.folder / "samples" / side)) for side in "ab"}
        compare.create(reviews, ComparisonForm(name=name, **sides))
        reviews.close()
        return name

    def queue(self, name: str, clips: list[str] | None = None, **more: object) -> str:
        """A queue of these clips (all that have films); its address in the studio."""
        reviews = Reviews(f"sqlite:///{self.folder}/state/reviews.sqlite")
        rates = [(clip, RATES[self.films[clip]] or Fraction(25)) for clip in clips or list(self.films)]
        items = [NewItem(clip, FRAMES, float(fps), 192, 108, rank=float(at)) for at, (clip, fps) in enumerate(rates)]
        fill(reviews, "films", name, self.run.snapshot, {**SETTINGS, **more}, items)
        reviews.close()
        return f"/review/films/{name}"


def write_film(path: Path, rate: Fraction | None) -> None:
    """FRAMES frames, each with its number in stripes; rate None: distances of 20 to 60 ms."""
    rng = np.random.default_rng(5)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate or 25, options={"g": "12", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 192, 108, "yuv420p"
        base = Fraction(1, 1000) if rate is None else 1 / rate
        stream.codec_context.time_base = base
        at = 0
        for number in range(FRAMES):
            bits = [(number >> bit) & 1 for bit in range(BITS)]
            picture = np.repeat(np.array([[220 if bit else 30 for bit in bits]], np.uint8), 192 // BITS, axis=1)
            frame = av.VideoFrame.from_ndarray(np.repeat(picture, 108, axis=0), format="gray")
            frame.pts, frame.time_base = at, base
            container.mux(stream.encode(frame))
            at += int(rng.integers(20, 61)) if rate is None else 1
        container.mux(stream.encode())


@pytest.fixture(scope="package")
def studio(tmp_path_factory) -> Iterator[Studio]:
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve`")
    folder = tmp_path_factory.mktemp("studio")
    run = make_run(folder / "runs" / "films", stills=film_stills(8), concepts=12)
    make_run(folder / "runs" / "moved", seed=2)
    (folder / "runs" / "films" / "media").mkdir()
    made = {name: folder / f"{name}.mp4" for name in RATES}
    for name, path in made.items():
        write_film(path, RATES[name])
    films = {}
    rows = [row for row in run.table("clips", ["clip_id", "media"]).to_pylist() if row["media"]]
    for at, row in enumerate(rows):
        name = list(RATES)[at % len(RATES)]
        shutil.copyfile(made[name], folder / "runs" / "films" / row["media"])
        films[row["clip_id"]] = name
    for side in ("a", "b"):
        (folder / "samples" / side).mkdir(parents=True)
        for number in range(3):
            shutil.copyfile(made["25"], folder / "samples" / side / f"{number}.mp4")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    app = create_app(settings(str(folder / "runs"), roots=(str(folder),), state=str(folder / "state")))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield Studio(f"http://127.0.0.1:{port}", folder, run, films)
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="package")
def browser() -> Iterator[object]:
    api = pytest.importorskip("playwright.sync_api", reason="the extra `dev`")
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(BROWSERS)}")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(studio, browser) -> Iterator[object]:
    """A page of the studio; the test fails for an error that the page had."""
    context = browser.new_context(base_url=studio.address, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(20_000)
    found = context.new_page()
    errors: list[str] = []
    found.on("pageerror", lambda error: errors.append(str(error)))
    yield found
    context.close()
    assert errors == []
