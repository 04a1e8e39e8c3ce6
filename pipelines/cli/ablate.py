"""`rushes ablate`: what a rule is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.pipelines.cli import given
from rushes.pipelines.cli.terminal import console, fail

if TYPE_CHECKING:
    from rushes.pipelines.ablate.learners import Learner


def ablate(
    run: Annotated[str, typer.Argument(help="A curated run whose sources are where they were.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Results; the same folder again goes on.")],
    rule: Annotated[
        list[str] | None, typer.Option("--rule", help="A rule that turned clips away; may be repeated. Default: all.")
    ] = None,
    set_name: Annotated[
        list[str] | None, typer.Option("--set-name", help="A stricter set, against the base set; may be repeated.")
    ] = None,
    base: Annotated[str, typer.Option(help="The set whose clips are trained on with every rule.")] = "pretrain-256",
    clean: Annotated[
        str | None, typer.Option(help="RUN or RUN#SET: validated on as well, whatever the rules do.")
    ] = None,
    learner: Annotated[
        str, typer.Option(help="predict (closed form, seconds) or tae (the tiny autoencoder).")
    ] = "predict",
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="With --learner tae: its recipe.")] = "tae-tiny",
    steps: Annotated[int, typer.Option(help="With --learner tae: steps of a training.", min=1)] = 100,
    seeds: Annotated[int | None, typer.Option(help="Parts that the clips are dealt into; default 5.", min=3)] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Pairs of trainings of a seed, averaged; default 32, learner tae 1.", min=1)
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(help="Clips of a training, about; default 12, learner tae all of a seed's part.", min=4),
    ] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster that shares the output's folder.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained and what it costs, and stop.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="The changes as JSON instead of a table.")] = False,
) -> None:
    """What is a rule worth? Small models trained with it and without it, on as many clips, and what changes.

    Example:  rushes ablate runs/demo -o runs/ablation --rule visual.text_max

    `ablation.json` and `ablation.svg` in the output say the same as the table; `rushes report --ablation` shows them.
    """
    import json
    from dataclasses import asdict

    from rushes.curation.manifest import ManifestError
    from rushes.model.frames import ClipError
    from rushes.pipelines.ablate import run as job
    from rushes.pipelines.ablate.learners import Predictor
    from rushes.pipelines.ablate.plan import AblationError
    from rushes.pipelines.ablate.show import table

    if learner not in ("predict", "tae"):
        fail(f"--learner is predict or tae, not '{learner}'.")
    given.folder(output)
    given.sets(given.runs([run]), [base, *(set_name or ())], "--set-name")
    try:
        chosen = Predictor(Path(output).absolute() / "clips") if learner == "predict" else _tae(recipe, steps)
        seeds, pairs, clips = seeds or chosen.seeds, pairs or chosen.pairs, clips or chosen.clips
        asked = job.Asked(run, base, tuple(rule or ()), tuple(set_name or ()), clean, seeds, pairs, clips)
        if dry_run:
            print(job.describe(asked, learner, job.seconds_of_one(chosen, output)))
            return
        quiet = (lambda _: None) if json_ else print
        changes = job.ablate(asked, chosen, output, quiet, address)
    except (AblationError, ClipError, ManifestError) as error:
        fail(str(error))
    if json_:
        print(json.dumps([{**asdict(one), "verdict": one.verdict} for one in changes], indent=1))
    else:
        console.print(table(changes))
        console.print(f"In the report: rushes report {run} --ablation {output}", highlight=False)


def ablation_sections(folder: str | None) -> list[tuple[str, str]]:
    """Of a run's report: the ablation in `folder`; none without one."""
    from rushes.pipelines.ablate.plan import AblationError
    from rushes.pipelines.ablate.show import section

    try:
        return [section(folder)] if folder else []
    except AblationError as error:
        fail(str(error))


def _tae(recipe: str, steps: int) -> Learner:
    from rushes.pipelines.cli.train_options import sentences

    with sentences():
        from rushes.model.train_recipe import load

        with given.loading():
            from rushes.pipelines.ablate.learners import TinyTAE

        settings = [f"stages.all.steps={steps}", f"stages.all.validate_every={steps}", f"stages.all.save_every={steps}",
                    "stages.all.schedule=cosine", "data.workers=1"]  # fmt: skip
        return TinyTAE(load(recipe, settings))
