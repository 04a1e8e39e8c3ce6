"""`rushes fit`: small models, made from footage or from what people said."""

from __future__ import annotations

import typer

from rushes.pipelines.cli.fit_models import camera_motion, quality
from rushes.pipelines.cli.suitability import suitability

commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Fit small models, from footage or from what people said.",
)  # fmt: skip
commands.command()(suitability)
commands.command("camera-motion")(camera_motion)
commands.command()(quality)


def register(app: typer.Typer) -> None:
    """Add these commands to the command `rushes`."""
    app.add_typer(commands, name="fit")
