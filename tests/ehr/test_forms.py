"""MEDS, OMOP and a plain table of events: the same record gives the same features, and no planted trap is seen in any of them."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

import polars as pl
import pytest

from fmaudit_core.config import EhrSection, InspectCohort, TableCohort
from fmaudit_core.ehr.features import ehr_tables
from fmaudit_core.ehr.source import Record, record_of
from fmaudit_core.tabular.errors import CohortError
from tests.cohort.inspect_release.inspect_twin import Twin
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


def test_a_diagnosis_that_does_not_tell_where_it_is_from_may_be_a_bill_row_by_row(forms, tmp_path):
    """A shard without the column, and one whose cells are blank, leave their own diagnoses untold and no others."""
    found = []
    for blank in (False, True):
        folder = shutil.copytree(forms[0] / "scratch" / "meds_omop_inspect", tmp_path / f"{blank}")
        path = folder / "data" / "data_0.parquet"
        shard = pl.read_parquet(path)
        untold = shard.with_columns(clarity_table=pl.lit(" ")) if blank else shard.drop("clarity_table")
        untold.write_parquet(path)
        found.append(ehr_tables(Record("meds", folder), STUDIES, SETTINGS, cache=tmp_path / "c"))
    assert found[0].features.equals(found[1].features)
    assert not found[0].features.equals(forms[2]["meds"].features)
    theirs = TWIN.events.filter(pl.col("person_id").is_in(shard["subject_id"].implode()))["person_id"].cast(pl.String)
    others = STUDIES.filter(~pl.col("patient_id").is_in(theirs.unique().implode()))["study_id"]
    kept, of_all = (
        {key: values for key, values in readable(one).items() if key[0] in set(others)}
        for one in (found[0], forms[2]["meds"])
    )
    assert kept == of_all
    assert kept


def test_of_a_release_without_the_tables_names_diagnoses_are_known_by_their_code(forms, tmp_path):
    folder = shutil.copytree(forms[0] / "scratch" / "meds_omop_inspect", tmp_path / "meds")
    for path in (folder / "data").iterdir():
        shard = pl.read_parquet(path)
        shard.filter(pl.col("table").fill_null("") != "note").drop("table", "clarity_table").write_parquet(path)
    tables = ehr_tables(Record("meds", folder), STUDIES, SETTINGS, cache=tmp_path / "c")
    untold = dict(tables.dropped.select("what", "n").iter_rows())["billed in no visit that ended"]
    told = dict(forms[2]["meds"].dropped.select("what", "n").iter_rows())["billed in no visit that ended"]
    assert untold > told


def test_a_column_that_is_missing_is_named(tmp_path):
    (tmp_path / "e.csv").write_text("patient_id,when,code\np1,2020-01-01,a\n")
    with pytest.raises(CohortError, match=r"e\.csv: column time is missing .* the columns are patient_id, when, code"):
        ehr_tables(Record("events", tmp_path / "e.csv"), STUDIES, SETTINGS, cache=tmp_path / "c")


T = datetime(2020, 2, 5, 14, 30)
ONE = pl.DataFrame({"study_id": ["s1"], "patient_id": ["p1"], "split": ["train"], "time": [T]})


def told_by(path, **settings):
    """What one study's past holds, and what was left out, of a table of events."""
    tables = ehr_tables(Record("events", path), ONE, EhrSection(min_patients=1, **settings), cache=path.parent / "c")
    codes = {key[2]: values for key, values in readable(tables).items() if key[1] == "day"}
    return codes, dict(tables.dropped.select("what", "n").iter_rows())


@pytest.mark.parametrize(
    "times", [[20200205, 20190101], [20200205.0, 20190101.0], [1580860800, 1546300800], [True, False]]
)
def test_a_time_that_is_a_number_is_refused(tmp_path, times):
    """As microseconds since 1970 any of them would lie in the past of every study."""
    rows = pl.DataFrame({"patient_id": ["p1", "p1"], "time": times, "code": ["a", "b"]})
    rows.write_parquet(tmp_path / "e.parquet")
    with pytest.raises(CohortError, match=r"e\.parquet: column time holds .*, which is neither a date nor a time"):
        told_by(tmp_path / "e.parquet")
    (tmp_path / "meds" / "data").mkdir(parents=True)
    numbered = rows.with_columns(subject_id=pl.lit(1)).drop("patient_id")
    numbered.write_parquet(tmp_path / "meds" / "data" / "0.parquet")
    with pytest.raises(CohortError, match=r"0\.parquet: column time holds"):
        ehr_tables(Record("meds", tmp_path / "meds"), ONE, SETTINGS, cache=tmp_path / "c")


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_a_zone_does_not_move_an_event_across_the_day_of_the_study(tmp_path, zone):
    """The clock at the bedside counts: 00:10 on the study's day is never the evening before, wherever the hospital is."""
    clock = [datetime(2020, 2, 5, 0, 10), datetime(2020, 2, 4, 23, 50)]
    times = pl.Series(clock, dtype=pl.Datetime("us")).dt.replace_time_zone(zone)
    pl.DataFrame({"patient_id": ["p1"] * 2, "time": times, "code": ["that day", "before"]}).write_parquet(
        tmp_path / "e.parquet"
    )
    codes, dropped = told_by(tmp_path / "e.parquet")
    assert codes.keys() == {"before"}
    assert dropped["without a time"] == 0


@pytest.mark.parametrize("offset", ["", "Z", " UTC", "+09:00", "+0900", "+09", "-08:00"])
def test_neither_does_an_offset_in_text(tmp_path, offset):
    lines = [
        f"p1,2020-02-05T00:10:00{offset},that day",
        f"p1,2020-02-04 23:50:00.25{offset},before",
        "p1,2020-02-04,date",
    ]
    (tmp_path / "e.csv").write_text("\n".join(["patient_id,time,code", *lines]))
    codes, dropped = told_by(tmp_path / "e.csv")
    assert codes.keys() == {"before", "date"}
    assert dropped["without a time"] == 0


@pytest.mark.parametrize("visits", [("1", "2"), ("V-001", "V-002"), ("7.0", "8.0")])
def test_a_visit_is_known_by_whatever_names_it(tmp_path, visits):
    """The diagnosis stands at its visit's start; the visit that ended before the study tells it, the open one does not."""
    lines = [
        f"p1,2020-01-02 08:00:00,Visit/IP,visit_occurrence,,{visits[0]},2020-01-09 12:00:00",
        f"p1,2020-01-02 08:00:00,ICD/told,condition_occurrence,,{visits[0]},",
        f"p1,2020-02-04 08:00:00,Visit/IP,visit_occurrence,,{visits[1]},",
        f"p1,2020-02-04 08:00:00,ICD/billed,condition_occurrence,,{visits[1]},",
        f"p1,2020-02-04 08:00:00,ICD/of the list,condition_occurrence,problem_list,{visits[1]},",
    ]
    (tmp_path / "e.csv").write_text("\n".join(["patient_id,time,code,table,clarity_table,visit_id,end", *lines]))
    codes, dropped = told_by(tmp_path / "e.csv")
    assert codes.keys() == {"Visit/IP", "Visit/IP/stay", "ICD/told", "ICD/of the list"}
    assert codes["ICD/told"][3] == pytest.approx((datetime(2020, 2, 5) - datetime(2020, 1, 9, 12)) / timedelta(days=1))
    assert dropped["billed in no visit that ended"] == 1


def test_a_decimal_comma_is_read_and_a_value_that_is_no_number_is_counted(tmp_path):
    lines = [
        "p1;2020-01-02 08:00:00;LAB/1;7,5",
        "p1;2020-01-02 08:00:00;LAB/2;positive",
        "p1;2020-01-03 08:00:00;LAB/3;",
    ]
    (tmp_path / "e.csv").write_text("\n".join(["patient_id;time;code;value", *lines]))
    codes, dropped = told_by(tmp_path / "e.csv")
    assert [codes[f"LAB/{i}"][-1] for i in (1, 2, 3)] == [7.5, None, None]
    assert dropped["value that is no number"] == 1
    (tmp_path / "c.csv").write_text('patient_id,time,code,value\np1,2020-01-02 08:00:00,LAB/1,"7,5"\n')
    codes, dropped = told_by(tmp_path / "c.csv")  # which comma that is cannot be known
    assert codes["LAB/1"][-1] is None
    assert dropped["value that is no number"] == 1
