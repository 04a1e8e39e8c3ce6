"""The pool's promises, on a cluster whose nodes do what they are told: who gets leases, what a lost node costs."""

from __future__ import annotations

import pytest

from rushes.pipelines.engine.cluster import Kind
from rushes.pipelines.engine.pool import CPU, Failure, Pool, StopRun
from tests.pipelines.engine.simulated import Cluster

KINDS = [Kind(CPU, dict)]


def never(error: BaseException) -> str | None:
    return None


def told(pool: Pool) -> dict[str, object]:
    return {task.key: result for task, result in pool.completed()}


def test_only_placed_workers_get_leases():
    cluster = Cluster(["a"], lambda stage, args, node: node, per_node=4, unplaced=1)
    pool = Pool(cluster, KINDS, 1, never)
    for number in range(12):
        pool.submit("work", str(number), timeout_s=5.0)
    assert set(told(pool).values()) == {"a"}
    assert None not in {node for node, _ in cluster.handed}


def test_a_lost_node_costs_no_lease_a_try():
    """24 leases on two nodes with one try each; a node dies with two at work and others waiting at its workers."""
    done = 0

    def work(stage, args, node):
        nonlocal done
        done += 1
        if done == 3:
            cluster.lose("b")
        return node

    cluster = Cluster(["a", "b"], work)
    pool = Pool(cluster, KINDS, 1, never)
    for number in range(24):
        pool.submit("work", str(number))
    results = told(pool)
    assert len(results) == 24 and not any(isinstance(result, Failure) for result in results.values())


def test_a_worker_that_dies_by_itself_costs_a_try_and_a_lease_that_waited_there_none():
    def work(stage, args, node):
        if args == ("deadly",):
            raise SystemExit
        return "done"

    pool = Pool(Cluster(["a"], work, per_node=1), KINDS, 1, never)
    for number in range(8):
        pool.submit("work", str(number), "good", order=(number,))
    pool.submit("work", "bad", "deadly", order=(-1,))
    results = told(pool)
    assert results.pop("bad") == Failure("the worker died in work", lost=True)
    assert set(results.values()) == {"done"} and len(results) == 8


def test_a_node_that_does_not_see_the_runs_folder_stops_the_run_before_any_work():
    cluster = Cluster(["a", "b"], lambda stage, args, node: node)
    cluster.blind = {"b"}
    pool = Pool(cluster, KINDS, 1, never)
    for number in range(4):
        pool.submit("work", str(number))
    with pytest.raises(StopRun, match="The node b does not see the run's folder"):
        told(pool)


def test_a_lease_that_avoids_a_node_goes_to_another_and_to_any_where_there_is_none():
    cluster = Cluster(["a", "b"], lambda stage, args, node: node)
    pool = Pool(cluster, KINDS, 1, never)
    for number in range(6):
        pool.submit("work", str(number), avoid=frozenset(["a"]))
    assert set(told(pool).values()) == {"b"}
    pool.submit("work", "last", avoid=frozenset(["a", "b"]))
    assert told(pool)["last"] in ("a", "b")


def test_a_node_that_was_left_out_gets_nothing_more_and_is_named():
    cluster = Cluster(["a", "b"], lambda stage, args, node: node)
    pool = Pool(cluster, KINDS, 1, never)
    for number in range(4):
        pool.submit("work", str(number))
    places = {task.place.node: task.place for task, _ in pool.completed()}
    pool.leave_out(places["b"], "it finds nothing")
    pool.leave_out(places["a"], "nobody would be left")
    for number in range(12):
        pool.submit("work", str(number))
    assert set(told(pool).values()) == {"a"}
    assert pool.notes == ["The node b was left out: it finds nothing."]


def test_a_map_gives_results_in_the_order_of_its_values_and_its_error_stops_the_run():
    pool = Pool(Cluster(["a"], lambda stage, args, node: args[0](args[1])), KINDS, 1, never)
    assert list(pool.map(abs, [-3, 2, -1])) == [3, 2, 1]
    with pytest.raises(StopRun, match="int: apply failed: ValueError"):
        list(pool.map(int, ["no number"]))


def test_what_waits_and_what_was_done_is_told():
    told = []
    pool = Pool(Cluster(["a"], lambda stage, args, node: node, per_node=1), KINDS, 1, never, tell=told.append)
    for number in range(3):
        pool.submit("work", str(number))
    list(pool.completed())
    leases = [event.data for event in told if event.kind == "lease"]
    assert [(one["lease"], one["work"], one["node"]) for one in leases] == [(str(n), "work", "a") for n in range(3)]
    waiting = [event.data["leases_waiting"] for event in told if event.kind == "load"]
    assert waiting == sorted(waiting, reverse=True) and waiting[0] > 0
