"""From balanced clips to a queue that people review, with drafts of captions; and whose reviews a run's are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from rushes.curation import storage
from rushes.curation.finetune.suitability import COLUMN
from rushes.curation.manifest import ManifestError, Run
from rushes.curation.recipe import Recipe, RecipeError
from rushes.curation.sections import Finetune
from rushes.pipelines.finetune import BALANCED, PICTURES, kept_clips
from rushes.pipelines.review import words
from rushes.pipelines.review.database import Reviews, default_url
from rushes.pipelines.review.filling import Filled, NewItem, fill

QUEUE = "finetune"
ASKED_ABOUT = 0.5  # a score this near to one half is least sure
Draft = tuple[dict[str, str], str]  # fields, and who wrote them


def reviews_of(run: str, url: str | None) -> tuple[Reviews, str]:
    """The reviews' database of a run's folder, and the run's name in it. Raises ManifestError, ReviewError."""
    root = storage.absolute(run).rstrip("/")
    folder, _, name = root.rpartition("/")
    if url is None and "://" in root:
        raise ManifestError(f"{run} lies in an object store: name the reviews' database with --reviews URL.")
    return Reviews(url or default_url(folder)), name


def queue_settings(section: Finetune) -> dict[str, Any]:
    """What a queue keeps of the recipe (a QueueView's rules)."""
    return {
        "reasons": list(section.reasons), "reviewers": section.reviewers,
        "span": {"min_s": section.span_min_s, "max_s": section.span_max_s},
        "lease_s": section.lease_s, "break_after_s": section.break_after_s,
    }  # fmt: skip


def fill_queue(
    run: Run, recipe: Recipe, reviews: Reviews, name: str, queue: str = QUEUE,
    drafts: Callable[[list[dict[str, Any]]], dict[str, Draft]] | None = None,
) -> Filled:  # fmt: skip
    """Ask people about sets/balanced. drafts: writes captions' fields for rows; else what was measured is the draft."""
    table = run.table(BALANCED, ["clip_id", "concept"]).to_pydict()
    concept = dict(zip(table["clip_id"], table["concept"], strict=True))
    rows = kept_clips(run, list(concept)).to_pylist()
    drafted = drafts(rows) if drafts else {}
    ranks = _ranks(rows, concept)
    items = []
    for row in rows:
        fields, who = drafted.get(row["clip_id"], (words.draft(row), words.MEASURED))
        items.append(NewItem(
            row["clip_id"], row["frames"], row["fps"], *_shown(row), ranks[row["clip_id"]], concept[row["clip_id"]],
            row.get(COLUMN), fields, who,
        ))  # fmt: skip
    return fill(reviews, name, queue, run.snapshot, queue_settings(recipe.finetune), items)


def _shown(row: dict[str, Any]) -> tuple[int, int]:
    """Width and height of the cut clip: of the clean rectangle, where there is one."""
    return row.get("crop_width") or row["width"], row.get("crop_height") or row["height"]


def _ranks(rows: list[dict[str, Any]], concept: dict[str, str]) -> dict[str, float]:
    """Least sure first where there is a score; else the concepts in turn, so that each is begun early."""
    if any(row.get(COLUMN) is not None for row in rows):
        return {row["clip_id"]: abs((row.get(COLUMN) or 0.0) - ASKED_ABOUT) for row in rows}
    seen: dict[str, int] = defaultdict(int)
    ranks = {}
    for row in rows:
        ranks[row["clip_id"]] = float(seen[concept[row["clip_id"]]])
        seen[concept[row["clip_id"]]] += 1
    return ranks


def drafter(run: Run, recipe: Recipe) -> Callable[[list[dict[str, Any]]], dict[str, Draft]]:
    """Drafts by the recipe's first captioning model, at its endpoints. Raises RecipeError where it names none."""
    from rushes.curation.captioning.draft import Drafter
    from rushes.curation.captioning.frames import from_media
    from rushes.curation.captioning.preflight import key_of, preflight
    from rushes.curation.captioning.prompt import load_template

    spec = recipe.captioning
    if spec.provider != "endpoint":
        raise RecipeError(
            "Drafts by a model need captioning.provider=endpoint, its endpoints and its models: set them with --set."
        )
    key = key_of(spec)
    servers = preflight(spec, spec.endpoints, load_template(spec.prompt), key)
    made = Drafter(spec, servers, spec.models[0].name, key)

    def write(rows: list[dict[str, Any]]) -> dict[str, Draft]:
        def frames(row: dict[str, Any]) -> list[bytes]:
            return from_media(run.address(row["media"]), max(spec.frames, PICTURES), spec.side)

        return {one.clip_id: (one.draft.model_dump(), one.model) for one in made(rows, frames) if one.draft is not None}

    return write
