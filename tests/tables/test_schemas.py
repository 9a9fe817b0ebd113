"""The declarations of the published tables, and what is refused when a frame disagrees with one."""

from __future__ import annotations

import json

import polars as pl
import pytest

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.report.documents.audit_json import schema_text
from fmaudit_core.storage.warehouse import Warehouse
from fmaudit_core.tables import table
from fmaudit_core.tables.columns import COLUMNS
from fmaudit_core.tables.schemas import TABLES
from fmaudit_core.tables.table import TableError

NOTES = pl.DataFrame({"note": ["a", "b"], "n": [1, 2], "unit": ["studies"] * 2, "detail": [""] * 2})
#: definition in audit.json -> the table whose rows it lists
IN_AUDIT_JSON = {
    "finding": "audit_findings",
    "recommendation": "mitigation_recommendations",
    "published": "paper_comparison",
    "subgroup": "subgroup_metrics",
    "calibration": "subgroup_calibration",
    "calibration_test": "calibration_tests",
    "cross": "cross_group_auroc",
    "intersection": "intersections",
    "comparison": "model_comparisons",
    "aggregation": "spatial_aggregation",
    "change": "audit_changes",
    "warning": "score_warnings",
}
JSON_TYPES = {pl.String: "string", pl.Int64: "integer", pl.Float64: "number", pl.Boolean: "boolean", pl.List: "array"}


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (NOTES.drop("unit"), "column unit is missing"),
        (NOTES.with_columns(extra=1), "column extra is not declared"),
        (NOTES.cast({"n": pl.String}), "column n is String, not Int64"),
        (pl.concat([NOTES, NOTES.head(1)]), r"1 rows repeat the key \(note\)"),
    ],
)
def test_a_frame_that_disagrees_is_not_published(tmp_path, frame, problem):
    warehouse = Warehouse(tmp_path)
    warehouse.publish("cohort_notes", NOTES, version="1")
    with pytest.raises(TableError, match=f"table cohort_notes: {problem}.*fmaudit_core/tables"):
        warehouse.publish("cohort_notes", frame, version="2")
    assert warehouse.version("cohort_notes") == "1"
    assert warehouse.read("cohort_notes").equals(NOTES)


def test_an_undeclared_table_is_not_published(tmp_path):
    with pytest.raises(TableError, match=r"table gaps is not declared.*Declare it in a module of fmaudit_core/tables"):
        Warehouse(tmp_path).publish("gaps", NOTES, version="1")
    assert list(tmp_path.iterdir()) == []


def test_attributes_windows_and_optional_columns_are_accepted():
    studies = TABLES["studies"].frame()
    TABLES["studies"].check(studies.with_columns(scanner=pl.lit("x"), listed_slices=pl.lit(3)))
    days = TABLES["ehr_features"].frame().with_columns(days_90=pl.lit(1, dtype=pl.UInt32))
    TABLES["ehr_features"].check(days)
    with pytest.raises(TableError, match="column days_90 is Int32, not UInt32; column weeks_2 is not declared"):
        TABLES["ehr_features"].check(days.with_columns(days_90=1, weeks_2=2))
    trees = TABLES["probe_selection"].frame().with_columns(leaves=pl.lit(7, dtype=pl.Int64))
    TABLES["probe_selection"].check(trees)


def test_a_blank_is_a_value_of_the_key():
    runs = TABLES["mitigation_runs"]
    rows = [{"encoder": "a", "task": "pe", "strategy": "leace", "alpha": alpha} for alpha in (None, 1.0)]
    runs.check(runs.frame(rows))
    with pytest.raises(TableError, match="1 rows repeat the key"):
        runs.check(runs.frame([*rows, rows[0]]))


def test_every_declaration_is_whole():
    used = set()
    for name, one in TABLES.items():
        assert one.name == name
        assert set(one.key) <= set(one.columns), name
        assert all(column.meaning for column in one.columns.values()), name
        used |= set(one.columns)
    assert used == set(COLUMNS), "columns that no table has"
    assert table.SCORE_SET.split() == list(SCORE_SET)


@pytest.mark.parametrize(("definition", "name"), IN_AUDIT_JSON.items())
def test_audit_json_lists_rows_with_the_columns_and_types_of_their_table(definition, name):
    properties = json.loads(schema_text())["$defs"][definition]["properties"]
    declared = TABLES[name].columns
    # disclosure control adds how a row's counts are shown
    assert set(properties) - {"counts"} <= set(declared)
    for key, described in properties.items():
        if key != "counts" and "type" in described:
            types = {described["type"]} if isinstance(described["type"], str) else set(described["type"])
            assert types - {"null"} == {JSON_TYPES[type(declared[key].dtype)]}, key
