"""Two models on the same patients, as the page shows them: the difference, how sure, and whether the first is worse by much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fmaudit_core.common import formatting, vocabulary
from fmaudit_core.common.formatting import Estimate
from fmaudit_core.common.vocabulary import OVERALL, VARIANT
from fmaudit_core.report.figures import base as figures
from fmaudit_core.report.figures import calibration as calibration_figures
from fmaudit_core.report.index.score_set_index import Key, Row, ScoreSetIndex
from fmaudit_core.report.text.titles import variant_title

#: pairs of a task that the page shows; the CSV has them all
_MOST_PAIRS: Final = 10


@dataclass(frozen=True)
class PairLine:
    """A metric of two models as text: both values, their difference, its tests, and whether the first is non-inferior."""

    metric: str
    first: str
    second: str
    difference: Estimate
    p: str
    q: str
    non_inferior: str


@dataclass(frozen=True)
class PairedSubgroup:
    """A subgroup of an attribute in which two models are compared, `label` with both titles."""

    label: str
    withheld: bool
    n: str
    rows: Sequence[PairLine]


@dataclass(frozen=True)
class PairView:
    """Two models on one task, `against_baseline` if the second is a baseline and the first under audit."""

    task: str
    outcome: str
    first: str
    second: str
    sentence: str
    subgroups_sentence: str
    against_baseline: bool
    overall: Sequence[PairLine]
    subgroups: Sequence[PairedSubgroup]


def pair_views(index: ScoreSetIndex) -> list[PairView]:
    """Return the pairs of every task, those the findings are about first."""
    return [
        _pair_view(index, first, second, rows)
        for task in index.tasks
        for first, second, rows in index.comparisons(task)[:_MOST_PAIRS]
    ]


def more_pairs(index: ScoreSetIndex) -> int:
    """Return pairs that are in the CSV alone."""
    return sum(max(0, len(index.comparisons(task)) - _MOST_PAIRS) for task in index.tasks)


def pair_figures(index: ScoreSetIndex) -> dict[str, figures.Spec]:
    """Return the difference in AUROC of all studies for every pair, by task."""
    margin = index.audit.fairness.auroc_margin
    out = {}
    for task in index.tasks:
        drawn = [
            _drawn(index, first, second, row)
            for first, second, rows in index.comparisons(task)[:_MOST_PAIRS]
            for row in rows
            if row["attribute"] == OVERALL and row["metric"] == "auroc" and row["difference"] is not None
        ]
        if drawn:
            out[task] = calibration_figures.differences(drawn, margin)
    return out


def _pair_view(index: ScoreSetIndex, first: Key, second: Key, rows: list[Row]) -> PairView:
    names = _names(index, first, second)
    overall = [row for row in rows if row["attribute"] == OVERALL]
    subgroups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["attribute"] != OVERALL:
            subgroups.setdefault((row["attribute"], row["subgroup"]), []).append(row)
    return PairView(
        task=first.task,
        outcome=formatting.task_title(first.task, index.task_titles),
        first=names[0],
        second=names[1],
        sentence=_sentence(index, names, overall),
        subgroups_sentence=_subgroups_sentence(index, names, rows),
        against_baseline=index.is_audited_against_baseline(first.encoder, second.encoder),
        overall=[_line(index, row) for row in overall if row["counts"] != "withheld"],
        subgroups=[
            PairedSubgroup(
                label=formatting.group_label(*group),
                withheld=any(row["counts"] == "withheld" for row in of),
                n=formatting.count(of[0]["n"], of[0]["counts"]),
                rows=[_line(index, row) for row in of],
            )
            for group, of in subgroups.items()
        ],
    )


def _names(index: ScoreSetIndex, first: Key, second: Key) -> tuple[str, str]:
    """Return titles that differ: encoders, with the variant of a model that is not primary for its encoder."""
    titles = []
    for key in (first, second):
        title = index.encoder_title(key.encoder) + index.role(key.encoder)
        variant = variant_title(dict(zip(VARIANT, key.variant, strict=True)))
        if variant and not index.is_main(key):
            title += f", {variant}"
        titles.append(title)
    return titles[0], titles[1]


def _line(index: ScoreSetIndex, row: Row) -> PairLine:
    metric, rounded = row["metric"], row["counts"] == "rounded"
    return PairLine(
        metric=formatting.metric_title(metric),
        first=formatting.level(metric, row["value"], rounded=rounded),
        second=formatting.level(metric, row["other_value"], rounded=rounded),
        difference=formatting.difference_estimate(
            metric, row["difference"], row["ci_low"], row["ci_high"], rounded=rounded
        ),
        p=formatting.p_number(row["p_value"]),
        q=formatting.p_number(row["q_value"]),
        non_inferior=_non_inferior(index, row),
    )


def _non_inferior(index: ScoreSetIndex, row: Row) -> str:
    """Return whether the first model is shown not to be worse by the margin or more."""
    if row["non_inferior"] is None:
        return "not tested"
    margin, p = _margin(index, row["metric"]), formatting.exploratory_p_text(row["p_non_inferior"])
    return f"yes, not worse by {margin} or more ({p})" if row["non_inferior"] else f"not shown, margin {margin} ({p})"


def _margin(index: ScoreSetIndex, metric: str) -> str:
    settings = index.audit.fairness
    return formatting.margin_text(metric, settings.auroc_margin if metric == "auroc" else settings.margin)


def _sentence(index: ScoreSetIndex, names: tuple[str, str], overall: list[Row]) -> str:
    row = next((row for row in overall if row["metric"] == "auroc" and row["difference"] is not None), None)
    if row is None:
        return "Too few studies were scored by both to compare them."
    line = _line(index, row)
    text = (
        f"On the same {formatting.count(row['n'], row['counts'])} studies AUROC is {line.first} with {names[0]} and "
        f"{line.second} with {names[1]}: a difference of {line.difference.value} ({line.difference.interval}; "
        f"{formatting.exploratory_p_text(row['p_value'])}, {formatting.p_text(row['q_value'], 'q')})."
    )
    margin = _margin(index, "auroc")
    if row["non_inferior"] is None:
        return text
    if row["non_inferior"]:
        return f"{text} That {names[0]} is worse by {margin} or more can be ruled out."
    return f"{text} That {names[0]} is worse by {margin} or more cannot be ruled out."


_VERDICTS: Final = {
    "better": "has a higher AUROC, beyond chance, in {}",
    "not_worse": "is not worse by {margin} or more in {}",
    "worse": "has a lower AUROC, beyond chance, in {}",
    "cannot_tell": "may be worse by {margin} or more in {}: we cannot tell",
}


def _subgroups_sentence(index: ScoreSetIndex, names: tuple[str, str], rows: list[Row]) -> str:
    """Return the verdicts on the first model's AUROC in the tested subgroups, in a sentence; empty if none was tested."""
    of: dict[str, list[str]] = {}
    for row in rows:
        if row["attribute"] != OVERALL and row["metric"] == "auroc" and row["verdict"] is not None:
            of.setdefault(row["verdict"], []).append(vocabulary.subgroup_title(row["subgroup"]))
    margin = _margin(index, "auroc")
    wording = [text.format(", ".join(of[name]), margin=margin) for name, text in _VERDICTS.items() if name in of]
    return f"By subgroup, {names[0]} {'; '.join(wording)}." if wording else ""


def _drawn(index: ScoreSetIndex, first: Key, second: Key, row: Row) -> dict[str, Any]:
    names, line = _names(index, first, second), _line(index, row)
    apart = row["q_value"] is not None and row["q_value"] <= index.audit.fairness.alpha
    return {
        "label": "<br>".join(figures.tick_line(name) for name in names),
        "value": row["difference"], "low": row["ci_low"], "high": row["ci_high"], "apart": apart,
        "hover": (
            f"<b>{figures.plain(names[0])}</b><br>against {figures.plain(names[1])}<br>AUROC {line.first} and {line.second}"
            f"<br>difference {line.difference}<br>{formatting.exploratory_p_text(row['p_value'])}; "
            f"{formatting.p_text(row['q_value'], 'q')}"
        ),
        "aside": str(line.difference),
    }  # fmt: skip
