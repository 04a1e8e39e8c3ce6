"""JSON schemas, written by hand, of the parts of other people's formats that the files in deploy/ use."""

from __future__ import annotations

from typing import Any


def closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT, COUNT, FLAG, ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}, {"type": "object"}
TEXTS = {"type": "array", "items": TEXT}
NAMES = {"type": "object", "additionalProperties": TEXT}


def several(of: dict[str, Any], least: int = 1) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": least}


COMPOSE_SERVICE = closed(
    ("image",), image=TEXT, build=closed(("context",), context=TEXT, dockerfile=TEXT), environment=NAMES, volumes=TEXTS,
    shm_size=TEXT, restart={"enum": ["no", "always", "on-failure", "unless-stopped"]}, command=TEXT, ports=TEXTS,
    healthcheck=closed(("test",), test=TEXTS, interval=TEXT, retries=COUNT), secrets=TEXTS,
    depends_on={"type": "object", "additionalProperties": closed(("condition",), condition={
        "enum": ["service_started", "service_healthy", "service_completed_successfully"]})},
)  # fmt: skip
COMPOSE = {
    **closed(("services",), name=TEXT, services={"type": "object", "additionalProperties": COMPOSE_SERVICE},
             secrets={"type": "object", "additionalProperties": closed(("file",), file=TEXT)}, volumes=ANY),
    "patternProperties": {"^x-": {}},
}  # fmt: skip

RESOURCES = closed(requests=NAMES, limits=NAMES)
SECURE = {
    "type": "object",
    "properties": {"runAsNonRoot": {"const": True}, "runAsUser": {"type": "integer", "minimum": 1}},
    "required": ["runAsNonRoot", "runAsUser", "seccompProfile"],
}
CONTAINER = closed(
    ("name", "image", "resources", "securityContext"), name=TEXT, image=TEXT, command=TEXTS, args=TEXTS,
    resources=RESOURCES, volumeMounts=several(closed(("name", "mountPath"), name=TEXT, mountPath=TEXT, readOnly=FLAG)),
    ports=several(closed(("containerPort",), containerPort=COUNT, name={"type": "string", "maxLength": 15})),
    readinessProbe=closed(httpGet=closed(("path", "port"), path=TEXT, port=COUNT)),
    securityContext=closed(allowPrivilegeEscalation={"const": False}, capabilities=closed(drop={"const": ["ALL"]})),
)  # fmt: skip
VOLUME = closed(
    ("name",), name=TEXT, persistentVolumeClaim=closed(("claimName",), claimName=TEXT),
    secret=closed(("secretName",), secretName=TEXT),
)  # fmt: skip
POD = closed(
    ("spec",), metadata=closed(labels=NAMES),
    spec=closed(("containers", "securityContext"), securityContext=SECURE, containers=several(CONTAINER),
                volumes=several(VOLUME)),
)  # fmt: skip
GROUP = {"rayStartParams": NAMES, "template": POD}
RAY_CLUSTER = closed(
    ("headGroupSpec",), rayVersion=TEXT, enableInTreeAutoscaling=FLAG,
    headGroupSpec=closed(("rayStartParams", "template"), **GROUP),
    workerGroupSpecs=several(closed(("groupName", "rayStartParams", "template"), groupName=TEXT, replicas=COUNT,
                                    minReplicas=COUNT, maxReplicas=COUNT, **GROUP)),
)  # fmt: skip


def kind(api: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = closed(name={"type": "string", "pattern": "^[a-z0-9-]+$"}, generateName=TEXT)
    fixed = {"apiVersion": {"const": api}, "kind": {"const": name}}
    return closed(("apiVersion", "kind", "metadata", "spec"), **fixed, metadata=metadata, spec=spec)


LABELS = closed(matchLabels=NAMES)
KUBERNETES = {
    "RayCluster": kind("ray.io/v1", "RayCluster", RAY_CLUSTER),
    "RayJob": kind("ray.io/v1", "RayJob", closed(
        ("entrypoint", "rayClusterSpec"), entrypoint=TEXT, shutdownAfterJobFinishes=FLAG, ttlSecondsAfterFinished=COUNT,
        backoffLimit=COUNT, rayClusterSpec=RAY_CLUSTER)),
    "Deployment": kind("apps/v1", "Deployment", closed(
        ("selector", "template"), replicas=COUNT, strategy=closed(type={"enum": ["Recreate", "RollingUpdate"]}),
        selector=LABELS, template=POD)),
    "Service": kind("v1", "Service", closed(
        ("ports",), selector=NAMES, ports=several(closed(("port",), name=TEXT, port=COUNT, targetPort=COUNT)))),
    "PersistentVolumeClaim": kind("v1", "PersistentVolumeClaim", closed(
        ("accessModes", "resources"), accessModes=several({"enum": ["ReadWriteOnce", "ReadWriteMany"]}),
        resources=RESOURCES)),
    "Kustomization": closed(
        ("apiVersion", "kind", "resources"), apiVersion={"const": "kustomize.config.k8s.io/v1beta1"},
        kind={"const": "Kustomization"}, namespace=TEXT, resources=TEXTS,
        images=several(closed(("name",), name=TEXT, newName=TEXT, newTag=TEXT))),
}  # fmt: skip
PROMETHEUS = closed(
    ("scrape_configs",), **{"global": closed(scrape_interval={"type": "string", "pattern": r"^\d+[smh]$"})},
    scrape_configs=several(closed(("job_name",), job_name=TEXT, dns_sd_configs=several(closed(
        ("names",), names=TEXTS, type={"enum": ["A", "AAAA", "SRV"]}, port=COUNT)))),
)  # fmt: skip
SOURCE = closed(("type", "uid"), type=TEXT, uid=TEXT)
DASHBOARD = closed(
    ("title", "panels", "schemaVersion"), uid=TEXT, title=TEXT, schemaVersion=COUNT, version=COUNT, timezone=TEXT,
    refresh=TEXT, time=closed(**{"from": TEXT, "to": TEXT}), templating=ANY,
    panels=several(closed(
        ("id", "title", "type", "gridPos", "targets"), id=COUNT, title=TEXT, type={"enum": ["timeseries"]},
        datasource=SOURCE, fieldConfig=ANY, gridPos=closed(("h", "w", "x", "y"), h=COUNT, w=COUNT, x=COUNT, y=COUNT),
        targets=several(closed(("refId", "expr"), refId=TEXT, expr=TEXT, datasource=SOURCE)))),
)  # fmt: skip
