"""`python -m tests.bench.gpu`: the trainer's models on one GPU, printed as markdown with the method.

The code paths are the trainer's own: model.parallel.prepare_blocks, model.steps.precision, model.flow.training_loss,
model.loop.Trained. Weights and inputs are random; neither changes the time. `--device cpu --smoke` runs everything at
tiny sizes, to see that it runs: its figures mean nothing.
"""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rushes.model.dit import DIT_SIZES, DiT, DiTConfig, token_count
from rushes.model.evaluate import seconds
from rushes.model.flow import FlowMatching, training_loss
from rushes.model.loop import Trained
from rushes.model.parallel import peak_flops, prepare_blocks
from rushes.model.steps import precision
from rushes.model.tae import SPACE_FACTOR, TAE, TAE_SIZES, TAEConfig, latent_frames
from rushes.model.train_recipe import TrainRecipe, build

REPEATS = 10  # timed runs, after one to warm up; medians
TEXT = {"ul2": 4096}  # the text encoder of dit-moviegen: name, width
DROPPED = 0.1  # share of captions left out, as in training


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
    cosmos: dict[str, Any]  # arguments of AutoencoderKLCosmos, whose defaults are 8x8x8 with 16 channels


FULL = Scale(
    "1b", replace(DIT_SIZES["1b"], text_widths=TEXT), (256, 192, 336), 256, 64,
    "base", TAE_SIZES["base"], (256, 512), 32, REPEATS, {},
)  # fmt: skip
SMOKE = Scale(
    "smoke", DiTConfig(layers=2, dim=64, ffn=96, heads=2, grid=(2, 4, 4), text_widths={"ul2": 16}), (16, 32, 48), 5, 2,
    "tiny", TAE_SIZES["tiny"], (32,), 8, 1,
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


def step_of(scale: Scale, batch: int, device: torch.device, checkpointing: bool, compiled: bool) -> Callable[[], None]:
    """One optimizer step of a fresh model: forward, backward, clipping, AdamW, moving average."""
    with device:
        model = DiT(scale.dit)
    prepare_blocks(model.blocks, checkpointing, compiled)
    trained, loss = Trained(model, recipe_of().optimizer), loss_of(scale, model, batch, device)

    def step() -> None:
        loss().backward()
        trained.step(1e-4, 1)

    return step


def flops_of(scale: Scale, device: torch.device) -> int:
    """Of one clip's forward and backward pass, as FlopCounterMode counts them; nothing recomputed."""
    with device:
        model = DiT(scale.dit)
    with FlopCounterMode(display=False) as counter:
        loss_of(scale, model, 1, device)().backward()
    return counter.get_total_flops()


def fitting_batch(scale: Scale, device: torch.device, checkpointing: bool) -> int:
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
    tokens = token_count(scale.dit, *scale.video)
    with measured(device):
        flops = flops_of(scale, device)
    peak = peak_flops(device)
    frames, height, width = scale.video
    clip = f"{frames} frames of {width}x{height}: {tokens:,} tokens and {scale.text_tokens} of text"
    yield f"DiT {scale.dit_name}; a clip is {clip}."
    yield f"{flops / 1e12:.4g} TFLOP a clip, forward and backward."
    yield ""
    yield "| compiled | recomputed | batch | s a step | tokens/s | MFU | peak memory |"
    yield "|---|---|---|---|---|---|---|"
    for checkpointing in (False, True):
        batch = fitting_batch(scale, device, checkpointing)
        for compiled in (True, False):
            row = f"| {_yes(compiled)} | {_yes(checkpointing)} | {batch} |"
            if not batch:
                yield f"{row} does not fit | | | |"
                continue
            with measured(device) as memory:
                took = seconds(step_of(scale, batch, device, checkpointing, compiled), device, scale.repeats)
            mfu = f"{flops * batch / took / peak:.1%}" if peak else "not known"
            yield f"{row} {took:.4g} | {batch * tokens / took:,.0f} | {mfu} | {memory()} |"


# ---- the autoencoder -----------------------------------------------------------------------------------------------


def tae_of(scale: Scale, device: torch.device) -> tuple[nn.Module, int, Callable, Callable]:
    """(model, frames of a tile, encode, decode)."""
    with device:
        model = TAE(scale.tae)
    return model, scale.tile, lambda video: model.encode(video).mean, lambda z: model.decode(z, scale.tile)


def cosmos_of(scale: Scale, device: torch.device) -> tuple[nn.Module, int, Callable, Callable]:
    """The same of NVIDIA's causal tokenizer, which takes 1 + 8 n frames. Raises ImportError without diffusers."""
    from diffusers import AutoencoderKLCosmos

    with device:
        model = AutoencoderKLCosmos(**scale.cosmos)
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
    except (torch.OutOfMemoryError, NotImplementedError) as error:
        reason = "does not fit" if isinstance(error, torch.OutOfMemoryError) else f"not on this {device.type}"
        return f"{row} {reason} | | |", 0.0, 0.0


def tae_table(scale: Scale, device: torch.device) -> Iterator[str]:
    made = {f"TAE {scale.tae_name}": tae_of}
    try:
        import diffusers

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


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def lines(scale: Scale, device: torch.device) -> Iterator[str]:
    """The report, line by line as it is measured."""
    cuda = device.type == "cuda"
    peak = peak_flops(device)
    machine = torch.cuda.get_device_name(device) if cuda else f"{platform.machine()} CPU"
    yield f"Machine: {machine}, torch {torch.__version__}."
    yield (
        f"Method: medians of {scale.repeats} after one to warm up, wall time, the device waited for. A step is "
        "forward, backward, clipping, AdamW and moving average of one batch, the largest power of two that fits "
        "uncompiled, in bfloat16 autocast over float32 weights, as `precision: bfloat16` trains. MFU: the FLOPs of "
        "torch's FlopCounterMode, without what is recomputed, over the dense bfloat16 peak"
        + (f" of {peak / 1e12:.0f} TFLOP/s." if peak else ", which is not known here.")
    )
    for title, table in (("The transformer", dit_table), ("The autoencoder", tae_table)):
        yield from ("", f"## {title}", "")
        yield from table(scale, device)


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu with --smoke.")] = "cuda",
    smoke: Annotated[bool, typer.Option("--smoke", help="Tiny sizes: that it runs. Figures mean nothing.")] = False,
) -> None:
    """The trainer's models on one GPU, as markdown."""
    if not smoke and (device == "cpu" or not torch.cuda.is_available()):
        typer.echo("There is no GPU to measure here; --device cpu --smoke runs everything at tiny sizes.", err=True)
        raise typer.Exit(2)
    if smoke:
        torch.compiler.set_default_backend("aot_eager")  # traces as on a GPU, and needs no compiler
    torch.manual_seed(0)
    for line in lines(SMOKE if smoke else FULL, torch.device(device)):
        print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
