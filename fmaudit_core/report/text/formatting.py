"""Wording of numbers and verdicts for a clinician. What may be shown at all: `disclosure/disclosure.py`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from fmaudit_core.common.vocabulary import (
    ATTRIBUTE_TITLES,
    DASH,
    DIAGNOSIS_TASK,
    TASK_TITLES,
    THRESHOLD_GIVEN,
    TIMES,
    UNKNOWN,
    subgroup_title,
)
from fmaudit_core.encoders.pooling import GIVEN, VOLUME

METRIC_TITLES: Final[Mapping[str, str]] = {
    "auroc": "AUROC",
    "udr": "Missed (UDR)",
    "tpr": "Found (TPR)",
    "fpr": "False alarms (FPR)",
    "xauc": "Cross-group AUROC",
}
#: rates are wording in percent, their differences in percentage points
RATES: Final = ("udr", "tpr", "fpr")

_SAID: Final[Mapping[str, str]] = {
    "udr": "share missed (UDR)",
    "tpr": "share found (TPR)",
    "fpr": "share of false alarms (FPR)",
}
_POOLING_TITLES: Final = {VOLUME: "whole volume", GIVEN: "pooling as given"}
_MODALITY_TITLES: Final = {"ct": "CT", "ehr": "record", "ct+ehr": "CT and record"}

VERDICTS: Final[Mapping[str, tuple[str, str]]] = {
    "disparity": ("Disparity", "The subgroups differ by more than equal ones would."),
    "no_disparity_beyond_margin": ("Within margin", "A gap beyond the margin can be ruled out for every subgroup."),
    "within_margin_of_tested": (
        "Within margin where tested",
        "A gap beyond the margin can be ruled out between the tested subgroups, and not for the others.",
    ),
    "insufficient_evidence": ("Cannot tell", "The data can neither show nor rule out a gap beyond the margin."),
}
MINUS: Final = "\N{MINUS SIGN}"
NONE: Final = DASH


def task_title(task: str, titles: Mapping[str, str]) -> str:
    """Return the title of a task: the audit's (`task_titles`), else the usual one."""
    return titles.get(task) or TASK_TITLES.get(task, _spaced(task))


def attribute_title(attribute: str) -> str:
    """Return the title of an attribute, or of the attributes an intersection crosses."""
    if " x " in attribute:
        return f" {TIMES} ".join(attribute_title(one) for one in attribute.split(" x "))
    return ATTRIBUTE_TITLES.get(attribute, _spaced(attribute))


def step_title(step: str, titles: Mapping[str, str]) -> str:
    """Return a step of the cohort flow, the task in it by its title."""
    head, colon, task = step.partition(": ")
    known = task in titles or task in TASK_TITLES
    wording = f"{head}: {task_title(task, titles)}" if colon and known else step
    return wording[:1].upper() + wording[1:]


def metric_title(metric: str) -> str:
    """Return the title of a metric."""
    return METRIC_TITLES.get(metric, metric.upper())


def metric_said(metric: str) -> str:
    """Return a metric within a sentence."""
    return _SAID.get(metric, metric_title(metric))


def metric_spelled(metric: str) -> str:
    """Return a metric within a sentence, where it is first met: its abbreviation written out."""
    return "share missed (underdiagnosis rate, UDR)" if metric == "udr" else metric_said(metric)


def variant_title(variant: Mapping[str, str]) -> str:
    """Return probe, modality, pooling and strategy in a few words; those that predictions came without are left out."""
    wording = {
        "probe": f"{_spaced(variant['probe'])} probe",
        "modality": _MODALITY_TITLES.get(variant["modality"], variant["modality"]),
        "pooling": _POOLING_TITLES.get(variant["pooling"], f"{variant['pooling']} pooling"),
    }
    known = variant["probe"] != "given"
    parts = [text for name, text in wording.items() if known or variant[name] != "given"]
    if variant["strategy"] not in ("", "none"):
        parts.append(f"mitigation: {_spaced(variant['strategy']).lower()}")
    return ", ".join(parts)


def among_whom(task: str, titles: Mapping[str, str]) -> str:
    """Return the patients a model can miss, for one task."""
    if task == DIAGNOSIS_TASK and task not in titles:
        return "patients with an embolism"
    return f"patients with the outcome ({task_title(task, titles)})"


def percent(value: float | None, decimals: int = 1) -> str:
    """Return a rate in percent."""
    return NONE if value is None else f"{100 * value:.{decimals}f}%"


def points(value: float | None, decimals: int = 1) -> str:
    """Return a difference of rates in percentage points."""
    if value is None:
        return NONE
    text = f"{100 * value:.{decimals}f}"
    return f"{text} point" if text in ("1", "1.0") else f"{text} points"


def level(metric: str, value: float | None, *, rounded: bool = False) -> str:
    """Return a metric's value; rounded ones carry no decimal that was not kept."""
    if value is None:
        return NONE
    if metric in RATES:
        return percent(value, 0 if rounded else 1)
    return f"{value:.{2 if rounded else 3}f}"


def spread(metric: str, value: float | None, *, rounded: bool = False) -> str:
    """Return a gap or a detectable difference: points for rates, plain for AUROC."""
    if value is None:
        return NONE
    return points(value, 0 if rounded else 1) if metric in RATES else f"{value:.{2 if rounded else 3}f}"


def margin_text(metric: str, margin: float) -> str:
    """Return the margin as it was configured."""
    return f"{100 * margin:g} {'point' if margin == 0.01 else 'points'}" if metric in RATES else f"{margin:g}"


def interval(metric: str, low: float | None, high: float | None, *, rounded: bool = False) -> str:
    """Return an interval without its value."""
    if low is None or high is None:
        return NONE
    if metric in RATES:
        decimals = 0 if rounded else 1
        return f"{100 * low:.{decimals}f}{DASH}{100 * high:.{decimals}f}%"
    decimals = 2 if rounded else 3
    return f"{low:.{decimals}f}{DASH}{high:.{decimals}f}"


def signed(value: float | None, decimals: int = 3, *, plus: bool = True) -> str:
    """Return a number that may be below zero."""
    if value is None:
        return NONE
    text = f"{value:+.{decimals}f}" if plus else f"{value:.{decimals}f}"
    if not float(text):
        text = text.replace("-", "+" if plus else "")  # there is no zero below zero
    return text.replace("-", MINUS)


def between(low: float | None, high: float | None, decimals: int = 3) -> str:
    """Return an interval whose ends may be below zero."""
    if low is None or high is None:
        return NONE
    return f"{signed(low, decimals, plus=False)} to {signed(high, decimals, plus=False)}"


def difference(metric: str, value: float | None, *, rounded: bool = False) -> str:
    """Return a difference with its sign: points for rates, plain for AUROC."""
    if value is None:
        return NONE
    if metric in RATES:
        text = signed(100 * value, 0 if rounded else 1)
        return f"{text} {'point' if text[1:] in ('1', '1.0') else 'points'}"
    return signed(value, 2 if rounded else 3)


def difference_interval(metric: str, low: float | None, high: float | None, *, rounded: bool = False) -> str:
    """Return the interval of a difference, in the unit of `difference`."""
    if low is None or high is None:
        return NONE
    if metric in RATES:
        return between(100 * low, 100 * high, 0 if rounded else 1)
    return between(low, high, 2 if rounded else 3)


def p_number(p: float | None) -> str:
    """Return a p or q value as a number."""
    if p is None:
        return NONE
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_text(p: float | None, symbol: str = "p") -> str:
    """Return a p or q value with its symbol."""
    number = p_number(p)
    if number == NONE:
        return f"{symbol} not computed"
    return f"{symbol} {number.replace('<', '< ')}" if number.startswith("<") else f"{symbol} = {number}"


def exploratory_p_text(p: float | None) -> str:
    """Return a p that is not adjusted for other comparisons, named so."""
    return p_text(p, "exploratory p")


def tests_text(row: Mapping[str, Any]) -> str:
    """Return the p of a gap, its adjusted p and its q, as far as they were computed."""
    tests = (("p_value", "exploratory p"), ("p_adjusted", "adjusted p"), ("q_value", "q"))
    wording = [p_text(row[name], symbol) for name, symbol in tests if row.get(name) is not None]
    return "; ".join(wording) or "not tested"


def count(value: int | None, counts: str = "exact", least: int | None = None) -> str:
    """Return a count as it may be shown; if it is unsaid, its lower bound."""
    if counts == "withheld":
        return "withheld"
    if counts == "unsaid" and least is not None:
        return f"{least:,} or more"
    if value is None:
        return NONE
    return f"≈ {value:,}" if counts == "rounded" else f"{value:,}"


def verdict_title(verdict: str | None) -> str:
    """Return the title of a verdict."""
    return VERDICTS.get(verdict or "", ("Not tested", ""))[0]


def withheld_because(reason: str) -> str:
    """Return that no verdict is given on a gap, and why."""
    return f"No verdict is given. {reason}"


def threshold_origin(sources: Collection[str]) -> str:
    """Return how operating thresholds came about, from their origins in `threshold_source`."""
    chosen = "chosen on validation patients"
    if THRESHOLD_GIVEN not in sources:
        return chosen
    return (
        "given by the user" if len(sources) == 1 else f"given by the user for some models and {chosen} for the others"
    )


def summary_of(finding: Mapping[str, Any], whom: str, margin: float, mde: str) -> str:
    """Return a finding in full: who is missed, how often, and how certain it is.

    Parameters
    ----------
    finding : a row of audit_findings
        With the titles `best` and `worst`, their values as text (`best_text`, `worst_text`), and `gap_text`, `null_text`,
        `unrecorded_text` (the value of studies whose attribute was not recorded),
        all as they may be shown.
    whom : str
        The patients that the model can miss, of `among_whom`.
    margin : float
    mde : str
        The smallest difference that would have shown in the subgroup that fares worst.
    """
    metric, worst, best = finding["metric"], finding["worst"], finding["best"]
    if (not worst or finding["gap"] is None) and (finding.get("n_tested") or 0) > 1:
        return "Its predictions hold no validation studies, so there is no operating threshold: only AUROC can be reported."
    if not worst or finding["gap"] is None:
        return "Fewer than two subgroups are large enough to be tested: we cannot tell whether they differ."
    withheld = any(finding[name] in (None, NONE) for name in ("worst_text", "best_text"))
    values = f"{finding['worst_text']} in the subgroup {worst} and {finding['best_text']} in {best}"
    if withheld:
        who = (
            f"{metric_title(metric)} differs most between {worst} and {best}, whose values are withheld (small groups)"
        )
    elif metric == "udr":
        who = f"Of {whom}, the model missed {values}"
    elif metric == "fpr":
        who = f"Of patients without the outcome, the model raised a false alarm for {values}"
    else:
        who = f"{metric_title(metric)} is {values}"
    unseen = "" if mde == NONE else f"; in {worst} only a difference of {mde} or more would have shown"
    sure = _how_sure(finding, margin, unseen)
    equal = f"where equal subgroups would differ by about {finding['null_text']}"
    return f"{who}: a gap of {finding['gap_text']}, {equal}. {sure}{_not_tested(finding)}"


def in_short(finding: Mapping[str, Any], margin: float, mde: str) -> str:
    """Return the finding in brief, for a card that shows the subgroups' values; parameters as of `summary_of`."""
    worst, best = finding["worst"], finding["best"]
    if not worst or finding["gap"] is None:
        return summary_of(finding, "", margin, mde)
    gap = f"A gap of {finding['gap_text']} between {worst} and {best}, about {finding['null_text']} if equal"
    adjusted = finding.get("p_adjusted")
    p = p_text(finding.get("q_value"), "q") if adjusted is None else p_text(adjusted, "adjusted p")
    if finding.get("verdict") == "disparity":
        return f"{gap} ({p})."
    if finding.get("verdict") == "no_disparity_beyond_margin":
        return f"{gap}. More than {margin_text(finding['metric'], margin)} can be ruled out."
    if finding.get("verdict") == "within_margin_of_tested":
        return f"{gap}. More than {margin_text(finding['metric'], margin)} can be ruled out where tested.{_not_tested(finding)}"
    unseen = "" if mde == NONE else f" In {worst}, less than {mde} would not have shown."
    return f"{gap} ({p}).{unseen}"


def tied(text: str) -> str:
    """Return a sentence for a narrow column: no line ends within a p-value or behind a range's dash."""
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").replace(DASH, f"{DASH}\N{WORD JOINER}")


def _how_sure(finding: Mapping[str, Any], margin: float, unseen: str) -> str:
    adjusted = finding.get("p_adjusted")
    p = p_text(finding.get("q_value"), "q") if adjusted is None else p_text(adjusted, "adjusted p")
    if finding.get("verdict") == "disparity":
        return f"This is more than equal subgroups would show ({p})."
    if finding.get("verdict") == "no_disparity_beyond_margin":
        return f"A difference beyond {margin_text(finding['metric'], margin)} can be ruled out."
    if finding.get("verdict") == "within_margin_of_tested":
        return f"A difference beyond {margin_text(finding['metric'], margin)} can be ruled out between the tested subgroups."
    return f"We cannot tell whether it is real ({p}){unseen}."


def _not_tested(finding: Mapping[str, Any]) -> str:
    """Name the subgroups that a verdict does not cover."""
    names = finding.get("not_covered") or []
    unrecorded = finding.get("unrecorded_text")
    values = {UNKNOWN: f" ({unrecorded})"} if unrecorded not in (None, NONE) else {}
    return f" Not tested: {', '.join(subgroup_title(name) + values.get(name, '') for name in names)}." if names else ""


def _spaced(name: str) -> str:
    spaced = name.replace("_x_", f" {TIMES} ").replace("*", f" {TIMES} ").replace("_", " ").strip()
    return spaced[:1].upper() + spaced[1:]
