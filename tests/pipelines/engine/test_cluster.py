"""The cluster as the pool sees it, where it is gone: nothing waits for it."""

from __future__ import annotations

import socket

import pytest

from rushes.pipelines.engine import cluster
from rushes.pipelines.engine.cluster import Kind, RayCluster
from rushes.pipelines.engine.pool import CPU, ClusterLost, Pool


class Gone:
    """Ray whose head has died: every call that asks it would wait for ever."""

    def __init__(self, address: str) -> None:
        self.gcs_address = address

    def get_runtime_context(self):
        return self

    def __getattr__(self, name: str):
        raise AssertionError(f"ray.{name} was asked of a cluster that is gone")


@pytest.fixture
def gone(monkeypatch) -> RayCluster:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert cluster.answers(address)
    assert not cluster.answers(address) and not cluster.answers("nowhere")
    import ray

    monkeypatch.setattr(cluster, "LOST_S", 0.2)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: Gone(address))
    found = RayCluster()
    found._ray = Gone(address)
    found._known = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 2.0}}]
    return found


def test_a_head_that_does_not_answer_is_given_time_and_then_no_node_is_left(gone, monkeypatch):
    assert gone.nodes() == {"a"} and gone.capacity([Kind(CPU, dict)]) == {CPU: 2}
    gone._answered -= 1.0
    assert gone.nodes() == set()
    gone.kill(object())  # asks nobody


def test_a_run_whose_cluster_is_gone_ends_with_a_sentence(gone, monkeypatch):
    from rushes.pipelines.engine import pool as pools

    monkeypatch.setattr(pools, "POLL_S", 0.02)
    monkeypatch.setattr(pools, "LOOK_EVERY_S", 0.05)
    gone.create = lambda kind: object()
    pool = Pool(gone, [Kind(CPU, dict)], 1, lambda error: None)
    pool.submit("work", "1")
    with pytest.raises(ClusterLost, match="does not answer any more"):
        list(pool.completed())
    pool.close()
