"""Rendered shots move as their word says, and a forest that is fitted on a few of them can be loaded and asked."""

from __future__ import annotations

import numpy as np
import pytest

from rushes.curation import forest
from rushes.curation.motion import points
from rushes.curation.motion.camera import CLASSES
from rushes.pipelines.fit import camera, render, shots, sources


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return sources.pictures(measuring=False)[:6]


@pytest.fixture(scope="module")
def found(pictures) -> list[camera.Example]:
    return camera.examples([[picture] for picture in pictures], 2, seed=5)


def mean(example: camera.Example, name: str) -> float:
    return float(np.nanmean(points.looks(example.points)[:, points.LOOK.index(name)]))


def test_the_scene_goes_the_other_way_than_the_camera(found):
    signs = {"pan right": ("shift_x", -1), "truck left": ("shift_x", 1), "tilt up": ("shift_y", 1),
             "pedestal down": ("shift_y", -1), "zoom in": ("growth", 1), "pull out": ("growth", -1)}  # fmt: skip
    for example in found:
        if example.word in signs:
            name, sign = signs[example.word]
            assert sign * mean(example, name) > 0.003, example.word


def test_mirrored_and_backwards_a_shot_has_the_words_of_what_is_then_seen(found):
    truck = next(example for example in found if example.word == "truck right")
    _, mirrored, backwards, both = camera.versions(truck)
    assert [one.word for one in (mirrored, backwards, both)] == ["truck left", "truck left", "truck right"]
    assert mean(mirrored, "shift_x") == pytest.approx(-mean(truck, "shift_x"), rel=1e-3)
    assert mean(backwards, "shift_x") * mean(truck, "shift_x") < 0
    assert all(
        set(CLASSES) == {example.word for example in (one, *camera.versions(one))} | set(CLASSES) for one in found
    )


def test_only_a_scene_with_depth_has_parallax(pictures):
    worn = render.textures(pictures)
    wall = [render.Surface(2, 6.0, (-90, -90), (90, 90), 0, 4.0)]
    deep = [*wall, *shots.box(-0.4, 0.2, 2.0, 0.5, 0.5, 0, 1), *shots.box(0.7, -0.2, 1.5, 0.3, 0.4, 0, 2)]

    def left(scene: list[render.Surface]) -> float:
        views = [render.render(scene, worn, render.Pose(np.array([x, 0, 0])), 0.0, (160, 90)) for x in (0.0, 0.1)]
        return float(points.looks(points.follow(*views, 0.25)[None])[0, points.LOOK.index("along")])

    assert left(deep) > 3 * left(wall)


def test_a_fit_on_few_shots_is_the_same_again_and_answers_all_classes(found, tmp_path):
    said = [camera.fit(found, tmp_path / f"{n}.npz") for n in (1, 2)]
    assert said[0] == said[1]
    first, second = (forest.load(tmp_path / f"{n}.npz")[0] for n in (1, 2))
    rows, classes = camera.table(found)
    votes = first(rows)
    assert votes.shape == (len(rows), len(CLASSES)) and np.allclose(votes.sum(axis=1), 1, atol=0.01)
    assert np.array_equal(votes, second(rows))
    assert (votes.argmax(axis=1) == classes).mean() > 0.9  # of what it was fitted on


def test_sources_that_are_measured_are_never_fitted_on():
    measured, fitted = (set(sources.photographs(half) + sources.videos(half)) for half in (True, False))
    assert measured and fitted and not measured & fitted


def test_the_two_tools_divide_the_sources_alike():
    from tests.accuracy.sources import for_measuring

    names = ["bikes", "astronaut", "carphone_pristine", "chelsea", "brick", "some_film"]
    assert [sources.for_measuring(name) for name in names] == [for_measuring(name) for name in names]
