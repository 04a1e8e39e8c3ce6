"""Runs, read only: funnels, columns, histograms, clips, one clip's story, its stills and media."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from rushes.curation import manifest
from rushes.curation.manifest import Run
from rushes.pipelines.service.library import CACHE_CONTROL, Library
from rushes.pipelines.service.media import media_response
from rushes.pipelines.service.places import RUN_NAME, media_place
from rushes.pipelines.view import clips as view_clips
from rushes.pipelines.view.advice import advise
from rushes.pipelines.view.funnel import funnel as view_funnel
from rushes.pipelines.view.histograms import BINS, BINS_MOST, histogram
from rushes.pipelines.view.stills import stills_of
from rushes.pipelines.view.story import story
from rushes.pipelines.view.tables import query, recipe_of, records, schema_of

ERRORS_MOST = 1_000  # failed inputs in a funnel

RunName = Annotated[str, Path(pattern=RUN_NAME, description="A run's folder below the runs.", examples=["first"])]
ClipId = Annotated[str, Path(pattern=r"^[0-9A-Za-z_-]{1,64}$", description="A clip's id.", examples=["4fa8"])]
ColumnName = Annotated[str, Path(pattern=r"^\w{1,64}$", description="A column of the clips.", examples=["vmaf_motion"])]
Where = Annotated[
    list[str],
    Query(
        description="Conditions that must all hold: COLUMN=VALUE, with =, !=, >=, <=, >, < or ~ (text holds it).",
        max_length=view_clips.CONDITIONS_MOST, examples=[["kept=true", "vmaf_motion>=3"]],
    ),
]  # fmt: skip
Tag = Annotated[str | None, Header(alias="if-none-match", include_in_schema=False)]
Shown = Callable[[str], Awaitable[str | None]]  # address of a clip -> of what is shown of it; None: not at hand yet
Ranged = Annotated[str | None, Header(alias="range", examples=["bytes=0-1023"], max_length=200)]

router = APIRouter(prefix="/runs", tags=["runs"])


def library(request: Request) -> Library:
    return request.app.state.library


async def told(
    request: Request, run: str, question: tuple[Any, ...], ask: Callable[[Run], Any], tag: str | None
) -> Response:
    """A kept answer, or word that the asker has it already."""
    shelf = library(request)
    answer = await shelf.answer(run, question, ask)
    shelf.remember(request.scope, run, answer)
    headers = {"etag": answer.tag, "cache-control": CACHE_CONTROL}
    if tag == answer.tag:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type="application/json", headers=headers)


@router.get("", summary="All published runs")
async def runs(request: Request) -> dict[str, Any]:
    shelf = library(request)
    return {"runs": await shelf.work(shelf.names)}


@router.get("/{run}", summary="One run: recipe, tables with their rows, times, warnings")
async def run(request: Request, run: RunName, tag: Tag = None) -> Response:
    return await told(request, run, ("run",), lambda opened: _facts(run, opened), tag)


def _facts(name: str, run: Run) -> dict[str, Any]:
    record = run.record
    tables = {table: facts["rows"] for table, facts in record["tables"].items()}
    kept = {key: record.get(key) for key in ("snapshot", "created", "versions", "times_s", "warnings")}
    return {"name": name, "recipe": record.get("recipe"), "tables": tables, **kept}


@router.get(
    "/{run}/funnel", summary="What went in, what was rejected by which rule, what was kept, what each set holds"
)
async def funnel(request: Request, run: RunName, tag: Tag = None) -> Response:
    return await told(request, run, ("funnel",), lambda opened: view_funnel(opened, ERRORS_MOST), tag)


@router.get("/{run}/advice", summary="The rules that cost most, and what loosening each would bring")
async def advice(request: Request, run: RunName, tag: Tag = None) -> Response:
    def ask(opened: Run) -> list[dict[str, Any]]:
        return [one.as_dict() for one in advise(opened, recipe_of(opened))]

    return await told(request, run, ("advice",), ask, tag)


@router.get("/{run}/columns", summary="The clips' columns: name, type, meaning, unit")
async def columns(request: Request, run: RunName, tag: Tag = None) -> Response:
    return await told(request, run, ("columns",), _columns, tag)


def _columns(run: Run) -> list[dict[str, Any]]:
    found = []
    for field in schema_of(run, "clips"):
        facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        named = {key: facts.get(key) for key in ("meaning", "unit", "null")}
        found.append({"name": field.name, "type": str(field.type), **named})
    return found


@router.get("/{run}/histograms/{column}", summary="How a column is spread, with the kept part and the thresholds")
async def histograms(
    request: Request, run: RunName, column: ColumnName, where: Where = [],  # noqa: B006 - FastAPI copies defaults
    bins: Annotated[int, Query(ge=1, le=BINS_MOST)] = BINS,
    low: Annotated[float | None, Query(allow_inf_nan=False, description="Left edge; none: chosen.")] = None,
    high: Annotated[float | None, Query(allow_inf_nan=False, description="Right edge; none: chosen.")] = None,
    tag: Tag = None,
) -> Response:  # fmt: skip
    question = ("histogram", column, bins, low, high, *where)

    def ask(opened: Run) -> dict[str, Any]:
        return histogram(opened, column, bins, low, high, where)

    return await told(request, run, question, ask, tag)


@router.get("/{run}/clips", summary="Clips by filter, in pages")
async def clips(
    request: Request, run: RunName, where: Where = [],  # noqa: B006
    sort: Annotated[str, Query(pattern=r"^\w{1,64}$")] = "clip_id",
    descending: bool = False,
    limit: Annotated[int, Query(ge=1, le=view_clips.PAGE_MOST)] = 50,
    offset: Annotated[int, Query(ge=0, le=view_clips.OFFSET_MOST)] = 0,
    columns: Annotated[
        list[str], Query(description="Columns to show; none: the usual; * for all.", max_length=200)
    ] = [],  # noqa: B006
    tag: Tag = None,
) -> Response:  # fmt: skip
    def ask(opened: Run) -> dict[str, Any]:
        return view_clips.clips(opened, where, sort, descending, limit, offset, columns)

    question = ("clips", sort, descending, limit, offset, tuple(where), tuple(columns))
    return await told(request, run, question, ask, tag)


@router.get("/{run}/clips/{clip}", summary="What became of one clip: its row, every rule, the facts")
async def clip(request: Request, run: RunName, clip: ClipId, tag: Tag = None) -> Response:
    return await told(request, run, ("clip", clip), lambda opened: story(opened, clip), tag)


@router.get("/{run}/why", summary="What became of a clip or source, by id, the beginning of one, file name or address")
async def why(
    request: Request, run: RunName,
    wanted: Annotated[str, Query(min_length=1, max_length=1_000, examples=["film-003.mp4"])], tag: Tag = None,
) -> Response:  # fmt: skip
    return await told(request, run, ("clip", wanted), lambda opened: story(opened, wanted), tag)


@router.get("/{run}/sources", summary="Inputs in pages, those in trouble first")
async def sources(
    request: Request, run: RunName, limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    offset: Annotated[int, Query(ge=0, le=view_clips.OFFSET_MOST)] = 0, tag: Tag = None,
) -> Response:  # fmt: skip
    def ask(opened: Run) -> dict[str, Any]:
        trouble = "list_position(['failed', 'partial', 'duplicate'], status) NULLS LAST"
        page = f"SELECT * FROM {{sources}} ORDER BY {trouble}, uri LIMIT ? OFFSET ?"
        rows = view_clips.plain(query(opened, page, [limit, offset]))
        return {"total": opened.record["tables"]["sources"]["rows"], "offset": offset, "rows": rows}

    return await told(request, run, ("sources", limit, offset), ask, tag)


@router.get(
    "/{run}/clips/{clip}/stills/{number}", summary="A still of a clip as JPEG, numbered from 0 in order of time",
    response_class=Response, responses={200: {"content": {"image/jpeg": {}}}},
)  # fmt: skip
async def still(request: Request, run: RunName, clip: ClipId, number: Annotated[int, Path(ge=0, le=1_000)]) -> Response:
    shelf = library(request)

    def ask() -> bytes | None:
        opened = shelf.run(run)
        row = _row(opened, clip, "clip_id")
        jpegs = stills_of(opened, recipe_of(opened), [row["clip_id"]]).get(row["clip_id"], [])
        return jpegs[number] if number < len(jpegs) else None

    jpeg = await shelf.work(ask)
    if jpeg is None:
        raise HTTPException(404, "The clip has no such still; they lie in the run's work folder until it is cleared.")
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


@router.api_route(
    "/{run}/clips/{clip}/media", methods=["GET"], summary="The cut clip, whole or by a byte range",
    response_class=Response,
    responses={200: {"content": {"video/mp4": {}}}, 206: {"content": {"video/mp4": {}}}, 416: {}},
)  # fmt: skip
async def media(request: Request, run: RunName, clip: ClipId, ranged: Ranged = None) -> Response:
    return await _media(request, run, clip, ranged, False)


@router.head("/{run}/clips/{clip}/media", include_in_schema=False)
async def media_head(request: Request, run: RunName, clip: ClipId, ranged: Ranged = None) -> Response:
    return await _media(request, run, clip, ranged, True)


@router.api_route(
    "/{run}/clips/{clip}/proxy", methods=["GET"], response_class=Response,
    summary="The cut clip to look at: a small copy of the same frames where it is large, made when first asked for",
    responses={
        200: {"content": {"video/mp4": {}}}, 206: {"content": {"video/mp4": {}}}, 416: {},
        307: {"description": "to the clip itself: its copy is still being made"},
    },
)  # fmt: skip
async def proxy(request: Request, run: RunName, clip: ClipId, ranged: Ranged = None) -> Response:
    return await _media(request, run, clip, ranged, False, request.app.state.proxies.of)


async def _media(
    request: Request, run: RunName, clip: ClipId, ranged: str | None, head: bool, shown: Shown | None = None
) -> Response:
    shelf = library(request)

    def find() -> str | None:
        opened = shelf.run(run)
        row = _row(opened, clip, "media")
        return row["media"] and media_place(opened, row["media"], shelf.settings.roots)

    place = await shelf.work(find)
    if place and shown:
        place = await shown(place)
        if place is None:  # another address, so that a player never has pieces of both
            return RedirectResponse(str(request.url.path).removesuffix("proxy") + "media", 307)
    response = await shelf.work(lambda: media_response(place, ranged, head)) if place else None
    if response is None:
        raise HTTPException(404, "The clip has no media: only kept clips are cut, and theirs may have been removed.")
    return response


def _row(run: Run, clip: str, columns: str) -> dict[str, Any]:
    found = records(run, f"SELECT {columns} FROM {{clips}} WHERE clip_id = ? LIMIT 1", [clip])
    if not found:
        raise manifest.ManifestError(f"The run has no clip '{clip}'.")
    return found[0]
