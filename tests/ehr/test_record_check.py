"""Records as people have them: what is lost is counted, and more than 1 % stops the read unless `partial: true`."""

from __future__ import annotations

import gzip
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmaudit_core.config import EhrSection
from fmaudit_core.ehr.errors import EhrError
from fmaudit_core.ehr.features import checked, ehr_tables
from fmaudit_core.ehr.source import Record
from fmaudit_core.ehr.time_forms import form_of_times, named_forms
from fmaudit_core.tabular.errors import CohortError
from tests.ehr.oracle import readable

N = 200
STUDY = datetime(2020, 6, 15, 14, 30)
STUDIES = pl.DataFrame(
    {
        "study_id": [f"s{i}" for i in range(N)],
        "patient_id": [f"pat{i}" for i in range(N)],
        "split": ["train", "test"] * (N // 2),
        "time": [STUDY] * N,
    }
)
HEAD = "patient_id,time,code,value"


def rows(time="2020-02-05", code="DX/I26", patients=range(N)):
    return [f"pat{i},{time},{code},1" for i in patients]


def write(folder, lines, *, name="events.csv", head=HEAD):
    (folder / name).write_text("\n".join([head, *lines]) + "\n")
    return folder / name


def read(path, **settings):
    return ehr_tables(Record("events", path), STUDIES, EhrSection(**settings), cache=path.parent / "cache")


def refused(path, **settings):
    """The error's paragraph, which must hold no cell of the record."""
    with pytest.raises((EhrError, CohortError)) as caught:
        read(path, **settings)
    said = str(caught.value)
    assert "pat1" not in said
    assert "DX/" not in said
    return said


@pytest.mark.parametrize(
    ("time", "form"),
    [
        ("02/25/2020", "month first, as 12/31/2020"),
        ("2/25/2020 8:00 AM", "month first, as 12/31/2020"),
        ("25/02/2020", "day first, as 31/12/2020"),
        ("25.02.2020 08:00", "day first, as 31/12/2020"),
        ("25-02-2020", "day first, as 31/12/2020"),
        ("02/05/2020", "month or day first, as 02/05/2020"),
        ("43866", "Excel serial numbers"),
        ("43866.75", "Excel serial numbers"),
        ("1580860800000", "milliseconds since 1970"),
        ("1580860800", "seconds since 1970"),
        ("1580860800000000", "microseconds or nanoseconds since 1970"),
        ("20200205", "digits only, as 20201231"),
        ("20200205143000", "digits only, as 20201231"),
        ("05-Feb-2020", "names of months"),
        ("Feb 5, 2020", "names of months"),
        ("5. März 2020", "names of months"),
        ("2020-02-05 02:30 PM", "a 12-hour clock"),
        ("2020/02/05", "other separators"),
        ("05-02-20", "a year of two digits"),
        ("2/5/20", "a year of two digits"),
        ("soon", "text that is not a time"),
    ],
)
def test_times_of_another_form_are_refused_by_their_form(tmp_path, time, form):
    said = refused(write(tmp_path, [line.replace(time, f'"{time}"') for line in rows(time)]))
    assert "200 of 200 rows cannot be used" in said
    assert f"200 with {form}" in said
    assert "2020-02-05 14:30" in said


def test_half_of_the_rows_of_a_second_site_are_counted_and_partial_goes_on(tmp_path):
    path = write(tmp_path, [*rows(), *rows("02/25/2020", "DX/J18"), *rows("02/05/2020", "DX/J18")])
    said = refused(path)
    assert "400 of 600 rows" in said
    assert "400 with month first" in said  # the others could be either, so they are taken for the same
    assert "`ehr: partial: true`" in said
    tables = read(path, partial=True)
    assert tables.vocabulary["code"].to_list() == ["DX/I26"]
    dropped = {what: n for what, _, n in tables.dropped.iter_rows()}
    assert dropped["with a time of another form"] == 400
    assert dropped["without a time"] == 0


def test_a_few_lost_rows_do_not_stop_a_read_and_are_counted(tmp_path):
    few = ["pat3,never,DX/I26,1", ",2020-02-05,DX/I26,1", *rows(code="DX/\ufffddem", patients=[3, 4])]
    path = write(tmp_path, [*rows(), *rows(code="DX/J18"), *few])
    tables = read(path)
    dropped = {what: n for what, _, n in tables.dropped.iter_rows()}
    assert dropped["with a time of another form"] == 1
    assert dropped["without a patient id"] == 1
    assert dropped["without a code"] == 2  # a damaged code is none
    assert sorted(tables.vocabulary["code"]) == ["DX/I26", "DX/J18"]
    look = checked(Record("events", path), STUDIES, EhrSection(), cache=tmp_path / "cache").look
    assert (look.n_rows, look.n_lost, look.n_before) == (404, 4, 402)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (["pat1,,DX/I26,1"], "without a time"),
        (["pat1,NaT,DX/I26,1"], "without a time"),
        (["pat1,not recorded,DX/I26,1"], "without a time"),
        (["pat1,2020-02-05,,1"], "without a code"),
        ([" ,2020-02-05,DX/I26,1"], "without a patient id"),
        (["pat1,2020-02-05,DX/\ufffddem,1"], "with a code that an earlier conversion has damaged"),
        (["pat1,2020-02-05"], "without a code"),
    ],
)
def test_rows_that_cannot_be_used_stop_the_read_with_their_reason(tmp_path, bad, reason):
    said = refused(write(tmp_path, [*rows(), *bad * 20]))
    assert f"20 of 220 rows cannot be used, which is too many: 20 {reason}." in said


def test_static_rows_need_no_time(tmp_path):
    path = write(tmp_path, [*rows(), *rows("", "GENDER/F"), *rows("", "MEDS_BIRTH")])
    assert read(path).vocabulary["code"].to_list() == ["DX/I26"]


@pytest.mark.parametrize("time", ["2020-06-15", "2020-06-15 00:00", "2020-06-15 13:30", "2020-06-15T08:00:00Z"])
def test_events_of_the_day_alone_are_told_from_none(tmp_path, time):
    said = refused(write(tmp_path, [*rows(time), *rows("2020-06-16 09:00")]))
    assert "200 are on the day of the study at or after the cutoff, 200 on a later day" in said
    assert "midnight before the study's day" in said


def test_events_of_the_day_count_under_the_rule_of_inspect(tmp_path):
    path = write(tmp_path, rows("2020-06-15 13:30"))
    assert read(path, cutoff="inspect").vocabulary.height == 1


def test_ends_of_another_form_are_refused(tmp_path):
    lines = [f"pat{i},2020-02-05,Visit/IP,1,02/25/2020" for i in range(N)]
    said = refused(write(tmp_path, lines, head=f"{HEAD},end"))
    assert "200 of 200 rows have an end that is not read: 200 with month first" in said
    path = write(tmp_path, lines, head=f"{HEAD},end")
    assert read(path, partial=True).vocabulary["code"].to_list() == ["Visit/IP"]


@pytest.mark.parametrize(
    ("written", "what"),
    [("pat{}.0", "`.0` at their end"), ("00pat{}", "zeros at their start"), ("PAT{}", "capital letters")],
)
def test_ids_that_differ_by_spelling_only_are_told_and_never_matched(tmp_path, written, what):
    said = refused(write(tmp_path, [f"{written.format(i)},2020-02-05,DX/I26,1" for i in range(N)]))
    assert "holds no event of the cohort's patients (it has 200 rows)" in said
    assert f"the ids of 200 differ from the cohort's by {what} only" in said


def test_a_second_site_that_spells_ids_otherwise_is_not_lost_quietly(tmp_path):
    path = write(tmp_path, [*rows(patients=range(100)), *(f"PAT{i},2020-02-05,DX/J18,1" for i in range(100, N))])
    assert "it lacks patients of the cohort, but the ids of 100 differ" in refused(path)
    tables = read(path, partial=True)
    assert dict(tables.dropped.select("what", "n").iter_rows())["of whom the record holds no event"] == 100
    write(tmp_path, [*rows(patients=range(100)), *(f"other{i},2020-02-05,DX/J18,1" for i in range(100))])
    assert read(path).rows["n_events"].sum() == 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n".join(rows()), "has no header"),
        ("patient_id,time,code,time\npat1,2020-01-01,a,2020-01-01\n", "column time appears twice"),
        ("\n".join([HEAD, *rows(), "pat1,2020-01-01,a,1,2,3"]), "row 202: more cells than the header's"),
        ("\n".join([HEAD, *rows(), "pat1,2020-01-01,a, b,1"]), "row 202: more cells than the header's"),
        ("\n".join(["sep=,", HEAD, *rows()]), "its first line is `sep=`, as Excel writes it. Remove this line."),
        ("\n".join(["# of 2024", HEAD, *rows()]), "line 1 is a comment, not a header"),
        ("\n".join(["Export", HEAD, *rows()]), "line 1 has one cell and the next line 4"),
        ("\n".join([HEAD, *rows()]).replace(",", "^"), "no comma, semicolon, tab or | separates its cells; it has '^'"),
        (f"{HEAD}\n", "holds no event of the cohort's patients"),
        ("", "is empty"),
    ],
)
def test_headers_and_widths_are_named(tmp_path, text, said):
    (tmp_path / "events.csv").write_text(text)
    assert said in refused(tmp_path / "events.csv")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", "|"),
        lambda text: text.replace(HEAD, "patient_id , TIME,\u00a0code, value"),
        lambda text: text.replace("pat", "\u00a0pat").replace(",2020", "\u200b,2020"),
    ],
)
def test_other_spellings_of_a_file_are_the_same_record(tmp_path, change):
    want = read(write(tmp_path, rows())).rows
    text = (tmp_path / "events.csv").read_text()
    (tmp_path / "events.csv").write_text(change(text))
    assert read(tmp_path / "events.csv").rows.equals(want)


def test_ids_and_codes_that_an_export_wrote_as_words_are_missing(tmp_path):
    lines = [*rows(), *(f"{word},2020-02-05,DX/I26,1" for word in ("nan", "NULL")), "pat1,2020-02-05,nan,1"]
    said = refused(write(tmp_path, [*lines, *lines[-3:]]))
    assert "6 of 206 rows cannot be used" in said
    assert "4 without a patient id" in said
    assert "2 without a code" in said
    assert "NA" in read(write(tmp_path, rows(code="NA"))).vocabulary["code"].to_list()


def test_a_workbook_is_no_table(tmp_path):
    (tmp_path / "events.xlsx").write_bytes(b"PK")
    assert "is neither CSV nor Parquet" in refused(tmp_path / "events.xlsx")


def test_text_in_parquet_is_held_to_the_same_rules(tmp_path):
    frame = pl.DataFrame({"patient_id": [f"pat{i}" for i in range(N)], "time": "02/25/2020", "code": "a"})
    frame.write_parquet(tmp_path / "e.parquet")
    assert "200 with month first" in refused(tmp_path / "e.parquet")


def test_omop_tables_are_held_to_the_same_rules(tmp_path):
    (tmp_path / "omop").mkdir()
    ids = STUDIES.with_columns(patient_id=pl.Series([str(i) for i in range(N)]))
    lines = [f"{i},{{time}},320128" for i in range(N)]

    def said(time, encoding="utf-8"):
        text = "\n".join(["person_id,condition_start_date,condition_concept_id", *lines]).format(time=time)
        (tmp_path / "omop" / "condition_occurrence.csv").write_bytes(text.encode(encoding))
        record = Record("omop", tmp_path / "omop")
        with pytest.raises((EhrError, CohortError)) as caught:
            ehr_tables(record, ids, EhrSection(), cache=tmp_path / "cache")
        return str(caught.value)

    assert "200 with month first" in said("02/25/2020")
    assert "condition_occurrence.csv: line 1 is not UTF-8" in said("2020-02-05", "utf-16")


#: how one day is written by the exports that are read
FORMS = ("%Y-%m-%d", "%Y-%m-%d 00:00", "%Y-%m-%d 00:00:00", "%Y-%m-%dT00:00:00Z", " %Y-%m-%d ", "%Y-%m-%d 00:00:00.000")


@given(st.lists(st.tuples(st.integers(1, 2_000), st.sampled_from(FORMS)), min_size=1, max_size=30))
def test_spellings_of_one_time_give_the_same_features(tmp_path_factory, drawn):
    folder = tmp_path_factory.mktemp("spelled")
    days = [(STUDY - timedelta(days=ago), form) for ago, form in drawn]
    plain = [f"pat{i},{day:%Y-%m-%d},DX/{i % 3},1" for i, (day, _) in enumerate(days)]
    spelled = [f'pat{i},"{day.strftime(form)}",DX/{i % 3},1' for i, (day, form) in enumerate(days)]
    settings = {"min_patients": 1}
    want = read(write(folder, plain), **settings)
    assert readable(read(write(folder, spelled, name="spelled.csv"), **settings)) == readable(want)


@given(
    st.datetimes(datetime(1950, 1, 1), datetime(2150, 12, 31)), st.sampled_from(["%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y"])
)
def test_a_day_beyond_the_twelfth_shows_its_order(day, form):
    told = pl.DataFrame({"t": [day.strftime(form)]}).select(form_of_times(pl.col("t"))).item()
    wanted = "month or day first" if day.day <= 12 else "month first" if form.startswith("%m") else "day first"
    assert told.startswith(wanted)
    assert named_forms({told: 7}) == f"7 with {told}"


def test_a_file_that_ends_in_the_middle_of_a_row_is_refused(tmp_path):
    path = write(tmp_path, rows())
    whole = path.read_text()
    path.write_text(whole.rstrip("\n")[:-4])
    assert "its last line has fewer cells than the header and no line end" in refused(path)
    path.write_text(whole.rstrip("\n"))
    read(path)
    path.write_text(whole + 'pat3,2020-02-05,DX/I26,"1\n2"')
    read(path)


def test_blank_rows_of_a_spreadsheet_are_no_events(tmp_path):
    single = read(write(tmp_path, rows(), name="a.csv"))
    double = read(write(tmp_path, [f"{row}\n,,," for row in rows()] + [""] * 99, name="b.csv"))
    assert double.features.equals(single.features)


def test_text_held_as_codes_and_other_separators_of_compressed_files_are_read(tmp_path):
    want = read(write(tmp_path, rows()))
    table = pl.read_csv(tmp_path / "events.csv", infer_schema=False)
    table.cast(pl.Categorical).write_parquet(tmp_path / "events.parquet")
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(table.write_csv(separator=";").encode()))
    for name in ("events.parquet", "events.csv.gz"):
        assert read(tmp_path / name).features.equals(want.features)
    table.with_columns(pl.concat_list("code")).write_parquet(tmp_path / "nested.parquet")
    assert "code holds List(String). Write one event per row" in refused(tmp_path / "nested.parquet")
    write(tmp_path, [])
    assert "it has no rows. Export the events" in refused(tmp_path / "events.csv")


def test_values_that_are_not_recorded_are_none_and_infinite_ones_are_no_numbers(tmp_path):
    words = ["NULL", "-", "N/A", "inf", "<5", "7"]
    lines = [f"pat{i},2020-02-05,LAB/X,{words[i % len(words)]}" for i in range(N)]
    value = checked(
        Record("events", write(tmp_path, lines)), STUDIES, EhrSection(), cache=tmp_path / "cache"
    ).events.select("value")
    value = value.collect().get_column("value")
    assert value.null_count() == sum(i % 6 < 3 for i in range(N))
    assert value.is_nan().sum() == sum(i % 6 in (3, 4) for i in range(N))
    assert value.fill_nan(None).max() == 7
