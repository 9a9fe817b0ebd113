"""A file is read in batches of rows: the same cells, rows and errors as in one piece, and no batch grows with the file."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmaudit_core.standalone.assess_file import read_predictions
from fmaudit_core.tabular import batches, kept_columns
from fmaudit_core.tabular.batches import read_batches
from fmaudit_core.tabular.delimited import find_layout
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.kept_columns import Forms
from fmaudit_core.tabular.text_cells import read_cells

HEAD = "study_id,patient_id,split,y_true,y_score,sex"
COMPACT = Forms(numbers=("y_score",), scores=("y_score",), levels=True, text=("study_id", "patient_id"))
CELLS = {
    "split": ["train", "test", " val", ""],
    "y_true": ["1", "0", "yes", "", "1.0 "],
    "y_score": ["0.5", "1e-3", "", "nan", "-2", "0.25 ", "NA"],
    "sex": ["f", "m", "\u00e9\u00a0", "NA", ""],
}


@pytest.fixture
def tiny(monkeypatch):
    """Blocks of a few lines, so that small files have many."""
    monkeypatch.setattr(batches, "_BLOCK", 200)
    monkeypatch.setattr(batches, "_ROWS", 3)


def line(number, cells):
    return ",".join([f"s{number}", f"p{number // 2}", *cells])


ROWS = st.lists(st.tuples(*(st.sampled_from(words) for words in CELLS.values())), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    blank=st.sets(st.integers(0, 59), max_size=3),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
    last=st.booleans(),
)
def test_batches_hold_what_the_file_holds(tmp_path, tiny, rows, blank, end, quoted, last):
    lines, want = [HEAD], []
    for number, cells in enumerate(rows):
        if number in blank:
            lines.append("" if number % 2 else ",,,,,")
        lines.append(line(number, [f'"{cell}"' if quoted else cell for cell in cells]))
        want.append((len(lines), f"s{number}", f"p{number // 2}", *(cell.strip() for cell in cells)))
    path = tmp_path / "t.csv"
    path.write_bytes((end.join(lines) + end * last).encode())
    text, at = read_cells(path)
    assert [(row, *cells) for row, cells in zip(at, text.iter_rows(), strict=True)] == want
    frame, same = read_cells(path, forms=COMPACT)
    assert same.equals(at)
    assert frame.drop("y_score").cast(pl.String).equals(text.drop("y_score"))
    scores = [None if cell in ("", "NA") else float(cell) for *_, cell, _ in want]
    assert frame["y_score"].equals(pl.Series("y_score", scores, dtype=pl.Float64), null_equal=True)
    assert all(isinstance(frame.schema[name], pl.Enum) for name in ("split", "y_true", "sex"))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({70: "s70,p35,test"}, "Row 72: 3 cells instead of the header's 6"),
        ({70: "s70,p35,test,1,0,5,f"}, "Row 72: 7 cells instead of the header's 6"),
        ({40: "s1,p", 70: "Total: 71"}, "Rows 42 and 72: fewer or more cells than the header's 6"),
        ({70: 's70,p35,"test,1,0.5,f'}, "cannot be read as CSV at or before line 101"),
        ({70: "s70,p35,test,1,0.5,\xff"}, "line 72 is not UTF-8"),
    ],
)
def test_an_error_far_from_the_start_has_its_line(tmp_path, tiny, bad, said):
    lines = [HEAD, *(bad.get(number, line(number, ["test", "1", "0.5", "f"])) for number in range(100))]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode("latin-1"))
    for forms in (Forms(), COMPACT):
        with pytest.raises(CohortError, match=said):
            read_cells(tmp_path / "t.csv", forms=forms)


def test_a_cell_that_is_no_number_keeps_its_column_text_and_its_row(tmp_path, tiny):
    cells = [line(number, ["test", "1", "76.4%" if number == 90 else "0.50", "f"]) for number in range(100)]
    (tmp_path / "t.csv").write_text("\n".join([HEAD, *cells]))
    frame = read_predictions(tmp_path / "t.csv")
    assert frame.schema["y_score"] == pl.String
    assert frame.filter(y_score="76.4%")["__row__"].to_list() == [92]
    assert frame["y_score"][0] == "0.50"


def test_a_decimal_comma_is_read_where_it_separates_no_cells(tmp_path, tiny):
    cells = [line(number, ["test", "1", "0.50", "f"]).replace(",", ";").replace(".", ",") for number in range(100)]
    (tmp_path / "t.csv").write_text("\n".join([HEAD.replace(",", ";"), *cells]))
    assert read_predictions(tmp_path / "t.csv")["y_score"].to_list() == [0.5] * 100


def test_a_column_of_too_many_levels_stays_text(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(kept_columns, "_CODES", (pl.UInt8,))
    cells = [line(number, ["test", "1", "0.5", f"note {number}"]) for number in range(300)]
    (tmp_path / "t.csv").write_text("\n".join([HEAD, *cells]))
    frame, _ = read_cells(tmp_path / "t.csv", forms=COMPACT)
    assert frame["sex"].to_list() == [f"note {number}" for number in range(300)]
    assert frame.schema["sex"] == pl.String
    assert frame.schema["split"] == pl.Enum(["test"])


def test_a_column_of_many_levels_has_wider_codes(tmp_path, tiny):
    cells = [line(number, ["test", "1", "0.5", f"ward {number % 299:03d}"]) for number in range(600)]
    (tmp_path / "t.csv").write_text("\n".join([HEAD, *cells]))
    frame, _ = read_cells(tmp_path / "t.csv", forms=COMPACT)
    assert frame["sex"].cast(pl.String).to_list() == [f"ward {number % 299:03d}" for number in range(600)]
    assert frame.schema["sex"] == pl.Enum([f"ward {number:03d}" for number in range(299)])


@pytest.mark.parametrize("quote", ["", '"'])
def test_no_batch_grows_with_the_file(tmp_path, monkeypatch, quote):
    monkeypatch.setattr(batches, "_BLOCK", 1 << 16)
    monkeypatch.setattr(batches, "_ROWS", 1_000)
    for n_rows in (10_000, 40_000):
        with (tmp_path / "t.csv").open("w") as file:
            file.write(HEAD + "\n")
            file.writelines(f"{line(number, ['test', '1', '0.5', f'{quote}f{quote}'])}\n" for number in range(n_rows))
        layout = find_layout(tmp_path / "t.csv")
        heights = [frame.height for frame, _ in read_batches(tmp_path / "t.csv", layout)]
        assert sum(heights) == n_rows
        assert max(heights) <= (1_000 if quote else (1 << 16) // len("s0,p0,test,1,0.5,f"))
