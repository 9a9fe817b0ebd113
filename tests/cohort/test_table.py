"""The table reader: what a good cohort becomes, and how each mistake is told."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmaudit_core.cohort.errors import CohortError
from fmaudit_core.cohort.schema import validate_labels, validate_studies
from fmaudit_core.cohort.splits import assign_split
from fmaudit_core.cohort.table import read_table_cohort
from fmaudit_core.config import DEFAULT_AGE_BANDS, TableCohort

TASKS, ATTRIBUTES = ("pe",), ("race_ethnicity", "sex", "age_band")


def rows(n=12):
    return pl.DataFrame(
        {
            "study_id": [f"s{i:02d}" for i in range(n)],
            "patient_id": [f"p{i:02d}" for i in range(n)],
            "split": [("train", "val", "test")[i % 3] for i in range(n)],
            "age": [str(30 + 5 * (i % 11)) for i in range(n)],
            "sex": ["female", "male"] * (n // 2),
            "race_ethnicity": ["a", "b", ""] * (n // 3),
            "pe": [str((i // 3) % 2) for i in range(n)],
        }
    )


@pytest.fixture
def read(tmp_path):
    """Write a table and its images, and read the cohort."""

    def reader(frame, *, tasks=TASKS, attributes=ATTRIBUTES, images=None, suffix=".csv", **options):
        table = tmp_path / f"cohort{suffix}"
        frame.write_parquet(table) if suffix == ".parquet" else frame.write_csv(table, **options)
        for name in frame["study_id"] if images is None else images:
            folder = tmp_path / "ct" / (name or "x")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "0.dcm").write_bytes(b"x")
        section = TableCohort(kind="table", table=table, images=tmp_path / "ct")
        return read_table_cohort(section, tasks=tasks, attributes=attributes, age_bands=DEFAULT_AGE_BANDS)

    return reader


def with_cell(row, column, value):
    return (
        rows()
        .with_row_index("i")
        .with_columns(pl.when(pl.col("i") == row).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))
        .drop("i")
    )


def test_a_good_cohort(read):
    cohort = read(rows())
    first = cohort.studies.row(0, named=True)
    assert first == {
        "study_id": "s00", "patient_id": "p00", "split": "train", "age": 30, "age_band": "18-40", "sex": "female",
        "race_ethnicity": "a", "image_path": "s00",
    }  # fmt: skip
    assert cohort.studies["race_ethnicity"].to_list()[2] == "unknown"
    assert cohort.labels.filter(study_id="s03")["label"].to_list() == [True]
    assert cohort.flow["n_studies"].to_list() == [12, 12, 12]


@pytest.mark.parametrize(("suffix", "options"), [(".parquet", {}), (".csv", {"separator": ";"})])
def test_other_files_give_the_same_cohort(read, suffix, options):
    want = read(rows())
    got = read(rows(), suffix=suffix, **options)
    assert got.studies.equals(want.studies)
    assert got.labels.equals(want.labels)


def test_a_blank_label_is_censored(read):
    cohort = read(with_cell(0, "pe", "Censored"))
    assert cohort.labels["label"].null_count() == 1
    assert cohort.flow["n_studies"].to_list()[-1] == 11


def test_ages_outside_the_bands_are_left_out_and_counted(read):
    cohort = read(with_cell(4, "age", "12"))
    assert cohort.studies.height == 11
    assert cohort.flow["n_studies"].to_list()[:2] == [12, 11]
    assert cohort.labels["study_id"].n_unique() == 11


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (with_cell(1, "study_id", "s00"), r"cohort\.csv: Rows 2 and 3: a study is listed more than once"),
        (with_cell(3, "study_id", ""), r"Row 5: no study id"),
        (with_cell(1, "patient_id", "p00"), r"Rows 2 and 3: one patient is in more than one split"),
        (with_cell(7, "age", "140"), r"Row 9: an age outside 0 to 120"),
        (with_cell(7, "age", "old"), r"Row 9: an age that is not a number"),
        (with_cell(2, "split", "dev"), r"Row 4: a split that is none of train, val, test"),
        (with_cell(6, "pe", "maybe"), r"Row 8, column pe: 'maybe' is no label \(1 in all\)"),
        (rows().with_columns(pe=pl.lit("1")), r"task pe has no negative in train; task pe has no negative in val"),
        (rows().drop("pe").with_columns(PE_=pl.lit("1")), r"column pe \(did you mean PE_\?\) is missing"),
        (rows().drop("sex"), r"column sex is missing; the columns are study_id, patient_id"),
        (rows().clear(), r"holds no study"),
    ],
)
def test_a_mistake_is_told_with_its_row(read, frame, said):
    with pytest.raises(CohortError, match=said):
        read(frame)


def test_a_study_without_images_is_told(read):
    with pytest.raises(CohortError, match=r"Row 6: a study without images"):
        read(rows(), images=[f"s{i:02d}" for i in range(12) if i != 4])


def test_an_empty_folder_is_no_image(read, tmp_path):
    (tmp_path / "ct" / "s04").mkdir(parents=True)
    with pytest.raises(CohortError, match=r"Row 6: a study without images"):
        read(rows(), images=[f"s{i:02d}" for i in range(12) if i != 4])


@pytest.mark.parametrize("path", ["../outside", "/etc", "s00/../../outside", "."])
def test_a_path_that_leaves_the_folder_is_told(read, path, tmp_path):
    (tmp_path / "outside").mkdir()
    frame = rows().with_columns(image=pl.col("study_id"))
    frame = frame.with_columns(image=pl.when(pl.col("study_id") == "s05").then(pl.lit(path)).otherwise("image"))
    with pytest.raises(CohortError, match=r"Row 7: the image path leaves the cohort's folder"):
        read(frame)


def test_a_link_that_leaves_the_folder_is_told(read, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0.dcm").write_bytes(b"x")
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "s05").symlink_to(tmp_path / "outside")
    with pytest.raises(CohortError, match=r"Row 7: the image path leaves"):
        read(rows(), images=[f"s{i:02d}" for i in range(12) if i != 5])


def test_columns_of_other_names_are_mapped(tmp_path):
    frame = rows().rename({"study_id": "Accession", "sex": "Gender"})
    frame.write_csv(tmp_path / "c.csv")
    for name in frame["Accession"]:
        (tmp_path / f"{name}.nii.gz").write_bytes(b"x")
    section = TableCohort(
        kind="table", table=tmp_path / "c.csv", images=tmp_path, columns={"study_id": "Accession", "sex": "Gender"}
    )
    cohort = read_table_cohort(section, tasks=TASKS, attributes=ATTRIBUTES, age_bands=DEFAULT_AGE_BANDS)
    assert cohort.studies["image_path"].to_list()[0] == "s00.nii.gz"


def test_further_columns_can_be_attributes(read):
    frame = rows().with_columns(scanner=pl.Series(["x", "y"] * 6))
    assert read(frame, attributes=(*ATTRIBUTES, "scanner")).studies["scanner"].to_list()[:2] == ["x", "y"]


def test_without_a_split_patients_are_split_by_their_id(read):
    copies = [rows().with_columns(pl.col("study_id", "patient_id") + f"-{i}") for i in range(20)]
    frame = pl.concat(copies)
    cohort = read(frame.drop("split"))
    assert cohort.studies["split"].to_list() == [assign_split(one) for one in cohort.studies["patient_id"]]
    assert cohort.studies.group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1


@given(st.text())
def test_a_patients_split_is_always_the_same(patient):
    assert assign_split(patient) == assign_split(patient)


def test_the_split_is_seventy_ten_twenty():
    splits = pl.Series([assign_split(f"p{i}") for i in range(20_000)])
    shares = {split: (splits == split).mean() for split in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.01)


def test_published_tables_are_validated_by_the_same_schema(read):
    cohort = read(rows())
    assert validate_studies(cohort.studies, where="studies").equals(cohort.studies)
    leaked = cohort.studies.with_columns(patient_id=pl.lit("p"))
    with pytest.raises(CohortError, match="one patient is in more than one split"):
        validate_studies(leaked, where="studies")
    with pytest.raises(CohortError, match="a study has two labels for one task"):
        validate_labels(pl.concat([cohort.labels, cohort.labels.head(1)]), where="labels")


def test_no_error_names_a_patient(read):
    with pytest.raises(CohortError) as raised:
        read(with_cell(1, "patient_id", "p00"))
    assert "p00" not in str(raised.value)
