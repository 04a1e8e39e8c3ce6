"""The command `rushes`, from its first moment on: a signal while its modules are imported is no traceback either."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """What the installed script calls."""
    try:
        from rushes.pipelines.cli.main import main as command
    except KeyboardInterrupt:
        sys.stderr.write("rushes: Stopped before it began.\n")
        sys.stderr.flush()
        os._exit(130)
    command()
