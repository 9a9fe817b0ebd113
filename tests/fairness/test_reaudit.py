"""The gate of a re-audit: it sounds for a planted worsening, stays silent for chance, and shows nothing of small groups."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from statsmodels.stats.contingency_tables import mcnemar

from fmaudit_core.config import FairnessSection, ReauditSection
from fmaudit_core.fairness.reaudit import audit_changes, worsenings
from fmaudit_core.tables.findings import AUDIT_CHANGES

SETTINGS, GATE = FairnessSection(), ReauditSection()
GROUPS = ("a", "b", "c")


def scored(seed, n=1500, *, shift=None, noise=0.0):
    """One model's test scores: the same patients and labels for every seed, positives of `shift`'s groups scored lower."""
    people, draw = np.random.default_rng(1), np.random.default_rng(seed)
    y = people.random(n) < 0.4
    group = people.choice(GROUPS, n)
    score = people.normal(size=n) + 1.5 * y + noise * draw.normal(size=n)
    for name, by in (shift or {}).items():
        score = score - by * (y & (group == name))
    return pl.DataFrame(
        {
            "encoder": "m", "task": "pe", "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none",
            "study_id": [f"s{i}" for i in range(n)], "patient_id": [f"p{i // 2}" for i in range(n)], "split": "test",
            "y_true": y, "y_score": score, "threshold": 0.8, "group": group,
        }
    )  # fmt: skip


def changed(now, before):
    return audit_changes(now, before, ["group"], SETTINGS, GATE)


def test_a_planted_worsening_is_found_where_it_is_and_nowhere_else():
    found = changed(scored(2, shift={"b": 1.0}, noise=0.1), scored(3, noise=0.1))
    worse = set(found.filter("worse").select("subgroup", "metric").iter_rows())
    assert {("b", "auroc"), ("b", "udr")} <= worse <= {("b", "auroc"), ("b", "udr"), ("all", "auroc"), ("all", "udr")}
    assert worsenings(found)[0].startswith("m, pe: UDR of group b went from ")


def test_the_worst_worsening_there_is_sounds_it():
    """All positives of a subgroup found before, none now: nothing varies, and nothing is surer."""
    base = scored(2)
    sick = pl.col("y_true") & (pl.col("group") == "b")
    all_found, none_found = (
        base.with_columns(y_score=pl.when(sick).then(to).otherwise("y_score")) for to in (9.0, -9.0)
    )
    row = changed(none_found, all_found).filter(metric="udr", subgroup="b").row(0, named=True)
    assert row["change"] == 1
    assert row["worse"]
    assert not changed(all_found, none_found).filter(metric="udr", subgroup="b")["worse"][0]


def test_what_got_better_is_no_alarm():
    assert not changed(scored(2, noise=0.1), scored(3, shift={"b": 1.0}, noise=0.1))["worse"].any()


def test_a_change_within_the_margin_is_no_alarm_however_sure():
    now = scored(2, n=60_000, shift=dict.fromkeys(GROUPS, 0.05))
    found = changed(now, scored(3, n=60_000)).filter(metric="udr", subgroup="a")
    assert found["q_worse"][0] < 1e-6
    assert 0 < found["change"][0] < GATE.margin
    assert not found["worse"][0]


def test_chance_alone_seldom_sounds_it():
    alarms = sum(
        changed(scored(s, n=400, noise=0.5), scored(s + 500, n=400, noise=0.5))["worse"].any() for s in range(60)
    )
    assert alarms <= 7  # 5 % of 60 expected; 8 or more with p < 0.02


def test_the_same_audit_has_not_changed():
    found = changed(scored(2), scored(2))
    assert found["change"].to_list() == [0.0] * found.height
    assert not found["worse"].fill_null(value=False).any()


def test_one_study_a_patient_is_mcnemars_test():
    one_each = [frame.with_columns(patient_id="study_id") for frame in (scored(2, noise=0.6), scored(3, noise=0.6))]
    now, before = (frame.filter("y_true")["y_score"].to_numpy() >= 0.8 for frame in one_each)
    table = [[(now & before).sum(), (now & ~before).sum()], [(~now & before).sum(), (~now & ~before).sum()]]
    peer = mcnemar(table, exact=False, correction=False).pvalue
    row = changed(*one_each).filter(attribute="overall", metric="udr").row(0, named=True)
    assert row["p_value"] == pytest.approx(peer, rel=0.02)  # McNemar pools the variance under the null
    assert row["p_worse"] == pytest.approx(row["p_value"] / 2 if row["change"] > 0 else 1 - row["p_value"] / 2)


def test_only_test_studies_of_both_audits_count_and_labels_are_todays():
    now, before = scored(2, noise=0.1), scored(3, noise=0.1)
    stale = before.with_columns(
        y_true=~pl.col("y_true"), split=pl.when(pl.col("study_id") < "s5").then(pl.lit("val")).otherwise("split")
    )
    both = now.filter(pl.col("study_id") >= "s5")
    assert changed(now, stale.tail(1400)).equals(changed(both.tail(0).vstack(both), before.tail(1400)))


def test_a_small_group_shows_no_number():
    few = pl.when(pl.int_range(pl.len()) < 12).then(pl.lit("few")).otherwise("group")
    found = changed(*(scored(seed, noise=0.1).with_columns(group=few) for seed in (2, 3))).filter(subgroup="few")
    assert found["status"].unique().to_list() == ["suppressed"]
    hidden = found.select(
        pl.exclude(
            "encoder", "task", "probe", "modality", "pooling", "strategy", "attribute", "subgroup", "metric", "status"
        )
    )
    assert all(column.null_count() == len(column) for column in hidden)


def test_a_first_audit_has_nothing_to_compare_with():
    assert changed(scored(2), scored(3).clear()).schema == AUDIT_CHANGES.schema
    assert changed(scored(2), scored(3).clear()).is_empty()
