"""Ray, started in this process or found at an address."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from rushes.curation.recipe import Engine
from rushes.pipelines.engine.pool import StopRun

OBJECT_STORE_BYTES = 100 << 20  # tables of signals only
REACHABLE_S = 10.0  # a cluster that takes no connection within this time is not there; Ray itself waits minutes


def start(engine: Engine) -> int:
    """Connect to the cluster of the recipe, or start Ray in this process. Returns the number of CPUs to use."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # when a run stops, other tasks' errors add nothing
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "ignore_reinit_error": True}
    if engine.address:
        try:
            _knock(engine.address)
            ray.init(address=engine.address, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise StopRun(f"No Ray cluster answers at engine.address={engine.address}: {error}.") from error
    elif not ray.is_initialized():
        cpus = engine.num_cpus or os.cpu_count() or 1
        ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **options)
    available = int(ray.cluster_resources().get("CPU", 1))
    return max(1, min(available, engine.num_cpus or available))


def _knock(address: str) -> None:
    """Raises OSError where no one listens at host:port (`auto` and the like are left to Ray)."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHABLE_S).close()


def gpus() -> float:
    """GPUs of the cluster, after `start`."""
    import ray

    return ray.cluster_resources().get("GPU", 0.0)


def threads_beside(gpus: float) -> int:
    """CPUs that each worker of so many GPUs can have on every node that places one; 1 where there are no GPUs."""
    import ray

    shares = []
    for node in ray.nodes():
        count = node["Resources"].get("GPU", 0.0) // gpus if node["Alive"] and gpus else 0
        if count:
            shares.append(int(node["Resources"].get("CPU", 0.0) // count))
    return max(1, min(shares, default=1))
