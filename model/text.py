"""Prompts to token features: the encoders of Movie Gen (sec 3.1.3), an offline stand-in, and the way into the DiT.

An encoder is frozen and answers `TextFeatures`: [B, L, width] and a mask. Three look at one prompt from three sides:
UL2 reads its meaning, ByT5 the letters of what stands in quotation marks (text to be drawn), CLIP what it looks
like. `TextEncoders` asks them all; `TextProjector`, which is trained, brings each to the model's width and puts them
one behind the other.

`ByteEncoder` needs no weights. It knows bytes and their places and no language: enough to tell captions apart in a
demo or a test. It is never a silent substitute: a recipe asks for it by its name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rushes.curation.looking.torchvision_schemas import imported

QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|«([^»]+)»')
POSITION_PERIOD = 10_000.0  # of the sinusoids of Vaswani 2017


class TextEncoderError(ValueError):
    """An encoder that cannot be built: a missing extra, or weights that are not there. The text says what to do."""


@dataclass(frozen=True)
class TextFeatures:
    """tokens: [B, L, width] float32; mask: [B, L] bool, true where a token is real. L may be 0."""

    tokens: Tensor
    mask: Tensor


class TextEncoder(Protocol):
    """name: the key under which features are stored and projected. width: of one feature.

    quoted_only: of what stands in quotation marks. read(prompt): the part that tokens stand for.
    """

    name: str
    width: int
    quoted_only: bool

    def read(self, prompt: str) -> str: ...

    def encode(self, prompts: Sequence[str]) -> TextFeatures: ...


# ---- prompts -------------------------------------------------------------------------------------------------------


def prompt(caption: str, fps: float | None = None, camera_motion: str | None = None) -> str:
    """ "FPS-16. pan left. A dog runs." (app. B.2): frame rate and camera motion in front of the caption.

    fps: frames per second the clip is sampled at, rounded; camera_motion: one of the 16 classes; None leaves one out.
    """
    parts = [] if fps is None else [f"FPS-{round(fps)}."]
    parts += [f"{camera_motion.strip().rstrip('.')}."] if camera_motion and camera_motion.strip(" .") else []
    return " ".join([*parts, caption.strip()]).strip()


def quoted(text: str) -> str:
    """What stands in double quotation marks, joined by spaces; "" where nothing does. Apostrophes do not count."""
    return " ".join(next(filter(None, groups)) for groups in QUOTED.findall(text))


# ---- encoders ------------------------------------------------------------------------------------------------------


class ByteEncoder:
    """UTF-8 bytes as frozen random vectors plus sinusoidal positions. Offline and deterministic on every machine.

    The vectors are read from SHAKE-256 of the width, uniform with variance 1, so no library's generator matters.
    quoted_only: of what stands in quotation marks and nothing else, the offline counterpart of the paper's ByT5.
    """

    def __init__(self, width: int = 256, max_tokens: int = 256, name: str = "bytes", quoted_only: bool = False):
        if width % 2:
            raise ValueError(f"sinusoidal positions need an even width, not {width}")
        self.name, self.width, self.max_tokens, self.quoted_only = name, width, max_tokens, quoted_only
        stream = hashlib.shake_256(f"rushes byte encoder, width {width}".encode()).digest(4 * 256 * width)
        integers = torch.frombuffer(bytearray(stream), dtype=torch.int32).double()
        unit = integers / 2**31  # [-1, 1), variance 1/3
        self.table = (unit * math.sqrt(3)).float().view(256, width)
        self.positions = _sinusoids(max_tokens, width)

    def read(self, prompt: str) -> str:
        """The part of the prompt that tokens stand for."""
        text = quoted(prompt) if self.quoted_only else prompt
        return text.encode()[: self.max_tokens].decode(errors="ignore")

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Bytes beyond `max_tokens` are cut off."""
        texts = [quoted(text) for text in prompts] if self.quoted_only else prompts
        rows = [list(text.encode())[: self.max_tokens] for text in texts]
        length = max(map(len, rows), default=0)
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.long)
        ids = ids.view(len(rows), length)
        mask = torch.arange(length) < torch.tensor([len(row) for row in rows], dtype=torch.long)[:, None]
        tokens = (self.table[ids] + self.positions[:length]) * mask[..., None]
        return TextFeatures(tokens, mask)


def _sinusoids(length: int, width: int) -> Tensor:
    """[length, width] float32, variance 1/2."""
    rates = torch.exp(-math.log(POSITION_PERIOD) * torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class T5Encoder:
    """The encoder half of a T5-like model by transformers: UL2 (`google/ul2`, 4096) or ByT5 (`google/byt5-small`).

    source: a local folder or a hub id. quoted_only: encode what stands in quotation marks and nothing else, as the
    paper does with ByT5. padded: `max_tokens` features of every prompt, those of the padding among them and none hidden
    from the others, as CogVideoX reads them. Raises TextEncoderError where transformers or the weights are missing.
    """

    def __init__(
        self,
        source: str,
        name: str = "ul2",
        max_tokens: int = 512,
        quoted_only: bool = False,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        padded: bool = False,
    ):
        transformers = needs("transformers", name)
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            model = transformers.T5EncoderModel.from_pretrained(source, dtype=dtype)
        except (OSError, ValueError) as error:
            raise TextEncoderError(f"text encoder {name}: no weights at {source!r}: {error}") from error
        self.model = model.to(device).eval().requires_grad_(False)
        self.name, self.width = name, self.model.config.d_model
        self.max_tokens, self.quoted_only, self.device, self.padded = max_tokens, quoted_only, device, padded

    def read(self, prompt: str) -> str:
        """The part of the prompt that tokens stand for, as the tokenizer writes it."""
        text = quoted(prompt) if self.quoted_only else prompt
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens).input_ids
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        texts = [quoted(text) if self.quoted_only else text for text in prompts]
        padding = "max_length" if self.padded else True
        batch = self.tokenizer(
            texts, padding=padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        if self.padded:
            tokens = self.model(input_ids=batch.input_ids).last_hidden_state.float()
            return TextFeatures(tokens, torch.ones_like(batch.input_ids, dtype=torch.bool))
        tokens = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        empty = torch.tensor([not text for text in texts], device=tokens.device)  # an end mark alone says nothing
        mask = batch.attention_mask.bool() & ~empty[:, None]
        return TextFeatures(tokens.float() * mask[..., None], mask)


class CLIPEncoder:
    """Token features of an open_clip text tower, before pooling, normalised by its last layer norm.

    model: an open_clip name; pretrained: its tag or a checkpoint's path. Reads 77 tokens; longer prompts are cut,
    where the paper's model was trained on 256. MetaCLIP's weights are CC-BY-NC; LAION's are MIT.
    Raises TextEncoderError where open_clip or the weights are missing.
    """

    def __init__(
        self,
        model: str = "ViT-bigG-14-quickgelu",
        pretrained: str | None = "metaclip_fullcc",
        name: str = "clip",
        device: str = "cpu",
    ):
        open_clip = needs("open_clip", name)
        try:
            clip = open_clip.create_model(model, pretrained=pretrained, device=device)
        except (OSError, RuntimeError, ValueError) as error:
            raise TextEncoderError(f"text encoder {name}: no model {model!r}, {pretrained!r}: {error}") from error
        self.clip = clip.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(model)
        self.name, self.device, self.quoted_only = name, device, False
        self.width = self.encode(["a"]).tokens.shape[-1]

    def read(self, prompt: str) -> str:
        """The part of the prompt that tokens stand for, as the tokenizer writes it."""
        ids = self.tokenizer([prompt])[0].tolist()
        end = max(range(len(ids)), key=ids.__getitem__)  # the end mark has the highest id
        return self.tokenizer.decode(ids[1:end]).strip()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        ids = self.tokenizer(list(prompts)).to(self.device)  # [B, 77]
        out = self.clip.forward_intermediates(
            text=ids, text_indices=1, normalize_intermediates=True, intermediates_only=True
        )
        tokens = out["text_intermediates"][-1].float()  # [B, 77, width]
        last = ids.argmax(dim=1)  # the end mark has the highest id
        places = torch.arange(tokens.shape[1], device=tokens.device)
        mask = places[None] <= last[:, None]
        return TextFeatures(tokens * mask[..., None], mask)


class TextEncoders:
    """Several encoders that read the same prompts side by side, by name. widths: name -> width of its features."""

    def __init__(self, encoders: Sequence[TextEncoder]):
        self.encoders = tuple(encoders)
        self.widths = {encoder.name: encoder.width for encoder in self.encoders}

    def encode(self, prompts: Sequence[str]) -> dict[str, TextFeatures]:
        return {encoder.name: encoder.encode(prompts) for encoder in self.encoders}


def needs(module: str, encoder: str) -> ModuleType | Any:
    """A library of the extra `text`. Raises TextEncoderError where it is missing."""
    try:
        return imported(module)
    except ImportError as error:
        raise TextEncoderError(
            f"the text encoder {encoder!r} needs {module}, which is not installed: pip install 'rushes[text]'"
        ) from error


# ---- into the model ------------------------------------------------------------------------------------------------


class TextProjector(nn.Module):
    """Linear + LayerNorm per encoder to the model's width, concatenated along the sequence (sec 3.1.3).

    One learned null token stands in front, always visible. Dropping the text for guidance masks the rest, and a
    prompt that no encoder has a token for is the same case: attention never meets an empty row.
    """

    def __init__(self, widths: dict[str, int], dim: int):
        super().__init__()
        self.projections = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in widths.items()})
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in widths})
        self.null = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(
        self, features: dict[str, Tensor], masks: dict[str, Tensor], drop: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """features: name -> [B, L, width]; masks: name -> [B, L] bool; drop: [B] bool, true = without text.

        Returns tokens [B, 1 + sum L, dim] and their mask [B, 1 + sum L]. Raises ValueError where the encoders are not
        those the model was built for.
        """
        if set(features) != set(self.projections) or set(masks) != set(self.projections):
            wanted, given = sorted(self.projections), sorted(features)
            raise ValueError(f"the model reads text from {wanted}; it was given {given}, masks of {sorted(masks)}")
        parts = [self.norms[name](layer(features[name])) for name, layer in self.projections.items()]
        mask = torch.cat([masks[name] for name in self.projections], dim=1)
        if drop is not None:
            mask = mask & ~drop[:, None]
        null = self.null.to(parts[0].dtype).expand(len(mask), -1, -1)
        return torch.cat([null, *parts], dim=1), torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
