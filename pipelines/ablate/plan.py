"""What `rushes ablate` trains on: for each rule or set two training sets of one size, several times over.

The clips are dealt into as many parts as there are seeds, copies of one clip into the same part, and a seed sees its
own part alone. So the seeds are independent draws of footage, not one draw trained several times: what a rule seems
worth by the luck of its few clips differs between them, and the interval says so.

A seed deals its part into blocks in the same way, and a pair of trainings sees one block; where there are more pairs
than blocks, they are dealt anew. Blocks keep trainings small, which is where a lack of variety shows, and keep copies
together, which a sample of single clips would thin out; all of the part is used, each clip as often as the others.

    with the rule       clips of the block in the base set
    without the rule    the same ones, but for the share that the rule would take: in their place as many clips that the
                        rule alone turned away

The mean over a seed's pairs counts: which clips made room is no merit of the rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rushes.curation.manifest import Run

COLUMNS = ("clip_id", "source_id", "uri", "start_s", "end_s", "fps", "rejected_by", "copy_group", "duplicate_of")
LEAST = 4  # clips of a training: fewer say nothing


class AblationError(ValueError):
    """A question that the run cannot answer: one sentence."""


@dataclass(frozen=True)
class Span:
    """A clip where it lies in its source file. group: copies of one clip share it."""

    clip_id: str
    source_id: str
    uri: str
    start_s: float
    end_s: float
    fps: float
    group: str


@dataclass(frozen=True)
class Question:
    """What is a rule (or a set) worth? usual: clips with it; extra: clips that come in without it."""

    name: str
    usual: tuple[Span, ...]
    extra: tuple[Span, ...]

    @property
    def share(self) -> float:
        """Of the clips that come in, among all that there would be."""
        return len(self.extra) / (len(self.usual) + len(self.extra))


@dataclass(frozen=True)
class Trial:
    """One training. arm: `with` or `without` the question's rule; pair: which of the seed's draws."""

    question: str
    arm: str
    seed: int
    pair: int
    clips: tuple[Span, ...]

    @property
    def key(self) -> str:
        """Names the result's file: the same clips and seed have the same one, whatever was asked."""
        said = "\n".join([str(self.seed), *(f"{c.uri} {c.start_s} {c.end_s}" for c in self.clips)])
        return hashlib.blake2b(said.encode(), digest_size=10).hexdigest()


def spans(run: Run, columns: Sequence[str] = COLUMNS) -> dict[str, tuple[Span, str | None]]:
    """clip_id -> (span, rule that rejected it or None) of every clip of the run."""
    table = run.table("clips")
    there = [name for name in columns if name in table.column_names]
    found = {}
    for row in table.select(there).to_pylist():
        group = row.get("copy_group") or row.get("duplicate_of") or row["clip_id"]
        span = Span(*(row[name] for name in columns[:6]), group)
        found[row["clip_id"]] = (span, row["rejected_by"])
    return found


def held_out(run: Run) -> tuple[set[str], list[str]]:
    """(sources that are validated on, clips of the validation set)."""
    if "sets/validation" not in run.tables:
        raise AblationError(f"{run.root} holds out no sources: curate it with a validation set, then ablate it.")
    table = run.table("sets/validation")
    return set(table["source_id"].to_pylist()), table["clip_id"].to_pylist()


def questions(run: Run, base: str, rules: Sequence[str], sets: Sequence[str]) -> list[Question]:
    """A question for each rule and each set; no rule and no set named: every rule that turned clips away.

    Raises AblationError where a rule turned away too few clips, or a set is not there.
    """
    known, (sources, _) = spans(run), held_out(run)
    known = {key: value for key, value in known.items() if value[0].source_id not in sources}
    usual = _of_set(run, base, known)
    rejected: dict[str, list[Span]] = {}
    for span, rule in known.values():
        if rule is not None:
            rejected.setdefault(rule, []).append(span)
    for rule in rules:
        if rule not in rejected:
            there = ", ".join(sorted(rejected)) or "none"
            raise AblationError(f"The rule '{rule}' turned away no clip of {run.root}; rules that did: {there}.")
    chosen = rules or ([] if sets else sorted(rejected))
    asked = [Question(rule, usual, tuple(rejected[rule])) for rule in chosen]
    for name in sets:
        stricter = _of_set(run, name, known)
        inside = {span.clip_id for span in stricter}
        asked.append(Question(f"sets/{name}", stricter, tuple(s for s in usual if s.clip_id not in inside)))
    if not asked:
        raise AblationError(f"No rule of {run.root} turned clips away: there is nothing to ask.")
    return asked


def _of_set(run: Run, name: str, known: dict[str, tuple[Span, str | None]]) -> tuple[Span, ...]:
    if f"sets/{name}" not in run.tables:
        there = ", ".join(sorted(t.removeprefix("sets/") for t in run.tables if t.startswith("sets/")))
        raise AblationError(f"There is no set '{name}' in {run.root}; sets: {there}.")
    ids = run.table(f"sets/{name}")["clip_id"].to_pylist()
    return tuple(known[clip_id][0] for clip_id in ids if clip_id in known)


def trials(question: Question, seeds: int, about: int | None = None, pairs: int = 1) -> list[Trial]:
    """Both arms of every pair of every seed. about: clips of a training; None: all of the seed's part.

    Raises AblationError where parts are too small.
    """
    made = []
    for seed, (usual, extra) in enumerate(deal(question.usual, question.extra, seeds)):
        if len(usual) < LEAST or not extra:
            raise AblationError(
                f"{question.name}: {len(question.usual)} clips with it and {len(question.extra)} without are too few "
                f"for {seeds} seeds, each of which needs clips of its own: ask with fewer --seeds, or curate more."
            )
        blocks: list[Block] = []
        while len(blocks) < pairs:
            blocks += _blocks(usual, extra, about or len(usual), f"{seed} {len(blocks)}")
        for pair, block in enumerate(blocks[:pairs]):
            random = np.random.default_rng([seed, pair, *question.name.encode()])
            kept, others = ([some[i] for i in random.permutation(len(some))] for some in block)
            taken = max(1, round(len(kept) * len(others) / (len(kept) + len(others))))
            others = others[:taken]
            for arm, clips in (("with", kept), ("without", kept[len(others) :] + others)):
                made.append(Trial(question.name, arm, seed, pair, tuple(sorted(clips, key=lambda c: c.clip_id))))
    return made


Block = tuple[list[Span], list[Span]]
"""Clips with the rule, and those that come in without it."""


def _blocks(usual: Sequence[Span], extra: Sequence[Span], about: int, salt: str) -> list[Block]:
    """As many as make trainings of about so many clips, each with enough of both kinds."""
    for count in range(max(1, round(len(usual) / about)), 1, -1):
        dealt = deal(usual, extra, count, salt)
        if all(len(mine) >= LEAST and theirs for mine, theirs in dealt):
            return dealt
    return [(list(usual), list(extra))]


def deal(usual: Sequence[Span], extra: Sequence[Span], count: int, salt: str = "") -> list[Block]:
    """`count` lots of whole groups. Those of the usual clips do not depend on the extra ones: questions share them."""
    lot: dict[str, int] = {}

    def dealt(clips: Sequence[Span]) -> list[list[Span]]:
        new = sorted({c.group for c in clips if c.group not in lot}, key=lambda group: _shuffled(salt + group))
        lot.update({group: number % count for number, group in enumerate(new)})
        ordered = sorted(clips, key=lambda c: _shuffled(c.clip_id))
        return [[c for c in ordered if lot[c.group] == number] for number in range(count)]

    return list(zip(dealt(usual), dealt(extra)))


def _shuffled(text: str) -> bytes:
    """An order that has nothing to do with names, and is the same on every machine."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
