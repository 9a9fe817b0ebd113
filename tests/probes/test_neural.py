"""The networks of one encoder: what is scored, which seeds count, and that attention finds a sign that lies in few slices."""

from __future__ import annotations

from functools import partial

import polars as pl
import pytest

from fmaudit_core.config import FairnessSection, NetworksSection
from fmaudit_core.encoders.embeddings_reader import read_slice_counts, read_study_embeddings
from fmaudit_core.fairness.aggregation import spatial_aggregation
from fmaudit_core.fairness.thresholds import with_thresholds
from fmaudit_core.probes.neural import EQUAL, fit_networks
from fmaudit_core.probes.selection import choose_and_predict, fit_probes
from fmaudit_core.probes.slice_store import slice_bags
from fmaudit_core.tables.probes import NEURAL_FITS, PROBE_SEEDS
from tests.probes.slices import planted

SETTINGS = NetworksSection(seeds=2, shapes=((8,), (12, 6)), epochs=12, patience=4)


def networks(path, studies, labels, kinds, tasks=("pe",), settings=SETTINGS, **more):
    folder = path.parent / "scratch"
    return fit_networks(
        read_study_embeddings(path, "mean"), studies, labels, encoder="e", kinds=kinds, pooling="mean", tasks=list(tasks),
        settings=settings, seed=5, open_bags=partial(slice_bags, path, components=0, most_slices=250, folder=folder),
        **more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("neural") / "e.duckdb"
    studies, labels, _ = planted(path, n=240, d=8, strength=3.0, length=(4, 8))
    # a second task that few know of, and a third with one class in validation
    some = labels.sample(fraction=0.5, seed=1).with_columns(task=pl.lit("rare"))
    val = studies.filter(split="val")["study_id"]
    lost = labels.with_columns(task=pl.lit("lost"), label=pl.col("label") & ~pl.col("study_id").is_in(val.implode()))
    blank = labels.with_columns(task=pl.lit("rare"), label=pl.lit(None, dtype=pl.Boolean)).join(
        some, on="study_id", how="anti"
    )
    return path, studies, pl.concat([labels, some, blank, lost])


@pytest.fixture(scope="module")
def found(cohort):
    return networks(*cohort, ["mlp", "abmil", "lrcn"], ("pe", "rare", "lost"))


def test_every_study_of_val_and_test_with_a_known_label_has_a_probability_from_every_probe(cohort, found):
    _, studies, labels = cohort
    assert found.scores.schema == NEURAL_FITS.schema
    assert found.seeds.schema == PROBE_SEEDS.schema
    audited = studies.filter(pl.col("split") != "train").join(labels.drop_nulls("label"), on="study_id")
    wanted = dict(audited.group_by("task").agg(pl.col("study_id").sort()).iter_rows())
    assert len(wanted["rare"]) < len(wanted["pe"])
    sets = found.scores.group_by("task", "probe", "pooling").agg("study_id", pl.col("y_score").is_between(0, 1).all())
    assert sorted(sets.select("task", "probe", "pooling").rows()) == [
        (task, probe, pooling)
        for task in ("pe", "rare")
        for probe, pooling in (("abmil", "attention"), ("lrcn", "lrcn"), ("mlp", "mean"))
    ]
    assert all(sorted(ids) == wanted[task] for task, ids in sets.select("task", "study_id").iter_rows())
    assert sets["y_score"].all()
    told = ["task", "study_id", "patient_id", "split", "label"]
    assert found.scores.rename({"y_true": "label"}).join(audited, on=told, how="anti").is_empty()


def test_a_task_with_one_class_is_told_and_spoils_no_other(found):
    lost = found.seeds.filter(task="lost")
    assert lost.select("probe", "status", "chosen").rows() == [
        (p, "one_class", False) for p in ("mlp", "abmil", "lrcn")
    ]
    assert not found.seeds.filter(pl.col("task") != "lost")["val_auroc"].null_count()
    n_train = dict(found.seeds.filter(probe="mlp").unique("task").select("task", "n_train").iter_rows())
    assert n_train["rare"] < n_train["pe"] == n_train["lost"]


def test_the_shape_with_the_best_mean_validation_auroc_speaks_through_all_its_seeds(found):
    mlp = found.seeds.filter(probe="mlp", task="pe")
    means = mlp.group_by("shape").agg(pl.col("val_auroc").mean()).sort("val_auroc")
    assert mlp.filter("chosen")["shape"].unique().to_list() == [means["shape"][-1]]
    assert mlp.filter("chosen")["seed"].to_list() == [5, 6]
    attention = found.seeds.filter(probe="abmil", task="pe")
    assert attention.select("shape", "seed", "chosen").rows() == [(EQUAL, None, False), ("", 5, True), ("", 6, True)]


def test_the_score_is_the_mean_of_the_seeds_probabilities(cohort, found):
    singly = []
    for seed in (5, 6):
        path, studies, labels = cohort
        one = fit_networks(
            read_study_embeddings(path, "mean"), studies, labels, encoder="e", kinds=["mlp"], pooling="mean",
            tasks=["pe", "rare"], settings=SETTINGS.model_copy(update={"seeds": 1, "shapes": ((8,),)}), seed=seed,
        )  # fmt: skip
        singly.append(one.scores.filter(task="pe"))
    both = networks(*cohort, ["mlp"], ("pe", "rare"), SETTINGS.model_copy(update={"shapes": ((8,),)})).scores.filter(
        task="pe"
    )
    expected = (singly[0]["y_score"] + singly[1]["y_score"]) / 2
    assert both["y_score"].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-6)


def test_every_training_is_told_as_it_ends(cohort):
    told = []
    settings = SETTINGS.model_copy(update={"epochs": 2})
    networks(*cohort, ["mlp", "abmil"], settings=settings, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]  # two shapes and attention, two seeds each


@pytest.mark.parametrize(("focal", "strength"), [(True, 3.0), (False, 2.5)])
def test_attention_beats_the_mean_where_the_sign_lies_in_two_slices_and_not_where_it_lies_in_all(
    tmp_path, focal, strength
):
    """The paper's first finding on a planted twin, through the same table: paired, clustered, corrected."""
    path = tmp_path / "e.duckdb"
    studies, labels, _ = planted(path, n=900, d=12, focal=focal, strength=strength, length=(20, 28))
    found = networks(path, studies, labels, ["abmil"], settings=SETTINGS.model_copy(update={"epochs": 30}))
    poolings = {pooling: read_study_embeddings(path, pooling) for pooling in ("mean", "max")}
    fits = fit_probes(poolings, studies, labels, encoder="e", tasks=["pe"], c_grid=(0.01, 1.0))
    linear = choose_and_predict(fits, poolings, studies, labels, encoder="e", task="pe").scores
    settings = FairnessSection()
    scores = with_thresholds(pl.concat([linear, found.scores]), settings)
    rows = spatial_aggregation(
        scores.filter(split="test"), settings, n_slices={"e": read_slice_counts(path)}, alike={}, seeds=found.seeds,
        equal=found.equal,
    )  # fmt: skip
    row = rows.row(by_predicate=pl.col("aggregation") == "attention", named=True)
    if focal:
        assert row["difference"] > 0.1
        assert row["p_holm"] < 1e-4
        assert row["equal_difference"] > 0.1
        assert row["equal_p"] < 1e-4
    else:
        assert row["auroc"] > 0.7
        assert row["p_value"] > 0.05
        assert row["equal_difference"] < 0.02
