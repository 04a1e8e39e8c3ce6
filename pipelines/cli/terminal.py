"""What all commands share of the terminal: the two consoles, how a request is refused, whose the keyboard is."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer
from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 120  # columns of what is printed into a file or a pipe

console = Console(width=None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL)
stderr = Console(stderr=True)


def fail(sentence: str, code: int = 2) -> NoReturn:
    stderr.print(f"rushes: {sentence}", style="bold red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def own_stdin() -> None:
    """Give this process, and so everything that it starts, an empty standard input in place of the terminal's.

    No command reads it. A program that sets the terminal up (FFmpeg does, PySceneDetect runs it when it is imported)
    stops its process for good where that is in the background of the terminal, as Ray's workers are.
    """
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    if empty != 0:
        os.close(empty)
