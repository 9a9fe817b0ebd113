"""How readable an attribute is, and whether mitigation takes a large encoder, for the page. Strategies: `mitigation.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.report.index.mitigation_index import MitigationIndex, Row
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.text.recommendations import run_title, strategy_title

PROBES: Final = {"logistic": "linear", "mlp": "nonlinear"}
#: pairs of encoders that the page shows of a task; the CSV has them all
_MOST_PAIRS: Final = 30


def gap_change(reduction: float | None, row: Mapping[str, Any]) -> Estimate:
    """Return a gap's change, below zero if it narrows, with its interval, from the reduction and that of `row`."""
    value, low, high = (None if one is None else -one for one in (reduction, row["ci_high"], row["ci_low"]))
    return formatting.difference_estimate("udr", value, low, high, rounded=row["rounded"])


@dataclass(frozen=True)
class ProbeLine:
    """How well a probe reads an attribute off an encoder's embeddings, next to permuted labels."""

    encoder: str
    width: str
    attribute: str
    probe: str
    auroc: Estimate
    control: str
    f1: str
    control_f1: str
    too_few: bool


@dataclass(frozen=True)
class CapacityLine:
    """What a strategy did to the gap of its attribute, next to how well the attribute is read and how wide the embedding is."""

    attribute: str
    strategy: str
    encoder: str
    width: str
    auroc: str
    before: str
    change: Estimate
    note: str


@dataclass(frozen=True)
class EncoderPairLine:
    """Whether a strategy changes the gap of one encoder more than that of another."""

    attribute: str
    strategy: str
    first: str
    second: str
    difference: Estimate
    p: str
    q: str


@dataclass(frozen=True)
class CapacityView:
    """Reductions of one task, and encoders in pairs, `more` of which are in the CSV alone."""

    task: str
    outcome: str
    rows: Sequence[CapacityLine]
    pairs: Sequence[EncoderPairLine]
    more: int


@dataclass(frozen=True)
class RungLine:
    """An encoder projected to one width."""

    attribute: str
    strategy: str
    width: str
    separable: str
    auroc: str
    change: Estimate
    note: str


@dataclass(frozen=True)
class LadderView:
    """One encoder projected to growing widths."""

    encoder: str
    outcome: str
    rows: Sequence[RungLine]


def probe_lines(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> list[ProbeLine]:
    """Return how well each attribute is read off each encoder's embeddings."""
    names = [one["name"] for one in index.encoders]
    rows = [row for row in mitigation_index.probes if row["encoder"] in names]
    attributes = list(index.audit.attributes)
    rows.sort(key=lambda row: (names.index(row["encoder"]), attributes.index(row["attribute"]), row["probe"]))
    return [
        ProbeLine(
            encoder=index.encoder_title(row["encoder"]),
            width=f"{row['width']:,}",
            attribute=formatting.attribute_title(row["attribute"]),
            probe=PROBES.get(row["probe"], str(row["probe"])),
            auroc=formatting.signed_estimate(row["balanced_auroc"], row["ci_low"], row["ci_high"]),
            control=formatting.signed(row["control_balanced_auroc"], 3, plus=False),
            f1=formatting.signed(row["macro_f1"], 3, plus=False),
            control_f1=formatting.signed(row["control_macro_f1"], 3, plus=False),
            too_few=row["status"] != "probed",
        )
        for row in rows
    ]


def capacity_view(index: ScoreSetIndex, mitigation_index: MitigationIndex, task: str) -> CapacityView:
    """Return reductions next to how separable an attribute is, and encoders in pairs."""
    rows = [row for row in mitigation_index.capacity if row["task"] == task]
    pairs = [row for row in mitigation_index.interactions if row["task"] == task]
    rows.sort(key=lambda row: (row["attribute"], row["strategy"], row["encoder"]))
    return CapacityView(
        task=task,
        outcome=formatting.task_title(task, index.task_titles),
        rows=[_capacity_line(index, row) for row in rows],
        pairs=[_pair_line(index, row) for row in pairs[:_MOST_PAIRS]],
        more=max(0, len(pairs) - _MOST_PAIRS),
    )


def _capacity_line(index: ScoreSetIndex, row: Row) -> CapacityLine:
    return CapacityLine(
        attribute=formatting.attribute_title(row["attribute"]),
        strategy=run_title(row),
        encoder=index.encoder_title(row["encoder"]),
        width=f"{row['width']:,}" if row["width"] is not None else formatting.NONE,
        auroc=formatting.signed(row["balanced_auroc"], 2, plus=False),
        before=formatting.points(row["gap_before"], 0 if row["rounded"] else 1),
        change=gap_change(row["reduction"], row),
        note=interpreted(row),
    )


def _pair_line(index: ScoreSetIndex, row: Row) -> EncoderPairLine:
    return EncoderPairLine(
        attribute=formatting.attribute_title(row["attribute"]),
        strategy=strategy_title(row["strategy"]),
        first=index.encoder_title(row["encoder"]),
        second=index.encoder_title(row["other_encoder"]),
        difference=gap_change(row["difference"], row),
        p=formatting.p_number(row["p_value"]),
        q=formatting.p_number(row["q_value"]),
    )


def interpreted(row: Row) -> str:
    """Return that a run's gap is not interpreted, because AUROC fell by more than the margin; else nothing."""
    return "" if row["interpretable"] else "not interpretable"


def ladder_view(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> LadderView | None:
    """Return one encoder projected to growing widths."""
    if not mitigation_index.ladder:
        return None
    rows = sorted(
        (row for row in mitigation_index.ladder if row["reduction"] is not None),
        key=lambda row: (row["attribute"], row["strategy"], row["alpha"] or 0, row["width"]),
    )
    first = mitigation_index.ladder[0]
    return LadderView(
        encoder=index.encoder_title(first["encoder"]),
        outcome=formatting.task_title(first["task"], index.task_titles),
        rows=[_rung(row) for row in rows],
    )


def _rung(row: Row) -> RungLine:
    return RungLine(
        attribute=formatting.attribute_title(row["attribute"]),
        strategy=run_title(row),
        width=f"{row['width']:,}",
        separable=formatting.signed(row["balanced_auroc"], 2, plus=False),
        auroc=formatting.signed(row["auroc"], 3, plus=False),
        change=gap_change(row["reduction"], row),
        note=interpreted(row),
    )
