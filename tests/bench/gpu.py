"""`python -m tests.bench.gpu`: the trainer's models on one GPU, printed as markdown with the method.

In parts that each end within eight minutes (`--part`): the DiT 1b at 256 px; a stack of 5b's blocks at 37,000 tokens;
the autoencoder beside Cosmos; 20 steps of `train tae` and `train dit` through session, loader and saver. What fails is
a row that says so, and what there is no time left for.

The code paths are the trainer's own: model.parallel.prepare_blocks, model.steps.precision, model.flow.training_loss,
model.loop.Trained. Weights and inputs are random; neither changes the time. `--device cpu --smoke` runs everything at
tiny sizes, to see that it runs: its figures mean nothing.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from rushes.curation.looking.torchvision_schemas import imported
from rushes.model.device import attention_order, peak_flops
from rushes.model.dit import DIT_SIZES, DiT, DiTConfig, token_count, train_flops
from rushes.model.evaluate import seconds
from rushes.model.flow import FlowMatching, training_loss
from rushes.model.parallel import prepare_blocks
from rushes.model.steps import precision
from rushes.model.tae import TAE
from rushes.model.tae_config import SPACE_FACTOR, TAE_SIZES, TAEConfig, latent_frames
from rushes.model.train import train_dit, train_tae
from rushes.model.train_recipe import TrainRecipe, build
from rushes.model.trained import Trained
from tests.model.small_run import CLIPS, make_film, make_run, row

REPEATS = 10  # timed runs, after one to warm up; medians
TEXT = {"ul2": 4096}  # the text encoder of dit-moviegen: name, width
DROPPED = 0.1  # share of captions left out, as in training
PART_S = 420.0  # seconds after which a part begins no further row: the last one has a minute to end
STEPS, WARM = 20, 5  # of the trainings, and those that are not counted
OPTIONAL = (RuntimeError, ValueError, TypeError, KeyError, AttributeError, AssertionError, ImportError, OSError)


@dataclass(frozen=True)
class Scale:
    """What is measured. video: frames, height, width of the DiT's clips; tile: frames that the TAE sees at once."""

    dit_name: str
    dit: DiTConfig
    video: tuple[int, int, int]
    text_tokens: int
    batch_max: int
    tae_name: str
    tae: TAEConfig
    sides: tuple[int, ...]
    tile: int
    repeats: int
    stack_name: str
    stack: DiTConfig  # blocks alone
    stack_video: tuple[int, int, int]
    trained: dict[str, dict[str, Any]]  # recipes' keys, by model
    clip: tuple[int, int, int]  # frames, height, width of the trained clips
    cosmos: dict[str, Any]  # arguments of AutoencoderKLCosmos, whose defaults are 8x8x8 with 16 channels


FULL = Scale(
    "1b", replace(DIT_SIZES["1b"], text_widths=TEXT), (256, 192, 336), 256, 64,
    "base", TAE_SIZES["base"], (256, 512), 32, REPEATS,
    "4 of 5b's 32 blocks", replace(DIT_SIZES["5b"], layers=4, text_widths=TEXT), (128, 576, 1024),
    {"tae": {"size": "base", "precision": "bfloat16", "options": {}, "stage": {"batch": 4, "micro_batch": 1}},
     "dit": {"size": "1b", "precision": "bfloat16", "options": {}, "checkpointing": "selective", "compile": True,
             "stage": {"batch": 4, "micro_batch": 1}}},
    (128, 192, 336), {},
)  # fmt: skip
SMOKE = Scale(
    "smoke", DiTConfig(layers=2, dim=64, ffn=96, heads=2, grid=(2, 4, 4), text_widths={"ul2": 16}), (16, 32, 48), 5, 2,
    "tiny", TAE_SIZES["tiny"], (32,), 8, 1,
    "smoke", DiTConfig(layers=1, dim=64, ffn=96, heads=2, grid=(2, 4, 4), text_widths={"ul2": 16}), (16, 32, 48),
    {"tae": {"size": "tiny", "options": {"block_channels": [4, 4, 8, 8], "norm_groups": 4, "blocks": False},
             "loss": {"opl": 1.0}, "stage": {"batch": 2, "micro_batch": 2}},
     "dit": {"size": "tiny", "options": {"layers": 1, "dim": 32, "ffn": 48, "heads": 2, "grid": [1, 2, 2]},
             "stage": {"batch": 2, "micro_batch": 1}}},
    (16, 32, 48),
    {"encoder_block_out_channels": (8, 8, 8, 8), "decode_block_out_channels": (8, 8, 8, 8), "num_layers": 1,
     "attention_resolutions": (), "resolution": 32},
)  # fmt: skip


# ---- the transformer -----------------------------------------------------------------------------------------------


def recipe_of() -> TrainRecipe:
    return build({"model": "dit", "precision": "bfloat16", "stages": [{"name": "bench"}]})


def loss_of(scale: Scale, model: DiT, batch: int, device: torch.device) -> Callable[[], Tensor]:
    """The loss of a batch of latents, noise, times and captions of different lengths, some of them dropped."""
    frames, height, width = scale.video
    config, (name, features) = scale.dit, next(iter(scale.dit.text_widths.items()))
    shape = (config.latent_channels, latent_frames(frames), height // SPACE_FACTOR, width // SPACE_FACTOR)
    data, noise = (torch.randn(batch, *shape, device=device) for _ in range(2))
    process, recipe = FlowMatching(), recipe_of()
    time = process.sample_time(batch, device=device)
    text = {name: torch.randn(batch, scale.text_tokens, features, device=device)}
    lengths = torch.randint(1, scale.text_tokens + 1, (batch, 1), device=device)
    mask = {name: torch.arange(scale.text_tokens, device=device) < lengths}
    drop = torch.rand(batch, device=device) < DROPPED

    def loss() -> Tensor:
        with precision(recipe, device):
            return training_loss(lambda x, t: model(x, t, text, mask, drop), process, data, noise, time)

    return loss


def step_of(
    scale: Scale, batch: int, device: torch.device, checkpointing: bool | str, compiled: bool
) -> Callable[[], None]:
    """One optimizer step of a fresh model: forward, backward, clipping, AdamW, moving average."""
    with device:
        model = DiT(scale.dit)
    prepare_blocks(model.blocks, checkpointing, compiled)
    trained, loss = Trained(model, recipe_of().optimizer), loss_of(scale, model, batch, device)

    def step() -> None:
        loss().backward()
        trained.step(1e-4, 1)

    return step


def flops_of(scale: Scale) -> float:
    """Of one clip's training step: model.dit.train_flops, with the mean of the captions' lengths."""
    return train_flops(scale.dit, token_count(scale.dit, *scale.video), (1 + scale.text_tokens) / 2)


def fitting_batch(scale: Scale, device: torch.device, checkpointing: bool | str) -> int:
    """The largest power of two of clips whose step fits, not compiled; 0 where one does not."""
    batch = 0
    while max(2 * batch, 1) <= scale.batch_max:
        try:
            with measured(device):
                seconds(step_of(scale, max(2 * batch, 1), device, checkpointing, False), device, 1)
        except torch.OutOfMemoryError:
            break
        batch = max(2 * batch, 1)
    return batch


def dit_table(scale: Scale, device: torch.device) -> Iterator[str]:
    tokens, flops, began = token_count(scale.dit, *scale.video), flops_of(scale), time.monotonic()
    peak = peak_flops(device)
    frames, height, width = scale.video
    clip = f"{frames} frames of {width}x{height}: {tokens:,} tokens and {scale.text_tokens} of text"
    yield f"DiT {scale.dit_name}; a clip is {clip}."
    yield f"{flops / 1e12:.4g} TFLOP a clip, forward and backward."
    yield ""
    yield "| compiled | recomputed | batch | s a step | tokens/s | MFU | peak memory |"
    yield "|---|---|---|---|---|---|---|"
    for checkpointing in (False, "selective", True):
        batch = fitting_batch(scale, device, checkpointing) if time.monotonic() - began < PART_S else 0
        for compiled in (True, False):
            row = f"| {_yes(compiled)} | {_yes(checkpointing)} | {batch} |"
            if not batch:
                yield f"{row} does not fit, or no time was left | | | |"
                continue

            def timed(row=row, checkpointing=checkpointing, compiled=compiled, batch=batch) -> str:
                with measured(device) as memory:
                    took = seconds(step_of(scale, batch, device, checkpointing, compiled), device, scale.repeats)
                mfu = f"{flops * batch / took / peak:.1%}" if peak else "not known"
                return f"{row} {took:.4g} | {batch * tokens / took:,.0f} | {mfu} | {memory()} |"

            yield row_or_reason(timed, row, 4, began)


def row_or_reason(make: Callable[[], str], row: str, cells: int, began: float) -> str:
    """A row of a table, or the same with what went wrong in its next cell and the others empty."""
    if time.monotonic() - began > PART_S:
        return f"{row} no time was left |{' |' * (cells - 1)}"
    try:
        return make()
    except OPTIONAL as error:
        reason = "does not fit" if isinstance(error, torch.OutOfMemoryError) else " ".join(str(error).split())[:200]
        return f"{row} {type(error).__name__}: {reason.replace('|', '/')} |{' |' * (cells - 1)}"


def stack_table(scale: Scale, device: torch.device) -> Iterator[str]:
    """A training step of a few of a large model's blocks at many tokens: one GPU holds a part of it."""
    yield from dit_table(replace(scale, dit_name=scale.stack_name, dit=scale.stack, video=scale.stack_video), device)


# ---- the autoencoder -----------------------------------------------------------------------------------------------


def tae_of(scale: Scale, device: torch.device) -> tuple[nn.Module, int, Callable, Callable]:
    """(model, frames of a tile, encode, decode)."""
    with device:
        model = TAE(scale.tae)
    return model, scale.tile, lambda video: model.encode(video).mean, lambda z: model.decode(z, scale.tile)


def cosmos_of(scale: Scale, device: torch.device) -> tuple[nn.Module, int, Callable, Callable]:
    """The same of NVIDIA's causal tokenizer, which takes 1 + 8 n frames. Raises ImportError without diffusers."""
    cosmos = imported("diffusers").AutoencoderKLCosmos
    with device:
        model = cosmos(**scale.cosmos)
    return (
        model,
        scale.tile + 1,
        lambda video: model.encode(video).latent_dist.mode(),
        lambda z: model.decode(z).sample,
    )


def autoencoder_row(
    name: str, make: Callable, scale: Scale, side: int, half: bool, device: torch.device
) -> tuple[str, float, float]:
    """A row of the table, and frames/s encoded and decoded."""
    row = f"| {name} | {side} px | {'weights' if half else 'autocast'} |"
    try:
        with measured(device) as memory, torch.no_grad():
            model, frames, encode, decode = make(scale, device)
            kind = torch.bfloat16 if half else torch.float32
            video = torch.zeros(1, 3, frames, side, side, device=device, dtype=kind)
            model.eval().to(kind)
            with torch.autocast(device.type, torch.bfloat16, enabled=not half):
                latent = encode(video)
                encoded = frames / seconds(lambda: encode(video), device, scale.repeats)
                decoded = frames / seconds(lambda: decode(latent), device, scale.repeats)
        return f"{row} {encoded:,.4g} | {decoded:,.4g} | {memory()} |", encoded, decoded
    except OPTIONAL as error:
        reason = "does not fit" if isinstance(error, torch.OutOfMemoryError) else " ".join(str(error).split())[:200]
        return f"{row} {reason.replace('|', '/')} | | |", 0.0, 0.0


def tae_table(scale: Scale, device: torch.device) -> Iterator[str]:
    made = {f"TAE {scale.tae_name}": tae_of}
    try:
        diffusers = imported("diffusers")
        made[f"Cosmos 8x8x8 (diffusers {diffusers.__version__})"] = cosmos_of
    except ImportError:
        yield "diffusers is not installed, so nothing stands beside the TAE: pip install diffusers"
    yield f"One tile at a time: {scale.tile} frames ({scale.tile + 1} of the causal Cosmos)."
    yield ""
    yield "| autoencoder | size | bfloat16 | encode frames/s | decode frames/s | peak memory |"
    yield "|---|---|---|---|---|---|"
    ratios = []
    for side in scale.sides:
        for half in (False, True):
            found = [autoencoder_row(name, make, scale, side, half, device) for name, make in made.items()]
            yield from (row for row, _, _ in found)
            if len(found) == 2 and all(found[1][1:]):
                encode, decode = (ours / theirs for ours, theirs in zip(found[0][1:], found[1][1:]))
                ratios.append(f"{side} px, {'weights' if half else 'autocast'}: {encode:.2f} and {decode:.2f}")
    if ratios:
        yield ""
        yield f"TAE over Cosmos, encode and decode: {'; '.join(ratios)}."


# ---- trainings ------------------------------------------------------------------------------------------------------


def training_table(scale: Scale, device: torch.device) -> Iterator[str]:
    """STEPS steps through session, loader and saver, on clips of a film that is made here."""
    began = time.monotonic()
    yield f"{STEPS} steps each, a checkpoint at the end among them; medians of those after the first {WARM}."
    yield ""
    yield "| command | s a step | of it waiting for data | MFU | loss, first and last |"
    yield "|---|---|---|---|---|"
    with tempfile.TemporaryDirectory(prefix="rushes-bench-") as folder:
        root = Path(folder)
        make_film(root)
        frames, height, width = scale.clip
        shape = {"bucket_frames": frames, "bucket_height": height, "bucket_width": width, "sample_fps": frames / 1.5}
        rows = [row(n, "film.mp4", **shape) for n in range(CLIPS)]
        run = make_run(root, rows, rows[:1])
        for model in ("tae", "dit"):
            name = f"| train {model} ({scale.trained[model]['size']}) |"
            yield row_or_reason(partial(trained_row, model, scale, run, root, name, device), name, 4, began)


def trained_row(model: str, scale: Scale, run: str, root: Path, name: str, device: torch.device) -> str:
    keys = dict(scale.trained[model])
    stage = {
        "name": "bench",
        "steps": STEPS,
        "lr": 1e-4,
        "validate_every": STEPS,
        "save_every": STEPS,
        **keys.pop("stage"),
    }
    stage |= {"frames_max": scale.tile} if model == "tae" else {}
    recipe = build({"model": model, "data": {"validation_clips": 1, "workers": 4}, "stages": [stage], **keys})
    output = str(root / model)
    with measured(device):
        if model == "tae":
            train_tae(recipe, [run], output, lambda _: None)
        else:
            train_dit(recipe, [run], output, str(root / "tae"), lambda _: None)
    entries = [json.loads(line) for line in Path(output, "log.jsonl").read_text().splitlines()]
    steady = entries[WARM:-1]
    took, waited = (statistics.median(entry[key] for entry in steady) for key in ("step_s", "data_wait_s"))
    mfu = [entry["mfu"] for entry in steady if entry["mfu"] is not None]
    share = f"{statistics.median(mfu):.1%}" if mfu else "not known"
    return f"{name} {took:.4g} | {waited / took:.1%} | {share} | {entries[0]['loss']:.4g}, {entries[-1]['loss']:.4g} |"


# ---- all of it -----------------------------------------------------------------------------------------------------


@contextmanager
def measured(device: torch.device) -> Iterator[Callable[[], str]]:
    """What ran before is let go, memory and compiled code; what is yielded says the peak since then."""
    gc.collect()
    torch.compiler.reset()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield lambda: f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else "not known"


def _yes(value: bool | str) -> str:
    return value if isinstance(value, str) else "yes" if value else "no"


PARTS: dict[str, tuple[str, Callable[[Scale, torch.device], Iterator[str]]]] = {
    "dit": ("The transformer", dit_table),
    "stack": ("Blocks of a large transformer", stack_table),
    "tae": ("The autoencoder", tae_table),
    "train": ("Trainings", training_table),
}


def lines(scale: Scale, device: torch.device, parts: list[str]) -> Iterator[str]:
    """The report, line by line as it is measured."""
    cuda = device.type == "cuda"
    peak = peak_flops(device)
    machine = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()} CPU"
    yield f"Machine: {machine}, torch {torch.__version__}."
    yield (
        f"Method: medians of {scale.repeats} after one to warm up, wall time, the device waited for. A step is "
        "forward, backward, clipping, AdamW and moving average of one batch, the largest power of two that fits "
        "uncompiled, in bfloat16 autocast over float32 weights, as `precision: bfloat16` trains. MFU: the "
        "model's FLOPs (model.dit.train_flops: three times the forward pass's matrix products, real text tokens, "
        "nothing recomputed) over time and the dense bfloat16 peak"
        + (f" of {peak / 1e12:.0f} TFLOP/s." if peak else ", which is not known here.")
    )
    for part in parts:
        title, table = PARTS[part]
        yield from ("", f"## {title}", "")
        with attention_order(device):
            yield from table(scale, device)


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu with --smoke.")] = "cuda",
    part: Annotated[list[str] | None, typer.Option(help=f"{', '.join(PARTS)}; several times, or all of them.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes: that it runs. Figures mean nothing.")] = False,
) -> None:
    """The trainer's models on one GPU, as markdown."""
    if not smoke and (device == "cpu" or not torch.cuda.is_available()):
        typer.echo("There is no GPU to measure here; --device cpu --smoke runs everything at tiny sizes.", err=True)
        raise typer.Exit(2)
    if unknown := set(part or ()) - set(PARTS):
        typer.echo(f"There is no part {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}.", err=True)
        raise typer.Exit(2)
    if smoke:
        torch.compiler.set_default_backend("aot_eager")  # traces as on a GPU, and needs no compiler
    torch.manual_seed(0)
    for line in lines(SMOKE if smoke else FULL, torch.device(device), part or list(PARTS)):
        print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
