"""What must leave an assessment unchanged, on cohorts of every shape."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99, suppress_under=3, test_from=5)
BOTH = ("group", "other")
slowly = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def cohorts(draw):
    """Scores with few or many ties, one or several studies a patient, large and tiny subgroups."""
    frame = predictions(
        draw(st.integers(150, 500)),
        studies_per_patient=draw(st.sampled_from([1.0, 1.2, 3.0])),
        shares=draw(st.sampled_from([(0.4, 0.3, 0.2, 0.1), (0.7, 0.28, 0.01, 0.01)])),
        seed=draw(st.integers(0, 10_000)),
    )
    digits = draw(st.sampled_from([0, 1, 6]))
    return frame.with_columns(pl.col("y_score").round(digits))


def tables(frame, **kwargs):
    return assess(frame, attributes=BOTH, settings=FEW, threshold=0.8, **kwargs).tables()


@slowly
@given(cohorts(), st.integers(0, 1000))
def test_the_order_of_rows_changes_nothing(frame, seed):
    shuffled = tables(frame.sample(fraction=1.0, shuffle=True, seed=seed))
    for name, table in tables(frame).items():
        assert_frame_equal(table, shuffled[name])


@slowly
@given(cohorts())
def test_other_names_of_subgroups_patients_and_studies_change_names_only(frame):
    renamed = frame.with_columns(
        pl.col("group").replace({"a": "w1", "b": "w2", "c": "w3", "d": "w4"}),
        patient_id="x" + pl.col("patient_id"),
        study_id="x" + pl.col("study_id"),
    )
    again = tables(renamed)
    back = pl.col(pl.String).str.replace_many({"w1": "a", "w2": "b", "w3": "c", "w4": "d"})
    for name, table in tables(frame).items():
        theirs = again[name].with_columns(back)
        if "not_covered" in theirs.columns:
            theirs = theirs.with_columns(
                pl.col("not_covered").list.eval(
                    pl.element().str.replace_many({"w1": "a", "w2": "b", "w3": "c", "w4": "d"})
                )
            )
        assert_frame_equal(table, theirs)


@slowly
@given(cohorts())
def test_copies_of_every_study_leave_values_and_the_p_of_patients(frame):
    copies = pl.concat([frame, frame.with_columns(pl.col("study_id") + "-copy")])
    one = assess(frame, attributes=BOTH, settings=FEW, threshold=0.8)
    two = assess(copies, attributes=BOTH, settings=FEW, threshold=0.8)
    kept = ["attribute", "metric", "gap", "null_expected_gap", "q_statistic", "p_value", "p_gap"]
    ranked, again = (found.fairness_gaps.filter(metric="auroc").select(kept) for found in (one, two))
    assert_frame_equal(ranked, again, rel_tol=1e-9)
    # the design effect of a rate is estimated, with a correction for the number of studies: copies make nobody surer
    rates, copied = (found.fairness_gaps.filter(pl.col("metric") != "auroc") for found in (one, two))
    assert_frame_equal(rates.select("gap"), copied.select("gap"), rel_tol=1e-9)
    if frame["patient_id"].n_unique() == frame.height:
        before, after = (
            found.subgroup_metrics.filter(
                pl.col("metric").is_in(["udr", "fpr"]) & pl.col("value").is_between(0, 1, closed="none")
            )
            for found in (one, two)
        )
        assert (after["se"] - before["se"]).min() > -1e-12
    # nor do they make a small group large
    for found in (one, two):
        assert (
            found.subgroup_metrics.get_column("status").to_list() == one.subgroup_metrics.get_column("status").to_list()
        )
    # patients are the clusters, so a second look at the same study narrows no interval of an AUROC
    wide, narrow = (
        found.subgroup_metrics.filter((pl.col("metric") == "auroc") & (pl.col("status") == "tested")).get_column("se")
        for found in (one, two)
    )
    assert narrow.to_list() == pytest.approx(wide.to_list(), rel=1e-6)


@slowly
@given(cohorts(), st.floats(0.1, 10.0), st.floats(-3.0, 3.0))
def test_a_rising_map_of_the_scores_and_the_threshold_changes_no_rank_statistic(frame, scale, offset):
    def mapped(score):
        return np.exp(score / 4) * scale + offset

    one = assess(frame, attributes=BOTH, settings=FEW, threshold=0.8)
    moved = frame.with_columns(y_score=pl.Series(mapped(frame["y_score"].to_numpy())))
    two = assess(moved, attributes=BOTH, settings=FEW, threshold=float(mapped(np.float64(0.8))))
    assert_frame_equal(one.fairness_gaps, two.fairness_gaps)
    assert_frame_equal(one.subgroup_metrics.drop("threshold"), two.subgroup_metrics.drop("threshold"))
