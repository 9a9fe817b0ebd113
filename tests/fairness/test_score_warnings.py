"""What to check first: inverted scores, calls of nobody, thresholds on another scale, ties, patients with more studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.findings import findings
from fmaudit_core.fairness.predictions import evaluated
from fmaudit_core.fairness.score_sets import ScoreSet, ScoreSets
from fmaudit_core.fairness.score_warnings import concerned, message, score_warnings, withheld, withhold_verdicts
from fmaudit_core.tables.fairness import SCORE_WARNINGS
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99, intersection_depth=1)
BY = ("group", "other")
PLAIN = predictions(1500, seed=3)
INVERTED = PLAIN.with_columns(y_true=~pl.col("y_true"))


def warned(frame: pl.DataFrame, **given: Any) -> pl.DataFrame:
    return assess(frame, attributes=BY, settings=FEW, **given).score_warnings


def codes(frame: pl.DataFrame, **given: Any) -> set[tuple[str, str]]:
    return set(warned(frame, **given).select("code", "subgroup").iter_rows())


def test_of_honest_scores_nothing_is_warned():
    found = warned(PLAIN)
    assert found.is_empty()
    assert found.schema == SCORE_WARNINGS.schema


def test_inverted_labels_are_told_once_and_no_verdict_is_given():
    found = assess(INVERTED, attributes=BY, settings=FEW)
    assert set(found.score_warnings.select("code", "attribute").iter_rows()) == {("auroc_below_half", "overall")}
    (row,) = found.score_warnings.iter_rows(named=True)
    assert row["withholds"]
    own = found.subgroup_metrics.filter(attribute="overall", metric="auroc").row(0, named=True)
    assert (row["value"], row["low"], row["high"]) == (own["value"], own["ci_low"], own["ci_high"])
    assert row["high"] < 0.5
    assert "inverted" in row["message"]
    assert set(found.fairness_gaps["verdict"]) == {"insufficient_evidence"}


def test_the_finding_of_a_withheld_verdict_gives_the_reason():
    planted = predictions(2500, shift={"b": 1.4}, seed=5).with_columns(y_true=~pl.col("y_true"))
    found = assess(planted, attributes=BY, settings=FEW)
    judged = findings(pl.DataFrame(), found.fairness_gaps, found.subgroup_metrics, attributes=BY, settings=FEW)
    assert "disparity" in set(judged["verdict"])
    held = withhold_verdicts(judged, found.score_warnings, {"model": "Our model"})
    assert held.columns == judged.columns
    assert set(held["verdict"]) == {"insufficient_evidence"}
    assert all("Our model: No verdict is given." in said and "below 0.5" in said for said in held["sentence"])
    assert held.drop("verdict", "sentence").equals(judged.drop("verdict", "sentence"))


def test_without_warnings_findings_are_as_they_were():
    found = assess(PLAIN, attributes=BY, settings=FEW)
    assert withhold_verdicts(found.fairness_gaps, found.score_warnings).equals(found.fairness_gaps)


def test_a_subgroup_that_is_ranked_backwards_is_named_and_the_verdicts_stay():
    score = pl.when(pl.col("group") == "b").then(-pl.col("y_score")).otherwise("y_score")
    found = assess(PLAIN.with_columns(y_score=score), attributes=BY, settings=FEW)
    (row,) = found.score_warnings.filter(code="auroc_below_half").iter_rows(named=True)
    assert (row["attribute"], row["subgroup"], row["withholds"]) == ("group", "b", False)
    own = found.subgroup_metrics.filter(attribute="group", subgroup="b", metric="auroc").row(0, named=True)
    assert row["value"] == own["value"]
    assert row["low"] < own["ci_low"] < own["ci_high"] < row["high"] < 0.5  # corrected for the tested subgroups
    assert "disparity" in set(found.fairness_gaps.filter(attribute="group")["verdict"])


def test_a_small_group_is_never_named():
    """Three patients of each class, ranked backwards, called all alike and seen ten times: not a word of them."""
    few = predictions(6, studies_per_patient=10, seed=1).with_columns(
        patient_id=pl.concat_str(pl.lit("few"), "patient_id"), study_id=pl.concat_str(pl.lit("few"), "study_id"),
        split=pl.lit("test"), group=pl.lit("hidden"),
    )  # fmt: skip
    few = few.with_columns(y_score=-5.0 * pl.col("y_true") + 10.0)
    found = warned(pl.concat([PLAIN, few]))
    assert "hidden" not in {*found["subgroup"], *found["other_subgroup"]}
    assert not any("hidden" in said for said in found["message"])


def test_too_few_patients_altogether_are_not_told_of():
    some = PLAIN.filter(split="test").sort("y_true", descending=True)
    tiny = pl.concat([some.head(5), some.tail(40)]).with_columns(y_true=~pl.col("y_true"), threshold=pl.lit(0.0))
    assert codes(tiny) <= {("threshold_scale", "all")}


def test_where_nobody_is_called_rates_get_no_verdict_and_auroc_does():
    highest = PLAIN["y_score"].max()
    aside = PLAIN.filter(pl.col("y_score") == highest).with_columns(
        split=pl.lit("val")
    )  # its other studies stay unique
    frame = pl.concat([PLAIN.filter(pl.col("patient_id") != aside["patient_id"][0]), aside])
    found = assess(frame, attributes=BY, settings=FEW, threshold=highest)
    (row,) = found.score_warnings.filter(code="none_or_all_called").iter_rows(named=True)
    assert (row["metric"], row["value"], row["withholds"]) == (None, 0.0, True)
    held = withheld(found.score_warnings)
    assert set(held["metric"]) == {"udr", "fpr"}
    rates = found.fairness_gaps.filter(pl.col("metric") != "auroc")
    assert set(rates["verdict"]) == {"insufficient_evidence"}


def test_of_one_class_called_altogether_the_other_rate_keeps_its_verdict():
    lowest = PLAIN.filter((pl.col("split") == "test") & pl.col("y_true"))["y_score"].min()
    found = assess(PLAIN, attributes=BY, settings=FEW, threshold=lowest)
    (row,) = found.score_warnings.filter(code="none_or_all_called").iter_rows(named=True)
    assert (row["metric"], row["value"]) == ("udr", 1.0)
    assert set(withheld(found.score_warnings)["metric"]) == {"udr"}
    assert "with the outcome is called positive" in row["message"]
    assert "No verdict on UDR is given" in row["message"]


@pytest.mark.parametrize(("quantile", "said"), [(0.995, "Only"), (0.005, "All but")])
def test_hardly_anybody_called_or_left_is_told(quantile: float, said: str):
    threshold = PLAIN.filter(split="test")["y_score"].quantile(quantile)
    (row,) = warned(PLAIN, threshold=threshold).filter(code="nearly_none_or_all_called", attribute="overall").to_dicts()
    assert row["value"] == pytest.approx(1 - quantile, abs=0.003)
    assert row["message"].startswith(said)
    assert not row["withholds"]


def test_a_subgroup_of_which_nobody_is_called_is_named():
    shifted = PLAIN.with_columns(y_score=pl.col("y_score") - 20 * (pl.col("group") == "c"))
    assert ("none_or_all_called", "c") in codes(shifted, threshold=1.0)


def test_worse_than_a_coin_is_told_with_the_sum_of_both_rates():
    """AUROC is above 0.5, the threshold is in a stretch where the healthy score higher."""
    rng = np.random.default_rng(0)
    y = rng.random(4000) < 0.3
    score = np.where(y, np.where(rng.random(4000) < 0.05, 0.7, 0.4), np.where(rng.random(4000) < 0.45, 0.6, 0.1))
    frame = pl.DataFrame(
        {
            "study_id": [f"s{i}" for i in range(4000)], "patient_id": [f"p{i}" for i in range(4000)], "split": "test",
            "y_true": y, "y_score": score + rng.normal(0, 0.02, 4000), "group": np.where(rng.random(4000) < 0.5, "a", "b"),
            "other": np.where(rng.random(4000) < 0.5, "x", "y"),
        }
    )  # fmt: skip
    found = assess(frame, attributes=BY, settings=FEW, threshold=0.5)
    assert found.subgroup_metrics.filter(attribute="overall", metric="auroc")["value"][0] > 0.5
    (row,) = found.score_warnings.filter(code="worse_than_coin", attribute="overall").to_dicts()
    called = frame["y_score"].to_numpy() >= 0.5
    udr, fpr = 1 - called[y].mean(), called[~y].mean()
    assert row["value"] == pytest.approx(udr + fpr)
    se = np.sqrt(udr * (1 - udr) / y.sum() + fpr * (1 - fpr) / (~y).sum())
    assert row["low"] == pytest.approx(udr + fpr - 1.96 * se, abs=0.005)
    assert row["high"] == pytest.approx(udr + fpr + 1.96 * se, abs=0.005)
    assert not row["withholds"]
    assert found.score_warnings.filter(code="worse_than_coin").height == 1  # not again for every subgroup


@pytest.mark.parametrize(
    ("scores", "threshold", "asked"),
    [
        (pl.col("y_score") + 10, 0.5, "log odds or per cent, and the threshold a probability?"),
        (1 / (1 + (-pl.col("y_score")).exp()), 50.0, "probabilities, and the threshold log odds or per cent?"),
        (pl.col("y_score"), -30.0, "Give the threshold on the scale of the scores"),
    ],
    ids=["probability", "per cent", "neither"],
)
def test_a_given_threshold_outside_the_scores_is_an_error_that_names_both(scores, threshold, asked):
    frame = PLAIN.with_columns(y_score=scores)
    low, high = frame["y_score"].min(), frame["y_score"].max()
    for one in ({"threshold": threshold}, {}):
        given = frame if one else frame.with_columns(threshold=pl.lit(threshold))
        with pytest.raises(FairnessError) as error:
            assess(given, attributes=BY, settings=FEW, **one)
        text = f"{error.value.what} {error.value.fix}"
        assert f"{threshold:g} lies" in text
        assert f"range {low:g} to {high:g}" in text
        assert asked in text
        assert error.value.where == "model x task"


def test_the_scores_of_all_splits_count_and_the_ends_belong():
    apart = PLAIN.with_columns(y_score=pl.col("y_score") + 50 * (pl.col("split") == "val"))
    highest = float(apart["y_score"].max())
    assert ("none_or_all_called", "all") in codes(apart, threshold=highest)
    with pytest.raises(FairnessError, match="lies above all scores"):
        assess(apart, attributes=BY, settings=FEW, threshold=float(np.nextafter(highest, np.inf)))


def test_a_threshold_chosen_on_validation_is_never_an_error():
    """By the policy it lies above the highest score of validation, and there is no higher one."""
    low = PLAIN.filter((pl.col("split") == "test") | (pl.col("y_true") | (pl.col("y_score") < 0))).with_columns(
        y_score=pl.when((pl.col("split") == "val") & ~pl.col("y_true")).then(9.0).otherwise("y_score")
    )
    settings = FEW.model_copy(update={"fixed_fpr": 0.01})
    found = assess(low, attributes=BY, settings=settings)
    assert found.subgroup_metrics["threshold"].max() > low["y_score"].max()
    assert ("none_or_all_called", "all") in set(found.score_warnings.select("code", "subgroup").iter_rows())


def test_a_probability_as_threshold_of_log_odds_is_asked_about_if_it_was_given():
    assert ("threshold_scale", "all") in codes(PLAIN, threshold=0.5)
    assert ("threshold_scale", "all") not in codes(PLAIN, threshold=1.5)
    chosen = PLAIN.with_columns(threshold=pl.lit(0.5), threshold_source=pl.lit("validation"))
    assert ("threshold_scale", "all") not in codes(chosen)


def source(frame: pl.DataFrame, **given: Any) -> list[str | None]:
    test = evaluated(frame, BY, FEW, **given).test
    return test.get_column("threshold_source").unique(maintain_order=True).to_list()


def test_the_origin_of_a_threshold_is_told():
    assert source(PLAIN) == ["validation"]
    assert source(PLAIN, threshold=0.5) == ["given"]
    assert source(PLAIN.with_columns(threshold=pl.lit(0.5))) == ["given"]
    assert source(PLAIN.with_columns(threshold=pl.lit(0.5), threshold_source=pl.lit("validation"))) == ["validation"]
    assert source(PLAIN.with_columns(threshold=pl.lit(None, pl.Float64))) == ["validation"]
    bare = PLAIN.filter(split="test").with_columns(threshold=pl.lit(None, pl.Float64))
    assert source(bare, unvalidated=True) == [None]
    both = pl.concat(
        [
            PLAIN.with_columns(encoder=pl.lit("one"), threshold=pl.lit(0.5)),
            PLAIN.with_columns(encoder=pl.lit("two"), threshold=pl.lit(None, pl.Float64)),
        ]
    )
    metrics = assess(both, attributes=BY, settings=FEW).subgroup_metrics.drop_nulls("threshold")
    assert set(metrics.select("encoder", "threshold_source").iter_rows()) == {("one", "given"), ("two", "validation")}
    with pytest.raises(FairnessError, match="threshold_source holds guessed; it must be given or validation"):
        source(PLAIN.with_columns(threshold=pl.lit(0.5), threshold_source=pl.lit("guessed")))


def test_a_threshold_in_a_column_is_as_certain_as_one_that_is_passed():
    settings = FEW.model_copy(update={"threshold_uncertainty": True, "n_bootstraps": 100})
    column = assess(PLAIN.with_columns(threshold=pl.lit(0.5)), attributes=BY, settings=settings)
    passed = assess(PLAIN, attributes=BY, settings=settings, threshold=0.5)
    assert column.subgroup_metrics.equals(passed.subgroup_metrics)
    chosen = PLAIN.with_columns(threshold=pl.lit(0.5), threshold_source=pl.lit("validation"))
    wider = assess(chosen, attributes=BY, settings=settings).subgroup_metrics.filter(metric="udr", attribute="overall")
    assert wider["se"][0] > column.subgroup_metrics.filter(metric="udr", attribute="overall")["se"][0]


def test_ties_are_told():
    few = PLAIN.with_columns(pl.col("y_score").round(0))
    (row,) = warned(few).filter(code="few_distinct_scores").to_dicts()
    assert row["value"] == few.filter(split="test")["y_score"].n_unique()
    cut = PLAIN.with_columns(pl.col("y_score").clip(lower_bound=0.0))
    (row,) = warned(cut).filter(code="frequent_score").to_dicts()
    assert row["value"] == pytest.approx((cut.filter(split="test")["y_score"] == 0).mean())
    assert f"{100 * row['value']:.0f} %" in row["message"]
    assert {("few_distinct_scores", "all"), ("frequent_score", "all")}.isdisjoint(codes(PLAIN))


def test_a_subgroup_with_twice_the_studies_is_named_with_the_other():
    copies = [
        PLAIN.filter(group="a").with_columns(study_id=pl.col("study_id") + f"-{i}", y_score=pl.col("y_score") + i / 50)
        for i in (1, 2)
    ]
    found = warned(pl.concat([PLAIN, *copies])).filter(code="studies_per_patient")
    (row,) = found.to_dicts()
    test = pl.concat([PLAIN, *copies]).filter(split="test")
    mean = {key[0]: one.height / one["patient_id"].n_unique() for key, one in test.group_by("group")}
    assert (row["attribute"], row["subgroup"]) == ("group", "a")
    assert row["value"] == pytest.approx(mean["a"])
    assert row["other_value"] == pytest.approx(mean[row["other_subgroup"]])
    assert f"{mean['a']:.1f} studies on average" in row["message"]
    assert codes(PLAIN) == set()


def test_a_score_set_without_threshold_is_judged_by_its_ranking_alone():
    bare = INVERTED.filter(split="test").with_columns(threshold=pl.lit(None, pl.Float64))
    assert codes(bare, unvalidated=True) == {("auroc_below_half", "all")}


@pytest.mark.parametrize(
    ("row", "metrics"),
    [
        ({"code": "auroc_below_half", "metric": "auroc"}, {"udr", "fpr", "auroc"}),
        ({"code": "none_or_all_called", "metric": None}, {"udr", "fpr"}),
        ({"code": "none_or_all_called", "metric": "fpr"}, {"fpr"}),
        ({"code": "worse_than_coin", "metric": None}, {"udr", "fpr"}),
        ({"code": "few_distinct_scores", "metric": None}, {"udr", "fpr", "auroc"}),
    ],
)
def test_a_warning_concerns_the_metrics_it_touches(row, metrics):
    assert set(concerned(row)) == metrics


def test_a_message_names_subgroups_as_people_do():
    row = dict.fromkeys(SCORE_WARNINGS.schema) | {
        "code": "studies_per_patient", "subgroup": "f", "other_subgroup": "m", "value": 3.0, "other_value": 1.0,
        "withholds": False,
    }  # fmt: skip
    assert message(row, {"f": "Women", "m": "Men"}.__getitem__).startswith("Patients of Women have 3.0 studies")


def drawn(
    rng: np.random.Generator, sizes: Sequence[int], *, auroc: float, inverted: int | None = None, studies: float = 1.2
) -> ScoreSets:
    """Binormal scores of patients with several studies, one of whose groups may be ranked backwards."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    patient = np.repeat(np.arange(len(group)), 1 + rng.poisson(studies - 1, len(group)))
    of = group[patient]
    y = rng.random(len(of)) < 0.2
    apart = np.sqrt(2) * norm.ppf(auroc) * y
    score = (rng.normal(size=len(group))[patient] + rng.normal(size=len(of))) / np.sqrt(2) + apart
    score = np.where(of == inverted, -score, score)
    frame = pl.DataFrame(
        {
            "study_id": np.arange(len(of)), "patient_id": patient, "y_true": y, "y_score": score,
            "group": np.array(list("abcdef"))[of],
        }
    )  # fmt: skip
    key = tuple(SCORE_SET)
    keyed = dict(zip(SCORE_SET, key, strict=True))
    threshold = float(np.quantile(score[~y], 0.8))
    keyed_by = {name: pl.lit(of) for name, of in keyed.items()}
    return {key: ScoreSet(frame.with_columns(threshold=pl.lit(threshold), **keyed_by))}


@pytest.mark.parametrize(
    ("auroc", "inverted", "low", "high"),
    [(0.5, None, 0.0, 0.08), (0.8, None, 0.0, 0.0), (0.8, 0, 0.95, 1.0), (0.3, None, 1.0, 1.0)],
    ids=["a coin", "honest", "a group inverted", "all inverted"],
)
def test_how_often_it_warns(auroc: float, inverted: int | None, low: float, high: float):
    """A coin is the edge: 2.5 % for all studies and as much for the subgroups; the long run: docs/statistics/warnings.md."""
    rng = np.random.default_rng(12)
    n = 150
    seen = [
        list(score_warnings(drawn(rng, (200, 300, 500), auroc=auroc, inverted=inverted), ["group"], FEW))
        for _ in range(n)
    ]
    named = {"a"} if inverted == 0 else {"all", "a", "b", "c"}
    share = np.mean([any(row["subgroup"] in named for row in rows) for rows in seen])
    assert low <= share <= high
