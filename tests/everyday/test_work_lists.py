"""`fmaudit init` on work lists as PACS and registries export them: names, ages, labels, attributes, embeddings, events."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.cohort.table import read_table_cohort
from fmaudit_core.common.errors import missing_extra
from fmaudit_core.config import load_audit
from fmaudit_core.setup.propose_config import propose, propose_of_table
from fmaudit_core.setup.recognise_columns import recognised, safe_name
from fmaudit_dagster.cli.main import main
from tests.everyday.cohorts import studies, vectors, write_audit, write_embeddings

N = 200


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


def work_list(**changes):
    """A work list with DICOM's names."""
    rng = np.random.default_rng(1)
    return pl.DataFrame(
        {
            "AccessionNumber": [f"A{i:06d}" for i in range(N)],
            "MRN": [f"{i // 2:07d}" for i in range(N)],
            "PatientAge": [f"{age:03d}Y" for age in rng.integers(18, 89, N)],
            "PatientSex": rng.choice(["F", "M"], N),
            "StudyDate": ["20200615", "20200616"] * (N // 2),
            "Manufacturer": rng.choice(["GE", "SIEMENS", "Philips"], N),
            "Lung nodule": rng.choice(["yes", "no", ""], N),
        }
    ).with_columns(**changes)


def proposed(folder, table, **options):
    table.write_csv(folder / "list.csv")
    write_embeddings(folder / "vec.npz", table.get_column(table.columns[0]), np.ones((table.height, 4)))
    given = {"name": "x", "images": None, "events": None, "embeddings": (), "tasks": ()} | options
    proposal = propose_of_table(folder / "list.csv", folder / "audit.yaml", **given)
    return proposal, yaml.safe_load(proposal.text)


def test_a_dicom_work_list_is_recognised(tmp_path):
    proposal, audit = proposed(tmp_path, work_list())
    assert audit["cohort"]["columns"] == {
        "study_id": "AccessionNumber", "patient_id": "MRN", "age": "PatientAge", "sex": "PatientSex",
        "lung_nodule": "Lung nodule", "manufacturer": "Manufacturer",
    }  # fmt: skip
    assert audit["tasks"] == ["lung_nodule"]
    assert audit["attributes"] == ["sex", "age_band", "manufacturer"]
    assert [one.n_found for one in proposal.embeddings] == [N]
    for sentence in (
        "`MRN` is patient_id.",
        "`Lung nodule` is a task, named lung_nodule.",
        "`Manufacturer` is an attribute, named manufacturer: 3 levels.",
        "`PatientSex` is an attribute, named sex: 2 levels.",
        "`StudyDate` is not an attribute: dates, or a name or number of people.",
    ):
        assert sentence in proposal.guessed


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("study_id", ["Accession Number", "accession_no", "ACCESSION", "Acc. No", "ACC", "study_instance_uid"]),
        ("study_id", ["StudyInstanceUID"]),
        ("patient_id", ["PatientID", "mrn", "pat_id", "Patient ID", "Medical Record Number", "EMPI", "PatientNumber"]),
        ("patient_id", ["mrn_hash", "PAT_MRN_ID", "MRN (hashed)"]),
        ("age", ["Age", "Patient Age", "age (years)", "AgeAtStudy", "age_at_scan", "Age [y]", "Patient's Age"]),
        ("sex", ["Sex", "Gender", "patient_gender", "SEX", "Sex/Gender", "Geschlecht", "Patient\u2019s Sex", "Sex (M/F)"]),
    ],
)  # fmt: skip
def test_spellings_of_names(tmp_path, ours, theirs):
    usual = {"study_id": "AccessionNumber", "patient_id": "MRN", "age": "PatientAge", "sex": "PatientSex"}
    for name in theirs:
        table = recognised(tmp_path / "x.csv", work_list().rename({usual[ours]: name}).cast(pl.String))
        assert table.columns[ours] == name


@pytest.mark.parametrize("form", ["{:03d}Y", "{}", "{}.0", "{} Y", "{}y"])
def test_ages_as_lists_have_them(tmp_path, form):
    ages = pl.Series([form.format(20 + i % 70) for i in range(N - 4)] + [">89", "90+", "", "011M"])
    table = recognised(tmp_path / "x.csv", work_list(PatientAge=ages).cast(pl.String))
    assert table.columns["age"] == "PatientAge"


@pytest.mark.parametrize(
    "words", [("yes", "no"), ("Y", "N"), ("1", "0"), ("TRUE", "FALSE"), ("Positive", "Negative"), ("1", "-1", "0", "")]
)
def test_labels_as_lists_have_them(tmp_path, words):
    labels = pl.Series([words[i % len(words)] for i in range(N)])
    table = recognised(tmp_path / "x.csv", work_list(**{"Lung nodule": labels}).cast(pl.String))
    assert table.tasks == ["lung_nodule"]


@pytest.mark.parametrize("name", ["label", "metric", "subgroup", "overall", "modality"])
def test_a_reserved_name_is_guessed_under_another_name(tmp_path, name):
    table = recognised(tmp_path / "x.csv", work_list().rename({"Manufacturer": name}).cast(pl.String))
    assert table.columns[f"{name}_2"] == name
    assert f"{name}_2" in table.levels


def test_the_complete_id_is_preferred(tmp_path):
    uids = pl.Series([f"1.2.840.{i}" for i in range(N)])
    listed = work_list(AccessionNumber=pl.Series([""] * N), StudyInstanceUID=uids)
    assert recognised(tmp_path / "x.csv", listed.cast(pl.String)).columns["study_id"] == "StudyInstanceUID"


def test_identifiers_and_dates_are_no_attributes_and_groups_are(tmp_path):
    few = {
        "PatientName": ["A^B", "C^D"], "ReferringPhysicianName": ["S", "T"], "OrderNumber": ["1", "2"], "DOB": ["1950", "1960"],
        "ScanDate": ["15/06/2020", "16/06/2020"], "when": ["2020-06-15", "2020-06-16"], "SeriesTime": ["08:00", "09:00"],
        "InstitutionName": ["N", "S"], "site_id": ["1", "2"], "KVP": ["100", "120"], "PatientClass": ["in", "out"],
    }  # fmt: skip
    listed = work_list(**{name: pl.Series(levels * (N // 2)) for name, levels in few.items()})
    table = recognised(tmp_path / "x.csv", listed.cast(pl.String))
    assert set(table.levels) == {"sex", "manufacturer", "institution_name", "site_id", "kvp", "patient_class"}
    assert set(table.passed_over) == {
        "StudyDate", "PatientName", "ReferringPhysicianName", "OrderNumber", "DOB", "ScanDate", "when", "SeriesTime",
    } - {table.columns.get("time")}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "taken", "name"),
    [
        ("Lung nodule", (), "lung_nodule"),
        ("Lung nodule", ("lung_nodule",), "lung_nodule_2"),
        ("COVID-19 (PCR+)", (), "covid-19_pcr"),
        ("Ödem", (), "odem"),
        ("肺結節", (), "task"),
        ("overall", ("overall",), "overall_2"),
        ("x" * 90, (), "x" * 60),
    ],
)
def test_safe_names(column, taken, name):
    assert safe_name(column, taken, fallback="task") == name


def test_two_spellings_of_one_name_are_two_tasks(tmp_path):
    both = work_list(lung_nodule=pl.Series(["1", "0"] * (N // 2)), task=pl.Series(["1", "0"] * (N // 2)))
    _, audit = proposed(tmp_path, both)
    assert audit["tasks"] == ["lung_nodule", "lung_nodule_2", "task_2"]
    assert audit["cohort"]["columns"]["lung_nodule_2"] == "lung_nodule"


def test_a_task_is_chosen_by_its_own_name(tmp_path):
    both = work_list(Effusion=pl.Series(["1", "0"] * (N // 2)))
    for task in ("Lung nodule", "lung_nodule"):
        assert proposed(tmp_path, both, tasks=(task,))[1]["tasks"] == ["lung_nodule"]


def cohort(folder: Path, **changes):
    table = studies().rename({"pe": "Lung nodule", "patient_id": "MRN"}).with_columns(**changes)
    table.write_csv(folder / "list.csv")
    write_embeddings(folder / "vec.npz", table["study_id"], vectors(studies()))
    return table


def test_a_table_without_images_takes_the_embeddings_beside_it(tmp_path):
    cohort(tmp_path)
    said = call("-c", tmp_path / "audit.yaml", "init", "--table", tmp_path / "list.csv")
    assert said.exit_code == 0, said.output
    assert "vec.npz: embeddings of 600 of the studies, 8-d." in said.output
    assert [path.name for path in (tmp_path / "encoders").iterdir()] == ["vec.yaml"]
    assert "600 studies of 300 patients are valid" in said.output


def test_a_refused_guess_can_be_corrected_by_hand(tmp_path):
    first = pl.int_range(pl.len()) == 0
    sex = pl.when(first).then(pl.col("sex").str.to_uppercase()).otherwise("sex").alias("PatientSex")
    answer = pl.when(pl.col("Lung nodule") == 1).then(pl.lit("malignant")).otherwise(pl.lit("benign"))
    cohort(tmp_path).with_columns(sex, answer.alias("Lung nodule")).drop("sex").write_csv(tmp_path / "list.csv")
    command = ("-c", tmp_path / "audit.yaml", "init", "--table", tmp_path / "list.csv", "--task", "Lung nodule")
    said = call(*command)
    assert said.exit_code == 1
    assert "'benign', 'malignant' is not a valid label" in " ".join(said.output.split())
    assert "Nothing was written. --dry-run > audit.yaml writes the guess" in said.output
    assert not (tmp_path / "audit.yaml").exists()
    guess = yaml.safe_load(call(*command, "--dry-run").stdout)
    guess["cohort"] |= {"labels": {"positive": "malignant", "negative": "benign"}, "levels": {"merge": "case"}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(guess))
    audit = load_audit(tmp_path / "audit.yaml")
    assert audit.task_titles == {"lung_nodule": "Lung nodule"}
    read = read_table_cohort(audit.cohort, tasks=audit.tasks, attributes=audit.attributes, age_bands=audit.age_bands)
    assert set(read.studies["sex"]) == {"female", "male"}
    assert read.labels["label"].sum() == studies()["pe"].sum()


def test_embeddings_are_named_where_they_lie_elsewhere(tmp_path):
    cohort(tmp_path)
    (tmp_path / "far").mkdir()
    (tmp_path / "vec.npz").rename(tmp_path / "far/vec.npz")
    options = ("-c", tmp_path / "audit.yaml", "init", "--table", tmp_path / "list.csv")
    said = call(*options)
    assert said.exit_code == 2
    assert "--images DIR" in " ".join(said.output.split())
    assert "--embeddings FILE" in " ".join(said.output.split())
    assert call(*options, "--embeddings", tmp_path / "far/vec.npz").exit_code == 0
    (tmp_path / "audit.yaml").unlink()
    write_embeddings(tmp_path / "far/other.npz", pl.Series(["a", "b"]), np.ones((2, 3)))
    said = call(*options, "--embeddings", tmp_path / "far/other.npz")
    assert said.exit_code == 2
    assert "other.npz holds no vectors for at least half of the studies" in " ".join(said.output.split())
    assert not (tmp_path / "audit.yaml").exists()


def test_a_table_without_a_header_never_shows_its_first_row(tmp_path):
    cohort(tmp_path).write_csv(tmp_path / "list.csv", include_header=False)
    for arguments in (("--table", tmp_path / "list.csv"), (tmp_path,)):
        said = call("-c", tmp_path / "audit.yaml", "init", *arguments)
        assert said.exit_code in (1, 2)
        assert "has no header: the cells of line 1 recur below it" in " ".join(said.output.split())
        assert "ZQX" not in said.output


def test_init_looks_at_the_events(tmp_path):
    table = cohort(tmp_path, time=pl.lit("2020-06-15 14:30"))
    patients = table["MRN"].unique(maintain_order=True)
    days = [datetime(2020, 6, 15, 8) - timedelta(days=n) for n in (0, 10)]

    def init(form):
        lines = [f"{one},{day.strftime(form)},DX/1" for one in patients for day in days]
        (tmp_path / "events.csv").write_text("\n".join(["patient_id,time,code", *lines]))
        arguments = ("--table", tmp_path / "list.csv", "--events", tmp_path / "events.csv")
        return call("-c", tmp_path / "audit.yaml", "init", *arguments)

    said = init("%d.%m.%Y")
    assert said.exit_code == 1
    assert "600 with day first" in " ".join(said.output.split())
    assert not (tmp_path / "audit.yaml").exists()
    assert not (tmp_path / "encoders").exists()
    said = init("%Y-%m-%d %H:%M")
    assert said.exit_code == 0, said.output
    assert "Events: 600 rows of 300 of 300 patients; 300 are before the study's cutoff, 300 on its day" in said.output


def test_a_table_with_vectors_nobody_asked_for_is_still_a_table(tmp_path):
    table = studies(60).with_columns(pl.col("age").map_elements(lambda age: [age] * 3, pl.List(pl.Int64)).alias("vec"))
    table.drop("vec").write_csv(tmp_path / "list.csv")
    assert propose(tmp_path, tmp_path / "audit.yaml").saw[0].startswith("list.csv: 60 rows")


def test_a_column_that_names_no_image_is_not_the_images(tmp_path):
    (tmp_path / "ct/a").mkdir(parents=True)
    (tmp_path / "ct/a/1.dcm").write_bytes(b"x")
    listed = work_list(Series=pl.Series(["lung", "body"] * (N // 2)))
    assert "image" not in proposed(tmp_path, listed, images=tmp_path / "ct")[1]["cohort"]["columns"]
    listed = work_list(Series=pl.lit("a"))
    assert proposed(tmp_path, listed, images=tmp_path / "ct")[1]["cohort"]["columns"]["image"] == "Series"


def test_run_without_an_encoder_says_what_to_do(tmp_path):
    config = write_audit(tmp_path)
    (tmp_path / "encoders/theirs.yaml").unlink()
    for _ in range(2):
        said = call("-c", config, "run")
        assert said.exit_code == 2, said.output
        text = " ".join(said.output.split())
        assert "No encoder is registered" in text
        assert "`fmaudit encoders add NAME`" in text
        assert "`embeddings: {path: FILE, sha256: DIGEST}`" in text
        assert "up to date" not in text


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch.nn", "encoders"),
        ("pydicom", "imaging"),
        ("sklearn.ensemble", "ehr"),
        ("h5py", "hdf5"),
        ("transformers", "encoders"),
    ],
)
def test_a_module_names_its_extra(module, extra):
    said = str(missing_extra(ModuleNotFoundError(f"No module named {module!r}", name=module), "the step x"))
    assert said == (
        f"the step x needs the optional part `{extra}`, which is not installed. Install it with: pip install 'fmaudit[{extra}]'"
    )
    assert missing_extra(ModuleNotFoundError("x", name="not_ours"), "y") is None
    assert missing_extra(ImportError("x"), "y") is None


def test_a_step_that_needs_an_extra_says_which(tmp_path, monkeypatch):
    """The step's own sentence is printed, never the cause below it: `No module named 'torch'`."""
    config = write_audit(tmp_path, probes={"kinds": ["logistic", "mlp"]}, mitigation={"enabled": False})
    for module in [name for name in sys.modules if name.startswith("fmaudit_core.probes.mlp")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    said = call("-c", config, "run")
    text = " ".join(said.output.split())
    assert said.exit_code == 1
    assert "needs the optional part `encoders`, which is not installed" in text
    assert "pip install 'fmaudit[encoders]'" in text
    assert "No module" not in text
    assert "halted" not in text


@pytest.mark.parametrize(
    "names",
    [
        ("record_id", "mrn", "age_at_scan", "sex"),
        ("Image Index", "Patient ID", "Patient Age", "Patient Gender"),
        ("study_id", "subject_id", "anchor_age", "gender"),
        ("imaging_occurrence_id", "person_id", "age", "Sex (M/F)"),
        ("Untersuchungs-ID", "Patienten-ID", "Alter", "Geschlecht"),
        ("Num\u00e9ro d'examen", "IPP", "\u00c2ge", "Sexe"),
        (
            "(0008,0050) Accession Number",
            "(0010,0020) Patient ID",
            "(0010,1010) Patient Age",
            "(0010,0040) Patient Sex",
        ),
    ],
)
def test_names_of_other_registries_and_languages_are_recognised(tmp_path, names):
    ours = ("study_id", "patient_id", "age", "sex")
    theirs = ("AccessionNumber", "MRN", "PatientAge", "PatientSex")
    _, audit = proposed(tmp_path, work_list().rename(dict(zip(theirs, names, strict=True))))
    mapped = {one: own for one, own in zip(ours, names, strict=True) if one != own}
    assert mapped.items() <= audit["cohort"]["columns"].items()


def test_staff_and_postal_codes_are_no_attributes_and_a_label_without_latin_letters_is_an_outcome(tmp_path):
    rng = np.random.default_rng(2)
    table = work_list().rename({"Lung nodule": "\u80ba\u7ed3\u8282"})
    table = table.with_columns(ReadBy=pl.Series(rng.choice(["x", "y"], N)), Zip=pl.Series(rng.choice(["1", "2"], N)))
    proposal, audit = proposed(tmp_path, table)
    assert audit["tasks"] == ["outcome"]
    assert audit["attributes"] == ["sex", "age_band", "manufacturer"]
    for column in ("ReadBy", "Zip"):
        assert f"`{column}` is not an attribute: dates, or a name or number of people." in proposal.guessed
