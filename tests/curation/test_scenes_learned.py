"""Claims about TransNetV2 behind the project's own call; real footage, its cuts known to the frame."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from rushes.curation import scenes_learned, tracks
from rushes.curation.analyze import Analyzer
from rushes.curation.observe import Observer
from rushes.curation.recipe import build
from rushes.curation.scenes_learned import SIZE, TransNet, cuts, shots
from rushes.curation.video.decode import probe
from tests.footage import decoded, timed_cuts


@pytest.fixture(scope="module")
def net():
    return TransNet()


def test_it_finds_known_hard_cuts(net, tmp_path):
    path = tmp_path / "cuts.mp4"
    known = [round(t * 24) for t in timed_cuts(path, (2.0, 4.0))]
    frames = np.stack([cv2.resize(f, SIZE, interpolation=cv2.INTER_AREA) for _, f in decoded(path)])
    found = [first for first, _ in cuts(net(frames))]
    assert len(found) == len(known) and max(abs(a - b) for a, b in zip(found, known)) <= 1


def test_it_leaves_the_state_of_the_process_alone():
    import torch

    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    TransNet()
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert not torch.are_deterministic_algorithms_enabled()


def test_shots_lie_between_transitions():
    scores = np.zeros(30, np.float32)
    scores[9] = 0.9  # the last frame before a cut
    scores[20:24] = 0.8  # a dissolve
    assert cuts(scores) == [(10, 10), (20, 24)]
    assert shots(scores) == [(0, 10), (10, 20), (24, 30)]


def test_frames_of_another_size_are_refused(net):
    with pytest.raises(ValueError, match=r"uint8 \[N, 27, 48, 3\]"):
        net(np.zeros((4, 48, 27, 3), np.uint8))
    assert len(net(np.zeros((0, 27, 48, 3), np.uint8))) == 0


# --- as the recipe's choice --------------------------------------------------------------------------------------

LEARNED = build({"scenes": {"detector": "transnetv2", "head_s": 0.0}})


def test_the_recipe_takes_its_shots_and_every_frame_has_a_score(tmp_path):
    known = [round(t * 24) for t in timed_cuts(tmp_path / "a.mp4", (2.0,))]
    analysis = Analyzer(LEARNED)(probe(str(tmp_path / "a.mp4")))
    assert len(analysis.tracks["transnet"]) == analysis.tracks.frames == 96
    assert np.isfinite(analysis.tracks["transnet"]).all()
    starts = [round(t * 24) for t in analysis.clips["start_s"].to_pylist()]
    assert starts == pytest.approx([0, *(cut + 3 for cut in known)], abs=1)  # 3 frames are trimmed


class NextFrame:
    """In place of the network: 1 where the next frame differs, for which it must be there."""

    def __call__(self, frames, first=0, stop=None):
        apart = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3)) > 30
        return np.append(apart, False)[first:stop].astype(np.float32)


def test_a_file_in_parts_has_the_scores_of_the_whole_also_at_the_seam(tmp_path, monkeypatch):
    """The cut lies at the seam: its score belongs to the first part and is known from frames of the second."""
    monkeypatch.setattr(scenes_learned, "TransNet", NextFrame)
    (cut_s,) = timed_cuts(tmp_path / "a.mp4", (5.0,), seconds=9)
    source, observe = probe(str(tmp_path / "a.mp4")), Observer(LEARNED)
    whole = tracks.load(observe(source).batches())
    batches = [*observe(source, 0.0, cut_s, 0).batches(), *observe(source, cut_s, None, 1).batches()]
    parts = tracks.load(batches)
    assert parts.frames == whole.frames and parts.time_s == pytest.approx(whole.time_s)
    assert cuts(parts["transnet"]) == cuts(whole["transnet"]) == [(120, 120)]
    assert parts["content"] == pytest.approx(whole["content"])
    assert len(parts.stills.times_s) == len(whole.stills.times_s)


def test_without_its_package_a_run_stops_with_a_sentence(tmp_path, monkeypatch):
    from rushes.curation.recipe import RecipeError
    from rushes.pipelines.checks import check

    monkeypatch.setattr(scenes_learned, "installed", lambda: False)
    with pytest.raises(RecipeError, match=r"scenes.detector.*pip install 'rushes\[scenes\]'"):
        check(LEARNED, [str(tmp_path)], str(tmp_path / "run"))
