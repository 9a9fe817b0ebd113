"""Ordinary tables in unusual types and spellings: each is accepted, and is the same predictions."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmaudit_core.fairness.predictions import checked_predictions
from fmaudit_core.standalone.assess_file import read_predictions
from tests.fairness.cohorts import predictions

PLAIN = predictions(150, seed=5).select(
    "study_id", "patient_id", "split", pl.col("y_true").cast(pl.Int8), pl.col("y_score").round(3),
    sex=pl.col("other").replace({"x": "f", "y": "m"}),
)  # fmt: skip
COLUMNS = ["study_id", "patient_id", "split", "y_true", "y_score", "sex"]
LABELS, SCORES, SEXES = (PLAIN[name].to_list() for name in ("y_true", "y_score", "sex"))
STUDIES, PATIENTS = (PLAIN[name].to_list() for name in ("study_id", "patient_id"))
NUMBER_OF = {name: at + 1 for at, name in enumerate(dict.fromkeys(PATIENTS))}
NUMBERS = [NUMBER_OF[one] for one in PATIENTS]


def said(path):
    """The predictions in normal form, ids and levels by their order of appearance."""
    frame = (
        checked_predictions(read_predictions(path), ["sex"]).select(COLUMNS).with_columns(pl.col("y_score").round(3))
    )
    keyed = frame.sort("y_score", "y_true", "split", "study_id")
    for name in ("study_id", "patient_id", "sex"):
        keyed = keyed.with_columns(pl.col(name).rank("dense").cast(pl.Int64))
    return keyed.sort("study_id")


@pytest.fixture(scope="module")
def want(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "p.csv"
    PLAIN.write_csv(path)
    return said(path)


def decimals(values, precision, scale):
    return pa.array([Decimal(str(value)) for value in values], pa.decimal128(precision, scale))


def moments(unit, zone=None):
    return pa.array([datetime(2020, 1, 1 + (one == "m")) for one in SEXES], pa.timestamp(unit, zone))


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
WIDE = [pa.int16(), pa.int32(), pa.int64(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64()]
CHANGES = {
    **{f"labels {kind}": {"y_true": pa.array(LABELS).cast(kind)} for kind in [*INTEGERS, pa.float32(), pa.float64(), pa.bool_()]},
    **{
        f"labels as text {kind}": {"y_true": pa.array([str(one) for one in LABELS], kind)}
        for kind in (pa.string(), pa.large_string(), pa.string_view())
    },
    "labels decimal": {"y_true": decimals(LABELS, 5, 1)},
    "labels dictionary": {"y_true": pa.array([str(one) for one in LABELS]).dictionary_encode()},
    "scores float32": {"y_score": pa.array(SCORES, pa.float32())},
    "scores decimal": {"y_score": decimals(SCORES, 12, 6)},
    "scores text": {"y_score": pa.array([f"{one:.3e}" for one in SCORES])},
    "scores dictionary": {"y_score": pa.array([str(one) for one in SCORES]).dictionary_encode()},
    **{f"patients {kind}": {"patient_id": pa.array([1000 + one for one in NUMBERS], kind)} for kind in WIDE},
    "patients decimal": {"patient_id": decimals([10**20 + one for one in NUMBERS], 22, 0)},
    "patients dictionary": {"patient_id": pa.array(PATIENTS).dictionary_encode()},
    "patients binary": {"patient_id": pa.array([one.encode() for one in PATIENTS], pa.binary())},
    "patients in one case": {"patient_id": pa.array([f"Doe, {one}" for one in PATIENTS])},
    "studies fixed binary": {"study_id": pa.array([one.encode() for one in STUDIES], pa.binary(len(STUDIES[0])))},
    **{f"levels {kind}": {"sex": pa.array([1 + (one == "m") for one in SEXES], kind)} for kind in INTEGERS},
    "levels float": {"sex": pa.array([1.0 + (one == "m") for one in SEXES])},
    "levels bool": {"sex": pa.array([one == "m" for one in SEXES])},
    "levels decimal": {"sex": decimals([1 + (one == "m") for one in SEXES], 3, 0)},
    "levels date": {"sex": pa.array([date(2020, 1, 1 + (one == "m")) for one in SEXES])},
    "levels time": {"sex": pa.array([time(1 + (one == "m")) for one in SEXES])},
    **{f"levels timestamp {unit}": {"sex": moments(unit)} for unit in ("s", "ms", "us", "ns")},
    "levels timestamp of a zone": {"sex": moments("us", "Europe/Berlin")},
    "levels dictionary": {"sex": pa.array(SEXES).dictionary_encode()},
    "levels large string": {"sex": pa.array(SEXES, pa.large_string())},
    "levels binary": {"sex": pa.array([one.encode() for one in SEXES])},
    "columns that nobody named": {
        "vector": pa.array([[0.5, 1.0]] * PLAIN.height), "map": pa.array([[("a", 1)]] * PLAIN.height, pa.map_("str", "i1")),
        "nothing": pa.nulls(PLAIN.height), "raw": pa.array([b"\xff"] * PLAIN.height), "__index_level_0__": pa.array(NUMBERS),
    },
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_every_type_of_parquet_is_the_same_predictions(tmp_path, want, change):
    columns = dict(zip(PLAIN.columns, PLAIN.to_arrow().columns, strict=True)) | CHANGES[change]
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", row_group_size=40)
    assert said(tmp_path / "p.parquet").equals(want)


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_every_compression_of_parquet_is_read(tmp_path, want, compression):
    pq.write_table(PLAIN.to_arrow(), tmp_path / "p.pq", compression=compression, data_page_version="2.0")
    assert said(tmp_path / "p.pq").equals(want)


def test_frames_of_pandas_keep_what_lies_in_their_index(tmp_path, want):
    frame = PLAIN.to_pandas()
    frame.set_index(["patient_id", "study_id"]).to_parquet(tmp_path / "multi.parquet")
    frame.set_index(np.random.default_rng(0).permutation(len(frame))).to_parquet(tmp_path / "index.parquet")
    frame.convert_dtypes().astype({"sex": "category", "y_true": "boolean"}).to_parquet(tmp_path / "types.parquet")
    frame.to_csv(tmp_path / "index.csv")
    for name in ("multi.parquet", "index.parquet", "types.parquet", "index.csv"):
        assert said(tmp_path / name).equals(want)


TEXT = PLAIN.write_csv()
LINES = TEXT.splitlines()
FILES = {
    "bom": "\ufeff" + TEXT,
    "crlf": TEXT.replace("\n", "\r\n"),
    "cr": TEXT.replace("\n", "\r"),
    "both line ends": "\r\n".join(LINES[:60]) + "\r\n" + "\n".join(LINES[60:]) + "\n",
    "no last line end": TEXT.rstrip("\n"),
    "blank last lines": TEXT + "\n,,,,,\n\n",
    "all quoted": PLAIN.write_csv(quote_style="always"),
    "text quoted": PLAIN.write_csv(quote_style="non_numeric"),
    "blanks after separators": TEXT.replace(",", ", "),
    "blanks and quotes": "\n".join(", ".join(f'"{cell}"' for cell in one.split(",")) for one in LINES),
    "separator at each end": TEXT.replace("\n", ",\n"),
    "separators below the header": "\n".join([LINES[0], *(f"{one},," for one in LINES[1:])]),
    "rows with numbers": "\n".join([f",{LINES[0]}", *(f"{at},{one}" for at, one in enumerate(LINES[1:]))]),
    "of R": "\n".join(['"",' + LINES[0], *(f'"{at}",{one}' for at, one in enumerate(LINES[1:]))]),
    "comment in cells": PLAIN.with_columns(note=pl.lit('said "no, thanks"\nand went')).write_csv(),
    "very wide": PLAIN.with_columns(**{f"f{at}": pl.lit(at) for at in range(2_000)}).write_csv(),
    "semicolon, decimal comma": PLAIN.with_columns(
        pl.col("y_score").cast(pl.String).str.replace(".", ",", literal=True)
    ).write_csv(separator=";"),
    "sep line": "sep=;\n" + PLAIN.write_csv(separator=";"),
    "exponents": PLAIN.with_columns(y_score=pl.Series([f"{one:.3E}" for one in SCORES])).write_csv(),
    "no-break spaces": PLAIN.with_columns(y_score=pl.Series([f"{one}\u00a0" for one in SCORES])).write_csv(),
    "signs": PLAIN.with_columns(y_true=pl.Series([f"+{one}" for one in LABELS])).write_csv(),
    "excel's text": "\n".join([LINES[0], *('="' + one.replace(",", '",', 1) for one in LINES[1:])]),
}  # fmt: skip


@pytest.mark.parametrize("form", FILES)
def test_every_way_to_write_text_is_the_same_predictions(tmp_path, want, form):
    (tmp_path / "p.csv").write_bytes(FILES[form].encode())
    assert said(tmp_path / "p.csv").equals(want)
