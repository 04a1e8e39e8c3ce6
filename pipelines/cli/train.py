"""`rushes train` and `preview`: the command line of trainings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from rushes.pipelines.cli import given, models
from rushes.pipelines.cli.ablate import ablate
from rushes.pipelines.cli.train_options import (
    DryRun,
    GpusPerWorker,
    Output,
    Overrides,
    Ray,
    Runs,
    Tae,
    WorkerCount,
    of_model,
    say,
    sentences,
)
from rushes.pipelines.engine import signals

if TYPE_CHECKING:
    from rushes.model.train_recipe import TrainRecipe

app = typer.Typer(no_args_is_help=True, help="Train the autoencoder (tae) or the transformer (dit) on curated sets.")


def register(commands: typer.Typer) -> None:
    """Put the commands beside those of curation."""
    commands.add_typer(app, name="train")
    for command in (models.encode, models.sample, models.average, models.evaluate, ablate, preview):
        commands.command()(command)
    commands.command("export-weights")(models.export_weights)


@app.command()
def tae(
    runs: Runs,
    output: Output,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="tae-tiny, tae-moviegen, or a YAML file.")] = "tae-tiny",
    set_: Overrides = None,
    ray: Ray = None,
    workers: WorkerCount = 1,
    gpus_per_worker: GpusPerWorker = None,
    dry_run: DryRun = False,
) -> None:
    """Train the temporal autoencoder: video to latents of 1/8 in time, height and width.

    Example:  rushes train tae runs/demo -o runs/tae --set stages.all.steps=200

    On several GPUs:  torchrun --nproc-per-node 8 -m rushes.pipelines.cli train tae ...
    On a Ray cluster:  rushes train tae ... --ray HOST:PORT --workers 16
    """
    _Training("tae", runs, output, None).start(recipe, set_ or [], _Ranks(ray, workers, gpus_per_worker), dry_run)


@app.command()
def dit(
    runs: Runs,
    output: Output,
    tae: Tae,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="dit-tiny, dit-moviegen, or a YAML file.")] = "dit-tiny",
    set_: Overrides = None,
    ray: Ray = None,
    workers: WorkerCount = 1,
    gpus_per_worker: GpusPerWorker = None,
    dry_run: DryRun = False,
) -> None:
    """Train the transformer by flow matching, stage by stage, on latents that the TAE makes while it goes.

    Example:  rushes train dit runs/demo --tae runs/tae -o runs/dit --set stages.joint-256.steps=100

    On several GPUs:  torchrun --nproc-per-node 8 -m rushes.pipelines.cli train dit ...
    On a Ray cluster:  rushes train dit ... --ray HOST:PORT --workers 16
    """
    _Training("dit", runs, output, tae).start(recipe, set_ or [], _Ranks(ray, workers, gpus_per_worker), dry_run)


@dataclass(frozen=True)
class _Ranks:
    """Where the ranks are: on a Ray cluster, or those that a launcher started (this process where none did)."""

    ray: str | None
    workers: int
    gpus: float | None

    @property
    def count(self) -> int:
        return self.workers if self.ray else int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class _Training:
    """What both commands do. tae: of a transformer."""

    model: str
    runs: list[str]
    output: str
    tae: str | None

    def start(self, recipe_name: str, settings: list[str], ranks: _Ranks, dry_run: bool) -> None:
        with sentences():
            from rushes.model.train_recipe import load

            recipe = of_model(load(recipe_name, settings), self.model)
            given.runs(self.runs)
            given.checkpoint(self.tae, "tae")
            given.folder(self.output)
            with given.loading():
                from rushes.model.train import describe

            if dry_run:
                say(describe(recipe, self.runs, self.tae, ranks.count))
                self._preview(recipe)
            elif ranks.ray:
                self._on_ray(recipe, ranks)
            else:
                self._page(recipe)
                if not self._train(recipe):
                    say("Stopped and saved; the same command goes on from here.")
                    raise typer.Exit(signals.exit_code())
                say(f"Finished: {self.output}/checkpoints")

    def _train(self, recipe: TrainRecipe) -> bool:
        from rushes.model.train import train_dit, train_tae

        if self.tae is None:
            return train_tae(recipe, self.runs, self.output, say)
        return train_dit(recipe, self.runs, self.output, self.tae, say)

    def _on_ray(self, recipe: TrainRecipe, ranks: _Ranks) -> None:
        from rushes.pipelines.train.on_ray import Workers, train_on_ray

        words = [self.model, *self.runs, "--output", self.output, *(["--tae", self.tae] if self.tae else [])]
        if not train_on_ray(Workers(ranks.ray, ranks.workers, ranks.gpus), words, recipe.to_yaml(), say):
            raise typer.Exit(signals.exit_code())  # rank 0 has said it

    def _preview(self, recipe: TrainRecipe) -> None:
        """The first clip of each stage and bucket, in words. Runs of latents have no pictures to look at."""
        from rushes.model.latents import encodings
        from rushes.pipelines.train.preview import lines, preview

        for shown in () if encodings(self.runs) else preview(recipe, self.runs, each=1):
            say("\n".join(lines(shown)))

    def _page(self, recipe: TrainRecipe) -> None:
        """OUTPUT/preview.html before the first step, by one rank; a training that goes on has it already."""
        from rushes.curation.storage import exists, join
        from rushes.model.latents import encodings
        from rushes.pipelines.train.preview import write_page

        page = join(self.output, "preview.html")
        if os.environ.get("RANK", "0") == "0" and not exists(page) and not encodings(self.runs):
            say(f"What the network will get: {write_page(recipe, self.runs, page, each=1)} clips in {page}")


def preview(
    runs: Runs,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A training recipe's name, or a YAML file.")],
    output: Annotated[str, typer.Option("--output", "-o", help="The page.")] = "preview.html",
    set_: Overrides = None,
    each: Annotated[int, typer.Option(help="Clips of each bucket of each stage.", min=1)] = 2,
) -> None:
    """A page of what the network will get: of each stage and bucket crops, frames, rate, and the text after the cut.

    Example:  rushes preview runs/demo --recipe dit-tiny -o preview.html
    """
    with sentences():
        from rushes.model.train_recipe import load

        resolved = load(recipe, set_ or [])
        given.runs(runs)
        given.file(output)
        with given.loading():
            from rushes.pipelines.train.preview import write_page

        say(f"{write_page(resolved, runs, output, each)} clips: {output}")
