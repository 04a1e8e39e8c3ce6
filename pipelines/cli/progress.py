"""Progress of a run: a bar per stage on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 15.0  # seconds between lines where there is no terminal


class Stages:
    """`stages.total("look", 5)`, `stages.step("look")`; times per stage are kept for the commit record."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description:<34}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"), console=console, disable=not self._live,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._totals: dict[str, int] = {}
        self._began: dict[str, float] = {}
        self.times_s: dict[str, float] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Stages:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def total(self, stage: str, total: int, note: str = "") -> None:
        self._totals[stage] = total
        self._began.setdefault(stage, time.monotonic())
        self._done.setdefault(stage, 0)
        if stage in self._tasks:
            self._bars.update(self._tasks[stage], total=total, note=note)
        else:
            self._tasks[stage] = self._bars.add_task(stage, total=total, note=note)

    def step(self, stage: str, note: str = "") -> None:
        self._done[stage] += 1
        self._bars.update(self._tasks[stage], advance=1, note=note)
        self.times_s[stage] = round(time.monotonic() - self._began[stage], 3)
        if not self._live and time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._console.print(f"{stage}: {self._done[stage]} of {self._totals[stage]}")

    def done(self, *stages: str) -> None:
        """Say that stages have ended, where no bar shows it."""
        for stage in stages:
            if not self._live and self._totals.get(stage):
                seconds = self.times_s.get(stage, 0.0)
                self._console.print(f"{stage}: {self._done[stage]} of {self._totals[stage]} in {seconds:.1f} s")
