"""Requests made from the service's own OpenAPI description: none ends in an error of the server's or an odd answer."""

from __future__ import annotations

import pytest

pytest.importorskip("schemathesis", reason="a package of the extra dev")

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]
EXAMPLES = 60  # per operation and mode
STREAMS = "/events"  # has no end while its job runs


@pytest.mark.heavy
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
def test_no_request_ends_in_an_error_of_the_servers(served, mode):
    description = schemathesis.openapi.from_asgi("/api/v1/openapi.json", served.app)
    operations = [found.ok() for found in description.get_all_operations()]
    asked = 0
    for operation in operations:
        if operation.path.endswith(STREAMS):
            continue

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            nonlocal asked
            asked += 1
            response = case.call(headers=served.headers("engineer"))
            case.validate_response(response, checks=CHECKS)

        try:
            ask()
        except Exception as error:
            if "Unsatisfiable" not in type(error).__name__:  # nothing about the operation can be wrong
                raise
    assert asked > EXAMPLES
