"""Probes on the medical record and with CT: what is planted is found, what is not is not, and test labels decide nothing."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from fmaudit_core.cohort.phantom.outcomes import RECORD_ADDS, draw_courses, ehr_events, labels_of
from fmaudit_core.cohort.phantom.plan import plan_cohort
from fmaudit_core.config import EhrSection, FairnessSection, PhantomCohort
from fmaudit_core.ehr.design_matrix import designs
from fmaudit_core.ehr.features import ehr_tables
from fmaudit_core.ehr.source import Record
from fmaudit_core.fairness.modalities import modality_comparisons
from fmaudit_core.probes.errors import ProbeError
from fmaudit_core.probes.primary_score_set import of_primary_probe
from fmaudit_core.probes.record import fit_fusions, fit_record
from fmaudit_core.probes.selection import choose_and_predict, fit_probes

GRID = (1e-3, 1e-2, 1e-1, 1.0)
TASKS = ("pe", "mortality_12m", "readmission_6m", "pulmonary_hypertension_12m")
SETTINGS = EhrSection(leaves=(7,), max_trees=60)
PLAN = plan_cohort(PhantomCohort(kind="phantom", n_studies=4_000))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The phantom without pictures: its record, and an embedding that reads its signs and emboli as a good encoder would."""
    folder = tmp_path_factory.mktemp("record")
    courses = draw_courses(PLAN, 20_26)
    ehr_events(PLAN, courses, 20_26).write_parquet(folder / "events.parquet")
    studies = pl.DataFrame(
        [(one.study_id, one.patient_id, one.split, one.time) for one in PLAN],
        schema=["study_id", "patient_id", "split", "time"], orient="row",
    )  # fmt: skip
    labels = pl.DataFrame(
        [(one.study_id, task, labels_of(one, courses[one.patient_id])[task]) for one in PLAN for task in TASKS],
        schema={"study_id": pl.String, "task": pl.String, "label": pl.Boolean}, orient="row",
    )  # fmt: skip
    tables = ehr_tables(Record("events", folder / "events.parquet"), studies, SETTINGS, cache=folder / "cache")
    made = designs(tables.features, tables.rows, tables.vocabulary, windows_days=SETTINGS.windows_days, most=1_024)
    rng = np.random.default_rng(7)
    seen = np.array([[*vars(one.signs).values(), sum(e.fill**2 for e in one.emboli)] for one in PLAN])
    x = (seen + rng.normal(0, 0.7, seen.shape)) @ rng.normal(size=(seen.shape[1], 24))
    return made, ([one.study_id for one in PLAN], x.astype(np.float32)), studies, labels


def fitted(cohort, labels=None):
    made, embeddings, studies, own = cohort
    labels = own if labels is None else labels
    record = fit_record(made, studies, labels, tasks=TASKS, c_grid=GRID, settings=SETTINGS)
    vectors = {"mean": embeddings}
    fits = fit_probes(vectors, studies, labels, encoder="e", tasks=TASKS, c_grid=GRID)
    ct = {task: choose_and_predict(fits, vectors, studies, labels, encoder="e", task=task) for task in TASKS}
    both = fit_fusions(
        made, embeddings, ct, record.scores, studies, labels, pooling="mean", c_grid=GRID, settings=SETTINGS
    )
    scores = [record.scores, both.scores, *(one.scores.select(record.scores.columns) for one in ct.values())]
    return pl.concat(scores).with_columns(encoder=pl.lit("e")), record, both, ct


@pytest.fixture(scope="module")
def found(cohort):
    return fitted(cohort)


def test_the_record_adds_to_ct_where_it_was_planted_and_not_elsewhere(found):
    """Severity and D-dimer are in the record alone, hypertension is on the scan; the record alone is worse than both."""
    test = found[0].filter(split="test")
    table = modality_comparisons(test.with_columns(threshold=0.5), FairnessSection())
    rows = {(row["task"], row["probe"], row["modality"]): row for row in table.iter_rows(named=True)}
    for task in TASKS:
        for probe in ("logistic", "late_fusion"):
            both = rows[task, probe, "ct+ehr"]
            assert both["p_over_ehr"] < 1e-3, (task, probe)
            assert both["over_ehr"] > 0.03
            if task in RECORD_ADDS:
                assert both["over_ct_low"] > 0, (task, probe)
                assert both["p_over_ct"] < 1e-3
            else:  # not by as much as would matter
                assert both["over_ct_high"] < FairnessSection().auroc_margin, (task, probe)
    assert rows["readmission_6m", "gbm", "ehr"]["value"] > 0.7


def test_scores_are_of_every_known_label_of_val_and_test(cohort, found):
    _, _, studies, labels = cohort
    known = labels.drop_nulls().join(studies.filter(pl.col("split") != "train"), on="study_id")
    for key, frame in found[0].group_by("task", "probe", "modality"):
        assert frame.height == known.filter(task=key[0]).height, key
        assert frame["study_id"].is_unique().all()
        assert frame["y_score"].is_between(0, 1).all()
    sets = found[0].select("probe", "modality", "pooling").unique().sort(pl.all()).rows()
    assert sets == [
        ("gbm", "ehr", "none"), ("late_fusion", "ct+ehr", "mean"), ("logistic", "ct", "mean"), ("logistic", "ct+ehr", "mean"),
        ("logistic", "ehr", "none"),
    ]  # fmt: skip
    assert set(of_primary_probe(found[0])["modality"]) == {"ct"}


def test_a_patient_never_spans_splits(found):
    assert found[0].group_by("patient_id").agg(pl.col("split").n_unique())["split"].max() == 1


def test_test_labels_decide_nothing(cohort, found):
    _, _, studies, labels = cohort
    in_test = studies.filter(split="test")["study_id"].implode()
    flipped = labels.with_columns(
        label=pl.when(pl.col("study_id").is_in(in_test)).then(~pl.col("label")).otherwise("label")
    )
    again = fitted(cohort, flipped)[0]
    assert again["y_score"].equals(found[0]["y_score"])


def test_shuffled_labels_give_chance(cohort):
    """Were a label to reach a feature, it would be found again: with labels dealt to patients anew AUROC is a half."""
    studies, labels = cohort[2:]
    rng = np.random.default_rng(3)
    patients = studies.get_column("patient_id").unique().sort()
    dealt = pl.concat(
        pl.DataFrame({"patient_id": patients, "dealt": rng.random(len(patients)) < 0.3}).with_columns(task=pl.lit(task))
        for task in TASKS
    )
    shuffled = labels.drop_nulls().join(studies, on="study_id").join(dealt, on=["patient_id", "task"])
    out = fitted(cohort, shuffled.select("study_id", "task", label="dealt"))[0].filter(split="test")
    assert out.select("probe", "modality").unique().height == 5
    for (task, probe, modality), test in out.group_by("task", "probe", "modality"):
        y, score = test["y_true"].to_numpy(), test["y_score"].to_numpy()
        assert test.height > 500
        # patients have several studies, and twenty score sets are looked at
        se = np.sqrt((len(y) + 1) / (12 * y.sum() * (~y).sum()))
        assert abs(roc_auc_score(y, score) - 0.5) < 4.5 * se, (task, probe, modality)


def test_each_task_reads_the_past_it_may_know(cohort):
    """Were embolism's record of the study's day given, its scores would change."""
    made, _, studies, labels = cohort
    one = fit_record(made, studies, labels, tasks=["pe"], c_grid=GRID, settings=SETTINGS).scores
    swapped = {"day": made["day_before"], "day_before": made["day_before"]}
    assert one.equals(fit_record(swapped, studies, labels, tasks=["pe"], c_grid=GRID, settings=SETTINGS).scores)
    swapped = {"day": made["day_before"], "day_before": made["day"]}
    assert not one.equals(fit_record(swapped, studies, labels, tasks=["pe"], c_grid=GRID, settings=SETTINGS).scores)


def test_late_fusion_is_the_unpenalised_regression_on_validation(found):
    scores = found[0].filter(task="readmission_6m")
    of = {
        modality: scores.filter((pl.col("probe") == "logistic") & (pl.col("modality") == modality)).sort("study_id")
        for modality in ("ct", "ehr")
    }
    p = np.stack([frame["y_score"].to_numpy() for frame in of.values()], axis=1)
    odds = np.log(p / (1 - p))
    in_val = (of["ct"]["split"] == "val").to_numpy()
    peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1_000).fit(
        odds[in_val], of["ct"]["y_true"].to_numpy()[in_val]
    )
    late = scores.filter(probe="late_fusion").sort("study_id")["y_score"].to_numpy()
    assert late == pytest.approx(peer.predict_proba(odds)[:, 1], abs=2e-3)


def test_early_fusion_and_the_record_are_scikit_learns_on_the_same_columns(cohort, found):
    made, (ids, x), studies, labels = cohort
    design, task = made["day"], "readmission_6m"
    frame = studies.join(labels.filter(pl.col("task") == task), on="study_id").sort("study_id")
    order = [ids.index(study) for study in frame["study_id"]]
    assert design.ids == frame["study_id"].to_list()
    y, train = frame["label"], (frame["split"] == "train").to_numpy() & frame["label"].is_not_null().to_numpy()
    in_train = (frame["split"] == "train").to_numpy()
    for modality, columns in (("ehr", design.filled()), ("ct+ehr", np.hstack([x[order], design.filled()]))):
        trail = found[1].trail if modality == "ehr" else found[2].trail
        c = trail.filter((pl.col("task") == task) & (pl.col("probe") == "logistic") & pl.col("chosen"))["c"].item()
        spread = columns[in_train].std(0, dtype=np.float64)
        standard = (columns - columns[in_train].mean(0, dtype=np.float64)) / np.where(spread > 1e-7, spread, np.inf)
        if modality == "ct+ehr":  # each modality has half of the variance
            n_ct, n = x.shape[1], columns.shape[1]
            standard[:, :n_ct] *= np.sqrt(n / 2 / n_ct)
            standard[:, n_ct:] *= np.sqrt(n / 2 / (n - n_ct))
        peer = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-10).fit(
            standard[train], y.to_numpy()[train].astype(bool)
        )
        want = peer.predict_proba(standard)[:, 1]
        own = found[0].filter(
            (pl.col("task") == task) & (pl.col("probe") == "logistic") & (pl.col("modality") == modality)
        )
        at = dict(zip(frame["study_id"], want, strict=True))
        assert own["y_score"].to_numpy() == pytest.approx([at[one] for one in own["study_id"]], abs=1e-3), modality


def test_coefficients_name_their_codes(found):
    heaviest = found[1].coefficients.filter(task="pe").sort(pl.col("coefficient").abs(), descending=True)
    assert heaviest["code"][0] in ("LOINC/48065-7", "LOINC/8867-4")  # D-dimer, heart rate
    assert heaviest["coefficient"][0] > 0


def test_trees_that_find_no_split_are_no_model(cohort):
    """Of a dozen training studies none can be split: no score set, and a trail that chose nothing."""
    made, _, studies, labels = cohort
    pe = labels.filter(task="pe").join(studies.select("study_id", "split"), on="study_id")
    few = pl.concat(
        [
            pe.filter(split="train").group_by("label").head(6).select(labels.columns),
            pe.filter(pl.col("split") != "train").select(labels.columns),
        ]
    )
    out = fit_record(made, studies, few, tasks=["pe"], c_grid=GRID, settings=SETTINGS)
    assert set(out.scores["probe"]) == {"logistic"}
    assert out.trail.filter(probe="gbm")["chosen"].to_list() == [False]


def test_one_class_in_training_is_told(cohort):
    made, _, studies, labels = cohort
    alike = labels.filter(task="pe").with_columns(label=pl.lit(value=True))
    with pytest.raises(ProbeError, match="no probe can be fitted for pe"):
        fit_record(made, studies, alike, tasks=["pe"], c_grid=GRID, settings=SETTINGS)


def test_a_task_of_one_class_leaves_the_other_tasks_alone(cohort):
    made, _, studies, labels = cohort
    pe = labels.filter(task="pe")
    alike = pe.with_columns(task=pl.lit("mortality_1m"), label=pl.lit(value=True))
    tasks = ["pe", "mortality_1m"]
    alone = fit_record(made, studies, labels, tasks=["pe"], c_grid=GRID, settings=SETTINGS)
    record = fit_record(made, studies, pl.concat([pe, alike]), tasks=tasks, c_grid=GRID, settings=SETTINGS)
    assert record.scores.equals(alone.scores)
    assert record.trail.equals(alone.trail)
    assert list(record.not_fitted) == ["mortality_1m"]
    assert "one class" in record.not_fitted["mortality_1m"]
