"""Who else is missed: regions that nobody named, in words, with what is over-represented there and what could have been seen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import subgroup_title
from fmaudit_core.fairness.discovery import UNSTABLE
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex, by_key

_UDR: Final = "udr"
_RECORD: Final = "record."
_CONDITION: Final = re.compile(r"(?P<column>.*?) (?P<sign>!?=) (?P<level>.*)", re.DOTALL)
_SHARES: Final = {0.05: "A twentieth", 0.1: "A tenth", 0.2: "A fifth", 0.3: "Three tenths"}


@dataclass(frozen=True)
class RegionLine:
    """A region as text."""

    region: str
    missed: str
    expected: str
    rest: str
    excess: Estimate
    p: str
    n_pos: str
    overlap: str
    traits: str
    note: str


@dataclass(frozen=True)
class RegionMontage:
    """Slices of a region: the region as text, and a PNG in base64."""

    region: str
    png: str


@dataclass(frozen=True)
class WhoElseView:
    """The regions of one encoder and task: sentences on those that were confirmed, or that none was, and every row."""

    encoder: str
    outcome: str
    sentences: Sequence[str]
    lines: Sequence[RegionLine]
    montages: Sequence[RegionMontage] = ()


def who_else_views(
    index: ScoreSetIndex,
    regions: pl.DataFrame,
    traits: pl.DataFrame,
    montages: Mapping[tuple[str, str, int], str] | None = None,
) -> list[WhoElseView]:
    """Return a view per encoder and task that was searched; montages of regions that are shown, by encoder, task and region."""
    of_key = by_key(regions.sort("region"))
    of_region: dict[tuple[Key, int], list[Row]] = {}
    for row in traits.iter_rows(named=True):
        of_region.setdefault((Key.of(row), row["region"]), []).append(row)
    views = []
    for key in index.keys:
        if key not in of_key:
            continue
        rows = of_key[key]
        sentences = [region_sentence(row) for row in rows if row["confirmed"]] or [nothing_sentence(rows[0])]
        lines = [_line(row, of_region.get((key, row["region"]), [])) for row in rows if row["status"] != "none"]
        outcome = index.outcome(key)
        pictures = [
            RegionMontage(_whom(row), png)
            for row in rows
            if row["status"] == "tested" and (png := (montages or {}).get((key.encoder, key.task, row["region"])))
        ]
        views.append(WhoElseView(index.named(key.encoder), outcome, sentences, lines, pictures))
    return views


def region_sentence(row: Row) -> str:
    """Return a confirmed region in words."""
    whom, excess = _whom(row), _excess(row)
    missed, expected, rest, rest_expected = (
        formatting.percent(row[name], 0) for name in ("udr", "expected", "rest_udr", "rest_expected")
    )
    text = (
        f"{whom}: {missed} of the disease is missed there, where the scores predict {expected}; among the other studies {rest}, "
        f"where they predict {rest_expected}. That is {excess} beyond what the scores predict "
        f"({formatting.p_text(row['p_adjusted'], 'adjusted p')})."
    )
    return text + (
        " The region is unstable: a search in other patients would draw it elsewhere." if _unstable(row) else ""
    )


def nothing_sentence(row: Row) -> str:
    """Return what could have been seen where nothing was confirmed."""
    text = "No further subgroup was confirmed, which does not mean that there is none."
    if row["detectable"] is None:
        return f"{text} The test part is too small to test any."
    return (
        f"{text} A tenth of the studies would have been confirmed with a probability of 80% if it were missed "
        f"{formatting.points(row['detectable'], 0)} more often than expected, and if the search had met it exactly. Smaller "
        "subgroups, and those that do not show in the embedding or in the metadata, need larger differences."
    )


def _whom(row: Row) -> str:
    if row["rule"] is None:
        return "A region whose rule names an attribute with a group too small to show"
    if row["rule"]:
        return "Studies with " + " and ".join(map(_condition, row["rule"]))
    share = _SHARES.get(row["share"], formatting.percent(row["share"], 0))
    return f"{share} of the studies, those furthest along a direction in the embedding"


def _condition(text: str) -> str:
    found = _CONDITION.fullmatch(text)
    assert found is not None
    return _level(found["column"], found["level"], holds=found["sign"] == "=")


def _level(column: str, level: str, *, holds: bool = True) -> str:
    if column.startswith(_RECORD):
        code = column.removeprefix(_RECORD)
        return f"{'' if (level == 'yes') == holds else 'no '}record code {code} before the study"
    return f"{formatting.attribute_title(column)} {'' if holds else 'other than '}{subgroup_title(level)}"


def _line(row: Row, traits: Sequence[Row]) -> RegionLine:
    notes = {"few": "Too few patients in the test part", "withheld": "Withheld: a group is too small to show"}
    note = notes.get(row["status"], "Confirmed" if row["confirmed"] else "Not confirmed")
    return RegionLine(
        region=_whom(row),
        missed=formatting.percent(row["udr"], 0),
        expected=formatting.percent(row["expected"], 0),
        rest=f"{formatting.percent(row['rest_udr'], 0)}, {formatting.percent(row['rest_expected'], 0)}",
        excess=_excess(row),
        p=formatting.p_number(row["p_adjusted"]),
        n_pos=formatting.count(row["n_pos"], "rounded"),
        overlap=formatting.NONE if row["stability"] is None else f"{row['stability']:.2f}",
        traits="; ".join(map(_trait, traits)) or formatting.NONE,
        note=f"{note}; unstable" if _unstable(row) else note,
    )


def _unstable(row: Row) -> bool:
    return row["stability"] is not None and row["stability"] < UNSTABLE


def _trait(row: Row) -> str:
    shares = f"{formatting.percent(row['share_inside'], 0)} against {formatting.percent(row['share_outside'], 0)}"
    odds = f"odds ratio {row['odds_ratio']:.1f}, {formatting.p_text(row['q_value'], 'q')}"
    return f"{_level(row['column'], row['level'])} ({shares}; {odds})"


def _excess(row: Row) -> Estimate:
    return formatting.difference_estimate(_UDR, row["excess"], row["excess_low"], row["excess_high"], rounded=True)
