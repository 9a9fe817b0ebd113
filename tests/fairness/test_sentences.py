"""Findings in words: the table, the page and the terminal share the sentence."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from fmaudit_core.fairness.score_warnings import AUROC_BELOW_HALF, withhold_verdicts
from fmaudit_core.fairness.sentences import among_whom, gap_text, in_full, in_short
from fmaudit_core.fairness.thresholds import SCORE_SET
from fmaudit_core.tables.fairness import SCORE_WARNINGS

GAP = {
    "metric": "udr", "worst_subgroup": "75-90", "best_subgroup": "18-40", "gap": 0.2, "null_expected_gap": 0.09,
    "p_value": 0.0001, "p_adjusted": 0.0004, "q_value": 0.01, "n_tested": 2, "not_covered": [], "verdict": "disparity",
}  # fmt: skip
SUBGROUPS = {"75-90": {"value": 0.42, "mde": 0.31}, "18-40": {"value": 0.22, "mde": 0.12}}
OLD, YOUNG = "75\N{EN DASH}90", "18\N{EN DASH}40"


def said(task: str = "pe", subgroups: dict[str, dict[str, Any]] = SUBGROUPS, **changes: Any) -> str:
    return in_full(gap_text(GAP | changes, subgroups), among_whom(task), 0.05)


@pytest.mark.parametrize(
    ("verdict", "end", "short"),
    [
        (
            "disparity",
            "This is more than equal subgroups would show (adjusted p < 0.001).",
            " (adjusted p < 0.001).",
        ),
        (
            "no_disparity_beyond_margin",
            "A difference beyond 5 points can be ruled out.",
            ". More than 5 points can be ruled out.",
        ),
        (
            "within_margin_of_tested",
            "A difference beyond 5 points can be ruled out between the tested subgroups.",
            ". More than 5 points can be ruled out where tested.",
        ),
        (
            "insufficient_evidence",
            f"We cannot tell whether it is real (adjusted p < 0.001). A test of {OLD} alone against the other subgroups would "
            "find a difference of 31.0 points in 80% of audits; this verdict covers all subgroups and usually finds it in fewer.",
            f" (adjusted p < 0.001). A test of {OLD} alone finds 31.0 points in 80% of audits, a verdict in fewer.",
        ),
    ],
)
def test_a_finding_says_who_how_often_and_how_sure(verdict: str, end: str, short: str) -> None:
    assert said(verdict=verdict) == (
        f"Of patients with an embolism, the model missed 42.0% in the subgroup {OLD} and 22.0% in {YOUNG}: a gap of 20.0 "
        f"points, where equal subgroups would differ by about 9.0 points. {end}"
    )
    brief = in_short(gap_text(GAP | {"verdict": verdict}, SUBGROUPS), 0.05)
    assert brief == f"A gap of 20.0 points between {OLD} and {YOUNG}, about 9.0 points if equal{short}"


def test_a_withheld_value_is_no_none() -> None:
    hidden = {name: row | {"value": None, "mde": None} for name, row in SUBGROUPS.items()}
    assert said(subgroups=hidden, verdict="insufficient_evidence") == (
        f"Missed (UDR) differs most between {OLD} and {YOUNG}, whose values are withheld (small groups): a gap of "
        "20.0 points, where equal subgroups would differ by about 9.0 points. We cannot tell whether it is real "
        "(adjusted p < 0.001)."
    )


def test_rounded_values_carry_no_decimal() -> None:
    rounded = {name: row | {"counts": "rounded"} for name, row in SUBGROUPS.items()}
    assert f"missed 42% in the subgroup {OLD} and 22% in {YOUNG}: a gap of 20 points" in said(subgroups=rounded)


def test_an_exploratory_finding_is_told_with_its_q() -> None:
    assert said(p_adjusted=None).endswith("(q = 0.010).")


def test_other_tasks_do_not_speak_of_embolism() -> None:
    assert said("mortality_1m").startswith("Of patients with the outcome (Mortality, 1 month), the model missed")


def test_subgroups_that_were_not_tested_are_named_with_the_value_of_the_unrecorded() -> None:
    unrecorded = SUBGROUPS | {"unknown": {"value": 0.3, "mde": None}}
    ends = said(subgroups=unrecorded, not_covered=["41-60", "unknown"])
    assert ends.endswith(" Not tested: 41\N{EN DASH}60, Not recorded (30.0%).")


def test_untested_subgroups_are_no_finding() -> None:
    untested = {"worst_subgroup": None, "best_subgroup": None, "gap": None, "p_value": None}
    few = "Fewer than two subgroups are large enough to be tested: we cannot tell whether they differ."
    assert said(**untested, n_tested=1) == few
    assert "there is no operating threshold" in said(**untested, n_tested=2)


def test_a_gap_without_a_test_is_said_to_have_none() -> None:
    """A threshold that calls every study, or none, leaves no variance to test with."""
    degenerate = {"gap": 0.0, "p_value": None, "p_adjusted": None, "q_value": None, "verdict": "insufficient_evidence"}
    text = "The share missed (UDR) cannot be compared: at this threshold every study, or none, is called positive in all tested"
    assert said(**degenerate).startswith(text)
    assert in_short(gap_text(GAP | degenerate, SUBGROUPS), 0.05).startswith(text)


def test_a_withheld_verdict_is_said_with_its_reason_and_other_rows_keep_their_sentence() -> None:
    key = dict.fromkeys(SCORE_SET, "one")
    gaps = pl.DataFrame(
        [key | {"attribute": "sex", "metric": "auroc", "verdict": "disparity", "sentence": "As it was."},
         key | {"encoder": "two", "attribute": "sex", "metric": "auroc", "verdict": "disparity", "sentence": "As it was."}]
    )  # fmt: skip
    row = key | {
        "attribute": "overall", "subgroup": "all", "code": AUROC_BELOW_HALF, "metric": "auroc", "withholds": True,
        "value": 0.4, "low": 0.3, "high": 0.45,
    }  # fmt: skip
    warnings = pl.DataFrame([row], schema=SCORE_WARNINGS.schema)
    held, kept = withhold_verdicts(gaps, warnings, {"one": "One"}).to_dicts()
    assert held["verdict"] == "insufficient_evidence"
    assert held["sentence"].startswith("One, One: No verdict is given. AUROC of all studies is 0.40")
    assert (kept["verdict"], kept["sentence"]) == ("disparity", "As it was.")
