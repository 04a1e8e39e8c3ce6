"""The files in deploy/ and the page about them: valid, non-root, pinned, and every command in them is understood."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from rushes.pipelines.engine.observe import METRICS
from tests.deploy import schemas

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")


def documents(path: Path):
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_files_are_valid_and_run_as_nobody_special(path):
    validators = [(jsonschema.Draft202012Validator(schemas.KUBERNETES[one["kind"]]), one) for one in documents(path)]
    assert validators
    assert not [error.message for validator, one in validators for error in validator.iter_errors(one)]


def test_the_base_names_files_that_exist_and_claims_that_are_made():
    (base,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    made = [one for name in base["resources"] for one in documents(DEPLOY / "kubernetes" / name)]
    claims = {one["metadata"]["name"] for one in made if one["kind"] == "PersistentVolumeClaim"}
    asked = set(re.findall(r"claimName: (\S+)", "".join(p.read_text() for p in (DEPLOY / "kubernetes").glob("*.yaml"))))
    assert asked == claims


def test_the_other_files_are_valid():
    import ray.autoscaler

    (compose,) = documents(DEPLOY / "compose.yaml")
    jsonschema.validate(compose, schemas.COMPOSE)
    (prometheus,) = documents(DEPLOY / "monitoring" / "prometheus.yaml")
    jsonschema.validate(prometheus, schemas.PROMETHEUS)
    names = {name for one in prometheus["scrape_configs"] for name in one["dns_sd_configs"][0]["names"]}
    assert names <= set(compose["services"])
    (cluster,) = documents(DEPLOY / "ray-cluster.yaml")
    rays = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(cluster, rays)


def test_the_dashboard_draws_our_metrics_and_all_of_them():
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text(encoding="utf-8"))
    jsonschema.validate(dashboard, schemas.DASHBOARD)
    drawn = set(re.findall(r"ray_(rushes_\w+)", json.dumps(dashboard)))
    assert drawn == set(METRICS)


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.gpu"])
def test_images_are_pinned_not_root_and_copy_what_exists(name):
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("USER 1000") for line in lines)
    (install,) = [line for line in lines if "pip install" in line]
    assert "-c constraints.txt" in install
    for line in lines:
        if line.startswith("COPY"):
            assert all((ROOT / part).exists() for part in line.split()[1:-1]), line


def commands():
    """Every `rushes` and `ray start` command of the files and the page."""
    found = []
    for service in documents(DEPLOY / "compose.yaml")[0]["services"].values():
        found.append(service.get("command", ""))
    cluster = documents(DEPLOY / "ray-cluster.yaml")[0]
    found += cluster["head_start_ray_commands"] + cluster["worker_start_ray_commands"]
    for document in documents(DEPLOY / "kubernetes" / "service.yaml")[:1]:
        found.append(shlex.join(document["spec"]["template"]["spec"]["containers"][0]["command"]))
    found.append(documents(DEPLOY / "kubernetes" / "rayjob.yaml")[0]["spec"]["entrypoint"])
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S):
        found += block.splitlines()
    found += re.findall(r'bash_command="(.*?)"', PAGE)
    named = [re.sub(r"^(\w+=\S+ )*(\S*/bin/)?", "", one) for one in found]
    return sorted({one for one in named if one.startswith(("rushes ", "ray start"))})


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood(command):
    """Parsed by the program that it calls, options and all, without being run."""
    import typer
    from ray.scripts.scripts import cli as ray

    from rushes.pipelines.cli.main import app

    words = shlex.split(command.replace("$SLURM_CPUS_PER_TASK", "8").replace("{{ ds }}", "2026-01-01"))
    program = {"rushes": typer.main.get_command(app), "ray": ray}[words[0]]
    assert program.commands[words[1]].make_context(words[1], words[2:]).info_name == words[1]


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.gpu"])
def test_what_the_images_install_can_be_resolved(name):
    (extras,) = re.findall(r"'\.\[(.*?)\]'", (DEPLOY / name).read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "-c", "constraints.txt", f".[{extras}]"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_first_job_takes_at_most_four_commands():
    (block,) = re.findall(r"<!-- first job -->\n```bash\n(.*?)```", PAGE, re.S)
    assert len(block.splitlines()) <= 4
