"""A real cluster of two Ray nodes on this machine, with a network and a view of the disk each."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from rushes.curation.manifest import open_run
from tests.faults.nodes import Nodes, namespaces
from tests.faults.runs import Published, curate, start, wait_for_stage

READING = ("scenes", "visual")  # the stages that read footage go on side by side

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not namespaces(), reason="no network namespaces can be made here (that needs root)"),
]


@dataclass
class Places:
    footage: Path
    runs: Path
    log: Path


@pytest.fixture
def places(footage_folder, tmp_path) -> Places:
    folder, films = footage_folder
    (tmp_path / "footage").mkdir()
    (tmp_path / "runs").mkdir()
    for name in films:
        shutil.copy2(folder / name, tmp_path / "footage")
    return Places(tmp_path / "footage", tmp_path / "runs", tmp_path / "log")


def test_a_node_that_is_killed_costs_no_row_and_a_head_that_is_killed_is_a_sentence(places):
    with Nodes(places.runs.parent, 2) as nodes:
        whole = start(nodes, curate(nodes, places.footage, places.runs / "whole"), places.log)
        assert whole.end()[0] == 0, whole.said
        broken = start(nodes, curate(nodes, places.footage, places.runs / "broken"), places.log)
        assert wait_for_stage(places.runs / "broken", READING, broken)
        nodes.kill(nodes.nodes[1])
        assert broken.end()[0] == 0, broken.said
        unbroken = Published.of(places.runs / "whole")
        assert unbroken.differs(Published.of(places.runs / "broken")) == ""
        (places.log.parent / "said").touch()
        headless = start(nodes, curate(nodes, places.footage, places.runs / "headless"), places.log.parent / "said")
        assert wait_for_stage(places.runs / "headless", READING, headless)
        nodes.kill(nodes.head)
        code, _ = headless.end(90)
        assert code == 2 and "Ray does not answer any more" in headless.said, (code, headless.said)
        assert "Traceback" not in headless.said
        for node in nodes.nodes:
            nodes.up(node)
        again = start(nodes, curate(nodes, places.footage, places.runs / "headless"), places.log)
        assert again.end()[0] == 0, again.said
        assert unbroken.differs(Published.of(places.runs / "headless")) == ""


def test_a_node_without_the_footage_is_left_out_and_costs_no_source(places):
    with Nodes(places.runs.parent, 2, hidden={1: (places.footage,)}) as nodes:
        run = start(nodes, curate(nodes, places.footage, places.runs / "run"), places.log)
        assert run.end()[0] == 0, run.said
    failed = [row["uri"] for row in open_run(str(places.runs / "run")).table("sources").to_pylist()
              if row["status"] == "failed"]  # fmt: skip
    assert [Path(uri).name for uri in failed] == ["not_a_video.mp4"]


def test_an_output_that_a_node_does_not_see_ends_the_run_before_any_work_with_a_sentence(places):
    with Nodes(places.runs.parent, 2, hidden={1: (places.runs,)}) as nodes:
        run = start(nodes, curate(nodes, places.footage, places.runs / "run"), places.log)
        code, _ = run.end()
    assert code == 2 and "does not see the run's folder" in run.said, run.said
    assert Published.of(places.runs / "run") is None
