"""The fault table: runs on a cluster, each broken once at a random moment, then started again, then compared."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.kinds import FAULTS, Fault, Trial
from tests.faults.nodes import Nodes
from tests.faults.runs import HANGS, Published, curate, make_footage, start
from tests.faults.serving import Service
from tests.faults.store import Store, in_environment

DISK_BYTES = 96 << 20
ABORTED = "Fatal Python error"


@dataclass
class Row:
    """One trial. wrong: what was not as promised, empty where all was."""

    fault: str
    moment_s: float
    stage: str = ""
    code: int | None = None
    seconds: float = 0.0
    again: int | None = None
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        said = "; ".join([*(f"WRONG: {one}" for one in self.wrong), *self.notes])
        return (
            f"{self.fault:12} {self.moment_s:5.1f} s  {self.stage:22.22} first {self.code!s:>4} in "
            f"{self.seconds:5.1f} s  again {self.again!s:>4}  {said or 'the same tables'}"
        )


class Table:
    """Makes the footage, a cluster and what unbroken runs publish; `trial` adds a row. Use as a context."""

    def __init__(self, folder: Path, nodes: int, seed: int, stores: bool = True) -> None:
        self.folder, self.count, self.seed, self._stores = folder, nodes, seed, stores
        self.rows: list[Row] = []
        self.footage = folder / "footage"
        self.disk = folder / "disk"
        self._ended = contextlib.ExitStack()

    def __enter__(self) -> Table:
        with contextlib.ExitStack() as stack:
            self._films()
            self.disk.mkdir(exist_ok=True)
            self.small = mounted(self.disk)
            if self.small:
                stack.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
            self.nodes = Nodes(self.folder / "nodes", self.count)
            if self._stores:
                self.store = stack.enter_context(Store("0.0.0.0"))
                self.nodes.more = self.store_environment
            stack.enter_context(self.nodes)
            if self._stores:
                self.store.host = self.nodes.outside
                stack.enter_context(in_environment(self.store))
            self._references()
            self._ended = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.close()

    def _films(self) -> None:
        """The films that are read, those they are restored from, and one that takes another's place."""
        make_footage(self.folder / "films")
        spare = self.folder / "spare"
        if not (spare / "landscape.mp4").exists():
            from rushes.pipelines.demo.pool import make_pool

            make_pool(spare, ["landscape.mp4"])
        self.restore()

    def restore(self) -> None:
        """The footage as it was."""
        shutil.rmtree(self.footage, ignore_errors=True)
        shutil.copytree(self.folder / "films", self.footage, copy_function=shutil.copy2)

    def store_environment(self) -> dict[str, str]:
        return {**self.store.environment, "AWS_ENDPOINT_URL": f"http://{self.nodes.outside}:{self.store.port}"}

    def _references(self) -> None:
        """What unbroken runs publish: of the films, and of the films with one replaced."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        (self.folder / "runs").mkdir()
        self.same, self.span_s = self._reference("unbroken")
        self.other: Published | None = None

    def _reference(self, name: str) -> tuple[Published, float]:
        root, log = self.folder / "runs" / name, self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        run = start(self.nodes, curate(self.nodes, self.footage, root), log)
        while not (root / "logs" / "events.jsonl").exists() and run.process.poll() is None:
            time.sleep(0.02)
        began = time.monotonic()
        code, _ = run.end()
        if code:
            raise RuntimeError(f"the unbroken run ended with {code}: {run.said[-500:]}")
        return Published.of(root), time.monotonic() - began

    # ---- a trial -----------------------------------------------------------------------------------------------------

    def trial(self, fault: Fault, number: int) -> Row:
        """A run, the fault at a random moment of it, the same command again, and a comparison."""
        chance = random.Random(f"{self.seed}-{number}-{fault.name}")
        row = Row(fault.name, chance.uniform(0, self.span_s))
        self._repair()
        if fault.name == "replaced":
            self.other = self.other or self._replaced(fault, chance)
        root = self._root(fault, number)
        log = self.folder / f"{number:02d}-{fault.name}.log"
        store = self.store if self._stores else None
        trial = Trial(self.nodes, self.footage, root, None, chance, row.moment_s, self.same, log, self.disk, store)
        for old in self.folder.glob(f"{trial.log.stem}.*"):
            old.unlink()
        try:
            self._first(fault, trial, row)
            self._repair(footage=False)
            self._again(fault, trial, row)
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            row.wrong.append(f"the table itself: {type(error).__name__}: {error}"[:300])
        finally:
            row.wrong += trial.wrong
            row.notes += trial.notes
            row.stage = trial.stage
            if fault.name == "replaced":
                self.restore()
            if not row.wrong and "://" not in root:
                shutil.rmtree(root, ignore_errors=True)
        self.rows.append(row)
        return row

    def _root(self, fault: Fault, number: int) -> str:
        if fault.where == "store":
            return self.store.address(f"run-{number}")
        return str((self.disk if fault.where == "disk" else self.folder / "runs") / f"{number:02d}-{fault.name}")

    def _replaced(self, fault: Fault, chance: random.Random) -> Published:
        fault.do(Trial(self.nodes, self.footage, "", None, chance, 0, self.same, self.folder / "x", self.disk))
        found, _ = self._reference("replaced")
        self.restore()
        return found

    def _first(self, fault: Fault, trial: Trial, row: Row) -> None:
        began = time.monotonic()
        if fault.name == "service":
            self._served(trial, row)
        else:
            trial.run = start(self.nodes, curate(self.nodes, self.footage, trial.root), trial.log)
            trial.wait()
            fault.do(trial)
            row.code, _ = trial.run.end()
            said = trial.run.said
            if row.code == HANGS:
                row.wrong.append("the run hangs")
            if ABORTED in said or "Traceback" in said:
                row.wrong.append(f"no sentence but {said[-200:]!r}")
            if row.code != 0 and not fault.ends and trial.stage != "start":
                row.wrong.append(f"the run ended with {row.code}: {said.strip().splitlines()[-1:]}")
            if row.code not in (0, HANGS) and fault.ends and fault.name != "driver":
                row.notes.append((said.strip().splitlines() or ["nothing was said"])[-1][:160])
        row.seconds = time.monotonic() - began
        if row.code == 0 and fault.name not in ("replaced", "away", "two"):
            self._compare(fault, trial, row, "after the first")

    def _served(self, trial: Trial, row: Row) -> None:
        name = Path(trial.root).name
        service = Service(self.nodes, Path(trial.root).parent, self.footage, trial.log)
        trial.run = service.up()
        job = service.submit(name)
        trial.wait()
        trial.run.process.kill()
        trial.run.process.wait()
        after = service.up()
        found = service.end(job)
        after.process.terminate()
        after.process.wait(20)
        row.code = found["exit_code"]
        if found["state"] != "succeeded":
            row.wrong.append(f"the job is {found['state']}: {found['said']}")

    def _again(self, fault: Fault, trial: Trial, row: Row) -> None:
        again = start(self.nodes, curate(self.nodes, self.footage, trial.root), trial.log.with_suffix(".again"))
        row.again, _ = again.end()
        if row.again != 0:
            last = (again.said.strip().splitlines() or [""])[-1]
            row.wrong.append(f"the same command again ended with {row.again}: {last[-300:]}")
            return
        self._compare(fault, trial, row, "after the second")

    def _compare(self, fault: Fault, trial: Trial, row: Row, when: str) -> None:
        same = self.other if fault.name == "replaced" else self.same
        differs = same.differs(Published.of(trial.root))
        if differs:
            row.wrong.append(f"{when}: {differs}")

    def _repair(self, footage: bool = True) -> None:
        """What a fault may have left: nodes that are gone, films elsewhere."""
        if not self.nodes.alive(self.nodes.head):
            for node in self.nodes.nodes:
                self.nodes.kill(node)
        for node in self.nodes.nodes:
            if not self.nodes.alive(node):
                self.nodes.up(node)
        if footage and len(list(self.footage.iterdir())) != len(list((self.folder / "films").iterdir())):
            self.restore()


def mounted(folder: Path) -> bool:
    """Mount a small disk there; False where that is not allowed."""
    subprocess.run(["umount", "-l", str(folder)], stderr=subprocess.DEVNULL, check=False)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


def draw(count: int, seed: int, names: Sequence[str]) -> Iterator[Fault]:
    """Faults in a random order, each as often as the others."""
    chance = random.Random(seed)
    known = [fault for fault in FAULTS if not names or fault.name in names]
    pile: list[Fault] = []
    for _ in range(count):
        if not pile:
            pile = chance.sample(known, len(known))
        yield pile.pop()
