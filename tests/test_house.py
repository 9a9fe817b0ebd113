"""Rules of the house, told by name when one is broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def loaded_after(code):
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return {name.split(".")[0] for name in out.stdout.splitlines()}


def test_core_knows_nothing_of_dagster():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted((ROOT / "fmaudit_core").rglob("*.py"))
        if path.stem != "__init__"
    ]
    assert "dagster" not in loaded_after("\n".join(f"import {name}" for name in modules))


def test_the_arrow_points_one_way_inside_core():
    """cohort, imaging, encoders -> probes -> fairness -> mitigation -> paper -> report, never back."""
    order = {
        "cohort": 0,
        "ehr": 0,
        "imaging": 0,
        "encoders": 0,
        "probes": 1,
        "fairness": 2,
        "mitigation": 3,
        "paper": 4,
        "report": 5,
    }
    for path in sorted((ROOT / "fmaudit_core").rglob("*.py")):
        room = path.relative_to(ROOT / "fmaudit_core").parts[0]
        for line in path.read_text().splitlines():
            if line.startswith(("from fmaudit_core.", "import fmaudit_core.")) and room in order:
                target = line.split("fmaudit_core.")[1].split(".")[0].split(" ")[0]
                assert order.get(target, -1) <= order[room], f"{path.name}: {line}"


def test_every_yaml_in_the_tree_parses():
    found = [path for path in ROOT.rglob("*.y*ml") if not {".venv", "demo"} & set(path.parts)]
    assert len(found) >= 5
    for path in found:
        yaml.safe_load(path.read_text())


def test_only_the_config_reads_the_environment():
    for path in sorted((ROOT / "fmaudit_core").rglob("*.py")):
        if path.parts[-2:] != ("config", "environment.py"):
            assert "os.environ" not in path.read_text(), (
                f"{path} reads the environment: give it to config/environment.py"
            )


def test_definitions_load_without_an_audit(tmp_path):
    code = f"import os; os.chdir({str(tmp_path)!r}); os.environ.pop('FMAUDIT_CONFIG', None)\n"
    assert "dagster" in loaded_after(f"{code}from fmaudit_dagster.definitions import defs")
