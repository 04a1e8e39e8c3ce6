"""The service under many concurrent readers: latencies of the funnel and of a histogram of a run of a million clips.

    python -m tests.bench.service [--clips 1000000] [--readers 200] [--seconds 20]

Readers ask one request after the other over kept connections, from one process on the same machine. A bare ASGI
application that answers `{}` from the same server is the yardstick of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PATHS = ("/api/v1/runs/large/funnel", "/api/v1/runs/large/histograms/vmaf_motion")
YARDSTICK = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
"""


async def _reader(port: int, paths: tuple[str, ...], until: float, times: list[float], failed: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = 0
    while turn == 0 or time.perf_counter() < until:
        began = time.perf_counter()
        writer.write(f"GET {paths[turn % len(paths)]} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - began)
        if b" 200 " not in head.split(b"\r\n")[0]:
            failed.append(head.split(b"\r\n")[0].decode())
        turn += 1
    writer.close()


async def _load(port: int, paths: tuple[str, ...], readers: int, seconds: float) -> dict[str, float | int]:
    times: list[float] = []
    failed: list[str] = []
    until = time.perf_counter() + seconds
    await asyncio.gather(*(_reader(port, paths, until, times, failed) for _ in range(readers)))
    p50, p99 = np.percentile(np.array(times) * 1000, [50, 99])
    return {"requests": len(times), "per_s": round(len(times) / seconds), "p50_ms": round(float(p50), 1),
            "p99_ms": round(float(p99), 1), "errors": len(failed)}  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _measure(command: list[str], port: int, paths: tuple[str, ...], readers: int, seconds: float) -> dict[str, object]:
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        first = [asyncio.run(_load(port, (path,), 1, 1e-6))["p99_ms"] for path in paths]  # nothing is kept yet
        return {"first_ms": first, **asyncio.run(_load(port, paths, readers, seconds))}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--readers", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    chosen = parser.parse_args()
    from tests.pipelines.large_run import make_large_run

    with tempfile.TemporaryDirectory() as folder:
        make_large_run(Path(folder) / "runs" / "large", chosen.clips)
        port = _free_port()
        bare = [sys.executable, "-c", YARDSTICK, str(port)]
        print("yardstick", json.dumps(_measure(bare, port, ("/",), chosen.readers, chosen.seconds / 2)))
        port = _free_port()
        serve = [
            sys.executable,
            "-m",
            "rushes.pipelines.cli",
            "serve",
            f"{folder}/runs",
            "--port",
            str(port),
            "--rate",
            "1e6",
        ]
        print("service  ", json.dumps(_measure(serve, port, PATHS, chosen.readers, chosen.seconds)))


if __name__ == "__main__":
    main()
