"""The INSPECT reader on a twin of the release: every form reads the same, every planted defect is counted, nothing is guessed."""

from __future__ import annotations

import shutil
import tarfile

import polars as pl
import pytest

from fmaudit_core.cohort.inspect_release.labels import boolean
from fmaudit_core.cohort.inspect_release.reader import read_inspect_cohort
from fmaudit_core.cohort.inspect_release.release_files import LACKING_VOLUMES, locate_release
from fmaudit_core.cohort.outcomes import EVERYBODY
from fmaudit_core.common.vocabulary import ATTRIBUTES, TASKS
from fmaudit_core.config import DEFAULT_AGE_BANDS, InspectCohort
from fmaudit_core.tables.schemas import TABLES
from fmaudit_core.tabular.errors import CohortError
from tests.cohort.inspect_release.inspect_twin import COLUMNS, PLANTED, STAMP, Twin, add_member

TWIN = Twin()
LEVELS = ["study_id", "patient_id", "split", "age", "age_band", "sex", "race_ethnicity"]


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """The twin's tables with an OMOP folder, the MEDS archive, an unpacked MEDS folder, and the 0.2.0 release."""
    top = tmp_path_factory.mktemp("inspect")
    full = TWIN.write_tables(top / "tables")
    TWIN.touch_volumes(full / "CTPA")
    for form in ("omop", "archive", "meds"):
        shutil.copytree(top / "tables", top / form)
    TWIN.write_omop(top / "omop" / "omop", shards=True)
    TWIN.write_ehr(top / "archive" / "EHR", top / "scratch")
    shutil.copytree(top / "scratch" / "meds_omop_inspect", top / "meds" / "EHR" / "meds_omop_inspect")
    TWIN.write_old(top / "old")
    TWIN.touch_volumes(top / "old" / "anon_nii_gz", old=True)
    TWIN.write_omop(top / "old" / "omop")
    return top


@pytest.fixture
def copied(forms, tmp_path):
    """The OMOP form, for a test to spoil."""
    return shutil.copytree(forms / "omop", tmp_path / "download")


def read(root, cache=None, *, tasks=TASKS, attributes=ATTRIBUTES, **section):
    return read_inspect_cohort(
        InspectCohort(kind="inspect", root=root, **section),
        tasks=tasks,
        attributes=attributes,
        age_bands=DEFAULT_AGE_BANDS,
        cache=cache or root / ".cache",
    )


def edit(path, change):
    separator = "\t" if path.suffix == ".tsv" else ","
    frame = pl.read_csv(path, separator=separator, infer_schema=False)
    change(frame).write_csv(path, separator=separator)


def noted(cohort, note):
    return cohort.notes.filter(note=note)["n"].sum()


def steps(cohort):
    return dict(cohort.flow.select("step", "n_studies").iter_rows())


@pytest.mark.parametrize("form", ["omop", "archive", "meds", "old"])
def test_the_tables_of_every_form_are_as_they_are_declared(forms, tmp_path, form):
    for name, frame in read(forms / form, tmp_path / "cache").tables().items():
        TABLES[name].check(frame)


@pytest.mark.parametrize("form", ["omop", "archive", "meds"])
def test_every_form_of_the_record_gives_the_planned_studies(forms, tmp_path, form):
    cohort = read(forms / form, tmp_path / "cache")
    want = TWIN.truth
    assert cohort.studies.select(LEVELS).equals(want.select(LEVELS))
    assert cohort.studies["time"].to_list() == want["time"].to_list()
    expected = {(one.impression_id, task): label for one in TWIN.studies for task, label in one.labels.items()}
    assert {(study, task): label for study, task, label in cohort.labels.iter_rows()} == {
        key: label for key, label in expected.items() if key[0] in set(want["study_id"])
    }


def test_the_twin_holds_every_level(forms):
    cohort = read(forms / "omop")
    assert set(cohort.studies["race_ethnicity"]) == {
        "hispanic", "nh_white", "nh_black", "nh_asian", "nh_nhpi", "nh_aian", "nh_other", "unknown",
    }  # fmt: skip
    assert set(cohort.studies["age_band"]) == {"18-40", "41-60", "61-74", "75-90", "unknown"}


def test_the_release_of_2023_gives_the_same(forms):
    """Its studies are called by patient and time; it has a time for all, so those without one are left aside."""
    new, old = read(forms / "omop"), read(forms / "old")
    names = dict(TWIN.truth.select("study_id", "old_id").iter_rows())
    timed = new.studies.filter(pl.col("time_source") == "procedure")
    renamed = timed.with_columns(pl.col("study_id").replace_strict(names)).sort("study_id")
    same = old.studies.join(renamed.select("study_id"), on="study_id", how="semi").sort("study_id")
    assert same.select(*LEVELS, "time").equals(renamed.select(*LEVELS, "time"))
    assert old.studies.height == new.studies.height
    labels = new.labels.with_columns(pl.col("study_id").replace_strict(names)).sort("study_id", "task")
    assert old.labels.sort("study_id", "task").equals(labels)
    assert noted(old, "the medical record of 0.2.0 is not read") == 1


def test_march_2025_gives_the_same(forms, tmp_path):
    full = shutil.copytree(forms / "omop" / "full", tmp_path / "march")
    renamed = {"labels": "Final_labels", "splits": "Final_splits", "study_mapping": "Final_metadata"}
    for stem, name in renamed.items():
        frame = pl.read_csv(full / f"{stem}_{STAMP}.tsv", separator="\t", infer_schema=False)
        frame.write_csv(full / f"{name}_20250303.csv")
    for path in full.glob("*.tsv"):
        path.unlink()
    cohort = read(full, ehr=forms / "omop" / "omop")
    assert cohort.studies.select(*LEVELS, "time").equals(read(forms / "omop").studies.select(*LEVELS, "time"))
    assert noted(cohort, "release 2025-03") == 1


def test_every_planted_defect_is_counted(forms):
    cohort = read(forms / "omop")
    counts = steps(cohort)
    assert counts[f"rows of labels_{STAMP}.tsv"] == 60 + PLANTED["repeated"]
    assert counts["each study once (identical repeats dropped)"] == 60
    assert counts["patient and split known"] == 60
    assert counts["a CT volume is there"] == 60 - PLANTED["no_ct"]
    assert counts["aged 18 or over, or of unknown age"] == 60 - PLANTED["no_ct"] - PLANTED["age_17"]
    assert cohort.studies.height == counts["age inside the age bands, or unknown"] == 58
    assert noted(cohort, f"identical repeats in labels_{STAMP}.tsv") == 2
    assert noted(cohort, f"identical repeats in study_mapping_{STAMP}.tsv") == 1
    assert noted(cohort, "no time") == PLANTED["no_time"]
    assert noted(cohort, "time of the note") == PLANTED["note_time"]
    assert noted(cohort, "older than 90") == PLANTED["age_91"]
    assert noted(cohort, "first series is not the largest") == PLANTED["localizer_first"]
    assert noted(cohort, "pe_positive says otherwise") == PLANTED["pe_disagrees"]
    assert noted(cohort, "description without the word contrast") == PLANTED["no_contrast"]
    (oldest,) = TWIN.role("age_91")
    assert cohort.studies.filter(study_id=oldest.impression_id)["age"].to_list() == [90]
    assert cohort.studies["rescale_slope"].drop_nulls().to_list() == [1.0]
    assert cohort.studies["listed_slices"].unique().to_list() == [24]
    for one in TWIN.role("hispanic_with_race"):
        assert set(cohort.studies.filter(study_id=one.impression_id)["race_ethnicity"]) <= {"hispanic"}


def test_known_outcomes_are_counted_per_task_and_subgroup(forms):
    cohort = read(forms / "omop")
    flow = cohort.label_flow
    known = cohort.labels.drop_nulls("label").group_by("task").len()
    for task, n in known.iter_rows():
        assert steps(cohort)[f"outcome known: {task}"] == n
        rows = flow.filter(task=task, attribute=EVERYBODY)
        assert rows.select(pl.col("n_positive") + pl.col("n_negative")).sum().item() == n
        for attribute in ATTRIBUTES:  # a subgroup's censored studies add up to everybody's
            assert flow.filter(task=task, attribute=attribute)["n_censored"].sum() == rows["n_censored"].sum()
    one = flow.filter(task="readmission_12m", split="test", attribute="sex", subgroup="female").row(0, named=True)
    women = [
        s.labels["readmission_12m"]
        for s in TWIN.studies
        if s.split == "test" and s.person.sex == "female" and s.impression_id in set(cohort.studies["study_id"])
    ]
    assert (one["n_positive"], one["n_negative"], one["n_censored"]) == tuple(map(women.count, (True, False, None)))
    assert one["n_censored"] > 0


def test_unknown_ethnicity_may_be_unknown(forms):
    cohort = read(forms / "omop", unknown_ethnicity="unknown")
    (aian,) = TWIN.role("nh_aian")
    assert cohort.studies.filter(study_id=aian.impression_id)["race_ethnicity"].item() == "unknown"
    assert "nh_aian" not in cohort.studies["race_ethnicity"].to_list()


def test_an_older_table_and_the_text_of_reports_are_never_read(forms, tmp_path):
    """An older stamp full of wrong words lies beside; a report table that no parser could read changes nothing."""
    root = shutil.copytree(forms / "omop", tmp_path / "download")
    (root / "full" / f"impressions_{STAMP}.tsv").write_bytes(b'\xff\xfe"\t"\n')
    assert read(root).studies.equals(read(forms / "omop").studies)


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        (["TRUE", "True", "true ", "1", "1.0", "t", "Yes"], True),
        (["FALSE", "False", "0", "0.0", "F", "no"], False),
        (["CENSORED", "Censored", "censor", "NA", "nan", "None", "", None], None),
    ],
)
def test_words_of_labels(words, meaning):
    assert pl.DataFrame({"x": words}, schema={"x": pl.String}).select(boolean("x"))["x"].to_list() == [meaning] * len(
        words
    )


def spoil(file, **cells):
    """Change cells of a table: column -> function of an expression."""

    def change(root):
        edit(root / "full" / f"{file}_{STAMP}.tsv", lambda frame: frame.with_columns(**cells))

    return change


def first(column, value):
    row = pl.int_range(pl.len())
    return pl.when(row == 0).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)


def patient_in_two_splits(root):
    twice = next(
        one for one in TWIN.studies if sum(s.person.person_id == one.person.person_id for s in TWIN.studies) > 1
    )
    other = "test" if twice.split != "test" else "train"
    spoil(
        "splits",
        split=pl.when(pl.col("impression_id") == twice.impression_id).then(pl.lit(other)).otherwise("split"),
    )(root)


def conflicting_repeat(root):
    path = root / "full" / f"labels_{STAMP}.tsv"
    edit(path, lambda f: pl.concat([f, f.head(1).with_columns(pl.lit("CENSORED").alias("1_month_mortality"))]))
    edit(path, lambda f: f.with_columns(first("1_month_mortality", "TRUE")))


def cut(file, keep, *, whole=True):
    """Keep the first part of a table, as an interrupted download does; a last row that is not whole too."""

    def change(root):
        path = root / "full" / f"{file}_{STAMP}.tsv"
        lines = path.read_text().splitlines(keepends=True)
        last = "" if whole else lines[keep].rsplit("\t", 2)[0]
        path.write_text("".join(lines[:keep]) + last)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            cut("labels", 40),
            r"labels_\d+\.tsv: lists 39 studies and lacks \d+ that the other tables list; it may be trunc",
        ),
        (cut("splits", 40), r"splits_\d+\.tsv: lists 39 studies and lacks"),
        (cut("study_mapping", 40), r"study_mapping_\d+\.tsv: lists 39 studies and lacks"),
        (
            cut("labels", 58, whole=False),
            r"labels_\d+\.tsv: Row 59: fewer or more cells than the header\. It may be truncated",
        ),
        (
            spoil("study_mapping", person_id=first("person_id", "1")),
            r"study_mapping_\d+\.tsv: Row 2: person_id differs from",
        ),
        (
            spoil("labels", pe_positive_nlp=first("pe_positive_nlp", "probable")),
            r"column pe_positive_nlp: 'PROBABLE' is not a valid label \(1 in all: row 2\)",
        ),
        (patient_in_two_splits, r"1 patient is in more than one split"),
        (conflicting_repeat, r"a study is listed more than once, with different content"),
        (spoil("splits", split=first("split", "dev")), r"'dev' is not a valid split"),
        (
            spoil("study_mapping", procedure_DATETIME=first("procedure_DATETIME", "soon")),
            r"Row 2: a procedure time that is not a date",
        ),
        (spoil("labels", pe_positive_nlp=pl.lit("FALSE")), r"task pe has no positive in train"),
        (
            spoil("study_mapping", person_id=first("person_id", "Anna")),
            r"Row 2: a person_id that is not a whole number",
        ),
    ],
)
def test_twins_that_must_stop(copied, change, said):
    change(copied)
    with pytest.raises(CohortError, match=said) as raised:
        read(copied)
    for one in TWIN.studies:  # rows and counts, never a patient
        assert str(one.person.person_id) not in str(raised.value)
        assert one.impression_id not in str(raised.value)
    assert "Anna" not in str(raised.value)


def test_a_few_studies_that_one_table_lacks_are_counted_and_many_where_a_part_is_meant(copied):
    whole = read(copied).studies.height
    path = copied / "full" / f"labels_{STAMP}.tsv"
    ids = [line.split("\t")[0] for line in path.read_text().splitlines()]
    cut("labels", len(ids) - 6)(copied)
    n_lost = len(set(ids) - set(ids[:-6]))
    cohort = read(copied)
    assert noted(cohort, f"listed elsewhere, not in labels_{STAMP}.tsv") == n_lost > 1
    assert whole - n_lost <= cohort.studies.height < whole
    cut("labels", 45)(copied)
    assert read(copied, tasks=("pe",), partial=True).studies.height < 45


def test_columns_are_found_in_any_case_and_a_missing_one_is_told(copied):
    path = copied / "full" / f"study_mapping_{STAMP}.tsv"
    edit(path, lambda frame: frame.rename(str.upper))
    assert read(copied).studies.height == 58
    edit(path, lambda frame: frame.rename({"IMAGE_ID": "picture"}))
    missing = r"column image_id is missing \(also known as imageid\); the columns are IMPRESSION_ID, pict"
    with pytest.raises(CohortError, match=missing):
        read(copied)


def test_a_partial_download_is_told_as_a_list(copied):
    (copied / "full" / f"splits_{STAMP}.tsv").unlink()
    shutil.rmtree(copied / "full" / "CTPA")
    with pytest.raises(CohortError) as raised:
        read(copied)
    said = str(raised.value)
    assert "splits_*.tsv (the split of each patient: training, validation or test)" in said
    assert "CTPA/PE*.nii.gz (the CT volumes)" in said
    assert "labels_" not in said
    with pytest.raises(
        CohortError, match=r"Missing: labels_\*\.tsv.*; splits_\*\.tsv.*; study_mapping_\*\.tsv.*; CTPA"
    ):
        read(copied / "omop")
    with pytest.raises(CohortError, match="is not a folder"):
        read(copied / "nowhere")


def test_volumes_that_lack_are_named_in_a_file_and_many_stop_unless_a_part_is_meant(copied, tmp_path):
    """Of the whole release eight in 23,248 lack; nobody is named in what is printed."""
    folder, told = copied / "full" / "CTPA", tmp_path / "ehr" / "missing_volumes.txt"
    lacking = {f"{one.image_id}.nii.gz" for one in TWIN.with_defect("no_ct")}
    assert noted(read(copied, told.parent), "listed volume that is not there") == 1
    assert set(told.read_text().split()) == lacking
    for path in sorted(folder.iterdir())[:5]:
        lacking.add(path.name)
        path.unlink()
    with pytest.raises(CohortError, match=r"6 of the 60 CT volumes listed in study_mapping_.* are missing") as raised:
        read(copied, told.parent)
    assert set(told.read_text().split()) == lacking
    assert str(told) in str(raised.value)
    assert not any(name.split(".")[0] in str(raised.value) for name in lacking)
    cohort = read(copied, told.parent, partial=True, tasks=("pe",))
    assert steps(cohort)["a CT volume is there"] == 54
    assert noted(cohort, "listed volume that is not there") == 6
    for name in lacking:
        (folder / name).touch()
    read(copied, told.parent)
    assert not told.exists()


def test_tables_that_an_omop_record_lacks_are_named(forms, copied):
    assert not read(copied).notes["note"].str.contains("visit_occurrence").any()
    for name in ("visit_occurrence", "concept"):
        (copied / "omop" / f"{name}.csv").unlink()
    cohort = read(copied)
    assert noted(cohort, "not there: OMOP table visit_occurrence (visits)") == 1
    assert noted(cohort, "not there: OMOP table concept (the vocabulary)") == 1
    assert not read(forms / "meds").notes["note"].str.contains("OMOP").any()


def test_a_count_of_slices_that_is_no_number_is_none(copied):
    """Nor is it the largest of a study's series: `nan` sorts above all numbers."""
    path = copied / "full" / f"series_metadata_{STAMP}.tsv"
    want = read(copied).studies
    edit(
        path, lambda frame: pl.concat([frame, frame.with_columns(num_slices=pl.lit("nan"), RescaleSlope=pl.lit("inf"))])
    )
    assert read(copied).studies.equals(want)
    edit(path, lambda frame: frame.with_columns(num_slices=pl.lit("nan"), RescaleSlope=pl.lit("inf")))
    studies = read(copied).studies
    assert studies["listed_slices"].null_count() == studies["rescale_slope"].null_count() == studies.height


def test_a_birth_that_is_no_date_is_counted_and_leaves_the_age_unknown(copied):
    """A month of birth alone is its first day; 30 February and the year 0 are nothing."""
    studies = read(copied).studies
    persons = (
        studies.filter(pl.col("time_source") == "procedure").get_column("patient_id").unique().sort()[:3].to_list()
    )
    path = copied / "omop" / "person.csv"
    births = dict(zip(persons, (("1950", "2", "30"), ("0", "1", "1"), ("1950", "3", "")), strict=True))
    person = pl.col("person_id").str.replace(r"\.0$", "")
    parts = ("year_of_birth", "month_of_birth", "day_of_birth")

    def change(frame):
        replaced = [
            person.replace_strict({one: given[k] for one, given in births.items()}, default=pl.col(name)).alias(name)
            for k, name in enumerate(parts)
        ]
        timed = pl.when(~person.is_in(persons)).then("birth_DATETIME").alias("birth_DATETIME")
        return frame.with_columns(*replaced, timed)

    edit(path, change)
    cohort = read(copied)
    assert noted(cohort, "birth that is no date") == 2
    ages = {one: cohort.studies.filter(patient_id=one)["age"].to_list() for one in persons}
    assert {age for one in persons[:2] for age in ages[one]} == {None}
    years = [t.year - 1950 - (t.month < 3) for t in cohort.studies.filter(patient_id=persons[2])["time"]]
    assert ages[persons[2]] == years


def test_a_birth_that_cannot_be_is_counted_and_leaves_the_age_unknown(copied):
    """Nobody is made 90 by a birth in 1800, nor a child by one after the study."""
    timed = read(copied).studies.filter(pl.col("time_source") == "procedure").get_column("patient_id").unique().sort()
    births = dict(zip(timed[:2], ("1800-01-01 00:00:00", "2150-01-01 00:00:00"), strict=True))
    person = pl.col("person_id").str.replace(r"\.0$", "")
    edit(
        copied / "omop" / "person.csv",
        lambda frame: frame.with_columns(
            birth_DATETIME=person.replace_strict(births, default=pl.col("birth_DATETIME"))
        ),
    )
    cohort = read(copied)
    theirs = cohort.studies.filter(pl.col("patient_id").is_in(list(births)))
    assert noted(cohort, "impossible birth") == theirs.drop_nulls("time").height > 0
    assert set(theirs.select("age", "age_band").iter_rows()) == {(None, "unknown")}


def test_a_record_without_its_vocabulary_says_so(forms, tmp_path):
    """What the record's own codes mean is then unknown, and so are the races they stand for."""
    root = shutil.copytree(forms / "meds", tmp_path / "download")
    (root / "EHR" / "meds_omop_inspect" / "metadata" / "codes.parquet").unlink()
    cohort = read(root)
    assert noted(cohort, "not there: metadata/codes.parquet (what the record's own codes mean)") == 1
    assert noted(cohort, "person code of no level") > 0


def test_without_demographics_it_says_what_to_get(forms):
    with pytest.raises(CohortError, match=r"person\.csv.*meds_omop_inspect\.tar\.gz.*--demographics FILE"):
        read(forms / "tables")


def test_a_users_own_demographics(forms, tmp_path):
    people = [
        {
            "person_id": p.person_id,
            "sex": p.sex[0].upper(),
            "race_ethnicity": p.level,
            "birth_date": f"{p.birth:%Y-%m-%d}",
        }
        for p in TWIN.people.values()
    ]
    path = tmp_path / "people.csv"
    pl.DataFrame(people).write_csv(path)
    assert read(forms / "tables", demographics=path).studies.select(LEVELS).equals(TWIN.truth.select(LEVELS))
    aged = pl.DataFrame(people).with_columns(age=pl.lit(44)).drop("birth_date")
    aged.write_csv(path)
    assert set(read(forms / "tables", demographics=path).studies["age"]) == {44}
    for age in ("999", "-1", "1e20"):
        aged.with_columns(age=pl.lit(age)).write_csv(path)
        with pytest.raises(CohortError, match=r"people\.csv: Rows 2, 3, 4, 5, 6 and 35 more: an age outside 0 to 120"):
            read(forms / "tables", demographics=path)
    aged.with_columns(race_ethnicity=pl.lit("martian")).write_csv(path)
    with pytest.raises(
        CohortError, match=r"Rows 2, 3, 4, 5, 6 and 35 more: a race_ethnicity other than hispanic, nh_white"
    ):
        read(forms / "tables", demographics=path)
    aged.drop("age").write_csv(path)
    with pytest.raises(CohortError, match="neither birth_date nor age"):
        read(forms / "tables", demographics=path)


def test_persons_of_meds_are_read_once(forms, tmp_path):
    cache = tmp_path / "cache"
    want = read(forms / "meds", cache)
    folder = shutil.copytree(forms / "meds" / "EHR", tmp_path / "EHR", copy_function=shutil.copy2)
    cached = sorted(cache.glob("people-*.parquet"))
    stamps = [path.stat().st_mtime_ns for path in cached]
    again = read(forms / "meds", cache, ehr=folder)
    assert [path.stat().st_mtime_ns for path in cached] == stamps
    assert again.studies.equals(want.studies)
    assert again.notes.equals(want.notes)
    events = pl.read_parquet(folder / "meds_omop_inspect" / "data" / "data_0.parquet")
    changed = events.with_columns(pl.col("code").replace({"Gender/F": "Gender/unheard-of"}))
    changed.write_parquet(folder / "meds_omop_inspect" / "data" / "data_0.parquet")
    other = read(forms / "meds", cache, ehr=folder)
    assert "unknown" in other.studies["sex"].to_list()
    assert noted(other, "person code of no level") > 0


def test_another_split_in_the_record_is_counted_and_not_followed(forms, tmp_path):
    folder = shutil.copytree(forms / "meds" / "EHR", tmp_path / "EHR")
    persons = sorted({one.person.person_id for one in TWIN.studies})
    splits = {
        one.person.person_id: {"train": "train", "val": "tuning", "test": "held_out"}[one.split] for one in TWIN.studies
    }
    words = [splits[person] for person in persons]
    words[0] = "train" if words[0] != "train" else "tuning"
    frame = pl.DataFrame({"subject_id": persons, "split": words})
    frame.write_parquet(folder / "meds_omop_inspect" / "metadata" / "subject_splits.parquet")
    cohort = read(forms / "meds", tmp_path / "cache", ehr=folder)
    assert noted(cohort, "another split in subject_splits.parquet") == 1
    assert cohort.studies.select(LEVELS).equals(TWIN.truth.select(LEVELS))


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("meds/data/../../../evil.parquet", {}, "path outside the archive"),
        ("/etc/evil.parquet", {}, "path outside the archive"),
        ("meds/data/link.parquet", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0}, "holds a link"),
        (
            "meds/data/hard.parquet",
            {"type": tarfile.LNKTYPE, "linkname": "meds/data/data_0.parquet", "size": 0},
            "holds a link",
        ),
        ("meds/data/device.parquet", {"type": tarfile.CHRTYPE, "size": 0}, "holds a link or a device"),
    ],
)
def test_an_archive_that_reaches_out_is_refused(forms, tmp_path, name, changes, said):
    evil = tmp_path / "ehr" / "meds_omop_inspect.tar.gz"
    evil.parent.mkdir()
    with tarfile.open(evil, "w:gz") as archive:
        add_member(archive, "meds/data/data_0.parquet")
        add_member(archive, name, **changes)
    with pytest.raises(CohortError, match=said):
        read(forms / "tables", tmp_path / "cache", ehr=evil.parent)
    assert not list(tmp_path.rglob("evil.parquet"))
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != LACKING_VOLUMES]


def test_an_archive_cut_off_is_told_and_leaves_nothing(forms, tmp_path):
    whole = (forms / "archive" / "EHR" / "meds_omop_inspect.tar.gz").read_bytes()
    for share in (0.1, 0.5, 0.9):
        cut = tmp_path / "ehr" / "meds_omop_inspect.tar.gz"
        cut.parent.mkdir(exist_ok=True)
        cut.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(CohortError, match="damaged or truncated"):
            read(forms / "tables", tmp_path / "cache", ehr=cut.parent)
        assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != LACKING_VOLUMES]


def test_a_crosswalk_that_says_otherwise_is_counted(forms, tmp_path):
    folder = shutil.copytree(forms / "archive" / "EHR", tmp_path / "EHR")
    path = next(folder.glob("image_ehr_crosswalk*.csv"))
    want = read(forms / "archive", tmp_path / "cache")
    assert noted(want, f"another person in {path.name}") == 0
    edit(path, lambda frame: frame.with_columns(person_id=first("person_id", "1")))
    cohort = read(forms / "archive", tmp_path / "cache", ehr=folder)
    assert noted(cohort, f"another person in {path.name}") == 1
    assert cohort.studies.equals(want.studies)


def test_a_task_or_attribute_that_inspect_has_not_is_told(forms):
    with pytest.raises(CohortError, match=r"mortality_2m \(did you mean mortality_\d+m\?\) is not a task of INSPECT"):
        read(forms / "omop", tasks=("mortality_2m",))
    with pytest.raises(CohortError, match="INSPECT has no attribute scanner"):
        read(forms / "omop", attributes=("sex", "scanner"))


def test_volumes_may_lie_elsewhere(forms, tmp_path):
    root = shutil.copytree(forms / "omop", tmp_path / "download")
    shutil.move(root / "full" / "CTPA", tmp_path / "volumes")
    cohort = read(root, images=tmp_path / "volumes")
    assert cohort.images_root == tmp_path / "volumes"
    assert cohort.studies.height == 58
    assert all((cohort.images_root / path).is_file() for path in cohort.studies["image_path"])


def test_a_release_of_full_size_is_read_whole(tmp_path):
    """23,248 studies: the tables of the release, its persons, and a folder of that many volumes."""
    n = 23_248
    rng_split = ["train"] * 15 + ["valid"] + ["test"] * 4
    full, ids = tmp_path / "full", [str(500_000 + i) for i in range(n)]
    (full / "CTPA").mkdir(parents=True)
    for i in range(n):
        (full / "CTPA" / f"PE{i:x}.nii.gz").touch()
    words = ["TRUE", "FALSE", "CENSORED", "FALSE", "TRUE"]
    labels = {column: [words[(i // 20 + k) % 5] for i in range(n)] for k, column in enumerate(COLUMNS.values())}
    persons = [900_000 + i % 19_400 for i in range(n)]
    splits = [rng_split[person % 20] for person in persons]
    pl.DataFrame({"impression_id": ids, **labels}).write_csv(full / "labels_20250611.tsv", separator="\t")
    pl.DataFrame({"impression_id": ids, "person_id": persons, "split": splits}).write_csv(
        full / "splits_20250611.tsv", separator="\t"
    )
    mapping = {
        "impression_id": ids, "person_id": persons, "image_id": [f"PE{i:x}" for i in range(n)],
        "procedure_DATETIME": ["2011-02-03T04:05:06"] * n, "note_DATETIME": ["2011-02-03T05:05:06"] * n,
    }  # fmt: skip
    pl.DataFrame(mapping).write_csv(full / "study_mapping_20250611.tsv", separator="\t")
    people = {
        "person_id": range(900_000, 919_400), "gender_concept_id": [8532, 8507] * 9_700, "race_concept_id": [8527] * 19_400,
        "ethnicity_concept_id": [38003564] * 19_400, "birth_DATETIME": ["1950-01-01T00:00:00"] * 19_400,
    }  # fmt: skip
    pl.DataFrame(people).write_csv(tmp_path / "person.csv")
    cohort = read(tmp_path)
    assert cohort.studies.height == n
    assert cohort.studies.get_column("patient_id").n_unique() == 19_400


def test_the_newest_of_several_stamps_is_taken(forms):
    assert locate_release(forms / "omop").labels.name == f"labels_{STAMP}.tsv"
