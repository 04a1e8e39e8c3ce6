"""Two models' samples, judged by people blind: pairs, whose turn it is, votes, results."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable

import pyarrow.fs as pafs
import sqlalchemy as sa
from sqlalchemy.orm import Session

from rushes.curation import storage
from rushes.curation.nearest import meant
from rushes.curation.storage import join, resolve
from rushes.pipelines.review import forms
from rushes.pipelines.review.database import Conflict, Missing, ReviewError, Reviews
from rushes.pipelines.review.queue import UNDO_DEEP, form_hash, known
from rushes.pipelines.review.tables import Comparison, Pair, Vote
from rushes.pipelines.review.winrate import TIE, A, B, majority, net_win_rate

VIDEO = ".mp4"
PROMPTS = ("prompts.json", "prompts.txt")
PAIRS_MOST = 100_000


def create(reviews: Reviews, form: forms.ComparisonForm) -> forms.ComparisonView:
    """Pair the files of the same name in two folders. Raises Conflict where the name is taken, ReviewError."""
    if form.a.model == form.b.model:
        raise ReviewError("The two models need two names, so that the results can tell them apart.")
    files = [_videos(side.folder) for side in (form.a, form.b)]
    names = sorted(files[0] & files[1])[:PAIRS_MOST]
    if not names:
        raise ReviewError(
            f"{form.a.folder} and {form.b.folder} share no {VIDEO} files of the same name: pairs are made by name."
        )
    prompts = _prompts(form.a.folder, sorted(files[0]))
    settings = form.model_dump() | {"secret": secrets.token_hex(16), "unpaired": len(files[0] ^ files[1])}
    with reviews.writing() as session:
        if session.scalars(sa.select(Comparison.id).where(Comparison.name == form.name)).first() is not None:
            raise Conflict(f"There is a comparison '{form.name}': choose another name.", "exists")
        made = Comparison(name=form.name, settings=settings, created=time.time())
        session.add(made)
        session.flush()
        for name in names:
            id_ = _digest(settings["secret"], name)
            session.add(Pair(
                id=id_, comparison_id=made.id, prompt=prompts.get(name), a=join(form.a.folder, name),
                b=join(form.b.folder, name),
            ))  # fmt: skip
    return Compared(reviews, form.name).view("")


def comparisons(reviews: Reviews, person: str) -> list[forms.ComparisonView]:
    with reviews.reading() as session:
        names = list(session.scalars(sa.select(Comparison.name).order_by(Comparison.id)))
    return [Compared(reviews, name).view(person) for name in names]


class Compared:
    """A comparison by name. Its methods raise Missing, Conflict, ReviewError and ReviewsAway."""

    def __init__(self, reviews: Reviews, name: str, clock: Callable[[], float] = time.time) -> None:
        self._reviews, self._name, self._clock = reviews, name, clock

    def view(self, person: str) -> forms.ComparisonView:
        with self._reviews.reading() as session:
            found = self._found(session)
            of = found.settings
            pairs = len(self._pairs(session, found))
            votes = _standing(session, found)
            return forms.ComparisonView(
                name=found.name, questions=of["questions"], raters=of["raters"], pairs=pairs,
                unpaired=of["unpaired"], votes=len(votes), wanted=pairs * len(of["questions"]) * of["raters"],
                mine=sum(vote.person == person for vote in votes), created=found.created,
            )  # fmt: skip

    def next(self, person: str, count: int) -> forms.Pairs:
        """What a rater is asked next: question after question, the pairs of each in an order of the rater's own."""
        with self._reviews.reading() as session:
            return self._next(session, self._found(session), person, count)

    def vote(self, person: str, form: forms.VoteForm) -> forms.Voted:
        """Keep an answer; the same id again changes nothing."""
        with self._reviews.writing() as session:
            found = self._found(session, lock=True)
            before = known(session, Vote, form, person)
            if before is not None:
                return self._voted(session, found, before, form.next, again=True)
            pair = session.get(Pair, form.pair)
            if pair is None or pair.comparison_id != found.id or form.question not in found.settings["questions"]:
                raise Missing(f"The comparison '{self._name}' asks no such question about such a pair.")
            if (pair.id, form.question) in {(v.pair_id, v.question) for v in _standing(session, found, person)}:
                raise Conflict("You have answered this already: undo it first.", "decided")
            shown = dict(zip(("left", "right"), _order(found, person, pair.id, form.question), strict=True))
            made = Vote(
                id=form.id, comparison_id=found.id, pair_id=pair.id, question=form.question, person=person,
                choice=form.choice, won=shown.get(form.choice, TIE), at=self._clock(), form=form_hash(form),
            )  # fmt: skip
            session.add(made)
            session.flush()
            return self._voted(session, found, made, form.next)

    def undo(self, person: str, form: forms.UndoForm) -> forms.Voted:
        """Take back the rater's last answer that stands, at most ten in a row; it is asked again first."""
        with self._reviews.writing() as session:
            found = self._found(session, lock=True)
            before = known(session, Vote, form, person)
            if before is None:
                lately = session.scalars(
                    sa.select(Vote.choice).where(Vote.comparison_id == found.id, Vote.person == person)
                    .order_by(Vote.number.desc()).limit(UNDO_DEEP)
                ).all()  # fmt: skip
                mine = _standing(session, found, person)
                if not mine or list(lately) == ["undo"] * UNDO_DEEP:
                    raise Conflict(
                        f"There is nothing to take back: at most {UNDO_DEEP} answers in a row can be.",
                        "nothing_to_undo",
                    )
                last = mine[-1]
                before = Vote(
                    id=form.id, comparison_id=found.id, pair_id=last.pair_id, question=last.question, person=person,
                    choice="undo", won=None, at=self._clock(), undoes=last.id, form=form_hash(form),
                )  # fmt: skip
                session.add(before)
                session.flush()
                return self._voted(session, found, before, form.next, first=(last.pair_id, last.question))
            return self._voted(session, found, before, form.next, again=True)

    def media(self, person: str, pair_id: str, side: str) -> str:
        """Address of the video behind a side's token."""
        with self._reviews.reading() as session:
            found = self._found(session)
            pair = session.get(Pair, pair_id)
            if pair is not None and pair.comparison_id == found.id:
                for model, file in ((A, pair.a), (B, pair.b)):
                    if side == _token(found, person, pair_id, model):
                        return file
        raise Missing("There is no such video in this comparison.")

    def results(self) -> forms.Results:
        with self._reviews.reading() as session:
            found = self._found(session)
            of = found.settings
            votes: dict[tuple[str, str], list[str]] = defaultdict(list)
            for vote in _standing(session, found):
                votes[vote.question, vote.pair_id].append(vote.won or TIE)
        asked = [_result(question, votes, of["raters"]) for question in of["questions"]]
        return forms.Results(name=found.name, a=of["a"]["model"], b=of["b"]["model"], questions=asked)

    # --- inside a transaction -------------------------------------------------------------------------------------

    def _found(self, session: Session, lock: bool = False) -> Comparison:
        wanted = sa.select(Comparison).where(Comparison.name == self._name)
        found = session.scalars(wanted.with_for_update() if lock else wanted).first()
        if found is None:
            names = session.scalars(sa.select(Comparison.name).order_by(Comparison.name)).all()
            hint = meant(self._name, names, "comparisons") if names else (
                "`rushes compare RUNS NAME --a MODEL=FOLDER --b MODEL=FOLDER` makes one."
            )  # fmt: skip
            raise Missing(f"There is no comparison '{self._name}'; {hint}")
        return found

    def _pairs(self, session: Session, found: Comparison) -> list[Pair]:
        return list(session.scalars(sa.select(Pair).where(Pair.comparison_id == found.id)))

    def _next(
        self, session: Session, found: Comparison, person: str, count: int, first: tuple[str, str] | None = None
    ) -> forms.Pairs:
        of = found.settings
        given: dict[tuple[str, str], int] = defaultdict(int)
        mine = set()
        for vote in _standing(session, found):
            given[vote.pair_id, vote.question] += 1
            if vote.person == person:
                mine.add((vote.pair_id, vote.question))
        pairs = {pair.id: pair for pair in self._pairs(session, found)}
        left = [
            (question, pair_id) for question in of["questions"] for pair_id in pairs
            if (pair_id, question) not in mine and given[pair_id, question] < of["raters"]
        ]  # fmt: skip
        rank = {question: number for number, question in enumerate(of["questions"])}
        left.sort(key=lambda one: (rank[one[0]], _digest(str(of["seed"]), person, one[1], one[0])))
        if first is not None:
            left = [first[::-1], *(one for one in left if one != first[::-1])]
        shown = [self._shown(found, person, pairs[pair_id], question) for question, pair_id in left[:count]]
        return forms.Pairs(pairs=shown, left=len(left))

    def _shown(self, found: Comparison, person: str, pair: Pair, question: str) -> forms.Pair:
        sides = [
            f"/api/v1/compare/{found.name}/media/{pair.id}/{_token(found, person, pair.id, model)}"
            for model in _order(found, person, pair.id, question)
        ]
        return forms.Pair(pair=pair.id, question=question, prompt=pair.prompt, left=sides[0], right=sides[1])

    def _voted(
        self, session: Session, found: Comparison, vote: Vote, count: int, again: bool = False,
        first: tuple[str, str] | None = None,
    ) -> forms.Voted:  # fmt: skip
        after = self._next(session, found, vote.person, count, first)
        view = forms.VoteView(
            id=vote.id, pair=vote.pair_id, question=vote.question, person=vote.person, choice=vote.choice, at=vote.at,
            undoes=vote.undoes,
        )  # fmt: skip
        return forms.Voted(vote=view, again=again, pairs=after.pairs, left=after.left)


def _standing(session: Session, found: Comparison, person: str | None = None) -> list[Vote]:
    """Votes that were not taken back, in their order."""
    undone = sa.select(Vote.undoes).where(Vote.comparison_id == found.id, Vote.undoes.is_not(None))
    wanted = sa.select(Vote).where(Vote.comparison_id == found.id, Vote.choice != "undo", Vote.id.not_in(undone))
    if person is not None:
        wanted = wanted.where(Vote.person == person)
    return list(session.scalars(wanted.order_by(Vote.number)))


def _result(question: str, votes: dict[tuple[str, str], list[str]], raters: int) -> forms.QuestionResult:
    whole = [some[:raters] for (of, _), some in votes.items() if of == question and len(some) >= raters]
    won = [majority(some) for some in whole]
    wins, losses, ties = (won.count(one) for one in (A, B, TIE))
    rate, low, high = net_win_rate(wins, losses, ties) or (None, None, None)
    unanimous = sum(len(set(some)) == 1 for some in whole) / len(whole) if whole else None
    return forms.QuestionResult(
        question=question, pairs=len(whole), wins=wins, losses=losses, ties=ties, net_win_rate=rate, low=low,
        high=high, unanimous=unanimous,
    )  # fmt: skip


def _order(found: Comparison, person: str, pair: str, question: str) -> tuple[str, str]:
    """Which model stands left and which right: a fair draw for each rater, pair and question."""
    odd = int(_digest(found.settings["secret"], "order", person, pair, question), 16) % 2
    return (B, A) if odd else (A, B)


def _token(found: Comparison, person: str, pair: str, model: str) -> str:
    """A video's name for one rater: it tells no model, and two raters' names differ."""
    return _digest(found.settings["secret"], "side", person, pair, model)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()


def _videos(folder: str) -> set[str]:
    fs, path = resolve(folder)
    infos = fs.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return {one.base_name for one in infos if one.type == pafs.FileType.File and one.base_name.endswith(VIDEO)}


def _prompts(folder: str, names: list[str]) -> dict[str, str]:
    """Prompt by file name: prompts.json holds {name: prompt}, prompts.txt a line for each file in order of names."""
    for file in PROMPTS:
        try:
            data = storage.read_bytes(join(folder, file)).decode("utf-8")
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            continue
        if file.endswith(".txt"):
            return dict(zip(names, data.splitlines()))
        try:
            found = json.loads(data)
        except ValueError as error:
            raise ReviewError(f"{folder}/{file} is no JSON: {error}.") from error
        if not isinstance(found, dict):
            raise ReviewError(f"{folder}/{file} wants an object: file names, and their prompts.")
        return {str(name): str(prompt)[:4_000] for name, prompt in found.items()}
    return {}
