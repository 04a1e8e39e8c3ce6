"""A run that the service starts: the service is killed at a moment, and the next one tells how the run ended."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.faults.nodes import Nodes
from tests.faults.runs import ENDS_S, KEYS, Started, start

PORT = 8600
UP_S = 60.0


class Service:
    """`rushes serve` at the head of a cluster, for runs below `runs` and footage below `footage`."""

    def __init__(self, nodes: Nodes, runs: Path, footage: Path, log: Path) -> None:
        self.nodes, self.runs, self.footage, self.log = nodes, runs, footage, log
        runs.mkdir(parents=True, exist_ok=True)
        self._tokens = runs.parent / "tokens.txt"
        self._tokens.unlink(missing_ok=True)
        words = [
            sys.executable,
            "-m",
            "rushes.pipelines.cli",
            "token",
            "engineer",
            "ada",
            "--tokens",
            str(self._tokens),
        ]
        self._token = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1]

    def up(self) -> Started:
        """Start it; it answers when this returns."""
        command = ["serve", str(self.runs), "--host", self.nodes.head.ip, "--port", str(PORT), "--tokens",
                   str(self._tokens), "--root", str(self.footage), "--allow-code"]  # fmt: skip
        started = start(self.nodes, command, self.log, RAY_ADDRESS=self.nodes.address)
        until = time.monotonic() + UP_S
        while time.monotonic() < until:
            try:
                self.ask("/jobs")
                return started
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)
        raise RuntimeError(f"the service did not start; {self.log} says why")

    def ask(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        url = f"http://{self.nodes.head.ip}:{PORT}/api/v1{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
            return json.load(answer)

    def submit(self, run: str) -> str:
        """Ask for a run; the job's name."""
        keys = {key: json.loads(value) if value[0] in "[0123456789tf" else value
                for key, value in (word.split("=", 1) for word in KEYS)}  # fmt: skip
        body = {"run": run, "recipe": "cpu", "inputs": [str(self.footage)], "set": keys}
        return self.ask("/jobs", body)["id"]

    def end(self, job: str) -> dict[str, Any]:
        """The job, once it has ended."""
        until = time.monotonic() + ENDS_S
        while (found := self.ask(f"/jobs/{job}"))["state"] in ("queued", "running", "stopping"):
            if time.monotonic() > until:
                return {**found, "state": "hangs"}
            time.sleep(0.2)
        return found
