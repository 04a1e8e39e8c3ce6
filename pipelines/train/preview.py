"""`rushes preview`: what the network will get, before it gets it.

Of each stage and each bucket the first clips of the very batches that the training will draw: cropped, scaled and
sampled as they will be, at their rate, with the prompt as each text encoder reads it after its tokenizer has cut it.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from rushes.curation.storage import write_bytes
from rushes.model.data import Loader, Sample
from rushes.model.frozen import text_encoders
from rushes.model.latents import videos_only
from rushes.model.staging import loader_of
from rushes.model.steps import prompts_of
from rushes.model.text import TextEncoders
from rushes.model.train_recipe import Stage, TrainRecipe

STEPS_LOOKED_AT = 500  # a bucket that comes later than this is rare, and its page says so
SHOWN_FRAMES, SHOWN_SIDE = 8, 120  # of a clip's strip: frames, and pixels of their height at most
STYLE = (
    "body{font:14px sans-serif;max-width:1200px;margin:2em auto;color:#222}h2{margin-top:2em}img{display:block}"
    ".clip{margin:1em 0;border-top:1px solid #ddd;padding-top:.6em}.cut{color:#b5482f}code{background:#f4f4f4}"
)


@dataclass(frozen=True)
class Text:
    """What one encoder reads of a prompt. cut: characters at the end that it does not see."""

    encoder: str
    read: str
    cut: int


@dataclass(frozen=True)
class Shown:
    """A clip as the network gets it. step: at which it comes; frames: uint8 [T, H, W, 3]."""

    stage: str
    bucket: str
    step: int
    sample: Sample
    texts: tuple[Text, ...]


def preview(recipe: TrainRecipe, roots: Sequence[str], each: int = 2) -> Iterator[Shown]:
    """At most `each` clips of every bucket of every stage, in the order of the training.

    Raises DataError, ManifestError, TextEncoderError.
    """
    videos_only(roots)
    encoders = text_encoders(recipe.text) if recipe.model == "dit" else TextEncoders([])
    for index, stage in enumerate(recipe.stages):
        with closing(loader_of(roots, recipe, index, 0, 1)) as loader:
            for step, place, bucket in _places(loader, stage, each):
                sample = loader.sample_at(step, place)
                (prompt,) = prompts_of([sample], len(sample.frames) == 1)
                yield Shown(stage.name, bucket, step, sample, tuple(read_by(encoders, prompt)))


def _places(loader: Loader, stage: Stage, each: int) -> list[tuple[int, int, str]]:
    """(step, place in its batch, shape) of the first batches of each shape."""
    seen: dict[str, list[tuple[int, int]]] = {}
    for step in range(min(stage.steps, STEPS_LOOKED_AT)):
        image, place = stage.image_every is not None and step % stage.image_every == 0, 0
        for bucket, rows in loader.rows_at(step):
            name = f"{bucket.shape}" + (" (images)" if image else "")
            if len(seen.setdefault(name, [])) < each:
                seen[name].append((step, place))
            place += len(rows)
    return [(*found, name) for name, places in sorted(seen.items()) for found in places]


def read_by(encoders: TextEncoders, prompt: str) -> Iterator[Text]:
    """What each encoder reads of the prompt."""
    for encoder in encoders.encoders:
        read = encoder.read(prompt)
        yield Text(encoder.name, read, max(0, len(prompt) - len(read)) if not encoder.quoted_only else 0)


def lines(shown: Shown) -> list[str]:
    """One clip in words."""
    sample, (count, tall, wide) = shown.sample, shown.sample.frames.shape[:3]
    said = [f"{shown.stage}, {shown.bucket}, step {shown.step}: clip {sample.clip_id}, {count} frames of {wide}x{tall}"]
    said[0] += f" at {sample.rate:.4g} a second" if count > 1 else ""
    for text in shown.texts:
        cut = f" (cut: {text.cut} characters are not read)" if text.cut else ""
        said.append(f"  {text.encoder} reads: {text.read or '(nothing)'}{cut}")
    return said


def write_page(recipe: TrainRecipe, roots: Sequence[str], page: str, each: int = 2) -> int:
    """An HTML page without anything outside itself at an address; returns how many clips it shows.

    Raises what `preview` does, and StorageError.
    """
    parts, stage, count = [], None, 0
    for shown in preview(recipe, roots, each):
        if shown.stage != stage:
            stage = shown.stage
            parts.append(f"<h2>Stage {html.escape(stage)}</h2>")
        head, *texts = lines(shown)
        said = "".join(
            f"<div{' class=cut' if 'are not read' in text else ''}>{html.escape(text)}</div>" for text in texts
        )
        picture = f'<img alt="" src="{_strip(shown.sample.frames)}">'
        parts.append(f'<div class="clip"><div>{html.escape(head)}</div>{picture}{said}</div>')
        count += 1
    title = f"What {html.escape(recipe.name)} will get"
    head = f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>'
    write_bytes(page, (head + "".join(parts)).encode())
    return count


def _strip(frames: np.ndarray) -> str:
    """Frames spread over the clip, side by side, as a data URI."""
    from PIL import Image

    chosen = np.unique(np.linspace(0, len(frames) - 1, SHOWN_FRAMES).round().astype(int))
    image = Image.fromarray(np.concatenate(list(frames[chosen]), axis=1))
    image.thumbnail((image.width, SHOWN_SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
