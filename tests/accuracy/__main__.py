"""`python -m tests.accuracy [SIGNAL ...] [--footage FOLDER] [--write]`: how often each signal is wrong, in one table.

A signal is a module of this folder with `measure(bench: Bench) -> list[Row]`; its name is the module's.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import time
from pathlib import Path

from tests.accuracy import table
from tests.accuracy.made import Bench

FOLDER = Path(os.environ.get("RUSHES_ACCURACY", "runs/accuracy"))


def signals() -> list[str]:
    """Names of the modules that measure a signal, in order."""
    names = sorted(found.name for found in pkgutil.iter_modules([str(Path(__file__).parent)]) if found.name[0] != "_")
    return [name for name in names if hasattr(importlib.import_module(f"tests.accuracy.{name}"), "measure")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("signals", nargs="*", metavar="SIGNAL", help="default: all")
    parser.add_argument("--footage", type=Path, help="a folder of videos that labels.csv knows")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where made files go and stay")
    parser.add_argument("--write", action="store_true", help="write the table into docs/accuracy.md")
    words = parser.parse_args()
    from rushes.curation.video import decode

    decode.quiet()
    known = signals()
    if strange := [name for name in words.signals if name not in known]:
        raise SystemExit(f"no signal '{strange[0]}'; there are: {', '.join(known)}")
    bench, rows = Bench(words.folder, words.footage), []
    for name in words.signals or known:
        began = time.process_time()
        found = importlib.import_module(f"tests.accuracy.{name}").measure(bench)
        rows += found
        print(f"{name}: {len(found)} figures, {time.process_time() - began:.0f} s of CPU time", flush=True)
    print("\n".join(table.lines([row.cells() for row in rows])))
    if words.write:
        table.write(rows, known)


if __name__ == "__main__":
    main()
