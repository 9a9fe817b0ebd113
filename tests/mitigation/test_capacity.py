"""How well attributes are read, encoders compared on the same patients, and the ladder of widths."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from fmaudit_core.config import FairnessSection, MitigationSection
from fmaudit_core.fairness.auroc import auroc
from fmaudit_core.mitigation import attribute_leakage
from fmaudit_core.mitigation.attribute_leakage import Representation, reprobed
from fmaudit_core.mitigation.attribute_probe import linear_scores, separability, shuffled
from fmaudit_core.mitigation.capacity import interactions, ladder
from fmaudit_core.mitigation.dataset import Embedded, Levels
from fmaudit_core.mitigation.demographics import demographic_probes
from fmaudit_core.mitigation.errors import MitigationError
from fmaudit_core.mitigation.linear_heads import LinearHeads
from fmaudit_core.mitigation.mlp_probe import mlp_scores
from fmaudit_core.pipeline.run_mitigation import ladder_encoder
from tests.mitigation.cohorts import cohort

SETTINGS = FairnessSection(n_permutations=199)


def test_separability_equals_scikit_learns_and_the_interval_that_of_two_subgroups():
    rng = np.random.default_rng(0)
    code = rng.choice(3, 600, p=[0.6, 0.3, 0.1])
    score = rng.normal(size=(600, 3)) + 1.2 * (code[:, None] == np.arange(3))
    patient = np.arange(600) // 2
    found = separability(code, score, patient, 0.95)
    assert found.macro_f1 == pytest.approx(f1_score(code, score.argmax(1), average="macro"), abs=1e-12)
    ovr = np.mean([roc_auc_score(code == g, score[:, g]) for g in range(3)])
    assert found.balanced_auroc == pytest.approx(ovr, abs=1e-12)
    two = np.minimum(code, 1)
    one = np.stack([-score[:, 0], score[:, 0]], axis=1)
    whole, known = separability(two, one, patient, 0.95), auroc(two == 1, score[:, 0], patient)
    assert whole.balanced_auroc == pytest.approx(known.value, abs=1e-12)
    assert (whole.ci_low, whole.ci_high) == pytest.approx(known.interval(0.95), abs=2e-3)


def test_an_attribute_read_without_fault_still_has_an_interval():
    code = np.arange(60) % 2
    found = separability(code, np.stack([-code, code], axis=1).astype(float), np.arange(60), 0.95)
    assert found.balanced_auroc == 1.0
    assert 0.8 < found.ci_low < 0.95
    assert found.ci_high == 1.0


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    covered = []
    truth = None
    for _ in range(300):
        n = 300_000 if truth is None else 240
        own = rng.choice(3, n, p=[0.5, 0.3, 0.2])
        patient = np.repeat(np.arange(n), 1 + (rng.random(n) < 0.3))
        code = own[patient]
        noise = rng.normal(size=(n, 3))[patient] * 0.8 + rng.normal(size=(len(code), 3)) * 0.6
        found = separability(code, noise + (code[:, None] == np.arange(3)), patient, 0.95)
        if truth is None:
            truth = found.balanced_auroc
            continue
        covered.append(found.ci_low <= truth <= found.ci_high)
    assert 0.91 <= np.mean(covered) <= 0.985


@pytest.mark.parametrize("width", [12, 100])
def test_fresh_probes_find_something_in_nothing_as_seldom_as_their_interval_says(width, monkeypatch):
    """Halves that read each other err alike; taken as independent, every eighth interval lay above 0.5."""
    monkeypatch.setattr(attribute_leakage, "_nonlinear", lambda *_: iter(()))
    above, below = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, code = rng.normal(size=(600, width)).astype(np.float32), (rng.random(600) < 0.2).astype(np.int64)
        ids = [str(i) for i in range(600)]
        studies = pl.DataFrame({"study_id": ids, "patient_id": ids, "split": ["val"] * 600})
        of = Embedded(studies, x, np.arange(600), {}, {"group": Levels(("a", "b"), code)})
        one = Representation("leace", "group", "", None, None, "after", x)
        row = reprobed(of, [one], encoder="e", fairness=FairnessSection(seed=seed)).row(0, named=True)
        above.append(row["ci_low"] > 0.5)
        below.append(row["ci_high"] < 0.5)
    # 200 trials: three standard errors of 0.025
    assert np.mean(above) < 0.06
    assert np.mean(below) < 0.06


def test_linear_probes_equal_scikit_learns_and_leave_out_what_is_not_known():
    of, *_ = cohort(1_000, readable=1.0)
    code = of.levels["group"].code.copy()
    code[:100] = -1
    (ours,) = linear_scores(LinearHeads(of.x), [(code, 2)], 0.05, of.x)
    standard = (of.x - of.x.mean(0)) / of.x.std(0)
    theirs = LogisticRegression(C=0.05, class_weight="balanced", tol=1e-10, max_iter=2_000)
    theirs.fit(standard[100:], code[100:])
    assert ours[:, 1] == pytest.approx(theirs.decision_function(standard), abs=1e-3)


def test_a_planted_attribute_is_read_and_one_that_is_not_there_is_not():
    of, *_ = cohort(3_000, readable=2.0)
    frame = demographic_probes(of, encoder="e", c_grid=[0.01, 1.0], shuffles=2, settings=SETTINGS)
    assert set(frame["probe"]) == {"logistic", "mlp"}
    for row in frame.iter_rows(named=True):
        assert abs(row["control_balanced_auroc"] - 0.5) < 0.06
        assert row["width"] == 12
        if row["attribute"] == "group":
            assert row["ci_low"] > 0.85
            assert row["macro_f1"] > row["control_macro_f1"] + 0.2
        else:
            assert row["ci_low"] <= 0.5 <= row["ci_high"] + 0.02


def test_a_nonlinear_probe_reads_what_a_linear_one_cannot():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2_000, 6)).astype(np.float32)
    code = (np.abs(x[:, 0]) > 0.7).astype(np.int64)
    half = slice(0, 1_000)
    (linear,) = linear_scores(LinearHeads(x[half]), [(code[half], 2)], 1.0, x[1_000:])
    mlp = mlp_scores(x[None, half], code[None, half], x[None, 1_000:], seed=0)[0]
    assert roc_auc_score(code[1_000:], linear[:, 1]) < 0.6
    assert roc_auc_score(code[1_000:], mlp[:, 1] - mlp[:, 0]) > 0.9


def test_subgroups_with_too_few_studies_are_said_not_to_be_probed():
    of, *_ = cohort(900, shares=(0.99, 0.01))
    frame = demographic_probes(of, encoder="e", c_grid=[0.1], shuffles=1, settings=SETTINGS, probes=("logistic",))
    row = frame.row(by_predicate=pl.col("attribute") == "group", named=True)
    assert (row["status"], row["balanced_auroc"]) == ("too_few", None)


def test_dealt_labels_move_with_their_patient_and_keep_their_counts():
    patient = np.repeat(np.arange(50), 2)
    code = np.repeat(np.arange(50) % 3, 2)
    dealt = shuffled(code, patient, seed=0)
    assert np.array_equal(dealt[::2], dealt[1::2])
    assert np.array_equal(np.bincount(dealt), np.bincount(code))
    assert not np.array_equal(dealt, code)


def test_rungs_are_nested_and_keep_lengths_as_random_projections_do():
    x = np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32)
    rungs = dict(ladder(x, narrowest=64, seed=1))
    assert list(rungs) == [64, 256, 300]
    assert rungs[64] == pytest.approx(
        rungs[256][:, :64], rel=1e-4, abs=1e-5
    )  # BLAS rounds products of other shapes otherwise
    assert rungs[300] is x
    share = np.mean(np.sum(rungs[64] ** 2, axis=1) / np.sum(x**2, axis=1))
    assert share == pytest.approx(64 / 300, abs=0.03)


def test_the_ladder_is_of_the_encoder_named_or_of_the_widest_and_a_name_nobody_has_is_refused():
    encoders = {
        name: SimpleNamespace(control=control, dim=dim)
        for name, control, dim in (("small", False, 128), ("wide", False, 512), ("noise", True, 900))
    }

    def chosen(**settings):
        workspace = SimpleNamespace(audit=SimpleNamespace(mitigation=MitigationSection(**settings)))
        return ladder_encoder(workspace, sorted(encoders), encoders)

    assert chosen() == "wide"
    assert chosen(ladder_encoder="small") == "small"
    assert chosen(ladder_from=0) is None
    with pytest.raises(MitigationError, match="'wyde'"):
        chosen(ladder_encoder="wyde")


def run(name, called, studies, strategy="none", target="none"):
    return studies.with_columns(
        encoder=pl.lit(name), task=pl.lit("pe"), strategy=pl.lit(strategy), target_attribute=pl.lit(target),
        seed=pl.lit(None, dtype=pl.Int64), y_score=pl.Series(called.astype(float)), threshold=pl.lit(0.5),
    )  # fmt: skip


def test_a_strategy_that_helps_one_encoder_more_is_told_apart_on_the_same_patients():
    rng = np.random.default_rng(0)
    n = 4_000
    group = rng.random(n) < 0.4
    y = rng.random(n) < 0.3
    studies = pl.DataFrame(
        {
            "study_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i // 2}" for i in range(n)],
            "y_true": y,
            "group": np.where(group, "b", "a"),
        }
    )

    def called(lost):
        return rng.random(n) < 0.8 - lost * group

    of = {
        "one": pl.concat([run("one", called(0.3), studies), run("one", called(0.0), studies, "dfr", "group")]),
        "two": pl.concat([run("two", called(0.3), studies), run("two", called(0.3), studies, "dfr", "group")]),
    }
    row = interactions(of, ["group"], SETTINGS, n_bootstrap=499).row(0, named=True)
    assert (row["encoder"], row["other_encoder"], row["strategy"]) == ("one", "two", "dfr")
    assert row["difference"] == pytest.approx(row["reduction"] - row["other_reduction"])
    assert row["p_value"] <= 0.01
    assert row["ci_low"] > 0
    fewer = {name: frame.filter(pl.col("study_id") != "s0") if name == "two" else frame for name, frame in of.items()}
    again = interactions(fewer, ["group"], SETTINGS, n_bootstrap=499).row(0, named=True)
    assert abs(again["difference"] - row["difference"]) < 0.01
