"""What an encoder sees of an altered CT, as the page shows it: a table per encoder that `fmaudit encoders check` measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from fmaudit_core.common import formatting
from fmaudit_core.encoders.sensitivity_words import sensitivity_sentence
from fmaudit_core.report.index.score_set_index import ScoreSetIndex


@dataclass(frozen=True)
class SensitivityLine:
    """An alteration as text: what it means, and the cosine with the unaltered CT, mean and minimum."""

    sentence: str
    cosine: str
    cosine_min: str


@dataclass(frozen=True)
class SensitivityView:
    """The alterations of an encoder; `scans` names what they were measured on."""

    encoder: str
    scans: str
    lines: Sequence[SensitivityLine]


def sensitivity_views(index: ScoreSetIndex, rows: pl.DataFrame) -> list[SensitivityView]:
    """Return a table per measured encoder, in the page's order of encoders."""
    names = [one["name"] for one in index.encoders]
    found = {name: rows.filter(encoder=name) for name in names}
    return [_view(index, name, frame) for name, frame in found.items() if frame.height]


def _view(index: ScoreSetIndex, encoder: str, rows: pl.DataFrame) -> SensitivityView:
    n = max(rows.filter(pl.col("kind") != "patient").get_column("n").to_list())
    of = "this cohort" if rows.get_column("scans")[0] == "cohort" else "the phantom"
    lines = [
        SensitivityLine(
            sensitivity_sentence(row["alteration"], row["status"], row["relative_distance"]),
            _cosine(row["cosine"]),
            _cosine(row["cosine_min"]),
        )
        for row in rows.iter_rows(named=True)
    ]
    return SensitivityView(index.named(encoder), f"{n} patients of {of}", lines)


def _cosine(value: float | None) -> str:
    return formatting.NONE if value is None else f"{value:.4f}"
