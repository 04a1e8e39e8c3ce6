"""What a transformer is trained with and never changes: the autoencoder and the text encoders."""

from __future__ import annotations

import torch

from rushes.model import checkpoint as checkpoints
from rushes.model.open_weights import PREFIX, OpenTAE, load_open_tae
from rushes.model.tae import TAE
from rushes.model.tae_config import TAEConfig
from rushes.model.text import ByteEncoder, CLIPEncoder, T5Encoder, TextEncoder, TextEncoders
from rushes.model.text_llama import LlamaEncoder
from rushes.model.train_recipe import BytesText, ClipText, LlamaText, T5Text, Text


def load_tae(where: str, device: torch.device | str = "cpu") -> tuple[TAE | OpenTAE, str]:
    """A frozen autoencoder (averaged weights) and its fingerprint. Raises CheckpointError.

    where: a training's output, one of its checkpoints, or `diffusers:PATH` (model/open_weights.py).
    """
    if where.startswith(PREFIX):
        theirs = load_open_tae(where.removeprefix(PREFIX), device)
        return theirs, checkpoints.fingerprint(theirs)
    found = checkpoints.open_checkpoint(where)
    checkpoints.require(found, "tae")
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in found.meta["config"].items()}
    model = TAE(TAEConfig(**options))
    checkpoints.load_weights(found, model)
    return model.eval().requires_grad_(False).to(device), checkpoints.fingerprint(model)


def text_encoders(text: Text, device: torch.device | str = "cpu") -> TextEncoders:
    """The encoders that the recipe names. Raises TextEncoderError where weights or a library are missing."""
    return TextEncoders([_text_encoder(choice, str(device)) for choice in text.encoders])


def _text_encoder(choice: BytesText | T5Text | ClipText | LlamaText, device: str) -> TextEncoder:
    if choice.name in ("bytes", "quoted"):
        return ByteEncoder(choice.width, choice.max_tokens, choice.name, choice.name == "quoted")
    if choice.name == "clip":
        return CLIPEncoder(choice.model, choice.pretrained, device=device)
    dtype = getattr(torch, choice.precision)
    if choice.name == "llama":
        return LlamaEncoder(choice.source, choice.max_tokens, device, dtype)
    source = choice.source or {"ul2": "google/ul2", "byt5": "google/byt5-small"}[choice.name]
    return T5Encoder(source, choice.name, choice.max_tokens, choice.name == "byt5", device, dtype, choice.padded)
