"""What a snapshot lacks that the one before it had: said, since people made it."""

from __future__ import annotations

from collections.abc import Iterable

from rushes.curation.finetune.suitability import COLUMN, FILE
from rushes.curation.manifest import Run


def left_behind(before: Run, tables: Iterable[str], scored: bool) -> list[str]:
    """Sentences on the sets and the score of `before` that the next snapshot of these tables does not have.

    scored: its clips have the column of the score.
    """
    said = []
    sets = [name.removeprefix("sets/") for name in before.tables if name.startswith("sets/")]
    lost = [name for name in sets if f"sets/{name}" not in set(tables)]
    if lost:
        said.append(
            f"The sets {', '.join(lost)} were chosen from the clips that were kept before and are not in this "
            f"snapshot; `rushes finetune candidates {before.root}` and `rushes finetune balance {before.root}` choose "
            f"from those that are kept now. What people decided is not lost."
        )
    if not scored and COLUMN in before.schema("clips").names:
        said.append(
            f"The column {COLUMN} is not in this snapshot; `rushes fit suitability {before.root} --model "
            f"{before.root}/{FILE}` writes it again."
        )
    return said
