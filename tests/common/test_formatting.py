"""Numbers, levels and attributes as a clinician reads them."""

from __future__ import annotations

import pytest

from fmaudit_core.common import formatting, vocabulary


@pytest.mark.parametrize(
    ("p", "said"),
    [(None, "p not computed"), (0.0001, "p < 0.001"), (0.0123, "p = 0.012"), (0.5, "p = 0.50"), (1.0, "p = 1.00")],
)
def test_p_values(p: float | None, said: str) -> None:
    assert formatting.p_text(p) == said


def test_levels_are_named_for_people() -> None:
    assert vocabulary.subgroup_title("18-40") == "18\N{EN DASH}40"
    assert vocabulary.subgroup_title("nh_black") == "Black"
    assert vocabulary.subgroup_title("some_group") == "Some group"
    assert vocabulary.subgroup_title("unknown") == "Not recorded"


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
