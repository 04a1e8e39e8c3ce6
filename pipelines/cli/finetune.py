"""`rushes finetune`: candidates, balance, status, publish; the review between them happens in `rushes serve`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rushes.pipelines.cli import given
from rushes.pipelines.cli.terminal import console, fail, tell

app = typer.Typer(help="The set that people choose, trim and caption (Movie Gen 3.3).", no_args_is_help=True)

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its s3:// or gs:// address.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Recipe key to change, key=value; may be repeated.")]
ReviewsUrl = Annotated[
    str | None,
    typer.Option("--reviews", envvar="RUSHES_REVIEWS", help="Reviews' database; default that of `rushes serve`."),
]
Queue = Annotated[str, typer.Option("--queue", help="The queue's name.")]


@contextlib.contextmanager
def sentences() -> Iterator[None]:
    """Errors of reviews as sentences, and a sentence where the extra is missing."""
    try:
        import alembic  # noqa: F401
        import sqlalchemy  # noqa: F401
    except ImportError:
        fail("reviews need the extra `serve`: pip install 'rushes[serve]'.")
    from rushes.pipelines.review.database import ReviewError, ReviewsAway

    try:
        yield
    except (ReviewError, ReviewsAway) as error:
        fail(str(error))


def opened(run: str, overrides: list[str] | None) -> tuple[Any, Any]:
    """(the run, its recipe with overrides)."""
    from rushes.curation import recipe as recipes
    from rushes.curation import rules
    from rushes.curation.manifest import CLIPS, open_run
    from rushes.pipelines.view.tables import resolved_of

    found = open_run(run)
    recipe = recipes.build(resolved_of(found), overrides or [])
    rules.check(recipe, [name for name in found.schema("clips").names if name not in CLIPS.names])
    return found, recipe


def say(notes: list[str]) -> None:
    for note in notes:
        tell(f"  {note}")


@app.command()
def candidates(run: RunArgument, set_: Set = None) -> None:
    """Kept clips that pass stricter rules and show a large subject, as the set `candidates`.

    Example:  rushes finetune candidates runs/first --set finetune.rules.visual.aesthetic_min=4.5
    """
    from rushes.pipelines.finetune import candidates as find

    found, recipe = opened(run, set_)
    step = find(found, recipe)
    console.print(f"{step.rows} candidates in sets/candidates of {run}", highlight=False)
    say(step.notes or ([] if step.rows else ["No kept clip passes finetune.rules: loosen them with --set."]))


@app.command()
def balance(
    run: RunArgument,
    concepts: Annotated[
        str | None,
        typer.Option("--concepts", help="YAML: a concept's name, and its seeds: [CLIP, ...] or its text. None: one "
                     "concept of all."),
    ] = None,
    each: Annotated[int | None, typer.Option("--each", "-n", min=1, help="Clips per concept.")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="The recipe's captioning model drafts the captions.")] = False,
    weights: Annotated[str | None, typer.Option("--weights", help="Where the weights of the run's model lie.")] = None,
    queue: Queue = "finetune",
    reviews: ReviewsUrl = None,
    set_: Set = None,
) -> None:  # fmt: skip
    """The same number of candidates for each concept, and the queue that `rushes serve` lets people review.

    Example:  rushes finetune balance runs/first --concepts concepts.yaml --each 50
    """
    with sentences():
        from rushes.pipelines.finetune import balanced
        from rushes.pipelines.finetune_queue import drafter, fill_queue, reviews_of

        found, recipe = opened(run, set_)
        store, name = reviews_of(run, reviews)
        step = balanced(found, recipe, read_concepts(concepts), each, weights)
        filled = fill_queue(step.run, recipe, store, name, queue, drafter(step.run, recipe) if draft else None)
        console.print(f"{step.rows} clips in sets/balanced of {run}", highlight=False)
        say(step.notes)
        tell(
            f"The queue '{queue}' in {store.where}: {filled.added} clips added, {filled.stayed} were there, "
            f"{filled.withdrawn} withdrawn.  Review:  rushes serve {os.path.dirname(os.path.abspath(run))}"
        )


@app.command()
def status(run: RunArgument, queue: Queue = "finetune", reviews: ReviewsUrl = None, json_: Annotated[
    bool, typer.Option("--json", help="As JSON.")] = False) -> None:  # fmt: skip
    """How far the review is: verdicts, people, agreement.

    Example:  rushes finetune status runs/first
    """
    from rich.table import Table

    with sentences():
        from rushes.pipelines.finetune_queue import reviews_of
        from rushes.pipelines.review.queue import ReviewQueue

        store, name = reviews_of(run, reviews)
        asked = ReviewQueue(store, name, queue)
        progress, agreement = asked.progress(), asked.agreement()
    if json_:
        typer.echo(json.dumps({"progress": progress.model_dump(), "agreement": agreement}, indent=1))
        return
    states = ("open", "accepted", "rejected", "disputed", "gone")
    counts = ", ".join(f"{getattr(progress, state)} {state}" for state in states)
    console.print(f"{progress.total} clips: {counts}", highlight=False)
    people = Table("person", "decisions", "accepted", "rejected", "an hour", box=None, header_style="dim")
    for one in progress.people:
        pace = f"{one.per_hour:,.0f}" if one.per_hour else "-"
        people.add_row(one.person, str(one.decisions), str(one.accepted), str(one.rejected), pace)
    console.print(people)
    for row in agreement:
        if row["pairs"]:
            kappa = "not defined" if row["kappa"] is None else f"{row['kappa']:.2f}"
            console.print(f"  {row['reason']}: kappa {kappa} over {row['pairs']} clips", highlight=False)


@app.command()
def publish(
    run: RunArgument,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the finished set, a run of its own.")],
    queue: Queue = "finetune",
    reviews: ReviewsUrl = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Clips cut at once; default: the CPUs.")] = None,
    set_: Set = None,
) -> None:
    """Cut the accepted clips at the frames that people chose, and publish them with their decisions.

    Example:  rushes finetune publish runs/first --output runs/first-finetune
    """
    with sentences():
        from rushes.pipelines.finetune_queue import reviews_of
        from rushes.pipelines.finetune_set import publish as publish_set
        from rushes.pipelines.review.said import reviewed

        given.folder(output)
        found, recipe = opened(run, set_)
        store, name = reviews_of(run, reviews)
        made, notes = publish_set(found, recipe, reviewed(store, name, queue), output, workers or os.cpu_count() or 1)
        console.print(
            f"{made.record['funnel']['sets']['finetune']} clips in sets/finetune of {output}", highlight=False
        )
        say(notes)


def read_concepts(path: str | None) -> dict[str, dict[str, Any]]:
    """The concepts of a YAML file; one sentence where it has another form."""
    from rushes.curation import plain_yaml

    if path is None:
        return {}
    try:
        data = plain_yaml.load_file(Path(path))
    except (plain_yaml.PlainYamlError, OSError) as error:
        fail(f"{path} cannot be read: {error}.")
    example = "write a line `waves: {seeds: [CLIP, CLIP], text: 'waves on a beach'}` for each concept"
    if not isinstance(data, dict) or not data:
        fail(f"{path} holds no concepts: {example}.")
    for name, of in data.items():
        seeds = of.get("seeds") if isinstance(of, dict) else None
        known = isinstance(of, dict) and set(of) <= {"seeds", "text"}
        if not known or not isinstance(seeds or [], list) or not isinstance(of.get("text") or "", str):
            fail(f"{path}: the concept '{name}' is of another form: {example}.")
    return {str(name): {**of, "seeds": [str(seed) for seed in of.get("seeds") or []]} for name, of in data.items()}


def register(main: typer.Typer) -> None:
    main.add_typer(app, name="finetune")
