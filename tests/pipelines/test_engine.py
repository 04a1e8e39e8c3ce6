"""The pool of workers: what a worker does to itself costs the task that did it, and no other."""

from __future__ import annotations

import os
import signal
import time

import pytest

from rushes.curation.sections import Engine
from rushes.pipelines.engine import pool as engine
from rushes.pipelines.engine import ray_start
from rushes.pipelines.engine.cluster import Kind, RayCluster
from tests.conftest import curate_here
from tests.footage import make_video, width_362
from tests.pipelines.commands import wait_until

GUARD_S = 60.0  # a pool that has not ended by then hangs


class Toy:
    """A worker whose tasks behave as named."""

    def ready(self) -> int:
        return os.getpid()

    def square(self, number: int) -> int:
        return number * number

    def slow(self, path: str) -> str:
        """Tells who is at work, then waits for a while; quick when tried again."""
        again = os.path.exists(path)
        with open(path, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(0.2 if again else GUARD_S)
        return "done"

    def hang(self) -> None:
        time.sleep(10 * GUARD_S)

    def die(self) -> None:
        os._exit(1)

    def refuse(self) -> None:
        raise ValueError("this footage is not to my taste\nand more lines")

    def disk_full(self) -> None:
        raise OSError(28, "No space left on device")


def stop_on_full_disk(error: BaseException) -> str | None:
    return "the disk is full" if isinstance(error, OSError) else None


@pytest.fixture
def pool():
    ray_start.start(Engine(num_cpus=2))
    pool = engine.Pool(RayCluster(), [Kind(engine.CPU, Toy, most=2)], 2, stop_on_full_disk)
    yield pool
    pool.close()


def results(pool) -> dict[str, object]:
    return {task.key: result for task, result in pool.completed()}


def test_results_come_back_under_their_tasks_key_and_the_lowest_order_goes_first(pool):
    for number in range(5):
        pool.submit("square", str(number), number, order=(-number,))
    done = [(task.key, result) for task, result in pool.completed()]
    assert dict(done) == {str(n): n * n for n in range(5)}
    assert {key for key, _ in done[:2]} <= {"4", "3", "2"}


def test_tasks_may_be_submitted_while_others_come_back(pool):
    pool.submit("square", "first", 3)
    seen = []
    for task, result in pool.completed():
        seen.append(result)
        if task.key == "first":
            pool.submit("square", "second", result)
    assert seen == [9, 81]


def test_an_error_is_that_tasks_failure_in_one_line(pool):
    pool.submit("refuse", "bad")
    pool.submit("square", "good", 2)
    done = results(pool)
    assert done["good"] == 4
    assert done["bad"] == engine.Failure("refuse failed: ValueError: this footage is not to my taste")


def test_a_worker_that_dies_on_a_task_each_time_fails_that_task_only(pool):
    pool.submit("die", "deadly")
    for number in range(6):
        pool.submit("square", str(number), number)
    done = results(pool)
    assert done.pop("deadly") == engine.Failure("the worker died in die, 2 times out of 2", lost=True)
    assert done == {str(n): n * n for n in range(6)}


def test_a_worker_killed_from_outside_costs_no_task_its_result(pool, tmp_path):
    mark = tmp_path / "at work"
    pool.submit("slow", "slow", str(mark))
    for number in range(4):
        pool.submit("square", str(number), number)
    done, killed = {}, False
    for task, result in pool.completed():
        done[task.key] = result
        if not killed:
            assert wait_until(lambda: mark.exists() and mark.read_text() != "", GUARD_S)
            os.kill(int(mark.read_text()), signal.SIGKILL)
            killed = True
    assert done == {"slow": "done", **{str(n): n * n for n in range(4)}}


def test_a_task_that_hangs_is_ended_with_a_reason_and_the_others_go_on(pool):
    pool.submit("ready", "one")
    pool.submit("ready", "two")
    results(pool)  # both are up: what is timed below is the task
    pool.submit("hang", "hanging", timeout_s=1.0)
    for number in range(4):
        pool.submit("square", str(number), number)
    done = results(pool)
    assert done.pop("hanging") == engine.Failure("hang took longer than 1 s and was ended", lost=True)
    assert done == {str(n): n * n for n in range(4)}


def test_an_error_that_concerns_the_run_stops_it_with_its_sentence(pool):
    pool.submit("disk_full", "any")
    with pytest.raises(engine.StopRun, match="the disk is full"):
        results(pool)


def test_no_cluster_at_the_address_is_a_sentence():
    with pytest.raises(engine.StopRun, match=r"No Ray cluster answers at engine.address=127.0.0.1:1"):
        ray_start.start(Engine(address="127.0.0.1:1"))


def test_a_file_that_kills_its_worker_fails_alone_and_a_meter_of_ones_own_can_reject(tmp_path):
    """One run: the deadly file has a failed row, the other's clips have the new column, and its rule is applied."""
    good = make_video(tmp_path / "good.mp4", seconds=6)
    deadly = width_362(tmp_path / "deadly.mp4")
    meters = "meters=[tests.pipelines.meters:Redness, tests.pipelines.meters:DiesOnOneFile]"
    run = curate_here([str(good), str(deadly)], tmp_path / "run", meters, "rules={redness: {min: 500}}")
    sources = {row["uri"]: row for row in run.table("sources").to_pylist()}
    assert sources[str(good)]["status"] == "ok"
    assert sources[str(deadly)]["status"] == "failed"
    assert sources[str(deadly)]["error"].startswith("the worker died in observe, 2 times out of 2")
    clips = run.table("clips").to_pylist()
    assert all(isinstance(clip["redness"], float) for clip in clips)
    assert "rules.redness.min" in {clip["rejected_by"] for clip in clips}
