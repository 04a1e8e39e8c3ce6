"""Ray nodes on one machine, each as if it were a machine: a network and a folder of its own, and a plug to pull.

Where the system lets us (root on Linux) a node is a network namespace on a bridge, so that its cable can be cut, and a
mount namespace, so that folders can be hidden from it. Elsewhere nodes share the loopback interface.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MARK = "RUSHES_FAULTS_NODE"  # in the environment of all that a node runs
PORT = 6379
START_S = 180.0
STORE_BYTES = 80 << 20
#: Ray's own settings give a silent node half a minute; so do we, in fewer seconds.
HEARTBEAT = {
    "RAY_health_check_initial_delay_ms": "2000", "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000", "RAY_health_check_failure_threshold": "4",
}  # fmt: skip
#: A node that is silent for so long is taken for lost, seconds.
SILENT_S = 12.0


def namespaces() -> bool:
    """Whether network namespaces can be made here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"rf{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], stderr=subprocess.DEVNULL).returncode == 0
    if made:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return made


@dataclass
class Node:
    """number: 0 is the head; cable: the bridge's end of its link, None where nodes share the loopback."""

    number: int
    ip: str
    folder: Path
    namespace: str | None = None
    cable: str | None = None
    hidden: tuple[Path, ...] = ()


@dataclass
class Nodes:
    """A cluster of `count` nodes below `folder`, one core each. Use as a context.

    hidden: by node, folders that are empty there.
    """

    folder: Path
    count: int = 2
    hidden: dict[int, tuple[Path, ...]] = field(default_factory=dict)
    apart: bool = field(default_factory=namespaces)
    nodes: list[Node] = field(default_factory=list)
    more: Callable[[], dict[str, str]] = dict  # to the environment of all that is started

    def __enter__(self) -> Nodes:
        self.name = f"rf{os.getpid() % 100_000}"
        self.temporary = tempfile.mkdtemp(prefix=f"{self.name}-", dir="/tmp")  # sockets' paths are short
        self.port = PORT if self.apart else _free_port()
        try:
            if self.apart:
                self._bridge()
            for number in range(self.count):
                self.nodes.append(self._node(number))
            for node in self.nodes:
                self.up(node)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            self.kill(node)
        if self.apart:
            for node in self.nodes:
                _ip("link", "del", node.cable, check=False)
                _ip("netns", "del", node.namespace, check=False)
            _ip("link", "del", self.name, check=False)
        shutil.rmtree(self.temporary, ignore_errors=True)

    # ---- what callers use ----------------------------------------------------------------------------------------

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def address(self) -> str:
        return f"{self.head.ip}:{self.port}"

    @property
    def outside(self) -> str:
        """Where nodes reach this process."""
        return f"{self.subnet}.254" if self.apart else "127.0.0.1"

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", MARK)}
        return {**kept, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", **self.more(), **more}

    def at(self, node: Node, command: list[str]) -> list[str]:
        """The command as it is run at a node."""
        return command if node.namespace is None else ["ip", "netns", "exec", node.namespace, *command]

    def up(self, node: Node) -> None:
        """Start a node; it is part of the cluster when this returns."""
        self.kill(node)
        ray = [str(Path(sys.executable).parent / "ray"), "start", "--num-cpus=1", f"--node-ip-address={node.ip}",
               f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats"]  # fmt: skip
        if node.number == 0:
            ray += ["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self.temporary}"]
        else:
            ray += [f"--address={self.address}"]
        if not self.apart:
            first = 21_000 + 1_000 * node.number
            ray += [f"--min-worker-port={first}", f"--max-worker-port={first + 999}"]
        hide = "".join(f"mount -t tmpfs none '{folder}' && " for folder in node.hidden)
        command = ["unshare", "-m", "sh", "-c", f'{hide}exec "$@"', "sh", *ray] if hide else ray
        with open(node.folder / "ray.log", "ab") as log:
            done = subprocess.run(
                self.at(node, command), cwd=node.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(**{MARK: self._mark(node)}, **HEARTBEAT), start_new_session=True, timeout=START_S,
            )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"node {node.number} did not start; {node.folder}/ray.log says why")

    def processes(self, node: Node) -> list[int]:
        """Numbers of all processes of a node."""
        mark, found = f"{MARK}={self._mark(node)}".encode(), []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
        return found

    def workers(self, node: Node) -> list[int]:
        """Processes of a node that host a run's workers."""
        return [pid for pid in self.processes(node) if _title(pid).startswith("ray::Host")]

    def kill(self, node: Node) -> None:
        """As if its power failed."""
        until = time.monotonic() + 20
        while (left := [pid for pid in self.processes(node) if not _ended(pid)]) and time.monotonic() < until:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def alive(self, node: Node) -> bool:
        """Whether its raylet runs."""
        return any(
            b"raylet" in Path(f"/proc/{pid}/comm").read_bytes() for pid in self.processes(node) if not _ended(pid)
        )

    def cut(self, node: Node) -> None:
        """Cut a node's network; where nodes have none of their own, stop its processes: nobody hears of it either."""
        if node.cable is not None:
            _ip("link", "set", node.cable, "down")
            return
        self.signal(node, signal.SIGSTOP)

    def mend(self, node: Node) -> None:
        if node.cable is not None:
            _ip("link", "set", node.cable, "up")
            return
        self.signal(node, signal.SIGCONT)

    def signal(self, node: Node, number: int) -> None:
        for pid in self.processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    # ---- how nodes are made ----------------------------------------------------------------------------------------

    def _mark(self, node: Node) -> str:
        return f"{self.name}-{node.number}"

    def _bridge(self) -> None:
        self.subnet = f"10.213.{os.getpid() % 250}"
        _ip("link", "add", self.name, "type", "bridge")
        _ip("addr", "add", f"{self.subnet}.254/24", "dev", self.name)
        _ip("link", "set", self.name, "up")

    def _node(self, number: int) -> Node:
        folder = self.folder / f"node-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        hidden = self.hidden.get(number, ())
        if not self.apart:
            return Node(number, "127.0.0.1", folder, hidden=hidden)
        namespace, cable, inner = f"{self.name}-{number}", f"{self.name}-{number}", f"{self.name}i{number}"
        ip = f"{self.subnet}.{number + 1}"
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", inner)
        _ip("link", "set", cable, "master", self.name, "up")
        _ip("link", "set", inner, "netns", namespace)
        _ip("-n", namespace, "addr", "add", f"{ip}/24", "dev", inner)
        for name in ("lo", inner):
            _ip("-n", namespace, "link", "set", name, "up")
        return Node(number, ip, folder, namespace, cable, hidden)


def _ip(*words: object, check: bool = True) -> None:
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _ended(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True
