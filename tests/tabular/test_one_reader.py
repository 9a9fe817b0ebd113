"""One reader for predictions and cohort tables: text stays text, and each defect of a file is one sentence with its line."""

from __future__ import annotations

import polars as pl
import pytest

from fmaudit_core.cohort.ages import read_ages
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.labels import read_labels
from fmaudit_core.tabular.levels import LevelsError, normal_levels
from fmaudit_core.tabular.numbers import read_numbers
from fmaudit_core.tabular.text_cells import column_names, read_cells

NAMES = ("study_id", "sex", "y_score")


def read(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_cells(path, expected=NAMES)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("study_id,sex,y_score\n0012,f,7E5\n12,m,\n", [2, 3]),
        ("study_id;sex;y_score\n0012;f;7E5\n12;m;\n", [2, 3]),
        ("study_id\tsex\ty_score\n0012\tf\t7E5\n12\tm\t\n", [2, 3]),
        ("study_id|sex|y_score\n0012|f|7E5\n12|m|\n", [2, 3]),
        ("sep=;\nstudy_id;sex;y_score\n0012;f;7E5\n12;m;\n", [3, 4]),
        ("\ufeffstudy_id,sex,y_score\r\n0012,f,7E5\r\n12,m,\r\n", [2, 3]),
        ("study_id,sex,y_score\r0012,f,7E5\r12,m,\r", [2, 3]),
        ("study_id,sex,y_score\n\n0012,f,7E5\n,,\n12,m,\n", [3, 5]),
        ("study_id,sex,y_score\n0012,f,7E5,,\n12,m,,,\n", [2, 3]),
        ('"study_id","sex","y_score"\n"0012"," f","7E5"\n"12","m\u00a0",""\n', [2, 3]),
    ],
)
def test_every_way_to_write_a_file_gives_the_same_cells(tmp_path, text, rows):
    frame, numbers = read(tmp_path, text)
    assert frame.rows() == [("0012", "f", "7E5"), ("12", "m", "")]
    assert numbers.to_list() == rows


HEAD = "study_id,sex,y_score\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("p00012,f,0.3\np00013,m,0.4\n", "has no header: line 1"),
        ("# of 2024\n" + HEAD + "1,f,0\n", "line 1 is a comment"),
        ("My export\n" + HEAD + "1,f,0\n", "line 1 has one cell and the next line 3"),
        ("\n" + HEAD + "1,f,0\n", "line 1 is blank"),
        (
            "study_id^sex^y_score\n1^f^0\n",
            r"one column only: no comma, semicolon, tab or \| separates its cells; it has '\^'",
        ),
        ("study_id,sex,sex\n1,f,0\n", "column sex appears twice"),
        (HEAD + "p00012,f\n", "Row 2: fewer or more cells than the header's 3"),
        (HEAD + "1,f,0\np00012,f,0,9\n", "Row 3: fewer or more cells"),
        (HEAD + "1,f,0\nTotal 1\n", "Row 3: fewer or more cells"),
        (HEAD + '1,"f,0\np00012,f,0\n', "cannot be read as CSV at or before line 3"),
        ((HEAD + "1,f,0\np00012,f\xe9minin,0\n").encode("cp1252"), "line 3 is not UTF-8 text"),
        ((HEAD + "1,f,0\n").encode("utf-16"), "not UTF-8 text but UTF-16"),
        ((HEAD + "1,f,0\n").encode("utf-16-le"), "not UTF-8 text but UTF-16"),
        ("", "is empty"),
        (HEAD, "has no studies"),
    ],
)
def test_a_defect_is_one_sentence_with_its_line_and_no_cell(tmp_path, content, said):
    with pytest.raises(CohortError, match=said) as raised:
        read(tmp_path, content)
    assert "p0001" not in str(raised.value)


def test_parquet_keeps_ids_exactly_and_passes_over_nested_columns(tmp_path):
    frame = pl.DataFrame(
        {
            "study_id": ["1234567890123456789012", "0012"],
            "patient_id": pl.Series([2**64 - 1, 7], dtype=pl.UInt64),
            "sex": pl.Series(["f", None], dtype=pl.Categorical),
            "site": [1.0, float("nan")],
            "embedding": [[1.0], [2.0]],
        }
    )
    frame.write_parquet(tmp_path / "t.parquet")
    cells, rows = read_cells(tmp_path / "t.parquet")
    assert cells.rows() == [("1234567890123456789012", "18446744073709551615", "f", "1.0"), ("0012", "7", "", "")]
    assert rows.to_list() == [1, 2]
    assert "embedding" in column_names(tmp_path / "t.parquet")
    with pytest.raises(CohortError, match="column embedding holds lists or records"):
        read_cells(tmp_path / "t.parquet", only=["embedding"])
    pl.DataFrame({"study_id": [1e17, 2.0]}).write_parquet(tmp_path / "f.parquet")
    with pytest.raises(CohortError, match="too large to be exact"):
        read_cells(tmp_path / "f.parquet")


def test_levels_have_one_normal_form():
    words = [
        "male",
        " male\u00a0",
        "M\u0101ori",
        "Ma\u0304ori",
        "NA",
        "n/a",
        "",
        None,
        "UNABLE TO OBTAIN",
        "Not  recorded",
    ]
    found = normal_levels("sex", pl.Series("sex", words), merge=False)
    assert found.column.to_list() == ["male", "male", "M\u0101ori", "M\u0101ori", *["unknown"] * 6]
    assert found.n_missing == 6
    assert "blank 2" in found.missing_text()
    assert "NA 1" in found.missing_text()


def test_levels_that_differ_by_case_or_spacing_are_refused_or_merged():
    column = pl.Series("sex", ["Male", "male", "male", "f", "North East", "NorthEast"])
    with pytest.raises(LevelsError, match="'male', 'Male'; 'North East', 'NorthEast'"):
        normal_levels("sex", column, merge=False)
    assert normal_levels("sex", column, merge=True).column.to_list() == ["male"] * 3 + ["f"] + ["North East"] * 2
    with pytest.raises(LevelsError, match="contain ` x `"):
        normal_levels("sex", pl.Series("sex", ["a x b", "c"]), merge=False)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([1, 0]), pl.Series([1.0, 0.0]), pl.Series([True, False]), pl.Series(["1", " 0"]), pl.Series(["TRUE", "False "]),
        pl.Series(["yes", "No"]), pl.Series(["Positive", "NEGATIVE"]), pl.Series(["1.0", "0.00"]),
    ],
)  # fmt: skip
def test_every_form_of_a_label(column):
    found = read_labels(column)
    assert found.column.to_list() == [True, False]
    assert not found.unreadable.any()


def test_labels_that_are_none_and_words_of_the_user():
    found = read_labels(pl.Series(["1", "", "NaN", "-1", "-1.0", "maybe"]))
    assert (found.n_blank, found.n_uncertain, found.unreadable.sum()) == (2, 2, 1)
    own = read_labels(pl.Series(["1", "2", "2.0"]), positive=["2"], negative=["1"])
    assert own.column.to_list() == [False, True, True]
    assert read_labels(pl.Series(["2", "0"]), positive=["2"], negative=["1"]).unreadable.to_list() == [False, True]


def test_numbers_with_a_comma_are_read_where_it_is_no_separator():
    column = pl.Series(["0,5", "1", "", "5,2e-3"])
    assert read_numbers(column, comma=True)[0].to_list() == [0.5, 1.0, None, 0.0052]
    assert read_numbers(column)[1].to_list() == [True, False, False, True]
    assert read_numbers(pl.Series(["76.4%"]))[1].to_list() == [True]


def test_ages_as_people_write_them():
    words = ["67", "67.5", "67,5", "067Y", "006M", "67 years", ">89", "90+", "\u226590", "old", "", "1e3"]
    found = read_ages(pl.Series("age", words))
    assert found.years.to_list() == [67, 67.5, 67.5, 67, 0.5, 67, 90, 90, 90, None, None, None]
    assert found.n_open == 3
