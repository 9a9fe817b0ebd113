"""`assess` as people call it: thresholds from validation, the small-group rule, and mistakes told plainly."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.thresholds import choose_threshold
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99)


def run(frame, **kwargs):
    return assess(frame, attributes=("group", "other"), settings=FEW, **kwargs)


@pytest.mark.parametrize("policy", ["fixed_fpr", "fixed_sensitivity", "youden"])
def test_a_threshold_keeps_its_policys_promise_on_validation(policy):
    rng = np.random.default_rng(0)
    y = rng.random(300) < 0.3
    score = np.round(rng.normal(size=300) + y, 1)
    threshold = choose_threshold(y, score, FairnessSection(threshold_policy=policy))
    every = np.append(np.unique(score), np.inf)
    tpr, fpr = (np.array([(score[of] >= one).mean() for one in every]) for of in (y, ~y))
    at = (score[y] >= threshold).mean(), (score[~y] >= threshold).mean()
    if policy == "fixed_fpr":
        assert at == (tpr[fpr <= 0.2].max(), fpr[fpr <= 0.2].max())
    elif policy == "fixed_sensitivity":
        assert at[0] == tpr[tpr >= 0.8].min()
    else:
        assert at[0] - at[1] == pytest.approx((tpr - fpr).max())


def test_test_labels_never_move_the_threshold():
    frame = predictions()
    flipped = frame.with_columns(y_true=pl.when(pl.col("split") == "test").then(~pl.col("y_true")).otherwise("y_true"))
    one, two = (run(each).subgroup_metrics["threshold"].unique().drop_nulls().to_list() for each in (frame, flipped))
    assert one == two


def test_small_groups_are_suppressed_reported_or_tested_by_the_rule_alone():
    frame = predictions(900, shares=(0.56, 0.34, 0.08, 0.02), prevalence=(0.3, 0.3, 0.3, 0.3))
    rows = run(frame).subgroup_metrics.filter((pl.col("attribute") == "group") & (pl.col("metric") == "udr"))
    status = dict(rows.select("subgroup", "status").iter_rows())
    assert status["a"] == status["b"] == "tested"
    assert status["c"] == "interval_only"
    assert status["d"] in ("suppressed", "not_estimable")
    hidden = rows.filter(~pl.col("status").is_in(["tested", "interval_only"]))
    blank = hidden.select("n", "n_pos", "n_neg", "value", "ci_low", "ci_high", "mde", "se", "n_patients", "threshold")
    assert all(value is None for value in blank.row(0))
    gap = run(frame).fairness_gaps.filter((pl.col("attribute") == "group") & (pl.col("metric") == "udr"))
    assert (gap["n_tested"].item(), gap["n_untested"].item()) == (2, 2)
    assert gap["worst_subgroup"].item() in ("a", "b")


@pytest.mark.parametrize(("n_patients", "status"), [(2, "suppressed"), (12, "interval_only"), (30, "tested")])
def test_many_studies_of_few_patients_are_few(n_patients, status):
    """The rule is about people, in every table: sixty scans of two patients would tell on both of them."""
    crowd = predictions(900, shares=(0.5, 0.5, 0, 0), studies_per_patient=1)
    rng = np.random.default_rng(0)
    many = pl.DataFrame(
        {
            "study_id": [f"m{i}" for i in range(n_patients * 30)],
            "patient_id": [f"q{i % n_patients}" for i in range(n_patients * 30)],
            "split": "test",
            "y_true": np.arange(n_patients * 30) // n_patients % 2 == 0,
            "y_score": rng.normal(size=n_patients * 30),
            "group": "d",
            "other": "x",
        }
    )
    found = assess(pl.concat([crowd, many]), attributes=["group", "other"], settings=FEW)
    told = found.subgroup_metrics.filter(attribute="group", subgroup="d")
    assert set(told["status"]) == {status}
    assert set(found.subgroup_calibration.filter(attribute="group", subgroup="d")["status"]) <= {
        status,
        "not_probability",
    }
    crossed = found.intersections.filter(subgroup="d x x")
    assert set(crossed["status"]) == {status}
    assert found.fairness_gaps.filter(attribute="group")["n_tested"].to_list() == [2 + (status == "tested")] * 3


def test_an_unknown_level_is_reported_and_never_tested():
    frame = predictions().with_columns(group=pl.when(pl.col("group") == "b").then(None).otherwise("group"))
    rows = run(frame).subgroup_metrics.filter(pl.col("subgroup") == "unknown")
    assert set(rows["status"]) == {"interval_only"}
    assert rows["p_rest"].is_null().all()


def test_a_gap_without_two_testable_subgroups_is_no_gap():
    frame = predictions(150, shares=(0.94, 0.02, 0.02, 0.02))
    row = run(frame).fairness_gaps.filter((pl.col("attribute") == "group") & (pl.col("metric") == "udr"))
    assert row["gap"].item() is None
    assert row["verdict"].item() == "insufficient_evidence"


def test_the_band_of_the_sweep_holds_the_curve_and_the_threshold_is_on_it():
    out = run(predictions())
    sweep = out.threshold_sweep.filter(pl.col("attribute") == "overall")
    assert (sweep["band_low"] <= sweep["tpr"]).all()
    assert (sweep["band_high"] >= sweep["tpr"]).all()
    assert sweep["tpr"].is_sorted(descending=True)
    overall = out.subgroup_metrics.filter((pl.col("attribute") == "overall") & (pl.col("metric") == "tpr"))
    above = sweep.filter(pl.col("threshold") >= overall["threshold"].item())
    assert above["tpr"][0] == pytest.approx(overall["value"].item(), abs=1e-12)


def test_intervals_cover_at_about_their_confidence():
    """300 cohorts from one truth; the short version of the calibration benchmark."""
    truth = predictions(200_000, studies_per_patient=1.0, seed=999)
    want = dict(
        run(truth, threshold=0.8)
        .subgroup_metrics.filter(pl.col("attribute") == "overall")
        .select("metric", "value")
        .iter_rows()
    )
    hits = dict.fromkeys(want, 0)
    for seed in range(300):
        frame = predictions(300, studies_per_patient=2.0, seed=seed).with_columns(split=pl.lit("test"))
        out = assess(frame, attributes=("other",), settings=FEW, threshold=0.8).subgroup_metrics
        for row in out.filter(pl.col("attribute") == "overall").iter_rows(named=True):
            hits[row["metric"]] += row["ci_low"] <= want[row["metric"]] <= row["ci_high"]
    assert all(0.91 <= hit / 300 <= 0.985 for hit in hits.values()), hits


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f.drop("y_score").with_columns(y_scor=1.0), r"y_score \(did you mean y_scor\?\) is missing"),
        (lambda f: f.with_columns(y_score=pl.lit(float("nan"))), r"NaN or infinite in \d+ rows"),
        (lambda f: f.with_columns(y_score=pl.lit(0.5)), r"every study has the same score"),
        (lambda f: f.with_columns(y_true=pl.lit(2)), r"labels other than 0 and 1"),
        (lambda f: f.with_columns(y_true=pl.lit(None, dtype=pl.Boolean)), r"missing labels"),
        (lambda f: f.with_columns(patient_id=pl.lit("p")), r"one patient is in more than one split \(\d+ rows"),
        (lambda f: f.filter(pl.col("split") == "test"), r"validation lacks positives or negatives.*--threshold"),
        (lambda f: f.filter(pl.col("split") == "val"), r"the split `test` has no study"),
        (lambda f: f.with_columns(other=pl.lit("x")), r"attribute other has one level only \(x\)"),
        (lambda f: pl.concat([f, f]), r"scores a study more than once for one task \(\d+ rows"),
        (lambda f: f.with_columns(split=pl.lit("dev")), r"split holds 'dev' \("),
        (
            lambda f: f.with_columns(threshold=pl.when(pl.col("group") == "a").then(0.2).otherwise(0.9)),
            r"model x task: threshold has 2 values",
        ),
        (
            lambda f: f.with_columns(threshold=pl.when(pl.col("split") == "test").then(0.9)),
            r"model x task: threshold has 2 values \(blank counts as one\)",
        ),
        (lambda f: f.with_columns(threshold=_but_three(0.5, float("nan"))), r"threshold is NaN in 3 rows"),
        (lambda f: f.with_columns(study_id=_but_three("study_id", None)), r"study_id is missing in 3 rows"),
        (lambda f: f.with_columns(patient_id=_but_three("patient_id", None)), r"patient_id is missing in 3 rows"),
        (lambda f: f.with_columns(split=_but_three("split", None)), r"split is missing in 3 rows"),
    ],
)
def test_mistakes_are_told(spoil, said):
    with pytest.raises(FairnessError, match=said):
        run(spoil(predictions(300)))


def _but_three(value, odd):
    return pl.when(pl.int_range(pl.len()) < 3).then(odd).otherwise(value)


def test_a_threshold_that_is_no_number_and_no_attribute_at_all_are_told():
    with pytest.raises(FairnessError, match=r"threshold is NaN in \d+ rows"):
        run(predictions(300), threshold=float("nan"))
    with pytest.raises(FairnessError, match="no attribute is named"):
        assess(predictions(300), attributes=(), settings=FEW)


def test_no_heavy_part_is_loaded():
    import subprocess
    import sys

    code = "import sys, fmaudit_core.fairness; sys.exit(bool({'torch', 'dagster', 'timm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
