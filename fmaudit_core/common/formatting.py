"""Numbers and titles as text, for the report, the tables' sentences and the terminal.

What may be shown at all: `report/disclosure/`. Verdicts and findings in words: `fairness/sentences.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from fmaudit_core.common.vocabulary import (
    ATTRIBUTE_TITLES,
    DASH,
    OVERALL,
    TASK_TITLES,
    TIMES,
    subgroup_title,
)

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
MINUS: Final = "\N{MINUS SIGN}"
NONE: Final = DASH


def task_title(task: str, titles: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the title of a task: the audit's (`task_titles`), else the usual one."""
    return titles.get(task) or TASK_TITLES.get(task, spaced(task))


def attribute_title(attribute: str) -> str:
    """Return the title of an attribute, or of the attributes an intersection crosses."""
    if " x " in attribute:
        return f" {TIMES} ".join(attribute_title(one) for one in attribute.split(" x "))
    return ATTRIBUTE_TITLES.get(attribute, spaced(attribute))


def group_title(attribute: str, subgroup: str) -> str:
    """Return the title of a subgroup, or that a row is of all studies."""
    return "All studies" if attribute == OVERALL else subgroup_title(subgroup)


def group_label(attribute: str, subgroup: str) -> str:
    """Return the title of a subgroup with its attribute in front."""
    title = group_title(attribute, subgroup)
    return title if attribute == OVERALL else f"{attribute_title(attribute)}: {title}"


def metric_title(metric: str) -> str:
    """Return the title of a metric."""
    return METRIC_TITLES.get(metric, metric.upper())


def metric_said(metric: str) -> str:
    """Return a metric within a sentence."""
    return _SAID.get(metric, metric_title(metric))


def metric_spelled(metric: str) -> str:
    """Return a metric within a sentence, where it is first met: its abbreviation written out."""
    return "share missed (underdiagnosis rate, UDR)" if metric == "udr" else metric_said(metric)


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


def auroc_shade(value: float) -> int:
    """Return how dark a cell of a table of AUROC is: 0 at 0.5 and below, 4 from 0.9."""
    return min(4, max(0, int((value - 0.5) * 10)))


class Estimate(NamedTuple):
    """A value and its interval as text."""

    value: str
    interval: str

    def __str__(self) -> str:
        """Return both in one text: ``0.81 (0.7 to 0.9)``."""
        return f"{self.value} ({self.interval})"


def estimate(metric: str, row: Mapping[str, Any], *, rounded: bool = False) -> Estimate:
    """Return `value` of a row with `ci_low` and `ci_high`."""
    return Estimate(
        level(metric, row["value"], rounded=rounded), interval(metric, row["ci_low"], row["ci_high"], rounded=rounded)
    )


def difference_estimate(
    metric: str, value: float | None, low: float | None, high: float | None, *, rounded: bool = False
) -> Estimate:
    """Return a difference with its interval."""
    return Estimate(difference(metric, value, rounded=rounded), difference_interval(metric, low, high, rounded=rounded))


def signed_estimate(value: float | None, low: float | None, high: float | None, decimals: int = 3) -> Estimate:
    """Return a number with its interval, each of which may be below zero."""
    return Estimate(signed(value, decimals, plus=False), between(low, high, decimals))


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


def tied(text: str) -> str:
    """Return a sentence for a narrow column: no line ends within a p-value or behind a range's dash."""
    return text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}").replace(DASH, f"{DASH}\N{WORD JOINER}")


def spaced(name: str) -> str:
    """Return a name as text: blanks for underscores, a capital in front."""
    text = name.replace("_x_", f" {TIMES} ").replace("*", f" {TIMES} ").replace("_", " ").strip()
    return text[:1].upper() + text[1:]
