"""What runs tell to the outside: metrics add up to the events' totals, a span per stage, lineage at publish."""

from __future__ import annotations

import http.server
import io
import json
import threading
import time
import urllib.request

import pytest

from rushes.pipelines.engine import observe
from rushes.pipelines.engine.events import Bus, Event
from tests.pipelines.synthetic_run import make_run

EXPORTED_S = 30.0  # Ray hands metrics on every ten seconds


class Recorder:
    """A metric that remembers."""

    def __init__(self, name):
        self.values: dict[tuple[str, ...], float] = {}
        self.labels = observe.METRICS[name][2]

    def inc(self, value, tags):
        assert tuple(tags) == self.labels
        key = tuple(tags.values())
        self.values[key] = self.values.get(key, 0) + value

    def set(self, value, tags):
        assert tuple(tags) == self.labels
        self.values[tuple(tags.values())] = value


def test_metrics_add_up_to_what_the_events_tell():
    made = {}
    listener = observe.Metrics(lambda name: made.setdefault(name, Recorder(name)))
    bus = Bus([listener])
    stage = bus.stage("cut", 3, "clips", 30.0)
    stage.error("decode", 2)
    stage.reject({"motion.vmaf_min": 4})
    stage.step(2, 20.0)
    stage.step(1, 10.0)
    stage.end()
    bus.emit(Event("progress", data={"leases_waiting": 5, "caption_tokens": 7}))
    assert made["rushes_done_total"].values == {("cut", "clips"): 3}
    assert made["rushes_waiting"].values == {("cut", "clips"): 0}
    assert made["rushes_footage_seconds_total"].values == {("cut",): 30.0}
    assert made["rushes_rejected_total"].values == {("motion.vmaf_min",): 4}
    assert made["rushes_errors_total"].values == {("decode",): 2}
    assert made["rushes_leases_waiting"].values == {(): 5} and made["rushes_caption_tokens_total"].values == {(): 7}


def test_every_metric_has_a_name_that_rays_exporter_takes():
    assert {observe._ray_metric(name).info["name"] for name in observe.METRICS} == set(observe.METRICS)


def test_a_runs_metrics_stand_in_rays_own_exporter(curated):
    """As Prometheus reads them, at the port that Ray's node names."""
    pytest.importorskip("prometheus_client", reason="the extra `cluster`")
    import ray

    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    bus = Bus([observe.Metrics()])  # gauges leave the exporter some time after their run
    bus.stage("probe", 1, "sources")
    bus.emit(Event("progress", data={"leases_waiting": 1}))
    wanted = {f"ray_{name}" for name in observe.METRICS} - {"ray_rushes_gpu_share", "ray_rushes_caption_tokens_total"}
    until = time.monotonic() + EXPORTED_S
    while time.monotonic() < until:
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        if all(f"\n{name}" in text for name in wanted):
            break
        time.sleep(0.5)
    lines = [line for line in text.splitlines() if line.startswith("ray_rushes_")]
    assert {name for name in wanted if not any(line.startswith(name) for line in lines)} == set()
    done = [
        line
        for line in lines
        if line.startswith("ray_rushes_done_total") and 'Stage="probe"' in line.replace("stage", "Stage")
    ]
    assert done and float(done[0].split()[-1]) >= len(curated.run.table("sources"))


def test_a_stage_is_a_span_with_its_counts():
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    bus = Bus([observe.Spans("runs/x", memory)])
    stage = bus.stage("analyze", 2, "sources")
    bus.emit(Event("lease", data={"lease": 3, "work": "observe", "began": 1.0, "node": "n", "host": "h"}, time=2.0))
    stage.step(2)
    stage.end()
    lease, span = memory.get_finished_spans()
    assert span.name == "analyze" and span.attributes["rushes.done"] == 2
    assert lease.parent.span_id == span.context.span_id and lease.end_time - lease.start_time == 1_000_000_000
    assert lease.name == "observe lease" and lease.attributes["rushes.node"] == "n"


def test_events_are_json_lines_on_request(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(observe.sys, "stderr", stream)
    monkeypatch.setenv(observe.LOG_JSON, "1")
    Bus(observe.observers("runs/x")[1:]).note("three words here")
    assert json.loads(stream.getvalue()) | {"time": 0} == {
        "run": "runs/x", "kind": "note", "text": "three words here", "time": 0,
    }  # fmt: skip


def test_a_listener_that_fails_is_left_out_and_said_once(capsys):
    def broken(event):
        raise OSError("no such host")

    bus = Bus([observe._safe(broken, "spans")])
    bus.note("one")
    bus.note("two")
    assert capsys.readouterr().err.count("no such host") == 1


def test_publishing_is_told_to_openlineage_as_a_post_or_in_a_file(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    got = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        for target in (f"http://127.0.0.1:{server.server_port}", str(tmp_path / "lineage.jsonl")):
            monkeypatch.setenv(observe.LINEAGE, target)
            observe.announce(run, ["s3://raw/a.mp4", "/footage/b.mp4"])
    finally:
        server.shutdown()
    ((path, event),) = got
    filed = json.loads((tmp_path / "lineage.jsonl").read_text())
    assert path == "/api/v1/lineage" and event["run"] == filed["run"] and event["eventType"] == "COMPLETE"
    assert event["inputs"][0] == {"namespace": "s3://raw", "name": "a.mp4"}
    rows = {one["name"].removeprefix(run.root + "/"): one["outputFacets"]["outputStatistics"]["rowCount"]
            for one in event["outputs"]}  # fmt: skip
    assert rows["clips"] == 400
