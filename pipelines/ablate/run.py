"""`rushes ablate`: is this filter worth the clips it costs? Trainings with and without it, and the change they show.

    questions -> trials (plan.py) -> one file of losses each, here or on a Ray cluster -> change, interval, verdict

A trial's file is named by its clips and its seed: a killed run, started again, trains what is left, and a question that
is asked again later costs nothing. Both arms of a seed are validated on the same clips: those of the sources that the
run holds out, and those of a fixed clean set, where one is given.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rushes.curation.manifest import open_run
from rushes.pipelines.ablate.learners import Learner
from rushes.pipelines.ablate.plan import AblationError, Question, Span, Trial, held_out, questions, spans, trials

CONFIDENCE = 0.9  # that all intervals of one validation set hold at once
LEAST_SEEDS = 3  # with fewer an interval is as wide as the sky

Say = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What is asked of a run. clean: another run's sets/validation, or `ROOT#SET`; None: none."""

    run: str
    base: str = "pretrain-256"
    rules: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    clean: str | None = None
    seeds: int = 5
    clips: int | None = None  # of a training at most
    validation_clips: int = 64  # of each validation set at most


@dataclass(frozen=True)
class Change:
    """By how much the loss rises where the rule is left out, %: mean over seeds, and its interval.

    verdict: "pays" where all of the interval is above 0, "costs" where all is below, "nothing seen" otherwise.
    """

    question: str
    validated_on: str
    clips: int
    share: float
    change: float
    low: float
    high: float
    seeds: int

    @property
    def verdict(self) -> str:
        return "pays" if self.low > 0 else "costs" if self.high < 0 else "nothing seen"


def plan(asked: Asked) -> tuple[list[Question], list[Trial], dict[str, list[Span]]]:
    """(questions, trials, validation clips by set). Raises AblationError, ManifestError."""
    if asked.seeds < LEAST_SEEDS:
        raise AblationError(f"An interval needs at least {LEAST_SEEDS} seeds, not {asked.seeds}.")
    run = open_run(asked.run)
    found = questions(run, asked.base, asked.rules, asked.sets)
    all_trials = [trial for question in found for trial in trials(question, asked.seeds, asked.clips)]
    known = spans(run)
    validation = {"held-out sources": [known[clip][0] for clip in held_out(run)[1] if clip in known]}
    if asked.clean:
        root, _, name = asked.clean.partition("#")
        clean = open_run(root)
        rows = clean.table(f"sets/{name or 'validation'}")["clip_id"].to_pylist()
        others = spans(clean)
        validation["clean set"] = [others[clip][0] for clip in rows if clip in others]
    validation = {name: some[: asked.validation_clips] for name, some in validation.items()}
    if empty := [name for name, some in validation.items() if not some]:
        raise AblationError(f"There is no clip to validate on in the {empty[0]}.")
    return found, all_trials, validation


def ablate(asked: Asked, learner: Learner, output: str, say: Say, address: str | None = None) -> list[Change]:
    """Train what is not trained yet, and say what it shows; results and `ablation.json` go to `output`.

    address: of a Ray cluster that shares the output's folder; None: in this process, one training after another.
    """
    found, todo, validation = plan(asked)
    folder = Path(output) / learner.name
    folder.mkdir(parents=True, exist_ok=True)
    where = {trial: folder / f"{trial.key}-{_digest(validation)}.json" for trial in todo}
    left = list({path: trial for trial, path in where.items() if not path.exists()}.items())
    say(f"{len(set(where.values()))} trainings by the learner '{learner.name}', {len(left)} of them to be done.")
    began = time.monotonic()
    for number, _ in enumerate(_train(left, learner, validation, address), 1):
        if number == 1 or number % max(1, len(left) // 10) == 0:
            spent = time.monotonic() - began
            say(f"{number} of {len(left)}, {spent:.0f} s, about {spent / number * (len(left) - number):.0f} s left")
    told = {trial: json.loads(path.read_text(encoding="utf-8")) for trial, path in where.items()}
    changes = [
        change(question, name, len(validation[name]), told, asked.seeds, len(found))
        for question in found
        for name in validation
    ]
    report = {"asked": asdict(asked), "learner": learner.name, "confidence": CONFIDENCE,
              "changes": [{**asdict(one), "verdict": one.verdict} for one in changes]}  # fmt: skip
    _write(Path(output) / "ablation.json", report)
    return changes


def _train(
    left: list[tuple[Path, Trial]], learner: Learner, validation: dict[str, list[Span]], address: str | None
) -> Iterator[None]:
    """Yields once for each training that is done."""
    if address is None:
        for path, trial in left:
            yield _one(path, trial, learner, validation)
        return
    import ray

    ray.init(address, ignore_reinit_error=True)
    remote, held = ray.remote(max_retries=3)(_one), (ray.put(learner), ray.put(validation))
    waiting = [remote.remote(path.absolute(), trial, *held) for path, trial in left]
    while waiting:
        done, waiting = ray.wait(waiting)
        yield ray.get(done[0])


def _one(path: Path, trial: Trial, learner: Learner, validation: dict[str, list[Span]]) -> None:
    began = time.monotonic()
    losses = learner.losses(trial.clips, validation, trial.seed)
    _write(path, {"clips": len(trial.clips), "losses": losses, "seconds": round(time.monotonic() - began, 3)})


def _write(path: Path, value: Any) -> None:
    """All of it or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value, indent=1), encoding="utf-8")
    part.replace(path)


def _digest(validation: dict[str, list[Span]]) -> str:
    return hashlib.blake2b(repr(sorted(validation.items())).encode(), digest_size=4).hexdigest()


def change(question: Question, name: str, clips: int, told: dict[Trial, Any], seeds: int, asked: int) -> Change:
    """The mean change over the seeds, and its interval by Student's t.

    A seed's change is the mean over validation clips of log(loss without / loss with): clips of much motion count no
    more than others. The intervals of all questions hold together (Bonferroni): asking many finds no more by chance.
    """
    logs = np.zeros(seeds)
    for trial, result in told.items():
        if trial.question == question.name:
            sign = 1 if trial.arm == "without" else -1
            logs[trial.seed] += sign * np.mean(np.log(result["losses"][name]))
    half = stats.t.ppf(1 - (1 - CONFIDENCE) / (2 * asked), seeds - 1) * logs.std(ddof=1) / math.sqrt(seeds)
    percents = [100 * math.expm1(value) for value in (logs.mean(), logs.mean() - half, logs.mean() + half)]
    return Change(question.name, name, clips, question.share, *percents, seeds)


def seconds_of_one(learner: Learner, output: str) -> float | None:
    """Of the trainings in the output's folder, the median time; None where there are none yet."""
    found = sorted((Path(output) / learner.name).glob("*.json"))
    return float(np.median([json.loads(p.read_text(encoding="utf-8"))["seconds"] for p in found])) if found else None


def describe(asked: Asked, learner_name: str, seconds: float | None = None) -> str:
    """What would be trained, and what it would cost; nothing is written. seconds: of one training, where known."""
    found, todo, validation = plan(asked)
    lines = [
        f"{one.name}: {len(one.usual)} clips with it, {len(one.extra)} more without ({one.share:.0%})" for one in found
    ]
    sizes = sorted({len(trial.clips) for trial in todo})
    lines.append(
        f"{len(todo)} trainings ({len(found)} questions x {asked.seeds} seeds x 2) by '{learner_name}' on "
        f"{sizes[0]} to {sizes[-1]} clips each"
        + (f", about {len(todo) * seconds / 60:.0f} minutes one after another" if seconds else "")
    )
    lines += [f"Validated on {len(some)} clips of the {name}" for name, some in validation.items()]
    return "\n".join(lines)


def table(changes: Sequence[Change]) -> Any:
    """The changes as a rich table."""
    from rich.table import Table

    made = Table(title="Without the rule, at the same number of clips, the loss rises by", title_justify="left")
    for name, side in (("rule", "left"), ("validated on", "left"), ("clips it costs", "right"), ("change", "right"),
                       (f"{CONFIDENCE:.0%} interval", "right"), ("", "left"), ("verdict", "left")):  # fmt: skip
        made.add_column(name, justify=side)
    reach = max((abs(value) for one in changes for value in (one.low, one.high)), default=1.0) or 1.0
    for one in changes:
        made.add_row(
            one.question, one.validated_on, f"{one.share:.0%}", f"{one.change:+.2f} %",
            f"{one.low:+.2f} to {one.high:+.2f}", _bar(one, reach), one.verdict,
        )  # fmt: skip
    return made


def _bar(one: Change, reach: float, width: int = 21) -> str:
    """The interval as a line of characters around 0."""

    def place(value: float) -> int:
        return round((value / reach + 1) / 2 * (width - 1))

    cells = [" "] * width
    for at in range(place(one.low), place(one.high) + 1):
        cells[at] = "─"
    cells[width // 2] = "│"
    cells[place(one.change)] = "●"
    return "".join(cells)


def picture(changes: Sequence[Change]) -> str:
    """The changes and their intervals as an SVG, for a report."""
    row, left, wide = 26, 260, 360
    reach = max((abs(value) for one in changes for value in (one.low, one.high)), default=1.0) or 1.0
    colours = {"pays": "#2f7d4f", "costs": "#b5482f", "nothing seen": "#777777"}

    def x(value: float) -> float:
        return left + wide * (value / reach + 1) / 2

    tall = row * len(changes) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + wide + 110} {tall}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="What each rule is worth">',
        f'<line x1="{x(0)}" y1="4" x2="{x(0)}" y2="{tall - 24}" stroke="#999"/>',
    ]
    for number, one in enumerate(changes):
        y, colour = row * number + 18, colours[one.verdict]
        low, high = x(one.low), x(one.high)
        parts += [
            f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{one.question} · {one.validated_on}</text>',
            f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(one.change):.1f}" cy="{y}" r="5" fill="{colour}"/>',
            f'<text x="{left + wide + 12}" y="{y + 4}" fill="{colour}">{one.change:+.2f} % {one.verdict}</text>',
        ]
    parts.append(
        f'<text x="{x(0)}" y="{tall - 8}" text-anchor="middle">change of the loss without the rule, {CONFIDENCE:.0%} '
        "intervals</text></svg>"
    )
    return "\n".join(parts)
