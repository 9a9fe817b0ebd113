"""MEDS, OMOP and a plain table of events: the same record gives the same features, and no planted trap is seen in any of them."""

from __future__ import annotations

import shutil
from datetime import timedelta

import polars as pl
import pytest

from fmaudit_core.cohort.errors import CohortError
from fmaudit_core.config import EhrSection, InspectCohort, TableCohort
from fmaudit_core.ehr.features import ehr_tables
from fmaudit_core.ehr.source import Record, record_of
from tests.cohort.inspect_twin import Twin
from tests.ehr.oracle import Event, close, expected, readable

TWIN = Twin()
STUDIES = TWIN.truth.select("study_id", "patient_id", "split", "time")
SETTINGS = EhrSection(min_patients=1)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """The twin's record in each form, and its features."""
    top = tmp_path_factory.mktemp("forms")
    TWIN.write_omop(top / "omop" / "tables")
    TWIN.write_omop(top / "shards" / "tables", shards=True)
    TWIN.write_ehr(top / "meds", top / "scratch")
    (top / "events").mkdir()
    plain = (
        TWIN.events.rename({"person_id": "patient_id"})
        .drop("planted")
        .with_columns(pl.col("patient_id").cast(pl.String))
    )
    plain.write_csv(top / "events" / "events.csv")
    records = {form: record_of(InspectCohort(kind="inspect", root=top / form)) for form in ("omop", "meds")}
    records["events"] = record_of(TableCohort(kind="table", table=top / "x.csv", events=top / "events" / "events.csv"))
    tables = {form: ehr_tables(one, STUDIES, SETTINGS, cache=top / f"cache-{form}") for form, one in records.items()}
    return top, records, tables


def test_each_form_is_found(forms):
    assert {name: record.form for name, record in forms[1].items()} == {
        "omop": "omop",
        "meds": "meds",
        "events": "events",
    }
    assert all(len(record.fingerprint()) == 32 for record in forms[1].values())


@pytest.mark.parametrize("form", ["omop", "events"])
def test_every_form_gives_the_very_same_features(forms, form):
    meds, other = forms[2]["meds"], forms[2][form]
    assert meds.features.height > 1000
    for name in ("features", "rows", "vocabulary"):
        assert getattr(meds, name).equals(getattr(other, name)), name


def test_they_are_those_of_a_second_implementation(forms):
    events = [
        Event(
            str(one["person_id"]),
            one["time"],
            one["code"],
            one["value"],
            one["end"],
            one["table"],
            one["clarity_table"],
        )
        for one in TWIN.events.iter_rows(named=True)
    ]
    close(readable(forms[2]["meds"]), expected(events, STUDIES))


@pytest.mark.parametrize("form", ["meds", "omop", "events"])
def test_no_trap_is_seen(forms, form):
    """The diagnosis by a bill, the open stay's length, the value at t, the note: none is in the study's past."""
    one = next(one for one in TWIN.studies if one.split == "test" and one.labels["pe"])
    of_study = {key[2]: values for key, values in readable(forms[2][form]).items() if key[0] == one.impression_id}
    earlier = TWIN.events.filter(
        (pl.col("person_id") == one.person.person_id)
        & pl.col("planted").is_null()
        & (pl.col("time") < one.time - timedelta(days=1))
    )
    codes = set(earlier["code"])
    assert {"ICD10CM/I26.99", "STANFORD_NOTE/imaging"} & codes == set()
    assert of_study.keys() <= codes | {f"{code}/stay" for code in codes} | {"Visit/IP"}
    assert of_study["LOINC/48065-7"][-1] != 9_999.0
    assert "STANFORD_NOTE/imaging" not in forms[2][form].vocabulary["code"]
    assert not forms[2][form].vocabulary["code"].str.starts_with("MEDS_").any()


def test_shards_read_as_one_table(forms):
    """The twin's shards overlap by nothing and leave some rows out: those there are count."""
    top = forms[0]
    shards = record_of(InspectCohort(kind="inspect", root=top / "shards"))
    tables = ehr_tables(shards, STUDIES, SETTINGS, cache=top / "cache-shards")
    values = tables.vocabulary.filter(pl.col("code").str.starts_with("LOINC"))
    assert 0 < values["n_patients"].max() <= forms[2]["omop"].vocabulary["n_patients"].max()
    assert shards.fingerprint() != forms[1]["omop"].fingerprint()


def test_studies_without_a_time_have_no_row(forms):
    timed = STUDIES.drop_nulls("time")
    assert timed.height < STUDIES.height
    assert set(forms[2]["meds"].rows["study_id"]) == set(timed["study_id"])


def test_a_table_cohort_without_events_and_a_download_without_a_record_have_none(tmp_path):
    assert record_of(TableCohort(kind="table", table=tmp_path / "x.csv")) is None
    assert record_of(InspectCohort(kind="inspect", root=tmp_path)) is None
    TWIN.write_omop(tmp_path / "omop")
    for path in (tmp_path / "omop").iterdir():  # persons alone are no record
        if path.stem not in ("person", "death", "concept"):
            path.unlink()
    assert record_of(InspectCohort(kind="inspect", root=tmp_path)) is None


def test_a_vocabulary_that_is_missing_leaves_numbers(forms, tmp_path):
    shutil.copytree(forms[0] / "omop", tmp_path / "omop")
    (tmp_path / "omop" / "tables" / "concept.csv").unlink()
    tables = ehr_tables(Record("omop", tmp_path / "omop" / "tables"), STUDIES, SETTINGS, cache=tmp_path / "c")
    assert tables.vocabulary["code"].str.starts_with("OMOP/20").all()
    assert tables.features.height > 0


def test_a_blank_time_is_the_date_beside_it(forms, tmp_path):
    """OMOP asks for dates alone: where the time of day is blank the event is of that day, and is known at its end."""
    tables = shutil.copytree(forms[0] / "omop" / "tables", tmp_path / "omop")
    path = tables / "measurement.csv"
    told = pl.read_csv(path, infer_schema=False)
    blank = pl.int_range(pl.len()) % 2 == 0
    timed = pl.when(~blank).then(pl.col("measurement_DATETIME")).alias("measurement_DATETIME")
    # a value that is a time stands for no time of the event
    told.with_columns(timed, value_as_datetime=pl.lit("2001-01-01 00:00:00")).write_csv(path)
    found = ehr_tables(Record("omop", tables), STUDIES, SETTINGS, cache=tmp_path / "c")
    dated = pl.when(blank).then(pl.col("measurement_DATE")).otherwise("measurement_DATETIME")
    told.with_columns(dated.alias("measurement_DATETIME")).drop("measurement_DATE").write_csv(path)
    want = ehr_tables(Record("omop", tables), STUDIES, SETTINGS, cache=tmp_path / "c")
    assert found.features.equals(want.features)
    assert not found.features.equals(forms[2]["omop"].features)
    assert dict(found.dropped.select("what", "n").iter_rows())["without a time"] == 0


def test_demographics_that_are_asked_for_are_those_of_meds(forms, tmp_path):
    """MEDS has persons as events of their birth, OMOP as a table; two of the twin's races have codes of the hospital in MEDS."""
    asked, told = EhrSection(min_patients=1, demographics=True), {}
    of_hospital = ["Race/2", "Race/other", "Race/source-asian", "Race/source-other"]
    for form in ("omop", "meds"):
        tables = ehr_tables(forms[1][form], STUDIES, asked, cache=tmp_path / form)
        named = tables.features.join(tables.vocabulary, on="code_id").join(tables.rows, on="row")
        of_person = named.filter(pl.col("code").str.contains("^(Gender|Race|Ethnicity)/"))
        told[form] = of_person.select("study_id", "cutoff", "code", "days", "days_ago").sort(
            "study_id", "cutoff", "code"
        )
    asians = [told[form].filter(code=code).height for form, code in (("omop", "Race/2"), ("meds", "Race/source-asian"))]
    assert asians[0] == asians[1] > 0
    alike = [one.filter(~pl.col("code").is_in(of_hospital)) for one in told.values()]
    assert alike[0].height > 200
    assert alike[0].equals(alike[1])
    sexes = dict(told["omop"].filter(pl.col("code").str.starts_with("Gender/")).select("study_id", "code").iter_rows())
    timed = [one for one in TWIN.studies if one.impression_id in set(STUDIES.drop_nulls("time")["study_id"])]
    assert sexes == {one.impression_id: {"female": "Gender/F", "male": "Gender/M"}[one.person.sex] for one in timed}
    (tmp_path / "bare").mkdir()
    shutil.copy(forms[0] / "omop" / "tables" / "condition_occurrence.csv", tmp_path / "bare")
    with pytest.raises(CohortError, match="the OMOP table person is missing"):
        ehr_tables(Record("omop", tmp_path / "bare"), STUDIES, asked, cache=tmp_path / "c")


def test_one_shard_without_the_origin_leaves_every_diagnosis_untold(forms, tmp_path):
    """Which shard comes first decides nothing: where any does not tell, all diagnoses may be a bill's."""
    found = []
    for shards in (["data_0"], ["data_1"], ["data_0", "data_1"]):
        folder = shutil.copytree(forms[0] / "scratch" / "meds_omop_inspect", tmp_path / "-".join(shards))
        for name in shards:
            path = folder / "data" / f"{name}.parquet"
            pl.read_parquet(path).drop("clarity_table").write_parquet(path)
        found.append(ehr_tables(Record("meds", folder), STUDIES, SETTINGS, cache=tmp_path / "c").features)
    assert found[0].equals(found[2])
    assert found[1].equals(found[2])
    assert not found[2].equals(forms[2]["meds"].features)


def test_a_column_that_is_missing_is_named(tmp_path):
    (tmp_path / "e.csv").write_text("patient_id,when,code\np1,2020-01-01,a\n")
    with pytest.raises(CohortError, match=r"e\.csv: column time is missing .* the columns are patient_id, when, code"):
        ehr_tables(Record("events", tmp_path / "e.csv"), STUDIES, SETTINGS, cache=tmp_path / "c")
