"""No patient or study identifier leaves the warehouse: planted ones are looked for in everything that is written or said."""

from __future__ import annotations

import base64
import gzip
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_dagster.cli.main import main
from tests.everyday.cohorts import PLANTED, studies, vectors, write_audit, write_embeddings, write_spec
from tests.everyday.conftest import fmaudit

#: the tables themselves; whoever may read them may read the cohort
DATA = ("warehouse",)


def call(*arguments):
    """A command in this process; what it says, with what it says of errors."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


def outputs(home: Path) -> list[Path]:
    """Every file of a workspace that is no table of data."""
    return [path for path in home.rglob("*") if path.is_file() and path.relative_to(home).parts[0] not in DATA]


def texts(path: Path) -> list[bytes]:
    """A file's bytes; of a page its packed data unpacked too, of SQLite every cell."""
    content = path.read_bytes()
    found = [content]
    if path.suffix == ".html":
        packed = re.findall(rb'<script type="text/plain" id="[a-z]+">([A-Za-z0-9+/=]+)<', content)
        found += [gzip.decompress(base64.b64decode(one)) for one in packed]
    if content.startswith(b"SQLite format 3"):
        with sqlite3.connect(path) as database:  # pages of a large cell are no one piece of the file
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
                found += [str(cell).encode() for row in rows for cell in row]
        database.close()
    return found


def leaks(text: str | bytes) -> list[str]:
    """Planted ids in a text; however they are spelled there."""
    content = (text.encode() if isinstance(text, str) else text).lower()
    return [one for one in PLANTED if one.lower().encode() in content]


def test_no_output_of_an_audit_holds_an_id(planted):
    folder, said = planted
    assert said.returncode == 0, said.stderr
    files = outputs(folder / ".fmaudit")
    names = {path.name for path in files}
    assert {"index.html", "audit.json", "chai.xml", "README.md", "checklists.json", "subgroup_metrics.csv"} <= names
    assert {"runs.db", "index.db"} <= names, "Dagster's storage was not looked at"
    assert any("compute_logs" in path.parts for path in files)
    leaking = [str(path) for path in files if any(leaks(text) for text in texts(path)) or leaks(path.name)]
    assert not leaking
    assert not leaks(said.stdout + said.stderr)


def test_the_search_would_find_one(planted, tmp_path):
    """The same search, of a page, a database and a table that do hold an id."""
    page = (planted[0] / ".fmaudit/reports/index.html").read_bytes()
    packed = base64.b64encode(gzip.compress(f'{{"hover": "{PLANTED[0]}00001"}}'.encode()))
    changed = re.sub(rb'(id="data">)[A-Za-z0-9+/=]+', lambda found: found[1] + packed, page)
    (tmp_path / "index.html").write_bytes(changed)
    assert any(leaks(text) for text in texts(tmp_path / "index.html"))
    with sqlite3.connect(tmp_path / "runs.db") as database:
        database.execute("CREATE TABLE event_logs (event TEXT)")
        database.execute("INSERT INTO event_logs VALUES (?)", ["x" * 9000 + PLANTED[1]])
    database.close()
    assert any(leaks(text) for text in texts(tmp_path / "runs.db"))
    assert leaks((planted[0] / ".fmaudit/warehouse/studies/part.parquet").read_bytes())


def test_no_command_that_looks_at_an_audit_says_one(planted, tmp_path):
    config = planted[0] / "audit.yaml"
    for command in (
        ["doctor"],
        ["report"],
        ["encoders", "list"],
        ["sql", "SHOW TABLES"],
        ["encoders", "check", "theirs"],
    ):
        said = call("-c", config, *command)
        assert said.exit_code == 0, said.output
        assert not leaks(said.output), command
    said = call("report", "--compare", planted[0], planted[0], "--out", tmp_path / "compare.html")
    assert said.exit_code == 0, said.output
    assert not leaks(said.output + (tmp_path / "compare.html").read_text())


def broken_tables() -> dict[str, pl.DataFrame]:
    """Tables that are wrong in the ways that put an id where something else belongs."""
    table = studies(60).cast(pl.String)
    first = pl.int_range(pl.len()) == 3
    ids = pl.col("patient_id")
    return {
        "a patient in two splits": table.with_columns(
            split=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("train")).otherwise(pl.lit("test"))
        ),
        "a study listed twice": table.with_columns(
            study_id=pl.when(first).then(pl.col("study_id").first()).otherwise("study_id")
        ),
        "an id for an age": table.with_columns(age=pl.when(first).then(ids).otherwise("age")),
        "an id for a label": table.with_columns(pe=pl.when(first).then(ids).otherwise("pe")),
        "ids for labels": table.with_columns(pe=ids),
        "an id for a split": table.with_columns(split=pl.when(first).then(ids).otherwise(pl.lit("train"))),
        "ids for levels": table.with_columns(sex=ids),
        "an image named as an id that is not there": table.with_columns(image=ids),
        "one class only": table.with_columns(pe=pl.lit("1")),
    }


@pytest.mark.parametrize("wrong", broken_tables())
def test_an_error_about_the_cohort_names_rows_and_no_id(tmp_path, wrong):
    write_audit(tmp_path, cohort={"kind": "table", "table": "studies.csv", "images": "ct"})
    (tmp_path / "ct").mkdir()
    broken_tables()[wrong].write_csv(tmp_path / "studies.csv")
    for study in studies(60)["study_id"]:
        (tmp_path / "ct" / study).mkdir()
        (tmp_path / "ct" / study / "a.dcm").touch()
    said = call("-c", tmp_path / "audit.yaml", "doctor")
    assert said.exit_code == 1
    assert "PROBLEM" in said.output
    assert not leaks(said.output)


def test_a_table_that_is_no_table_says_no_id(tmp_path):
    config = write_audit(tmp_path)
    whole = (tmp_path / "studies.csv").read_text()
    for content in (
        whole.replace("\n", ",\n", 9),
        whole.replace(f"{PLANTED[0]}00003", f'"{PLANTED[0]}00003'),
        whole[5:],
    ):
        (tmp_path / "studies.csv").write_text(content)
        said = call("-c", config, "doctor")
        assert said.exit_code == 1
        assert not leaks(said.output)


def failing_embeddings(folder: Path) -> dict[str, Path]:
    """Files of embeddings that fail when they are read, each with ids in it."""
    table = studies()
    ids, x = table["study_id"], vectors(table)
    twice, nan = ids.clone(), x.copy()
    twice[7] = twice[6]
    nan[5, 2] = np.nan
    write_embeddings(folder / "twice.npz", twice, x)
    write_embeddings(folder / "nan.npz", ids, nan)
    write_embeddings(folder / "wide.npz", ids, np.hstack([x, x]))
    lists = pl.DataFrame({"study_id": ids, "embedding": [list(row) for row in x[:, :7]]})
    lists.with_columns(embedding=pl.concat_list("embedding", pl.col("study_id"))).write_parquet(folder / "text.parquet")
    whole = (folder / "nan.npz").read_bytes()
    (folder / "torn.npz").write_bytes(whole[: len(whole) // 2])
    return {path.stem: path for path in sorted(folder.iterdir())}


def test_encoders_that_fail_leave_no_id_in_logs_or_storage(tmp_path):
    """Their errors go through Dagster's storage with their traceback, and to the terminal."""
    config = write_audit(tmp_path, mitigation={"enabled": False})
    shutil.rmtree(tmp_path / "encoders")
    (tmp_path / "files").mkdir()
    files = failing_embeddings(tmp_path / "files")
    for name, path in files.items():
        write_spec(tmp_path / "encoders", path, name=name)
    said = fmaudit("-c", config, "run")
    assert said.returncode == 1
    for name in files:
        assert name in said.stderr
    assert not leaks(said.stdout + said.stderr)
    leaking = [path for path in outputs(tmp_path / ".fmaudit") if any(leaks(text) for text in texts(path))]
    assert not leaking


def test_predictions_that_cannot_be_assessed_say_no_id(tmp_path):
    table = (
        studies(200)
        .rename({"pe": "y_true"})
        .with_columns(split=pl.lit("test"), y_score=pl.lit(0.5), note=pl.col("patient_id"))
    )
    wrong = {
        "score": table.with_columns(y_score=pl.col("patient_id")),
        "label": table.with_columns(y_true=pl.col("patient_id")),
        "split": table.with_columns(split=pl.col("patient_id")),
        "twice": pl.concat([table, table.head(1)]),
        "no validation": table,
    }
    for name, frame in wrong.items():
        frame.write_csv(tmp_path / f"{name}.csv")
        options = [
            "assess",
            "--predictions",
            str(tmp_path / f"{name}.csv"),
            "--attributes",
            "sex",
            "--out",
            str(tmp_path / "out"),
        ]
        said = call(*options)
        assert said.exit_code == 1, (name, said.output, said.exception)
        assert not leaks(said.output), (name, said.output)
    options = [
        "assess",
        "--predictions",
        str(tmp_path / "no validation.csv"),
        "--attributes",
        "note",
        "--threshold",
        "0.4",
    ]
    said = call(*options, "--out", tmp_path / "out")
    assert said.exit_code == 1
    assert "it may identify them" in " ".join(said.output.split())
    assert not leaks(said.output)


def test_a_spec_that_is_wrong_says_no_id(tmp_path):
    config = write_audit(tmp_path)
    spec = yaml.safe_load((tmp_path / "encoders/theirs.yaml").read_text())
    (tmp_path / "encoders/theirs.yaml").write_text(yaml.safe_dump(spec | {"dim": "wide"}))
    said = call("-c", config, "doctor")
    assert said.exit_code == 1
    assert "dim" in said.output
    assert not leaks(said.output)
