"""How a command ends: a sentence and an exit code for whatever stops it, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from rushes.pipelines.cli.terminal import STOPPED, fail, nowhere, own_streams, stderr, tell, utf8_names
from rushes.pipelines.engine import signals

PIPE_CLOSED = 141  # exit code where the reader of what is printed has gone: 128 and SIGPIPE's number
LASTING = ("curate", "demo", "encode", "images", "train", "ablate", "fit")  # commands that go on where they stopped


class Interrupted(BaseException):
    """A signal asked the command to stop. Typer takes KeyboardInterrupt for its own."""


class ReaderGone(BaseException):
    """Nobody reads what is printed any more. The argument: the command's name."""


class Commands(TyperGroup):
    """The commands, with the two endings that Typer would answer without a word: a signal, a reader that is gone."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error
        except BrokenPipeError as error:
            raise ReaderGone(ctx.invoked_subcommand) from error


def run_to_its_end(app: typer.Typer) -> None:
    """The command that the process was started with."""
    utf8_names()
    own_streams()
    with signals.heeded(_say_stopping):
        try:
            _run(app)
        except (KeyboardInterrupt, Interrupted):
            signals.stopping()
            _exit(STOPPED, signals.exit_code())
        except (BrokenPipeError, ReaderGone) as gone:
            nowhere()
            if not {*LASTING} & {*gone.args}:
                raise SystemExit(PIPE_CLOSED) from None
            _exit("what was printed has no reader any more. " + STOPPED, PIPE_CLOSED)


def _say_stopping() -> None:
    if stderr.is_terminal:
        tell("\nStopping ... (Ctrl-C again ends it at once)", "yellow", stderr)


def _run(app: typer.Typer) -> None:
    from rushes.curation.manifest import ManifestError
    from rushes.curation.recipe import RecipeError
    from rushes.curation.video.inputs import InputError

    try:
        os.getcwd()
    except OSError:
        _exit("the folder that this was started in does not exist any more; change to one that does.")
    try:
        app(standalone_mode=True)
        sys.stdout.flush()
    except (RecipeError, ManifestError, InputError) as error:
        _exit(str(error))
    except RuntimeError as error:
        _stopped_run(error)
    except OSError as error:
        if error.filename is not None and error.strerror:
            _exit(f"{os.fsdecode(error.filename)}: {error.strerror}.")
        if error.errno == errno.ENOENT:  # pyarrow's, which has no name of its own
            _exit(f"{_first_line(error)}; `rushes verify RUN` says which files of a run are missing.")
        if error.errno != errno.ENOSPC:
            raise
        nowhere()
        _exit(f"what is printed cannot be written: {error.strerror}.")
    except ValueError as error:
        if not type(error).__module__.startswith("pyarrow"):
            raise
        _exit(
            f"a table cannot be read ({_first_line(error)}); `rushes verify RUN` says which files of a run are damaged."
        )


def _stopped_run(error: RuntimeError) -> NoReturn:
    """The engine's errors, by name: their modules import Ray."""
    kind = type(error).__name__
    if kind not in ("StopRun", "ClusterLost"):
        raise error
    try:
        _exit(str(error))
    finally:
        if kind == "ClusterLost":  # what Ray does at exit would wait for the cluster
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(2)


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].removeprefix(f"[Errno {errno.ENOENT}] ").split(". Detail")[0]


def _exit(sentence: str, code: int = 2) -> NoReturn:
    try:
        fail(sentence, code)
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from None
