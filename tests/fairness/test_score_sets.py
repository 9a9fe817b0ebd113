"""Each subgroup is estimated once, however many tables need the estimate."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess, score_sets
from tests.fairness.cohorts import predictions


def test_auroc_of_a_subgroup_is_computed_once_for_estimates_warnings_and_equivalence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    original = score_sets.auroc

    def counted(y_true, y_score, patient):  # type: ignore[no-untyped-def]
        sizes.append(len(y_true))
        return original(y_true, y_score, patient)

    monkeypatch.setattr(score_sets, "auroc", counted)
    frame = predictions(300)
    assess(frame, attributes=["group"], settings=FairnessSection(n_permutations=99, intersection_depth=1))
    test = frame.filter(pl.col("split") == "test")
    once = Counter([test.height, *test.group_by("group").len()["len"]])
    assert len(sizes) > 1
    assert Counter(sizes) <= once
