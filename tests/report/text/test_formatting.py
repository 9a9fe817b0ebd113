"""Numbers and verdicts as a clinician reads them."""

from __future__ import annotations

import pytest

from fmaudit_core.common import vocabulary
from fmaudit_core.report.text import formatting

FINDING = {
    "metric": "udr", "worst": "75 to 90", "best": "18 to 40", "worst_text": "42.0%", "best_text": "22.0%", "gap": 0.2,
    "gap_text": "20.0 points", "null_text": "9.0 points", "p_adjusted": 0.0004, "q_value": 0.01,
}  # fmt: skip


@pytest.mark.parametrize(
    ("p", "said"),
    [(None, "p not computed"), (0.0001, "p < 0.001"), (0.0123, "p = 0.012"), (0.5, "p = 0.50"), (1.0, "p = 1.00")],
)
def test_p_values(p: float | None, said: str) -> None:
    assert formatting.p_text(p) == said


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("disparity", "This is more than equal subgroups would show (adjusted p < 0.001)."),
        ("no_disparity_beyond_margin", "A difference beyond 5 points can be ruled out."),
        (
            "insufficient_evidence",
            "We cannot tell whether it is real (adjusted p < 0.001); in 75 to 90 only a difference of 31 points or more would "
            "have shown.",
        ),
    ],
)
def test_a_finding_says_who_how_often_and_how_sure(verdict: str, said: str) -> None:
    sentence = formatting.summary_of(
        {**FINDING, "verdict": verdict}, formatting.among_whom("pe", {}), 0.05, "31 points"
    )
    assert sentence == (
        "Of patients with an embolism, the model missed 42.0% in the subgroup 75 to 90 and 22.0% in 18 to 40: a gap of 20.0 "
        f"points, where equal subgroups would differ by about 9.0 points. {said}"
    )


def test_a_withheld_value_is_no_none() -> None:
    row = FINDING | {"worst_text": None, "best_text": None, "verdict": "insufficient_evidence"}
    assert formatting.summary_of(row, formatting.among_whom("pe", {}), 0.05, formatting.NONE) == (
        "Missed (UDR) differs most between 75 to 90 and 18 to 40, whose values are withheld (small groups): a gap of "
        "20.0 points, where equal subgroups would differ by about 9.0 points. We cannot tell whether it is real "
        "(adjusted p < 0.001)."
    )


def test_an_exploratory_finding_is_told_with_its_q() -> None:
    said = formatting.summary_of(
        {**FINDING, "p_adjusted": None, "verdict": "disparity"}, formatting.among_whom("pe", {}), 0.05, ""
    )
    assert said.endswith("(q = 0.010).")


def test_other_tasks_do_not_speak_of_embolism() -> None:
    said = formatting.summary_of(
        {**FINDING, "verdict": "disparity"}, formatting.among_whom("mortality_1m", {}), 0.05, ""
    )
    assert said.startswith("Of patients with the outcome (Mortality, 1 month), the model missed")


def test_a_task_has_the_title_of_the_audit_else_the_usual_one() -> None:
    titles = {"ild": "ILD", "pe": "PE on CTPA"}
    assert [formatting.task_title(name, titles) for name in ("ild", "pe", "mortality_1m", "lung_nodule")] == [
        "ILD", "PE on CTPA", "Mortality, 1 month", "Lung nodule",
    ]  # fmt: skip
    assert formatting.among_whom("pe", titles) == "patients with the outcome (PE on CTPA)"
    assert formatting.step_title("outcome known: ild", titles) == "Outcome known: ILD"
    assert formatting.step_title("outcome known: ild", {}) == "Outcome known: ild"


def test_untested_subgroups_are_no_finding() -> None:
    said = formatting.summary_of(
        {**FINDING, "worst": None, "gap": None, "verdict": "insufficient_evidence"},
        formatting.among_whom("pe", {}),
        0.05,
        "",
    )
    assert "we cannot tell" in said


def test_levels_are_named_for_people() -> None:
    assert vocabulary.subgroup_title("18-40") == "18\N{EN DASH}40"
    assert vocabulary.subgroup_title("nh_black") == "Black"
    assert vocabulary.subgroup_title("some_group") == "Some group"
    assert vocabulary.subgroup_title("unknown") == "Not recorded"


def test_a_variant_says_what_is_known_of_the_model() -> None:
    given = dict.fromkeys(("probe", "modality", "pooling"), "given") | {"strategy": "none"}
    assert formatting.variant_title(given) == ""
    assert formatting.variant_title(given | {"pooling": "max"}) == "max pooling"
    of_embeddings = {"probe": "logistic", "modality": "ct", "pooling": "given", "strategy": "none"}
    assert formatting.variant_title(of_embeddings) == "Logistic probe, CT, pooling as given"


def test_crossings_are_named_part_by_part() -> None:
    times = "\N{MULTIPLICATION SIGN}"
    assert vocabulary.subgroup_title("nh_white x 75-90") == f"White {times} 75\N{EN DASH}90"
    assert formatting.attribute_title("race_ethnicity x sex") == f"Race and ethnicity {times} Sex"


@pytest.mark.parametrize(
    ("metric", "value", "rounded", "said"),
    [
        ("udr", 0.0412, False, "+4.1 points"), ("udr", -0.01, False, "\N{MINUS SIGN}1.0 point"),
        ("udr", 0.0412, True, "+4 points"), ("auroc", -0.0213, False, "\N{MINUS SIGN}0.021"),
        ("auroc", None, False, "\N{EN DASH}"),
    ],
)  # fmt: skip
def test_differences_carry_their_sign(metric: str, value: float | None, rounded: bool, said: str) -> None:
    assert formatting.difference(metric, value, rounded=rounded) == said


def test_an_interval_that_may_be_negative_is_no_dash() -> None:
    assert formatting.difference_interval("udr", -0.051, 0.012) == "\N{MINUS SIGN}5.1 to 1.2"
