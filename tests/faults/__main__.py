"""The fault table: `make faults`, or `python -m tests.faults [--runs N] [--only KIND]`; `... media` for damaged files.

It takes about half a minute a run on two cores. docs/faults.md has the last one and what is promised.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

from tests.faults.kinds import FAULTS
from tests.faults.table import Row, Table, draw


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("cluster", "media"), default="cluster")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--only", action="append", default=[], choices=[fault.name for fault in FAULTS])
    parser.add_argument("--minutes", type=float, default=120, help="no further run is begun after so long")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--files", type=int, default=500, help="damaged media files")
    parser.add_argument("--folder", type=Path, default=Path("runs/faults"))
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if args.what == "media":
        from tests.faults.media import main as media

        return media(folder, args.files, args.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is ended first
    began = time.monotonic()
    stores = any(fault.where == "store" and (not args.only or fault.name in args.only) for fault in FAULTS)
    with Table(folder, args.nodes, args.seed, stores) as table:
        print(f"{args.nodes} nodes, {'network namespaces' if table.nodes.apart else 'one network'}; an unbroken run "
              f"takes {table.span_s:.1f} s", flush=True)  # fmt: skip
        for number, fault in enumerate(draw(args.runs, args.seed, args.only)):
            if time.monotonic() - began > 60 * args.minutes:
                break
            print(f"{number + 1:2} {table.trial(fault, number).line()}", flush=True)
        print(f"\n{summary(table.rows)}\n{time.monotonic() - began:.0f} s")
        return int(any(row.wrong for row in table.rows))


def summary(rows: list[Row]) -> str:
    """The table by kind, as Markdown."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.fault].append(row)
    lines = [
        "| fault | runs | finished by itself | the same command resumed it | same tables |",
        "|---|---|---|---|---|",
    ]
    for fault in FAULTS:
        some = by_name[fault.name]
        if some:
            first = sum(row.code == 0 for row in some)
            sound = sum(not row.wrong for row in some)
            lines.append(f"| {fault.what} | {len(some)} | {first} | {len(some) - first} | {sound} of {len(some)} |")
    sound = sum(not row.wrong for row in rows)
    lines.append(f"| all | {len(rows)} | {sum(r.code == 0 for r in rows)} | {sum(r.code != 0 for r in rows)} | "
                 f"{sound} of {len(rows)} |")  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
