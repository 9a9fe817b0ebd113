"""How slices become a study, as the page shows it: each aggregation against the mean of the slices, one task at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fmaudit_core.common import formatting
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.figures import calibration as calibration_figures
from fmaudit_core.report.index.score_set_index import Row, ScoreSetIndex

_TITLES: Final = {
    "mean": "Mean of the slices",
    "max": "Maximum",
    "median": "Median",
    "attention": "Gated attention",
    "lrcn": "Recurrent network",
}
_ABSENT: Final = {
    "not_scored": "not fitted",
    "suppressed": "too few to show",
    "not_estimable": "one outcome only",
    "no_slices": "this encoder gives no slices",
}


@dataclass(frozen=True)
class AggregationLine:
    """An aggregation of slices as text; `absent` says why it has no number, `reference` that it is what others differ from."""

    title: str
    absent: str
    n: str
    auroc: Estimate
    reference: bool
    difference: Estimate
    p: str
    p_holm: str
    seeds: str
    equal: str


@dataclass(frozen=True)
class AggregationView:
    """The aggregations of a task, by the title of their encoder."""

    task: str
    outcome: str
    encoders: Sequence[tuple[str, Sequence[AggregationLine]]]


def aggregation_views(index: ScoreSetIndex) -> list[AggregationView]:
    """Return a table per task in which something is compared."""
    return [
        AggregationView(
            task,
            formatting.task_title(task, index.task_titles),
            [
                (index.encoder_title(encoder), [_line(index, row) for row in rows])
                for encoder, rows in _by_encoder(index, task).items()
            ],
        )
        for task in index.tasks
        if _compared(index, task)
    ]


def aggregation_figures(index: ScoreSetIndex) -> dict[str, figures.Spec]:
    """Return the difference in AUROC from the mean of the slices, by task."""
    out = {}
    for task in index.tasks:
        drawn = [_drawn(index, row) for row in _compared(index, task)]
        if drawn:
            against = f"AUROC {formatting.MINUS} that of the mean of the slices"
            out[task] = calibration_figures.differences(drawn, index.audit.fairness.auroc_margin, against)
    return out


def _by_encoder(index: ScoreSetIndex, task: str) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {}
    for row in index.aggregations(task):
        rows.setdefault(row["encoder"], []).append(row)
    return rows


def _compared(index: ScoreSetIndex, task: str) -> list[Row]:
    return [row for row in index.aggregations(task) if row["difference"] is not None]


def _title(index: ScoreSetIndex, row: Row) -> str:
    if row["aggregation"] is None:
        return "Slices"
    if row["comparison"] == "window":
        return f"Mean, seen as {index.encoder_title(row['view_of'])}"
    return _TITLES.get(row["aggregation"], str(row["aggregation"]))


def _line(index: ScoreSetIndex, row: Row) -> AggregationLine:
    absent = _ABSENT.get(row["status"], "")
    return AggregationLine(
        title=_title(index, row),
        absent=absent,
        n="" if absent else formatting.count(row["n"]),
        auroc=formatting.estimate("auroc", row | {"value": row["auroc"]}),
        reference=row["status"] == "reference",
        difference=formatting.difference_estimate(
            "auroc", row["difference"], row["difference_low"], row["difference_high"]
        ),
        p=formatting.p_number(row["p_value"]),
        p_holm=formatting.p_number(row["p_holm"]),
        seeds=_seeds(row),
        equal=_equal(row),
    )


def _seeds(row: Row) -> str:
    """Return mean and deviation over the seeds of a network, if there are several."""
    if not row["seeds"] or row["seed_sd"] is None:
        return ""
    return f"{row['seeds']} seeds: {row['seed_mean']:.3f}, sd {row['seed_sd']:.3f}"


def _equal(row: Row) -> str:
    """Return the gain of attention over itself with equal weights."""
    if row["equal_difference"] is None:
        return ""
    apart = formatting.difference("auroc", row["equal_difference"])
    between = formatting.difference_interval("auroc", row["equal_low"], row["equal_high"])
    return f"against itself with equal weights {apart} ({between}; {formatting.exploratory_p_text(row['equal_p'])})"


def _drawn(index: ScoreSetIndex, row: Row) -> dict[str, Any]:
    line = _line(index, row)
    encoder = index.encoder_title(row["encoder"])
    return {
        "label": f"{figures.tick_line(line.title)}<br>{figures.tick_line(encoder)}",
        "value": row["difference"], "low": row["difference_low"], "high": row["difference_high"],
        "apart": row["p_holm"] is not None and row["p_holm"] <= index.audit.fairness.alpha,
        "hover": (
            f"<b>{figures.plain(line.title)}</b><br>{figures.plain(encoder)}<br>AUROC {line.auroc}"
            f"<br>difference {line.difference}<br>"
            f"{formatting.exploratory_p_text(row['p_value'])}; "
            f"{formatting.p_text(row['p_holm'], 'adjusted p')}"
        ),
        "aside": str(line.difference),
    }  # fmt: skip
