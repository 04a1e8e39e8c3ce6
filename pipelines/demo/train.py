"""The end of `make demo`: both models trained for about a minute each on what was curated.

It takes the commands' own way, and prints them: train tae, encode, train dit.
"""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from rich.console import Console

from rushes.pipelines.cli.terminal import tell

TAE_STEPS, TAE_EVERY = 160, 32
# A dozen clips are soon known by heart: the general stages stop early, and the last one learns its three clips.
DIT_STEPS = {"text-to-image": 240, "joint-256": 120, "joint-768": 60, "finetune": 1200}
DIT_VALIDATIONS = 4  # of a stage
DIT_SETTINGS = [
    *(f"stages.{name}.steps={steps}" for name, steps in DIT_STEPS.items()),
    *(f"stages.{name}.validate_every={steps // DIT_VALIDATIONS}" for name, steps in DIT_STEPS.items()),
    *("stages.joint-256.lr=3e-4", "stages.joint-768.lr=2e-4", "stages.finetune.lr=1e-3"),
]


def train(run: str, console: Console) -> tuple[str, str]:
    """The outputs of both trainings, beside the run. What an earlier demo left there is replaced.

    Raises TrainingError where a signal ends it.
    """
    from rushes.curation.manifest import open_run
    from rushes.curation.sections import Engine
    from rushes.model.loop import TrainingError
    from rushes.model.train import train_dit, train_tae
    from rushes.model.train_recipe import load
    from rushes.pipelines import encode

    tae, latents, dit = (f"{run.rstrip('/')}-{name}" for name in ("tae", "latents", "dit"))
    for folder in (tae, latents, dit):
        shutil.rmtree(folder, ignore_errors=True)

    def say(text: str) -> None:
        tell(text, to=console)

    stopped = "Stopped. The curated run is whole; the demo's training begins anew when it is started again."
    steps = [f"stages.all.steps={TAE_STEPS}", f"stages.all.validate_every={TAE_EVERY}"]
    say(_command(f"rushes train tae {run} -o {tae}", steps))
    if not train_tae(load("tae-tiny", steps), [run], tae, say):
        raise TrainingError(stopped)
    recipe = load("dit-tiny", DIT_SETTINGS)
    say(_command(f"rushes encode {run} --tae {tae} -o {latents}", DIT_SETTINGS))
    encode.encode(recipe, [run], tae, latents, [], encode.Options(engine=Engine()), console)
    say(_command(f"rushes train dit {latents} --tae {tae} -o {dit}", DIT_SETTINGS))
    if not train_dit(recipe, [latents], dit, tae, say):
        raise TrainingError(stopped)
    caption = shlex.quote(open_run(run).table("sets/finetune", ["caption"])["caption"][0].as_py())
    say("\nTry, with a caption that the transformer was trained on (it knows no others):")
    say(f"rushes sample --dit {dit} --tae {tae} -p {caption} -o {Path(run).parent}/samples")
    return tae, dit


def _command(text: str, settings: list[str] | tuple[str, ...]) -> str:
    return "\n$ " + " ".join([text, *(f"--set {setting}" for setting in settings)])
