"""The command line in this process: what it prints, and how it refuses."""

from __future__ import annotations

import sys

import pytest

from rushes.pipelines.cli import main as cli


@pytest.fixture
def rushes(monkeypatch, capsys):
    """rushes("funnel", "RUN") -> (exit code, stdout, stderr), in this process."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rushes", *map(str, words)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture
def refused(rushes):
    """Calls that must end with exit code 2 and one sentence, which is returned."""

    def call(*words: object) -> str:
        code, _, said = rushes(*words)
        assert code == 2, said
        assert "Traceback" not in said
        assert len(said.strip().splitlines()) == 1, said
        return said

    return call
