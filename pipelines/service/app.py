"""The service: routes below /api/v1, behind the gate. Built by `create_app`, run by `rushes serve` or Ray Serve."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rushes.curation.manifest import ManifestError
from rushes.curation.recipe import RecipeError
from rushes.curation.video.inputs import InputError
from rushes.pipelines.engine.ray_jobs import ClusterError
from rushes.pipelines.review.database import Conflict, Missing, ReviewError, Reviews, ReviewsAway
from rushes.pipelines.service import routes_compare, routes_jobs, routes_look, routes_review, routes_runs
from rushes.pipelines.service.access import ROLES, Person, Tokens
from rushes.pipelines.service.jobs import JobError, Jobs
from rushes.pipelines.service.library import Kept, Library
from rushes.pipelines.service.limits import COOKIE, Gate
from rushes.pipelines.service.places import PlaceError
from rushes.pipelines.service.proxies import Proxies
from rushes.pipelines.service.settings import Settings
from rushes.pipelines.studio.pages import Pages
from rushes.pipelines.view.clips import QueryError

API = "/api/v1"
STATUS_OF: dict[type[Exception], int] = {
    ManifestError: 404, PlaceError: 422, QueryError: 422, RecipeError: 422, InputError: 422, JobError: 409,
    ClusterError: 424, Missing: 404, Conflict: 409, ReviewError: 422, ReviewsAway: 503,
}  # fmt: skip
NOT_ALLOWED = {401: {"description": "no token, or none that is known"}, 422: {"description": "the request is wrong"},
               404: {"description": "there is no such thing"}, 429: {"description": "too many requests"}}  # fmt: skip

session = APIRouter(tags=["session"])


def create_app(settings: Settings) -> Any:
    """The ASGI application of these settings."""
    app = FastAPI(
        title="Rushes", version=version("rushes"), openapi_url=f"{API}/openapi.json", docs_url=None, redoc_url=None,
        description="Curation runs: what went in, what was kept and why; jobs that make them.", lifespan=_life,
    )  # fmt: skip
    app.state.settings = settings
    app.state.library, app.state.streams = Library(settings), 0
    app.state.jobs = None
    app.state.proxies = Proxies(settings.state / "proxies")
    app.state.reviews = Reviews(settings.reviews_url)
    app.state.review_limit = CapacityLimiter(routes_review.AT_ONCE)
    app.state.reviews_seen, app.state.frame_times = {}, {}
    for router in (
        session,
        routes_runs.router,
        routes_look.router,
        routes_review.router,
        routes_compare.router,
        routes_jobs.router,
        routes_jobs.recipe_router,
    ):
        app.include_router(router, prefix=API, responses=NOT_ALLOWED)
    for kind, status in STATUS_OF.items():
        app.add_exception_handler(kind, _sentence(status))
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    if isinstance(settings.tokens, Tokens):
        _describe_tokens(app)
    app.add_middleware(Kept, library=app.state.library)
    app.add_middleware(Pages)
    app.add_middleware(Gate, settings=settings)  # outermost: nothing is said before it
    return app


@contextlib.asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.ending = asyncio.Event()
    app.state.jobs = Jobs(settings.state, settings.runs, settings.jobs_at_once, settings.address)
    try:
        yield
    finally:
        app.state.ending.set()
        app.state.jobs.close()
        app.state.proxies.close()
        app.state.reviews.close()


@session.get("/health", summary="Whether the service is up")
async def health() -> dict[str, str]:
    return {"status": "ok", "version": version("rushes")}


@session.get("/me", summary="Who asks, and in which role")
async def me(request: Request) -> dict[str, Any]:
    person: Person = request.scope["person"]
    return {"name": person.name, "role": person.role, "roles": ROLES}


@session.post("/session", summary="Keep the token in a cookie, for pages that show media", status_code=204)
async def begin(request: Request) -> Response:
    token = request.headers.get("authorization", "").partition(" ")[2].strip()
    response = Response(status_code=204)
    if token and request.app.state.settings.tokens is not None:
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
    return response


@session.delete("/session", summary="Forget the cookie", status_code=204)
async def end() -> Response:
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, path="/")
    return response


def _reply(status: int, detail: str, headers: Any = None, code: str | None = None) -> Response:
    body = json.dumps({"detail": detail, **({"code": code} if code else {})}, ensure_ascii=True)
    return Response(body, status, headers=headers, media_type="application/json")


def _sentence(status: int) -> Any:
    async def handle(request: Request, error: Exception) -> Response:
        code = 404 if isinstance(error, JobError) and "no job" in str(error) else status
        headers = {"retry-after": "1"} if status == 503 else None
        said = _without_places(str(error), request.app.state.settings)
        return _reply(code, said[:2_000], headers, getattr(error, "code", None))

    return handle


def _without_places(said: str, settings: Settings) -> str:
    """A sentence with runs by their names: where they lie on the server is no business of who asks."""
    for place in (settings.runs.rstrip("/"), str(settings.state)):
        said = said.replace(f"{place}/", "").replace(place, "the service's folder")
    return said


async def _invalid(request: Request, error: Exception) -> Response:
    first = error.errors()[0]  # type: ignore[attr-defined]
    if first["type"] == "json_invalid":
        return _reply(400, "The body is no JSON.")
    where = ".".join(str(part) for part in first["loc"])
    return _reply(422, f"{where}: {first['msg'].removeprefix('Value error, ')}.")


async def _refused(request: Request, error: Exception) -> Response:
    return _reply(error.status_code, str(error.detail), error.headers)  # type: ignore[attr-defined]


def _describe_tokens(app: FastAPI) -> None:
    """Bearer tokens in the OpenAPI description."""
    inner = app.openapi

    def openapi() -> dict[str, Any]:
        found = inner()
        found.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
        return found

    app.openapi = openapi  # type: ignore[method-assign]
