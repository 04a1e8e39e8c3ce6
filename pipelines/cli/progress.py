"""Progress of a run on a terminal: a bar per stage; where there is no terminal, a line now and then with the same."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from rushes.pipelines.engine.events import Event
from rushes.pipelines.view.words import hours

LINE_EVERY_S = 15.0  # seconds between lines where there is no terminal
NARROW = 70  # columns below which a bar has no room
FOOTAGE_FROM_S = 1.0


class _Rate(ProgressColumn):
    """Footage a second, time left, errors so far."""

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("said", ""), style="dim", overflow="ellipsis", no_wrap=True)


class Terminal:
    """Listener of a run's events (`engine.events`); a context that draws while it is open."""

    def __init__(self, console: Console) -> None:
        self._console, self._live = console, console.is_terminal
        narrow = console.width < NARROW
        columns: list[ProgressColumn] = [TextColumn("{task.description}", table_column=Column(no_wrap=True))]
        if not narrow:
            columns.append(BarColumn(bar_width=min(30, max(8, console.width - 62))))
        counts = Column(no_wrap=True, justify="right")
        columns.append(TextColumn("{task.completed:,.0f}/{task.total:,.0f}", table_column=counts))
        if not narrow:
            columns.append(_Rate(table_column=Column(ratio=1, no_wrap=True)))
        self._bars = Progress(*columns, console=console, disable=not self._live, expand=not narrow)
        self._tasks: dict[str, TaskID] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Terminal:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        if event.kind == "note":
            return
        if event.kind == "begin" and self._live:
            self._console.print("Starting the workers ...", style="dim", highlight=False)
        if event.kind in ("stage", "progress", "stage_end"):
            if self._live:
                self._draw(event)
            else:
                self._print(event)

    def _draw(self, event: Event) -> None:
        if event.stage not in self._tasks:
            self._tasks[event.stage] = self._bars.add_task(event.stage, total=event.total)
        self._bars.update(self._tasks[event.stage], total=event.total, completed=event.done, said=said(event))

    def _print(self, event: Event) -> None:
        due = event.kind == "progress" and time.monotonic() - self._last_line > LINE_EVERY_S
        if due or (event.kind == "stage_end" and event.total):
            self._last_line = time.monotonic()
            more = said(event)
            self._console.print(
                f"{event.stage}: {event.done:,} of {event.total:,} {event.unit}{', ' + more if more else ''}",
                highlight=False, soft_wrap=True,
            )  # fmt: skip


def said(event: Event) -> str:
    """How fast, how long yet, what went wrong, in a few words: '38 x real time, 2 min left, 1 error'."""
    seconds = float(event.data.get("seconds", 0.0))
    words = []
    if event.footage_s >= FOOTAGE_FROM_S and seconds > 0:
        words.append(f"{event.footage_s / seconds:.3g} s of footage a second")
    if event.kind == "stage_end":
        words.append(f"{seconds:.1f} s")
    elif 0 < event.done < event.total and seconds > 1:
        share = event.footage_s / event.footage_total_s if event.footage_total_s else event.done / event.total
        if share > 0:
            words.append(f"{hours(seconds * (1 - share) / share)} left")
    errors = sum(event.errors.values())
    if errors:
        words.append(f"{errors:,} error{'s' * (errors != 1)}")
    return ", ".join(words)
