"""`rushes submit`, `jobs`, `logs`, `stop`: a run as a job of a Ray cluster, by the address of its dashboard."""

from __future__ import annotations

import os
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from rushes.pipelines.cli.terminal import console, fail

Address = Annotated[
    str, typer.Option("--address", envvar="RAY_ADDRESS", help="The cluster's dashboard, such as http://head:8265.")
]
JobId = Annotated[str, typer.Argument(help="A job's id, as `rushes jobs` lists it.")]
DASHBOARD = "http://127.0.0.1:8265"


def register(app: typer.Typer) -> None:
    for command in (submit, jobs, logs, stop):
        app.command()(command)


def submit(
    input: Annotated[list[str], typer.Option("--input", "-i", help="As of `rushes curate`; read on the cluster.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Run folder that every node sees, or an s3:// one.")],
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A shipped recipe or a YAML file of yours.")] = "cpu",
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE")] = None,
    address: Address = DASHBOARD,
    module: Annotated[
        list[str] | None, typer.Option(help="A file or package with meters of your own; only these are sent.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="Environment for the job; a name alone: yours.")
    ] = None,
    job_id: Annotated[str | None, typer.Option(help="The job's id; default: a new one.")] = None,
    wait: Annotated[bool, typer.Option(help="Follow the job, and end with its exit code.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the job would cost, and send nothing.")] = False,
    cores: Annotated[int, typer.Option(help="With --dry-run: cores of the cluster.", min=1)] = 64,
) -> None:
    """Send a curation to a Ray cluster, follow it, and end with its exit code. The same again resumes the run.

    Example:  rushes submit --address http://head:8265 -i s3://raw/2026 -o s3://sets/first
    """
    import shutil
    import tempfile

    from rushes.curation import recipe as recipes
    from rushes.pipelines.engine.ray_jobs import PASSED_ON, Cluster

    resolved = recipes.load(recipe, set_ or [])
    if dry_run:
        _print_cost(input, resolved, cores)
        return
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    for pair in env or []:
        name, equals, value = pair.partition("=")
        if not equals and name not in os.environ:
            fail(f"--env {name}: there is no such variable here; write {name}=VALUE.")
        environment[name] = value if equals else os.environ[name]
    with _sentences():
        cluster = Cluster(address)
        with tempfile.TemporaryDirectory() as folder:  # of the working directory, only the resolved recipe is sent
            Path(folder, "recipe.yaml").write_text(resolved.to_yaml(), encoding="utf-8")
            command = ["rushes", "curate", "--recipe", "recipe.yaml", "--output", output]
            packages = []
            for path in map(Path, module or []):
                if path.is_dir():
                    packages.append(str(path))
                elif path.suffix == ".py" and path.is_file():
                    shutil.copy(path, folder)  # the job stands in this folder, and imports from it
                else:
                    fail(f"--module {path}: there is no such Python file or package folder.")
            for one in input:
                command += ["--input", one]
            name = cluster.submit(command, job_id or f"rushes-{uuid.uuid4().hex[:8]}", environment, packages, folder)
        console.print(f"Job {name} at {address}", highlight=False)
        if wait:
            _follow(cluster, name)


def jobs(address: Address = DASHBOARD) -> None:
    """The runs that were sent to a cluster, newest first."""
    from rich.table import Table
    from rich.text import Text

    from rushes.pipelines.engine.ray_jobs import Cluster

    with _sentences():
        found = Cluster(address).jobs()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("job", "state", "began", "command"):
        table.add_column(name, no_wrap=name != "command", overflow="ellipsis")
    for job in found:
        began = f"{datetime.fromtimestamp(job.began):%Y-%m-%d %H:%M:%S}" if job.began else ""
        table.add_row(job.id, job.state.lower(), began, Text(job.command))
    console.print(table if found else "no jobs")


def logs(
    job: JobId, address: Address = DASHBOARD,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends, with its exit code.")] = False,
) -> None:  # fmt: skip
    """What a job wrote."""
    from rushes.pipelines.engine.ray_jobs import Cluster

    with _sentences():
        cluster = Cluster(address)
        if follow:
            _follow(cluster, job)
        else:
            sys.stdout.write(cluster.log(job))


def stop(job: JobId, address: Address = DASHBOARD) -> None:
    """Ask a job to stop; what it has done stays, and the same submission goes on from there."""
    from rushes.pipelines.engine.ray_jobs import Cluster

    with _sentences():
        asked = Cluster(address).stop(job)
    console.print(f"{job} was asked to stop." if asked else f"{job} had ended.", highlight=False)


def _follow(cluster: object, job_id: str) -> None:
    from rushes.pipelines.engine.ray_jobs import exit_code

    for text in cluster.follow(job_id):  # type: ignore[attr-defined]
        sys.stdout.write(text)
        sys.stdout.flush()
    job = cluster.job(job_id)  # type: ignore[attr-defined]
    console.print(f"Job {job.id}: {job.state.lower()}", highlight=False)
    raise typer.Exit(exit_code(job))


def _print_cost(inputs: list[str], recipe: object, cores: int) -> None:
    from rushes.curation.video.inputs import list_inputs
    from rushes.pipelines.view.cost import cost
    from rushes.pipelines.view.words import hours

    found = cost(list_inputs(inputs), recipe)  # type: ignore[arg-type]
    more = f" (estimated from {found.probed:,} headers)" if found.probed < found.inputs else ""
    console.print(f"{found.inputs:,} inputs, {hours(found.footage_s)} of footage{more}", highlight=False)
    if found.unreadable:
        console.print(f"{found.unreadable:,} of the headers could not be read", style="yellow", highlight=False)
    for stage, core_s in found.core_s.items():
        console.print(f"  {stage:<10} {hours(core_s):>10} of one core", highlight=False)
    total = sum(found.core_s.values())
    console.print(f"about {hours(total)} of one core, {hours(total / cores)} on {cores} cores", highlight=False)


class _sentences:
    """Errors of the cluster as sentences with exit code 2."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from rushes.pipelines.engine.ray_jobs import ClusterError

        if isinstance(error, ClusterError | ConnectionError):
            fail(str(error))
