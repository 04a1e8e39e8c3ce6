"""Compare: two models' samples, judged blind. docs/studio.md describes it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from starlette.responses import Response

from rushes.curation.manifest import ManifestError
from rushes.pipelines.review import compare, forms
from rushes.pipelines.service import places
from rushes.pipelines.service.access import Person
from rushes.pipelines.service.media import media_response
from rushes.pipelines.service.routes_jobs import engineer
from rushes.pipelines.service.routes_review import REFUSED, Reviewer, asked, reviews_of
from rushes.pipelines.service.routes_runs import Ranged, library

router = APIRouter(prefix="/compare", tags=["compare"])
Name = Annotated[str, Path(pattern=places.RUN_NAME, examples=["sft-1-against-sft-2"])]
Token = Annotated[str, Path(pattern=r"^[0-9a-f]{24}$", examples=["0f3ac1d2e4b50f3ac1d2e4b5"])]


def _roots(request: Request) -> tuple[str, ...]:
    settings = library(request).settings
    return (*settings.roots, settings.runs)


@router.get("", summary="All comparisons")
async def every(request: Request) -> dict[str, list[forms.ComparisonView]]:
    person: Person = request.scope["person"]
    return {"comparisons": await asked(request, lambda: compare.comparisons(reviews_of(request), person.name))}


@router.post("", status_code=201, summary="Compare the samples of two models", responses=REFUSED)
async def create(
    request: Request, form: forms.ComparisonForm, person: Annotated[Person, Depends(engineer)]
) -> forms.ComparisonView:
    def make() -> forms.ComparisonView:
        sides = {
            side: of.model_copy(update={"folder": places.confined(of.folder, _roots(request))})
            for side, of in (("a", form.a), ("b", form.b))
        }
        return compare.create(reviews_of(request), form.model_copy(update=sides))

    return await asked(request, make)


@router.get("/{name}", summary="How far a comparison is")
async def one(request: Request, name: Name) -> forms.ComparisonView:
    person: Person = request.scope["person"]
    return await asked(request, lambda: compare.Compared(reviews_of(request), name).view(person.name))


@router.post("/{name}/next", summary="The pairs that the asker is to judge next", responses=REFUSED)
async def following(request: Request, name: Name, form: forms.PairForm, person: Reviewer) -> forms.Pairs:
    return await asked(request, lambda: compare.Compared(reviews_of(request), name).next(person.name, form.count))


@router.post("/{name}/votes", summary="Answer one question about a pair; the same id again changes nothing",
             responses=REFUSED)  # fmt: skip
async def vote(request: Request, name: Name, form: forms.VoteForm, person: Reviewer) -> forms.Voted:
    return await asked(request, lambda: compare.Compared(reviews_of(request), name).vote(person.name, form))


@router.post("/{name}/undo", summary="Take back the asker's last answer, up to ten", responses=REFUSED)
async def undo(request: Request, name: Name, form: forms.UndoForm, person: Reviewer) -> forms.Voted:
    return await asked(request, lambda: compare.Compared(reviews_of(request), name).undo(person.name, form))


@router.get(
    "/{name}/media/{pair}/{side}", summary="A video of a pair, whole or by a byte range", response_class=Response,
    responses={200: {"content": {"video/mp4": {}}}, 206: {"content": {"video/mp4": {}}}, 416: {}},
)  # fmt: skip
async def media(request: Request, name: Name, pair: Token, side: Token, ranged: Ranged = None) -> Response:
    person: Person = request.scope["person"]

    def find() -> Response:
        address = compare.Compared(reviews_of(request), name).media(person.name, pair, side)
        found = media_response(places.confined(address, _roots(request)), ranged)
        if found is None:
            raise ManifestError("This video was removed from its folder since the comparison was made.")
        return found

    return await asked(request, find)


@router.get("/{name}/results", summary="Net win rates with their intervals")
async def results(request: Request, name: Name) -> forms.Results:
    return await asked(request, lambda: compare.Compared(reviews_of(request), name).results())
