"""Review: clips to decide on, decisions, captions, progress. docs/studio.md describes it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request

from rushes.curation import storage
from rushes.curation.finetune.suitability import FILE
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.video.times import Times, TimesError, frame_times
from rushes.pipelines.review import forms, words
from rushes.pipelines.review.database import ReviewError, Reviews
from rushes.pipelines.review.queue import ReviewQueue, queues
from rushes.pipelines.service.access import Person
from rushes.pipelines.service.places import media_place
from rushes.pipelines.service.routes_runs import ClipId, RunName, library
from rushes.pipelines.view.tables import records

AT_ONCE = 8  # questions to the database
TIMES_KEPT = 2_000  # clips whose frames' times are remembered

router = APIRouter(prefix="/runs/{run}", tags=["review"])
QueueName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", examples=["finetune"])]
REFUSED = {
    code: {"description": text, "model": forms.Refusal}
    for code, text in ((403, "not this role"), (409, "somebody else was first"), (503, "the database is away"))
}


def reviewer(request: Request) -> Person:
    person: Person = request.scope["person"]
    if not person.may("reviewer"):
        raise HTTPException(403, f"This needs the role reviewer; {person.name} is {person.role}.")
    return person


Reviewer = Annotated[Person, Depends(reviewer)]


def reviews_of(request: Request) -> Reviews:
    return request.app.state.reviews


async def asked(request: Request, ask: Callable[[], Any]) -> Any:
    """What `ask` says, in a thread; so many at once as there are connections."""
    return await to_thread.run_sync(ask, limiter=request.app.state.review_limit)


async def with_queue(request: Request, run: str, name: str, ask: Callable[[ReviewQueue, Run], Any]) -> Any:
    """`ask` of the queue, after it was told of a newer snapshot of the run."""

    def work() -> Any:
        opened = library(request).run(run)
        queue = ReviewQueue(reviews_of(request), run, name)
        seen: dict[tuple[str, str], str] = request.app.state.reviews_seen
        if seen.get((run, name)) != opened.snapshot:
            queue.reconcile(opened.snapshot, functools.partial(with_media, opened))
            seen[run, name] = opened.snapshot
        return ask(queue, opened)

    return await asked(request, work)


def with_media(run: Run, clips: list[str]) -> set[str]:
    """Which of the clips the run has media of."""
    sql = "SELECT clip_id FROM {clips} WHERE media IS NOT NULL AND list_contains(?, clip_id)"
    return {row["clip_id"] for row in records(run, sql, [clips])}


def times_of(request: Request, run: Run, clip: str) -> Times:
    """Times of a cut clip's frames. Raises ManifestError where the clip or its media are not there."""
    kept: dict[tuple[str, str, str], Times] = request.app.state.frame_times
    key = (run.root, run.snapshot, clip)
    if key not in kept:
        found = records(run, "SELECT media FROM {clips} WHERE clip_id = ? LIMIT 1", [clip])
        if not found or found[0]["media"] is None:
            raise ManifestError(f"The run has no media of a clip '{clip}'.")
        try:
            times = frame_times(media_place(run, found[0]["media"], library(request).settings.roots))
        except (OSError, TimesError) as error:
            raise ManifestError(f"The media of the clip '{clip}' cannot be read: {error}.") from error
        if len(kept) >= TIMES_KEPT:
            kept.clear()
        kept[key] = times
    return kept[key]


@router.get("/review", summary="The queues of a run")
async def every(request: Request, run: RunName) -> dict[str, list[forms.QueueView]]:
    def ask() -> Any:
        opened, reviews = library(request).run(run), reviews_of(request)
        return [ReviewQueue(reviews, run, name).view(opened.snapshot) for name in queues(reviews, run)]

    return {"queues": await asked(request, ask)}


@router.get("/review/{queue}", summary="What is reviewed, and by which rules")
async def one(request: Request, run: RunName, queue: QueueName) -> forms.QueueView:
    return await with_queue(request, run, queue, lambda found, opened: found.view(opened.snapshot))


@router.post("/review/{queue}/lease", summary="Hold clips that nobody else is given", responses=REFUSED)
async def lease(
    request: Request, run: RunName, queue: QueueName, form: forms.LeaseForm, person: Reviewer
) -> forms.Held:
    return await with_queue(request, run, queue, lambda found, _: found.lease(person.name, form.count, form.skip))


@router.post("/review/{queue}/decisions", summary="Accept or reject a clip; the same id again changes nothing",
             responses=REFUSED)  # fmt: skip
async def decide(
    request: Request, run: RunName, queue: QueueName, form: forms.DecisionForm, person: Reviewer
) -> forms.Decided:
    def seconds(opened: Run, clip: str, first: int, after: int) -> float | None:
        try:
            begin, end = times_of(request, opened, clip).span_s(first, after)
        except (ManifestError, TimesError):
            return None
        return end - begin

    def ask(found: ReviewQueue, opened: Run) -> forms.Decided:
        return found.decide(person.name, form, functools.partial(seconds, opened))

    return await with_queue(request, run, queue, ask)


@router.post("/review/{queue}/undo", summary="Take back the asker's last decision, up to ten", responses=REFUSED)
async def undo(
    request: Request, run: RunName, queue: QueueName, form: forms.UndoForm, person: Reviewer
) -> forms.Decided:
    return await with_queue(request, run, queue, lambda found, _: found.undo(person.name, form))


@router.post("/review/{queue}/captions", summary="Correct a caption without a decision", responses=REFUSED)
async def caption(
    request: Request, run: RunName, queue: QueueName, form: forms.CaptionForm, person: Reviewer
) -> forms.CaptionView:
    return await with_queue(request, run, queue, lambda found, _: found.correct(person.name, form))


@router.post("/review/{queue}/compose", summary="The long caption of some fields; nothing is kept", responses=REFUSED)
async def compose(run: RunName, queue: QueueName, fields: forms.CaptionFields, person: Reviewer) -> dict[str, str]:
    try:
        return {"text": words.compose(words.clean(fields.model_dump()))}
    except words.BadText as error:
        raise ReviewError(str(error)) from error


@router.post("/review/{queue}/release", summary="Give held clips back", responses=REFUSED)
async def release(
    request: Request, run: RunName, queue: QueueName, form: forms.ReleaseForm, person: Reviewer
) -> forms.Progress:
    return await with_queue(request, run, queue, lambda found, _: found.release(person.name, form.clips))


@router.get("/review/{queue}/progress", summary="How far a queue is, and who did what")
async def progress(request: Request, run: RunName, queue: QueueName) -> forms.Progress:
    return await with_queue(request, run, queue, lambda found, _: found.progress())


@router.get("/review/{queue}/agreement", summary="Cohen's kappa of the verdict and of each reason")
async def agreement(request: Request, run: RunName, queue: QueueName) -> dict[str, list[forms.ReasonAgreement]]:
    return {"agreement": await with_queue(request, run, queue, lambda found, _: found.agreement())}


@router.get("/review/{queue}/items/{clip}", summary="One clip of a queue")
async def item(request: Request, run: RunName, queue: QueueName, clip: ClipId) -> forms.Item:
    person: Person = request.scope["person"]
    return await with_queue(request, run, queue, lambda found, _: found.item(clip, person.name))


@router.get("/review/{queue}/decisions", summary="Decisions, the newest first")
async def decisions(
    request: Request, run: RunName, queue: QueueName,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0, limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> dict[str, Any]:  # fmt: skip
    total, page = await with_queue(request, run, queue, lambda found, _: found.decisions(offset, limit))
    return {"total": total, "decisions": page}


@router.get("/clips/{clip}/frames", summary="When each frame of a cut clip is shown")
async def frames(request: Request, run: RunName, clip: ClipId) -> forms.FrameTimes:
    def ask() -> forms.FrameTimes:
        times = times_of(request, library(request).run(run), clip)
        shown = [round(float(one), 6) for one in times.shown_s]
        return forms.FrameTimes(
            frames=len(shown), fps=times.fps, variable=times.variable, times_s=shown, end_s=round(times.end_s, 6)
        )

    return await library(request).work(ask)


@router.get("/suitability", summary="The report of the score that people trained")
async def suitability(request: Request, run: RunName) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        import json

        opened = library(request).run(run)
        try:
            return json.loads(storage.read_bytes(storage.join(opened.root, FILE)))["report"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError) as error:
            raise ManifestError("No score was trained for this run yet: `rushes fit suitability` does it.") from error

    return await library(request).work(ask)
