"""The command line as people meet it: help, errors as paragraphs, exit codes, and a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_dagster.cli.main import main
from tests.ct_files import write_series
from tests.platform.conftest import AUDIT, run_prepared, write_audit


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize(
    "command",
    [[], *([name] for name in sorted(main.commands)), ["encoders", "list"], ["encoders", "add"], ["encoders", "check"]],
)
def test_every_command_has_help(command):
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) > 4


def test_help_loads_nothing_heavy():
    code = (
        "import sys, fmaudit_dagster.cli; "
        "sys.exit(bool({'torch', 'dagster', 'polars', 'numba', 'plotly'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_an_audit_it_says_what_to_do(tmp_path):
    result = call("-c", tmp_path / "audit.yaml", "run")
    assert result.exit_code == 2
    assert "fmaudit init" in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cohort": {"kind": "magic"}}, "cohort"),
        ({"qqq": "red"}, "qqq: unknown setting"),
        ({"task": ["pe"]}, "task (did you mean tasks?): unknown setting"),
        ({"fairness": {"alfa": 0.1}}, "fairness.alfa (did you mean fairness.alpha?): unknown setting"),
        ({"cohort": {"kind": "table"}}, "cohort.table: is missing"),
        ({"cohort": {"kind": "table", "table": "x.csv", "evnts": "y"}}, "cohort.evnts (did you mean cohort.events?)"),
        ({"age_bands": ["18-40", "30-50"]}, "overlap"),
        ({"fairness": {"alpha": 2}}, "fairness.alpha"),
        ({"tasks": ["a|b"]}, "is not a valid name"),
        ({"probes": {"modalities": ["ehr"]}}, "modalities must include ct"),
        ({"probes": {"modalities": ["ct", "ct+ehr"]}}, "and ehr if it includes ct+ehr"),
        ({"ehr": {"windows_days": [30, 30]}}, "distinct whole numbers"),
        ({"ehr": {"cutoff": "none"}}, "ehr.cutoff"),
    ],
)
def test_a_wrong_audit_is_told_by_its_key(tmp_path, change, said):
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(AUDIT | change))
    result = call("-c", tmp_path / "audit.yaml", "run")
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")


def test_series_tells_one_object_per_series_and_draws_it(tmp_path, monkeypatch):
    # the rules for series are those of the process's audit, which other tests have set
    monkeypatch.delenv("FMAUDIT_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    write_series(tmp_path / "ct")
    result = call("series", tmp_path / "ct", "--json", "--png", tmp_path / "ct.png")
    assert result.exit_code == 0
    (facts,) = json.loads(result.output)
    assert set(facts) >= {
        "status", "reason", "flags", "series_uid", "n_slices", "shape_zyx", "spacing_zyx_mm", "hu_min", "hu_max",
        "hu_mean", "transfer_syntaxes",
    }  # fmt: skip
    assert facts["shape_zyx"] == [6, 32, 32]
    assert (tmp_path / "ct.png").read_bytes().startswith(b"\x89PNG")
    assert call("series", tmp_path / "nowhere").exit_code == 1


def cohort_table(folder, **changes):
    n = 30
    frame = pl.DataFrame(
        {
            "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i}" for i in range(n)],
            "split": [("train", "val", "test")[i % 3] for i in range(n)],
            "age": [20 + 2 * i for i in range(n)],
            "sex": ["female", "male"] * 15,
            "race_ethnicity": ["a", "b", "c"] * 10,
            "pe": [(i // 3) % 2 for i in range(n)],
        }
    ).with_columns(**changes)
    frame.write_csv(folder / "cohort.csv")
    for i in range(n):
        write_series(folder / "ct" / f"s{i}")


def test_init_checks_a_table_at_once(tmp_path):
    cohort_table(tmp_path)
    config = tmp_path / "audit.yaml"
    options = ("init", "--table", tmp_path / "cohort.csv", "--images", tmp_path / "ct", "--task", "pe")
    result = call("-c", config, *options)
    assert result.exit_code == 0, result.output
    assert "30 studies of 30 patients are valid" in result.output
    assert open_workspace(config).audit.tasks == ("pe",)
    assert call("-c", config, *options).exit_code == 2  # there is one already


def test_init_refuses_a_wrong_table_and_leaves_nothing(tmp_path):
    cohort_table(tmp_path, age=pl.lit(500))
    config = tmp_path / "audit.yaml"
    result = call("-c", config, "init", "--table", tmp_path / "cohort.csv", "--images", tmp_path / "ct", "--task", "pe")
    assert result.exit_code == 1
    assert "an age outside 0 to 120" in result.stderr.replace("\n", " ")
    assert not config.exists()


def test_sql_and_encoders_and_report(audited):
    config = audited[0].audit_yaml
    result = call("-c", config, "sql", "SELECT count(*) AS n FROM studies")
    assert "150" in result.output
    assert "threshold_sweep" in call("-c", config, "sql").output
    # a row of 28 columns in a table would be broken in every cell
    wide = call("-c", config, "sql", "FROM audit_findings ORDER BY ALL LIMIT 2").output
    assert [line.split()[0] for line in wide.splitlines() if line].count("encoder") == 2
    assert wide.count("\nverdict  ") == 2
    many = call("-c", config, "sql", "SELECT range AS n FROM range(300)")
    assert "300 rows, of which 200 are shown" in many.stderr
    assert "the query failed" in call("-c", config, "sql", "SELECT nothing").stderr
    listed = call("-c", config, "encoders", "list").output
    assert "hu_histogram" in listed
    shipped = next(line for line in listed.splitlines() if line.startswith("Shipped, not registered: "))
    assert {"efficientnet_lite1", "efficientnet_lite2"} <= set(shipped.replace(",", "").split())
    assert call("-c", config, "report").output.strip().endswith("index.html")


def tables(workspace):
    """Rows of every result table and of the embeddings, without what tells versions and paths."""
    warehouse = workspace.warehouse
    return {
        (name, str(cell)): warehouse.read(name, cell)
        for name in warehouse.tables()
        if name not in ("ct_views", "report_files")
        for cell in warehouse.cells(name)
    }


def test_killed_at_several_moments_it_ends_with_the_same_tables(tmp_path):
    fewer = {"tasks": ["pe"], "mitigation": {"enabled": False}}  # neither is worked on at any of the moments
    reference = write_audit(tmp_path / "undisturbed", **fewer)
    assert run_prepared(reference).failures == {}
    workspace = write_audit(tmp_path / "killed", **fewer)
    command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(workspace.audit_yaml), "run", "--jobs", "2"]

    def appears(top, inside, pattern, at_least):
        def there():  # os.walk passes over folders that vanish while it looks
            found = (
                path
                for path, folders, files in os.walk(workspace.home / top)
                for path in map(f"{path}/".__add__, folders + files)
            )
            return sum(inside in path and fnmatch(Path(path).name, pattern) for path in found) >= at_least

        return there

    moments = {
        "drawing": appears("phantom", "/ct/", "study-*", 40),
        "slicing": appears("slices", "/slices/", "*.slices", 60),
        "encoding": appears("extraction", "/extraction/", "shard-*.npz", 1),
        "publishing the statistics": appears("warehouse", "/fairness_gaps/", "part.parquet", 1),
    }
    for name, moment in moments.items():
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 400
            while not moment():
                assert process.poll() is None, f"it ended, and was not seen {name}"
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert process.poll() is None, f"it ended before it was killed {name}"
            os.kill(process.pid, signal.SIGKILL)
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    undisturbed, resumed = tables(reference), tables(workspace)
    assert len(undisturbed) > 40
    assert undisturbed.keys() == resumed.keys()
    for key, frame in undisturbed.items():
        if key[0] == "probe_fits":  # coefficients are lists; their scores stand in probe_predictions
            continue
        assert frame.equals(resumed[key]), key
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "nothing to do" in again.stdout
