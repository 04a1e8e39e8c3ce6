"""Runs as jobs of a Ray cluster: sent, followed and stopped by the Ray Jobs API, which answers over HTTP."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
POLL_S = 1.0
PATIENCE_S = 60.0  # a head that does not answer for so long is given up; a job runs on
TOKEN_FILE = Path.home() / ".ray" / "auth_token"
TOKEN = ", and where it asks for a token, the token's file in RAY_AUTH_TOKEN_PATH"
#: Environment variables of whoever submits that a job is given, where they are set.
PASSED_ON = ("AWS_REGION", "AWS_ENDPOINT_URL", "RUSHES_LOG_JSON", "OTEL_EXPORTER_OTLP_ENDPOINT", "OPENLINEAGE_URL")


class ClusterError(RuntimeError):
    """The cluster cannot be reached or will not take the job: one sentence with the fix."""


@dataclass(frozen=True)
class Job:
    """state: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED, as Ray says it. exit_code: of the command, once known."""

    id: str
    state: str
    command: str
    message: str
    exit_code: int | None
    began: float | None
    ended: float | None


class Cluster:
    """A Ray cluster by the address of its dashboard, http://head:8265."""

    def __init__(self, address: str) -> None:
        if TOKEN_FILE.exists() or {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # a cluster that asks for none ignores it
        try:
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(address)
            self._client.get_version()
        except ImportError as error:
            raise ClusterError("Submitting needs the extra `cluster`: pip install 'rushes[cluster]'.") from error
        except Exception as error:  # requests', Ray's and the client's own: all mean that nobody answers us
            first = str(error).splitlines()[0].rstrip(".")
            sentence = f"No Ray cluster answers at {address} ({first}); give its dashboard's address{TOKEN}."
            raise ClusterError(sentence) from error

    def submit(
        self, command: Sequence[str], job_id: str, environment: Mapping[str, str], modules: Sequence[str] = (),
        folder: str | None = None, cpus: float = 0.0,
    ) -> str:  # fmt: skip
        """Send a command and return the job's id. modules: Python files or packages of one's own; folder: sent as a
        whole and stood in. The driver counts no CPU unless told, so that it can always be placed."""
        runtime: dict[str, Any] = {"env_vars": dict(environment)}
        if folder is not None:
            runtime["working_dir"] = folder
        if modules:
            runtime["py_modules"] = [str(Path(module).absolute()) for module in modules]
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self._client.submit_job(
                    entrypoint=shlex.join(command), submission_id=job_id, runtime_env=runtime,
                    entrypoint_num_cpus=cpus or None, metadata={"program": "rushes"},
                )  # fmt: skip
            except (RuntimeError, ValueError, OSError) as error:
                first = str(error).splitlines()[0]
                if "try again later" not in first or time.monotonic() > until:  # a young head has no agent yet
                    raise ClusterError(f"The cluster did not take the job: {first}") from error
            time.sleep(POLL_S)

    def job(self, job_id: str) -> Job:
        try:
            return _job(self._client.get_job_info(job_id))
        except RuntimeError as error:
            raise ClusterError(f"The cluster knows no job '{job_id}'; `rushes jobs` lists them.") from error

    def jobs(self) -> list[Job]:
        """This program's jobs, newest first."""
        found = [info for info in self._client.list_jobs() if (info.metadata or {}).get("program") == "rushes"]
        return sorted(map(_job, found), key=lambda job: -(job.began or 0.0))

    def log(self, job_id: str) -> str:
        self.job(job_id)
        return self._client.get_job_logs(job_id)

    def stop(self, job_id: str) -> bool:
        """Ask a job to stop; False where it had ended."""
        if self.job(job_id).state in ENDED:
            return False
        return self._client.stop_job(job_id)

    def follow(self, job_id: str, poll_s: float = POLL_S) -> Iterator[str]:
        """What the job writes, as it comes, until it has ended. A head that is away for a while is waited for."""
        told, missed = 0, 0
        while True:
            try:
                ended = self.job(job_id).state in ENDED
                text = self.log(job_id)
                missed = 0
            except (ConnectionError, ClusterError, OSError, RuntimeError):
                missed += 1
                if missed * poll_s > PATIENCE_S:
                    raise
                time.sleep(poll_s)
                continue
            if len(text) > told:
                yield text[told:]
                told = len(text)
            if ended:
                return
            time.sleep(poll_s)


def exit_code(job: Job) -> int:
    """The command's exit code; 130 for a job that was stopped, 1 where Ray does not know."""
    if job.state == "SUCCEEDED":
        return 0
    if job.state == "STOPPED":
        return 130
    return job.exit_code if job.exit_code is not None else 1


def _job(info: Any) -> Job:
    return Job(
        info.submission_id or info.job_id or "", str(getattr(info.status, "value", info.status)), info.entrypoint,
        info.message or "", info.driver_exit_code, (info.start_time or 0) / 1000 or None,
        (info.end_time or 0) / 1000 or None,
    )  # fmt: skip
