"""Balance: the same number for each concept, whatever the order, and what is missing is said."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rushes.curation.finetune.balance import Concept, balance
from rushes.curation.finetune.subject import detected, subject_of
from rushes.curation.looking.detector import boxes


@pytest.fixture
def clips():
    """Ninety unit vectors around three directions: 50, 30 and 10 clips."""
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    of = np.repeat([0, 1, 2], [50, 30, 10])
    rows = centres[of] + 0.2 * rng.normal(size=(90, 8))
    return [f"{n:03d}" for n in range(90)], rows / np.linalg.norm(rows, axis=1, keepdims=True), of


def concepts(rows):
    return [Concept(name, (f"{n:03d}",), rows[[n]]) for name, n in (("sea", 3), ("city", 55), ("cat", 85))]


def test_each_concept_has_as_many_and_what_lacks_is_told(clips):
    ids, rows, of = clips
    found = balance(concepts(rows), [(ids, rows)], 20)
    counts = {name: sum(one.concept == name for one in found.chosen) for name in ("sea", "city", "cat")}
    assert counts["sea"] == counts["city"] == 20 and counts["cat"] < 20
    assert found.missing == {"cat": 20 - counts["cat"]}
    right = [of[int(one.clip_id)] == ("sea", "city", "cat").index(one.concept) for one in found.chosen]
    assert np.mean(right) > 0.95
    assert found.chosen[0].clip_id == "003"  # the seed itself is in, in front
    assert len({one.clip_id for one in found.chosen}) == len(found.chosen)


def test_neither_order_nor_pieces_change_the_choice(clips):
    ids, rows, _ = clips
    order = np.random.default_rng(1).permutation(90)
    pieces = [([ids[i] for i in part], rows[part]) for part in np.array_split(order, 7)]
    assert balance(concepts(rows), pieces, 15) == balance(concepts(rows), [(ids, rows)], 15)


def test_what_is_too_far_and_what_has_no_vector_is_no_neighbour(clips):
    ids, rows, _ = clips
    holes = rows.copy()
    holes[10] = np.nan
    near = balance(concepts(rows), [(ids, holes)], 50, least=0.7)
    assert all(one.cosine >= 0.7 for one in near.chosen) and "010" not in {one.clip_id for one in near.chosen}


@pytest.mark.parametrize("radius", [20, 45, 80])
def test_a_subject_is_boxed_by_how_much_it_stands_out_from_the_edges(radius):
    rng = np.random.default_rng(2)
    scene = np.full((240, 320, 3), (120, 140, 90), np.uint8)
    cv2.ellipse(scene, (180, 110), (radius, radius), 0, 0, 360, (40, 60, 220), -1)
    noisy = np.clip(scene + rng.normal(0, 8, scene.shape), 0, 255).astype(np.uint8)
    found = subject_of([noisy] * 3)
    left, top, right, bottom = (np.array(found.box) * [320, 240, 320, 240]).tolist()
    wanted = (180 - radius, 110 - radius, 180 + radius, 110 + radius)
    inside = max(0, min(right, wanted[2]) - max(left, wanted[0])) * max(0, min(bottom, wanted[3]) - max(top, wanted[1]))
    union = (right - left) * (bottom - top) + 4 * radius**2 - inside
    assert inside / union > 0.7 and found.frac == pytest.approx(4 * radius**2 / (320 * 240), rel=0.3)


def test_an_even_picture_has_no_subject():
    assert subject_of([np.full((120, 160, 3), 90, np.uint8)]) is None
    assert subject_of([]) is None


class Detector:
    """Sees a small thing and a larger one, and is unsure of the largest."""

    def boxes(self, picture, least):
        found = np.array([[0.1, 0.1, 0.2, 0.2], [0.3, 0.2, 0.8, 0.6], [0.0, 0.0, 1.0, 1.0]])
        return found[np.array([0.9, 0.7, 0.3]) >= least]


def test_a_detectors_subject_is_the_largest_thing_it_is_sure_of():
    found = detected(Detector())([np.zeros((60, 80, 3), np.uint8)])
    assert found.box == (0.3, 0.2, 0.8, 0.6) and found.frac == pytest.approx(0.2)


def test_boxes_of_all_known_outputs_mean_the_same_place():
    """A thing in the middle third of a 64 x 64 picture, as YOLOv8, YOLOv5, with suppression inside, and as DETR."""
    middle = np.array([32, 32, 20, 20], np.float32)
    yolo8 = np.concatenate([middle, [0.1, 0.8]])[None, :, None].repeat(20, axis=2)
    yolo5 = np.concatenate([middle, [0.8], [1.0], np.zeros(79)])[None, None].repeat(20, axis=1)
    within = np.array([22, 22, 42, 42, 0.8, 3], np.float32)[None, None]
    logits = np.full((1, 20, 7), -5.0, np.float32)
    logits[..., 2] = np.log(4)  # 0.8
    detr = [logits, (middle / 64)[None, None].repeat(20, axis=1)]
    for outputs in ([yolo8], [yolo5], [within], detr):
        places, scores = boxes(outputs, (64, 64))
        assert places[0] == pytest.approx([22, 22, 42, 42], abs=1e-3) and scores[0] == pytest.approx(0.8, abs=1e-3)
    assert boxes([np.zeros((1, 3))], (64, 64)) is None
