"""A run killed at any moment and started again ends as if nothing had happened, and repeats only what was in flight."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rushes.curation.manifest import ManifestError, open_run
from tests.pipelines.commands import at_work, curate_command, descendants, finish, start, wait_until

ORPHANS_GONE_S = 30.0  # seconds after which nothing of a killed run may work on
MOMENTS = {"observe": "work/observe/*/*.parquet", "look": "work/look/*/*/*.parquet", "cut": "media/*/*/*.mp4"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")


@dataclass
class Killed:
    """What was seen of a run that was killed at three moments, each time started again, and then left to end."""

    root: Path
    left: dict[str, dict[Path, tuple[int, int]]] = field(default_factory=dict)  # records after each kill
    was_running: dict[str, bool] = field(default_factory=dict)
    orphans: dict[str, list[str]] = field(default_factory=dict)
    opened: dict[str, str] = field(default_factory=dict)  # what a reader was told after each kill
    second: tuple[int, str, str] | None = None  # another run into the folder while the first was at work
    code: int | None = None


def records(root: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every whole record and clip below a run."""
    folders = ("work/sources", "work/observe", "work/look", "media")
    files = [p for folder in folders for p in (root / folder).rglob("*") if p.is_file()]
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in files if p.suffix != ".tmp"}


@pytest.fixture(scope="module")
def killed(curated, tmp_path_factory) -> Killed:
    root = tmp_path_factory.mktemp("killed") / "run"
    seen = Killed(root)
    command = curate_command(curated.inputs, root)
    for moment, pattern in MOMENTS.items():
        there = set(root.glob(pattern))
        process = start(command)
        if seen.second is None:
            assert wait_until(lambda: (root / ".lock").exists())
            assert wait_until(lambda: (root / "work").exists())
            seen.second = finish(command)
        wait_until(lambda p=pattern, old=there, run=process: set(root.glob(p)) - old or run.poll() is not None)
        below = descendants(process.pid)
        seen.was_running[moment] = process.poll() is None and bool(below)
        process.kill()
        process.communicate()
        wait_until(lambda below=below: not at_work(below), ORPHANS_GONE_S, every_s=0.1)
        seen.orphans[moment] = at_work(below)
        seen.left[moment] = records(root)
        with pytest.raises(ManifestError) as told:
            open_run(str(root))
        seen.opened[moment] = str(told.value)
    (root / "work" / "sources" / "half.parquet.0000.tmp").write_bytes(b"PAR1 and no more")
    seen.code, _, _ = finish(command)
    return seen


def test_the_run_was_killed_in_the_midst_of_each_stage(killed):
    assert killed.was_running == dict.fromkeys(MOMENTS, True)


def test_a_run_killed_in_every_stage_ends_with_the_tables_of_an_uninterrupted_one(killed, curated):
    assert killed.code == 0
    run = open_run(str(killed.root))
    assert run.tables == curated.run.tables
    for name in run.tables:
        assert run.table(name).equals(curated.run.table(name)), f"{name} differs"
    assert run.record["funnel"] == curated.run.record["funnel"]


def test_the_clips_it_cut_are_those_of_an_uninterrupted_run_byte_for_byte(killed, curated):
    media = [m for m in curated.run.table("clips")["media"].to_pylist() if m]
    assert media
    for path in media:
        assert (killed.root / path).read_bytes() == (curated.root / path).read_bytes()


def test_what_was_done_before_a_kill_is_not_done_again(killed):
    now = records(killed.root)
    for moment, before in killed.left.items():
        assert before, f"nothing was left when the run was killed in {moment}"
        assert {path: now.get(path) for path in before} == before, f"work from before the kill in {moment} was repeated"


def test_before_it_is_published_a_run_shows_no_table_and_says_what_to_do(killed):
    for sentence in killed.opened.values():
        assert "has not finished" in sentence and "rushes curate" in sentence


def test_nothing_of_a_killed_run_keeps_running(killed):
    assert killed.orphans == {moment: [] for moment in MOMENTS}


def test_a_second_run_into_the_same_folder_is_refused_with_one_sentence(killed):
    code, _, said = killed.second
    assert code == 2
    assert "Another rushes process is writing to" in said
    assert len(said.strip().splitlines()) == 1


def test_a_finished_run_started_again_does_no_work_and_changes_no_table(killed, curated, tmp_path):
    from tests.conftest import curate_here

    before, run = records(killed.root), open_run(str(killed.root))
    again = curate_here(curated.inputs, killed.root)
    assert records(killed.root) == before
    assert all(again.table(name).equals(run.table(name)) for name in run.tables)
