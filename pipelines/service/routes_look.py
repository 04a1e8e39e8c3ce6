"""The look room's questions: thresholds that are moved, clips at their edge, tracks, concepts, and judging anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any

import cv2
import numpy as np
from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from rushes.curation.manifest import ManifestError, Run
from rushes.curation.rules import BY_KEY
from rushes.pipelines import judge as judging
from rushes.pipelines.service.access import Person
from rushes.pipelines.service.held import Held
from rushes.pipelines.service.library import finite
from rushes.pipelines.service.routes_runs import ClipId, RunName, Tag, library, told
from rushes.pipelines.view import concepts as view_concepts
from rushes.pipelines.view import moved
from rushes.pipelines.view.clips import QueryError
from rushes.pipelines.view.near import near as view_near
from rushes.pipelines.view.stills import stills_of, stills_of_rows
from rushes.pipelines.view.tables import recipe_of
from rushes.pipelines.view.tracks import POINTS_MOST, tracks_of
from rushes.pipelines.view.what_if import WhatIf

THUMB_PX, THUMB_QUALITY, THUMBS_KEPT = 240, 78, 4_000
CONCEPTS_MOST = 500
JUDGED_MOST = 300_000  # clips that are decided anew while somebody waits

Moves = Annotated[
    list[str],
    Query(alias="set", description="Moved thresholds, KEY=VALUE; null: off.", max_length=60,
          examples=[["motion.vmaf_min=2.5"]]),
]  # fmt: skip
router = APIRouter(prefix="/runs", tags=["look"])


held = Held()


async def told_of_columns(
    request: Request, run: str, question: tuple[Any, ...], ask: Callable[[WhatIf], dict[str, Any]], tag: str | None
) -> Response:
    """As `told`, of the snapshot's columns. While they are read, nobody's thread waits for them."""
    shelf = library(request)
    opened = await shelf.work(lambda: shelf.run(run))
    await held.ready(opened)
    return await told(request, run, question, lambda opened: ask(held.of(opened)), tag)


@router.get("/{run}/board", summary="What moved thresholds would keep: counts, histograms, footage, sets")
async def board(
    request: Request, run: RunName, moves: Moves = [],  # noqa: B006
    brief: Annotated[bool, Query(description="Charts without what no threshold moves.")] = False,
    soon: Annotated[bool, Query(description="Of a large run that is being read: what is there.")] = False,
    focus: Annotated[str | None, Query(max_length=200, description="The threshold whose column is read first.")] = None,
    tag: Tag = None,
) -> Response:  # fmt: skip
    shelf = library(request)
    if soon:
        opened = await shelf.work(lambda: shelf.run(run))
        rule = BY_KEY.get(focus or "")
        first = await held.soon(opened, rule.column if rule else None)
        if first is not None:
            body = await shelf.work(lambda: json.dumps(finite(first.board(moves))))
            return Response(body, media_type="application/json", headers={"cache-control": "no-store"})
    return await told_of_columns(
        request, run, ("board", brief, *moves), lambda columns: moved.board(columns, moves, brief), tag
    )


@router.get("/{run}/edge", summary="Clips next to a threshold, and those that enter and leave")
async def edge(
    request: Request, run: RunName, moves: Moves = [],  # noqa: B006
    key: Annotated[str | None, Query(max_length=200, description="The threshold.")] = None,
    count: Annotated[int, Query(ge=1, le=moved.SAMPLES_MOST)] = 8, tag: Tag = None,
) -> Response:  # fmt: skip
    return await told_of_columns(
        request, run, ("edge", key, count, *moves), lambda columns: moved.edge(columns, moves, key, count), tag
    )


@router.get("/{run}/scatter", summary="Two signals together, as counts on a grid")
async def scatter(
    request: Request, run: RunName, x: Annotated[str, Query(max_length=64)], y: Annotated[str, Query(max_length=64)],
    moves: Moves = [], tag: Tag = None,  # noqa: B006
) -> Response:  # fmt: skip
    return await told_of_columns(
        request, run, ("scatter", x, y, *moves), lambda columns: moved.two(columns, moves, x, y), tag
    )


@router.get(
    "/{run}/recipe", summary="The run's recipe with moved thresholds, as YAML", response_class=Response,
    responses={200: {"content": {"application/yaml": {"schema": {"type": "object"}}}}},
)  # fmt: skip
async def moved_recipe(request: Request, run: RunName, moves: Moves = []) -> Response:  # noqa: B006
    shelf = library(request)

    def write() -> str:
        opened = shelf.run(run)
        return held.of(opened).recipe_with(moves).to_yaml()

    text = await shelf.work(write)
    headers = {"content-disposition": f'attachment; filename="{run}.yaml"', "cache-control": "no-store"}
    return Response(text, media_type="application/yaml", headers=headers)


@router.get("/{run}/judged", summary="What publishing moved thresholds would keep, decided anew")
async def judged(request: Request, run: RunName, moves: Moves = [], tag: Tag = None) -> Response:  # noqa: B006
    def ask(opened: Run) -> dict[str, Any]:
        held.of(opened).recipe_with(moves)
        if opened.record["tables"]["clips"]["rows"] > JUDGED_MOST:
            raise QueryError(
                f"{opened.root} has more than {JUDGED_MOST:,} clips: `rushes judge {opened.root} --set KEY=VALUE "
                f"--dry-run` decides anew."
            )
        record = judging.judge(opened, judging.recipe_for_judging(opened, None, moves), None).record
        funnel = record["funnel"]
        return {"kept": funnel["clips"][-1]["remaining"], "sets": funnel["sets"], "warnings": record["warnings"]}

    return await told(request, run, ("judged", *moves), ask, tag)


class Judgement(BaseModel):
    """Thresholds to publish, and the snapshot that they were moved on."""

    model_config = ConfigDict(extra="forbid")
    set: dict[Annotated[str, Field(max_length=200, pattern=r"^[\w.-]+$")], float | None] = Field(max_length=60)
    parent: str = Field(max_length=100, description="The snapshot that was looked at.")


@router.post(
    "/{run}/judgements", status_code=201, summary="Publish the run judged anew, as its next snapshot",
    responses={
        400: {"description": "not JSON"}, 403: {"description": "not this role"},
        409: {"description": "another was published meanwhile"},
    },
)  # fmt: skip
async def publish(request: Request, run: RunName, wanted: Judgement) -> dict[str, Any]:
    person: Person = request.scope["person"]
    if not person.may("engineer"):
        raise HTTPException(403, f"Publishing needs the role engineer; {person.name} is {person.role}.")
    shelf = library(request)
    moves = [f"{key}={'null' if value is None else repr(value)}" for key, value in wanted.set.items()]

    def work() -> dict[str, Any]:
        opened = shelf.run(run)
        if opened.snapshot != wanted.parent:
            raise HTTPException(
                409, f"Snapshot {opened.snapshot} was published meanwhile, and these thresholds were moved on "
                f"{wanted.parent}. Nothing was changed: look at the new one with your thresholds, then publish again.",
            )  # fmt: skip
        held.of(opened).recipe_with(moves)
        judged = judging.judge(opened, judging.recipe_for_judging(opened, None, moves), opened.root)
        return {"snapshot": judged.snapshot, "warnings": judged.record.get("warnings", [])}

    try:
        return await shelf.work(work)
    except ManifestError as error:
        if "meanwhile" in str(error):
            raise HTTPException(409, f"{error}") from error
        raise


@router.get("/{run}/concepts", summary="Concepts: words, sizes, an example, a place on the map; clips as points")
async def concepts(request: Request, run: RunName, tag: Tag = None) -> Response:
    def ask(opened: Run) -> dict[str, Any]:
        found = view_concepts.concepts(opened, CONCEPTS_MOST)
        places, flat = view_concepts.places(opened, [one.cluster_id for one in found])
        points = view_concepts.points(opened, flat) if flat else []
        shown = [one.as_dict() | {"at": places.get(one.cluster_id)} for one in found]
        return {"concepts": shown, "points": points}

    return await told(request, run, ("concepts",), ask, tag)


@router.get("/{run}/clips/{clip}/near", summary="Clips near a clip by what they show")
async def near(
    request: Request, run: RunName, clip: ClipId, k: Annotated[int, Query(ge=1, le=50)] = 12, tag: Tag = None
) -> Response:
    return await told(request, run, ("near", clip, k), lambda opened: {"near": view_near(opened, k, clip)}, tag)


@router.get("/{run}/clips/{clip}/tracks", summary="What was measured along a clip, frame by frame")
async def tracks(
    request: Request, run: RunName, clip: ClipId,
    points: Annotated[int, Query(ge=2, le=POINTS_MOST, description="Most points of a track.")] = 600, tag: Tag = None,
) -> Response:  # fmt: skip
    def ask(opened: Run) -> dict[str, Any]:
        return tracks_of(opened, recipe_of(opened), clip, points)

    return await told(request, run, ("tracks", clip, points), ask, tag)


@router.get(
    "/{run}/clips/{clip}/thumb", summary="A small picture of a clip, from its middle", response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)  # fmt: skip
async def thumb(request: Request, run: RunName, clip: ClipId) -> Response:
    shelf = library(request)
    jpeg = await shelf.work(lambda: _thumb(shelf, run, clip))
    if jpeg is None:
        raise HTTPException(404, "The clip has no picture; they lie in the run's work folder until it is cleared.")
    return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


def _thumb(shelf: Any, name: str, clip: str) -> bytes | None:
    opened = shelf.run(name)
    made = _thumbs(opened.root, opened.snapshot)
    if clip not in made:
        if len(made) >= THUMBS_KEPT:
            made.clear()
        span, recipe = held.span(opened, clip), recipe_of(opened)
        found = stills_of_rows(opened, recipe, [span]) if span else stills_of(opened, recipe, [clip])
        stills = found.get(clip, [])
        made[clip] = _small(stills[len(stills) // 2]) if stills else None
    return made[clip]


@lru_cache(maxsize=4)
def _thumbs(root: str, snapshot: str) -> dict[str, bytes | None]:
    """The small pictures of a snapshot that were asked for, by clip."""
    return {}


def _small(jpeg: bytes) -> bytes:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    scale = THUMB_PX / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, THUMB_QUALITY])[1].tobytes()
