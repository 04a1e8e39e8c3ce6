"""`rushes serve` and `rushes token`: the service by itself, and who may use it."""

from __future__ import annotations

import errno
from typing import Annotated

import typer

from rushes.pipelines.cli.terminal import console, fail


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(token)


def serve(
    runs: Annotated[str, typer.Argument(help="The folder of runs, or its s3:// or gs:// address.")],
    host: Annotated[str, typer.Option(help="Where to listen; beyond loopback only with --tokens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8600,
    tokens: Annotated[str | None, typer.Option(help="Tokens file; `rushes token` writes it.")] = None,
    root: Annotated[
        list[str] | None, typer.Option("--root", help="Folder or address that inputs may lie in; may be repeated.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="Folder of the jobs' data base; default RUNS/.service.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Dashboard of a Ray cluster to send jobs to; none: processes beside the service.")
    ] = None,
    reviews: Annotated[
        str | None,
        typer.Option(
            envvar="RUSHES_REVIEWS",
            help="Reviews' database; default SQLite in the state folder. "
            "postgresql+psycopg://USER:PASSWORD@HOST/NAME for many.",
        ),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Engineers' recipes may name meters, commands, files and servers.")
    ] = False,
    rate: Annotated[float, typer.Option(help="Requests a second that one person may send.", min=1)] = 2_000,
    jobs: Annotated[int, typer.Option(help="Jobs that run at once.", min=1)] = 1,
) -> None:
    """Open the studio on runs: look, review, compare; and the same by HTTP, described at /api/v1/openapi.json.

    Example:  rushes serve runs --root /footage
    """
    try:
        import uvicorn

        from rushes.pipelines.service.app import create_app
    except ImportError:
        fail("the service needs the extra `serve`: pip install 'rushes[serve]'.")
    from rushes.pipelines.review.database import ReviewError
    from rushes.pipelines.service.access import AccessError
    from rushes.pipelines.service.settings import ServiceError, settings

    try:
        chosen = settings(
            runs,
            host,
            tokens,
            tuple(root or ()),
            state,
            address=address,
            reviews=reviews,
            allow_code=allow_code,
            jobs_at_once=jobs,
            requests_per_s=rate,
        )
        app = create_app(chosen)
    except (ServiceError, AccessError, ReviewError) as error:
        fail(str(error))
    _free(host, port)
    console.print(f"Serving {chosen.runs} at http://{host}:{port} (API: /api/v1)", highlight=False, soft_wrap=True)
    uvicorn.run(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=3, h11_max_incomplete_event_size=64 * 1024, backlog=2048,
    )  # fmt: skip


def _free(host: str, port: int) -> None:
    """A sentence where nobody can listen there."""
    import socket

    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        fail(f"--port {port} of {host} is taken; choose another." if taken else f"--host {host}: {error.strerror}.")


def token(
    role: Annotated[str, typer.Argument(help="viewer, reviewer or engineer.")],
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    tokens: Annotated[str, typer.Option(help="The tokens file; the token's hash is appended.")] = "tokens.txt",
) -> None:
    """Make a token for a person; it is printed once and stored as a hash."""
    from rushes.pipelines.service.access import AccessError, add_token

    try:
        console.print(add_token(tokens, role, name), highlight=False, soft_wrap=True)
    except AccessError as error:
        fail(str(error))
