"""From a folder to a report, and what the doctor finds: a stranger's way, without a look at the source."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.config import load_audit
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.setup.doctor import examine
from fmaudit_core.setup.propose_config import propose
from fmaudit_dagster.cli.main import main
from tests.ct_files import write_series
from tests.everyday.cohorts import FAST, studies, vectors, write_audit, write_embeddings
from tests.everyday.conftest import fmaudit


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_a_strangers_way_from_a_folder_to_a_report(tmp_path, monkeypatch):
    """A table with other names and a file of embeddings: init, run, and the page is there."""
    theirs = {"study_id": "Accession Number", "patient_id": "MRN", "age": "Patient Age", "sex": "Gender", "pe": "PE"}
    table = studies()
    table.rename(theirs).with_columns(scanner=pl.lit("S")).write_csv(tmp_path / "cohort.csv", separator=";")
    write_embeddings(tmp_path / "vectors.npz", table["study_id"], vectors(table))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FMAUDIT_CONFIG", raising=False)
    dry = call("init", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert {path.name for path in tmp_path.iterdir()} == {"cohort.csv", "vectors.npz"}
    assert yaml.safe_load(dry.stdout)["cohort"]["columns"] == theirs

    said = call("init")
    assert said.exit_code == 0, said.output
    assert "`MRN` is patient_id" in said.stdout
    assert (tmp_path / "audit.yaml").read_text() == dry.stdout
    settings = yaml.safe_load(dry.stdout) | FAST | {"mitigation": {"enabled": False}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(settings))  # fewer permutations: it is a test
    ran = fmaudit("run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    page = call("report").stdout.strip()
    assert Path(page).stat().st_size > 100_000
    told = json.loads((Path(page).parent / "audit.json").read_text())
    assert told["config"]["tasks"] == ["pe"]
    assert {one["name"] for one in told["encoders"]} == {"vectors"}


def test_three_lines_of_a_table_cohort_are_an_audit(tmp_path):
    write_audit(tmp_path)
    (tmp_path / "audit.yaml").write_text(
        "cohort: {kind: table, table: studies.csv}\ntasks: [pe]\nattributes: [sex, age_band]\n"
    )
    said = call("-c", tmp_path / "audit.yaml", "doctor")
    assert said.exit_code == 0, said.output
    assert "600 studies of 300 patients" in said.output


def test_init_finds_the_images_and_names_what_it_saw(tmp_path):
    table = studies(30).with_columns(site=pl.Series(["north", "south", "east"] * 10))
    table.write_parquet(tmp_path / "list.parquet")
    (tmp_path / "scans").mkdir()
    for study in table["study_id"]:
        write_series(tmp_path / "scans/ct" / study)
    pl.DataFrame({"a": [1, 2]}).write_csv(tmp_path / "other.csv")
    proposal = propose(tmp_path, tmp_path / "audit.yaml")
    settings = yaml.safe_load(proposal.text)
    assert settings["cohort"] == {"kind": "table", "table": "list.parquet", "images": "scans/ct"}
    assert "site (3 levels)" in proposal.text
    assert "`site` is an attribute: 3 levels." in proposal.guessed
    assert proposal.sees_images
    said = call("-c", tmp_path / "audit.yaml", "init", tmp_path)
    assert said.exit_code == 0, said.output
    assert sorted(path.stem for path in (tmp_path / "encoders").iterdir()) == ["efficientnet_lite0", "hu_histogram"]
    assert load_audit(tmp_path / "audit.yaml").attributes == ("race_ethnicity", "sex", "age_band", "site")


def test_init_knows_an_inspect_download(tmp_path):
    from tests.cohort.inspect_release.inspect_twin import Twin

    root = tmp_path / "download"
    Twin().write_tables(root)
    Twin().touch_volumes(root / "full/CTPA")
    proposal = propose(root, tmp_path / "audit.yaml")
    settings = yaml.safe_load(proposal.text)
    assert settings == {"name": "INSPECT", "cohort": {"kind": "inspect", "root": "download"}}
    assert "INSPECT download, layout v2025-06" in proposal.saw[0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "found nothing to audit"),
        ({"name": ["a"], "value": [1]}, "no column looks like study_id"),
        ({"study_id": ["a", "b"], "patient_id": ["p", "q"], "age": [40, 50]}, "no column looks like a task"),
        (
            {"study_id": ["a", "b"], "patient_id": ["p", "q"], "age": ["x", "y"], "pe": [0, 1]},
            "no column looks like age",
        ),
    ],
)
def test_init_says_what_a_folder_lacks_and_writes_nothing(tmp_path, columns, said):
    (tmp_path / "data").mkdir()
    if columns:
        pl.DataFrame(columns).write_csv(tmp_path / "data/table.csv")
    result = call("-c", tmp_path / "audit.yaml", "init", tmp_path / "data")
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "audit.yaml").exists()
    assert not (tmp_path / "encoders").exists()


def test_a_table_that_is_wrong_leaves_nothing_behind(tmp_path):
    table = studies(60).with_columns(split=pl.Series(["train", "test"] * 30))
    table.write_csv(tmp_path / "studies.csv")  # a patient's two studies lie in two splits
    result = call("-c", tmp_path / "audit.yaml", "init", tmp_path)
    assert result.exit_code == 1
    assert "more than one split" in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["studies.csv"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--phantom", "--table", "t.csv"], "Give one of"),
        (["--table", "t.csv"], "--images DIR"),
        (["--task", "pe"], "go with --phantom"),
        (["--phantom", "."], "FOLDER is looked at without --phantom"),
        (["--phantom", "--dry-run"], "--dry-run goes with FOLDER or --table"),
        (["--phantom", "--studies", "5"], "5 is not in the range"),
        (["--phantom", "--ehr", "."], "go with --inspect"),
        (["--phantom", "--embeddings", "t.csv"], "go with --table"),
        (["--phantom", "--task", "a task"], "is not a valid name"),
        (["nowhere"], "does not exist"),
    ],
)
def test_init_asked_wrong_says_what_to_do(tmp_path, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("a\n1\n")
    result = call("-c", "audit.yaml", "init", *options)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert not Path("audit.yaml").exists()


def findings(config):
    return {(one.about, one.status): f"{one.message} {one.fix or ''}" for one in examine(config)}


def test_the_doctor_finds_nothing_wrong_where_nothing_is(planted):
    result = call("-c", planted[0] / "audit.yaml", "doctor", "--port", free_port())
    assert result.exit_code == 0, result.output
    for about in (
        "python",
        "extras",
        "audit.yaml",
        "weights",
        "cohort",
        "disk",
        "warehouse",
        "dagster.yaml",
        "storage",
        "port",
    ):
        assert f" {about} " in result.output
    assert "PROBLEM" not in result.output


def test_the_doctor_names_each_ailment_and_its_cure(tmp_path):
    config = write_audit(tmp_path)
    assert ("audit.yaml", "ok") in findings(config)
    (tmp_path / "encoders/broken.yaml").write_text("name: [")
    assert "broken.yaml" in findings(config)["registry", "problem"]
    (tmp_path / "encoders/broken.yaml").unlink()
    (tmp_path / "theirs.npz").rename(tmp_path / "gone.npz")
    assert "does not exist" in findings(config)["weights", "problem"]
    (tmp_path / "gone.npz").rename(tmp_path / "theirs.npz")
    (tmp_path / "studies.csv").write_text("study_id,age\n1,50\n")
    assert "patient_id" in findings(config)["cohort", "problem"]
    shutil.rmtree(tmp_path / "encoders")
    assert "fmaudit encoders add" in findings(config)["registry", "problem"]
    config.write_text("cohort: {kind: table, table: studies.csv, tabel: x}")
    assert "tabel" in findings(config)["audit.yaml", "problem"]
    config.unlink()
    assert "fmaudit init" in findings(config)["audit.yaml", "problem"]
    assert call("-c", config, "doctor").exit_code == 1


def test_the_doctor_names_a_package_that_is_there_and_cannot_be_imported(monkeypatch):
    import builtins

    from fmaudit_core.config import Audit, PhantomCohort
    from fmaudit_core.pipeline.workspace import Workspace
    from fmaudit_core.setup import doctor

    imported = builtins.__import__

    def broken(name, *rest, **more):
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open shared object file\nmore")
        return imported(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", broken)
    workspace = Workspace(Audit(cohort=PhantomCohort(kind="phantom")), Path("audit.yaml"))
    (found,) = doctor._device(workspace, {})
    assert found.status == "problem"
    assert "cannot be imported (libcudart.so.13: cannot open shared object file)" in found.message
    assert "--force-reinstall" in found.fix


@pytest.mark.parametrize(
    ("python", "status", "said"),
    [
        ((3, 10), "problem", "3.11, 3.12 or 3.13"),
        ((3, 12), "ok", ""),
        ((3, 14), "warning", "tested on Python 3.11 to 3.13"),
    ],
)
def test_the_doctor_tells_a_python_that_is_too_old_from_one_that_is_not_tested(monkeypatch, python, status, said):
    from fmaudit_core.setup import doctor

    said_by = {"python_version": ".".join(map(str, python)), "system": "Linux", "machine": "x86_64"}
    platform = SimpleNamespace(**{name: (lambda value=value: value) for name, value in said_by.items()})
    monkeypatch.setattr(doctor, "platform", platform)
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(version_info=(*python, 0)))
    found = doctor._python()
    assert found.status == status
    assert said in (found.fix or "")


def test_the_doctor_looks_for_images_and_reads_a_few(tmp_path):
    cohort = {"kind": "table", "table": "studies.csv", "images": "ct"}
    config = write_audit(tmp_path, cohort=cohort, tasks=["pe"], imaging={"values": "any"})  # the series are of no chest
    table = studies(30)
    table.write_csv(tmp_path / "studies.csv")
    for study in table["study_id"]:
        write_series(tmp_path / "ct" / study)
    from fmaudit_core.encoders.registry import shipped_specs

    shutil.copyfile(shipped_specs()["hu_histogram"], tmp_path / "encoders/hu_histogram.yaml")
    assert "3 series read completely" in findings(config)["images", "ok"]
    for study in table["study_id"]:
        for file in (tmp_path / "ct" / study).iterdir():
            file.write_bytes(b"no CT")
    assert "refused" in findings(config)["images", "warning"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_doctor_finds_what_is_wrong_with_the_platform_and_mends_it(planted, tmp_path):
    shutil.copytree(planted[0], tmp_path / "copy")
    config = tmp_path / "copy/audit.yaml"
    home = open_workspace(config).home
    settings = home / "dagster/dagster.yaml"
    text = settings.read_text()
    settings.write_text(text.replace("max_concurrent_runs: 2", "max_concurrent_runs: 9"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = call("-c", config, "doctor", "--port", taken.getsockname()[1])
    assert said.exit_code == 0  # warnings are no problems
    assert "differs from what is written today in concurrency" in said.output
    assert "is taken" in said.output
    assert "doctor --fix" in said.output
    mended = call("-c", config, "doctor", "--fix", "--port", free_port())
    assert mended.exit_code == 0, mended.output
    assert settings.read_text() == text
    assert "max_concurrent_runs: 9" in settings.with_name("dagster.yaml.old").read_text()
    assert "warning" not in call("-c", config, "doctor", "--port", free_port()).output.replace("No problem, ", "")

    (home / "dagster/history/runs.db").write_bytes(b"no database at all")
    part = next((home / "warehouse/fairness_gaps").rglob("part.parquet"))
    part.write_bytes(b"torn")
    said = call("-c", config, "doctor")
    assert said.exit_code == 1
    assert "cannot be opened" in said.output
    assert "fairness_gaps" in said.output


def test_the_doctor_ends_runs_whose_process_was_killed(planted, tmp_path):
    import dagster as dg

    from fmaudit_core.storage.processes import this_process
    from fmaudit_dagster.run_leases import PROCESS_TAG

    shutil.copytree(planted[0], tmp_path / "copy")
    config = tmp_path / "copy/audit.yaml"
    home = open_workspace(config).dagster_home
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    node = this_process().partition(":")[0]
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.create_run_for_job(
            job_def=dg.job(name="left")(lambda: None), tags={PROCESS_TAG: f"{node}:{dead.stdout.strip()}:1"},
            status=dg.DagsterRunStatus.STARTED,
        )  # fmt: skip
    assert "1 recorded as running" in call("-c", config, "doctor", "--port", free_port()).output
    assert "1 killed ones ended" in call("-c", config, "doctor", "--fix", "--port", free_port()).output
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE


def completed(words, **environment):
    """What a shell is told when TAB is pressed after these words."""
    said = subprocess.run(
        [sys.executable, "-m", "fmaudit_dagster.cli"], capture_output=True, text=True, check=True,
        env=os.environ | environment | {
            "_FMAUDIT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
    )  # fmt: skip
    return {line.split(",")[-1] for line in said.stdout.split()}


def test_a_shell_completes_commands_and_the_names_of_this_audit(planted):
    config = str(planted[0] / "audit.yaml")
    assert {"doctor", "init", "report", "run"} <= completed("fmaudit ")
    assert "--compare" in completed("fmaudit report --")
    assert completed("fmaudit run --encoder th", FMAUDIT_CONFIG=config) == {"theirs"}
    assert completed(f"fmaudit -c {config} run --task p") == {"pe"}
    assert "hu_histogram" in completed("fmaudit encoders add hu")
    assert completed("fmaudit run --encoder x", FMAUDIT_CONFIG="/nowhere/audit.yaml") == set()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_scripts(shell):
    said = call("completion", shell)
    assert said.exit_code == 0
    assert "_FMAUDIT_COMPLETE" in said.output
    assert "fmaudit completion" in call("completion", shell, "--how").output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=said.output, text=True, check=True)


def test_progress_tells_how_much_is_left(planted):
    """Every step of an audit says how far it is, from nothing done to all done, never backwards."""
    from fmaudit_core.fairness import assess
    from fmaudit_core.pipeline.run_mitigation import evaluate_cell, mitigate_encoder
    from fmaudit_core.storage.warehouse import Cell

    workspace = open_workspace(planted[0] / "audit.yaml")
    heard: dict[str, list[tuple[int, int]]] = {"assess": [], "evaluate": [], "mitigate": []}

    def listener(name):
        return lambda done, total: heard[name].append((done, total))

    cell = Cell("theirs", "pe")
    settings = workspace.audit.fairness
    assess(queries.predictions(workspace, [cell]), attributes=["sex"], settings=settings, progress=listener("assess"))
    evaluate_cell(workspace, cell, progress=listener("evaluate"))
    raw = yaml.safe_load(workspace.audit_yaml.read_text())
    raw["mitigation"] = raw["mitigation"] | {"strategies": ["adversarial"]}
    (planted[0] / "adversarial.yaml").write_text(yaml.safe_dump(raw))
    mitigate_encoder(open_workspace(planted[0] / "adversarial.yaml"), "theirs", progress=listener("mitigate"))
    for name, said in heard.items():
        done, totals = [one for one, _ in said], {total for _, total in said}
        assert len(totals) == 1, name
        assert done == sorted(done)
        assert done[0] == 0
        assert done[-1] == totals.pop() >= 2


def test_help_loads_nothing_heavy():
    """A speed belongs in a benchmark; what makes help slow is what it imports."""
    code = (
        "import sys\nfrom fmaudit_dagster.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'dagster', 'numba', 'polars', 'scipy', 'plotly', 'transformers', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_numbers_of_embeddings_files_are_found_by_their_ids(tmp_path):
    """Of three files two speak of the cohort; one of other studies does not become an encoder."""
    table = studies(60)
    table.write_csv(tmp_path / "studies.csv")
    x = vectors(table)
    write_embeddings(tmp_path / "a.npz", table["study_id"], x)
    pl.DataFrame({"uid": table["study_id"], "vec": x.tolist()}).write_parquet(tmp_path / "b.parquet")
    write_embeddings(tmp_path / "other.npz", pl.Series([f"other{i}" for i in range(60)]), x)
    np.savez(tmp_path / "junk.npz", a=np.zeros(3))
    (tmp_path / "torn.npz").write_bytes(b"PK")
    found = propose(tmp_path, tmp_path / "audit.yaml").embeddings
    assert {(one.name, one.study_id, one.embedding, one.n_found) for one in found} == {
        ("a", "study_id", "embedding", 60), ("b", "uid", "vec", 60),
    }  # fmt: skip
