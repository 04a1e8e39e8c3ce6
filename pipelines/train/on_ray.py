"""`rushes train ... --ray ADDRESS --workers N`: the ranks of a training, placed and started by Ray.

One actor per rank holds its CPU and its GPU and does what torchrun's agent does on a machine: it starts `rushes train`
as a process of its own with RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, and tells what it says and how it ends. So a
training on Ray is the same program as one without: the same signals, sentences, exit codes, checkpoints and log.

Every node needs the same installation, and the command's folder at the same place on a file system that all share.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rushes.curation.sections import Engine
from rushes.pipelines.engine import signals
from rushes.pipelines.engine.pool import StopRun
from rushes.pipelines.engine.ray_start import start

PLACED_S = 60.0  # a cluster that has not placed the workers by then has no room for them
POLL_S = 0.3  # how often the ranks are asked what they said and whether they ended, seconds
OTHERS_S = 5.0  # the others' time to say why they ended, once one has failed, seconds
PR_SET_PDEATHSIG = 1  # prctl(2): the kernel ends a rank when its actor dies, however it dies
SENTENCE = "rushes: "  # what the command line puts in front of a sentence
WRONG = 2  # exit code of a sentence
STOPPED = tuple(signals.SHELL_CODE + number for number in signals.ASKING)  # ... of a training that a signal ended


@dataclass(frozen=True)
class Workers:
    """How many ranks, and where. gpus: of each rank; None: one where the cluster has any, else none."""

    address: str  # of a cluster, or "local" for this machine
    count: int
    gpus: float | None = None


@dataclass(frozen=True)
class Heard:
    """What a rank said since it was last asked, and its exit code; None while it runs. Negative: a signal."""

    out: str
    err: str
    code: int | None


def train_on_ray(workers: Workers, words: list[str], recipe: str, say: Callable[[str], None]) -> bool:
    """Run `rushes train WORDS --recipe RECIPE` on every rank; returns when all have ended, True where they finished.

    words: the command's other arguments, of this folder; recipe: a training recipe's YAML. What rank 0 says is said
    here. A signal to this process is passed on: the ranks save and end, and False is returned. Raises StopRun with one
    sentence: a rank's own, or that a rank died.
    """
    import ray

    start(Engine(address=None if workers.address == "local" else workers.address, num_cpus=None))
    group, ranks = _reserve(workers), []
    try:
        ranks = _placed(workers, group)
        address, port = ray.get(ranks[0].listens_at.remote())
        for number, rank in enumerate(ranks):
            environment = {
                "RANK": str(number), "WORLD_SIZE": str(len(ranks)), "LOCAL_RANK": "0",  # it sees its own GPU alone
                "MASTER_ADDR": address, "MASTER_PORT": str(port),
            }  # fmt: skip
            if workers.gpus == 0:
                environment["CUDA_VISIBLE_DEVICES"] = ""
            ray.get(rank.start.remote(words, recipe, environment, os.getcwd()))
        with _signals_passed_on(ranks):
            return _follow(ranks, say)
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, StopRun) else StopRun(f"A worker failed: {error}") from error
    except ray.exceptions.RayActorError as error:
        raise StopRun(f"A worker's machine or actor died; {_AGAIN}") from error
    finally:
        _end(ranks)
        ray.util.remove_placement_group(group)


_AGAIN = "start the same command again: it goes on from the last checkpoint."


def _reserve(workers: Workers) -> Any:
    """A placement group with a bundle for each rank. Raises StopRun where the cluster has no room for it."""
    import ray
    from ray.util.placement_group import placement_group

    there, needs = ray.cluster_resources(), _needs(workers)
    fits = all(there.get(name, 0) >= workers.count * amount for name, amount in needs.items())
    group = placement_group([needs] * workers.count, strategy="PACK")
    try:
        ray.get(group.ready(), timeout=PLACED_S if fits else 0)
    except ray.exceptions.GetTimeoutError as error:
        ray.util.remove_placement_group(group)
        room = ", ".join(f"{there.get(name, 0):g} {name}s" for name in needs)
        each = " and ".join(f"{amount:g} {name}" for name, amount in needs.items())
        raise StopRun(
            f"The cluster has no room for {workers.count} workers of {each} each (it has {room}); take fewer with "
            "--workers, or wait until others are done."
        ) from error
    return group


def _needs(workers: Workers) -> dict[str, float]:
    import ray

    gpus = float(ray.cluster_resources().get("GPU", 0) > 0) if workers.gpus is None else workers.gpus
    return {"CPU": 1.0, "GPU": gpus} if gpus else {"CPU": 1.0}


def _placed(workers: Workers, group: Any) -> list[Any]:
    """Actors, those of one node next to each other: tensor and context groups lie within a machine where they can."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    make = ray.remote(max_restarts=0)(Rank)
    gpus = _needs(workers).get("GPU", 0)
    actors = [
        make.options(
            num_cpus=1, num_gpus=gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number),
        ).remote()
        for number in range(workers.count)
    ]  # fmt: skip
    nodes = ray.get([actor.node.remote() for actor in actors])
    return [actor for _, actor in sorted(zip(nodes, actors), key=lambda pair: pair[0])]


def _follow(ranks: list[Any], say: Callable[[str], None]) -> bool:
    """Say what rank 0 says until all have ended; False where signals did. Raises StopRun where one ended badly."""
    import ray

    errors, codes, deadline = [""] * len(ranks), [None] * len(ranks), None
    while None in codes and (deadline is None or time.monotonic() < deadline):
        time.sleep(POLL_S)
        for number, heard in enumerate(ray.get([rank.hear.remote() for rank in ranks])):
            errors[number] += heard.err
            codes[number] = heard.code
            if number == 0 and heard.out:
                say(heard.out.rstrip("\n"))
        bad = [number for number, code in enumerate(codes) if code and code not in STOPPED]
        if deadline is None and bad:
            deadline, died = time.monotonic() + OTHERS_S, bad[0]
    if deadline is None:
        return not any(codes)
    for code, error in zip(codes, errors):
        if code == WRONG and SENTENCE in error:
            raise StopRun(error.partition(SENTENCE)[2].strip())
    lines = [line.strip() for line in errors[died].splitlines() if line.strip()] or ["it said nothing"]
    how = f"was ended by signal {-codes[died]}" if codes[died] < 0 else f"failed with exit code {codes[died]}"
    raise StopRun(f"Rank {died} of {len(ranks)} {how} (its last words: {lines[-1]}); {_AGAIN}")


def _end(ranks: list[Any]) -> None:
    """End what is left of the ranks, and give their places back."""
    import ray

    for rank in ranks:
        with suppress(ray.exceptions.RayError):
            ray.get(rank.end.remote(), timeout=OTHERS_S)
        ray.kill(rank)


@contextmanager
def _signals_passed_on(ranks: list[Any]) -> Iterator[None]:
    """SIGTERM and Ctrl-C let all ranks end their step, save and leave; where signals can be caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        for rank in ranks:
            rank.stop.remote()

    old = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Rank:
    """The actor: it holds a rank's place in the cluster and its process."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="rushes-rank-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._read = {"out": 0, "err": 0}

    def node(self) -> str:
        import ray

        return ray.util.get_node_ip_address()

    def listens_at(self) -> tuple[str, int]:
        """An address of this node at which rank 0 can be found."""
        with socket.socket() as free:
            free.bind((self.node(), 0))
            return self.node(), free.getsockname()[1]

    def start(self, words: list[str], recipe: str, environment: dict[str, str], folder: str) -> None:
        """Raises StopRun where the folder is not on this node."""
        if not Path(folder).is_dir():
            raise StopRun(
                f"{folder}, where this command was started, is not on the node {self.node()}: start it in a folder "
                "that all nodes share."
            )
        yaml = self._folder / "recipe.yaml"
        yaml.write_text(recipe, encoding="utf-8")
        command = [sys.executable, "-m", "rushes.pipelines.cli", "train", *words, "--recipe", str(yaml)]
        with open(self._folder / "out", "wb") as out, open(self._folder / "err", "wb") as err:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env={**os.environ, **environment},
                cwd=folder, start_new_session=True, preexec_fn=_die_with_parent,
            )  # fmt: skip

    def hear(self) -> Heard:
        code = self._process.poll()
        return Heard(self._new("out"), self._new("err"), code)

    def _new(self, stream: str) -> str:
        with open(self._folder / stream, "rb") as file:
            file.seek(self._read[stream])
            text = file.read()
        self._read[stream] += len(text)
        return text.decode(errors="replace")

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
