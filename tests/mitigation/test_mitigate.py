"""Planted cohorts end to end: what weights can mend is mended and said so, what they cannot is not claimed."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from fmaudit_core.config import FairnessSection, MitigationSection, ProbesSection
from fmaudit_core.fairness import assess
from fmaudit_core.mitigation import adversarial
from fmaudit_core.mitigation.dataset import embedded
from fmaudit_core.mitigation.evaluate import evaluate
from fmaudit_core.mitigation.fit import baselines, mitigate
from fmaudit_core.mitigation.recommend import narrows, recommend, widens
from fmaudit_core.mitigation.runs import RUN
from fmaudit_core.pipeline.run_mitigation import evaluate_cell, mitigate_encoder
from fmaudit_core.probes.selection import choose_and_predict, fit_probes
from fmaudit_core.storage.warehouse import Cell
from tests.mitigation.cohorts import ATTRIBUTES, calls, cohort

FAIRNESS = FairnessSection(n_permutations=999)
LINEAR = ("reweighting", "resampling", "leace", "dfr", "group_dro", "group_thresholds")


def audited(kind, strategies=LINEAR, *, fairness=FAIRNESS, n=6_000, **planted):
    """Scores, results and advice of one planted cohort, as the platform makes them."""
    settings = MitigationSection(strategies=strategies, seeds=2, n_bootstrap=399)
    return audited_cohort(cohort(n, kind=kind, **planted), settings, fairness)


def audited_cohort(made_up, settings, fairness=FAIRNESS):
    of, embeddings, studies, labels = made_up
    pooled = {"mean": embeddings}
    fits = fit_probes(pooled, studies, labels, encoder="e", tasks=["pe"], c_grid=[0.01, 1.0])
    found = choose_and_predict(fits, pooled, studies, labels, encoder="e", task="pe")
    chosen = float(found.trail.filter("chosen")["c"].item())
    made = mitigate(
        of, baselines({"pe": (found.scores, chosen)}, of), encoder="e", mitigation=settings, fairness=fairness
    )
    named = studies.select("study_id", *ATTRIBUTES)
    out = evaluate(made.scores.join(named, on="study_id"), made.runs, ATTRIBUTES, fairness, n_bootstrap=399)
    gaps = assess(found.scores.join(named, on="study_id"), attributes=ATTRIBUTES, settings=fairness).fairness_gaps
    return made, out, recommend(out.results, out.subgroups, gaps, fairness).row(0, named=True)


@pytest.fixture(scope="module")
def mendable():
    return audited("weighting", readable=2.5)


def row_of(out, strategy, target="group", attribute="group", **more):
    keys = {"strategy": strategy, "target_attribute": target, "attribute": attribute} | more
    rows = out.results.filter(*(pl.col(k) == v for k, v in keys.items()), pl.col("seed").is_null())
    assert rows.height == 1
    return rows.row(0, named=True)


def test_a_disparity_that_weights_can_mend_is_mended_and_said_so(mendable):
    _, out, advice = mendable
    mended = row_of(out, "dfr")
    assert mended["gap_before"] > 0.3
    assert mended["gap_after"] < 0.6 * mended["gap_before"]
    assert mended["p_reduction"] <= 0.01
    assert mended["p_adjusted"] <= 0.05
    assert mended["worst_subgroup"] == "minority"
    assert mended["worst_subgroup_udr_delta"] < -0.1
    assert mended["ci_low"] > 0
    assert mended["levelling_down"] is False
    assert row_of(out, "resampling")["p_reduction"] <= 0.01
    assert advice["verdict"] == "recommended"
    assert advice["target_attribute"] == "group"
    assert advice["worst_subgroup"] == "minority"


def test_one_that_weights_cannot_mend_is_not_claimed():
    _, out, advice = audited("noise", ("reweighting", "resampling", "dfr", "group_dro"))
    assert row_of(out, "reweighting")["gap_before"] > 0.3
    helped = [
        one
        for one in out.results.filter(
            (pl.col("attribute") == "group") & (pl.col("target_attribute") == "group")
        ).to_dicts()
        if (one["p_reduction"] or 1) <= 0.01 and one["interpretable"] and one["worst_subgroup_udr_delta"] < -0.05
    ]
    assert helped == []
    assert advice["strategy"] == "none"
    assert advice["verdict"] in ("none_narrows", "too_costly", "levelling_down", "several_reasons")


def test_a_gap_narrowed_by_what_is_no_gain_beyond_chance_is_not_recommended(mendable):
    _, out, advice = mendable
    told = out.subgroups.with_columns(ci_high=pl.when(metric="udr").then(0.01).otherwise("ci_high"))
    gaps = pl.DataFrame({"attribute": [advice["target_attribute"]], "metric": ["udr"], "verdict": ["disparity"]})
    harmless = out.results.with_columns(levelling_down=pl.lit(value=False), interpretable=pl.lit(value=True))
    refused = recommend(harmless, told, gaps, FAIRNESS).row(0, named=True)
    assert (refused["strategy"], refused["verdict"]) == ("none", "no_gain_shown")
    costly = harmless.with_columns(interpretable=pl.lit(value=False))
    assert recommend(costly, told, gaps, FAIRNESS).row(0, named=True)["verdict"] == "too_costly"
    diverged = harmless.with_columns(n_diverged=pl.col("n_seeds") + 1, interpretable=pl.lit(value=False))
    assert recommend(diverged, told, gaps, FAIRNESS).row(0, named=True)["verdict"] == "diverged"
    mixed = harmless.with_columns(interpretable=pl.col("strategy") != "dfr")
    assert recommend(mixed, told, gaps, FAIRNESS).row(0, named=True)["verdict"] == "several_reasons"


def test_a_reduction_whose_interval_cannot_be_told_is_not_claimed(mendable):
    _, out, advice = mendable
    untold = out.results.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in ("ci_low", "ci_high"))
    gaps = pl.DataFrame({"attribute": [advice["target_attribute"]], "metric": ["udr"], "verdict": ["disparity"]})
    assert recommend(untold, out.subgroups, gaps, FAIRNESS).row(0, named=True)["verdict"] == "none_narrows"


def test_without_a_disparity_nothing_is_recommended():
    _, out, advice = audited("none")
    assert advice["verdict"] == "no_disparity_shown"
    assert out.results.filter((pl.col("p_adjusted") <= 0.05) & (pl.col("ci_low") > 0)).is_empty()


def test_every_strategy_is_evaluated_on_every_attribute_and_both_numbers_are_of_the_same_studies(mendable):
    made, out, _ = mendable
    evaluated = out.results.filter(pl.col("status") == "evaluated")
    pairs = set(evaluated.select("strategy", "target_attribute", "attribute").iter_rows())
    assert pairs == {(s, t, a) for s in LINEAR for t in ATTRIBUTES for a in ATTRIBUTES}
    assert evaluated["gap_before"].n_unique() == 2  # one per attribute
    sizes = made.scores.group_by(*RUN).len()["len"]
    assert sizes.n_unique() == 1


def test_every_run_chose_its_own_threshold_on_validation(mendable):
    made, out, _ = mendable
    for _, run in made.scores.filter(pl.col("strategy") != "group_thresholds").group_by(*RUN):
        assert run["threshold"].n_unique() == 1
        val = run.filter((pl.col("split") == "val") & ~pl.col("y_true"))
        assert 0.17 < (val["y_score"] >= val["threshold"]).mean() <= 0.2
    assert out.results.filter(pl.col("status") == "evaluated")["fpr_after"].max() < 0.3


def test_resamples_show_what_their_seeds_vary_by(mendable):
    _, out, _ = mendable
    rows = out.results.filter((pl.col("strategy") == "resampling") & (pl.col("attribute") == "group"))
    by_seed = rows.filter(pl.col("seed").is_not_null() & (pl.col("target_attribute") == "group"))
    over = row_of(out, "resampling")
    assert over["n_seeds"] == 2
    assert over["gap_after"] == pytest.approx(by_seed["gap_after"].mean())
    assert over["gap_seed_sd"] == pytest.approx(by_seed["gap_after"].std())
    assert over["gap_sampling_se"] > 0


def test_linear_erasure_leaves_no_linear_probe_above_its_control(mendable):
    made = mendable[0]
    read = made.leakage.filter((pl.col("probe") == "logistic") & (pl.col("target_attribute") == "group"))
    before, after = (read.filter(pl.col("stage") == stage).row(0, named=True) for stage in ("before", "after"))
    assert before["ci_low"] > 0.9
    assert after["ci_low"] <= 0.5 + abs(after["control_balanced_auroc"] - 0.5)
    assert after["balanced_auroc"] < 0.55


def test_levelling_down_is_named_and_keeps_a_strategy_from_being_recommended():
    """A strategy that calls the better-off less often, and helps nobody."""
    made, _, _ = audited("weighting", ("reweighting",))
    base = made.scores.filter(pl.col("strategy") == "none")
    named = cohort(6_000, kind="weighting")[2].select("study_id", *ATTRIBUTES)
    base = base.join(named, on="study_id")
    worse = base.with_columns(
        strategy=pl.lit("dfr"),
        target_attribute=pl.lit("group"),
        threshold=pl.col("threshold") + 0.45 * (pl.col("group") == "majority"),
    )
    runs = made.runs.filter(pl.col("strategy") == "none")
    runs = pl.concat([runs, runs.with_columns(strategy=pl.lit("dfr"), target_attribute=pl.lit("group"))])
    out = evaluate(pl.concat([base, worse]), runs, ATTRIBUTES, FAIRNESS, n_bootstrap=199)
    row = row_of(out, "dfr")
    assert row["p_reduction"] <= 0.01
    assert row["levelling_down"] is True
    assert (row["worst_subgroup_udr_delta"], row["best_subgroup"]) == (0.0, "majority")
    assert row["best_subgroup_udr_delta"] > 0.1
    told = out.subgroups.filter((pl.col("subgroup") == "majority") & (pl.col("metric") == "udr")).row(0, named=True)
    assert told["ci_low"] > 0
    gaps = pl.DataFrame({"attribute": ["group"], "metric": ["udr"], "verdict": ["disparity"]})
    advice = recommend(out.results, out.subgroups, gaps, FAIRNESS).row(0, named=True)
    assert advice["verdict"] == "levelling_down"
    assert advice["strategy"] == "none"


def test_a_patient_found_does_not_hide_that_a_strategy_levels_down():
    """The best-off lose a third; of the worst-off one study more is called, which is chance."""
    made, _, _ = audited("weighting", ("reweighting",))
    named = cohort(6_000, kind="weighting")[2].select("study_id", *ATTRIBUTES)
    base = made.scores.filter(pl.col("strategy") == "none").join(named, on="study_id")
    missed = base.filter(pl.col("y_true") & (pl.col("y_score") < pl.col("threshold")), split="test", group="minority")
    found = pl.col("study_id") == missed.sort("study_id")["study_id"][0]
    worse = base.with_columns(
        strategy=pl.lit("dfr"),
        target_attribute=pl.lit("group"),
        threshold=pl.when(found).then(0.0).otherwise(pl.col("threshold") + 0.45 * (pl.col("group") == "majority")),
    )
    runs = made.runs.filter(pl.col("strategy") == "none")
    runs = pl.concat([runs, runs.with_columns(strategy=pl.lit("dfr"), target_attribute=pl.lit("group"))])
    out = evaluate(pl.concat([base, worse]), runs, ATTRIBUTES, FAIRNESS, n_bootstrap=199)
    row = row_of(out, "dfr")
    assert -0.02 < row["worst_subgroup_udr_delta"] < 0
    assert row["levelling_down"] is True
    gaps = pl.DataFrame({"attribute": ["group"], "metric": ["udr"], "verdict": ["disparity"]})
    assert recommend(out.results, out.subgroups, gaps, FAIRNESS).row(0, named=True)["verdict"] == "levelling_down"


@pytest.mark.parametrize(
    ("before", "after", "levelled", "worst", "best"),
    [
        # a and b are missed least: what b loses is not hidden by a, which loses nothing
        ({"a": 80, "b": 80, "c": 50}, {"a": 80, "b": 50, "c": 50}, True, "c", "b"),
        # a and b are missed most: that a gains does not make up for b, which gains nothing
        ({"a": 50, "b": 50, "c": 80}, {"a": 80, "b": 50, "c": 50}, True, "b", "c"),
        ({"a": 50, "b": 50, "c": 80}, {"a": 80, "b": 79, "c": 70}, False, "b", "c"),
        ({"a": 70, "b": 70, "c": 70}, {"a": 70, "b": 40, "c": 70}, True, "a", "b"),
    ],
    ids=["best", "worst", "all the worst gain", "all"],
)  # fmt: skip
def test_levelling_down_is_judged_over_all_that_tie(before, after, levelled, worst, best):
    for order in (list(before), list(before)[::-1]):
        scores, runs = calls({one: before[one] for one in order}, {one: after[one] for one in order})
        row = row_of(evaluate(scores, runs, ["group"], FAIRNESS, n_bootstrap=99), "dfr")
        assert (row["levelling_down"], row["worst_subgroup"], row["best_subgroup"]) == (levelled, worst, best)


def test_a_strategy_that_costs_auroc_beyond_the_margin_is_not_interpretable():
    made, _, _ = audited("weighting", ("reweighting",), n=3_000)
    named = cohort(3_000, kind="weighting")[2].select("study_id", *ATTRIBUTES)
    base = made.scores.filter(pl.col("strategy") == "none").join(named, on="study_id")
    noise = pl.Series(np.random.default_rng(0).random(base.height))
    noisy = base.with_columns(strategy=pl.lit("leace"), target_attribute=pl.lit("group"), y_score=noise, threshold=0.8)
    runs = made.runs.filter(pl.col("strategy") == "none")
    runs = pl.concat([runs, runs.with_columns(strategy=pl.lit("leace"), target_attribute=pl.lit("group"))])
    row = row_of(
        evaluate(pl.concat([base, noisy.cast(base.schema)]), runs, ATTRIBUTES, FAIRNESS, n_bootstrap=99), "leace"
    )
    assert row["interpretable"] is False
    assert row["auroc_delta_high"] < -FAIRNESS.auroc_margin


def test_adversaries_are_chosen_on_validation_and_their_path_begins_without_one():
    made, out, _ = audited("weighting", ("adversarial",), readable=2.5, n=3_000)
    runs = made.runs.filter((pl.col("strategy") == "adversarial") & (pl.col("target_attribute") == "group"))
    assert sorted(runs["alpha"].unique()) == [0.5, 1.0, 2.0]
    chosen = runs.filter("chosen")["alpha"].unique().to_list()
    assert len(chosen) == 1
    means = runs.group_by("alpha").agg(pl.col("val_auroc", "val_worst_udr").mean())
    bar = made.runs.filter(pl.col("strategy") == "none")["val_auroc"].item() - FAIRNESS.auroc_margin
    within = means.filter(pl.col("val_auroc") >= bar)
    of_equal_the_largest = within.sort("val_worst_udr", "alpha", descending=[False, True])
    best = of_equal_the_largest["alpha"][0] if within.height else means.sort("val_auroc")["alpha"][-1]
    assert chosen == [best]
    path = out.results.filter((pl.col("attribute") == "group") & pl.col("seed").is_null())
    assert sorted(path.filter(pl.col("target_attribute").is_in(["none", "group"]))["alpha"]) == [0.0, 0.5, 1.0, 2.0]
    read = made.leakage.filter((pl.col("strategy") == "adversarial") & (pl.col("target_attribute") == "group"))
    assert set(read.select("stage", "probe").iter_rows()) == {
        (s, p) for s in ("before", "after") for p in ("logistic", "mlp")
    }
    for probe in ("logistic", "mlp"):
        of_stage = {row["stage"]: row for row in read.filter(pl.col("probe") == probe).iter_rows(named=True)}
        assert of_stage["before"]["ci_low"] > 0.85
        assert of_stage["after"]["ci_high"] < of_stage["before"]["ci_low"]


def adversaries(made_up, **settings):
    settings = {"seeds": 2, "n_bootstrap": 399, "reprobed_seeds": 0} | settings
    made, out, _ = audited_cohort(made_up, MitigationSection(strategies=("adversarial",), **settings))
    return made.runs.filter(strategy="adversarial"), out


def test_runs_that_rank_nobody_are_told_as_collapsed():
    _, (ids, x), studies, labels = cohort(1_500)
    x[(studies["split"] == "val").to_numpy(), 0] *= -1.0  # what means disease in train means health in validation
    of = embedded((ids, x), studies, labels, tasks=["pe"], attributes=ATTRIBUTES)
    runs, out = adversaries((of, (ids, x), studies, labels), alphas=(1.0,), learning_rate=0.03)
    assert set(runs["status"]) == {"collapsed"}
    assert set(runs["reason"]) == {"on validation it ranks patients no better than chance"}
    told = out.results.filter(pl.col("seed").is_null(), strategy="adversarial")
    assert set(told.select("n_collapsed", "n_seeds").iter_rows()) == {(2, 2)}


def test_runs_that_do_not_stay_finite_are_told_and_not_scored():
    runs, out = adversaries(cohort(1_500), alphas=(1.0,), learning_rate=1e30)
    assert set(runs["status"]) == {"diverged"}
    assert out.results.filter(strategy="adversarial", status="evaluated").is_empty()


def test_a_gap_that_widens_beyond_chance_is_told_by_the_same_test_and_interval():
    for after, wider in (({"a": 80, "b": 20}, True), ({"a": 80, "b": 49}, False), ({"a": 80, "b": 75}, False)):
        out = evaluate(*calls({"a": 80, "b": 50}, after), ["group"], FAIRNESS, n_bootstrap=199)
        row = row_of(out, "dfr")
        said = out.results.select(wider=widens(FAIRNESS), narrower=narrows(FAIRNESS)).row(0)
        assert said == (wider, after["b"] == 75)
        assert (row["p_widened"] <= 0.001) is wider
    # where a subgroup is missed altogether there is no interval, and the widest of gaps is none of chance
    out = evaluate(*calls({"a": 80, "b": 50}, {"a": 80, "b": 0}), ["group"], FAIRNESS, n_bootstrap=199)
    assert row_of(out, "dfr")["ci_high"] is None
    assert out.results.select(widens(FAIRNESS)).item()


@pytest.mark.parametrize(("diverged", "interpretable"), [(2, True), (3, False)])
def test_runs_that_diverged_beside_others_are_counted(diverged, interpretable):
    scores, runs = calls({"a": 80, "b": 50}, {"a": 80, "b": 75}, seeds=(0, 1), diverged=range(2, 2 + diverged))
    out = evaluate(scores, runs, ["group"], FAIRNESS, n_bootstrap=99)
    row = row_of(out, "dfr", status="evaluated")
    assert (row["n_seeds"], row["n_diverged"], row["interpretable"]) == (2, diverged, interpretable)
    alone = out.results.filter(pl.col("seed").is_not_null(), status="evaluated")
    assert alone.select("n_seeds", "n_diverged", "interpretable").rows() == [(1, 0, True)] * 2


@pytest.mark.parametrize("alphas", [(1.0,), (0.5, 1.0)], ids=["one", "every one"])
def test_an_alpha_most_of_whose_runs_diverge_is_chosen_only_where_all_are_such(monkeypatch, alphas):
    def spoiled(*args, alpha, **kwargs):
        networks = train(*args, alpha=alpha, **kwargs)
        bad = [one in alphas and at % 3 != 1 for at, one in enumerate(alpha)]  # all seeds but the luckiest
        return dataclasses.replace(networks, finite=networks.finite & ~np.array(bad))

    train = adversarial.train
    monkeypatch.setattr(adversarial, "train", spoiled)
    runs, out = adversaries(cohort(1_500), alphas=(0.5, 1.0), seeds=3)
    chosen = runs.filter("chosen", target_attribute="group")
    assert set(chosen["status"]) <= {"fitted", "collapsed"}
    speaking = out.results.filter("chosen", pl.col("seed").is_null(), target_attribute="group", attribute="group")
    if len(alphas) == 1:
        assert set(chosen["alpha"]) == {0.5}
        assert speaking.select("n_seeds", "n_diverged").row(0) == (3, 0)
    else:
        assert speaking.select("n_seeds", "n_diverged", "interpretable").rows() == [(1, 2, False)]


def test_a_task_that_validation_has_one_class_of_does_not_stop_the_others():
    _, embeddings, studies, labels = cohort(1_500)
    positive = labels.join(studies, on="study_id").filter(pl.col("label"), split="val")["study_id"]
    rare = labels.with_columns(
        task=pl.lit("rare"), label=pl.col("label") & ~pl.col("study_id").is_in(positive.implode())
    )
    tables = {"studies": studies, "labels": pl.concat([labels, rare])}
    tables["probe_fits"] = fit_probes(
        {"mean": embeddings}, studies, tables["labels"], encoder="e", tasks=["pe", "rare"], c_grid=[1.0]
    )
    strategies = ("reweighting", "group_thresholds")
    settings = SimpleNamespace(
        tasks=["pe", "rare"],
        attributes=ATTRIBUTES,
        fairness=FAIRNESS,
        mitigation=MitigationSection(strategies=strategies, n_bootstrap=99),
        probes=ProbesSection(),
    )
    workspace = SimpleNamespace(
        audit=settings,
        warehouse=SimpleNamespace(read=lambda name, cell=None: tables[name]),
        audited_studies=lambda: tables["studies"],
        probed_studies=lambda: tables["studies"],
        capped=lambda studies: studies,
        embeddings=lambda encoder: {"mean": embeddings},
        primary_pooling=lambda encoder: "mean",
        training_device=lambda: "cpu",
    )
    made = mitigate_encoder(workspace, "e")
    assert set(made.scores["task"]) == {"pe"}
    refused = made.runs.filter(task="rare")
    assert set(refused.select("strategy", "target_attribute", "status").iter_rows()) == {
        (strategy, attribute, "not_fitted") for strategy in strategies for attribute in ATTRIBUTES
    }
    tables |= {"mitigation_scores": made.scores, "mitigation_runs": made.runs}
    told = evaluate_cell(workspace, Cell("e", "rare")).mitigation_results
    assert set(told["status"]) == {"not_fitted"}
    assert set(told["reason"]) == {
        "validation has one class only among the studies with an embedding, so no threshold can be chosen"
    }
    assert "evaluated" in evaluate_cell(workspace, Cell("e", "pe")).mitigation_results["status"]


def test_what_cannot_be_aimed_at_is_said_and_an_unknown_level_is_never_a_target():
    made, out, _ = audited("none", LINEAR, n=900, shares=(0.99, 0.01))
    refused = made.runs.filter((pl.col("target_attribute") == "group") & (pl.col("status") == "not_fitted"))
    assert set(refused["strategy"]) >= {"reweighting", "resampling", "dfr", "group_dro", "group_thresholds"}
    assert refused["reason"].str.contains("fewer than two").all()
    said = out.results.filter(pl.col("status") == "not_fitted")
    assert said.height == made.runs.filter(pl.col("status") == "not_fitted").height
    assert said["gap_after"].null_count() == said.height
    suppressed = out.subgroups.filter(pl.col("subgroup") == "minority")
    assert set(suppressed["status"]) <= {"suppressed", "not_estimable"}
    assert suppressed["n"].null_count() == suppressed.height
