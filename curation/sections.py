"""The sections of a recipe, a field for each key: its default, its unit, the part of the work that it changes.

Defaults are Movie Gen's published values (section numbers stand beside them); where the paper is silent the field says
whose figure was taken. Thresholds are declared with their signals (signals.py).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator, model_validator

from rushes.curation import signals
from rushes.curation.names import wrong_name

REASONS_MOST = 10  # a person picks them by single keys
SHARES_SUM_TO = 1e-6  # rounding allowed where shares must add up to 1

Part = Literal["observe", "measure", "look", "content", "cut", "caption", "judge", "engine"]


def knob(default: Any, part: Part, text: str, **constraints: Any) -> Any:
    """A recipe field: its default, the part of the work that it changes, and what it means (with its unit)."""
    return Field(default=default, description=text, json_schema_extra={"part": part}, **constraints)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _thresholds(section: str) -> type[Section]:
    """The section's thresholds, as fields: they are declared with their signals (curation/signals.py)."""
    fields: dict[str, Any] = {
        name: ((int if rule.whole else float) | None, knob(rule.default, "judge", rule.text, **rule.limits))
        for name, rule in signals.thresholds(section)
    }
    return create_model(f"{section.capitalize()}Thresholds", __base__=Section, **fields)


class Scenes(_thresholds("scenes")):
    """Shot boundaries, and clips from single shots (sec 3.2.1, app B.1)."""

    detector: Literal["measured", "transnetv2"] = knob(
        "measured", "observe", "who finds shots: measured on the decode, or TransNetV2 (rushes[scenes], docs/models.md)"
    )
    cut_spike: float = knob(
        1.7, "measure", "hard cuts: how many times its largest change around the picture's parts change", gt=0
    )
    min_content_val: float = knob(5.0, "measure", "hard cuts: least HSV change (0-255)", gt=0)
    min_shot_s: float = knob(0.4, "measure", "two hard cuts are at least this far apart, seconds", ge=0)
    dissolves: bool = knob(True, "measure", "also end shots at dissolves and fades")
    trim_frames: int = knob(3, "measure", "frames dropped at each edge of a shot (Step-Video: 3)", ge=0)
    doubt_split: float | None = knob(
        0.5, "measure", "clips are planned around moments so doubtful, 0-1 (doubt_max rejects what is left)", ge=0, le=1
    )
    head_s: float = knob(2.0, "measure", "seconds dropped where a clip is the file's start (B.1)", ge=0)
    duration_max_s: float = knob(16.0, "measure", "longer shots are windowed to this, seconds (3.2.1)", gt=0)
    clips_per_source: int | None = knob(None, "judge", "at most so many clips of one source (paper: 1-2)", ge=1)

    @model_validator(mode="after")
    def _durations(self) -> Scenes:
        if self.duration_min_s is not None and self.duration_min_s > self.duration_max_s:
            raise ValueError(
                f"duration_min_s={self.duration_min_s:g} lies above duration_max_s={self.duration_max_s:g}"
            )
        return self


class Visual(_thresholds("visual")):
    """Size, borders, light, text, people, aesthetics (sec 3.2.1, app B.1)."""

    stills_per_s: float = knob(1.0, "observe", "stills kept per second of a clip for the models", gt=0, le=8)
    stills_side: int = knob(640, "observe", "longer side of a still, pixels", ge=64)
    stills_max: int = knob(16, "measure", "most stills kept per clip", ge=1)
    text: bool = knob(True, "look", "read text on the stills (RapidOCR)")
    text_side: int = knob(480, "look", "stills are shrunk to this longer side before they are read, pixels", ge=160)
    text_frames: int = knob(4, "look", "most stills read per clip", ge=1)
    text_stop: float = knob(0.9, "look", "no further still is read once one is this sure (det x rec)", ge=0, le=1)
    text_split: bool = knob(True, "look", "a clip in which text comes or goes is divided there: the rest is a clip")
    people: bool = knob(True, "look", "look for people (models.people says with what)")
    rescue: Literal["crop", "reject"] = knob(
        "crop", "judge", "crop: cut the clean rectangle inside borders and beside text; reject: such clips go"
    )
    rescue_min: float = knob(0.5, "judge", "least share of the picture that a crop beside text must leave", gt=0, le=1)

    @model_validator(mode="after")
    def _text_is_measured_far_enough(self) -> Visual:
        if self.text_max is not None and self.text_max > self.text_stop:
            raise ValueError(f"text_max={self.text_max:g} lies above text_stop={self.text_stop:g}: raise both")
        return self


class Motion(_thresholds("motion")):
    """Static, slow, jittery and slideshow footage (sec 3.2.1, app B.1)."""

    fps_measurable: float = knob(
        5.0, "measure", "below this rate frames are too far apart in time for a motion score: null", gt=0
    )
    static_eps: float = knob(0.12, "measure", "a frame whose VMAF motion is below this is static", ge=0)
    jitter_content_val: float = knob(27.0, "measure", "jitter: HSV change (0-255) that counts as a false shot", gt=0)


def keep_target(keep: float | str) -> tuple[float, Literal["share", "clips", "hours"]]:
    """What content.keep asks for: a share in (0, 1], or a number of clips or hours above 0. Raises ValueError."""
    if isinstance(keep, str):
        number, _, unit = keep.strip().partition(" ")
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if unit.strip() not in ("clips", "hours") or not 0 < value < float("inf"):
            raise ValueError(f"wants a share from 0 to 1, '20000 clips' or '100 hours', not '{keep}'")
        return value, unit.strip()
    if not 0 < keep <= 1:
        raise ValueError(f"wants a share above 0 and up to 1, or '20000 clips', not {keep:g}")
    return float(keep), "share"


class Content(Section):
    """Duplicates, clusters, inverse-square-root sampling (sec 3.2.1, app B.1)."""

    clusters: int = knob(10_000, "content", "k of the k-means, capped by the number of clips (Cosmos: 10k)", ge=1)
    merge_threshold: float = knob(0.9, "content", "clusters whose centres are this similar are one", gt=0, le=1)
    seed: int = knob(0, "content", "seed of the clustering and of every draw", ge=0)
    copy_threshold: float | None = knob(
        signals.COPY_THRESHOLD,
        "content",
        "cosine of the copy embeddings from which a clip is a duplicate (SSCD: 0.99)",
        gt=0,
        le=1,
    )
    semantic_threshold: float | None = knob(
        None, "content", "SemDeDup: of clips of one concept this similar the one furthest from its centre stays",
        gt=0, le=1,
    )  # fmt: skip
    against: tuple[str, ...] = knob((), "content", "runs whose kept clips are not kept again: near copies of them go")
    join: str | None = knob(
        None,
        "content",
        "run whose concepts are taken over with their numbers; what is unlike all of them gets new ones",
    )
    prefer: tuple[Literal["resolution", "fps", "bits_per_pixel", "duration"], ...] = knob(
        ("resolution", "fps", "bits_per_pixel", "duration"),
        "judge",
        "which of several copies stays: the first that differs",
    )
    keep: float | str = knob(0.82, "judge", "kept by the sampling: a share (B.1: 0.82), '20000 clips' or '100 hours'")
    keep_all_below: int = knob(40, "judge", "fewer clips than this are all kept: a lot over few is no balance", ge=0)
    keep_people: bool = knob(True, "judge", "the share of clips with people is preserved by the sampling")
    people_min: float = knob(
        signals.PEOPLE_MIN, "judge", "human_score from which a clip counts as one with people", ge=0, le=1
    )
    memory_mb: int = knob(512, "engine", "memory of a task that measures content, MB", ge=64)

    @field_validator("keep")
    @classmethod
    def _target(cls, keep: float | str) -> float | str:
        keep_target(keep)
        return keep


class Models(Section):
    """Who looks at the stills: measured by hand, or learned models by name and weights (docs/models.md)."""

    clip: str | None = knob(None, "look", "an open_clip model, such as ViT-H-14-quickgelu")
    clip_weights: str | None = knob(None, "look", "its weights: a tag of open_clip, a file, or hf-hub:OWNER/NAME")
    clip_precision: Literal["fp32", "bf16", "fp16"] = knob("fp32", "look", "numbers in which the CLIP runs")
    semantic: Literal["measured", "clip"] = knob("measured", "look", "concept embedding")
    copies: str = knob("measured", "look", "copy embedding: measured, or SSCD's TorchScript file")
    aesthetics: str = knob("measured", "look", "measured, or a file with a head on the CLIP (LAION's form)")
    people: str = knob("opencv", "look", "opencv, centerface, clip (zero-shot, names actions too), or an ONNX file")
    person_class: int = knob(0, "look", "number of the class person of models.people (DETR: 1)", ge=0)
    nsfw: str | None = knob(None, "look", "clip (zero-shot) or a file with a head on the CLIP; none: not asked")
    watermark: str | None = knob(None, "look", "as nsfw")
    rendered: str | None = knob(None, "look", "as nsfw: games, animation, computer graphics")
    batch: int = knob(64, "engine", "pictures per pass; halved where memory runs out", ge=1)
    gpus: float = knob(0.0, "engine", "share of a GPU for a worker with learned models; 0: CPU", ge=0)


class Cut(Section):
    """The clips that trainers read: H.264 unless told, short GOPs, square pixels, upright, no sound."""

    encoder: Literal["libx264", "libopenh264", "libvpx-vp9", "libsvtav1"] = knob(
        "libx264", "cut", "FFmpeg's encoder; x264 is GPL, the others are not (docs/licences.md)"
    )
    crf: int = knob(18, "cut", "constant quality, in the encoder's own scale: of x264 the rate factor", ge=0, le=51)
    preset: str = knob("veryfast", "cut", "x264 preset; the other encoders have a speed of their own")
    gop_s: float = knob(0.5, "cut", "seconds between key frames: a trainer reads a short range", gt=0)
    side_max: int | None = knob(None, "cut", "longer side at most this, pixels", ge=64)


class CaptionModel(Section):
    """A model that writes captions, and the share of the clips that it is given."""

    name: str = knob(..., "caption", "name that the server knows it by; `caption_model` says it", min_length=1)
    share: float = knob(1.0, "caption", "share of the clips (B.2: 70 % a small model, 30 % a large one)", gt=0, le=1)
    path: str | None = knob(None, "caption", "provider vllm: folder of weights or hub id; none: the name")


class CaptionEngine(Section):
    """How vLLM runs one model in the cluster; nothing here is meant to change what it writes."""

    replicas: int = knob(1, "engine", "servers of this model", ge=1)
    tensor_parallel: int = knob(1, "engine", "GPUs that one server spreads the model over", ge=1)
    gpus: float | None = knob(None, "engine", "GPUs asked of Ray per server; none: tensor_parallel; 0: CPU", ge=0)
    cpus: float = knob(0.0, "engine", "CPUs asked of Ray per server, beside those of the run's workers", ge=0)
    options: tuple[str, ...] = knob((), "engine", "further options of `vllm serve`, as written on its command line")


CaptionCheck = Literal["empty", "characters", "refusal", "loop", "leak", "list", "video", "language", "length"]


class Captioning(Section):
    """Who writes the captions, what from, and what is done with bad answers (sec 3.2.1, app B.2)."""

    provider: Literal["composed", "endpoint", "vllm"] = knob(
        "composed", "caption",
        "composed: a sentence from measured facts; endpoint: OpenAI-compatible servers; vllm: engines on the cluster",
    )  # fmt: skip
    models: tuple[CaptionModel, ...] = knob((), "caption", "who writes: [{name, share, path}], shares adding up to 1")
    seed: int = knob(0, "caption", "seed of the split between models and of the sampling", ge=0)
    prompt: str = knob("caption", "caption", "a shipped prompt, or a file of the same form")
    words: int = knob(100, "caption", "words asked for (B.2: about 100)", ge=5)
    words_min: int = knob(40, "caption", "shortest caption that is taken, words", ge=1)
    words_max: int = knob(220, "caption", "longest caption that is taken, words", ge=1)
    frames: int = knob(8, "caption", "frames shown of a clip, evenly spread", ge=1, le=256)
    side: int = knob(448, "caption", "their longer side, pixels", ge=28)
    frames_from: Literal["media", "stills"] = knob(
        "media", "caption", "media: decoded from the cut clip; stills: those of the analysis, about one a second"
    )
    send: Literal["video", "images"] = knob(
        "video", "caption", "video: frames as one video (vLLM); images: as images in order (any server)"
    )
    max_tokens: int = knob(360, "caption", "most tokens of an answer", ge=1)
    temperature: float = knob(0.6, "caption", "of the sampling; 0: always the likeliest word", ge=0, le=2)
    top_p: float = knob(0.9, "caption", "of the sampling", gt=0, le=1)
    checks: tuple[CaptionCheck, ...] = knob(
        ("empty", "characters", "refusal", "loop", "leak", "list", "video", "language", "length"),
        "caption", "what an answer must pass to be a caption, in this order",
    )  # fmt: skip
    attempts: int = knob(3, "caption", "answers asked for, each with another seed, until one passes", ge=1)
    endpoints: tuple[str, ...] = knob((), "engine", "provider endpoint: base URLs, such as http://host:8000/v1")
    api_key_env: str | None = knob(None, "engine", "environment variable that holds the servers' key")
    concurrency: int = knob(64, "engine", "requests in flight, over all workers and servers", ge=1)
    timeout_s: float = knob(120.0, "engine", "an answer that takes longer is given up, seconds", gt=0)
    retries: int = knob(5, "engine", "times a request is sent again when it breaks, with growing pauses", ge=0)
    patience_s: float = knob(300.0, "engine", "the run stops when no server has answered for so long, seconds", gt=0)
    vllm_command: str = knob("vllm", "engine", "provider vllm: the command on the workers, by name or path")
    ready_s: float = knob(1200.0, "engine", "provider vllm: a server that is not up after this is given up", gt=0)
    engines: dict[str, CaptionEngine] = knob({}, "engine", "provider vllm: how each model is run, by its name")

    @model_validator(mode="after")
    def _usable(self) -> Captioning:
        if not self.words_min <= self.words <= self.words_max:
            raise ValueError(f"words={self.words} lies outside words_min={self.words_min}, words_max={self.words_max}")
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError(f"models are told apart by their names, and these are not: {', '.join(names)}")
        if self.models and abs(sum(model.share for model in self.models) - 1) > SHARES_SUM_TO:
            raise ValueError(f"the shares of models must add up to 1, not {sum(m.share for m in self.models):g}")
        strange = [name for name in self.engines if name not in names]
        if strange:
            raise ValueError(f"engines names '{strange[0]}', which is none of the models: {', '.join(names) or 'none'}")
        if self.provider != "composed" and not self.models:
            raise ValueError(f"provider={self.provider} needs models, for example [{{name: my-model, share: 1}}]")
        if self.provider == "endpoint" and not self.endpoints:
            raise ValueError("provider=endpoint needs endpoints, for example [http://localhost:8000/v1]")
        for url in self.endpoints:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"endpoints wants addresses that begin with http:// or https://, not '{url}'")
        return self


class SetRecipe(Section):
    """One training set: stricter rules over the same signals, and shares (sec 3.2.1, table 39)."""

    resolution: int = knob(256, "judge", "pixels: square root of a bucket's area", ge=64)
    rules: dict[str, float | None] = knob({}, "judge", "thresholds of this set, by the recipe's own keys")
    landscape: tuple[float, float] | None = knob(None, "judge", "share of landscape clips, from and to")
    people: tuple[float, float] | None = knob(None, "judge", "share of clips with people, from and to")

    @model_validator(mode="after")
    def _ranges(self) -> SetRecipe:
        for name in ("landscape", "people"):
            share = getattr(self, name)
            if share is not None and not 0 <= share[0] <= share[1] <= 1:
                raise ValueError(f"{name} wants two shares from 0 to 1, the smaller first, not {list(share)}")
        return self


class Curriculum(Section):
    """Nested stage sets, each a subset of the one before it, and a validation set of sources never trained on."""

    sets: dict[str, SetRecipe] = knob(
        {
            "pretrain-256": SetRecipe(landscape=(0.55, 0.65)),
            "pretrain-768": SetRecipe(
                resolution=768,
                rules={"visual.size_min": 768, "scenes.duration_min_s": 12},
                landscape=(0.75, 0.85),
            ),
            "pretrain-highres": SetRecipe(
                resolution=768,
                rules={"visual.size_min": 768, "scenes.duration_min_s": 12, "visual.aesthetic_min": 4.5},
                landscape=(0.75, 0.85),
                people=(0.6, 1.0),
            ),
            "finetune": SetRecipe(resolution=768, rules={"scenes.duration_min_s": 10.6, "visual.aesthetic_min": 5.0}),
        },
        "judge",
        "sets by name, loosest first",
    )
    validation: float = knob(0.02, "judge", "share of the clips whose whole sources are held out", ge=0, lt=1)

    @model_validator(mode="after")
    def _names(self) -> Curriculum:
        for name in self.sets:
            wrong = wrong_name(name)
            if wrong:
                raise ValueError(f"the name {name!r} of a set {wrong}")
        return self


class Finetune(Section):
    """The set that people choose and trim: stricter rules, balance, review (sec 3.3)."""

    rules: dict[str, float | None] = knob(
        {
            "scenes.duration_min_s": 10.6,
            "visual.fps_min": 23.5,
            "visual.aesthetic_min": 5.0,
            "motion.shots_per_s_max": 0.3,
            "motion.static_max": 0.5,
        },
        "judge",
        "stricter thresholds of candidates, by the recipe's own keys (the paper tells no values)",
    )
    subject_min: float | None = knob(
        0.05, "judge", "least share of the picture that the main subject's box covers", ge=0, le=1
    )
    detector: str | None = knob(
        None, "judge", "file of an ONNX detector that boxes the subject (docs/models.md); none: by colour contrast"
    )
    resolution: int = knob(768, "judge", "pixels: square root of a bucket's area", ge=64)
    per_concept: int = knob(100, "judge", "clips that each concept gives people to choose from", ge=1)
    near_min: float | None = knob(None, "judge", "cosine below which a clip is no neighbour of a concept", ge=-1, le=1)
    reasons: tuple[str, ...] = knob(
        ("angle", "light", "colour", "motion", "subject"), "judge", "what people may say of a clip (3.3)"
    )
    reviewers: Literal[1, 2] = knob(1, "judge", "people who decide on each clip; 2: a third breaks a tie")
    span_min_s: float = knob(10.6, "judge", "shortest span that people may choose, seconds (3.3)", gt=0)
    span_max_s: float = knob(16.0, "judge", "longest span that people may choose, seconds (3.3)", gt=0)
    long_share: float = knob(0.5, "judge", "share of the set that is 16 s; 0 or 1: as people chose (3.3)", ge=0, le=1)
    lease_s: float = knob(600.0, "engine", "how long a clip is held for one reviewer, seconds", ge=5)
    break_after_s: float = knob(
        3000.0, "engine", "time at work after which a break is offered, seconds; 0: never", ge=0
    )

    @model_validator(mode="after")
    def _usable(self) -> Finetune:
        if self.span_min_s > self.span_max_s:
            raise ValueError(f"span_min_s={self.span_min_s:g} lies above span_max_s={self.span_max_s:g}")
        wrong = [one for one in self.reasons if not re.fullmatch(r"[\w -]{1,40}", one)]
        if wrong or len(set(self.reasons)) < len(self.reasons) or len(self.reasons) > REASONS_MOST:
            raise ValueError(f"reasons wants up to {REASONS_MOST} different words of letters, not {list(self.reasons)}")
        return self


class Engine(Section):
    """How the work is run; nothing here changes the result."""

    address: str | None = knob(None, "engine", "Ray cluster to use; none: Ray is started in the process")
    num_cpus: int | None = knob(None, "engine", "CPUs to use; none: all", ge=1)
    error_budget: float = knob(0.1, "engine", "share of failed sources above which the exit code is 3", ge=0, le=1)
    attempts: int = knob(2, "engine", "times a source is tried when its worker dies", ge=1)
    timeout_factor: float = knob(20.0, "engine", "a task may take this many times the footage's length", gt=0)
    timeout_min_s: float = knob(120.0, "engine", "and at least this, seconds", gt=0)


class Bounds(Section):
    """A rule on any column, also one that a meter of your own wrote."""

    min: float | None = knob(None, "judge", "least value")
    max: float | None = knob(None, "judge", "largest value")
