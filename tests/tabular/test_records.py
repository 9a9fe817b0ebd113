"""OMOP and MEDS files as exports leave them: where they lie, which column tells the time, how ids and times read."""

from __future__ import annotations

from datetime import datetime

import polars as pl
import pytest

from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.meds import MedsDataset, find_meds, open_meds
from fmaudit_core.tabular.omop import find_omop, time_columns
from fmaudit_core.tabular.scan import Column, collected, id_text, moment, whole_number
from tests.cohort.inspect_release.inspect_twin import Twin

TWIN = Twin()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    top = tmp_path_factory.mktemp("records")
    TWIN.write_omop(top / "deep" / "omop", shards=True)
    TWIN.write_ehr(top / "ehr", top / "scratch")
    return top


def test_a_table_of_shards_reads_as_one(written):
    tables = find_omop(written)
    assert set(tables.files) == {
        "person", "visit_occurrence", "condition_occurrence", "measurement", "drug_exposure", "death", "concept",
    }  # fmt: skip
    assert len(tables.files["measurement"]) == 2
    columns = tables.columns("measurement")
    at, *others = time_columns(columns)
    assert (at, others) == ("measurement_DATETIME", ["measurement_DATE"])
    wanted = [Column("person_id", ("person_id",)), Column("time", (at,)), Column("code", ("measurement_source_value",))]
    scan = tables.scan("measurement", wanted)
    assert isinstance(scan, pl.LazyFrame)
    rows = collected(scan.select(whole_number("person_id"), moment("time"), "code"), where="measurement")
    assert rows.equals(TWIN.events.filter(table="measurement").select("person_id", "time", "code"))
    with pytest.raises(CohortError, match=r"the OMOP table observation is missing; it holds observations"):
        tables.scan("observation", wanted)


def test_events_of_meds_are_a_scan_and_the_same_events(written, tmp_path):
    found = find_meds(written / "ehr")
    assert found.name == "meds_omop_inspect.tar.gz"
    dataset = open_meds(found, unpack_into=tmp_path)
    assert len(dataset.shards) == 2
    events = dataset.events([Column("numeric_value", ("numeric_value",), needed=False)])
    assert isinstance(events, pl.LazyFrame)
    labs = collected(events.filter(pl.col("code").str.starts_with("LOINC")), where="meds")
    assert labs.height == TWIN.events.filter(pl.col("code").str.starts_with("LOINC")).height
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert open_meds(found, unpack_into=tmp_path).shards == dataset.shards  # unpacked once
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_older_names_of_the_subject_and_a_reader_database(tmp_path):
    (tmp_path / "meds_reader_omop_inspect" / "data").mkdir(parents=True)
    pl.DataFrame({"x": [1]}).write_parquet(tmp_path / "meds_reader_omop_inspect" / "data" / "0.parquet")
    assert find_meds(tmp_path) is None
    (tmp_path / "meds" / "data").mkdir(parents=True)
    path = tmp_path / "meds" / "data" / "0.parquet"
    events = pl.DataFrame({"patient_id": [7], "time": [datetime(2020, 1, 2)], "code": ["a"]})
    events.write_parquet(path)
    assert find_meds(tmp_path) == tmp_path / "meds"
    dataset = MedsDataset(tmp_path / "meds", (path,))
    assert dataset.events().collect().row(0) == (7, datetime(2020, 1, 2), "a")
    assert dataset.codes().height == dataset.subject_splits().height == 0
    events.drop("code").write_parquet(path)
    with pytest.raises(CohortError, match=r"0\.parquet: column code is missing; the columns are patient_id, time"):
        dataset.events()
    path.write_bytes(b"PAR1 cut off")
    with pytest.raises(CohortError, match="cannot be read as a table"):
        dataset.events()


@pytest.mark.parametrize(
    ("columns", "start", "end"),
    [
        (
            ["visit_start_DATE", "visit_start_DATETIME", "visit_end_DATE"],
            ["visit_start_DATETIME", "visit_start_DATE"],
            ["visit_end_DATE"],
        ),
        (
            ["drug_exposure_start_date", "drug_exposure_end_datetime"],
            ["drug_exposure_start_date"],
            ["drug_exposure_end_datetime"],
        ),
        (["measurement_DATE", "measurement_DATETIME"], ["measurement_DATETIME", "measurement_DATE"], []),
        (["observation_date", "value"], ["observation_date"], []),
        (["concept_id"], [], []),
    ],
)
def test_the_most_exact_time_comes_first(columns, start, end):
    assert time_columns(columns) == start
    assert time_columns(columns, end=True) == end


def test_ids_and_times_as_exports_write_them():
    ids = pl.DataFrame({"id": ["92629710.0", " 92629710 ", "-5", "007", "", "x1", None]})
    assert ids.select(whole_number("id"))["id"].to_list() == [92629710, 92629710, -5, 7, None, None, None]
    assert ids.select(id_text("id"))["id"].to_list() == ["92629710", "92629710", "-5", "007", None, "x1", None]
    assert pl.DataFrame({"id": [92629710.0, 3.0]}).select(whole_number("id"))["id"].to_list() == [92629710, 3]
    when = datetime(2129, 9, 4, 1, 46)  # dates may be shifted far ahead
    texts = [
        "2129-09-04T01:46:00",
        "2129-09-04 01:46:00",
        "2129-09-04 01:46",
        "2129-09-04T01:46:00.000Z",
        "2129-09-04 01:46:00 UTC",
    ]
    assert pl.DataFrame({"t": texts}).select(moment("t"))["t"].to_list() == [when] * 5
    others = pl.DataFrame({"t": ["2129-09-04", "soon", None]}).select(moment("t"))["t"].to_list()
    assert others == [datetime(2129, 9, 4), None, None]


def test_the_twin_holds_every_trap_in_both_forms(written, tmp_path):
    """What a reader of features must not see: each planted event stands in MEDS, and all but the note in OMOP."""
    traps = TWIN.planted_events
    assert traps["planted"].to_list() == [
        "billing_on_day", "open_visit", "billing_in_open_visit", "at_t", "note_with_answer",
    ]  # fmt: skip
    dataset = open_meds(find_meds(written / "ehr"), unpack_into=tmp_path)
    events = dataset.events([Column("clarity_table", ("clarity_table",)), Column("text", ("text_value",))]).collect()
    found = events.join(traps, left_on=["subject_id", "time", "code"], right_on=["person_id", "time", "code"])
    assert found.height == 5
    assert "acute pulmonary embolism" in found["text"].to_list()
    conditions = find_omop(written).read("condition_occurrence", [Column("code", ("condition_source_value",))])
    assert conditions.height == TWIN.events.filter(table="condition_occurrence").height
    deaths = events.filter(code="MEDS_DEATH").select("subject_id", "time")
    times = dict(TWIN.truth.select("patient_id", "time").iter_rows())
    assert deaths.height > 0
    assert all(died > times[str(person)] for person, died in deaths.iter_rows() if times.get(str(person)))


def test_predictions_of_the_twin_say_the_same_in_both_styles(tmp_path):
    TWIN.write_predictions(tmp_path)
    by_time, by_image = (
        pl.read_csv(tmp_path / style / "pe_pred_proba.csv", infer_schema=False)
        for style in ("patient_time", "image_id")
    )
    assert by_time.select("label", "prob").equals(by_image.select("label", "prob"))
    assert by_image["patient_id"].equals(by_image["procedure_time"], check_names=False)
    assert set(by_time["label"]) == {"0.0", "1.0"}
