"""The schemas that readers and checks share: each rule is told in words, with the rows that break it."""

from __future__ import annotations

import polars as pl
import pytest

from fmaudit_core.cohort.schema import validate_labels, validate_studies
from fmaudit_core.tabular.errors import CohortError, rows_named

STUDIES = pl.DataFrame(
    {
        "study_id": ["a", "b", "c"],
        "patient_id": ["p", "q", "r"],
        "split": ["train", "val", "test"],
        "age": [40, 50, 60],
        "age_band": ["18-40", "41-60", "41-60"],
        "sex": ["f", "m", "f"],
        "race_ethnicity": ["x", "y", "x"],
        "image_path": ["a", "b", "c"],
        "scanner": ["s", "s", "t"],
    }
)


def changed(column, values):
    return STUDIES.with_columns(pl.Series(column, values))


def test_a_good_table_is_returned_whole_with_its_further_columns():
    assert validate_studies(STUDIES, where="studies").equals(STUDIES)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (changed("study_id", ["a", "a", "c"]), "studies: Rows 1 and 2: a study is listed more than once."),
        (changed("patient_id", ["p", "p", "r"]), "studies: Rows 1 and 2: one patient is in more than one split"),
        (changed("split", ["train", "val", "dev"]), "Row 3: a split other than train, val, test"),
        (changed("age", [40, 500, 60]), "Row 2: age above 120"),
        (changed("age", [40, -1, 60]), "Row 2: age below 0"),
        (changed("age", [40, None, 60]), "Row 2: no age"),
        (changed("sex", ["f", None, "f"]), "Row 2: no sex"),
        (changed("image_path", ["a", "", "c"]), "Row 2: no image_path"),
        (STUDIES.drop("sex"), "studies: column sex is missing"),
    ],
)
def test_a_broken_rule_is_told_with_its_rows(frame, said):
    with pytest.raises(CohortError) as raised:
        validate_studies(frame, where="studies")
    assert said in str(raised.value)


def test_labels_are_told_too():
    labels = pl.DataFrame({"study_id": ["a", "a", None], "task": ["pe", "pe", "pe"], "label": [True, None, False]})
    with pytest.raises(CohortError, match="Rows 1 and 2: a study has two labels for one task; row 3: no study_id"):
        validate_labels(labels, where="labels")
    assert validate_labels(labels.head(1), where="labels").height == 1


def test_rows_are_named_as_people_say_them():
    assert rows_named([4]) == "row 4"
    assert rows_named([4, 9]) == "rows 4 and 9"
    assert rows_named([1, 2, 3, 4, 5]) == "rows 1, 2, 3, 4 and 5"
    assert rows_named(list(range(1, 9))) == "rows 1, 2, 3, 4, 5 and 3 more"
