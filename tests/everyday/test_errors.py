"""Every command asked wrong in several ways: one paragraph that says what, where and what to do; never a traceback."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from fmaudit_dagster.cli.main import main
from tests.everyday.cohorts import write_audit

WRONG = {
    "binary.yaml": b"\xff\xfe\x00\x01",
    "torn.yaml": b"a: [b",
    "list.yaml": b"- 1",
    "binary.csv": b"\xff\xfe\x00",
    "empty.csv": b"",
    "ragged.csv": b"study_id,patient_id,split,y_true,y_score,sex\n1,2,test\n",
    "missing.csv": b"study_id,patient_id,split,y_true,y_score,sex\n1,2,test,1,NaN,f\n2,3,test,0,0.2,m\n",
    "text.nii.gz": b"no image",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An audit that was never run, and files that are wrong."""
    folder = tmp_path_factory.mktemp("wrong")
    write_audit(folder)
    for name, content in WRONG.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("-c binary.yaml run", 2, "is not UTF-8 text"),
        ("-c torn.yaml run", 2, "torn.yaml, line 1, column 6: is not valid YAML: expected"),
        ("-c list.yaml ui", 2, "has no settings"),
        ("-c gone.yaml doctor", 1, "fmaudit init"),
        ("-c . run", 2, "is a directory"),
        ("run --encoder their", 2, "There is no encoder their (did you mean theirs?). There are: theirs."),
        ("run --task embolism", 2, "There is no task embolism. There are: pe."),
        ("encoders check their", 2, "unknown encoder their; the encoders are theirs"),
        ("encoders add nowhere.yaml", 2, "neither a file nowhere.yaml nor a shipped encoder"),
        ("encoders add biomed_clip", 2, "did you mean biomedclip?"),
        ("encoders add torn.yaml", 2, "is not valid YAML"),
        ("encoders add binary.yaml", 2, "cannot be read"),
        ("encoders add biomedclip", 1, "--weights PATH"),
        ("encoders add hu_histogram --weights torn.yaml", 2, "--weights cannot be used with it"),
        ("encoders lst", 2, "Did you mean 'list'?"),
        ("sql", 1, "Run `fmaudit run` first"),
        ("report", 1, "Run `fmaudit run` first"),
        ("report --compare . .", 1, "Run `fmaudit run` first"),
        ("report --compare .", 2, "requires 2 arguments"),
        ("report --compare binary.csv .", 1, "is not an audit.json"),
        ("report --out page.html", 2, "--out goes with --compare"),
        ("series nowhere", 1, "does not exist"),
        ("series text.nii.gz --png picture.png", 1, "there is no picture"),
        ("assess", 2, "Missing option '--predictions'"),
        ("assess --predictions gone.csv", 1, "gone.csv: does not exist"),
        ("assess --predictions list.yaml", 1, "CSV or Parquet"),
        ("assess --predictions empty.csv", 1, "is empty"),
        ("assess --predictions ragged.csv", 1, "3 cells instead of the header's 6"),
        ("assess --predictions missing.csv --threshold 0.5", 1, "NaN"),
        ("assess --predictions missing.csv --attributes gender", 1, "column gender is missing"),
        ("assess --predictions missing.csv --permutations 3", 2, "3 is not in the range"),
        ("assess --predictions missing.csv --seed -1", 2, "-1 is not in the range"),
        ("ui --port 70000", 2, "70000 is not in the range"),
        ("doctor --port x", 2, "not a valid integer"),
        ("completion tcsh", 2, "is not one of 'bash', 'fish', 'zsh'"),
        ("init", 2, "there is one already"),
        ("-c new.yaml init --table binary.csv --images .", 1, "is not UTF-8 text"),
        ("runn", 2, "Did you mean 'run'?"),
    ],
)
def test_a_wrong_command_is_answered_in_a_paragraph(folder, monkeypatch, command, code, said):
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(main, command.split())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    text = " ".join(result.output.split())
    assert said in text
    assert "Traceback" not in text
    assert not (folder / "new.yaml").exists()
