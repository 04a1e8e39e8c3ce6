"""`rushes compare`: two models' samples, judged blind in `rushes serve`; here they are paired and the results told."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from rushes.curation.nearest import path_meant
from rushes.pipelines.cli.finetune import ReviewsUrl, sentences
from rushes.pipelines.cli.terminal import console, fail, tell


def compare(
    runs: Annotated[str, typer.Argument(metavar="RUNS", help="The folder of runs that `rushes serve` serves.")],
    name: Annotated[str, typer.Argument(help="The comparison's name.")],
    a: Annotated[str | None, typer.Option("--a", metavar="MODEL=FOLDER", help="One model's mp4 files.")] = None,
    b: Annotated[
        str | None, typer.Option("--b", metavar="MODEL=FOLDER", help="The other's, by the same names.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option("--question", help="Asked one after the other; may be repeated.")
    ] = None,
    raters: Annotated[int, typer.Option(min=1, max=25, help="People who judge each pair.")] = 3,
    json_: Annotated[bool, typer.Option("--json", help="Results as JSON.")] = False,
    reviews: ReviewsUrl = None,
) -> None:
    """Pair the samples of two models for people to judge; without --a and --b, the results so far.

    Example:  rushes compare runs sft --a base=samples/base --b tuned=samples/tuned
    """
    if "://" not in runs and not os.path.isdir(runs):
        near = path_meant(runs)
        fail(f"{runs} is no folder; " + (f"did you mean '{near}'?" if near else "name the one that holds the runs."))
    with sentences():
        from pydantic import ValidationError

        from rushes.pipelines.review import forms
        from rushes.pipelines.review.compare import Compared, create
        from rushes.pipelines.review.database import Reviews, default_url

        store = Reviews(reviews or default_url(runs))
        if a or b:
            try:
                form = forms.ComparisonForm(
                    name=name, a=_side("--a", a), b=_side("--b", b), raters=raters,
                    questions=question or list(forms.QUESTIONS),
                )  # fmt: skip
            except ValidationError as error:
                first = error.errors()[0]
                fail(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}.")
            made = create(store, form)
            more = f", {made.unpaired} videos have no partner" if made.unpaired else ""
            console.print(f"{made.pairs} pairs{more}; judge them:  rushes serve {runs}", highlight=False)
            return
        results = Compared(store, name).results()
    if json_:
        typer.echo(json.dumps(results.model_dump(), indent=1))
        return
    console.print(f"{results.a} against {results.b}: win % - loss %, 95 % interval", highlight=False)
    for one in results.questions:
        rate = "no pair has all its raters yet" if one.net_win_rate is None else (
            f"{one.net_win_rate:+.1f}  ({one.low:+.1f} to {one.high:+.1f})  of {one.pairs} pairs: {one.wins} won, "
            f"{one.losses} lost, {one.ties} ties"
        )  # fmt: skip
        tell(f"  {one.question}: {rate}")


def _side(option: str, text: str | None) -> dict[str, str]:
    model, equals, folder = (text or "").partition("=")
    if not equals or not os.path.isdir(folder):
        fail(f"{option} wants MODEL=FOLDER, a name and a folder of mp4 files, not '{text or ''}'.")
    return {"model": model, "folder": os.path.abspath(folder)}


def register(app: typer.Typer) -> None:
    app.command()(compare)
