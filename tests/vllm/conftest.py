"""The real engine: a random-weight video model on vLLM's CPU build. `make test-vllm` makes the environment.

Elsewhere these tests are skipped, and say so: RUSHES_VLLM names the command `vllm` of an environment that has it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rushes.curation.recipe import build
from rushes.curation.sections import CaptionEngine, Captioning
from rushes.pipelines.stages.vllm_server import VllmServer

HERE = Path(__file__).parent
KEY_ENV, KEY = "RUSHES_TEST_VLLM_KEY", "test-key"
#: The CPU build dies of seeded sampling when a prompt is read in pieces (its generators have no offset): no pieces.
OPTIONS = (
    "--max-model-len", "4096", "--max-num-batched-tokens", "8192", "--no-enable-chunked-prefill", "--enforce-eager",
    "--dtype", "float32",
)  # fmt: skip
#: What random weights write passes no check of a caption's; the clips here are small.
SMALL = {"checks": (), "side": 112, "max_tokens": 48, "timeout_s": 120.0, "concurrency": 16, "ready_s": 300.0}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.environ.get("RUSHES_VLLM"):
        why = "not run: needs vLLM in an environment of its own; `make test-vllm` makes it and runs this"
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=why))


@dataclass(frozen=True)
class Engine:
    command: str
    model: Path

    def spec(self, **changes) -> Captioning:
        """A captioning recipe of one model, `tiny`, that this engine runs on the CPU."""
        engines = {"tiny": {"gpus": 0, "options": OPTIONS}}
        section = {
            "provider": "vllm", "models": [{"name": "tiny", "path": str(self.model)}], "engines": engines,
            "vllm_command": self.command, **SMALL, **changes,
        }  # fmt: skip
        return build({"captioning": section}).captioning


@pytest.fixture(scope="session")
def engine(tmp_path_factory) -> Engine:
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", OMP_NUM_THREADS="1", VLLM_CPU_OMP_THREADS_BIND="nobind")
    command = os.environ["RUSHES_VLLM"]
    model = tmp_path_factory.mktemp("tiny-model")
    python = Path(command).with_name("python")
    subprocess.run([python, HERE / "tiny_model.py", model], check=True, capture_output=True, timeout=120)
    return Engine(command, model)


@pytest.fixture(scope="session")
def server(engine) -> Iterator[str]:
    """The URL of a `vllm serve` that someone else has started, as far as the stage knows."""
    spec = engine.spec()
    running = VllmServer(spec, spec.models[0], CaptionEngine(options=OPTIONS), "127.0.0.1", KEY)
    running.start()
    try:
        yield running.wait()
    finally:
        running.stop()
