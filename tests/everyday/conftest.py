"""One small audit, run once by the command line in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.everyday.cohorts import studies, vectors, write_audit, write_embeddings, write_spec
from tests.made_once import made_once


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

    def make(folder: Path) -> subprocess.CompletedProcess[str]:
        write_audit(folder)
        return fmaudit("-c", folder / "audit.yaml", "run")

    return made_once(tmp_path_factory, "planted", make)


@pytest.fixture(scope="session")
def worse(planted, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The same audit once more, its encoder now blind to what men have, with a gate that counts; and what the run said."""
    folder = tmp_path_factory.mktemp("worse") / "audit"
    shutil.copytree(planted[0], folder)
    table = studies()
    write_embeddings(folder / "theirs.npz", table["study_id"], vectors(table, blind_to_men=True))
    write_spec(folder / "encoders", folder / "theirs.npz")
    changed = yaml.safe_load((folder / "audit.yaml").read_text())
    changed |= {"mitigation": {"enabled": False}, "reaudit": {"severity": "error"}}
    (folder / "audit.yaml").write_text(yaml.safe_dump(changed))
    return folder, fmaudit("-c", folder / "audit.yaml", "run")
