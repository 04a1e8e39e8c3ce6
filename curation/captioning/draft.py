"""Draft captions for people: a structured description with the fields that an annotator corrects (sec 3.3).

The fine-tuning set's captions are written by people; a model's draft saves them the typing. Where the server can, its
answer is held to the JSON schema while it is written (`response_format`); where it cannot, the answer is read anyway.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rushes.curation.captioning.assign import sampling_seed
from rushes.curation.captioning.endpoint import Endpoints, Servers, Unanswered
from rushes.curation.captioning.frames import FrameError
from rushes.curation.captioning.prompt import chat_body, load_template
from rushes.curation.captioning.vision import Frames, Row
from rushes.curation.sections import Captioning

#: The sixteen classes of B.2.
CameraControl = Literal[
    "zoom in", "zoom out", "push in", "pull out", "pan right", "pan left", "truck right", "truck left", "tilt up",
    "tilt down", "pedestal up", "pedestal down", "arc shot", "tracking shot", "static shot", "handheld shot",
]  # fmt: skip
#: The six of sec 3.3, and a word for none of them.
ShotAngle = Literal["wide", "close-up", "aerial", "low angle", "over the shoulder", "first person", "other"]
FIELD_LETTERS = 1200  # most letters of one field: what is longer is a loop
DRAFT_TOKENS = 800  # JSON of about 200 words
OBJECT = re.compile(r"\{.*\}", flags=re.DOTALL)


class Draft(BaseModel):
    """What an annotator is shown and corrects; every text in plain English."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    camera_control: CameraControl
    shot_angle: ShotAngle
    subject: str = Field(min_length=1, max_length=FIELD_LETTERS)
    background: str = Field(min_length=1, max_length=FIELD_LETTERS)
    action: str = Field(min_length=1, max_length=FIELD_LETTERS)
    light: str = Field(min_length=1, max_length=FIELD_LETTERS)
    style: str = Field(min_length=1, max_length=FIELD_LETTERS)


@dataclass(frozen=True)
class DraftOf:
    """A clip's draft; None where there is none, and `error` says why."""

    clip_id: str
    draft: Draft | None
    model: str
    error: str | None = None


class BadDraft(ValueError):
    """An answer that is no draft: one sentence."""


def parse_draft(text: str) -> Draft:
    """The draft in an answer, also between code fences or words. Raises BadDraft, naming the first wrong field."""
    found = OBJECT.search(text)
    if found is None:
        raise BadDraft(f"the answer holds no JSON object: '{text[:80]}'")
    try:
        return Draft.model_validate(json.loads(found[0]))
    except json.JSONDecodeError as error:
        raise BadDraft(f"the answer's JSON is broken: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise BadDraft(f"the draft's field '{'.'.join(map(str, first['loc']))}': {first['msg']}") from error


class Drafter:
    """`Drafter(recipe, servers, model)(rows, frames)`: a draft per clip, in the order of the rows."""

    def __init__(self, recipe: Captioning, servers: Servers, model: str, key: str | None = None) -> None:
        self._recipe = recipe.model_copy(update={"max_tokens": max(recipe.max_tokens, DRAFT_TOKENS)})
        self._servers, self._model, self._key = servers, model, key
        self._template = load_template("draft")

    def __call__(self, rows: Iterable[Row], frames: Frames) -> list[DraftOf]:
        """frames(row): JPEG frames of a clip. Raises ServersDown."""
        return asyncio.run(self._all(list(rows), frames))

    async def _all(self, rows: list[Row], frames: Frames) -> list[DraftOf]:
        recipe = self._recipe
        slots = asyncio.Semaphore(recipe.concurrency)
        async with Endpoints(self._servers, recipe.timeout_s, recipe.retries, recipe.patience_s, self._key) as pool:

            async def one(row: Row) -> DraftOf:
                async with slots:
                    try:
                        return await self._draft(pool, row, await asyncio.to_thread(frames, row))
                    except (FrameError, Unanswered) as error:
                        return DraftOf(row["clip_id"], None, self._model, str(error))

            return list(await asyncio.gather(*(one(row) for row in rows)))

    async def _draft(self, pool: Endpoints, row: Row, frames: list[bytes]) -> DraftOf:
        wrong = []
        for attempt in range(self._recipe.attempts):
            seed = sampling_seed(row["clip_id"], self._recipe.seed, attempt)
            answer = await pool.ask(row["clip_id"], self._body(row, frames, seed))
            try:
                return DraftOf(row["clip_id"], parse_draft(answer.text), self._model)
            except BadDraft as error:
                wrong.append(str(error))
        return DraftOf(row["clip_id"], None, self._model, f"{len(wrong)} answers failed: {'; '.join(wrong)}")

    def _body(self, row: Row, frames: list[bytes], seed: int) -> dict[str, Any]:
        values = {"cameras": ", ".join(get_args(CameraControl)), "angles": ", ".join(get_args(ShotAngle))}
        body = chat_body(self._model, self._template, frames, row["duration_s"], self._recipe, seed, **values)
        schema = {"name": "draft", "strict": True, "schema": Draft.model_json_schema()}
        return {**body, "response_format": {"type": "json_schema", "json_schema": schema}}
