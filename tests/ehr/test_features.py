"""Features of the medical record: equal to a second implementation, and blind to everything from the cutoff on."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.cutoffs import check_past
from fmaudit_core.ehr.design_matrix import designs
from fmaudit_core.ehr.errors import EhrError
from fmaudit_core.ehr.features import ehr_tables
from fmaudit_core.ehr.source import Record
from tests.ehr.oracle import DAY, Event, close, expected, known, readable, tables_of, write_events

T = datetime(2015, 6, 20, 14, 30)
MIDNIGHT = T.replace(hour=0, minute=0)
STUDIES = pl.DataFrame(
    {
        "study_id": ["s1", "s2", "s3", "s4"],
        "patient_id": ["p1", "p1", "p2", "p3"],
        "split": ["train", "train", "train", "test"],
        "time": [T, T + 40 * DAY, T + 2 * DAY, None],
    }
)

#: minutes around the first study: midnights, the cutoffs themselves and both sides of them are likely
moments = st.one_of(
    st.integers(-400, 60).map(lambda day: MIDNIGHT + day * DAY),
    st.sampled_from([T, T - DAY, MIDNIGHT]).flatmap(
        lambda at: st.sampled_from([at, at - timedelta(seconds=1), at + timedelta(seconds=1)])
    ),
    st.integers(-400 * 1440, 60 * 1440).map(lambda minute: T + timedelta(minutes=minute)),
)
codes = st.sampled_from(["LOINC/1", "ICD/2", "ICD/3", "STANFORD_NOTE/x", "MEDS_DEATH", "Race/5", None])


@st.composite
def medical_records(draw):
    patients = st.sampled_from(["p1", "p2"])
    events = draw(
        st.lists(
            st.builds(
                Event, patients, st.one_of(moments, st.none()), codes, st.sampled_from([None, 0.0, 1.5, -2.0, 7.25]),
                table=st.sampled_from([None, "measurement", "condition_occurrence", "note"]),
                clarity=st.sampled_from([None, "shc_pat_enc_dx", "other"]), visit=st.sampled_from([None, None, 1, 2]),
            ),
            min_size=1, max_size=14,
        )
    )  # fmt: skip
    for patient, start, hours, kind, number in draw(
        st.lists(
            st.tuples(patients, moments, st.one_of(st.none(), st.integers(0, 300)), st.sampled_from(["IP", "OP"]),
                      st.sampled_from([None, 1, 2])),
            max_size=4,
        )
    ):  # fmt: skip
        end = None if hours is None else start + timedelta(hours=hours)
        events.append(Event(patient, start, f"Visit/{kind}", None, end, "visit_occurrence", None, number))
    # a code that every training patient has: there is always a vocabulary
    return [*events, *(Event(one, MIDNIGHT - 300 * DAY + timedelta(hours=1), "SEX/known") for one in ("p1", "p2"))]


@settings(max_examples=60, deadline=None)
@given(medical_records())
def test_features_equal_a_second_implementation(events):
    with tempfile.TemporaryDirectory() as folder:
        close(readable(tables_of(Path(folder), events, STUDIES)), expected(events, STUDIES))


@settings(max_examples=40, deadline=None)
@given(medical_records(), medical_records(), st.sampled_from(["day", "day_before"]))
def test_an_event_at_or_after_the_cutoff_never_changes_a_feature(events, more, cutoff):
    """Whatever is recorded from the cutoff on, of whatever kind, the study's row stays as it was."""
    ends = {"day": MIDNIGHT, "day_before": T - DAY}[cutoff]
    later = [
        replace(
            one, patient="p1", time=max(one.time, ends), end=None if one.end is None else max(one.end, one.time, ends)
        )
        for one in more
        if one.time is not None
    ]
    with tempfile.TemporaryDirectory() as folder:
        before = readable(tables_of(Path(folder) / "before", events, STUDIES))
        after = readable(tables_of(Path(folder) / "after", [*later, *events], STUDIES))

    def of_study(found):
        return {key: values for key, values in found.items() if key[:2] == ("s1", cutoff)}

    assert of_study(after) == of_study(before)


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        (Event("p1", MIDNIGHT - timedelta(seconds=1), "ICD/2"), {"day"}),
        (Event("p1", MIDNIGHT, "ICD/2"), set()),
        (Event("p1", T - DAY - timedelta(seconds=1), "ICD/2"), {"day", "day_before"}),
        (Event("p1", T - DAY, "ICD/2"), {"day"}),
        (Event("p1", MIDNIGHT - DAY, "ICD/2"), {"day"}),  # a date: known at the end of the day before the study
        (Event("p1", MIDNIGHT - 2 * DAY, "ICD/2"), {"day", "day_before"}),
        (Event("p1", None, "ICD/2"), set()),
        (Event("p1", T - 9 * DAY, "STANFORD_NOTE/imaging"), set()),
        (Event("p1", T - 9 * DAY, "LOINC/11503-0", table="note"), set()),
        (Event("p1", T - 9 * DAY, "MEDS_DEATH"), set()),
        (Event("p1", T - 9 * DAY, "SNOMED/419620001"), set()),
        (Event("p1", T - 9 * DAY, "x", table="death"), set()),
        (Event("p1", datetime(1950, 1, 1), "MEDS_BIRTH"), set()),
        (Event("p1", datetime(1950, 1, 1), "Gender/F"), set()),
        (Event("p1", datetime(1950, 1, 1), "x", table="person"), set()),
        (Event("p1", T - 9 * DAY, "STANFORD_OBS/Flowsheet/1"), set()),
        (Event("p1", T - 9 * DAY, "ICD/2", clarity="shc_pat_enc_dx"), set()),  # in no visit
        (Event("p2", T - 9 * DAY, "ICD/2"), set()),
    ],
)
def test_what_of_the_past_is_seen(tmp_path, event, seen):
    found = readable(tables_of(tmp_path, [event, Event("p1", T - 99 * DAY, "k")], STUDIES))
    assert {key[1] for key in found if key[0] == "s1" and key[2] != "k"} == seen


VISIT = Event("p1", MIDNIGHT - 2 * DAY, "Visit/IP", end=T + 5 * DAY, table="visit_occurrence", visit=7)
BILL = Event("p1", MIDNIGHT - 2 * DAY, "ICD/I26", table="condition_occurrence", clarity="lpch_hsp_acct_dx_list")


@pytest.mark.parametrize(
    ("visits", "bill", "seen"),
    [
        ([VISIT], BILL, False),
        ([replace(VISIT, end=None)], BILL, False),
        ([replace(VISIT, end=T - DAY)], BILL, True),
        ([replace(VISIT, end=MIDNIGHT - DAY)], BILL, True),
        ([replace(VISIT, end=MIDNIGHT)], BILL, False),  # discharged on the day of the study
        ([replace(VISIT, end=T - DAY), replace(VISIT, visit=8)], replace(BILL, visit=7), True),
        ([replace(VISIT, end=T - DAY), replace(VISIT, visit=8)], replace(BILL, visit=8), False),
        ([replace(VISIT, end=T - DAY), replace(VISIT, visit=8)], BILL, False),  # it may be either
        ([VISIT], replace(BILL, clarity="problem_list"), True),
        ([VISIT], replace(BILL, time=MIDNIGHT - DAY - timedelta(hours=3)), False),  # within the open visit
    ],
)
def test_a_bills_diagnosis_is_known_when_its_visit_ends(tmp_path, visits, bill, seen):
    events = [*visits, bill, Event("p1", T - 99 * DAY, "k")]
    found = readable(tables_of(tmp_path, events, STUDIES))
    assert (("s1", "day", "ICD/I26") in found) == seen
    # how long a stay was is not known before it ended
    ended = any(visit.end is not None and visit.end < MIDNIGHT for visit in visits)
    assert (("s1", "day", "Visit/IP/stay") in found) == ended
    assert ("s1", "day", "Visit/IP") in found


def test_without_the_origin_every_diagnosis_may_be_a_bills(tmp_path):
    events = [VISIT, replace(BILL, clarity="shc_problem_list"), Event("p1", T - 99 * DAY, "k")]
    record = write_events(tmp_path, events)
    told = pl.read_parquet(record.path)
    section = EhrSection(min_patients=1)
    assert ("s1", "day", "ICD/I26") in readable(ehr_tables(record, STUDIES, section, cache=tmp_path / "c"))
    told.drop("clarity_table").write_parquet(record.path)
    assert ("s1", "day", "ICD/I26") not in readable(ehr_tables(record, STUDIES, section, cache=tmp_path / "c"))


def test_what_is_asked_for_counts(tmp_path):
    events = [
        Event("p1", datetime(1950, 1, 1), "Gender/F"), Event("p1", None, "Race/5"),
        Event("p1", datetime(1950, 1, 1), "MEDS_BIRTH"), Event("p1", T - 9 * DAY, "STANFORD_OBS/Flowsheet/1"),
    ]  # fmt: skip
    tables = tables_of(tmp_path, events, STUDIES, demographics=True, flowsheets=True)
    assert {key[2] for key in readable(tables)} == {"Gender/F", "Race/5", "STANFORD_OBS/Flowsheet/1"}
    assert dict(tables.dropped.select("what", "n").iter_rows())["birth"] == 1


def test_a_value_that_is_no_number_is_none(tmp_path):
    """Infinite ones, and those beyond single precision, would make a probe of the whole cohort impossible."""
    events = [
        Event("p1", T - (9 - day) * DAY, "LOINC/1", value)
        for day, value in enumerate([2.5, float("nan"), float("inf"), -1e300])
    ]
    found = readable(tables_of(tmp_path, events, STUDIES))
    assert found["s1", "day", "LOINC/1"][-1] == 2.5
    assert 4 in found["s1", "day", "LOINC/1"]  # each of them is an event all the same


def test_the_cutoff_of_the_inspect_baseline_reaches_the_study_itself(tmp_path):
    events = [Event("p1", T, "at"), Event("p1", T + timedelta(seconds=1), "after"), Event("p1", MIDNIGHT, "date")]
    found = readable(tables_of(tmp_path, [*events, Event("p1", T - DAY, "day")], STUDIES, cutoff="inspect"))
    assert {key[2] for key in found if key[:2] == ("s1", "day")} == {"at", "date", "day"}
    assert {key[2] for key in found if key[:2] == ("s1", "day_before")} == {"day"}


def test_a_time_that_is_the_reports_ends_the_past_a_day_earlier(tmp_path):
    """The report of a scan late in the evening is written on the day after: its day's midnight is too late."""
    noted = STUDIES.with_columns(time_source=pl.lit("note"))
    events = [
        Event("p1", MIDNIGHT - timedelta(hours=1), "evening"),
        Event("p1", MIDNIGHT - timedelta(hours=30), "before"),
    ]
    found = readable(tables_of(tmp_path, events, noted))
    assert {key[2] for key in found if key[:2] == ("s1", "day")} == {"before"}
    ordered = STUDIES.with_columns(time_source=pl.lit("procedure"))
    found = readable(tables_of(tmp_path, events, ordered))
    assert {key[2] for key in found if key[:2] == ("s1", "day")} == {"before", "evening"}


def test_test_patients_decide_nothing(tmp_path):
    studies = STUDIES.with_columns(time=pl.col("time").fill_null(T))
    train = [Event("p1", T - 9 * DAY, "a", 1.0), Event("p2", T - 9 * DAY, "b", 3.0)]
    few = tables_of(tmp_path / "few", [*train, Event("p3", T - 9 * DAY, "a", 50.0)], studies)
    many = tables_of(
        tmp_path / "many", [*train, *(Event("p3", T - i * DAY, c, 900.0) for i in range(2, 9) for c in "abc")], studies
    )
    assert few.vocabulary.equals(many.vocabulary)
    assert "c" not in many.vocabulary["code"]
    one, other = (
        designs(tables.features, tables.rows, tables.vocabulary, windows_days=(30, 365), most=99)["day"]
        for tables in (few, many)
    )
    assert one.columns.equals(other.columns)
    assert (one.means == other.means).all()
    in_train = [i for i, study in enumerate(one.ids) if study != "s4"]
    assert (one.filled()[in_train] == other.filled()[in_train]).all()
    assert (one.filled()[one.ids.index("s4")] != other.filled()[other.ids.index("s4")]).any()


def test_what_was_left_out_is_counted(tmp_path):
    events = [
        Event("p1", T - 9 * DAY, "both"), Event("p2", T - 9 * DAY, "both"), Event("p1", T - 9 * DAY, "rare"),
        Event("p1", T - 9 * DAY, "NOTE/x"), Event("p1", T - 9 * DAY, None), Event("p1", None, "a"),
        Event("p1", T - 9 * DAY, "ICD/2", clarity="pat_enc_dx"), Event("p9", T - 9 * DAY, "a"), Event("p1", T + 90 * DAY, "both"),
    ]  # fmt: skip
    tables = tables_of(tmp_path, events, STUDIES, min_patients=2)
    n = {(what, unit): count for what, unit, count in tables.dropped.iter_rows() if count}
    assert n == {
        ("note or report", "events"): 1,
        ("without a code", "events"): 1,
        ("without a time", "events"): 1,
        ("billed in no visit that ended", "events"): 1,
        ("at or after the cutoff", "events, per study and cutoff"): 4,
        ("of codes of too few training patients", "codes"): 1,
        ("of codes of too few training patients", "study, cutoff and code"): 4,
    }
    assert tables.rows.group_by("study_id").agg(pl.col("n_events").max()).sort("study_id")["n_events"].to_list() == [
        2,
        2,
        1,
    ]
    assert len(known(events)) == 5


def test_patients_of_whom_nothing_is_known_are_counted(tmp_path):
    """A shard that was never downloaded shows here: one who is in no event looks like one who was never ill."""
    others = pl.DataFrame({"study_id": ["s5", "s6"], "patient_id": ["p0", "p7"], "split": "test", "time": [T, T]})
    events = [Event(one, T - 9 * DAY, "a") for one in ("p1", "p2", "p3")] + [Event("p7", T + DAY, "a")]
    tables = tables_of(tmp_path, events, pl.concat([STUDIES, others]))
    dropped = {what: n for what, _, n in tables.dropped.iter_rows()}
    assert dropped["of whom the record holds no event"] == 1


def test_the_order_of_events_and_studies_changes_nothing(tmp_path):
    events = [Event(p, T - d * DAY, c, d / 7) for p in ("p1", "p2") for d in range(1, 60) for c in "abc"]
    one = tables_of(tmp_path / "one", events, STUDIES)
    other = tables_of(tmp_path / "other", events[::-1], STUDIES[::-1])
    for name in ("features", "rows", "vocabulary"):
        assert getattr(one, name).equals(getattr(other, name)), name


@pytest.mark.parametrize(
    ("events", "studies", "said"),
    [
        (
            [Event("p1", T - DAY, "a")],
            STUDIES.with_columns(time=pl.lit(None, pl.Datetime("us"))),
            "no study has a time",
        ),
        ([Event("nobody", T - DAY, "a")], STUDIES, "no event of the cohort's patients"),
        ([Event("p1", T + 90 * DAY, "a")], STUDIES, "no event is before the cutoff of its patient's study"),
        (
            [Event("p1", T - DAY, "MEDS_DEATH")],
            STUDIES,
            "no code occurs before the cutoff in at least 1 training patients",
        ),
    ],
)
def test_a_record_that_tells_nothing_is_refused_with_the_cure(tmp_path, events, studies, said):
    with pytest.raises(EhrError, match=said):
        tables_of(tmp_path, events, studies)


def test_a_damaged_file_names_no_cell(tmp_path):
    record = write_events(tmp_path, [Event("p1", T - i * DAY / 7, "secret", i / 7) for i in range(1, 9000)])
    data = bytearray(record.path.read_bytes())
    data[4:64] = b"\xff" * 60  # the header of the first page
    record.path.write_bytes(bytes(data))
    with pytest.raises(EhrError, match="cannot be read") as caught:
        ehr_tables(record, STUDIES, EhrSection(min_patients=1), cache=tmp_path / "c")
    assert "secret" not in str(caught.value)
    assert not list((tmp_path / "c").iterdir())
    with pytest.raises(EhrError, match="the file of events does not exist"):
        Record("events", tmp_path / "none.csv").fingerprint()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"last_event_time": pl.col("cutoff_time")}, "rows have an event at or after its cutoff"),
        (
            {"cutoff_time": pl.col("cutoff_time") + pl.duration(hours=1)},
            "6 rows have a cutoff that differs from its study's",
        ),
        ({"split": pl.lit("test")}, "6 rows have a split that differs from its study's"),
    ],
)
def test_features_that_saw_too_much_are_refused(tmp_path, changed, said):
    rows = tables_of(tmp_path, [Event("p1", T - 9 * DAY, "a")], STUDIES).rows
    check_past(rows, STUDIES, "strict")
    with pytest.raises(EhrError, match=said):
        check_past(rows.with_columns(**changed), STUDIES, "strict")
    with pytest.raises(EhrError, match="a cutoff that differs from its study's"):
        check_past(rows, STUDIES, "inspect")
