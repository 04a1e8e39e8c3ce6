"""`rushes fit`: the small models that ship, made again from footage that is made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushes.pipelines.cli.terminal import console, fail

commands = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Fit the small models that ship with Rushes, on footage made for it (docs/models.md).",
)  # fmt: skip

Footage = Annotated[
    list[Path] | None,
    typer.Option("--input", "-i", help="A video, or a folder of them, beside the footage of installed packages."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: the one that ships.")]


@commands.command("camera-motion")
def camera_motion(
    input: Footage = None,
    out: Out = None,
    shots: Annotated[int, typer.Option(min=5, help="Rendered shots of each of the sixteen classes.")] = 120,
    seed: Annotated[int, typer.Option(help="Of scenes, paths and trees.")] = 1,
) -> None:
    """Render shots of the sixteen classes, and fit the forest that names a clip's camera motion.

    Example:  rushes fit camera-motion --shots 120
    """
    from rushes.curation.motion.camera import MODEL
    from rushes.curation.video.decode import quiet
    from rushes.pipelines.fit import camera

    quiet()
    path = out or MODEL
    with console.status("rendering") as status:
        found = camera.examples(_pictures(input), shots, seed, status.update)
        status.update("fitting")
        said = camera.fit(found, path, seed)
    console.print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB from {len(found):,} shots; on shots left out: "
                  + ", ".join(f"{name} {value:.3f}" for name, value in said.items()))  # fmt: skip


def _pictures(folders: list[Path] | None):
    from rushes.pipelines.fit.sources import fitting_pictures

    missing = [folder for folder in folders or [] if not folder.exists()]
    if missing:
        fail(f"There is no file or folder {missing[0]}.")
    return fitting_pictures(folders or [])


def register(app: typer.Typer) -> None:
    """Add these commands to the command `rushes`."""
    app.add_typer(commands, name="fit")
