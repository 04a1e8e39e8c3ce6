"""Every column of every table of a run, declared once: schemas, rules, recipe keys, charts and the dictionary derive.

A signal's entry says what it is, who measures it and which rules the recipe has for it. A new built-in signal is its
own file and one entry in SIGNALS (docs/signals.md). Nothing heavy is imported here: a meter is named by its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

# --- what a declaration says --------------------------------------------------------------------------------------

STATUSES = ("ok", "partial", "duplicate", "failed")
#: Confidence from which the camera's motion is named in front of a caption (B.2: "high confidence", no figure told).
CAMERA_SURE = 0.85

PARTS = {
    "measure": "the file's decode",
    "look": "models on stills of clips that passed the decode's rules",
    "content": "comparison of all clips that were looked at",
    "judge": "the rules and the draw",
    "cut": "cutting what is kept",
    "caption": "captioning what is kept",
}


@dataclass(frozen=True)
class Column:
    """A column: `unit` as people write it, `null` says when there is no value."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    null: str = "never"

    @property
    def field(self) -> pa.Field:
        """The Arrow field, with meaning, unit and null in its metadata: a Parquet file carries its own dictionary."""
        facts = {"meaning": self.meaning, "unit": self.unit, "null": self.null}
        return pa.field(self.name, self.type, metadata={key: value for key, value in facts.items() if value})


@dataclass(frozen=True)
class Rule:
    """Keep a clip iff `column  compare  threshold`; the threshold is the recipe's field `key`, None switches it off.

    limits: of the threshold, as pydantic writes them (ge, gt, le, lt). switch: a recipe key without which nothing is
    measured and nothing is asked. column and phase are filled in by the signal that owns the rule: "analyze" rules
    need the decode's signals, "look" rules those of the models; the survivors of the first are what models look at.
    """

    key: str
    compare: str
    default: float | None
    text: str
    limits: dict[str, float] = field(default_factory=dict)
    whole: bool = False  # the threshold is a whole number
    switch: str | None = None
    column: str = ""
    phase: str = ""


@dataclass(frozen=True)
class Signal(Column):
    """A column of a clip's row.

    stage: where it is shown, by the recipe's word; part: the part of the work that writes it (PARTS). meter: what
    measures it, "module:Class" below rushes.curation. chart: range (a histogram), counts (one bar a number),
    categories (shares), or None. derived: worked out from other columns when asked for, not stored.
    """

    stage: str = ""
    part: str = "measure"
    meter: str | None = None
    rules: tuple[Rule, ...] = ()
    chart: str | None = None
    derived: bool = False


@dataclass(frozen=True)
class LateRule:
    """A rule without a threshold column, applied after the others; `key` names its field or what failed.

    needs: what it asks of a clip, with {value} for the recipe's value. missing: the column that could not be made.
    """

    key: str
    needs: str
    missing: str | None = None


CLIPS_PER_SOURCE = LateRule("scenes.clips_per_source", "at most {value} per source")
PUBLISHED = LateRule("content.against", "not in {value}")
COPIES = LateRule("content.copy_threshold", "similarity < {value:g}")
ALIKE = LateRule("content.semantic_threshold", "similarity of content < {value:g}")
DRAW = LateRule("content.keep", "drawn: {value} kept")
LOOK_FAILED = LateRule("look.failed", "can be looked at", "text_score, aesthetic, human_score, split_score")
CUT_FAILED = LateRule("cut.failed", "can be encoded", "media")
CAPTION_FAILED = LateRule("captioning.failed", "can be captioned", "caption")
LATE_RULES = (LOOK_FAILED, CLIPS_PER_SOURCE, PUBLISHED, COPIES, ALIKE, DRAW, CUT_FAILED, CAPTION_FAILED)
#: Cosine of two copy embeddings from which clips are copies, of content/copies.py (docs/accuracy.md; SSCD: 0.99).
COPY_THRESHOLD = 0.78
#: human_score from which a clip counts as one with people.
PEOPLE_MIN = 0.6

# --- clips --------------------------------------------------------------------------------------------------------

TEXT, REAL, EXACT = pa.string(), pa.float32(), pa.float64()
WHOLE, LONG, FLAG, LIST = pa.int32(), pa.int64(), pa.bool_(), pa.list_(pa.string())
BOXES = pa.list_(REAL)  # left, top, right, bottom of one box after another, as shares of the frame's sides

SHARE = {"ge": 0, "le": 1}
NOT_LOOKED_AT = "the clip was rejected before models looked, or has no still"
NOT_KEPT = "the clip is not kept"
NO_MOTION = "fewer than two frames, or too few frames per second (motion.fps_measurable)"
NO_STILL = "the clip is too short for a still"
NOT_CROPPED = "the clip is kept whole, or visual.rescue is reject"
SHOTS, STILLS, MOTION = "scenes:ShotMeter", "visual.stills:StillMeter", "motion.meter:MotionMeter"
CAMERA, QUALITY = "motion.camera:CameraMeter", "visual.quality:QualityMeter"
STILLNESS = "motion.stillness:StillnessMeter"

SIGNALS: tuple[Signal, ...] = (
    Signal("clip_id", TEXT, "name of this span of this content, the same in every run"),
    Signal("source_id", TEXT, "content id of the source"),
    Signal("uri", TEXT, "where the source was read"),
    Signal("shot", WHOLE, "number of the shot within the source, from 0"),
    Signal("start_s", EXACT, "begin of the clip within the source, from its first frame", "s"),
    Signal("end_s", EXACT, "end of the clip within the source, from its first frame", "s"),
    Signal(
        "duration_s", EXACT, "length of the clip", "s", stage="scenes", chart="range",
        rules=(Rule("scenes.duration_min_s", ">=", 4.0, "shortest clip, seconds (3.2.1)", {"ge": 0}),),
    ),
    Signal(
        "doubt", REAL, "how much the clip's worst moment looks like a cut or a transition that no mark was set at",
        "0-1", stage="scenes", meter=SHOTS, chart="range",
        rules=(Rule("scenes.doubt_max", "<", 0.5, "largest doubt, 0-1 (doubt_split plans clips around it)",
                    {"ge": 0}),),
    ),
    Signal("frames", WHOLE, "frames of the clip", "frames"),
    Signal("width", WHOLE, "width as shown: upright, square pixels", "px"),
    Signal("height", WHOLE, "height as shown: upright, square pixels", "px"),
    Signal(
        "size", REAL, "the smaller of width and height", "px", stage="visual", chart="range", derived=True,
        rules=(Rule("visual.size_min", ">=", 720, "least width and height, pixels (720 / 768 sets)", {"ge": 1}, True),),
    ),
    Signal(
        "fps", EXACT, "frames per second of the source", "1/s", stage="visual", chart="range",
        rules=(Rule("visual.fps_min", ">=", 12.0, "least frames per second", {"gt": 0}),),
    ),
    Signal(
        "bits_per_pixel", REAL, "bits of the source's file over the pixels of all its frames, sound included", "bits",
        "the size of the file is not known", stage="visual", chart="range",
    ),
    Signal(
        "aspect", REAL, "the longer side over the shorter", stage="visual", chart="range", derived=True,
        rules=(Rule("visual.aspect_max", "<=", 2.5, "longest side over shortest", {"ge": 1}),),
    ),
    Signal("orientation", TEXT, "landscape or portrait", stage="visual", chart="categories"),
    Signal("kept", FLAG, "whether the clip passed every rule and was drawn", part="judge"),
    Signal("rejected_by", TEXT, "recipe key of the first rule that the clip fails", null="kept", part="judge"),
    Signal("sets", LIST, "names of the sets that the clip is in", part="judge"),
    Signal("crop_x", WHOLE, "left edge of the clean rectangle that is cut of the frame as shown", "px", NOT_CROPPED,
           part="judge"),
    Signal("crop_y", WHOLE, "its upper edge", "px", NOT_CROPPED, part="judge"),
    Signal("crop_width", WHOLE, "its width, even", "px", NOT_CROPPED, part="judge"),
    Signal("crop_height", WHOLE, "its height, even", "px", NOT_CROPPED, part="judge"),
    Signal("crop_for", TEXT, "what the crop leaves out: border, text, or border+text", null=NOT_CROPPED, stage="visual",
           part="judge"),
    Signal("bucket", TEXT, "aspect and duration class, as 16x9/12-16s", null=NOT_KEPT, part="judge"),
    Signal("media", TEXT, "path of the cut clip, below the run", null="the clip was not cut", part="cut"),
    Signal("media_bytes", LONG, "length of that file", "bytes", null="the clip was not cut", part="cut"),
    Signal(
        "media_hash", TEXT, "BLAKE2b of all of that file but its seal (the last 256 bytes), 32 hexadecimal digits",
        null="the clip was not cut", part="cut",
    ),
    Signal(
        "corrupt_frames", WHOLE, "frames that the decoder marks as damaged", "frames", stage="visual", meter=STILLS,
        chart="counts", rules=(Rule("visual.corrupt_max", "<=", 0, "most damaged frames in a clip", {"ge": 0}, True),),
    ),
    Signal(
        "border_frac", REAL, "share of the picture in bars or a frame", "0-1", NO_STILL + " or the picture too small",
        stage="visual", meter=STILLS, chart="range",
        rules=(Rule("visual.border_max", "<=", 0.02, "largest share of the area in borders", SHARE),),
    ),
    Signal("picture", BOXES, "the picture inside its borders: left, top, right, bottom", "share of the side",
           "as border_frac", stage="visual", meter=STILLS),
    Signal(
        "luma_mean", REAL, "mean brightness of the stills", "0-255", NO_STILL, stage="visual", meter=STILLS,
        chart="range", rules=(
            Rule("visual.luma_min", ">=", 20.0, "darkest mean luma, 0-255 (Allegro: 20)", {"ge": 0, "le": 255}),
            Rule("visual.luma_max", "<=", 235.0, "brightest mean luma, 0-255", {"ge": 0, "le": 255}),
        ),
    ),
    Signal(
        "saturation", REAL, "mean saturation of the stills, weighted by brightness", "0-1", NO_STILL, stage="visual",
        meter=STILLS, chart="range",
        rules=(Rule("visual.saturation_max", "<=", None, "largest mean saturation, 0-1", SHARE),),
    ),
    Signal(
        "sharpness", REAL, "fine detail of the stills over their contrast", "0-1", NO_STILL, stage="visual",
        meter=STILLS, chart="range", rules=(Rule("visual.sharpness_min", ">=", None, "least sharpness", {"ge": 0}),),
    ),
    Signal(
        "quality", REAL, "technical quality: VMAF as it would be if a sharp original were at hand", "0-100",
        "the picture is smaller than 64 pixels, or the clip too short", stage="visual", meter=QUALITY, chart="range",
        rules=(Rule("visual.quality_min", ">=", None, "least technical quality, 0-100", {"ge": 0, "le": 100}),),
    ),
    Signal(
        "effect_score", REAL, "strongest dissolve found within the clip", "0-1", stage="visual", meter=SHOTS,
        chart="range",
    ),
    Signal(
        "slideshow_score", REAL, "share of frames that stand still where the footage jumps from still to still",
        "0-1", NO_MOTION, stage="motion", meter=MOTION, chart="range",
        rules=(Rule("motion.slideshow_max", "<=", 0.7, "largest slideshow score, 0-1", SHARE),),
    ),
    Signal(
        "static_frac", REAL, "share of frames that do not differ from the one before", "0-1", NO_MOTION,
        stage="motion", meter=MOTION, chart="range",
        rules=(Rule("motion.static_max", "<=", 0.8, "largest share of static frames", SHARE),),
    ),
    Signal(
        "frozen_s", REAL, "longest run of frames in which nothing changes", "s", NO_MOTION, stage="motion",
        meter=STILLNESS, chart="range", rules=(
            Rule("motion.frozen_max_s", "<=", 1.0, "longest frozen run, seconds", {"ge": 0}),
        ),
    ),
    Signal(
        "repeated_frac", REAL, "share of frames that repeat the one before while the picture moves: 1/2 where each "
        "frame is shown twice (slow motion by repeating), 2/3 where three times, 1/5 of 24 frames shown as 30", "0-1",
        NO_MOTION + ", or too little moves", stage="motion", meter=STILLNESS, chart="range", rules=(
            Rule("motion.repeated_max", "<=", None, "largest share of repeated frames within motion", SHARE),
        ),
    ),
    Signal(
        "own_motion", REAL, "motion within about a second that no camera over a still explains, in times what a still "
        "leaves (a still that is held, panned or zoomed: about 1); at most 6", "",
        NO_MOTION + ", or fewer than two stills", stage="motion", meter=STILLNESS, chart="range", rules=(
            Rule("motion.own_motion_min", ">", 1.6, "least own motion: below are stills that a camera moves over",
                 {"ge": 0}),
        ),
    ),
    Signal(
        "shots_per_s", REAL, "frames that change as much as a cut does (jitter, B.1)", "1/s", stage="motion",
        meter=SHOTS, chart="range",
        rules=(Rule("motion.shots_per_s_max", "<", 0.85, "jitter: most false shots per second (B.1)", {"gt": 0}),),
    ),
    Signal(
        "shake", REAL, "rms change, from one 25th of a second to the next, of the motion that all parts of the picture "
        "share, at 720 lines",
        "px/s", NO_MOTION, stage="motion", meter=MOTION, chart="range", rules=(
            Rule("motion.shake_max", "<=", 48.0, "most shake of the camera, pixels per second at 720p", {"gt": 0}),
        ),
    ),
    Signal(
        "vmaf_motion", REAL, "VMAF motion: mean change of the blurred picture from frame to frame", "grey levels",
        NO_MOTION, stage="motion", meter=MOTION, chart="range", rules=(
            Rule("motion.vmaf_min", ">", 2.0, "least VMAF motion (B.1: 2.0)", {"ge": 0}),
            Rule("motion.vmaf_max", "<", None, "largest VMAF motion", {"ge": 0}),
        ),
    ),
    Signal(
        "mv_mean", REAL, "mean length of the motion vectors, at 720 lines", "px/frame",
        NO_MOTION + ", or no frame has vectors", stage="motion", meter=MOTION, chart="range", rules=(
            Rule("motion.mv_min", ">", 0.5, "least mean motion vector, pixels per frame at 720p (B.1)", {"ge": 0}),
            Rule("motion.mv_max", "<", 7.0, "largest mean motion vector, pixels per frame at 720p (B.1)", {"ge": 0}),
        ),
    ),
    Signal(
        "camera_motion", TEXT, "how the camera moves, the likeliest of B.2's sixteen words",
        null="too little can be followed, or " + NO_MOTION, stage="motion", meter=CAMERA, chart="categories",
    ),
    Signal(
        "camera_motion_conf", REAL, "how often camera_motion is right where it is this sure, on rendered scenes", "0-1",
        "as camera_motion", stage="motion", meter=CAMERA, chart="range",
    ),
    Signal(
        "looked", FLAG, "whether models have seen the clip; false where they failed, for reasons of ours", "",
        "the clip was rejected before models looked", part="look",
    ),
    Signal(
        "text_score", REAL, "sureness of the surest text in the picture (detection x recognition)", "0-1",
        NOT_LOOKED_AT + ", or visual.text is off", stage="visual", part="look", meter="visual.text:TextMeter",
        chart="range",
        rules=(Rule("visual.text_max", "<", 0.6, "kept iff det x rec stays below (B.1: 0.6)", SHARE,
                    switch="visual.text"),),
    ),
    Signal(
        "text", TEXT, "the text that was read", null="no text was found, or as text_score", stage="visual",
        part="look", meter="visual.text:TextMeter",
    ),
    Signal(
        "overlays", BOXES, "boxes of text that stands in the picture: left, top, right, bottom of each",
        "share of the side", "no text was found, or as text_score", stage="visual", part="look",
        meter="visual.text:TextMeter",
    ),
    Signal(
        "text_at_s", pa.list_(EXACT), "times of the stills in which that text stands, within the source", "s",
        "no text was found, or as text_score", stage="visual", part="look", meter="visual.text:TextMeter",
    ),
    Signal(
        "aesthetic", REAL, "aesthetic score", "0-10", NOT_LOOKED_AT, stage="visual", part="look",
        meter="visual.aesthetics:MeasuredAesthetics", chart="range",
        rules=(Rule("visual.aesthetic_min", ">=", 4.0, "least aesthetic score, 0-10 (B.1: LAION 4.0)",
                    {"ge": 0, "le": 10}),),
    ),
    Signal(
        "split_score", REAL, "share of the border between panels that is seen: a split screen, a video in a video",
        "0-1", NOT_LOOKED_AT + ", or it has one still", stage="visual", part="look", meter="visual.splits:split_screen",
        chart="range", rules=(Rule("visual.split_max", "<", None, "largest score of split screens, 0-1", SHARE),),
    ),
    Signal(
        "panel", BOXES, "one of the panels: left, top, right, bottom", "share of the side",
        "split_score is below 0.4, or null", stage="visual", part="look", meter="visual.splits:split_screen",
    ),
    Signal(
        "human_score", REAL, "sureness that there are people", "0-1", NOT_LOOKED_AT + ", or visual.people is off",
        stage="visual", part="look", meter="visual.people:PeopleDetector", chart="range",
    ),
    Signal(
        "heads", BOXES, "boxes of heads that were seen: left, top, right, bottom of each", "share of the side",
        "no head was seen, or as human_score", stage="visual", part="look", meter="visual.people:PeopleDetector",
    ),
    Signal(
        "human_action", TEXT, "the nearest of 600 human verbs and expressions (looking/verbs.yaml)",
        null="models.people is not clip, or no people are seen", stage="visual", part="look",
        meter="looking.clip:ClipLooker",
    ),
    Signal(
        "nsfw_score", REAL, "sureness that the picture is not safe for work", "0-1",
        "models.nsfw is off, or not looked at", stage="visual", part="look",
        meter="looking.clip:ClipLooker", chart="range",
        rules=(Rule("visual.nsfw_max", "<", None, "largest score of unsafe pictures, 0-1", SHARE,
                    switch="models.nsfw"),),
    ),
    Signal(
        "watermark_score", REAL, "sureness that there is a watermark or a logo", "0-1",
        "models.watermark is off, or not looked at", stage="visual", part="look", meter="looking.clip:ClipLooker",
        chart="range", rules=(Rule("visual.watermark_max", "<", None, "largest score of watermarks, 0-1", SHARE,
                                   switch="models.watermark"),),
    ),
    Signal(
        "rendered_score", REAL, "sureness that the picture is rendered: game, animation, computer graphics", "0-1",
        "models.rendered is off, or not looked at", stage="visual", part="look", meter="looking.clip:ClipLooker",
        chart="range", rules=(Rule("visual.rendered_max", "<", None, "largest score of rendered pictures, 0-1", SHARE,
                                   switch="models.rendered"),),
    ),
    Signal(
        "look_models", LIST, "which model wrote which column, as 'column: model'; measured ones are named as such",
        null="the clip was not looked at", part="look",
    ),
    Signal("copy_group", TEXT, "the clip that stands for this one and its near copies",
           null="it has no copies, or was not compared", part="content"),
    Signal("semantic_group", TEXT, "the clip that stands for those of one concept that are this much alike",
           null="none is, or content.semantic_threshold is off", part="content"),
    Signal("published_copy", TEXT, "RUN#CLIP of content.against that this one is a copy of", null="none",
           part="content"),
    Signal("duplicate_of", TEXT, "the clip of its group that stays in its place", null="it is none's copy",
           part="judge"),
    Signal("cluster_id", LONG, "number of the concept cluster", null="not compared", part="content"),
    Signal("cluster_size", LONG, "clips in the concept cluster that passed the rules", "clips",
           "the clip was rejected before the draw", stage="content", part="judge", chart="counts"),
    Signal("keep_prob", REAL, "probability with which the clip was drawn", "0-1",
           "the clip was rejected before the draw", stage="content", part="judge", chart="range"),
    Signal("caption", TEXT, "caption, without the camera's motion", null="not captioned", part="caption"),
    Signal("caption_model", TEXT, "who wrote it", null="not captioned", part="caption"),
    Signal("caption_words", WHOLE, "words of the caption", "words", "not captioned", stage="captioning",
           part="caption", chart="counts"),
    Signal("notes", LIST, "why values are null or how they were measured, as 'column: reason'", part="judge"),
)  # fmt: skip

# --- the other tables ---------------------------------------------------------------------------------------------

UNREAD = "the file could not be opened"

SOURCES: tuple[Column, ...] = (
    Column("source_id", TEXT, "content id: a hash of size and bytes", null="the file could not be read"),
    Column("uri", TEXT, "where it was read"),
    Column("status", TEXT, "ok, partial (some frames are missing), duplicate (same content as another) or failed"),
    Column("error", TEXT, "what was wrong, in a sentence", null="nothing was"),
    Column("size_bytes", LONG, "size of the file", "bytes", "the file could not be read"),
    Column("codec", TEXT, "video codec", null=UNREAD),
    Column("pix_fmt", TEXT, "pixel format, in FFmpeg's words", null=UNREAD),
    Column("width", WHOLE, "width as shown: upright, square pixels", "px", UNREAD),
    Column("height", WHOLE, "height as shown: upright, square pixels", "px", UNREAD),
    Column("fps", EXACT, "frames per second", "1/s", UNREAD),
    Column("duration_s", EXACT, "length, as decoded", "s", UNREAD),
    Column("frames", LONG, "frames that were decoded", "frames", "not decoded"),
    Column("rotation", WHOLE, "turn that shows the picture upright, counter-clockwise", "degrees", UNREAD),
    Column("first_pts_s", EXACT, "timestamp of the first frame in the file; clip times count from it", "s", UNREAD),
    Column("interlaced", FLAG, "whether frames are woven from two fields", null=UNREAD),
    Column("hdr", TEXT, "pq or hlg: high dynamic range, of which clips and stills are BT.709", null="it has none"),
    Column("clips", WHOLE, "clips of this source", "clips", "not decoded"),
)

SET: tuple[Column, ...] = (
    Column("set", TEXT, "the set's own name: tables of nested sets can be read together"),
    Column("clip_id", TEXT, "as in clips"),
    Column("source_id", TEXT, "as in clips"),
    Column("media", TEXT, "the clip's file, relative to the run"),
    Column("media_bytes", LONG, "as in clips", "bytes", null="an image or a latent"),
    Column("media_hash", TEXT, "as in clips", null="an image or a latent"),
    Column("media_start_s", EXACT, "begin of the span that is trained on, inside the media file", "s"),
    Column("media_end_s", EXACT, "end of the span that is trained on, inside the media file", "s"),
    Column("fps", EXACT, "the clip's own frames per second", "1/s"),
    Column("bucket", TEXT, "aspect and duration class, as 16x9/12-16s"),
    Column("bucket_frames", WHOLE, "what a batch holds of the span", "frames"),
    Column("bucket_width", WHOLE, "width at which a batch holds it", "px"),
    Column("bucket_height", WHOLE, "height at which a batch holds it", "px"),
    Column("sample_fps", EXACT, "rate at which the bucket's frames sample the span", "1/s"),
    Column("caption", TEXT, "what the text encoder is given: the camera's motion in front, where it is sure",
           null="not captioned"),
    Column("camera_motion", TEXT, "as in clips, where it is sure", null="not sure"),
    Column("fps_token", TEXT, "sample_fps as text, FPS-16"),
    Column("weight", REAL, "weight of the clip in a draw"),
)  # fmt: skip

EMBEDDINGS: tuple[Column, ...] = (
    Column("clip_id", TEXT, "as in clips"),
    Column("semantic", pa.list_(REAL), "vector of what the clip shows: concepts are clusters of it"),
    Column("copy", pa.list_(REAL), "vector of how the clip looks: copies are near each other"),
)

CONCEPTS: tuple[Column, ...] = (
    Column("cluster_id", LONG, "as in clips; several rows where centres were merged"),
    Column("clips", LONG, "clips that lie nearest to this centre", "clips"),
    Column("reach", REAL, "cosine to the centre that all but one in a hundred of these clips have", "-1-1"),
    Column("generation", LONG, "0: found by the run that began; one more for each run that joined another since"),
    Column("centre", pa.list_(REAL), "mean direction of the semantic vectors"),
)

VOCABULARY: tuple[Column, ...] = (
    Column("word", TEXT, "a topic or a verb; the table is there where models.semantic has a text tower"),
    Column("vector", pa.list_(REAL), "what the text tower makes of it, comparable with the semantic vectors"),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "sources": SOURCES,
    "clips": tuple(signal for signal in SIGNALS if not signal.derived),
    "embeddings": EMBEDDINGS,
    "concepts": CONCEPTS,
    "vocabulary": VOCABULARY,
    "sets/NAME": SET,
}

# --- what derives from it -----------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = tuple(
    Rule(**{**rule.__dict__, "column": signal.name, "phase": "look" if signal.part == "look" else "analyze"})
    for signal in SIGNALS
    for rule in signal.rules
)
BY_NAME: dict[str, Signal] = {signal.name: signal for signal in SIGNALS}
DERIVED = tuple(signal.name for signal in SIGNALS if signal.derived)


def schema(*parts: str) -> pa.Schema:
    """Schema of a clip's row: the stored columns that these parts of the work write, or all of them."""
    return pa.schema([s.field for s in SIGNALS if not s.derived and (not parts or s.part in parts)])


def table_schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema([column.field for column in columns])


def thresholds(section: str) -> Iterator[tuple[str, Rule]]:
    """(field name, rule) of the thresholds that the recipe's section holds, in the rules' order."""
    for rule in RULES:
        of, _, name = rule.key.partition(".")
        if of == section:
            yield name, rule


def charted() -> dict[str, list[Signal]]:
    """The signals that are drawn, by stage, in the order of SIGNALS."""
    stages: dict[str, list[Signal]] = {}
    for signal in SIGNALS:
        if signal.chart is not None:
            stages.setdefault(signal.stage, []).append(signal)
    return stages


def meters() -> list[str]:
    """Paths of the meters that the one decode feeds, in the order in which their first signal stands."""
    return list(dict.fromkeys(s.meter for s in SIGNALS if s.part == "measure" and s.meter is not None))


def describe(name: str) -> dict[str, Any]:
    """What is known of a clip's column, for people: KeyError where it is not built in."""
    signal = BY_NAME[name]
    rules = [f"{rule.key}: {name} {rule.compare}" for rule in signal.rules]
    return {"name": name, "unit": signal.unit, "meaning": signal.meaning, "null": signal.null, "rules": rules}


def dictionary() -> str:
    """The data dictionary as Markdown: every table, every column, its type, unit, meaning and when it is null."""
    lines: list[str] = []
    for name, columns in TABLES.items():
        lines += [f"### `{name}`", "", "| column | type | unit | meaning | null |", "|---|---|---|---|---|"]
        for column in columns:
            meaning = column.meaning
            if isinstance(column, Signal) and column.rules:
                meaning += "; judged by " + ", ".join(f"`{rule.key}`" for rule in column.rules)
            lines.append(f"| `{column.name}` | {column.type} | {column.unit} | {meaning} | {column.null} |")
        lines.append("")
    return "\n".join(lines)
