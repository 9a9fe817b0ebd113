"""One small audit, run once by the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.everyday.cohorts import write_audit


def fmaudit(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command as people call it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("FMAUDIT_CONFIG", "DAGSTER_HOME")}
    return subprocess.run(
        [sys.executable, "-m", "fmaudit_dagster.cli", *map(str, arguments)],
        check=False, capture_output=True, text=True, cwd=cwd, env=environment,
    )  # fmt: skip


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of an audit whose ids can be recognised, and what its run said."""
    folder = tmp_path_factory.mktemp("planted")
    write_audit(folder)
    return folder, fmaudit("-c", folder / "audit.yaml", "run")
