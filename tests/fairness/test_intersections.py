"""Intersections of attributes: the rule for small groups, a planted one found, and no more false alarms than promised."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.tables.fairness import INTERSECTIONS
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=499)
BOTH = ["group", "other"]


def planted(seed=0, n_patients=3_000, studies_per_patient=1.2):
    """Only the positives of `b` who are also `y` are scored low."""
    frame = predictions(
        n_patients,
        shares=(0.3, 0.3, 0.2, 0.2),
        prevalence=(0.25,) * 4,
        seed=seed,
        studies_per_patient=studies_per_patient,
    )
    hidden = (pl.col("group") == "b") & (pl.col("other") == "y") & pl.col("y_true")
    return frame.with_columns(y_score=pl.col("y_score") - 1.5 * hidden.cast(pl.Float64))


def test_the_planted_intersection_is_the_worst_off_and_the_only_finding():
    found = assess(planted(), attributes=BOTH, settings=FEW).intersections
    assert found.columns == list(INTERSECTIONS.schema)
    missed = found.filter(metric="udr").sort("rank")
    worst = missed.row(0, named=True)
    assert (worst["attribute"], worst["subgroup"], worst["rank"]) == ("group x other", "b x y", 1)
    assert worst["p_worse_adjusted"] <= 0.01
    assert worst["difference"] > 0.3
    others = missed.slice(1)
    assert others.get_column("p_worse_adjusted").min() > 0.05
    ranked = found.filter(metric="auroc").sort("rank").row(0, named=True)
    assert ranked["subgroup"] == "b x y"
    assert ranked["difference"] < 0


def test_values_are_those_of_the_studies_in_the_intersection():
    frame = planted(studies_per_patient=1.0)
    found = assess(frame, attributes=BOTH, settings=FEW, threshold=1.0)
    row = found.intersections.filter(subgroup="a x x", metric="udr").row(0, named=True)
    inside = frame.filter((pl.col("split") == "test") & (pl.col("group") == "a") & (pl.col("other") == "x"))
    positive = inside.filter("y_true").get_column("y_score").to_numpy()
    assert row["n_pos"] == len(positive)
    assert row["value"] == pytest.approx((positive < 1).mean(), abs=1e-12)
    others = found.intersections.filter(metric="udr", status="tested", attribute="group x other")
    others = others.filter(pl.col("subgroup") != "a x x")
    # weighted by the precision on the arcsine scale, with one study per patient 4 n + 2
    n, p = (others.get_column(name).to_numpy() for name in ("n_pos", "value"))
    t = np.average(np.arcsin(np.sqrt((n * p + 0.375) / (n + 0.75))), weights=4 * n + 2)
    assert row["difference"] == pytest.approx(row["value"] - np.sin(t) ** 2, abs=1e-12)


def test_small_and_unrecorded_intersections_are_never_tested():
    frame = predictions(900, shares=(0.5, 0.35, 0.1, 0.05), seed=1)
    frame = frame.with_columns(group=pl.when(pl.col("group") == "b").then(None).otherwise("group"))
    found = assess(frame, attributes=BOTH, settings=FEW).intersections
    untested = found.filter(pl.col("status") != "tested")
    assert untested.get_column("p_worse").null_count() == untested.height
    assert untested.get_column("rank").null_count() == untested.height
    assert set(found.filter(pl.col("subgroup").str.contains("unknown")).get_column("status")) <= {
        "interval_only", "suppressed", "not_estimable",
    }  # fmt: skip
    hidden = found.filter(pl.col("status").is_in(["suppressed", "not_estimable"]))
    assert hidden.height
    assert hidden.select("n", "n_pos", "value").null_count().row(0) == (hidden.height,) * 3


def test_depth_is_configured():
    frame = planted().with_columns(third=pl.Series(np.random.default_rng(3).choice(["p", "q"], planted().height)))
    names = [*BOTH, "third"]
    none = assess(frame, attributes=names, settings=FEW.model_copy(update={"intersection_depth": 1}))
    assert none.intersections.is_empty()
    three = assess(frame, attributes=names, settings=FEW.model_copy(update={"intersection_depth": 3})).intersections
    assert set(three.get_column("depth")) == {2, 3}
    assert three.filter(depth=3).get_column("attribute").unique().to_list() == ["group x other x third"]


def test_a_search_without_a_disparity_seldom_finds_one():
    settings = FairnessSection(n_permutations=199)
    found = 0
    for seed in range(60):
        frame = predictions(900, shares=(0.3, 0.3, 0.2, 0.2), prevalence=(0.2, 0.3, 0.4, 0.25), seed=seed)
        rows = assess(frame, attributes=BOTH, settings=settings, threshold=1.0).intersections
        smallest = rows.filter(metric="udr").get_column("p_worse_adjusted").min()
        found += smallest is not None and smallest <= 0.05
    assert found <= 8  # 3 expected; more than 8 of 60 has a chance of 0.2 %
