"""How readable an attribute is, and whether mitigation takes a large encoder, for the page. Strategies: `mitigation.py`."""

from __future__ import annotations

from typing import Final

from fmaudit_core.report.index.mitigation_index import MitigationIndex, Row
from fmaudit_core.report.index.score_set_index import ScoreSetIndex
from fmaudit_core.report.text import formatting
from fmaudit_core.report.text.recommendations import run_title, strategy_title

PROBES: Final = {"logistic": "linear", "mlp": "nonlinear"}
#: pairs of encoders that the page shows of a task; the CSV has them all
_MOST_PAIRS: Final = 30


def change(reduction: float | None, *, rounded: bool) -> str:
    """Return a gap's change: below zero where it narrows."""
    return formatting.difference("udr", None if reduction is None else -reduction, rounded=rounded)


def change_interval(low: float | None, high: float | None, *, rounded: bool) -> str:
    """Return the interval of a gap's change, from that of its reduction."""
    if low is None or high is None:
        return formatting.NONE
    return formatting.difference_interval("udr", -high, -low, rounded=rounded)


def probes_view(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> list[Row]:
    """Return how well each attribute is read off each encoder's embeddings."""
    names = [one["name"] for one in index.encoders]
    rows = [row for row in mitigation_index.probes if row["encoder"] in names]
    attributes = list(index.audit.attributes)
    rows.sort(key=lambda row: (names.index(row["encoder"]), attributes.index(row["attribute"]), row["probe"]))
    return [
        {
            "encoder": index.encoder_title(row["encoder"]),
            "width": f"{row['width']:,}",
            "attribute": formatting.attribute_title(row["attribute"]),
            "probe": PROBES.get(row["probe"], row["probe"]),
            "auroc": formatting.signed(row["balanced_auroc"], 3, plus=False),
            "interval": formatting.between(row["ci_low"], row["ci_high"]),
            "control": formatting.signed(row["control_balanced_auroc"], 3, plus=False),
            "f1": formatting.signed(row["macro_f1"], 3, plus=False),
            "control_f1": formatting.signed(row["control_macro_f1"], 3, plus=False),
            "too_few": row["status"] != "probed",
        }
        for row in rows
    ]


def capacity_view(index: ScoreSetIndex, mitigation_index: MitigationIndex, task: str) -> Row:
    """Return reductions next to how separable an attribute is, and encoders in pairs."""
    rows = [row for row in mitigation_index.capacity if row["task"] == task]
    pairs = [row for row in mitigation_index.interactions if row["task"] == task]
    return {
        "task": task,
        "outcome": formatting.task_title(task, index.task_titles),
        "rows": [
            {
                "attribute": formatting.attribute_title(row["attribute"]),
                "strategy": run_title(row),
                "encoder": index.encoder_title(row["encoder"]),
                "width": f"{row['width']:,}" if row["width"] is not None else formatting.NONE,
                "auroc": formatting.signed(row["balanced_auroc"], 2, plus=False),
                "before": formatting.points(row["gap_before"], 0 if row["rounded"] else 1),
                "change": change(row["reduction"], rounded=row["rounded"]),
                "interval": change_interval(row["ci_low"], row["ci_high"], rounded=row["rounded"]),
                "note": "" if row["interpretable"] else "not interpretable",
            }
            for row in sorted(rows, key=lambda row: (row["attribute"], row["strategy"], row["encoder"]))
        ],
        "pairs": [
            {
                "attribute": formatting.attribute_title(row["attribute"]),
                "strategy": strategy_title(row["strategy"]),
                "first": index.encoder_title(row["encoder"]),
                "second": index.encoder_title(row["other_encoder"]),
                "difference": change(row["difference"], rounded=row["rounded"]),
                "interval": change_interval(row["ci_low"], row["ci_high"], rounded=row["rounded"]),
                "p": formatting.p_number(row["p_value"]),
                "q": formatting.p_number(row["q_value"]),
            }
            for row in pairs[:_MOST_PAIRS]
        ],
        "more": max(0, len(pairs) - _MOST_PAIRS),
    }


def ladder_view(index: ScoreSetIndex, mitigation_index: MitigationIndex) -> Row | None:
    """Return one encoder projected to growing widths."""
    if not mitigation_index.ladder:
        return None
    first = mitigation_index.ladder[0]
    return {
        "encoder": index.encoder_title(first["encoder"]),
        "outcome": formatting.task_title(first["task"], index.task_titles),
        "rows": [
            {
                "attribute": formatting.attribute_title(row["attribute"]),
                "strategy": run_title(row),
                "width": f"{row['width']:,}",
                "separable": formatting.signed(row["balanced_auroc"], 2, plus=False),
                "auroc": formatting.signed(row["auroc"], 3, plus=False),
                "change": change(row["reduction"], rounded=row["rounded"]),
                "interval": change_interval(row["ci_low"], row["ci_high"], rounded=row["rounded"]),
                "note": "" if row["interpretable"] else "not interpretable",
            }
            for row in sorted(
                mitigation_index.ladder,
                key=lambda row: (row["attribute"], row["strategy"], row["alpha"] or 0, row["width"]),
            )
            if row["reduction"] is not None
        ],
    }
