"""The command `rushes`. Heavy imports wait until a command needs them, so that --help answers at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.pipelines.cli import cluster as cluster_cli
from rushes.pipelines.cli import compare as compare_cli
from rushes.pipelines.cli import content as content_cli
from rushes.pipelines.cli import finetune as finetune_cli
from rushes.pipelines.cli import fit as fit_cli
from rushes.pipelines.cli import given
from rushes.pipelines.cli import serve as serve_cli
from rushes.pipelines.cli import train as train_cli
from rushes.pipelines.cli.ablate import ablation_sections
from rushes.pipelines.cli.endings import Commands, run_to_its_end
from rushes.pipelines.cli.terminal import console, fail, shown, tell

if TYPE_CHECKING:
    from rushes.curation.manifest import Run


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print(f"rushes {version('rushes')}", highlight=False)
        raise typer.Exit


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 2 the request is wrong; 3 finished, but more sources failed than the error budget, or "
    "verify found damage; 130, 143, 129 stopped by Ctrl-C, SIGTERM, SIGHUP: the same command goes on from there; 141 "
    "nobody reads the output any more.",
)  # fmt: skip


@app.callback()
def rushes(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Raw footage in, curated training sets for video generation models out."""


REPORT_ROWS_MAX = 100_000  # clips up to which `judge` draws the report anew at once

RecipeName = Annotated[
    str, typer.Option("--recipe", "-r", help="A shipped recipe (demo, cpu, moviegen) or a YAML file.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Override any recipe key; may be repeated.")
]
RunFolder = Annotated[str, typer.Argument(help="A run's folder, or its s3:// or gs:// address.")]


@app.command()
def curate(
    input: Annotated[
        list[str],
        typer.Option(
            "--input", "-i", help="File, folder, glob, or list of URIs (.txt .csv .jsonl .parquet); may be repeated."
        ),
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Run folder; the same folder again resumes its run.")],
    recipe: RecipeName = "cpu",
    set_: Overrides = None,
    column: Annotated[
        str | None, typer.Option(help="Column of the lists; default: uri, path, video or url, or the only one.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many inputs, for a trial.", min=1)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Run the pipeline: raw footage to Parquet manifests and cut clips.

    Example:  rushes curate --recipe cpu --input ~/footage --output runs/first --set motion.vmaf_min=1.5
    """
    from rushes.curation import recipe as recipes

    resolved = recipes.load(recipe, set_ or [])
    if dry_run:
        from rushes.pipelines.checks import check

        uris = check(resolved, input, output, column, limit)
        named = f"recipe '{resolved.name}' ({resolved.full_hash()})"
        console.print(f"{len(uris)} input{'s' * (len(uris) != 1)} with {named} into {output}:")
        for uri in uris[:10]:
            console.print(f"  {shown(uri, line=True)}", highlight=False, markup=False)
        if len(uris) > 10:
            console.print(f"  and {len(uris) - 10} more")
        _print_there(output)
        console.print("Dry run: nothing was written.")
        return
    from rushes.pipelines.cli.show import print_funnel
    from rushes.pipelines.curate import curate as run_curation
    from rushes.pipelines.view.report import write_report

    outcome = run_curation(resolved, input, output, console, column, limit)
    print_funnel(outcome.run, console)
    _print_warnings(outcome.run)
    page = Path(output, "report.html")
    report = None if "://" in output else page if page.exists() and not outcome.published else write_report(output)
    tell(f"\nManifests: {output}/clips, {output}/sets/*")
    tell(f"Clips:     {output}/media")
    if report:
        tell(f"Report:    {report}")
    if outcome.over_budget:
        fail(outcome.sentence or "", 3)


def _print_there(output: str) -> None:
    """What a folder holds already."""
    from rushes.curation import manifest

    if manifest.current(output) is not None:
        inputs = manifest.open_run(output).record["funnel"]["sources"]["inputs"]
        tell(
            f"{output} holds a published run of {inputs:,} input{'s' * (inputs != 1)}: work that was done for it "
            "stands, and what is published takes its place."
        )


def _print_warnings(run: Run) -> None:
    for sentence in run.record["warnings"]:
        tell(f"\nNote: {sentence}", "yellow")


@app.command()
def judge(
    run: RunFolder,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Another recipe; default: the run's own.")
    ] = None,
    set_: Overrides = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Publish there, not in the run's own folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the funnel, publish nothing.")] = False,
) -> None:
    """New thresholds on the stored signals: no video is opened.

    Example:  rushes judge runs/first --set motion.vmaf_min=3
    """
    from rushes.curation.manifest import open_run
    from rushes.pipelines.cli.show import print_advice, print_comparison
    from rushes.pipelines.judge import judge as run_judge
    from rushes.pipelines.judge import recipe_for_judging

    opened = open_run(run)
    if not dry_run:
        given.folder(output or run)
    resolved = recipe_for_judging(opened, recipe, set_ or [])
    judged = run_judge(opened, resolved, None if dry_run else (output or run))
    print_comparison(opened.record, judged.record, console)
    _print_warnings(judged)
    if dry_run:
        console.print("\nDry run: nothing was published.")
        return
    print_advice(judged, console)
    if "://" not in (output or run):
        _renew_report(output or run, judged)


def _renew_report(root: str, run: Run) -> None:
    """A report of the old decisions must not lie beside the new ones; that of a large run is drawn when asked for."""
    from rushes.pipelines.view.report import write_report

    if run.record["tables"]["clips"]["rows"] <= REPORT_ROWS_MAX:
        console.print(f"\nReport: {write_report(root)}", highlight=False)
    else:
        (Path(root) / "report.html").unlink(missing_ok=True)
        console.print(f"\n`rushes report {root}` draws the page.", highlight=False)


@app.command()
def funnel(run: RunFolder, json_: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """What went in, what was rejected by which rule, what was kept, and what is in each set."""
    from rushes.curation.manifest import open_run

    opened = open_run(run)
    if json_:
        import json

        from rushes.pipelines.view.advice import advise
        from rushes.pipelines.view.funnel import funnel as funnel_of
        from rushes.pipelines.view.tables import recipe_of

        advice = [advice.as_dict() for advice in advise(opened, recipe_of(opened))]
        print(json.dumps({**funnel_of(opened), "advice": advice}, indent=1))
    else:
        from rushes.pipelines.cli.show import print_funnel

        print_funnel(opened, console)


@app.command()
def why(
    run: RunFolder, clip: Annotated[str, typer.Argument(help="A clip id (or its beginning), or a source's name.")]
) -> None:
    """Why a clip was kept or rejected: every rule, the value, the threshold."""
    from rushes.curation.manifest import open_run
    from rushes.pipelines.cli.show import print_story

    print_story(open_run(run), clip, console)


@app.command()
def report(
    run: RunFolder,
    html: Annotated[Path | None, typer.Option("--html", help="Where to write it; default RUN/report.html.")] = None,
    tae: Annotated[str | None, typer.Option("--tae", help="Show what this autoencoder learned from the run.")] = None,
    dit: Annotated[str | None, typer.Option("--dit", help="With --tae: and this transformer.")] = None,
    ablation: Annotated[str | None, typer.Option(help="Show what `rushes ablate` wrote there.")] = None,
) -> None:
    """One self-contained HTML page: funnel, a histogram per signal, thumbnails by reason, sets, trainings."""
    from rushes.curation.manifest import join, open_run

    if dit and not tae:
        fail("--dit needs the autoencoder it was trained with: name it with --tae.")
    open_run(run)
    given.file(str(html or join(run, "report.html")))
    sections = ablation_sections(ablation)
    if tae:
        with train_cli.sentences():
            given.checkpoint(tae, "tae")
            given.checkpoint(dit, "dit")
            with given.loading():
                from rushes.pipelines.view.training import training_section

            sections.append(training_section(run, tae, dit))
    from rushes.pipelines.view.report import write_report

    console.print(f"Report: {write_report(run, html, sections)}", highlight=False)


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="A shipped recipe or a YAML file; none: the list.")] = None,
    set_: Overrides = None,
) -> None:
    """Show the shipped recipes, or one of them in full with what every key means."""
    from rushes.curation import recipe as recipes
    from rushes.pipelines.cli.show import print_recipe

    if name is None:
        console.print("Recipes: " + ", ".join(recipes.shipped()) + ".  `rushes recipe NAME` shows one.")
    else:
        print_recipe(recipes.load(name, set_ or []), console)


@app.command()
def demo(
    output: Annotated[str, typer.Argument(help="Run folder.")] = "runs/demo",
    train: Annotated[bool, typer.Option(help="Train both models on it, about a minute each.")] = True,
) -> None:
    """The main job on real footage, offline: make a small pool of clips, curate it, train on it, show it all."""
    from rushes.pipelines.demo.film import CLIPS, clip_path
    from rushes.pipelines.demo.pool import make_pool

    try:
        for clip in CLIPS:
            clip_path(clip)
    except FileNotFoundError as error:
        fail(f"{error}.")
    pool = Path(output).parent / "demo-footage"
    console.print(f"Making the footage of the demo in {pool} ...", highlight=False)
    for file in make_pool(pool):
        console.print(f"  {file.path.name:22} {file.what}", highlight=False, markup=False)
    curate(input=[str(pool / "*")], output=output, recipe="demo", set_=None, column=None, limit=None, dry_run=False)
    if train and importlib.util.find_spec("torch") is None:
        console.print("\nWithout the extra `train` there is no training: pip install 'rushes[train]'", highlight=False)
    elif train:
        with train_cli.sentences():
            with given.loading():
                from rushes.pipelines.demo.train import train as train_both

            tae, dit = train_both(output, console)
        report(output, None, tae, dit)


@app.command()
def images(
    output: Annotated[str, typer.Option("--output", "-o", help="Run folder; the same folder again goes on.")],
    input: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="Image file, folder, glob, or list of URIs; may be repeated."),
    ] = None,
    clips: Annotated[
        list[str] | None, typer.Option("--clips", help="A curated run whose kept clips give frames; may be repeated.")
    ] = None,
    per_clip: Annotated[int, typer.Option(help="Frames of each clip: the sharpest of as many parts.", min=1)] = 1,
    captions: Annotated[
        str | None,
        typer.Option(help="Table (.csv .jsonl .parquet) with columns file, caption; else IMAGE.txt."),
    ] = None,
    name: Annotated[str, typer.Option(help="The set's name, which a stage's key `images` gives.")] = "images",
    resolution: Annotated[int, typer.Option(help="Square root of the area, pixels; smaller ones fail.", min=16)] = 256,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
) -> None:
    """Images to a set that training mixes in: image files, and frames of a run's kept clips.

    Example:  rushes images -i ~/pictures --clips runs/first -o runs/images
    """
    from rushes.pipelines.images import Request, collect, list_items, print_outcome

    given.folder(output)
    given.runs(clips or [])
    request = Request(input or [], clips or [], per_clip, captions, name, resolution)
    if dry_run:
        items = list_items(request)
        console.print(f"{len(items)} images and clips into {output}:", highlight=False)
        for item in items[:10]:
            console.print(f"  {item.uri}", highlight=False, markup=False)
        if len(items) > 10:
            console.print(f"  and {len(items) - 10} more")
        return
    run = collect(request, output, console)
    print_outcome(run, console)
    _print_warnings(run)
    if not run.record["tables"][f"sets/{name}"]["rows"]:
        fail(f"none of it can be trained on; why stands in {output}/sources, column error.", 3)


@app.command()
def verify(
    run: RunFolder,
    quick: Annotated[bool, typer.Option("--quick", help="Media: their length and seal only, not every byte.")] = False,
) -> None:
    """Check all files of a run against what it says: tables, every clip's bytes, the records of the work.

    Exit code 0: all is whole; 3: something is damaged, and the command that makes it anew is printed.
    """
    from rushes.curation.manifest import open_run
    from rushes.pipelines.verify import cure
    from rushes.pipelines.verify import verify as check_files

    opened = open_run(run)
    checked = check_files(opened, quick)
    console.print(", ".join(f"{count} {kind}s" for kind, count in checked.counts.items()) + " checked", highlight=False)
    for damage in checked.damages:
        tell(f"  {damage.kind} {damage.path}: {damage.what}")
    if checked.damages:
        tell(f"What makes it anew:  {cure(opened, checked.damages)}")
        fail(f"{len(checked.damages)} files of {run} are damaged or missing.", 3)
    console.print("Nothing is damaged.")


#: `rushes --help` shows the commands in these groups, in this order; the one without names has the rest.
PANELS: dict[str, tuple[str, ...]] = {
    "Curate": ("demo", "curate", "judge", "recipe", "images", "verify"),
    "Look": ("funnel", "why", "report", "concepts", "near", "preview", "ablate"),
    "People choose": ("serve", "token", "finetune", "fit", "compare"),
    "On a cluster": ("submit", "jobs", "logs", "stop"),
    "Train": (),
}


def _in_panels() -> None:
    commands = {info.name or info.callback.__name__: info for info in app.registered_commands}
    commands |= {info.name: info for info in app.registered_groups}
    panels = {name: panel for panel, names in PANELS.items() for name in names}
    rest = next(panel for panel, names in PANELS.items() if not names)
    for name, info in commands.items():
        info.rich_help_panel = panels.get(name, rest)
    order = [name for names in PANELS.values() for name in names]
    app.registered_commands.sort(
        key=lambda info: order.index(name) if (name := info.name or info.callback.__name__) in order else len(order)
    )


for part in (train_cli, content_cli, serve_cli, cluster_cli, finetune_cli, fit_cli, compare_cli):
    part.register(app)
_in_panels()


def main() -> None:
    """Entry point: errors that a person can act on are sentences on stderr with exit code 2, never tracebacks."""
    run_to_its_end(app)
