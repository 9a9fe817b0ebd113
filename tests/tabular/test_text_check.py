"""Bytes of delimited files that a lazy scan would replace, merge or drop: each is refused by file and line."""

from __future__ import annotations

import gzip

import pytest

from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.text_check import check_text

HEAD = "patient_id,time,code\n"
ROWS = "".join(f"p{i},2020-01-01,DX/{i}\n" for i in range(50))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ((HEAD + ROWS + "p9,2020-01-01,DX/Ödem\n").encode("cp1252"), r"line 52 is not UTF-8 \(byte 0xD6"),
        ((HEAD + "p9,2020-01-01,DX/é\n" + ROWS).encode("latin-1"), r"line 2 is not UTF-8 \(byte 0xE9"),
        ((HEAD + ROWS).encode("utf-16"), "line 1 is not UTF-8: the file is UTF-16"),
        ((HEAD + ROWS).encode("utf-16-le"), "line 1 is not UTF-8: the file is UTF-16"),
        ((HEAD + ROWS).encode("utf-32"), "is not UTF-8 text but UTF-32"),
        ((HEAD + ROWS + "p9,2020-01-01,DX/\0\n").encode(), "line 52 holds a null byte"),
        (b"PK\3\4" + bytes(9), "is not CSV but an Excel workbook or a ZIP archive"),
        (b"PAR1" + bytes(9), "is not CSV but Parquet"),
        ((HEAD + ROWS).replace("\n", "\r").encode(), "its lines end with CR only"),
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ((HEAD + 'p9,2020-01-01,"DX/open\n' + ROWS).encode(), "line 2 has a quotation mark without a partner"),
        ((HEAD + ROWS + 'p9,2020-01-01,"DX/open\n').encode(), "line 52 has a quotation mark without a partner"),
        # two of them: their count is even, and the rows between would be one cell
        ((HEAD + 'p8,2020-01-01,"DX/a\n' + ROWS + 'p9,2020-01-01,"DX/b\n').encode(), "line 2 has a quotation mark"),
        ((HEAD + ROWS + 'p9,2020-01-01,5" tube\n').encode(), "line 52 has a quotation mark"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_bytes_that_would_be_misread_are_named_by_line(tmp_path, content, said, zipped):
    path = tmp_path / ("e.csv.gz" if zipped else "e.csv")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(CohortError, match=said) as caught:
        check_text(path)
    assert "p9" not in str(caught.value)
    assert "DX/" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        HEAD + ROWS,
        "\ufeff" + HEAD + ROWS,
        (HEAD + ROWS).replace("\n", "\r\n"),
        HEAD + 'p1,2020-01-01,"DX/a, b"\n"p2",2020-01-01,"a ""b"" c"\n',
        HEAD + 'p1,2020-01-01,"two\nlines"\n' + ROWS,
        HEAD + "p1,2020-01-01,DX/Ödem\np1,2020-01-01,肺結節\n",
        (HEAD + ROWS).replace(",", ";") + 'p1;2020-01-01;"a\n;b"\n',
    ],
)
def test_valid_files_are_not_refused(tmp_path, text):
    path = tmp_path / "e.csv"
    path.write_bytes(text.encode())
    check_text(path)


def test_a_line_is_counted_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("fmaudit_core.tabular.text_check._BLOCK", 64)
    path = tmp_path / "e.csv"
    path.write_bytes((HEAD + ROWS).encode() + b"p9,2020-01-01,\xff\n")
    with pytest.raises(CohortError, match=r"line 52 is not UTF-8 \(byte 0xFF"):
        check_text(path)


def test_a_truncated_gzip_file_is_refused(tmp_path):
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress((HEAD + ROWS * 40).encode())[:-30])
    with pytest.raises(CohortError, match=r"cannot be read \(it ends too early\)"):
        check_text(path)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(CohortError, match="is not compressed by gzip, or damaged"):
        check_text(path)
