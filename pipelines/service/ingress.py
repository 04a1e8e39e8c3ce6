"""The service on Ray Serve: `serve run rushes.pipelines.service.ingress:app runs=/data/runs tokens=/data/tokens`."""

from __future__ import annotations

from typing import Any


def app(arguments: dict[str, str]) -> Any:
    """A Serve application of one replica: jobs and their data base have one keeper. arguments: as of `rushes serve`.

    Ray Serve listens for others, so a tokens file is needed. roots: separated by commas.
    """
    from ray import serve

    from rushes.pipelines.service.app import create_app
    from rushes.pipelines.service.settings import settings

    roots = tuple(root for root in arguments.get("roots", "").split(",") if root)
    chosen = settings(
        arguments["runs"], arguments.get("host", "0.0.0.0"), arguments.get("tokens"), roots, arguments.get("state"),
        address=arguments.get("address"),
    )  # fmt: skip

    @serve.deployment(num_replicas=1, max_ongoing_requests=1_000)
    @serve.ingress(lambda: create_app(chosen))
    class Service:
        pass

    return Service.bind()
