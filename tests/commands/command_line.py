"""Runs the command line within the process of the tests."""

import sys
from pathlib import Path

from emitdiff import cli


def run(monkeypatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["emitdiff", *map(str, arguments)])
    return cli.main()
