"""The commands of `rushes fit` that make the small models that ship again, from footage that is made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rushes.curation.nearest import path_meant
from rushes.pipelines.cli import given
from rushes.pipelines.cli.terminal import console, fail

Footage = Annotated[
    list[Path] | None,
    typer.Option(
        "--input", "-i", help="A video, a photograph, or a folder of them, beside what installed packages carry."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default: the one that ships.")]


def camera_motion(
    input: Footage = None,
    out: Out = None,
    shots: Annotated[int, typer.Option(min=5, help="Rendered shots of each of the sixteen classes.")] = 60,
    seed: Annotated[int, typer.Option(help="Of scenes, paths and trees.")] = 1,
) -> None:
    """Render shots of the sixteen classes, and fit the forest that names a clip's camera motion.

    Example:  rushes fit camera-motion --shots 60
    """
    from rushes.curation.motion.camera import MODEL
    from rushes.curation.video.decode import quiet
    from rushes.pipelines.fit import camera
    from rushes.pipelines.fit.sources import pictures_by_source

    quiet()
    path = out or MODEL
    _there(input, path)
    with console.status("rendering") as status:
        found = camera.examples(pictures_by_source(False, input or []), shots, seed, status.update)
        status.update("fitting")
        said = camera.fit(found, path, seed)
    _say(path, f"{len(found):,} shots; on shots left out", said)


def quality(
    input: Footage = None,
    out: Out = None,
    rounds: Annotated[int, typer.Option(min=1, help="Times that a window of footage is made worse in every way.")] = 3,
    seed: Annotated[int, typer.Option(help="Of strengths.")] = 1,
) -> None:
    """Make footage worse in known ways, ask VMAF, and fit the model that guesses it without the original.

    Example:  rushes fit quality --input ~/footage
    """
    import tempfile

    from rushes.curation.video.decode import quiet
    from rushes.curation.visual.quality import MODEL
    from rushes.pipelines.fit import quality

    quiet()
    path = out or MODEL
    _there(input, path)
    with tempfile.TemporaryDirectory(prefix="rushes-fit-") as work, console.status("making footage") as status:
        windows = quality.windows(False, input or [])
        found = quality.examples(windows, rounds, seed, Path(work), status.update)
        status.update("fitting")
        said = quality.fit(found, path)
    _say(path, f"{len(found):,} files; on sources left out", said)


def _there(folders: list[Path] | None, out: Path) -> None:
    from rushes.pipelines.fit.sources import IMAGES, VIDEOS

    given.file(str(out))
    for folder in folders or []:
        if not folder.exists():
            near = path_meant(str(folder))
            fail(f"There is no file or folder {folder}" + (f"; did you mean '{near}'?" if near else "."))
        files = list(folder.iterdir()) if folder.is_dir() else [folder]
        if not any(file.suffix.lower() in (*VIDEOS, *IMAGES) for file in files):
            fail(f"--input {folder} holds no video or photograph ({' '.join((*VIDEOS, *IMAGES))}).")


def _say(path: Path, of: str, said: dict[str, float]) -> None:
    figures = ", ".join(f"{name} {value:.3f}" for name, value in said.items())
    console.print(f"{path}: {path.stat().st_size / 1e3:,.0f} kB from {of}: {figures}")
