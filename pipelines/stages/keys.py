"""Names of records' folders: a hash of the parts of the recipe that decide what a record holds."""

from __future__ import annotations

from dataclasses import dataclass

from rushes.curation import rules
from rushes.curation.recipe import Recipe
from rushes.pipelines.stages.records import key_of


@dataclass(frozen=True)
class Keys:
    """observe: tracks and stills; look: clips' rows, measured and looked at; asked: which of them are looked at."""

    observe: str
    look: str
    asked: str
    content: str
    cut: str

    @property
    def looked(self) -> str:
        return f"{self.look}/{self.asked}"

    @staticmethod
    def of(recipe: Recipe) -> Keys:
        observe = recipe.part_hash("observe")
        look = f"{observe}-{recipe.part_hash('measure')}-{recipe.part_hash('look')}"
        judged = [(rule.key, rule.column, rule.compare, at) for rule, at in rules.active(recipe, "analyze")]
        asked = key_of(judged, recipe.visual.rescue)
        return Keys(observe, look, asked, f"{look}-{recipe.part_hash('content')}", recipe.part_hash("cut"))
