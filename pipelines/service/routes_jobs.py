"""Jobs: made from a recipe by engineers, watched by everybody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import PlainTextResponse, StreamingResponse

from rushes.curation import recipe as recipes
from rushes.curation import rules
from rushes.curation.meters import custom_columns
from rushes.pipelines.service import places
from rushes.pipelines.service.access import Person
from rushes.pipelines.service.jobs import OPEN_STATES, Job, Jobs
from rushes.pipelines.service.library import finite
from rushes.pipelines.service.recipes import recipe_from

TAIL_EVERY_S = 0.5
BEAT_S = 15.0  # a stream with nothing to say shows so often that it lives
LINE_MOST = 64 * 1024  # bytes of an event
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$", examples=["0f3ac1d2e4b5"])]


class JobRequest(BaseModel):
    """A curation: footage, a shipped recipe with changed keys, and the run's name. The same again resumes the run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"run": "first", "recipe": "cpu", "inputs": ["/footage/day-1"], "set": {"motion.vmaf_min": 1.5}}
            ]
        },
    )
    run: str = Field(pattern=places.RUN_NAME, description="The run's folder below the runs.")
    recipe: str = Field("cpu", pattern=r"^[a-z0-9-]{1,40}$", description="A shipped recipe.")
    inputs: list[Annotated[str, Field(min_length=1, max_length=places.TEXT_MOST)]] = Field(
        min_length=1, max_length=1_000, description="Files, folders, patterns or lists, by absolute path or address."
    )
    set: dict[Annotated[str, Field(max_length=200, pattern=r"^[\w.-]+$")], Any] = Field(
        default={}, max_length=200, description="Recipe keys to change, as `--set` does."
    )


class JobView(BaseModel):
    """A job as the service shows it."""

    id: str
    owner: str
    run: str
    request: dict[str, Any]
    state: str = Field(
        description="queued, running, stopping, succeeded, failed, stopped or lost", examples=["running"]
    )
    created: float
    began: float | None = None
    ended: float | None = None
    exit_code: int | None = Field(None, description="0 done; 2 the request is wrong; 3 over the error budget")
    said: str = ""


router = APIRouter(prefix="/jobs", tags=["jobs"])


def jobs(request: Request) -> Jobs:
    return request.app.state.jobs


def engineer(request: Request) -> Person:
    person: Person = request.scope["person"]
    if not person.may("engineer"):
        raise HTTPException(403, f"This needs the role engineer; {person.name} is {person.role}.")
    return person


def _view(job: Job) -> JobView:
    return JobView(**{key: value for key, value in asdict(job).items() if key in JobView.model_fields})


REFUSED = {code: {"description": text} for code, text in
           ((400, "not JSON"), (403, "not this role"), (404, "no such job"), (409, "not in this state"))}  # fmt: skip


@router.post("", status_code=201, summary="Start a curation", responses=REFUSED)
async def create(request: Request, wanted: JobRequest, person: Annotated[Person, Depends(engineer)]) -> JobView:
    shelf = request.app.state.library
    settings = shelf.settings

    def make() -> Job:
        built = recipe_from(wanted.recipe, wanted.set, settings.allow_code)
        rules.check(built, [field.name for field in custom_columns(built.meters)])
        places.run_root(settings.runs, wanted.run)
        uris = places.inputs(wanted.inputs, settings.roots)
        return jobs(request).create(person.name, wanted.run, built, uris, finite(wanted.model_dump(mode="json")))

    return _view(await shelf.work(make))


@router.get("", summary="Jobs, newest first")
async def every(request: Request, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> list[JobView]:
    return [_view(job) for job in jobs(request).list(limit=limit)]


@router.get("/{job}", summary="One job", responses=REFUSED)
async def one(request: Request, job: JobId) -> JobView:
    return _view(jobs(request).get(job))


@router.post("/{job}/stop", summary="Ask a job to stop; the same request goes on from there", responses=REFUSED)
async def stop(request: Request, job: JobId, person: Annotated[Person, Depends(engineer)]) -> JobView:
    return _view(await request.app.state.library.work(lambda: jobs(request).stop(job)))


@router.get("/{job}/log", summary="The end of what a job wrote", response_class=PlainTextResponse, responses=REFUSED)
async def log(
    request: Request, job: JobId, most: Annotated[int, Query(ge=1, le=1_000_000)] = 20_000
) -> PlainTextResponse:
    store = jobs(request)
    found = store.get(job)
    return PlainTextResponse(await request.app.state.library.work(lambda: store.log(found, most)))


@router.get(
    "/{job}/events", summary="What happens in a job, live, as server-sent events", response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}, **REFUSED},
)  # fmt: skip
async def events(
    request: Request, job: JobId,
    last: Annotated[str | None, Header(alias="last-event-id", pattern=r"^\d{1,15}$")] = None,
) -> StreamingResponse:  # fmt: skip
    found = jobs(request).get(job)
    state = request.app.state
    if state.streams >= state.library.settings.streams_most:
        raise HTTPException(429, "Too many streams are open; close one.")
    start = int(last) if last else found.events_from
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_stream(request, job, start), media_type="text/event-stream", headers=headers)


async def _stream(request: Request, job_id: str, at: int) -> AsyncIterator[bytes]:
    """The run's event lines from byte `at`, the job whenever its state changes, and an end once it has ended."""
    state, store = request.app.state, jobs(request)
    state.streams += 1
    shown, quiet = "", 0.0
    try:
        while not state.ending.is_set():
            job = store.get(job_id)
            at, lines = await asyncio.to_thread(_lines, store.events_file(job) if job.began else None, at)
            for place, line in lines:
                yield _message(_kind(line), line, place)
            if job.state != shown:
                shown = job.state
                yield _message("job", _view(job).model_dump_json(), at)
            if job.state not in OPEN_STATES and not lines:
                return
            quiet = 0.0 if lines else quiet + TAIL_EVERY_S
            if quiet >= BEAT_S:
                quiet = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(0 if lines else TAIL_EVERY_S)
    finally:
        state.streams -= 1


def _lines(path: Any, at: int) -> tuple[int, list[tuple[int, str]]]:
    """Whole lines of a growing file from byte `at`: (where it ends, [(place after the line, line)])."""
    if path is None:
        return at, []
    found = []
    try:
        with open(path, "rb") as file:
            file.seek(at)
            for raw in file.read(16 * LINE_MOST).splitlines(keepends=True):
                if not raw.endswith(b"\n"):
                    break
                at += len(raw)
                found.append((at, raw.decode("utf-8", "replace").strip()))
    except (FileNotFoundError, NotADirectoryError):
        return at, []
    return at, found


def _kind(line: str) -> str:
    try:
        kind = json.loads(line).get("kind", "event")
    except (ValueError, AttributeError):
        return "event"
    return kind if isinstance(kind, str) and kind.isidentifier() else "event"


def _message(kind: str, data: str, place: int) -> bytes:
    return f"event: {kind}\nid: {place}\ndata: {data}\n\n".encode()


recipe_router = APIRouter(prefix="/recipes", tags=["recipes"])


@recipe_router.get("", summary="Names of the shipped recipes")
async def recipe_names() -> dict[str, list[str]]:
    return {"recipes": recipes.shipped()}


@recipe_router.get("/{name}", summary="A shipped recipe in full")
async def recipe(name: Annotated[str, Path(pattern=r"^[a-z0-9-]{1,40}$", examples=["cpu"])]) -> dict[str, Any]:
    return recipe_from(name, {}, False).model_dump(mode="json")
