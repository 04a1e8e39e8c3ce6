"""Eight reviewers at a real service that is killed twice in the middle: no decision lost, none twice."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import httpx
import pytest

from rushes.curation.manifest import open_run
from rushes.pipelines.review.database import Reviews
from rushes.pipelines.review.filling import NewItem, fill
from rushes.pipelines.review.said import reviewed
from rushes.pipelines.service.access import add_token
from tests.pipelines.review.conftest import SETTINGS
from tests.pipelines.synthetic_run import make_run

REVIEWERS, DECISIONS, KILLED_AT = 8, 2_000, (600, 1_300)
LOST_EVERY = 25  # decisions of a person, one of which is sent again as if its answer had been lost
PATIENCE_S = 60.0

pytestmark = pytest.mark.heavy


class Service:
    """`rushes serve` as a process that can be killed and started again on the same port and folders."""

    def __init__(self, runs: Path, tokens: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        self._command = [sys.executable, "-m", "rushes.pipelines.cli", "serve", str(runs), "--port", str(self.port),
                         "--tokens", str(tokens)]  # fmt: skip
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("the service did not start")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


class Reviewer(threading.Thread):
    """Decides until nothing is left; what gets no answer is sent again as it was. sent: id -> (clip, verdict)."""

    def __init__(self, url: str, token: str, number: int, made: list[int]) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=30)
        self._queue, self._number, self._made = f"{url}/runs/first/review/finetune", number, made
        self.sent: dict[str, tuple[str, str]] = {}
        self.again, self.unanswered, self.refused, self.error = 0, 0, Counter(), None

    def run(self) -> None:
        try:
            items = self._post("lease", {"count": 3}).json()["items"]
            while items:
                answer = self._decide(items[0]["clip_id"])
                items = answer["items"] if answer else self._post("lease", {"count": 3}).json()["items"]
        except Exception as error:
            self.error = error

    def _decide(self, clip: str) -> dict | None:
        verdict = "accept" if int(clip.rsplit("-", 1)[1]) % 3 else "reject"
        body = {"id": str(uuid.uuid4()), "clip_id": clip, "verdict": verdict, "next": 3}
        body |= {"in_frame": self._number, "out_frame": 380} if verdict == "accept" else {"reasons": ["light"]}
        answer = self._post("decisions", body)
        if answer.status_code == 409:
            self.refused[answer.json()["code"]] += 1
            return None
        assert answer.status_code == 200, answer.text
        self.sent[body["id"]] = (clip, verdict)
        self._made[0] += 1
        if len(self.sent) % LOST_EVERY == 0:  # as if the answer had not come
            second = self._post("decisions", body)
            assert second.status_code == 200 and second.json()["again"], second.text
            answer = second
        self.again += answer.json()["again"]
        return answer.json()

    def _post(self, path: str, body: dict) -> httpx.Response:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self._client.post(f"{self._queue}/{path}", json=body)
                if answer.status_code < 500:
                    return answer
            except httpx.TransportError:
                self.unanswered += 1
            assert time.monotonic() < end, "no answer for a minute"
            time.sleep(0.05)


@pytest.mark.timeout(580)
def test_2000_decisions_of_eight_survive_two_kills(tmp_path):
    runs, tokens = tmp_path / "runs", tmp_path / "tokens"
    run = make_run(runs / "first", clips=40)
    base = f"sqlite:///{runs}/.service/reviews.sqlite"
    items = [NewItem(f"clip-{n:05d}", 384, 24.0, 1280, 720, rank=float(n)) for n in range(DECISIONS)]
    fill(Reviews(base), "first", "finetune", run.snapshot, SETTINGS, items)
    names = [add_token(str(tokens), "reviewer", f"person-{n}") for n in range(REVIEWERS)]
    service, made = Service(runs, tokens), [0]
    people = [Reviewer(service.url, token, number, made) for number, token in enumerate(names)]
    began = time.monotonic()
    for person in people:
        person.start()
    for at in KILLED_AT:
        while made[0] < at and any(person.is_alive() for person in people):
            time.sleep(0.01)
        service.kill()
        service.start()
    for person in people:
        person.join(PATIENCE_S * 4)
    seconds = time.monotonic() - began
    service.kill()
    assert [person.error for person in people] == [None] * REVIEWERS
    sent = {id_: (clip, verdict, f"person-{n}") for n, person in enumerate(people)
            for id_, (clip, verdict) in person.sent.items()}  # fmt: skip
    kept = reviewed(Reviews(base), "first", "finetune")
    found = {row["id"]: (row["clip_id"], row["verdict"], row["person"]) for row in kept.decisions}
    assert found == sent and len(sent) == DECISIONS and kept.unheard == 0
    assert len({clip for clip, _, _ in found.values()}) == DECISIONS
    again, lost = (sum(getattr(person, name) for person in people) for name in ("again", "unanswered"))
    refused = sum((person.refused for person in people), Counter())
    print(f"{DECISIONS} decisions in {seconds:.1f} s; {lost} requests without an answer, {again} decisions that were "
          f"kept already, refused: {dict(refused)}")  # fmt: skip
    assert lost > 0 and again >= DECISIONS // LOST_EVERY - REVIEWERS
    assert open_run(run.root).snapshot == run.snapshot
