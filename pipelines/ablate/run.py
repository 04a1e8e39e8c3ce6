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
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from rushes.curation.manifest import open_run
from rushes.pipelines.ablate.learners import Learner
from rushes.pipelines.ablate.plan import AblationError, Question, Span, Trial, held_out, questions, spans, trials
from rushes.pipelines.ablate.show import CONFIDENCE, Change, picture

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
    pairs: int = 1  # of trainings of each seed
    clips: int | None = None  # of a training, about; None: all of a seed's part
    validation_clips: int = 64  # of each validation set at most


def plan(asked: Asked) -> tuple[list[Question], list[Trial], dict[str, list[Span]]]:
    """(questions, trials, validation clips by set). Raises AblationError, ManifestError."""
    if asked.seeds < LEAST_SEEDS:
        raise AblationError(f"An interval needs at least {LEAST_SEEDS} seeds, not {asked.seeds}.")
    run = open_run(asked.run)
    found = questions(run, asked.base, asked.rules, asked.sets)
    all_trials = [trial for question in found for trial in trials(question, asked.seeds, asked.clips, asked.pairs)]
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
    """Train what is not trained yet, and say what it shows; results, `ablation.json` and `.svg` go to `output`.

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
        change(question, name, len(validation[name]), told, asked.seeds, len(found) * len(validation))
        for question in found
        for name in validation
    ]
    report = {"asked": asdict(asked), "learner": learner.name, "confidence": CONFIDENCE,
              "changes": [{**asdict(one), "verdict": one.verdict} for one in changes]}  # fmt: skip
    _write(Path(output) / "ablation.json", report)
    (Path(output) / "ablation.svg").write_text(picture(changes), encoding="utf-8")
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

    A seed's change is the mean over pairs and validation clips of log(loss without / loss with): clips of much motion
    count no more than others. All `asked` intervals hold together (Bonferroni): asking many finds no more by chance.
    """
    logs = np.zeros(seeds)
    mine = {trial: result for trial, result in told.items() if trial.question == question.name}
    pairs = len(mine) / (2 * seeds)
    for trial, result in mine.items():
        sign = 1 if trial.arm == "without" else -1
        logs[trial.seed] += sign * np.mean(np.log(result["losses"][name])) / pairs
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
        f"{len({trial.key for trial in todo})} trainings ({len(found)} questions x {asked.seeds} seeds x {asked.pairs} "
        f"pairs, some of them shared) by '{learner_name}' on "
        f"{sizes[0]} to {sizes[-1]} clips each"
        + (f", about {len({t.key for t in todo}) * seconds / 60:.0f} minutes one after another" if seconds else "")
    )
    lines += [f"Validated on {len(some)} clips of the {name}" for name, some in validation.items()]
    return "\n".join(lines)
