"""Findings: corrected over the declared family, and never saying more than they know."""

from __future__ import annotations

import polars as pl
import pytest

from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.findings import findings, judged_as_found
from fmaudit_core.tables.findings import AUDIT_FINDINGS
from tests.fairness.cohorts import predictions

SETTINGS = FairnessSection(n_permutations=499)
ATTRIBUTES = ("group", "other")


@pytest.fixture(scope="module")
def found():
    frame = predictions(1500, shift={"c": 1.6}, shares=(0.4, 0.3, 0.28, 0.02))
    models = pl.concat(
        [
            frame.with_columns(encoder=pl.lit("one"), task=pl.lit("pe"), pooling=pl.lit("mean")),
            predictions(1500, shares=(0.4, 0.3, 0.28, 0.02)).with_columns(
                encoder=pl.lit("two"), task=pl.lit("pe"), pooling=pl.lit("mean")
            ),
            frame.with_columns(encoder=pl.lit("one"), task=pl.lit("other_task"), pooling=pl.lit("mean")),
        ]
    )
    out = assess(models, attributes=ATTRIBUTES, settings=SETTINGS)
    family = models.filter(pl.col("task") == "pe")
    return findings(
        family, out.fairness_gaps, out.subgroup_metrics, attributes=ATTRIBUTES, settings=SETTINGS, titles={"one": "One"}
    )


def row(found, **keys):
    return found.row(by_predicate=pl.all_horizontal(pl.col(k) == v for k, v in keys.items()), named=True)


def test_the_planted_disparity_is_found_corrected_and_said(found):
    one = row(found, encoder="one", task="pe", attribute="group", metric="udr")
    assert one["verdict"] == "disparity"
    assert one["confirmatory"]
    assert one["p_adjusted"] >= one["p_value"]
    assert one["sentence"].startswith("Pulmonary embolism, One: ")
    assert "the model missed" in one["sentence"]
    assert "in the subgroup C and" in one["sentence"]
    assert one["sentence"].endswith(" Not tested: D.")


def test_a_large_level_without_a_record_is_not_said_to_have_too_few_studies():
    frame = predictions(1500, shift={"c": 1.6}, shares=(0.4, 0.3, 0.28, 0.02)).with_columns(
        pl.col("group").replace("b", "unknown")
    )
    out = assess(frame, attributes=ATTRIBUTES, settings=SETTINGS)
    told = findings(
        pl.DataFrame(), out.fairness_gaps, out.subgroup_metrics, attributes=ATTRIBUTES, settings=SETTINGS, titles={}
    )
    one = row(told, attribute="group", metric="udr")
    value = out.subgroup_metrics.row(
        by_predicate=(pl.col("subgroup") == "unknown") & (pl.col("metric") == "udr"), named=True
    )["value"]
    assert one["sentence"].endswith(f" Not tested: D, Not recorded ({100 * value:.1f}%).")


def test_what_is_not_shown_is_not_called_fair(found):
    for one in found.filter(pl.col("verdict") == "insufficient_evidence").iter_rows(named=True):
        assert "e cannot tell whether" in one["sentence"]
        assert "alone against the other subgroups would find a difference of" in one["sentence"]
        assert "usually finds it in fewer" in one["sentence"]
    assert not found["sentence"].str.contains("(?i)fair|no difference").any()


def test_only_the_declared_family_is_confirmatory(found):
    confirmatory = found.filter("confirmatory")
    assert confirmatory.height == 4
    assert set(confirmatory["metric"]) == {"udr"}
    assert set(confirmatory["task"]) == {"pe"}
    assert found.filter(~pl.col("confirmatory"))["p_adjusted"].is_null().all()
    assert found["q_value"].null_count() == found["p_value"].null_count()
    assert found.schema == AUDIT_FINDINGS.schema


def test_a_gap_has_the_verdict_of_its_finding():
    """The gaps of one encoder and task are corrected over fewer comparisons than the findings of the whole audit."""
    keys = [*SCORE_SET, "attribute", "metric"]
    frame = predictions(900, shift={"c": 0.9}).with_columns(encoder=pl.lit("one"), task=pl.lit("other"))
    own = assess(frame, attributes=ATTRIBUTES, settings=SETTINGS)
    found = findings(
        pl.DataFrame(), own.fairness_gaps, own.subgroup_metrics, attributes=ATTRIBUTES, settings=SETTINGS, titles={}
    )
    judgement = ["p_adjusted", "q_value", "verdict", "confirmatory"]
    assert own.fairness_gaps["confirmatory"].any()  # of a task that is outside the family of the audit
    told = judged_as_found(own.fairness_gaps, found)
    assert told.select(*keys, *judgement).sort(keys).equals(found.select(*keys, *judgement).sort(keys))
    assert told.drop(judgement).equals(own.fairness_gaps.drop(judgement))
    alone = judged_as_found(own.fairness_gaps, found.filter(attribute="group"))
    assert alone.filter(attribute="other").equals(own.fairness_gaps.filter(attribute="other"))


def test_no_count_of_a_suppressed_group_is_said(found):
    frame = predictions(1500, shift={"c": 1.6}, shares=(0.4, 0.3, 0.28, 0.02))
    hidden = frame.filter((pl.col("group") == "d") & (pl.col("split") == "test"))
    for count in (hidden["y_true"].sum(), (~hidden["y_true"]).sum()):
        assert not found["sentence"].str.contains(rf"of {count} ").any()


def test_a_gap_between_groups_that_differ_in_studies_per_patient_is_found():
    """One group's patients have one study each, the other's three."""
    one, three = (
        predictions(800, studies_per_patient=1, shift={"a": 1.5, "b": 1.5}),
        predictions(500, studies_per_patient=1, seed=1),
    )
    thrice = pl.concat([three.with_columns(study_id=f"{i}" + pl.col("study_id")) for i in range(3)])
    other = thrice.with_columns(patient_id="t" + pl.col("patient_id"), group=pl.lit("thrice"))
    frame = pl.concat([one.with_columns(group=pl.lit("once")), other]).with_columns(
        encoder=pl.lit("one"), task=pl.lit("pe"), pooling=pl.lit("mean")
    )
    out = assess(frame, attributes=["group"], settings=SETTINGS)
    said = findings(
        frame, out.fairness_gaps, out.subgroup_metrics, attributes=["group"], settings=SETTINGS, titles={"one": "One"}
    )
    gap = row(said, metric="udr")
    assert gap["verdict"] == "disparity"
    assert gap["worst_subgroup"] == "once"
