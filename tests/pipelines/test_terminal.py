"""At a real terminal: a pseudo-terminal whose foreground is the command, as a shell starts it."""

from __future__ import annotations

import re
import sys

import pytest

from rushes.curation.manifest import open_run
from tests.pipelines.commands import alive, curate_command, descendants, finish, wait_until
from tests.terminal import CTRL_C, ROWS, Terminal

pyte = pytest.importorskip("pyte")
BAR = re.compile(r"^(\w[\w:, ]*?)\s.*?(\d+)/(\d+)")
RUSHES = (sys.executable, "-m", "rushes.pipelines.cli")
STRETCHED = 140  # columns: no table of ours needs more


def lines(output: bytes, columns: int) -> list[str]:
    """What a person sees in the end, what has scrolled away included."""
    screen = pyte.HistoryScreen(columns, ROWS, history=10_000)
    pyte.ByteStream(screen).feed(output)
    gone = ["".join(line[x].data for x in range(columns)) for line in screen.history.top]
    return [line.rstrip() for line in [*gone, *screen.display]]


@pytest.mark.timeout(400)
def test_curate_at_a_terminal_stopped_by_ctrl_c_goes_on_and_is_readable_at_40_columns(footage_folder, tmp_path):
    folder, _ = footage_folder
    films = [str(folder / name) for name in ("hard_cuts.mp4", "portrait.mp4", "not_a_video.mp4")]
    command = curate_command(films, tmp_path / "run")

    with Terminal(command, columns=200) as terminal:
        assert terminal.wait(until=lambda: bool(list((tmp_path / "run").glob("work/**/*.parquet")))) is None
        below = descendants(terminal.process.pid)
        terminal.press(CTRL_C)
        assert terminal.wait(60) == 130
        seen = lines(terminal.output, 200)
        assert [line for line in seen if "the same command goes on" in line] and "Traceback" not in terminal.text
        assert terminal.text.index("Stopping ...") < terminal.text.index("the same command goes on")
        assert seen[0].startswith("Starting ") and BAR.match(seen[1]) and seen[1].startswith("probe ")
    assert wait_until(lambda: not [p for p in alive(below) if b"rushes" in command_of(p[0])], 30)

    with Terminal(command, columns=40) as terminal:
        assert terminal.wait() == 0
        seen = lines(terminal.output, 40)
    bars = [found.groups() for line in seen if (found := BAR.match(line))]
    assert len(bars) >= 5 and all(done == total for _, done, total in bars), "every stage ends on a line of its own"
    assert not [line for line in seen if "…" in line], "nothing is cut"
    assert [line for line in seen if re.match(r"pretrain-256 +\d+ +\d", line)]
    run = open_run(str(tmp_path / "run"))
    assert run.record["funnel"]["sources"]["ok"] == 2 and run.record["funnel"]["clips"][-1]["remaining"]


@pytest.mark.parametrize("columns", [40, pytest.param(60, marks=pytest.mark.heavy)])
def test_why_and_judge_break_no_word_on_a_narrow_terminal(curated, columns):
    row = curated.run.table("clips").to_pylist()[0]
    for words in (
        ["why", row["clip_id"]],
        ["why", "hard_cuts.mp4"],
        ["judge", "--set", "motion.vmaf_min=3", "--dry-run"],
    ):
        with Terminal([*RUSHES, words[0], str(curated.root), *words[1:]], columns) as terminal:
            assert terminal.wait() == 0
            seen = lines(terminal.output, columns)
        assert not [line for line in seen if "…" in line], "nothing is cut"
        text = "\n".join(seen)
        if words[0] == "why" and words[1] == row["clip_id"]:
            assert "motion.slideshow_max" in text and all(word in text.split() for word in row["caption"].split())
        else:
            assert "scenes.duration_min_s" in text


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_funnel_fits_every_terminal_and_is_not_stretched_over_a_wide_one(curated, columns):
    with Terminal([*RUSHES, "funnel", str(curated.root)], columns) as terminal:
        assert terminal.wait() == 0
        seen = lines(terminal.output, columns)
    rules = [line for line in seen if re.match(r"(scenes|visual|motion|content)\.\w+ .*-\d+ +\d+", line)]
    assert rules and max(map(len, rules)) <= min(columns, STRETCHED)
    assert not [line for line in seen if "…" in line], "nothing is cut"


def command_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_without_a_terminal_lines_are_not_broken_and_nothing_is_drawn(curated):
    code, out, _ = finish([*RUSHES, "funnel", str(curated.root)])
    assert code == 0 and "\x1b" not in out
    assert "not_a_video.mp4  this is not a video" in out


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_the_demo_runs_at_a_terminal(tmp_path):
    with Terminal([*RUSHES, "demo", str(tmp_path / "run"), "--no-train"], columns=200) as terminal:
        assert terminal.wait(500) == 0
        seen = "\n".join(lines(terminal.output, 200))
    assert re.search(r"\d+ of \d+ clips kept", seen) and (tmp_path / "run" / "report.html").is_file()
