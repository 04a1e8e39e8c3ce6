"""`rushes sample`, `evaluate`, `encode`, `average`, `export-weights`: what is done with trained models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rushes.pipelines.cli import given
from rushes.pipelines.cli.terminal import console, fail, tell
from rushes.pipelines.cli.train_options import Overrides, Runs, Tae, of_model, say, sentences

COMPUTED = ("float32", "bfloat16")  # what models compute in
WRITTEN = ("float16", "bfloat16", "float32")  # what numbers are stored in


def encode(
    runs: Runs,
    output: Annotated[
        str, typer.Option("--output", "-o", help="Run folder of the latents; the same folder again goes on.")
    ],
    tae: Tae,
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="The DiT's recipe: its stages and text encoders say what is stored.")
    ] = "dit-tiny",
    set_: Overrides = None,
    set_name: Annotated[
        list[str] | None, typer.Option("--set-name", help="Only stages that read this set; may be repeated.")
    ] = None,
    precision: Annotated[str, typer.Option(help="float16, bfloat16 or float32: of what is stored.")] = "float16",
    parts: Annotated[int, typer.Option(help="Places from which longer clips are taken; 1: the middle.", min=1)] = 1,
    stills: Annotated[int, typer.Option(help="Single frames of a clip for image batches.", min=1)] = 4,
    compute: Annotated[
        str, typer.Option(help="float32 or bfloat16: what the autoencoder computes in; the latter on GPUs.")
    ] = "float32",
    gpus: Annotated[float, typer.Option(help="GPUs of a worker, 0.5 for two on one; 0: CPUs.", min=0)] = 0,
    cpus: Annotated[int | None, typer.Option(help="CPUs to use; default: all.", min=1)] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster (auto, ray://host:10001); default: here.")] = None,
    clips_per_file: Annotated[int, typer.Option(help="What a kill may cost a worker.", min=1)] = 32,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try clips again that failed before.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be stored, and stop.")] = False,
) -> None:
    """Store latents and text features of sets, so that `train dit` reads them instead of decoding.

    Example:  rushes encode runs/demo --tae runs/tae --recipe dit-tiny -o runs/latents
    """
    if precision not in WRITTEN:
        fail(f"--precision is one of {', '.join(WRITTEN)}, not '{precision}'.")
    if compute not in COMPUTED:
        fail(f"--compute is {' or '.join(COMPUTED)}, not '{compute}'.")
    with sentences():
        from rushes.curation.sections import Engine
        from rushes.model.train_recipe import load

        resolved = of_model(load(recipe, set_ or []), "dit")
        given.stages_read(resolved, set_name or [])
        given.runs(runs, videos=True)
        given.checkpoint(tae, "tae")
        given.folder(output)
        with given.loading():
            from rushes.model.frozen import load_tae
            from rushes.pipelines import encode as job

        engine = Engine(address=address, num_cpus=cpus)
        options = job.Options(precision, parts, stills, compute, gpus, clips_per_file, retry_failed, engine)
        if dry_run:
            frozen, mark = load_tae(tae)
            plans = job.plan_sets(resolved, runs, set_name or [])
            settings = job.settings_of(resolved, frozen, mark, options)
            console.print(job.plan_table(plans, settings, frozen.config.latent_channels, console.width))
            return
        run, notes = job.encode(resolved, runs, tae, output, set_name or [], options, console)
        for name, entry in run.record["encoding"]["sets"].items():
            console.print(f"sets/{name}: {entry['encoded']} of {entry['rows']} clips", highlight=False)
        for note in notes:
            tell(f"Note: {note}", "yellow")


def sample(
    dit: Annotated[str, typer.Option("--dit", help="Output of `rushes train dit`, or one of its checkpoints.")],
    tae: Tae,
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help="A video for each; may be repeated.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for the mp4 files.")] = "samples",
    frames: Annotated[int, typer.Option(help="Length in frames; 256 is 16 s.", min=1)] = 16,
    size: Annotated[str, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 16.")] = "128x80",
    steps: Annotated[int, typer.Option(help="Sampling steps; the paper's 50.", min=2)] = 50,
    guidance: Annotated[float, typer.Option(help="Weight of the text; the paper's 7.5. 1: none.")] = 7.5,
    seed: Annotated[int, typer.Option(help="Another seed, another video.")] = 0,
    fps: Annotated[float, typer.Option(help="Frames per second, said to the model and written.", min=1)] = 16,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: half the memory, on GPUs faster.")] = "float32",
    image: Annotated[
        str | None, typer.Option(help="An image the videos begin with; a DiT trained with options.first_frame.")
    ] = None,
) -> None:
    """Videos for prompts, as mp4.

    Example:  rushes sample --dit runs/dit --tae runs/tae -p "A slow pan over a forest." --size 128x80 --frames 16

    A model that no GPU holds, over several:  torchrun --nproc-per-node 8 -m rushes.pipelines.cli sample ...
    """
    if precision not in COMPUTED:
        fail(f"--precision is {' or '.join(COMPUTED)}, not '{precision}'.")
    wide, _, high = size.partition("x")
    if not (wide.isdigit() and high.isdigit()) or int(wide) % 16 or int(high) % 16 or not int(wide) * int(high):
        fail(f"--size wants WIDTHxHEIGHT, multiples of 16, for example 128x80, not '{size}'.")
    if image and not Path(image).is_file():
        fail(f"--image {image}: there is no such file.")
    with sentences():
        given.checkpoint(dit, "dit")
        given.checkpoint(tae, "tae")
        given.folder(output)
        with given.loading():
            from rushes.model.flow import PROCESSES
            from rushes.model.frames import read_image
            from rushes.model.frozen import load_tae, text_encoders
            from rushes.model.parallel import joined
            from rushes.model.sample import load_dit, sample_video, write_mp4
            from rushes.model.train_recipe import Parallel, Text

        with joined(Parallel()) as place:
            decoder, mark = load_tae(tae, place.device)
            model, meta = load_dit(dit, mark, place, precision == "bfloat16")
            encoders, process = text_encoders(Text(**meta["text"]), place.device), PROCESSES[meta["process"]]()
            if image and not model.config.first_frame:
                fail(f"{dit} was not trained on first frames: train it with --set options.first_frame=true.")
            first = read_image(image, int(high), int(wide)) if image else None
            for number, text in enumerate(prompt):
                video = sample_video(
                    model, decoder, encoders, text, frames, int(high), int(wide), steps, guidance, seed,
                    process, fps if frames > 1 else None, first=first,
                )  # fmt: skip
                if place.leads:
                    file = write_mp4(Path(output) / f"{number:03d}-seed{seed}.mp4", video, fps)
                    _note_prompt(file, text)
                    say(str(file))


def _note_prompt(file: Path, text: str) -> None:
    """Add the prompt to prompts.json beside the video: who compares samples is shown it."""
    notes = file.with_name("prompts.json")
    known = json.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    notes.write_text(json.dumps({**known, file.name: text}, ensure_ascii=False, indent=1), encoding="utf-8")


def average(
    checkpoints: Annotated[list[str], typer.Argument(help="Checkpoints, or outputs of trainings (their newest).")],
    output: Annotated[str, typer.Option("--output", "-o", help="Where the averaged checkpoint is written.")],
    weight: Annotated[list[float] | None, typer.Option("--weight", help="One per checkpoint; default: equal.")] = None,
) -> None:
    """Average the weights of several trainings of one model, as the paper does after fine-tuning.

    Example:  rushes average runs/finetune-a runs/finetune-b -o runs/averaged
    """
    if weight and len(weight) != len(checkpoints):
        fail(f"--weight is given once for each checkpoint: {len(checkpoints)} times, not {len(weight)}.")
    with sentences():
        for one in checkpoints:
            given.checkpoint(one)
        given.folder(output)
        with given.loading():
            from rushes.model.average import average as run_average

        say(f"Averaged {len(checkpoints)} checkpoints: {run_average(checkpoints, output, weight)}")


def export_weights(
    checkpoint: Annotated[str, typer.Argument(help="A training's output, or one of its checkpoints.")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder for config.json and safetensors.")],
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    raw: Annotated[bool, typer.Option("--raw", help="The weights themselves instead of their moving average.")] = False,
    part_gb: Annotated[float, typer.Option(help="Size of a file at most, GB.", min=0.001)] = 5.0,
) -> None:
    """Weights as safetensors with a config.json, for other programs. An adapter (LoRA) goes out as peft writes it.

    Example:  rushes export-weights runs/dit -o weights/dit --precision bfloat16
    """
    if precision not in WRITTEN:
        fail(f"--precision is one of {', '.join(WRITTEN)}, not '{precision}'.")
    with sentences():
        given.checkpoint(checkpoint)
        given.folder(output)
        with given.loading():
            from rushes.model.export import export

        for path in export(checkpoint, output, precision, not raw, part_gb):
            say(str(path))


def evaluate(
    runs: Runs,
    tae: Annotated[list[str], typer.Option("--tae", help="A trained TAE; several are rows side by side.")],
    dit: Annotated[
        list[str] | None, typer.Option("--dit", help="A DiT of that TAE: its samples are judged; may be repeated.")
    ] = None,
    set_name: Annotated[str, typer.Option("--set-name", help="Which set of the runs.")] = "validation",
    clips: Annotated[int, typer.Option(help="At most so many clips.", min=1)] = 16,
    frames_max: Annotated[int | None, typer.Option(help="At most so many frames of each; default: all.", min=1)] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Square root of the area, pixels; default: the set's.", min=16)
    ] = None,
    features: Annotated[
        str, typer.Option(help="FID's extractor: a TorchScript file, open_clip:NAME/TAG, or random-conv.")
    ] = "random-conv",
    video_features: Annotated[
        str, typer.Option(help="FVD's extractor: a TorchScript file (I3D), or random-conv.")
    ] = "random-conv",
    steps: Annotated[int, typer.Option(help="DiT: sampling steps.", min=2)] = 50,
    guidance: Annotated[float, typer.Option(help="DiT: weight of the text.")] = 7.5,
    seed: Annotated[int, typer.Option(help="DiT: of the first clip's noise.")] = 0,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Autoencoders by PSNR, SSIM, FID and FVD of what they reproduce; transformers by FID and FVD of their samples.

    Example:  rushes evaluate runs/demo --tae runs/tae-2.5d --tae runs/tae-3d --resolution 96 --frames-max 16
    """
    if dit and len(tae) > 1:
        fail(f"--dit is judged with the one TAE it was trained with; {len(tae)} were given with --tae.")
    with sentences():
        given.sets(given.runs(runs, videos=True), [set_name], "--set-name")
        for one in tae:
            given.checkpoint(one, "tae")
        for one in dit or ():
            given.checkpoint(one, "dit")
        with given.loading():
            from rushes.model.data import DataOptions
            from rushes.model.latents import videos_only
            from rushes.pipelines.train import evaluation

        videos_only(runs)
        options = DataOptions(set_name, 1, 0, frames_max, resolution)
        setting = evaluation.Setting(runs, options, clips, features, video_features, _device())
        if dit:
            report = evaluation.compare_dits(setting, tae[0], dit, steps, guidance, seed)
        else:
            report = evaluation.compare_taes(setting, tae)
        if json_:
            print(json.dumps(report, indent=1))
        else:
            evaluation.show(report, console)


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
