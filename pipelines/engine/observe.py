"""Listeners for what people already run: Ray's Prometheus exporter, OpenTelemetry, OpenLineage, JSON lines.

Each is off unless its environment variable asks for it, but for the metrics, which cost nothing where no exporter
runs. What goes wrong in one of them is never the run's fault: it is said once, on stderr, and the run goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from rushes.curation.manifest import Run
from rushes.pipelines.engine.events import Event, Listener

LOG_JSON = "RUSHES_LOG_JSON"  # any value: events as JSON lines on stderr
SPANS = "OTEL_EXPORTER_OTLP_ENDPOINT"  # where OpenTelemetry sends spans
LINEAGE = "OPENLINEAGE_URL"  # http(s): where an event is posted at publish; else a file that it is appended to
LINEAGE_TIMEOUT_S = 10.0
PRODUCER = "rushes"
SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/definitions/RunEvent"

#: name -> (kind, help, labels). Ray's exporter writes `ray_` in front. deploy/grafana draws these and no others.
METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "rushes_done_total": ("counter", "what a stage has finished", ("stage", "unit")),
    "rushes_waiting": ("gauge", "what a stage has yet to do", ("stage", "unit")),
    "rushes_rejected_total": ("counter", "clips rejected, by rule", ("rule",)),
    "rushes_errors_total": ("counter", "errors, by kind", ("kind",)),
    "rushes_footage_seconds_total": ("counter", "seconds of footage that a stage has finished", ("stage",)),
    "rushes_core_seconds_total": ("counter", "core seconds that the run has held", ("stage",)),
    "rushes_leases_waiting": ("gauge", "leases that no worker has taken yet", ()),
    "rushes_gpu_share": ("gauge", "share of the run's GPU workers that are at a lease, 0-1", ()),
    "rushes_caption_tokens_total": ("counter", "tokens of captions", ()),
}
#: Fields of an event's data that are metrics of their own.
FROM_DATA = {
    "leases_waiting": "rushes_leases_waiting", "gpu_share": "rushes_gpu_share",
    "caption_tokens": "rushes_caption_tokens_total",
}  # fmt: skip


def observers(root: str) -> list[Listener]:
    """The listeners that the environment asks for. root: of the run, told with every span."""
    found: list[Listener] = [_safe(Metrics(), "metrics")]
    if os.environ.get(LOG_JSON):
        found.append(_safe(JsonLines(sys.stderr, root), "JSON lines"))
    if os.environ.get(SPANS):
        found.append(_safe(Spans(root), "spans"))
    return found


class Metrics:
    """Counters and gauges in Ray's exporter, from the totals that events carry. make: (name) -> a metric, for tests."""

    def __init__(self, make: Callable[[str], Any] | None = None) -> None:
        self._make = make or _ray_metric
        self._metrics: dict[str, Any] = {}
        self._cores = 0.0  # asked for once: a cluster that is gone must not be asked again and again
        self._told: dict[tuple[str, tuple[str, ...]], float] = {}

    def __call__(self, event: Event) -> None:
        if event.stage:
            stage, unit = event.stage, event.unit
            self._total("rushes_done_total", event.done, stage=stage, unit=unit)
            self._set("rushes_waiting", max(event.total - event.done, 0), stage=stage, unit=unit)
            self._total("rushes_footage_seconds_total", event.footage_s, stage=stage)
            if "seconds" in event.data:
                self._cores = self._cores or _cores()
                self._total("rushes_core_seconds_total", event.data["seconds"] * self._cores, stage=stage)
        for rule, count in event.rejected.items():
            self._total("rushes_rejected_total", count, rule=rule)
        for kind, count in event.errors.items():
            self._total("rushes_errors_total", count, kind=kind)
        for key, name in FROM_DATA.items():
            if key in event.data:
                (self._total if METRICS[name][0] == "counter" else self._set)(name, float(event.data[key]))

    def _total(self, name: str, value: float, **labels: str) -> None:
        """Raise a counter to the total that an event tells."""
        key = name, tuple(labels.values())
        more = value - self._told.get(key, 0.0)
        if more > 0:
            self._told[key] = value
            self._metric(name).inc(more, tags=labels)

    def _set(self, name: str, value: float, **labels: str) -> None:
        self._metric(name).set(value, tags=labels)

    def _metric(self, name: str) -> Any:
        if name not in self._metrics:
            self._metrics[name] = self._make(name)
        return self._metrics[name]


class JsonLines:
    """Every event as a JSON line, for whoever collects logs."""

    def __init__(self, stream: TextIO, root: str) -> None:
        self._stream, self._root = stream, root

    def __call__(self, event: Event) -> None:
        self._stream.write(json.dumps({"run": self._root, **json.loads(event.line())}) + "\n")
        self._stream.flush()


class Spans:
    """A span per stage, and one per lease inside the newest stage that is under way.

    exporter: an OpenTelemetry span exporter; None: OTLP over HTTP to the endpoint of the environment.
    """

    def __init__(self, root: str, exporter: Any = None) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor

            if exporter is None:
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                exporter = OTLPSpanExporter()
        except ImportError as error:
            raise RuntimeError(f"{SPANS} is set, but the extra `observe` is not installed.") from error
        provider = TracerProvider(resource=Resource.create({"service.name": PRODUCER, "rushes.run": root}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        self._provider, self._tracer = provider, provider.get_tracer(PRODUCER)
        self._open: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        at = int(event.time * 1e9)
        if event.kind == "stage":
            self._open[event.stage] = self._tracer.start_span(event.stage, start_time=at)
        elif event.kind == "stage_end" and event.stage in self._open:
            span = self._open.pop(event.stage)
            told = {"done": event.done, "unit": event.unit, "footage_s": event.footage_s}
            span.set_attributes({f"rushes.{name}": value for name, value in told.items()})
            span.set_attributes({f"rushes.errors.{kind}": count for kind, count in event.errors.items()})
            span.end(end_time=at)
            self._provider.force_flush(2_000)
        elif event.kind == "lease":
            told = event.data
            span = self._tracer.start_span(
                f"{told['work']} lease", start_time=int(told["began"] * 1e9), context=self._context()
            )
            span.set_attributes({f"rushes.{name}": str(told[name]) for name in ("lease", "node", "host")})
            span.end(end_time=at)

    def _context(self) -> Any:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(list(self._open.values())[-1]) if self._open else None


def announce(run: Run, inputs: list[str]) -> None:
    """Tell OpenLineage, where the environment asks for it, that a run was published: its inputs and its tables."""
    target = os.environ.get(LINEAGE)
    if target:
        with _said_once("OpenLineage"):
            _send(target, lineage_event(run, inputs))


def lineage_event(run: Run, inputs: list[str]) -> dict[str, Any]:
    """An OpenLineage run event: COMPLETE, the inputs as data sets, a data set per table."""
    namespace, _, name = run.root.rpartition("/")
    tables = run.record["tables"]
    return {
        "eventType": "COMPLETE",
        "eventTime": datetime.now(UTC).isoformat(),
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
        "run": {"runId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run.root}#{run.record['snapshot']}"))},
        "job": {"namespace": namespace or "rushes", "name": f"{name}.curate"},
        "inputs": [_dataset(uri) for uri in inputs],
        "outputs": [
            {
                **_dataset(f"{run.root}/{table}"),
                "outputFacets": {
                    "outputStatistics": {"_producer": PRODUCER, "_schemaURL": SCHEMA, "rowCount": facts["rows"]}
                },
            }
            for table, facts in tables.items()
        ],
    }


def _dataset(uri: str) -> dict[str, str]:
    scheme, found, rest = uri.partition("://")
    if not found:
        return {"namespace": "file", "name": uri}
    bucket, _, name = rest.partition("/")
    return {"namespace": f"{scheme}://{bucket}", "name": name}


def _send(target: str, event: dict[str, Any]) -> None:
    if not target.startswith(("http://", "https://")):
        with open(target, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        return
    import urllib.request

    url = target.rstrip("/") + "/api/v1/lineage"
    headers = {"content-type": "application/json"}
    if os.environ.get("OPENLINEAGE_API_KEY"):
        headers["authorization"] = f"Bearer {os.environ['OPENLINEAGE_API_KEY']}"
    request = urllib.request.Request(url, json.dumps(event).encode(), headers)
    urllib.request.urlopen(request, timeout=LINEAGE_TIMEOUT_S).close()


def _ray_metric(name: str) -> Any:
    from ray.util import metrics

    kind, text, labels = METRICS[name]
    make = metrics.Counter if kind == "counter" else metrics.Gauge
    return make(name, description=text, tag_keys=labels)


def _cores() -> float:
    import ray

    return float(ray.cluster_resources().get("CPU", 1.0)) if ray.is_initialized() else float(os.cpu_count() or 1)


def _safe(listener: Listener, what: str) -> Listener:
    """The listener, switched off at its first error."""
    broken = False

    def listen(event: Event) -> None:
        nonlocal broken
        if not broken:
            broken = True
            with _said_once(what):
                listener(event)
                broken = False

    return listen


@contextlib.contextmanager
def _said_once(what: str) -> Any:
    try:
        yield
    except Exception as error:
        print(f"rushes: {what} failed and is left out: {error}", file=sys.stderr)
