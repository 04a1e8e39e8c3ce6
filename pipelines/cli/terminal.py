"""What all commands share of the terminal: the two consoles, how a request is refused, whose the keyboard is."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from collections.abc import Iterable
from typing import NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

WIDTH_WITHOUT_TERMINAL = 120  # columns of what is printed into a file or a pipe

#: Characters that a terminal obeys; lines end as they are.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

COLUMN_GAP = re.compile(" {3,}")

STOPPED = "Stopped; the same command goes on from here."


def shown(text: str, line: bool = False) -> str:
    """The text with what a terminal obeys escaped. line: it is one line, and stays one."""
    escaped = OBEYED.sub(lambda found: repr(found[0])[1:-1], text)
    return escaped.replace("\n", "\\n") if line else escaped


def fitted(text: str, width: int) -> str:
    """The lines broken between words, what goes on indented; a line that does not fit loses its columns' gaps first."""
    found = []
    for line in text.split("\n"):
        if len(line) > width:
            start = line[: len(line) - len(line.lstrip())]
            squeezed = start[: width // 8] + COLUMN_GAP.sub("  ", line.strip())
            found += textwrap.wrap(
                squeezed, width, subsequent_indent=f"{start[: width // 8]}    ", drop_whitespace=True,
                break_on_hyphens=False, replace_whitespace=False,
            )  # fmt: skip
        else:
            found.append(line)
    return "\n".join(found)


class Screen(Console):
    """A console that leaves it to the command what happens when its reader has gone."""

    def on_broken_pipe(self) -> None:
        raise

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What a name or an error holds of a terminal's commands is shown, not obeyed."""
        for segment in super().render(renderable, options):
            plain = segment.control or not OBEYED.search(segment.text)
            yield segment if plain else segment._replace(text=shown(segment.text))


console = Screen(width=None if sys.stdout is not None and sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
stderr = Screen(stderr=True)


def tell(text: str, style: str | None = None, to: Console | None = None) -> None:
    """Plain sentences: at a terminal broken between words, elsewhere a line is a line."""
    to = to or console
    lines = fitted(text, to.width) if to.is_terminal else text
    to.print(lines, style=style, highlight=False, markup=False, soft_wrap=True)


def fail(sentence: str, code: int = 2) -> NoReturn:
    try:
        tell(f"rushes: {sentence}", "bold red", stderr)
    except BrokenPipeError:  # nobody reads it: the exit code alone says what happened
        nowhere(2)
    raise typer.Exit(code)


def own_streams() -> None:
    """Give this process, and so everything that it starts, streams that cannot stop it.

    Standard input is empty: no command reads it, and a program that sets the terminal up (FFmpeg does, PySceneDetect
    runs it when it is imported) stops its process for good where that is in the background of the terminal, as Ray's
    workers are. An output that was closed leads nowhere, so that no file that is opened later takes its place. What an
    encoding cannot show is escaped.
    """
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    for number in (1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(empty, number)
    if empty > 2:
        os.close(empty)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def utf8_names() -> None:
    """Start over in UTF-8 where the locale would make names of files that are not ASCII unreadable."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)


def nowhere(stream: int = 1) -> None:
    """From here on, what is printed (2: what is said of errors) leads nowhere: whoever read it is gone."""
    empty = os.open(os.devnull, os.O_WRONLY)
    os.dup2(empty, stream)
    os.close(empty)
