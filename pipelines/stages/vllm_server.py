"""vLLM in the cluster: Ray places one `vllm serve` per replica on the GPUs it needs, and ends it with the run.

Why servers and not engines inside the actors: captions come by one client whichever way in is chosen (the same prompts
and checks, the same certainty whose answer is whose), vLLM keeps an environment of its own on the workers (it pins
torch and much else), its command line is its most stable interface, and an engine that crashes takes no worker along.
What it costs, a copy of each request over the node's own network, was measured: docs/captioning.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rushes.curation.recipe import RecipeError
from rushes.curation.sections import CaptionEngine, Captioning, CaptionModel
from rushes.pipelines.engine.pool import StopRun

POLL_S = 0.5  # between looks whether a server is up
HEALTH_S = 5.0  # an answer to "are you well?" takes milliseconds
GRACE_S = 20.0  # seconds that a server has to end on its own
LOG_BYTES = 65_536  # of the end of a server's log that its last words are looked for in
PR_SET_PDEATHSIG = 1  # prctl(2): the kernel ends the server when the process that started it dies, however it dies
TROUBLE = re.compile(r"(?:\w+Error|error|Exception|not found|No such)\b", flags=re.IGNORECASE)
LOG_HEAD = re.compile(r"^(?:\([^)]*\) )?(?:(?:INFO|WARNING|ERROR|DEBUG) [^\]]*\] )?")


def check(recipe: Captioning, local: bool) -> None:
    """What can be known without starting anything. RecipeError: weights that are not there, no such command.

    local: the run's workers are on this machine, so its disk is theirs.
    """
    for model in recipe.models:
        where = Path(model.path or model.name).expanduser()
        looks_local = str(model.path or model.name).startswith(("/", "./", "../", "~"))
        if local and looks_local and not (where / "config.json").is_file():
            raise RecipeError(
                f"captioning.models names weights for '{model.name}' that are not there: {where} holds no config.json. "
                f"Correct its path, or give a hub id."
            )
    if local and shutil.which(recipe.vllm_command) is None:
        raise RecipeError(
            f"captioning.provider=vllm needs vLLM on the workers, and there is no command '{recipe.vllm_command}' "
            f"here: install it in an environment of its own and set captioning.vllm_command to its path, or use "
            f"captioning.provider=endpoint with a server that runs elsewhere."
        )


class VllmServer:
    """One `vllm serve` process: `start()`, `wait()`, `url`, `stop()`. Plain Python; the caller holds the GPUs.

    host: address that it listens at and is reached by. key: what clients must send.
    """

    def __init__(self, recipe: Captioning, model: CaptionModel, engine: CaptionEngine, host: str, key: str) -> None:
        self._recipe, self._model, self._engine, self._host, self._key = recipe, model, engine, host, key
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.gettempdir()) / f"rushes-vllm-{os.getpid()}-{secrets.token_hex(3)}.log"
        self._port = 0

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}/v1"

    def command(self) -> list[str]:
        recipe, model = self._recipe, self._model
        pictures = {"video": 1, "image": 0} if recipe.send == "video" else {"image": recipe.frames, "video": 0}
        return [
            recipe.vllm_command, "serve", os.path.expanduser(model.path or model.name),
            "--served-model-name", model.name, "--host", self._host, "--port", str(self._port),
            "--enable-request-id-headers", "--disable-uvicorn-access-log",
            "--tensor-parallel-size", str(self._engine.tensor_parallel),
            "--limit-mm-per-prompt", json.dumps(pictures), *self._engine.options,
        ]  # fmt: skip

    def start(self) -> None:
        """Raises StopRun where the command cannot be started."""
        with socket.socket() as probe:
            probe.bind((self._host, 0))
            self._port = probe.getsockname()[1]
        environment = {**os.environ, "VLLM_API_KEY": self._key, "VLLM_NO_USAGE_STATS": "1"}
        try:
            with open(self._log, "wb") as log:
                self._process = subprocess.Popen(
                    self.command(), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment,
                    start_new_session=True, preexec_fn=_die_with_parent,
                )  # fmt: skip
        except OSError as error:
            raise StopRun(f"'{self._recipe.vllm_command}' (captioning.vllm_command) cannot be run: {error}.") from error

    def wait(self) -> str:
        """The URL, once the server is up. Raises StopRun with its last words where it ends or takes too long."""
        if self._process is None:
            raise RuntimeError("start() comes before wait()")
        end = time.monotonic() + self._recipe.ready_s
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise StopRun(f"vLLM cannot serve '{self._model.name}': {self.last_words()} (log: {self._log})")
            with contextlib.suppress(OSError):  # refused, or not healthy yet
                urllib.request.urlopen(f"http://{self._host}:{self._port}/health", timeout=HEALTH_S).close()
                return self.url
            time.sleep(POLL_S)
        self.stop()
        raise StopRun(
            f"vLLM was not ready to serve '{self._model.name}' within captioning.ready_s={self._recipe.ready_s:.0f} "
            f"(log: {self._log})"
        )

    def last_words(self) -> str:
        """The last line of its log that speaks of an error, else the last line."""
        tail = self._log.read_bytes()[-LOG_BYTES:].decode(errors="replace")
        lines = [LOG_HEAD.sub("", line).strip() for line in tail.splitlines() if line.strip()]
        errors = [line for line in lines if TROUBLE.search(line) and not line.startswith(("File ", "Traceback"))]
        return (errors or lines or ["it said nothing"])[-1]

    def stop(self) -> None:
        """End the server and the processes it started; returns when they are gone. The log stays where it failed."""
        process, self._process = self._process, None
        if process is None:
            return
        failed = process.poll() not in (None, 0)
        for sign, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, GRACE_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
                break
        with contextlib.suppress(ProcessLookupError):  # its engine processes, where it left any behind
            os.killpg(process.pid, signal.SIGKILL)
        if not failed:
            self._log.unlink(missing_ok=True)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Fleet:
    """Every server of the recipe's models, placed by Ray: `with Fleet(recipe) as fleet:` gives `urls` and `key`.

    Raises StopRun where the cluster has too few GPUs, or a server does not come up.
    """

    def __init__(self, recipe: Captioning) -> None:
        self._recipe = recipe
        self._hosts: list[Any] = []
        self.key = secrets.token_urlsafe()
        self.urls: tuple[str, ...] = ()

    def __enter__(self) -> Fleet:
        import ray

        try:
            self._enough_gpus(ray.cluster_resources().get("GPU", 0.0))
            for model in self._recipe.models:
                engine = self._recipe.engines.get(model.name, CaptionEngine())
                actor = ray.remote(num_gpus=gpus_of(engine), num_cpus=engine.cpus, max_restarts=0)(_Host)
                self._hosts += [actor.remote(self._recipe, model, engine, self.key) for _ in range(engine.replicas)]
            self.urls = tuple(ray.get([host.up.remote() for host in self._hosts], timeout=self._recipe.ready_s))
        except ray.exceptions.GetTimeoutError as error:
            self.__exit__()
            raise StopRun(
                f"Ray could not place and start the {len(self._hosts)} caption servers within captioning.ready_s="
                f"{self._recipe.ready_s:.0f}: are their GPUs taken by others?"
            ) from error
        except ray.exceptions.RayTaskError as error:
            self.__exit__()
            cause = error.cause if isinstance(error.cause, StopRun) else None
            raise cause or StopRun(f"A caption server failed: {error}".splitlines()[0]) from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.get([host.down.remote() for host in self._hosts], timeout=3 * GRACE_S)
        for host in self._hosts:
            ray.kill(host)
        self._hosts = []

    def _enough_gpus(self, there: float) -> None:
        recipe = self._recipe
        engines = [recipe.engines.get(model.name, CaptionEngine()) for model in recipe.models]
        wanted = sum(engine.replicas * gpus_of(engine) for engine in engines)
        if wanted > there:
            raise StopRun(
                f"The caption models need {wanted:g} GPUs (captioning.engines: replicas x tensor_parallel) and the "
                f"cluster has {there:g}. What was done so far is kept: start the same command again on a larger "
                f"cluster, or with captioning.provider=endpoint."
            )


def gpus_of(engine: CaptionEngine) -> float:
    return float(engine.tensor_parallel) if engine.gpus is None else engine.gpus


class _Host:
    """The actor that holds one server's GPUs."""

    def __init__(self, recipe: Captioning, model: CaptionModel, engine: CaptionEngine, key: str) -> None:
        import ray

        self._server = VllmServer(recipe, model, engine, ray.util.get_node_ip_address(), key)

    def up(self) -> str:
        self._server.start()
        return self._server.wait()

    def down(self) -> None:
        self._server.stop()
