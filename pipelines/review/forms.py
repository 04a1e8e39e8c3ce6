"""What goes over the wire between reviewers and the service. docs/studio.md says how the forms are used.

Frames are numbers within the clip, from 0; `out_frame` is the first frame that is left out. Times of day are seconds
since 1970.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rushes.curation.captioning.draft import CameraControl, ShotAngle

FIELD_MOST = 1_200  # characters of one caption field
REASONS_MOST = 10
ITEMS_MOST = 20  # clips that one person holds at once
#: The fields of a caption, in the order in which they are filled in.
FIELDS = ("camera_control", "shot_angle", "subject", "background", "action", "light", "style")
CHOICES: dict[str, tuple[str, ...]] = {"camera_control": get_args(CameraControl), "shot_angle": get_args(ShotAngle)}

#: Made by the client, once per thing that a person does: the same id sent again changes nothing and is answered alike.
Id = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{8,64}$", examples=["6f1c0c1e-7f2a-4a86-9a3b-5b6f0d4f8a10"])]
ClipId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,64}$")]
Text = Annotated[str, Field(max_length=FIELD_MOST)]


class Form(BaseModel):
    """What a client sends: a key that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid")


class CaptionFields(Form):
    """The structured caption; an empty text is a field that nobody has filled in. Plain text: markup is text."""

    camera_control: Literal["", CameraControl] = ""
    shot_angle: Literal["", ShotAngle] = ""
    subject: Text = ""
    background: Text = ""
    action: Text = ""
    light: Text = ""
    style: Text = ""


class CaptionView(BaseModel):
    """A caption: its fields, the long text that is composed of them, and who wrote which words of each field."""

    fields: CaptionFields
    text: str = Field(description="the long caption, composed of the fields")
    written_by: dict[str, list[tuple[str, str]]] = Field(
        description="field -> runs of words as [who, words], in order; joined by spaces they are the field",
        examples=[{"subject": [["composed", "A red car"], ["mira", "with a dent"]]}],
    )


class DecisionForm(Form):
    """Accept (with in and out point) or reject (with reasons) a clip that the sender holds."""

    id: Id
    clip_id: ClipId
    verdict: Literal["accept", "reject"]
    reasons: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=REASONS_MOST)
    in_frame: int | None = Field(None, ge=0, le=10_000_000, description="first frame that is used; accepted clips")
    out_frame: int | None = Field(None, ge=1, le=10_000_000, description="first frame after; accepted clips")
    caption: CaptionFields | None = Field(None, description="none: the caption stays as it is")
    took_ms: int | None = Field(None, ge=0, le=86_400_000, description="from the clip's first picture to the key")
    next: int = Field(0, ge=0, le=ITEMS_MOST, description="clips that the answer shall leave the sender holding")

    @model_validator(mode="after")
    def _ordered(self) -> DecisionForm:
        if self.verdict == "accept":
            if self.in_frame is None or self.out_frame is None:
                raise ValueError("an accepted clip needs in_frame and out_frame")
            if self.out_frame <= self.in_frame:
                raise ValueError(f"the out point ({self.out_frame}) must lie behind the in point ({self.in_frame})")
        return self


class DecisionView(BaseModel):
    """A decision as it was kept. `verdict` undo takes back the decision named in `undoes`."""

    id: str
    clip_id: str
    person: str
    verdict: Literal["accept", "reject", "undo"]
    reasons: list[str] = []
    in_frame: int | None = None
    out_frame: int | None = None
    at: float
    undoes: str | None = None


class Item(BaseModel):
    """A clip to be decided on, leased to whoever is asked: nobody else is given it before `lease_until`."""

    clip_id: str
    state: Literal["open", "accepted", "rejected", "gone"] = Field(description="gone: the run no longer has the clip")
    lease_until: float | None = Field(None, description="when the lease ends; none: not held by the asker")
    media: str = Field(description="address of the cut clip", examples=["/api/v1/runs/a/clips/4f/media"])
    proxy: str = Field(description="address of it to look at: a small copy where it is large, frame by frame the same")
    frames: int
    fps: float = Field(description="mean rate; /runs/{run}/clips/{clip}/frames has the time of each frame")
    width: int
    height: int
    in_frame: int = Field(description="suggested, or as the asker last decided")
    out_frame: int
    concept: str | None = None
    suitability: float | None = Field(None, description="0-1, by `rushes fit suitability`")
    tie_break: bool = Field(False, description="two have decided and do not agree: this one tells")
    mine: DecisionView | None = Field(None, description="the asker's own last decision, also one taken back")
    caption: CaptionView


class Limits(BaseModel):
    """Of an accepted clip's length, in seconds; a frame's length of tolerance is allowed at both ends."""

    min_s: float
    max_s: float


class QueueView(BaseModel):
    """What is reviewed, and by which rules."""

    run: str
    name: str
    snapshot: str = Field(description="of the run, when the queue was made")
    reasons: list[str] = Field(examples=[["angle", "light", "colour", "motion", "subject"]])
    reviewers: int = Field(description="people who decide on each clip; 2: a third breaks a tie")
    span: Limits
    lease_s: float = Field(description="a lease's length; asking again renews it")
    break_after_s: float = Field(description="time at work after which a break is offered; 0: never")
    fields: list[str] = Field(examples=[list(FIELDS)])
    choices: dict[str, list[str]] = Field(description="fields with fixed words")
    republished: bool = Field(False, description="the run has another snapshot than when the queue was made")


class PersonProgress(BaseModel):
    person: str
    decisions: int
    accepted: int
    rejected: int
    per_hour: float | None = Field(None, description="decisions an hour, over stretches without a break")
    at_work_s: float = Field(0.0, description="length of the present stretch, without breaks of five minutes")


class Progress(BaseModel):
    total: int
    open: int
    accepted: int
    rejected: int
    disputed: int = Field(description="two do not agree; waits for a third")
    gone: int
    leased: int
    people: list[PersonProgress]


class ReasonAgreement(BaseModel):
    """kappa: Cohen's, over all clips that two have decided on; none where it is not defined."""

    reason: str = Field(description="'accept' is the verdict itself")
    pairs: int
    agreed: float | None
    kappa: float | None


class LeaseForm(Form):
    """Hold `count` clips: those that the sender holds are renewed, further ones are added."""

    count: int = Field(3, ge=1, le=ITEMS_MOST)
    skip: list[ClipId] = Field([], max_length=ITEMS_MOST, description="held clips to give back, asked again later")


class ReleaseForm(Form):
    """Give clips back: the page is left, or a break is taken. None: all."""

    clips: list[ClipId] | None = Field(None, max_length=ITEMS_MOST)


class UndoForm(Form):
    id: Id
    next: int = Field(0, ge=0, le=ITEMS_MOST)


class CaptionForm(Form):
    """Correct a caption without a decision; the sender holds the clip or has decided on it."""

    id: Id
    clip_id: ClipId
    fields: CaptionFields


class Held(BaseModel):
    """What the asker holds, in the order in which it is to be shown; empty: nothing is left to decide."""

    items: list[Item]
    progress: Progress


class Decided(BaseModel):
    """A decision that is kept, and what to show next. `again`: this id was known, nothing was changed."""

    decision: DecisionView
    again: bool = False
    items: list[Item] = Field(description="what the asker holds; after an undo the clip itself comes first")
    progress: Progress


class FrameTimes(BaseModel):
    """Presentation times of a cut clip's frames, from its first: show frame k by seeking to the middle of its time."""

    frames: int
    fps: float
    variable: bool = Field(description="whether the distance between frames varies by more than a rounding")
    times_s: list[float]
    end_s: float = Field(description="when the last frame ends")


# --- compare ------------------------------------------------------------------------------------------------------

QUESTIONS = ("quality", "motion", "alignment", "realism")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Question = Annotated[str, Field(pattern=r"^[a-z][a-z0-9 -]{0,39}$")]


class SamplesOf(Form):
    """One model's samples: a folder of mp4 files; files of the same name are of the same prompt."""

    model: Name
    folder: str = Field(min_length=1, max_length=4_096)


class ComparisonForm(Form):
    """Two models' samples; `prompts.txt` or `prompts.json` in the first folder is shown beside the pairs."""

    name: Name
    a: SamplesOf
    b: SamplesOf
    questions: list[Question] = Field(list(QUESTIONS), min_length=1, max_length=12)
    raters: int = Field(3, ge=1, le=25, description="raters of each pair and question")
    seed: int = 0


class ComparisonView(BaseModel):
    """Models are not told to raters: they stand in the results."""

    name: str
    questions: list[str]
    raters: int
    pairs: int
    unpaired: int = Field(0, description="videos whose name only one of the folders has")
    votes: int
    wanted: int = Field(description="votes for all pairs, questions and raters")
    mine: int = Field(description="votes of the asker")
    created: float


class Pair(BaseModel):
    """One question about one pair; left and right are drawn for each rater and question."""

    pair: str = Field(description="an opaque id; it tells neither model nor prompt")
    question: str
    prompt: str | None = None
    left: str = Field(description="address of a video, by byte ranges; it tells no model")
    right: str


class PairForm(Form):
    count: int = Field(2, ge=1, le=ITEMS_MOST)


class Pairs(BaseModel):
    pairs: list[Pair] = Field(description="to be answered in this order; empty: nothing is left for the asker")
    left: int = Field(description="answers that are left for the asker")


class VoteForm(Form):
    id: Id
    pair: Annotated[str, Field(max_length=64)]
    question: Question
    choice: Literal["left", "right", "tie"]
    next: int = Field(0, ge=0, le=ITEMS_MOST)


class VoteView(BaseModel):
    id: str
    pair: str
    question: str
    person: str
    choice: Literal["left", "right", "tie", "undo"]
    at: float
    undoes: str | None = None


class Voted(BaseModel):
    vote: VoteView
    again: bool = False
    pairs: list[Pair]
    left: int


class QuestionResult(BaseModel):
    """Of model a against model b, over pairs with all their raters; a majority decides a pair, no majority is a tie."""

    question: str
    pairs: int = Field(description="pairs with all their raters")
    wins: int
    losses: int
    ties: int
    net_win_rate: float | None = Field(description="win % - loss %, -100 to 100")
    low: float | None = Field(description="95 % interval")
    high: float | None
    unanimous: float | None = Field(description="share of pairs on which all raters said the same")


class Results(BaseModel):
    name: str
    a: str
    b: str
    questions: list[QuestionResult]


class Refusal(BaseModel):
    """Every error's body. 409 has `code`: lease_lost, decided, gone, nothing_to_undo or exists."""

    detail: str
    code: str | None = None
    more: dict[str, Any] | None = None
