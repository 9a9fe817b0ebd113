"""The table reader: what a good cohort becomes, and how each mistake is told."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fmaudit_core.cohort.schema import validate_labels, validate_studies
from fmaudit_core.cohort.splits import assign_split
from fmaudit_core.cohort.table import read_table_cohort
from fmaudit_core.config import DEFAULT_AGE_BANDS, Audit, TableCohort, load_audit
from fmaudit_core.tables.schemas import TABLES
from fmaudit_core.tabular.errors import CohortError

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

    def reader(frame, *, tasks=TASKS, attributes=ATTRIBUTES, covariates=(), images=None, suffix=".csv", **options):
        table = tmp_path / f"cohort{suffix}"
        frame.write_parquet(table) if suffix == ".parquet" else frame.write_csv(table, **options)
        for name in frame["study_id"] if images is None else images:
            folder = tmp_path / "ct" / (name or "x")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "0.dcm").write_bytes(b"x")
        section = TableCohort(kind="table", table=table, images=tmp_path / "ct")
        return read_table_cohort(
            section, tasks=tasks, attributes=attributes, covariates=covariates, age_bands=DEFAULT_AGE_BANDS
        )

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
        (with_cell(2, "split", "dev"), r"Row 4: a split other than train, val, test"),
        (with_cell(6, "pe", "maybe"), r"Row 8, column pe: 'maybe' is not a valid label \(1 in all\)"),
        (rows().with_columns(pe=pl.lit("1")), r"task pe has no negative in train; task pe has no negative in val"),
        (rows().drop("pe").with_columns(PE_=pl.lit("1")), r"column pe \(did you mean PE_\?\) is missing"),
        (rows().drop("sex"), r"column sex is missing; the columns are study_id, patient_id"),
        (rows().clear(), r"has no studies"),
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
    with pytest.raises(CohortError, match=r"Row 7: the image path is outside the cohort's folder"):
        read(frame)


def test_a_link_that_leaves_the_folder_is_told(read, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "0.dcm").write_bytes(b"x")
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "s05").symlink_to(tmp_path / "outside")
    with pytest.raises(CohortError, match=r"Row 7: the image path is outside"):
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


def test_the_tables_are_as_they_are_declared(read):
    for name, frame in (
        read(rows().with_columns(scanner=pl.Series(["x", "y"] * 6)), attributes=(*ATTRIBUTES, "scanner"))
        .tables()
        .items()
    ):
        TABLES[name].check(frame)


def test_further_columns_can_be_attributes(read):
    frame = rows().with_columns(scanner=pl.Series(["x", "y"] * 6))
    assert read(frame, attributes=(*ATTRIBUTES, "scanner")).studies["scanner"].to_list()[:2] == ["x", "y"]


def test_covariates_are_columns_of_levels_and_no_subgroups(read):
    frame = rows().with_columns(setting=pl.Series(["ward", "clinic ", "", "n/a"] * 3))
    cohort = read(frame, covariates=["setting"])
    assert set(cohort.studies["setting"]) == {"ward", "clinic", "unknown"}
    assert "setting" not in set(cohort.label_flow["attribute"])
    with pytest.raises(CohortError, match="setting"):
        read(rows(), covariates=["setting"])
    with pytest.raises(CohortError, match="may identify"):
        read(rows(24).with_columns(setting=pl.col("study_id")), covariates=["setting"])


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


def written(tmp_path, text, *, columns=None, attributes=ATTRIBUTES, tasks=TASKS):
    """Read a cohort from the text of its CSV, with images for all twelve studies."""
    table = tmp_path / "cohort.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    for i in range(12):
        folder = tmp_path / "ct" / f"s{i:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "0.dcm").write_bytes(b"x")
    section = TableCohort(kind="table", table=table, images=tmp_path / "ct", columns=columns or {})
    return read_table_cohort(section, tasks=tasks, attributes=attributes, age_bands=DEFAULT_AGE_BANDS)


PLAIN = rows().write_csv()
LINES = PLAIN.splitlines()


def with_line(row, line):
    """The table with another line as its 1-based row."""
    return "\n".join([*LINES[: row - 1], line, *LINES[row:]]) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + PLAIN.encode(),
        PLAIN.replace("\n", "\r\n"),
        PLAIN + ",,,,,,\n  ,,,,,,\n\n",
        "\n".join(f"{line},," for line in LINES),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace('""', "").replace(",", "\u00a0, "),
        PLAIN.replace(",", ", "),
        "\n".join([LINES[0] + ",row,row_index", *(f"{line},9,9" for line in LINES[1:])]),
    ],
    ids=["BOM", "CRLF", "blank rows", "blank columns", "sep=", "spaces", "spaces before quotes", "a column called row"],
)
def test_what_spreadsheets_leave_behind_changes_nothing(tmp_path, text):
    want, got = written(tmp_path, PLAIN), written(tmp_path, text)
    assert got.studies.equals(want.studies)
    assert got.labels.equals(want.labels)


def test_rows_are_numbered_as_in_the_file_though_blank_ones_are_passed_over(tmp_path):
    lines = [*LINES[:3], "", ",,,,,,", with_line(4, "s02,p02,test,old,f,a,0").splitlines()[3], *LINES[4:]]
    with pytest.raises(CohortError, match=r"Row 6: an age that is not a number\."):
        written(tmp_path, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_line(6, "s04,p04,val,50,f,a"), r"Row 6: 6 cells instead of the header's 7"),
        (with_line(6, "s04,p04,val,50,f,a,1,9"), r"Row 6: 8 cells instead of"),
        (with_line(6, 's04,p04,val,50,"f,a,1'), r"cannot be read as CSV"),
        (
            "\n".join(f"{line},pe" if i == 0 else f"{line},1" for i, line in enumerate(LINES)),
            r"column pe appears twice",
        ),
        ("\n".join(f"{line}, pe" if i == 0 else f"{line},1" for i, line in enumerate(LINES)), r"pe appears twice"),
        (PLAIN.encode("utf-16"), r"is not UTF-8 text"),
        (PLAIN.replace("female", "f\xe9minin").encode("latin-1"), r"is not UTF-8 text"),
        ("", r"is empty"),
        (with_line(6, "s04,p04,val,-3,f,a,1"), r"Row 6: an age outside 0 to 120\. "),
        (with_line(6, "s04,p04,val,121,f,a,1"), r"Row 6: an age outside 0 to 120\. "),
        (with_line(6, "s04,p04,val,nan,f,a,1"), r"Row 6: an age that is not a number\. "),
        (with_line(6, "s04,p04,val,\uff15\uff10,f,a,1"), r"Row 6: an age that is not a number\. "),
        (with_line(6, "s04,p04,val,1e20,f,a,1"), r"Row 6: an age that is not a number\. "),
        (with_line(6, f"s04,p04,val,1{'0' * 400},f,a,1"), r"Row 6: an age outside 0 to 120\. "),
        (with_line(6, "s04,p04,val,,f,a,1"), r"Row 6: an age that is not a number\. "),
        (PLAIN.replace("p01", "").replace("p02", ""), r"csv: Rows 3 and 4: no patient id\. "),
        (with_line(6, "s04,p03,dev,50,f,a,1"), r"csv: Row 6: a split other than train, val, test\. "),
    ],
)
def test_a_broken_file_is_told_once_and_with_its_row(tmp_path, text, said):
    with pytest.raises(CohortError, match=said):
        written(tmp_path, text)


def test_a_row_cut_short_is_not_a_censored_label(tmp_path):
    with pytest.raises(CohortError, match="Row 13"):
        written(tmp_path, PLAIN.rstrip()[:-2])


def test_many_rows_are_named_by_the_first_five(read):
    with pytest.raises(
        CohortError, match=r"Rows 2, 3, 4, 5, 6 and 7 more, column pe: 'maybe' is not a valid label \(12 in all\)"
    ):
        read(rows().with_columns(pe=pl.lit("maybe")))


def test_a_long_note_where_a_label_belongs_is_not_repeated_whole(read):
    with pytest.raises(CohortError) as raised:
        read(with_cell(6, "pe", "seen again by her son on the ward"))
    assert "son" not in str(raised.value)


def test_completed_years_decide_the_age_band(tmp_path):
    cohort = written(tmp_path, with_line(2, "s00,p00,train,40.9,female,a,0"))
    assert cohort.studies.row(0, named=True)["age"] == 40
    assert cohort.studies.row(0, named=True)["age_band"] == "18-40"


@pytest.mark.parametrize("name", ["age", "split", "image", "row", "patient_id"])
def test_columns_with_a_meaning_of_their_own_are_no_attributes(tmp_path, name):
    with pytest.raises(CohortError, match=f"{name} cannot be a task or an attribute"):
        written(tmp_path, PLAIN, attributes=("sex", name))


def test_a_column_may_be_mapped_onto_a_name_that_is_there_and_read_twice(tmp_path):
    text = "\n".join([LINES[0] + ",Gender", *(f"{line},z" for line in LINES[1:])])
    cohort = written(tmp_path, text, columns={"sex": "Gender", "race_ethnicity": "Gender"})
    assert set(cohort.studies["sex"]) == set(cohort.studies["race_ethnicity"]) == {"z"}


def test_ids_are_kept_as_written(tmp_path):
    for i in range(12):
        (tmp_path / "ct" / f"{i:03d}.0").mkdir(parents=True)
        (tmp_path / "ct" / f"{i:03d}.0" / "0.dcm").write_bytes(b"x")
    frame = rows().with_columns(study_id=pl.Series([f"{i:03d}.0" for i in range(12)]))
    assert written(tmp_path, frame.write_csv()).studies["study_id"].to_list()[:2] == ["000.0", "001.0"]


@pytest.mark.parametrize("image", ["x\0y", "x" * 300, "loop", "nothing"])
def test_a_path_where_nothing_can_lie_is_told(read, tmp_path, image):
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "loop").symlink_to(tmp_path / "ct" / "loop")
    frame = rows().with_columns(image=pl.when(pl.col("study_id") == "s05").then(pl.lit(image)).otherwise("study_id"))
    with pytest.raises(CohortError, match=r"Row [67]: a study without images"):
        read(frame, suffix=".parquet" if "\0" in image else ".csv")  # a CSV file with a null byte is not read


def test_a_blank_image_path_is_told(read):
    frame = rows().with_columns(image=pl.when(pl.col("study_id") == "s05").then(pl.lit("")).otherwise("study_id"))
    with pytest.raises(CohortError, match=r"csv: Row 7: no image path\. "):
        read(frame)


def test_a_file_in_a_study_that_links_out_of_the_folder_is_told(read, tmp_path):
    (tmp_path / "elsewhere.dcm").write_bytes(b"x")
    (tmp_path / "ct" / "s05" / "series").mkdir(parents=True)
    (tmp_path / "ct" / "s05" / "series" / "1.dcm").symlink_to(tmp_path / "elsewhere.dcm")
    with pytest.raises(CohortError, match=r"Row 7: the image path is outside"):
        read(rows())


def test_a_link_within_the_folder_and_a_linked_root_are_fine(tmp_path):
    want = written(tmp_path, PLAIN)
    (tmp_path / "ct").rename(tmp_path / "real")
    (tmp_path / "ct").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "s05").rename(tmp_path / "real" / "kept")
    (tmp_path / "real" / "s05").symlink_to(tmp_path / "real" / "kept")
    assert written(tmp_path, PLAIN).studies.equals(want.studies)


def test_hidden_files_are_no_images(read, tmp_path):
    (tmp_path / "ct" / "s04").mkdir(parents=True)
    (tmp_path / "ct" / "s04" / ".DS_Store").write_bytes(b"x")
    with pytest.raises(CohortError, match=r"Row 6: a study without images"):
        read(rows(), images=[f"s{i:02d}" for i in range(12) if i != 4])


def test_a_medical_record_asks_for_times_and_bad_ones_are_told(tmp_path):
    def read_timed(frame):
        frame.write_csv(tmp_path / "cohort.csv")
        section = TableCohort(kind="table", table=tmp_path / "cohort.csv", events=tmp_path / "events.parquet")
        return read_table_cohort(section, tasks=TASKS, attributes=ATTRIBUTES, age_bands=DEFAULT_AGE_BANDS)

    with pytest.raises(CohortError, match="column time is missing"):
        read_timed(rows())
    times = ["2020-01-31 14:05", "2020-02-01T08:00:00", "", *["2020-03-01"] * 100][: rows().height]
    studies = read_timed(rows().with_columns(time=pl.Series(times))).studies.sort("study_id")
    assert studies["time"].to_list()[:3] == [datetime(2020, 1, 31, 14, 5), datetime(2020, 2, 1, 8), None]
    with pytest.raises(CohortError, match="Row 3: not a valid time"):
        read_timed(rows().with_columns(time=pl.Series([times[0], "soon", *times[2:]])))


def audited(folder, *, cohort=None, **changes):
    """Write audit.yaml for `folder/studies.csv` and read the cohort that it describes."""
    text = yaml.safe_dump(
        {"cohort": {"kind": "table", "table": "studies.csv"} | (cohort or {}), "tasks": ["pe"]} | changes
    )
    (folder / "audit.yaml").write_text(text)
    audit = load_audit(folder / "audit.yaml")
    return read_table_cohort(audit.cohort, tasks=audit.tasks, attributes=audit.attributes, age_bands=audit.age_bands)


@pytest.mark.parametrize("words", [("malignant", "benign"), ("2", "1"), ("1", "-1"), ("Yes ", "no")])
def test_labels_in_the_words_of_audit_yaml(tmp_path, words):
    rows().write_csv(tmp_path / "studies.csv")
    want = audited(tmp_path).labels
    named = pl.col("pe").replace({"1": words[0].upper(), "0": f" {words[1]}"})
    rows().with_columns(named).write_csv(tmp_path / "studies.csv")
    found = audited(tmp_path, cohort={"labels": {"positive": [words[0]], "negative": words[1]}})
    assert found.labels.equals(want)
    assert f"positive: {words[0].strip().lower()}" in found.notes.filter(note="pe read from words")["detail"][0]
    rows().with_columns(named.replace({words[0].upper(): "else"})).write_csv(tmp_path / "studies.csv")
    with pytest.raises(CohortError, match=r"column pe: 'else' is not a valid label \(6 in all\)"):
        audited(tmp_path, cohort={"labels": {"positive": [words[0]], "negative": words[1]}})


def test_labels_that_are_none_are_counted(tmp_path):
    frame = rows(24).with_columns(pe=pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("nan")).otherwise("pe"))
    frame = frame.with_columns(pe=pl.when(pl.int_range(pl.len()) == 5).then(pl.lit("-1")).otherwise("pe"))
    frame.write_csv(tmp_path / "studies.csv")
    found = audited(tmp_path)
    assert found.labels["label"].null_count() == 4
    assert found.notes.select("note", "n").rows()[:2] == [("pe uncertain", 1), ("pe has no label", 3)]


def test_levels_of_other_case_are_refused_or_merged_by_audit_yaml(tmp_path):
    rows().write_csv(tmp_path / "studies.csv")
    want = audited(tmp_path).studies
    rows().with_columns(sex=pl.when(pl.int_range(pl.len()) == 1).then(pl.lit("MALE")).otherwise("sex")).write_csv(
        tmp_path / "studies.csv"
    )
    with pytest.raises(CohortError, match=r"levels of sex differ by case or spacing only: 'male', 'MALE'.*merge: case"):
        audited(tmp_path)
    found = audited(tmp_path, cohort={"levels": {"merge": "case"}})
    assert found.studies.equals(want)
    assert found.notes["note"].to_list()[-1] == "sex merged by case and spacing"
    assert audited(tmp_path, attributes=["race_ethnicity", "age_band"]).studies.equals(want)  # sex is no attribute here


@pytest.mark.parametrize("name", ["overall", "probe", "task", "encoder", "label", "subgroup"])
def test_reserved_names_in_audit_yaml_are_refused_and_can_be_mapped(tmp_path, name):
    rows().with_columns(pl.col("sex").alias(name)).write_csv(tmp_path / "studies.csv")
    with pytest.raises(CohortError, match=rf"audit.yaml: {name} cannot be a task or an attribute.*columns:"):
        audited(tmp_path, attributes=["sex", name])
    mapped = audited(tmp_path, cohort={"columns": {"rating": name}}, attributes=["sex", "rating"])
    assert mapped.studies["rating"].to_list() == mapped.studies["sex"].to_list()


def test_levels_that_hold_the_sign_of_an_intersection_are_refused(tmp_path):
    rows().with_columns(sex=pl.col("sex") + " x north").write_csv(tmp_path / "studies.csv")
    with pytest.raises(CohortError, match=r"sex has levels that contain ` x `.*for example with `/`"):
        audited(tmp_path)


def test_the_oldest_are_in_an_open_band_of_a_table_and_not_of_inspect(tmp_path):
    odd = ["17", "18", "90", ">89", "91", "90+", "067Y", "41", "104"]
    rows(24).with_columns(pl.Series("age", odd + ["45"] * 15)).write_csv(tmp_path / "studies.csv")
    found = audited(tmp_path)
    assert found.studies["age_band"].to_list()[:8] == [
        "18-40", "75-90", "75-90", "over_90", "75-90", "61-74", "41-60", "over_90",
    ]  # fmt: skip
    assert found.flow["n_studies"].to_list()[:2] == [24, 23]
    assert found.notes.filter(note="open ages")["n"].to_list() == [2]
    paper = audited(tmp_path, age_bands=["18-40", "41-60", "61-74", "75-90"])
    assert paper.flow["n_studies"].to_list()[:2] == [24, 21]
    inspect = Audit(cohort={"kind": "inspect", "root": tmp_path})
    assert [band.label for band in inspect.age_bands] == ["18-40", "41-60", "61-74", "75-90"]


def test_patients_whose_ids_a_spreadsheet_shortened_are_refused(tmp_path):
    rows().with_columns(patient_id=pl.lit("1.23457E+15"), split=pl.lit("train")).write_csv(tmp_path / "studies.csv")
    with pytest.raises(CohortError, match=r"Rows 2, 3, 4, 5, 6 and 7 more: patients share an id such as 1.2E\+15"):
        audited(tmp_path)
    rows().with_columns(patient_id=pl.format("{}E5", pl.int_range(pl.len()))).write_csv(tmp_path / "studies.csv")
    assert audited(tmp_path).studies["patient_id"].n_unique() == 12


def test_a_task_is_shown_by_its_title_else_by_the_name_of_its_column(tmp_path):
    cohort = {
        "kind": "table", "table": tmp_path / "studies.csv",
        "columns": {"ild": "ILD", "lung_nodule": "lung_nodule present", "pe": "PE_final", "age": "AGE"},
    }  # fmt: skip
    tasks = ("pe", "ild", "lung_nodule", "plain")
    assert Audit(cohort=cohort, tasks=tasks).task_titles == {"ild": "ILD", "lung_nodule": "Lung nodule present"}
    named = Audit(cohort=cohort, tasks=tasks, task_titles={"plain": "PLAIN", "ild": "Fibrosis", "pe": "Embolism"})
    assert named.task_titles == {
        "ild": "Fibrosis", "lung_nodule": "Lung nodule present", "plain": "PLAIN", "pe": "Embolism",
    }  # fmt: skip
    assert Audit.model_validate(named.model_dump()) == named
    for wrong, said in (
        ({"other": "x"}, "other is not a task; the tasks are pe"),
        ({"pe": " "}, "a title has 1 to 120"),
    ):
        with pytest.raises(ValueError, match=said):
            Audit(cohort=cohort, tasks=tasks, task_titles=wrong)
