"""One training recipe is one reproducible training: YAML in, validated, stages as data.

A stage says which set is read, at which shapes, how many steps at which learning rate. Published values are Movie
Gen's Table 3; what the paper does not print (weight decay, EMA, warm-up) says so beside the field.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rushes.curation import plain_yaml
from rushes.curation.nearest import meant, nearest

RECIPE_FOLDER = Path(__file__).parent / "recipes"
NAME_MAX, KEY_MAX = 4096, 200  # characters of a path, of a dotted key
CLIP_CONTEXT = 77  # tokens that public CLIP text towers were trained on; Movie Gen's own reads 256


class TrainRecipeError(ValueError):
    """A training recipe that cannot be used as written: one sentence that names the key and the fix."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(Section):
    """A part of a training with its own data, shapes and learning rate."""

    name: str
    set: str = Field("pretrain-256", description="the manifest's set that is read: sets/NAME")
    steps: int = Field(1000, ge=1, description="optimizer steps of this stage")
    batch: int = Field(8, ge=1, description="clips of a global batch, all ranks together")
    micro_batch: int = Field(8, ge=1, description="clips per rank in one forward pass; the rest is accumulated")
    lr: float = Field(1e-4, gt=0, description="learning rate after the warm-up (Table 3: 1e-4, 6e-5, 1e-5)")
    schedule: Literal["constant", "plateau", "cosine"] = Field(
        "plateau", description="plateau: halved when the validation loss stands still (3.1.5); cosine: to 0 (3.3)"
    )
    warmup: int = Field(0, ge=0, description="steps of linear warm-up (not published)")
    patience: int = Field(3, ge=1, description="plateau: validations without progress before the rate is halved")
    lr_floor: float = Field(0.01, ge=0, le=1, description="plateau: share of lr that it is never halved below")
    balance: int | None = Field(
        None, ge=1, description="cheaper buckets get larger batches, multiples of this, so that steps cost alike"
    )
    image_micro_batch: int | None = Field(None, ge=1, description="images per forward pass; null: as micro_batch")
    image_every: int | None = Field(
        None, ge=1, description="every n-th batch holds images: 1 = images only, 4 = 1:3 (3.1.1), 11 = 1:10"
    )
    images: str | None = Field(
        None, description="the set they come from, of the runs that have it; null: single frames of the stage's clips"
    )
    frames_max: int | None = Field(None, ge=1, description="at most so many frames of a clip; null: the bucket's")
    resolution: int | None = Field(None, ge=16, description="pixels, square root of the area; null: the set's")
    crop: int | None = Field(
        None, ge=16, multiple_of=16, description="TAE: pixels, a random square of each picture; null: all of it"
    )
    buckets: tuple[str, ...] | None = Field(None, description="only these buckets; null: all")
    small_buckets: Literal["stop", "leave_out"] = Field("stop", description="with fewer clips than a batch")
    grid: tuple[int, int, int] | None = Field(
        None, description="DiT: the position tables grow to so many tokens (t, h, w) when the stage begins"
    )
    validate_every: int = Field(500, ge=1, description="steps between validations")
    save_every: int = Field(500, ge=1, description="steps between checkpoints")


class Data(Section):
    workers: int = Field(2, ge=0, description="decoding threads of a rank")
    prefetch: int = Field(2, ge=1, description="batches decoded ahead")
    errors_max: int = Field(16, ge=0, description="different clips that may fail to decode before the run stops")
    validation_set: str = "validation"
    validation_clips: int = Field(64, ge=1, description="at most so many clips are validated on")
    validation_draws: int = Field(4, ge=1, description="DiT: noise levels per validated clip")


class Optimizer(Section):
    """AdamW; none of these is published."""

    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the averaged weights per step")
    skip_max: int = Field(8, ge=0, description="steps left out for a number that is not finite, before the run stops")


class BytesText(Section):
    """An encoder without weights. `quoted` reads what stands in quotation marks alone, as the paper's ByT5 does."""

    name: Literal["bytes", "quoted"]
    width: int = Field(256, ge=2, multiple_of=2, description="width of a feature")
    max_tokens: int = Field(256, ge=1, description="bytes a prompt is cut to")


class T5Text(Section):
    """UL2, and ByT5 for what stands in quotation marks (sec 3.1.3), by transformers."""

    name: Literal["ul2", "byt5"]
    source: str | None = Field(None, description="a local folder or a hub id; null: google/ul2, google/byt5-small")
    max_tokens: int = Field(512, ge=1, description="tokens a prompt is cut to")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the encoder's weights")
    padded: bool = Field(False, description="max_tokens features of every prompt, as CogVideoX reads them")


class LlamaText(Section):
    """What HunyuanVideo reads beside CLIP (model/text_llama.py)."""

    name: Literal["llama"]
    source: str = Field("hunyuanvideo-community/HunyuanVideo", description="a local folder or a hub id")
    max_tokens: int = Field(256, ge=1, description="tokens a prompt is cut to")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the encoder's weights")


class ClipText(Section):
    """The text tower of a CLIP model, by open_clip. The paper's reads 256 tokens, public ones 77."""

    name: Literal["clip"]
    model: str = Field("ViT-bigG-14-quickgelu", description="an open_clip model")
    pretrained: str | None = Field("metaclip_fullcc", description="its weights: a tag or a file; null: random ones")

    @property
    def max_tokens(self) -> int:
        return CLIP_CONTEXT


ENCODERS = {
    "bytes": BytesText,
    "quoted": BytesText,
    "ul2": T5Text,
    "byt5": T5Text,
    "clip": ClipText,
    "llama": LlamaText,
}


class Text(Section):
    """The text encoders of the DiT, side by side (model/text.py)."""

    encoders: tuple[Annotated[BytesText | T5Text | ClipText | LlamaText, Field(discriminator="name")], ...] = Field(
        (BytesText(name="bytes"),), min_length=1, description="bytes, quoted, ul2, byt5, clip, llama; each at most once"
    )
    drop: float = Field(0.1, ge=0, le=1, description="share of clips trained without text, for guidance")

    @model_validator(mode="after")
    def _names_differ(self) -> Text:
        names = [encoder.name for encoder in self.encoders]
        if len(set(names)) < len(names):
            raise ValueError(f"names an encoder twice: {', '.join(names)}")
        return self


class Parallel(Section):
    """How ranks share the DiT (model/parallel.py): replicate x shard x context x tensor = number of ranks."""

    shard: int | None = Field(None, ge=1, description="ranks that weights are sharded over; null: all that are left")
    replicate: int = Field(1, ge=1, description="sharded copies of the model, each with clips of its own (HSDP)")
    context: int = Field(1, ge=1, description="ranks that share the tokens of a clip")
    tensor: int = Field(1, ge=1, description="ranks that share heads and feed-forward widths")
    reduce: Literal["micro_batch", "step"] = Field(
        "micro_batch",
        description="when gradients are summed over ranks; step: fewer messages, and all gradients at every rank",
    )


class Lora(Section):
    """Low-rank adapters (Hu 2021) in the attention of an open transformer: what is trained of it."""

    rank: int = Field(16, ge=1, description="of each adapter")
    alpha: float = Field(16.0, gt=0, description="its answer is scaled by alpha / rank")


class TAELoss(Section):
    """Weights of the TAE's loss (model/losses.py); 0 switches a term off."""

    l1: float = Field(1.0, ge=0)
    l2: float = Field(0.0, ge=0, description="mean squared error")
    kl: float = Field(1e-6, ge=0)
    perceptual: float = Field(0.0, ge=0, description="LPIPS; needs vgg and lpips below")
    opl: float = Field(1e5, ge=0, description="outlier penalty (3.1.1: 1e5)")
    opl_r: float = Field(3.0, gt=0)
    adversarial: float = Field(0.0, ge=0, description="hinge loss against a 3D patch discriminator")
    adversarial_start: int = Field(50_001, ge=0, description="step from which it takes part")
    vgg: str | None = Field(None, description="file of torchvision's VGG16 weights")
    lpips: str | None = Field(None, description="file of the lpips package's linear weights")


class TrainRecipe(Section):
    """All that decides what is trained and how."""

    name: str = "unnamed"
    model: Literal["tae", "dit"]
    size: str = Field("tiny", description="a name in TAE_SIZES or DIT_SIZES")
    options: dict[str, Any] = Field(default_factory=dict, description="fields of the size that are changed")
    process: Literal["flow", "diffusion"] = "flow"
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool | Literal["selective"] = Field(
        False, description="recompute a block's activations in the backward pass; selective (DiT): the cheap ones"
    )
    compile: bool = Field(False, description="torch.compile, block by block (DiT)")
    keep: int = Field(3, ge=1, description="checkpoints kept on disk")
    first_frame: float = Field(
        0.9, ge=0, le=1, description="DiT with options.first_frame: share of clips whose first frame is told"
    )
    open_transformer: str | None = Field(
        None, description="DiT: a diffusers transformer, a folder or a hub id, that is fine-tuned by LoRA"
    )
    lora: Lora = Lora()
    init_from: str | None = Field(None, description="a checkpoint whose weights are started from")
    image_autoencoder: str | None = Field(
        None, description="TAE: a diffusers AutoencoderKL in safetensors that it is inflated from"
    )
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    parallel: Parallel = Parallel()
    text: Text = Text()
    loss: TAELoss = TAELoss()
    stages: tuple[Stage, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_differ(self) -> TrainRecipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"the stages' names must differ, not {names}")
        if self.model == "dit" and any(stage.crop for stage in self.stages):
            raise ValueError("the transformer reads whole pictures: leave `crop` to the autoencoder's stages")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.yaml"))


def load(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> TrainRecipe:
    """A shipped recipe by name, or a YAML file by path, with `key=value` overrides.

    Keys are dotted; a stage or a text encoder is named by its name or by `all`: `stages.all.batch=4`,
    `text.encoders.ul2.source=/weights/ul2`, `optimizer.clip=0.5`.
    Raises TrainRecipeError.
    """
    if len(name_or_path) > NAME_MAX or "\0" in name_or_path:
        raise TrainRecipeError(f"A recipe's name of {len(name_or_path):,} characters names no file.")
    path = RECIPE_FOLDER / f"{name_or_path}.yaml"
    path = path if os.path.exists(path) else Path(os.path.expanduser(name_or_path))
    if not os.path.isfile(path):
        hint = meant(name_or_path, shipped(), "shipped recipes")
        raise TrainRecipeError(f"There is no training recipe '{name_or_path}'; {hint}")
    try:
        data = plain_yaml.load_file(path)
    except plain_yaml.PlainYamlError as error:
        raise TrainRecipeError(f"Recipe {path} {error}.") from error
    except OSError as error:
        raise TrainRecipeError(f"Recipe {path} cannot be read: {error.strerror}.") from error
    if not isinstance(data, dict):
        raise TrainRecipeError(f"Recipe {path} must be a mapping, not a {type(data).__name__}.")
    return build({"name": path.stem, **data}, overrides)


def build(data: dict[str, Any], overrides: list[str] | tuple[str, ...] = ()) -> TrainRecipe:
    """A recipe from nested dictionaries (not changed) and `key=value` overrides, read as YAML."""
    data = copy.deepcopy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip() or len(key) > KEY_MAX:
            raise TrainRecipeError(
                f"--set wants key=value, for example --set stages.all.batch=4, not '{override[:KEY_MAX]}'."
            )
        try:
            value = plain_yaml.load(text)
        except plain_yaml.PlainYamlError as error:
            raise TrainRecipeError(f"--set {key.strip()}: the value {error}.") from error
        _assign(data, key.strip(), value)
    try:
        return TrainRecipe.model_validate(data)
    except ValidationError as error:
        raise TrainRecipeError(_sentence(error)) from error


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    places: list[Any] = [data]
    for name in path:
        places = [inner for place in places for inner in _below(place, name, key)]
    for place in places:
        if not isinstance(place, dict):
            raise TrainRecipeError(_unknown(key))
        place[last] = value


def _below(place: Any, name: str, key: str) -> list[Any]:
    """What `name` stands for in `place`: a section, or the entries of a list (stages, encoders) with that name."""
    if isinstance(place, list):
        chosen = [entry for entry in place if isinstance(entry, dict) and name in ("all", entry.get("name"))]
        if not chosen:
            what = "stage" if key.startswith("stages.") else "text encoder"
            names = [str(entry.get("name")) for entry in place if isinstance(entry, dict)]
            near = nearest(name, [*names, "all"])
            hint = f"did you mean '{near}'?" if near else f"{what}s: {', '.join(names)}, or all."
            raise TrainRecipeError(f"The recipe has no {what} '{name}'; {hint}")
        return chosen
    if not isinstance(place, dict):
        raise TrainRecipeError(_unknown(key))
    return [place.setdefault(name, {})]


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _unknown(key: str) -> str:
    key = " ".join(key.split())[:KEY_MAX]
    keys = _keys(TrainRecipe) + [f"stages.all.{name}" for name in Stage.model_fields]
    for name, encoder in ENCODERS.items():
        keys += [f"text.encoders.{name}.{field}" for field in encoder.model_fields]
    near = nearest(key, keys, cutoff=0.5)
    hint = f" Did you mean '{near}'?" if near else f" Sections: {', '.join(TrainRecipe.model_fields)}."
    return f"The training recipe has no key '{key}'.{hint}"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    by_name = first["loc"][:2] == ("text", "encoders")  # pydantic puts an encoder's name behind its number
    parts = [part for part in first["loc"] if not (by_name and isinstance(part, int))]
    key = ".".join("all" if isinstance(part, int) else str(part) for part in parts)
    if first["type"].startswith("union_tag"):
        shown = plain_yaml.shown(first["input"])
        return f"Training recipe key '{key}': {shown} must have a name of {', '.join(ENCODERS)}."
    if first["type"] == "extra_forbidden":
        return _unknown(key)
    if first["type"] == "missing":
        return f"The training recipe lacks the key '{key}'."
    wants = first["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("valid tuple", "list")
    return f"Training recipe key '{key}': {plain_yaml.shown(first['input'])} will not do; it {wants}."
