"""Weights out again: a checkpoint as safetensors with a config, which any program reads without this one.

    OUT/config.json                       model ("tae" or "dit"), config, step, and what a DiT belongs to
    OUT/model.safetensors                 weights by name; above `part_gb` model-00001-of-0000N.safetensors and
    OUT/model.safetensors.index.json      which name lies in which file, as Hugging Face's libraries read it

A LoRA adapter of an open transformer goes out in peft's layout (adapter_config.json, adapter_model.safetensors), which
diffusers' `load_lora_adapter` takes. The TAE and the DiT are of no class that diffusers has.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor

from rushes.model import checkpoint as checkpoints
from rushes.model.checkpoint import CheckpointError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
KEPT = ("model", "config", "step", "tae", "text", "process", "recipe")  # of a checkpoint's meta.json
GB = 1e9
EXACT = ("latent_mean", "latent_std")  # measured statistics: never rounded


def export(
    where: str, output: str, precision: str = "float32", averaged: bool = True, part_gb: float = 5.0
) -> list[Path]:
    """Write the checkpoint at `where` to the folder `output`; the files written. Raises CheckpointError."""
    if precision not in PRECISIONS:
        raise CheckpointError(f"Weights are written as {', '.join(PRECISIONS)}, not as '{precision}'.")
    found, folder = checkpoints.open_checkpoint(where), Path(output)
    weights = checkpoints.read_weights(found, averaged)
    folder.mkdir(parents=True, exist_ok=True)
    if found.meta.get("open_transformer"):
        return _adapter(found.meta, weights, folder)
    for name, value in weights.items():
        kind = PRECISIONS[precision] if value.is_floating_point() and name not in EXACT else value.dtype
        weights[name] = value.to(kind).contiguous()
    config = {key: found.meta[key] for key in KEPT if key in found.meta} | {"precision": precision}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return [folder / "config.json", *_parts(weights, folder, part_gb)]


def _parts(weights: dict[str, Tensor], folder: Path, part_gb: float) -> list[Path]:
    """One file, or several and their index."""
    groups: list[dict[str, Tensor]] = [{}]
    size = 0.0
    for name, value in weights.items():
        if groups[-1] and size + value.nbytes > part_gb * GB:
            groups.append({})
            size = 0.0
        groups[-1][name] = value
        size += value.nbytes
    names = [f"model-{n:05d}-of-{len(groups):05d}.safetensors" for n in range(1, len(groups) + 1)]
    names = names if len(groups) > 1 else ["model.safetensors"]
    for name, group in zip(names, groups):
        _save(group, folder / name)
    if len(groups) == 1:
        return [folder / names[0]]
    index = {
        "metadata": {"total_size": sum(value.nbytes for value in weights.values())},
        "weight_map": {key: name for name, group in zip(names, groups) for key in group},
    }
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(index, indent=1), encoding="utf-8")
    return [*(folder / name for name in names), path]


def _save(group: dict[str, Tensor], path: Path) -> None:
    """One file, whole or not at all. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    beside = path.with_name(f".{path.name}.tmp")
    try:
        save_file(group, beside, {"format": "pt"})
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        if "No space left" in str(error):
            raise CheckpointError(f"No space is left while writing {path}; free some and start again.") from error
        raise CheckpointError(f"{path} cannot be written: {str(error).splitlines()[0]}.") from error


def _adapter(meta: dict, weights: dict[str, Tensor], folder: Path) -> list[Path]:
    """peft's files of a LoRA adapter."""
    from rushes.model.open_transformers import load_open_dit

    model = load_open_dit(meta["open_transformer"], **meta["lora"])
    model.load_state_dict(weights)
    model.save_adapter(folder)
    return sorted(folder.glob("adapter_*"))
