"""Choosing on validation and predicting on val and test."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from fmaudit_core.probes.errors import OneClassError, ProbeError
from fmaudit_core.probes.selection import choose_and_predict, fit_probes
from tests.probes.test_logistic import embeddings, labels

GRID = (1e-3, 1e-1, 10.0)


@pytest.fixture
def cohort():
    x = embeddings(300, 12)
    ids = [f"s{i:03d}" for i in range(300)]
    splits = np.array(["train", "val", "test"])[np.arange(300) % 3]
    studies = pl.DataFrame({"study_id": ids, "patient_id": [f"p{i}" for i in range(300)], "split": splits})
    known = [None if i % 11 == 0 else bool(y) for i, y in enumerate(labels(x))]
    return (
        {"mean": (ids, x), "max": (ids, x + 1)},
        studies,
        pl.DataFrame({"study_id": ids, "task": "pe", "label": known}),
    )


def predicted(vectors, studies, truth):
    fits = fit_probes(vectors, studies, truth, encoder="e", tasks=("pe",), c_grid=GRID)
    return choose_and_predict(fits, vectors, studies, truth, encoder="e", task="pe")


def test_every_known_label_of_val_and_test_is_scored_once_per_pooling(cohort):
    out = predicted(*cohort)
    _, studies, truth = cohort
    known = truth.drop_nulls().join(studies.filter(pl.col("split") != "train"), on="study_id")
    assert out.scores.group_by("pooling").len()["len"].to_list() == [known.height] * 2
    assert out.scores["y_score"].is_between(0, 1).all()
    assert out.n_unscored == 0
    joined = out.scores.join(truth, on="study_id")
    assert (joined["y_true"] == joined["label"]).all()


def test_c_is_chosen_by_validation_auroc_and_never_by_test(cohort):
    vectors, studies, truth = cohort
    out = predicted(*cohort)
    chosen = out.trail.filter("chosen")
    assert chosen.height == 2
    best = out.trail.group_by("pooling").agg(pl.col("val_auroc").max()).sort("pooling")["val_auroc"]
    assert chosen.sort("pooling")["val_auroc"].to_list() == best.to_list()
    val = out.scores.filter((pl.col("split") == "val") & (pl.col("pooling") == "mean"))
    at = chosen.filter(pl.col("pooling") == "mean")["val_auroc"].item()
    assert at == pytest.approx(roc_auc_score(val["y_true"], val["y_score"]), abs=1e-12)
    in_test = studies.filter(pl.col("split") == "test")["study_id"].implode()
    flipped = truth.with_columns(
        label=pl.when(pl.col("study_id").is_in(in_test)).then(~pl.col("label")).otherwise("label")
    )
    again = predicted(vectors, studies, flipped)
    assert again.trail.equals(out.trail)
    assert again.scores["y_score"].equals(out.scores["y_score"])


def test_a_study_without_an_embedding_is_counted(cohort):
    vectors, studies, truth = cohort
    fewer = {name: (ids[:290], x[:290]) for name, (ids, x) in vectors.items()}
    out = predicted(fewer, studies, truth)
    lost = truth.tail(10).drop_nulls().join(studies.filter(pl.col("split") != "train"), on="study_id").height
    assert out.n_unscored == lost > 0


def test_a_task_of_one_class_in_training_leaves_the_other_tasks_alone(cohort):
    vectors, studies, truth = cohort
    ones = truth.with_columns(task=pl.lit("mortality_1m"), label=pl.lit(value=True))
    both = pl.concat([truth, ones])
    fits = fit_probes(vectors, studies, both, encoder="a", tasks=["pe", "mortality_1m"], c_grid=GRID)
    assert fits.equals(fit_probes(vectors, studies, truth, encoder="a", tasks=["pe"], c_grid=GRID))
    with pytest.raises(OneClassError, match="no probe can be fitted for mortality_1m"):
        choose_and_predict(fits, vectors, studies, both, encoder="a", task="mortality_1m")


def test_one_class_in_validation_is_told(cohort):
    vectors, studies, truth = cohort
    in_val = studies.filter(pl.col("split") == "val")["study_id"].implode()
    ones = truth.with_columns(label=pl.when(pl.col("study_id").is_in(in_val)).then(True).otherwise("label"))
    with pytest.raises(ProbeError, match=": validation has only one class for pe"):
        predicted(vectors, studies, ones)
