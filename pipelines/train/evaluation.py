"""`rushes evaluate`: models side by side, one row each, labelled by what differs between them.

The two tables of the paper's ablations come from here: autoencoders that look at time in 2.5D or 3D (sec 3.6.4), and
transformers trained by flow matching or diffusion (sec 3.6.2). A validation loss cannot compare the latter, since each
process has another target; the distance of their samples to the clips can.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from rushes.model import checkpoint as checkpoints
from rushes.model import evaluate
from rushes.model.checkpoint import Checkpoint
from rushes.model.data import DataOptions
from rushes.model.features import PIECE, load_extractor, load_video_extractor
from rushes.model.flow import PROCESSES
from rushes.model.frozen import load_tae, text_encoders
from rushes.model.sample import load_dit
from rushes.model.train_recipe import Text

TABLE_FROM = 120  # columns of a terminal on which a table of all numbers has room
PROCESS_NAMES = {"flow": "flow matching", "diffusion": "diffusion"}
COLUMNS = {  # key of a row -> heading, how it is written
    "variant": ("variant", str), "model": ("model", str), "parameters": ("parameters", "{:,}".format),
    "steps": ("steps", "{:,}".format), "psnr": ("PSNR dB", "{:.2f}".format),
    "above_linear": ("above linear dB", "{:+.2f}".format), "ssim": ("SSIM", "{:.4f}".format),
    "fid": ("FID", "{:.4g}".format), "fvd": ("FVD", "{:.4g}".format), "encode_fps": ("encode fps", "{:.4g}".format),
    "decode_fps": ("decode fps", "{:.4g}".format),
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What models are compared on."""

    runs: Sequence[str]
    options: DataOptions
    clips: int  # at most
    features: str  # model.features.load_extractor
    video_features: str  # model.features.load_video_extractor
    device: str


def compare_taes(setting: Setting, taes: Sequence[str]) -> dict[str, Any]:
    """Reconstructions of each autoencoder, as JSON values: `_report`'s keys, and rows with psnr, ssim, fid, paces."""
    found = [checkpoints.open_checkpoint(where) for where in taes]
    extractors = _extractors(setting)
    clips = evaluate.Clips(setting.runs, setting.options, setting.clips)
    truth = evaluate.survey(clips, extractors)
    rows, linear, correlations = [], {}, {}
    for one in found:
        model, _ = load_tae(str(one.path), setting.device)
        got = evaluate.evaluate_tae(model, clips, truth, extractors)
        if (channels := model.config.latent_channels) not in linear:
            linear[channels], correlations[channels] = evaluate.linear_psnr(clips, channels)
        rows.append(
            {"parameters": _parameters(model), "steps": one.step, "psnr": got.psnr,
             "above_linear": got.psnr - linear[channels], "ssim": got.ssim, "fid": got.fid, "fvd": got.fvd,
             "encode_fps": got.encode_pace, "decode_fps": got.decode_pace}
        )  # fmt: skip
    kinds = ["3D" if one.meta["config"]["volume"] else "2.5D" for one in found]
    report = _report(setting, truth, extractors, _labelled(taes, found, kinds, {"volume"}, rows))
    shape = truth.pace_shape
    report["baselines"] = {"clip_mean_psnr": truth.clip_mean_psnr, "set_mean_psnr": truth.set_mean_psnr,
                           "linear_psnr": linear, "linear_correlation": correlations}  # fmt: skip
    report["measured"] = (
        f"Paces: {_machine(setting.device)}, float32, one tile of at most {evaluate.TILE_FRAMES} frames of "
        f"{shape.width}x{shape.height}."
    )
    return report


def compare_dits(
    setting: Setting, tae: str, dits: Sequence[str], steps: int, guidance: float, seed: int
) -> dict[str, Any]:
    """Samples of each transformer for the clips' captions, at the same noise: `_report`'s keys, and rows with fid."""
    found = [checkpoints.open_checkpoint(where) for where in dits]
    decoder, mark = load_tae(tae, setting.device)
    models = [load_dit(str(one.path), mark) for one in found]  # all are refused or none is sampled
    extractors = _extractors(setting)
    clips = evaluate.Clips(setting.runs, setting.options, setting.clips)
    truth = evaluate.survey(clips, extractors)
    rows = []
    for model, meta in models:
        encoders, process = text_encoders(Text(**meta["text"]), setting.device), PROCESSES[meta["process"]]()
        make = evaluate.sampler(model.to(setting.device), decoder, encoders, process, steps, guidance, seed)
        fid, fvd = evaluate.evaluate_samples(make, clips, truth, extractors)
        rows.append({"parameters": _parameters(model), "steps": meta["step"], "fid": fid, "fvd": fvd})
        model.cpu()
    kinds = [PROCESS_NAMES[one.meta["process"]] for one in found]
    report = _report(setting, truth, extractors, _labelled(dits, found, kinds, set(), rows))
    report["reconstruction_fid"] = evaluate.evaluate_tae(decoder, clips, truth, extractors).fid
    report["measured"] = (
        f"Samples: {steps} steps, guidance {guidance:g}, seeds from {seed}, one for each clip's caption."
    )
    return report


def _extractors(setting: Setting) -> evaluate.Extractors:
    return evaluate.Extractors(
        load_extractor(setting.features, setting.device), load_video_extractor(setting.video_features, setting.device)
    )


def _report(
    setting: Setting, truth: evaluate.Truth, extractors: evaluate.Extractors, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """set, clips, frames, features (the extractor's name), dimensions (of a feature), note (or None), rows."""
    count, width = truth.features.count, truth.features.width
    note = f"{count} frames are fewer than the features' {width} dimensions: the FID is too high, and holds for "
    return {
        "set": setting.options.set, "clips": truth.clips, "frames": count, "features": extractors.frames.name,
        "video_features": extractors.videos.name, "pieces": truth.video_features.count, "dimensions": width,
        "note": f"{note}no other number of frames." if count < width else None, "rows": rows,
    }  # fmt: skip


def _labelled(
    names: Sequence[str], found: Sequence[Checkpoint], kinds: Sequence[str], known: set[str], rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Rows with `variant`: the kind, and every option in which the models differ, but for those the kind tells."""
    configs = [one.meta["config"] for one in found]
    differ = [key for key in configs[0] if key not in known and any(c.get(key) != configs[0][key] for c in configs)]
    variants = [", ".join([kind, *(f"{key} {c.get(key)}" for key in differ)]) for kind, c in zip(kinds, configs)]
    return [{"variant": variant, "model": name, **row} for variant, name, row in zip(variants, names, rows)]


def _parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _yardsticks(report: dict[str, Any]) -> list[tuple[str, float]]:
    """Rows of a report on autoencoders that no model made: what, and its PSNR."""
    found = report.get("baselines")
    if found is None:
        return []
    means = [("the set's mean frame", found["set_mean_psnr"]), ("each clip's own mean frame", found["clip_mean_psnr"])]
    return means + [
        (f"linear transform, {channels} channels", value) for channels, value in found["linear_psnr"].items()
    ]


def _lines(heads: Sequence[str], values: Sequence[str]) -> list[str]:
    """A row of the table, a number on each line."""
    return [values[0], *(f"  {head:<24} {value}" for head, value in zip(heads[1:], values[1:]) if value)]


def show(report: dict[str, Any], console: Console) -> None:
    """The report as a table and what one must know to read it."""
    keys = [key for key in COLUMNS if key in report["rows"][0]]
    title = f"{report['clips']} clips of sets/{report['set']}, {report['frames']:,} frames"
    rows = [[name if key == "variant" else f"{value:.2f}" if key == "psnr" else "" for key in keys]
            for name, value in _yardsticks(report)]  # fmt: skip
    rows += [[COLUMNS[key][1](row[key]) for key in keys] for row in report["rows"]]
    if console.width < TABLE_FROM:
        console.print(title, markup=False, highlight=False)
        for row in rows:
            console.print(*_lines([COLUMNS[key][0] for key in keys], row), sep="\n", markup=False, highlight=False)
    else:
        table = Table(title=title)
        for key in keys:
            written = key in ("variant", "model")
            table.add_column(COLUMNS[key][0], justify="left" if written else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        console.print(table, markup=False)
    lines = [f"FID: {report['features']}; {report['dimensions']} dimensions.", report["note"],
             f"FVD: {report['video_features']}; {report['pieces']} pieces of {PIECE} frames."]  # fmt: skip
    if "baselines" in report:
        lines.append(
            "Above the models what learned nothing: mean frames, and a linear transform of 8 x 8 x 8 blocks to as many "
            "numbers as the latents have, its constant the best of four on these very clips."
        )
    if "reconstruction_fid" in report:
        lines.append(f"The clips' reconstructions by the TAE: FID {report['reconstruction_fid']:.4g}.")
    for line in [*lines, report["measured"]]:
        if line:
            console.print(line, markup=False, highlight=False)
