"""Verdicts and findings in words, written once: for `audit_findings`, the page, the cards and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from fmaudit_core.common.formatting import (
    NONE,
    level,
    margin_text,
    metric_said,
    metric_title,
    p_text,
    spread,
    task_title,
)
from fmaudit_core.common.vocabulary import DIAGNOSIS_TASK, UNKNOWN, subgroup_title

Row = Mapping[str, Any]

#: verdict -> its title, and its meaning
VERDICTS: Final[Mapping[str, tuple[str, str]]] = {
    "disparity": ("Disparity", "The subgroups differ by more than equal ones would."),
    "no_disparity_beyond_margin": ("Within margin", "A gap beyond the margin can be ruled out for every subgroup."),
    "within_margin_of_tested": (
        "Within margin where tested",
        "A gap beyond the margin can be ruled out between the tested subgroups, and not for the others.",
    ),
    "insufficient_evidence": ("Cannot tell", "The data can neither show nor rule out a gap beyond the margin."),
}


def verdict_title(verdict: str | None) -> str:
    """Return the title of a verdict."""
    return VERDICTS.get(verdict or "", ("Not tested", ""))[0]


def withheld_because(reason: str) -> str:
    """Return that no verdict is given on a gap, and why."""
    return f"No verdict is given. {reason}"


def of_model(task: str, model: str, sentence: str) -> str:
    """Return a sentence on a gap with its task and model in front, for a table."""
    return f"{task_title(task)}, {model}: {sentence}"


def among_whom(task: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the patients a model can miss, for one task; `titles` are those that the audit gives."""
    if task == DIAGNOSIS_TASK and task not in titles:
        return "patients with an embolism"
    return f"patients with the outcome ({task_title(task, titles)})"


@dataclass(frozen=True)
class GapText:
    """A gap as text, with its subgroups by their titles.

    Parameters
    ----------
    metric, verdict : str
    worst, best : str
        Titles of the subgroups that fare worst and best; empty if fewer than two were tested.
    worst_value, best_value, unrecorded : str or None
        Their values and that of studies whose attribute was not recorded; None if there is none to show.
    gap, null : str
        The gap, and that of subgroups with the same true value.
    mde : str
        The difference from the other subgroups that a test of the subgroup that fares worst finds with a probability of 80 %.
        A verdict covers all subgroups and attributes and usually finds such a difference less often.
    p : str
        The corrected p, or the q-value of an exploratory gap.
    n_tested : int
    comparable : bool
        Whether the test could be computed.
    not_covered : sequence of str
        Subgroups that the verdict does not cover.
    """

    metric: str
    verdict: str
    worst: str
    best: str
    worst_value: str | None
    best_value: str | None
    unrecorded: str | None
    gap: str
    null: str
    mde: str
    p: str
    n_tested: int
    comparable: bool
    not_covered: Sequence[str]


def gap_text(row: Row, subgroups: Mapping[str, Row]) -> GapText:
    """Return the text of a gap.

    Parameters
    ----------
    row : a row of `audit_findings` or `fairness_gaps`
    subgroups : mapping
        The rows of its attribute and metric in `subgroup_metrics`, by subgroup, as they may be shown.
    """
    metric = row["metric"]
    worst, best = (subgroups.get(row[f"{end}_subgroup"] or "") for end in ("worst", "best"))
    rounded = _rounded(worst)
    adjusted = row.get("p_adjusted")
    return GapText(
        metric=metric,
        verdict=row.get("verdict") or "",
        worst=subgroup_title(row["worst_subgroup"] or ""),
        best=subgroup_title(row["best_subgroup"] or ""),
        worst_value=_value(metric, worst),
        best_value=_value(metric, best),
        unrecorded=_value(metric, subgroups.get(UNKNOWN)),
        gap=spread(metric, row["gap"], rounded=rounded),
        null=spread(metric, row["null_expected_gap"], rounded=rounded),
        mde=spread(metric, worst["mde"] if worst else None, rounded=rounded),
        p=p_text(row.get("q_value"), "q") if adjusted is None else p_text(adjusted, "adjusted p"),
        n_tested=row.get("n_tested") or 0,
        comparable=row["p_value"] is not None,
        not_covered=row.get("not_covered") or [],
    )


def in_full(gap: GapText, whom: str, margin: float) -> str:
    """Return a finding in full: who is missed, how often, and how certain it is; `whom` is of `among_whom`."""
    if cannot := _not_judged(gap):
        return cannot
    return f"{_who(gap, whom)}: a gap of {gap.gap}, where equal subgroups would differ by about {gap.null}. " + (
        f"{_how_sure(gap, margin)}{_not_tested(gap)}"
    )


def in_short(gap: GapText, margin: float) -> str:
    """Return a finding in brief, for a card that shows the subgroups' values."""
    if cannot := _not_judged(gap):
        return cannot
    text = f"A gap of {gap.gap} between {gap.worst} and {gap.best}, about {gap.null} if equal"
    limit = margin_text(gap.metric, margin)
    if gap.verdict == "disparity":
        return f"{text} ({gap.p})."
    if gap.verdict == "no_disparity_beyond_margin":
        return f"{text}. More than {limit} can be ruled out."
    if gap.verdict == "within_margin_of_tested":
        return f"{text}. More than {limit} can be ruled out where tested.{_not_tested(gap)}"
    unseen = (
        "" if gap.mde == NONE else f" A test of {gap.worst} alone finds {gap.mde} in 80% of audits, a verdict in fewer."
    )
    return f"{text} ({gap.p}).{unseen}"


def _not_judged(gap: GapText) -> str:
    """Return why there is nothing to judge; empty if there is a gap with its test."""
    if not gap.worst or gap.gap == NONE:
        if gap.n_tested > 1:
            return "Its predictions hold no validation studies, so there is no operating threshold: only AUROC can be reported."
        return "Fewer than two subgroups are large enough to be tested: we cannot tell whether they differ."
    if gap.comparable:
        return ""
    return (
        f"The {metric_said(gap.metric)} cannot be compared: at this threshold every study, or none, is called positive in all "
        f"tested subgroups.{_not_tested(gap)}"
    )


def _who(gap: GapText, whom: str) -> str:
    if gap.worst_value is None or gap.best_value is None:
        return (
            f"{metric_title(gap.metric)} differs most between {gap.worst} and {gap.best}, whose values are withheld (small "
            "groups)"
        )
    values = f"{gap.worst_value} in the subgroup {gap.worst} and {gap.best_value} in {gap.best}"
    if gap.metric == "udr":
        return f"Of {whom}, the model missed {values}"
    if gap.metric == "fpr":
        return f"Of patients without the outcome, the model raised a false alarm for {values}"
    return f"{metric_title(gap.metric)} is {values}"


def _how_sure(gap: GapText, margin: float) -> str:
    limit = margin_text(gap.metric, margin)
    if gap.verdict == "disparity":
        return f"This is more than equal subgroups would show ({gap.p})."
    if gap.verdict == "no_disparity_beyond_margin":
        return f"A difference beyond {limit} can be ruled out."
    if gap.verdict == "within_margin_of_tested":
        return f"A difference beyond {limit} can be ruled out between the tested subgroups."
    return f"We cannot tell whether it is real ({gap.p}).{_detectable(gap)}"


def _detectable(gap: GapText) -> str:
    """Return what the test of one subgroup against the others finds; empty if that is unknown."""
    if gap.mde == NONE:
        return ""
    return (
        f" A test of {gap.worst} alone against the other subgroups would find a difference of {gap.mde} in 80% of audits; "
        "this verdict covers all subgroups and usually finds it in fewer."
    )


def _not_tested(gap: GapText) -> str:
    """Name the subgroups that a verdict does not cover."""
    values = {} if gap.unrecorded is None else {UNKNOWN: f" ({gap.unrecorded})"}
    names = [subgroup_title(name) + values.get(name, "") for name in gap.not_covered]
    return f" Not tested: {', '.join(names)}." if names else ""


def _value(metric: str, row: Row | None) -> str | None:
    if row is None or row["value"] is None:
        return None
    return level(metric, row["value"], rounded=_rounded(row))


def _rounded(row: Row | None) -> bool:
    return row is not None and row.get("counts") == "rounded"
