"""What `rushes curate` refuses, before any work: the same for a dry run."""

from __future__ import annotations

import subprocess

from rushes.curation import rules, scenes_learned
from rushes.curation.content.published import check as check_published
from rushes.curation.manifest import ManifestError
from rushes.curation.meters import custom_columns
from rushes.curation.outputs import check_folder
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.video import containers
from rushes.curation.video.inputs import list_inputs
from rushes.pipelines.stages.captioning import check as check_captioning


def check(
    recipe: Recipe, inputs: list[str], root: str, column: str | None = None, limit: int | None = None
) -> list[str]:
    """The inputs' addresses, once nothing stands in the way of a run. Nothing is left behind.

    Raises InputError, RecipeError or ManifestError: one sentence each.
    """
    if recipe.scenes.detector == "transnetv2" and not scenes_learned.installed():
        raise RecipeError(f"Recipe key 'scenes.detector': {scenes_learned.INSTALL}.")
    own = [field.name for field in custom_columns(recipe.meters)]  # what cannot be imported is said before any work
    rules.check(recipe, own)
    wrong = containers.unknown_format(recipe.formats)
    if wrong:
        raise RecipeError(f"Recipe key 'formats': {wrong}.")
    uris = list_inputs(inputs, column=column, limit=limit)
    check_captioning(recipe)
    check_published(recipe)
    check_output(root)
    check_ffmpeg()
    return uris


FFMPEG_STARTS_S = 20.0  # seconds in which the program says its version, on a machine that is busy
FFMPEG_FIX = "unset IMAGEIO_FFMPEG_EXE, or pip install --force-reinstall imageio-ffmpeg"


def check_ffmpeg() -> None:
    """Raises ManifestError where FFmpeg cannot be run here: every clip would be rejected by `cut.failed`."""
    import imageio_ffmpeg

    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        done = subprocess.run([program, "-version"], capture_output=True, timeout=FFMPEG_STARTS_S, check=False)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise ManifestError(f"FFmpeg, which cuts the clips, cannot be run ({error}): {FFMPEG_FIX}.") from error
    if done.returncode or not done.stdout.startswith(b"ffmpeg"):
        raise ManifestError(f"{program} is no FFmpeg that runs here, and clips are cut by it: {FFMPEG_FIX}.")


#: What a run writes over at its top, and what says that a folder is one; that of a run that was stopped is there too.
WRITTEN = ("README.md", "recipe.yaml", "report.html")
MARKS = ("run.json", ".lock", "work")


def check_output(root: str) -> None:
    """Raises ManifestError where a run cannot be written at `root`."""
    folder = check_folder(root)
    if folder is None:
        return
    foreign = [] if any((folder / mark).exists() for mark in MARKS) else [n for n in WRITTEN if (folder / n).exists()]
    if foreign:
        raise ManifestError(
            f"{root} is no run and holds {', '.join(foreign)}, which a run would write over; choose a new folder."
        )
