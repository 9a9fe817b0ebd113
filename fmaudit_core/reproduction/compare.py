"""Verdicts on published values compared with this audit's: same, different, or not comparable, with the reason.

"Same" is a statement about the data: the published value, or part of the published range, lies within our interval, and the
interval is narrow enough to be informative. The paper gives no intervals and no counts, so its own sampling error is not taken
into account. If both audits use the same patients, much of that error is shared, so that "same" is lenient and "different" is
not.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from fmaudit_core.config import Audit, InspectCohort
from fmaudit_core.reproduction.our_values import Audited, NotComparableError, Ours
from fmaudit_core.reproduction.published_values import Figure, claims, published
from fmaudit_core.tables.findings import PAPER_COMPARISON

SAME: Final = "same"
DIFFERENT: Final = "different"
NOT_COMPARABLE: Final = "not_comparable"
ANOTHER_COHORT: Final = "another cohort: the paper's is INSPECT"
#: an interval wider than this is too imprecise to call two values the same
WIDEST_AUROC: Final = 0.10
WIDEST_RATE: Final = 0.20

_EXACT: Final = ("studies", "patients", "embedding_dim", "permutations")
_SETTINGS: Final = ("alpha_grid", "hidden_sizes")
_TESTS: Final = ("auroc_difference_test", "hispanic_disparity_p")


def compare_with_paper(audited: Audited, *, labels_file: str = "") -> pl.DataFrame:
    """Compare every published value with the audit.

    Parameters
    ----------
    labels_file : str
        Name of the release's file of labels: another release has other labels than the paper's.

    Returns
    -------
    Frame of `PAPER_COMPARISON`: a row per figure, encoder and task of the paper. For another cohort than INSPECT a row per
    figure, `not_comparable` all of them.
    """
    if not isinstance(audited.audit.cohort, InspectCohort):
        rows = [_row(one, Ours(), NOT_COMPARABLE, ANOTHER_COHORT, "") for one in published()]
        return PAPER_COMPARISON.frame(rows)
    return PAPER_COMPARISON.frame([_compared(one, audited, labels_file) for one in claims()])


def _compared(figure: Figure, audited: Audited, labels_file: str) -> dict[str, Any]:
    if figure.task and figure.task not in audited.audit.tasks:
        return _row(figure, Ours(), NOT_COMPARABLE, "the task was not audited", labels_file)
    try:
        ours = audited.ours(figure)
    except NotComparableError as found:
        return _row(figure, Ours(), NOT_COMPARABLE, found.reason, labels_file)
    verdict, why = judged(figure, ours, audited.audit)
    # for a test, p is the compared value; for other figures it is additional information
    theirs = (
        f"the paper gives p {figure.p_relation} {figure.p:g}" if figure.p is not None and figure.low is not None else ""
    )
    return _row(figure, ours, verdict, "; ".join(part for part in (why, theirs, ours.note) if part), labels_file)


def judged(figure: Figure, ours: Ours, audit: Audit) -> tuple[str, str]:
    """Return the verdict and its reason."""
    if figure.quantity in _TESTS:
        return _same_conclusion(figure, ours, audit)
    if figure.quantity in _EXACT:
        return (SAME if ours.value == figure.low else DIFFERENT), "compared exactly"
    if figure.quantity in _SETTINGS:
        return (SAME if ours.value == 1 else DIFFERENT), "compared exactly"
    if isinstance(figure.stated, bool):
        holds = ours.value == 1
        return (SAME if holds is figure.stated else DIFFERENT), "whether the statement holds in our curves"
    return _within(figure, ours)


def _within(figure: Figure, ours: Ours) -> tuple[str, str]:
    """Return the verdict by whether the published value or range overlaps our interval."""
    if ours.low is None or ours.high is None:
        return NOT_COMPARABLE, "our value has no interval"
    above = figure.low is not None and figure.low > ours.high
    below = figure.high is not None and figure.high < ours.low
    if above or below:
        return DIFFERENT, f"the published value lies {'above' if above else 'below'} our interval"
    widest = WIDEST_AUROC if "auroc" in figure.quantity else WIDEST_RATE
    if ours.high - ours.low > widest:
        return (
            NOT_COMPARABLE,
            f"our interval is wider than {widest:g} and includes the published value: too wide to tell",
        )
    return SAME, "the published value lies within our interval"


def _same_conclusion(figure: Figure, ours: Ours, audit: Audit) -> tuple[str, str]:
    """Return the verdict by whether both tests reach the same conclusion at the audit's level."""
    alpha = audit.fairness.alpha
    bound = figure.p if figure.p is not None else figure.low
    if ours.p is None or bound is None:
        return NOT_COMPARABLE, "our test has no p-value"
    theirs, own = bound <= alpha, ours.p <= alpha
    if figure.quantity == "auroc_difference_test":
        own = own and ours.value is not None and ours.value < 0
    message = f"the conclusions at {alpha:g} {'agree' if theirs is own else 'do not agree'}"
    return (SAME if theirs is own else DIFFERENT), message


def _row(figure: Figure, ours: Ours, verdict: str, reason: str, labels_file: str) -> dict[str, Any]:
    return {
        "id": figure.id,
        "where": figure.where,
        "quantity": figure.quantity,
        "model": figure.encoder or figure.model,
        "task": figure.task,
        "attribute": figure.attribute,
        "subgroup": figure.subgroup,
        "strategy": figure.strategy,
        "target_attribute": figure.target_attribute,
        "alpha": figure.alpha,
        "published": figure.text,
        "published_low": figure.low,
        "published_high": figure.high,
        "ours": ours.value,
        "ours_low": ours.low,
        "ours_high": ours.high,
        "ours_p": ours.p,
        "verdict": verdict,
        "reason": reason,
        "labels_file": labels_file,
    }
