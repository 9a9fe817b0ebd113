"""One reader for predictions and cohort tables: text stays text, and each defect of a file is one sentence with its line."""

from __future__ import annotations

import gzip

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmaudit_core.cohort.ages import read_ages
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.labels import read_labels
from fmaudit_core.tabular.levels import LevelsError, normal_levels
from fmaudit_core.tabular.numbers import read_numbers
from fmaudit_core.tabular.text_cells import column_names, read_cells
from fmaudit_core.tabular.words import normal_splits, without_missing_words

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
        (HEAD + "p00012,f\n", "Row 2: 2 cells instead of the header's 3"),
        (HEAD + "1,f,0\np00012,f,0,9\n", "Row 3: 4 cells instead of"),
        (HEAD + "1,f,0\nTotal 1\n1,f\n", "Rows 3 and 4: fewer or more cells than"),
        (HEAD + '1,"f,0\np00012,f,0\n', "cannot be read as CSV at or before line 3"),
        ((HEAD + "1,f,0\np00012,f\xe9minin,0\n").encode("cp1252"), "line 3 is not UTF-8 text"),
        ((HEAD + "1,f,0\n").encode("utf-16"), "not UTF-8 text but UTF-16"),
        ((HEAD + "1,f,0\n").encode("utf-16-le"), "not UTF-8 text but UTF-16"),
        ((HEAD + "1,f,0\n").encode("utf-32"), "not UTF-8 text but UTF-32"),
        (HEAD + "p00012,f\0,0\n", "line 2 holds a null byte"),
        ("p00012,yes,north\np00013,no,south\np00014,yes,north\np00015,no,north\n", "the cells of line 1 recur below"),
        (b"PK\3\4" + bytes(99), "is not CSV but an Excel workbook or a ZIP archive"),
        (gzip.compress(HEAD.encode(), mtime=0), "is not CSV but compressed by gzip"),
        (b"PAR1\0\0", "is not CSV but Parquet. Give the file the suffix .parquet"),
        ('[{"study_id": "p00012"}]', "is not CSV but JSON"),
        ("<html><td>p00012</td></html>", "is not CSV but HTML"),
        ("version https://git-lfs.github.com/spec/v1\noid p00012\n", "is not CSV but a pointer of Git LFS"),
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


def test_parquet_with_a_column_twice_is_told(tmp_path):
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["f"]), pa.array(["m"])], ["study_id", "sex", "sex"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(CohortError, match="a column appears twice"):
        column_names(tmp_path / "t.parquet")


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


@pytest.mark.parametrize(
    "word",
    [
        ".", "#VALUE!", "(blank)", "\\N", "Unknown/Not specified", "UNKNOWN OR NOT REPORTED", "Patient refused", "Not Applicable",
        "Prefer not to answer", "nan\u200b", "U", "Keine Angabe", "non renseigné", "\u672a\u77e5", "[null]", "*Unspecified",
        "???", "\u2014", "not-recorded", "Unk.", "Unknown sex", "REDACTED", "Pt declined", "-9", "-99.0", "-9999",
        "UN", "NI", "ASKU",
    ],
)  # fmt: skip
def test_words_of_other_systems_for_not_recorded(word):
    found = normal_levels("PatientSex", pl.Series("n", ["f", word]), merge=False)
    assert found.column.to_list() == ["f", "unknown"]


def test_codes_that_may_mean_not_recorded_stay_levels_and_are_counted():
    for words, codes in (
        (["0", "1", "-1", "-1"], {"-1": 2}),
        (["f", "m", "9", "m"], {"9": 1}),
        (["0", "1", "2", "9"], {}),
        (["-1", "-2", "-3", "-3"], {}),
        (["north", "south", "north", "NA"], {}),
    ):
        found = normal_levels("site", pl.Series("site", words), merge=False)
        assert found.codes == codes
        assert set(found.column) - {"unknown"} == set(words) - {"NA"}
    assert normal_levels("gender_concept_id", pl.Series("n", ["8507", "0"]), merge=False).column.to_list() == [
        "8507",
        "unknown",
    ]
    assert normal_levels("site", pl.Series("n", ["NI", "UN", "0"]), merge=False).n_missing == 0


def test_words_that_are_groups_stay_groups():
    words = ["Other", "Other/Unknown", "U-turn", "North and South"]
    assert normal_levels("site", pl.Series("site", [*words, "U"]), merge=False).column.to_list() == [*words, "U"]


@pytest.mark.parametrize(
    "pair",
    [
        ("\u0130stanbul", "istanbul"), ("Isparta", "\u0131sparta"), ("Stra\u00dfe", "STRASSE"), ("ea\u200bst", "east"),
        ("the\u00a0east", "the east"), ("\uff4eorth", "north"), ("1", "1.0"), ("18-29", "18\u201329"),
        ("North_East", "North East"), ("C\u00f4te d'Ivoire", "C\u00f4te d\u2019Ivoire"),
    ],
)  # fmt: skip
def test_levels_that_look_alike_are_no_two_groups(pair):
    with pytest.raises(LevelsError, match="differ by case or spacing only"):
        normal_levels("n", pl.Series("n", [*pair, "b"]), merge=False)
    assert normal_levels("n", pl.Series("n", [*pair, "b"]), merge=True).column.n_unique() == 2


def test_a_sex_in_two_spellings_is_refused_or_merged():
    column = pl.Series("n", ["F", "female", "female", "M", "U"])
    with pytest.raises(LevelsError, match=r"F is female, M is male\): 'female', 'F'"):
        normal_levels("PatientSex", column, merge=False)
    assert normal_levels("PatientSex", column, merge=True).column.to_list() == ["female"] * 3 + ["M", "unknown"]
    assert normal_levels("ward", column, merge=False).column.n_unique() == 4


def test_levels_that_only_look_a_bit_alike_are_groups():
    words = ["1-2", "12", "1_2", "a/b", "ab", "<1", ">1"]
    assert normal_levels("site", pl.Series("site", words), merge=False).column.to_list() == words


def test_invisible_characters_at_the_ends_are_no_part_of_ids_levels_and_names(tmp_path):
    frame, _ = read(tmp_path, "study_id,sex\u200b, y_score\u00a0\n\ufeff0012,f\u200b,1\n0013\u2060,\u00a0m,2\n")
    assert frame.columns == ["study_id", "sex", "y_score"]
    assert frame.rows() == [("0012", "f", "1"), ("0013", "m", "2")]


def test_ids_that_a_spreadsheet_could_not_show_are_missing(tmp_path):
    frame, _ = read(tmp_path, "study_id,sex\n########,f\n#1,m\n")
    assert without_missing_words(frame["study_id"]).to_list() == ["", "#1"]


def test_ids_that_databases_write_for_missing_are_no_patient():
    ids = pl.Series(["-1", "-9999", "-99.0", "0", "9999", "-7312345", "-19"])
    assert without_missing_words(ids).to_list() == ["", "", "", "0", "9999", "-7312345", "-19"]


def test_splits_in_the_words_of_others():
    words = ["Training", "validate", "held-out", "HOLDOUT ", "testing", "dev", "", None]
    found = normal_splits(pl.Series("split", words)).to_list()
    assert found == ["train", "val", "test", "test", "test", "dev", None, None]


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
        pl.Series("n", ["1,0", "0,0"]), pl.Series(["Checked", "Unchecked"]), pl.Series(["present", "Absent"]),
        pl.Series(["ja", "nein"]),
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
    assert (own.positive, own.negative) == (("2",), ("1",))
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
    words = [
        "67 y/o",
        "67yo",
        "90 or older",
        "90 and over",
        "over 89",
        "> 89",
        "90 +",
        "67 years old",
        "67\u00a0Y",
        "40-50",
        "60s",
    ]
    found = read_ages(pl.Series("age", words))
    assert found.years.to_list() == [67, 67, 90, 90, 90, 90, 90, 67, 67, None, None]
    assert found.n_open == 5


def test_columns_may_have_any_name():
    for name in ("n", "level", "cell", "count"):
        assert normal_levels(name, pl.Series(name, ["a", "b"]), merge=False).column.to_list() == ["a", "b"]
        assert read_labels(pl.Series(name, ["1", "0"])).column.to_list() == [True, False]
