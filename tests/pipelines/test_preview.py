"""`rushes preview`: the page shows the very clips of the first batches, and the text as the encoder will cut it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from typer.testing import CliRunner  # noqa: E402

from rushes.model.staging import loader_of  # noqa: E402
from rushes.pipelines.cli.main import app  # noqa: E402
from rushes.pipelines.train.preview import lines, preview, write_page  # noqa: E402
from tests.model.conftest import *  # noqa: E402, F403 - the small run
from tests.model.small_run import dit_recipe  # noqa: E402

torch.set_num_threads(1)


def test_what_is_shown_is_what_the_training_draws(small_run):
    recipe = dit_recipe(image_every=3)
    shown = list(preview(recipe, [small_run], each=2))
    assert {one.sample.frames.shape[0] for one in shown} == {1, 8}, "clips, and the frames of image batches"
    loader = loader_of([small_run], recipe, 0, 0, 1)
    for one in shown:
        (batch,) = loader.batches([one.step])
        assert np.array_equal(batch.samples[0].frames, one.sample.frames)
        assert batch.samples[0].clip_id == one.sample.clip_id


def test_the_text_is_shown_as_it_is_cut(small_run):
    cut = "text.encoders.bytes.max_tokens=12"
    video = next(iter(preview(dit_recipe(cut), [small_run], each=1)))
    assert len(video.texts[0].read) == 12 and video.texts[0].read.startswith("FPS-"), "12 bytes, the rate in front"
    assert video.texts[0].cut > 0 and f"{video.texts[0].cut} characters are not read" in lines(video)[1]
    image = next(iter(preview(dit_recipe(image_every=1), [small_run], each=1)))
    assert image.texts[0].read.startswith("Clip number") and image.texts[0].cut == 0


def test_the_page_needs_nothing_beside_it(small_run, tmp_path):
    page = tmp_path / "page.html"
    assert write_page(dit_recipe(), [small_run], str(page)) == 2
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 2 and "http" not in text


def test_the_command_names_what_is_wrong(small_run, tmp_path):
    found = CliRunner().invoke(app, ["preview", small_run, "-r", "dit-tiny", "-o", str(tmp_path / "p.html"),
                                     "--set", "stages.all.set=nothing"])  # fmt: skip
    assert found.exit_code == 2 and "no set 'nothing'" in found.output + found.stderr
