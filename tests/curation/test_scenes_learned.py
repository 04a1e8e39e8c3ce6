"""Claims about TransNetV2 behind the project's own call; real footage, its cuts known to the frame."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from rushes.curation.scenes_learned import SIZE, TransNet, cuts, shots
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
