"""What each modality adds: the paired tests of `fmaudit_core/fairness/paired.py`, on the studies that all models scored."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.assess import assess
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.fairness.modalities import modality_comparisons
from fmaudit_core.fairness.paired import paired_auroc
from fmaudit_core.probes.primary_score_set import is_primary_probe, of_primary_probe
from fmaudit_core.tables.findings import MODALITY_COMPARISONS
from tests.fairness.cohorts import predictions

MODELS = (("logistic", "ct", "mean"), ("logistic", "ehr", "none"), ("logistic", "ct+ehr", "mean"))
SETTINGS = FairnessSection()


def scored(n=400, seed=0):
    """CT and record each know a half of the outcome; the record lacks every tenth study."""
    rng = np.random.default_rng(seed)
    y = rng.random(n) < 0.3
    ct, ehr = y + rng.normal(0, 1, n), y + rng.normal(0, 1, n)
    frames = [
        pl.DataFrame(
            {
                "encoder": "e", "task": "t", "probe": probe, "modality": modality, "pooling": pooling, "strategy": "none",
                "study_id": [f"s{i:04d}" for i in range(n)], "patient_id": [f"p{i // 2}" for i in range(n)],
                "y_true": y, "y_score": {"ct": ct, "ehr": ehr, "ct+ehr": ct + ehr}[modality], "threshold": 0.5,
            }
        )
        for probe, modality, pooling in MODELS
    ]  # fmt: skip
    return frames[0], *(frame.filter(pl.int_range(pl.len()) % 10 != 0) for frame in frames[1:])


def test_every_number_is_of_the_studies_all_models_scored():
    ct, ehr, both = scored()
    table = modality_comparisons(pl.concat([ct, ehr, both]), SETTINGS)
    assert table.schema == MODALITY_COMPARISONS.schema
    rows = {row["modality"]: row for row in table.iter_rows(named=True)}
    assert {row["n"] for row in rows.values()} == {360}
    on_both = ct.join(both, on="study_id", how="semi")
    y, patient = both["y_true"].to_numpy(), both["patient_id"].rank("dense").cast(pl.Int64).to_numpy()
    score = {name: frame["y_score"].to_numpy() for name, frame in (("ct", on_both), ("ehr", ehr), ("ct+ehr", both))}
    for name, row in rows.items():
        want = auroc(y, score[name], patient)
        assert row["value"] == pytest.approx(want.value, abs=1e-12)
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(want.interval(0.95), abs=1e-12)
        for other in ("ct", "ehr"):
            if name == other:
                assert row[f"over_{other}"] is None
                continue
            pair = paired_auroc(y, score[name], score[other], patient)
            assert row[f"over_{other}"] == pytest.approx(pair.difference, abs=1e-12)
            assert row[f"p_over_{other}"] == pytest.approx(pair.p_value(), rel=1e-9)
    assert rows["ct+ehr"]["over_ct"] > 0 < rows["ct+ehr"]["over_ehr"]
    assert rows["ct+ehr"]["p_over_ct"] < 0.01


def test_imaging_alone_has_no_table():
    assert modality_comparisons(scored()[0], SETTINGS).is_empty()


def test_few_studies_are_told_without_a_number():
    few = pl.concat([frame.sort("y_true").head(200) for frame in scored()])
    table = modality_comparisons(few, SETTINGS.model_copy(update={"suppress_under": 150}))
    assert set(table["status"]) <= {"suppressed", "not_estimable"}
    assert table.select("n", "value", "over_ct").null_count().row(0) == (3, 3, 3)


def test_secondary_score_sets_are_in_no_family():
    """Beside the declared models others change none of their p, q and verdicts, and have a nominal p of their own."""
    settings = SETTINGS.model_copy(update={"n_permutations": 199})
    own = predictions(600, shift={"a": 1.5}).with_columns(probe=pl.lit("logistic"), modality=pl.lit("ct"))
    more = own.with_columns(probe=pl.lit("gbm"), modality=pl.lit("ehr"), y_score=pl.col("y_score") + 0.1)
    alone = assess(own, attributes=["group"], settings=settings).fairness_gaps
    both = assess(
        pl.concat([own, more]), attributes=["group"], settings=settings, declared=is_primary_probe()
    ).fairness_gaps
    assert of_primary_probe(both).equals(alone)
    beside = both.filter(probe="gbm")
    assert beside["p_value"].to_list() == alone["p_value"].to_list()
    assert beside.select("p_adjusted", "q_value").null_count().row(0) == (3, 3)
    assert not beside["confirmatory"].any()
    assert "disparity" in alone["verdict"].to_list()
    assert "disparity" not in beside["verdict"].to_list()
