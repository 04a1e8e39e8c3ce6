"""Ray, started on this machine or found at an address; what stands in the way is said in one sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rushes.curation.sections import Engine
from rushes.pipelines.engine import signals
from rushes.pipelines.engine.pool import StopRun

OBJECT_STORE_BYTES = 100 << 20  # tables of signals only
REACHABLE_S = 10.0  # a cluster that takes no connection within this time is not there; Ray itself waits minutes
LOOPBACK = "127.0.0.1"
SHARED_MEMORY = "/dev/shm"
RAY_TEMPORARY = "/tmp"  # where Ray keeps its sessions on Linux, unless RAY_TMPDIR or TMPDIR names another folder
SOCKET_NAME_MAX = 107  # bytes of a Unix socket's path, of which Ray's own part takes so many:
SOCKET_NAME_RAYS = 68
TOKEN = (
    "; a cluster that asks for a token wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (a file with the token of its "
    "head node, by default ~/.ray/auth_token) in the environment"
)


def start(engine: Engine) -> int:
    """Connect to a cluster, or start Ray on this machine. Returns the number of CPUs to use. Raises StopRun.

    The cluster is the recipe's `engine.address`, else the environment's RAY_ADDRESS, which every job that is submitted
    to a cluster has; `local` in either is this machine.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # when a run stops, other tasks' errors add nothing
    if os.environ.get("PYTHONOPTIMIZE", "") not in ("", "0", "1"):
        os.environ["PYTHONOPTIMIZE"] = "1"  # Ray's own processes need their docstrings
    name = "engine.address" if engine.address else "RAY_ADDRESS"
    address = engine.address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with signals.held():  # neither its import nor its start can be left in the middle
        try:
            import ray
        except Exception as error:
            raise StopRun(f"Ray cannot be loaded: {_first_line(error)}.") from error
        if address != "local":
            _connect(name, address, options)
        elif not ray.is_initialized():
            _start_here(engine, options)
    available = int(ray.cluster_resources().get("CPU", 1))
    return max(1, min(available, engine.num_cpus or available))


def _connect(name: str, address: str, options: dict[str, Any]) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, ignore_reinit_error=True, **options)
    except Exception as error:
        raise StopRun(f"No Ray cluster answers at {name}={address}: {_first_line(error)}{TOKEN}.") from error


def _start_here(engine: Engine, options: dict[str, Any]) -> None:
    import ray

    _check_machine()
    if not _writable(SHARED_MEMORY):
        options["_plasma_directory"] = _ray_folder()  # slower than memory, and only signals pass through it
    try:
        with _few_services():
            ray.init(
                address="local", num_cpus=engine.num_cpus or os.cpu_count() or 1, include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES, **options,
            )  # fmt: skip
    except Exception as error:
        raise StopRun(f"Ray could not be started on this machine: {_first_line(error)}.") from error


@contextlib.contextmanager
def _few_services() -> Iterator[None]:
    """Ray starts without its API server, autoscaler and log monitor: for one command on one machine nobody asks them.

    They take two seconds of a core. Ray has no option for it; where its insides are named otherwise, they start.
    """
    from ray._private import node, services

    def nothing(*_: Any, **__: Any) -> tuple[None, None]:
        return None, None

    replaced = [(services, "start_api_server"), (node.Node, "start_monitor"), (node.Node, "start_log_monitor")]
    own = [(owner, name, getattr(owner, name)) for owner, name in replaced if hasattr(owner, name)]
    try:
        for owner, name, _ in own:
            setattr(owner, name, nothing)
        yield
    finally:
        for owner, name, function in own:
            setattr(owner, name, function)


def _check_machine() -> None:
    """Raises StopRun where Ray would fail with a traceback, or wait for minutes."""
    folder = _ray_folder()
    if not _writable(folder):
        missing = "does not exist" if not Path(folder).is_dir() else "cannot be written to"
        raise StopRun(f"Ray keeps its session in {folder}, which {missing}: set RAY_TMPDIR to a folder that can be.")
    if len(os.fsencode(folder)) > SOCKET_NAME_MAX - SOCKET_NAME_RAYS:
        raise StopRun(
            f"The temporary folder {folder} has too long a name for Ray's sockets: set RAY_TMPDIR to one of at most "
            f"{SOCKET_NAME_MAX - SOCKET_NAME_RAYS} bytes, such as /tmp."
        )
    try:
        with socket.create_server((LOOPBACK, 0)) as server:
            socket.create_connection(server.getsockname(), timeout=REACHABLE_S).close()
    except OSError as error:
        raise StopRun(
            f"Ray's processes talk to each other over {LOOPBACK}, which does not answer here ({error}): bring the "
            f"loopback interface up (`ip link set lo up`)."
        ) from error


def _ray_folder() -> str:
    return os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or RAY_TEMPORARY


def _writable(folder: str) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")


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
