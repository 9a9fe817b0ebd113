"""Rows of a table and studies of an archive: joined by study UID or accession number, and each mistake told without ids."""

from __future__ import annotations

import polars as pl
import pytest

from fmaudit_core.cohort.archive import Archive
from fmaudit_core.cohort.table import read_table_cohort
from fmaudit_core.config import DEFAULT_AGE_BANDS, TableCohort
from fmaudit_core.tabular.errors import CohortError
from tests.cohort.test_table import ATTRIBUTES, TASKS, rows, with_cell

UIDS = [f"1.2.{i}" for i in range(12)]
ACCESSIONS = [f"0{i:02}" for i in range(12)]


@pytest.fixture
def read(tmp_path):
    """Write a table and read its cohort from an archive of twelve studies and one that no row names."""

    def reader(frame, *, columns=None, folders=(), passed_over=None, shared=None):
        frame.write_csv(tmp_path / "cohort.csv")
        for name in ("", *folders):
            (tmp_path / "ct" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "ct" / name / "0").write_bytes(b"x")
        accessions = [[one] for one in ACCESSIONS] + [[]]
        if shared is not None:
            accessions[shared + 1] = [ACCESSIONS[shared], "other"]
        studies = pl.DataFrame(
            {"study_uid": [*UIDS, "1.2.99"], "accessions": accessions},
            schema_overrides={"accessions": pl.List(pl.String)},
        )
        section = TableCohort(
            kind="table", table=tmp_path / "cohort.csv", images=tmp_path / "ct", columns=columns or {}
        )
        return read_table_cohort(
            section, tasks=TASKS, attributes=ATTRIBUTES, age_bands=DEFAULT_AGE_BANDS,
            archive=lambda: Archive(studies, passed_over or {}, 2 if passed_over else 0),
        )  # fmt: skip

    return reader


def notes(cohort):
    return cohort.notes.filter(pl.col("note").str.contains("archive"))


def with_keys(name="study_uid", values=UIDS):
    return rows().with_columns(pl.Series(name, values))


@pytest.mark.parametrize(
    ("frame", "columns", "n_by_uid"),
    [
        (with_keys(), None, 12),
        (with_keys("accession", ACCESSIONS), None, 0),
        (with_keys("StudyInstanceUID"), {"study_uid": "StudyInstanceUID"}, 12),
        (with_keys("Acc No", [f" {one}\u00a0" for one in ACCESSIONS]), {"accession": "Acc No"}, 0),
        (with_keys("study_id", ACCESSIONS), {"accession": "study_id"}, 0),
        (with_keys().with_columns(accession=pl.lit("the same for all")), None, 12),
        (with_keys("study_uid", [*UIDS[:6], *[""] * 5, "n/a"]).with_columns(accession=pl.Series(ACCESSIONS)), None, 6),
    ],
)
def test_a_row_finds_its_study_by_uid_or_accession(read, frame, columns, n_by_uid):
    cohort = read(frame, columns=columns)
    assert cohort.studies["study_uid"].to_list() == UIDS
    assert cohort.studies["image_path"].null_count() == 12
    assert notes(cohort).rows() == [
        (
            "studies found in the archive of images",
            12,
            "studies",
            f"{n_by_uid} by study_uid, {12 - n_by_uid} by accession",
        ),
        ("studies of the archive that no row names", 1, "studies", "not read"),
    ]


def test_numbers_are_compared_as_text(read):
    with pytest.raises(CohortError, match=r"none of its 12 studies is among the 13 of the archive.*fmaudit index DIR"):
        read(with_keys("accession", [str(i) for i in range(12)]))


def test_studies_that_the_archive_does_not_hold_are_kept_and_counted(read):
    cohort = read(with_keys("study_uid", ["1.2.77", *UIDS[1:]]))
    assert cohort.studies["study_uid"].to_list() == ["1.2.77", *UIDS[1:]]
    assert notes(cohort)["note"].to_list() == [
        "studies found in the archive of images",
        "studies that the archive does not hold", "studies of the archive that no row names",
    ]  # fmt: skip
    assert notes(cohort)["n"].to_list() == [11, 1, 2]
    unknown = read(with_keys("accession", ["x", *ACCESSIONS[1:]])).studies
    assert unknown["study_uid"].to_list() == ["", *UIDS[1:]]


def test_what_was_passed_over_is_noted(read):
    found = notes(read(with_keys(), passed_over={"not_dicom": 7, "dicomdir": 1}))
    assert dict(found.select("note", "n").iter_rows()) == {
        "studies found in the archive of images": 12,
        "studies of the archive that no row names": 1,
        "files of the archive with the UID of another": 2,
        "files of the archive that belong to no study: not_dicom": 7,
        "files of the archive that belong to no study: dicomdir": 1,
    }


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (with_keys("study_uid", [*UIDS[:11], UIDS[3]]), "Rows 5 and 13: several rows name one study of the archive"),
        (with_keys("study_uid", [*UIDS[:11], ""]), "Row 13: no study UID and no accession number"),
        (with_keys("accession", ACCESSIONS), "Row 6: the accession number belongs to several studies of the archive"),
        (
            with_keys("study_uid", [*UIDS[:11], ""]).with_columns(accession=pl.Series([*[""] * 11, ACCESSIONS[2]])),
            "Rows 4 and 13: several rows name one study",
        ),
    ],
)
def test_a_wrong_row_is_told_without_its_identifiers(read, frame, told):
    with pytest.raises(CohortError, match=told) as error:
        read(frame, shared=4)
    assert not [one for one in (*UIDS, *ACCESSIONS) if one in str(error.value).replace("study_uid", "")]


def test_a_study_uid_decides_where_an_accession_number_has_several(read):
    frame = with_keys("accession", ACCESSIONS).with_columns(study_uid=pl.Series([*[""] * 4, UIDS[4], *[""] * 7]))
    frame = frame.with_columns(accession=pl.Series([*ACCESSIONS[:5], "other", *ACCESSIONS[6:]]))
    assert read(frame, shared=4).studies["study_uid"].to_list() == UIDS


def test_folders_of_studies_and_named_images_go_first(read):
    ids = rows()["study_id"].to_list()
    cohort = read(with_keys(), folders=ids)
    assert cohort.studies["image_path"].to_list() == ids
    assert "study_uid" not in cohort.studies.columns
    assert notes(cohort).is_empty()
    mapped = read(with_keys("uid"), columns={"study_uid": "uid"}, folders=ids)
    assert mapped.studies["study_uid"].to_list() == UIDS
    named = read(with_keys("uid").with_columns(image=pl.col("study_id")), columns={"study_uid": "uid"}, folders=ids)
    assert named.studies["image_path"].to_list() == ids


def test_one_missing_folder_is_still_a_missing_folder(read):
    ids = rows()["study_id"].to_list()
    with pytest.raises(CohortError, match=r"Row 13: a study without images.*map `study_uid` or `accession`"):
        read(with_keys(), folders=ids[:-1])


@pytest.mark.parametrize("name", ["study_uid", "accession"])
def test_the_names_of_the_keys_are_reserved(read, name):
    with pytest.raises(CohortError, match=f"{name} cannot be a task or an attribute"):
        read_table_cohort(
            TableCohort(kind="table", table="none.csv"),
            tasks=(name,),
            attributes=ATTRIBUTES,
            age_bands=DEFAULT_AGE_BANDS,
        )


def test_a_missing_mapped_column_is_told(read):
    with pytest.raises(CohortError, match="column uid is missing"):
        read(with_keys(), columns={"study_uid": "uid"})


def test_a_cell_of_a_split_stays_a_defect_of_the_table(read):
    with pytest.raises(CohortError, match="Row 4: a split other than"):
        read(with_cell(2, "split", "dev").with_columns(pl.Series("study_uid", UIDS)))
