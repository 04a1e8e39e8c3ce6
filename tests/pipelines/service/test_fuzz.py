"""Requests made from the service's own OpenAPI description: none ends in an error of the server's or an odd answer."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis", reason="a package of the extra dev")

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from rushes.pipelines.review.filling import NewItem, fill
from tests.pipelines.review.conftest import SETTINGS

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
EXAMPLES = 60  # per operation and mode
STREAMS = "/events"  # has no end while its job runs


@pytest.fixture(scope="module")
def places(served) -> dict[str, str]:
    """What there is, by the names of paths' parts: requests that are made up go through to it."""
    run = served.app.state.library.run("first")
    rows = [row for row in run.table("clips", ["clip_id", "media"]).to_pylist() if row["media"]][:6]
    items = [NewItem(row["clip_id"], 384, 24.0, 1280, 720, rank=float(n)) for n, row in enumerate(rows)]
    fill(served.app.state.reviews, "first", "fuzzed", run.snapshot, SETTINGS, items)
    for side in "ab":
        (served.folder / "footage" / side).mkdir(exist_ok=True)
        for number in range(3):
            (served.folder / "footage" / side / f"{number}.mp4").write_bytes(b"no film, but a file")
    sides = {side: {"model": side, "folder": str(served.folder / "footage" / side)} for side in "ab"}
    assert served.post("/compare", {"name": "fuzzed", **sides}).status_code == 201
    return {"run": "first", "clip": rows[0]["clip_id"], "queue": "fuzzed", "name": "fuzzed"}


@pytest.mark.heavy
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
@pytest.mark.parametrize("there", [False, True], ids=["anywhere", "at what is there"])
def test_no_request_ends_in_an_error_of_the_servers(served, places, mode, there):
    description = schemathesis.openapi.from_asgi("/api/v1/openapi.json", served.app)
    operations = [found.ok() for found in description.get_all_operations()]
    asked, wrong = 0, {}
    for operation in operations:
        if operation.path.endswith(STREAMS):
            continue

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            nonlocal asked
            asked += 1
            if there:
                known = {name: places[name] for name in case.path_parameters or {} if name in places}
                case.path_parameters = {**(case.path_parameters or {}), **known}
            response = case.call(headers=served.headers("engineer"))
            case.validate_response(response, checks=CHECKS)

        try:
            ask()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:  # nothing about the operation can be wrong
                wrong[operation.method, operation.path] = str(getattr(error, "exceptions", [error])[0])[:600]
    assert wrong == {} and asked > EXAMPLES
