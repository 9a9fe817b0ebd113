"""Networks switched on in an audit that has run: what is made again, what joins, and that the findings speak of the same."""

from __future__ import annotations

import shutil

import polars as pl
import pytest

from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.imaging.window import View
from fmaudit_core.pipeline.run_network_probes import another_view
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES, step_of
from fmaudit_core.pipeline.versions import stale_tables
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.warehouse import Cell
from tests.platform.conftest import EXPLORED, made, reconfigured, run

NETWORKS = {"seeds": 2, "shapes": [[8], [12, 6]], "epochs": 3, "patience": 2, "components": 16}
ENCODER = "efficientnet_lite0"


def with_probes(workspace, **settings):
    return reconfigured(workspace, probes=settings)


@pytest.fixture(scope="module")
def networked(audited, tmp_path_factory):
    """A copy of the audited workspace with every network, and what its run made."""
    target = tmp_path_factory.mktemp("networked") / "copy"
    shutil.copytree(audited[0].audit_yaml.parent, target, copy_function=shutil.copy2)
    workspace = with_probes(
        open_workspace(target / "audit.yaml"), kinds=["logistic", "mlp", "abmil", "lrcn"], networks=NETWORKS
    )
    return workspace, run(workspace)


def test_networks_join_as_score_sets_and_the_findings_speak_of_the_logistic_probe(audited, networked):
    workspace, outcome = networked
    warehouse = workspace.warehouse
    assert outcome.failures == {}
    # of the encoder that is no control, what descends from its probes; no embedding, no logistic fit, no strategy again
    redone = made(outcome)
    assert f"neural_fits {ENCODER}" in redone
    assert {line.split()[0] for line in redone} == {
        "neural_fits", "probe_predictions", *FAIRNESS_TABLES, *EXPLORED, "audit_findings", "audit_report",
    }  # fmt: skip
    assert not [line for line in redone if "hu_histogram" in line]

    scores = warehouse.read("probe_predictions", Cell(ENCODER, "pe"))
    sets = set(scores.select("probe", "modality", "pooling").unique().iter_rows())
    assert {one for one in sets if one[1] == "ct"} == {
        ("logistic", "ct", "mean"), ("logistic", "ct", "max"), ("mlp", "ct", "mean"), ("abmil", "ct", "attention"),
        ("lrcn", "ct", "lrcn"),
    }  # fmt: skip
    scores = scores.filter(modality="ct")
    per_set = scores.group_by("probe", "pooling").agg(pl.len(), pl.col("y_score").is_between(0, 1).all(), "threshold")
    assert per_set["len"].n_unique() == 1
    assert per_set["y_score"].all()
    assert not scores.get_column("threshold").null_count()

    seeds = warehouse.read("probe_seeds", Cell(ENCODER))
    assert seeds.height == 2 * (2 * (2 + 1 + 1) + 1)  # tasks x (seeds x (shapes, attention, recurrence), equal weights)
    chosen = seeds.filter(pl.col("chosen"), task="pe", probe="mlp")
    assert chosen["shape"].n_unique() == 1
    assert chosen.height == 2

    before, after = (one.warehouse.read("audit_findings") for one in (audited[0], workspace))
    family = [frame.filter("confirmatory") for frame in (before, after)]
    assert family[1].select("probe", "modality", "pooling").unique().rows() == [("logistic", "ct", "mean")]
    assert family[0].drop("q_value").equals(family[1].drop("q_value"))  # q is over all that was tested
    told = [
        {
            "model_comparisons": one.warehouse.read("model_comparisons").drop("q_value"),
            "advice on the family's task": one.warehouse.read("mitigation_recommendations").filter(task="pe"),
        }
        for one in (audited[0], workspace)
    ]
    for name, frame in told[0].items():
        assert frame.equals(told[1][name]), name


def test_aggregations_are_compared_and_shown_and_a_second_run_does_nothing(networked):
    workspace, _ = networked
    rows = workspace.warehouse.read("spatial_aggregation")
    of = {(row["encoder"], row["task"], row["aggregation"]): row["status"] for row in rows.iter_rows(named=True)}
    assert of[ENCODER, "pe", "attention"] == of[ENCODER, "pe", "lrcn"] == of[ENCODER, "pe", "max"] == "tested"
    assert of[ENCODER, "pe", "mean"] == "reference"
    assert of[ENCODER, "pe", "median"] == of["hu_histogram", "pe", "attention"] == "not_scored"
    assert rows.filter(status="tested").select("p_value", "p_holm").null_count().row(0) == (0, 0)
    assert rows.drop_nulls("n_slices")["n_slices"].unique().to_list() == [6.0]
    assert pl.read_csv(workspace.reports / "spatial_aggregation.csv").height == rows.height
    assert "How slices become a study" in (workspace.reports / "index.html").read_text()
    assert not list((workspace.home / "scratch").iterdir())
    assert run(workspace).made == []


def stale(workspace, level):
    look = snapshot_of(workspace)
    cells = [
        (step_of(name), cell)
        for name in level
        for cell in step_of(name).cells(look, look.encoders, look.workspace.audit.tasks)
    ]
    return {(table, cell.encoder) for step, cell in cells for table in stale_tables(look, step, cell)[:1]}


def test_other_seeds_train_again_and_networks_can_be_left_out(networked):
    workspace, scores = networked[0], ("probe_predictions", ENCODER)
    kept = workspace.audit_yaml.read_text()
    fewer = with_probes(workspace, kinds=["logistic", "mlp"], networks=NETWORKS | {"seeds": 1})
    assert stale(fewer, ("neural_fits",)) == {("neural_fits", ENCODER)}
    assert stale(fewer, ("probe_fits",)) == set()
    none = with_probes(workspace, kinds=["logistic"])
    assert stale(none, ("neural_fits",)) == stale(none, ("probe_fits",)) == set()
    assert scores in stale(none, ("probe_predictions", "fairness"))
    workspace.audit_yaml.write_text(kept)
    assert stale(open_workspace(workspace.audit_yaml), ("probe_predictions", "fairness")) == set()


def test_encoders_of_the_same_weights_with_another_view_are_compared():
    spec = load_spec(shipped_specs()[ENCODER])
    other = spec.model_copy(update={"name": "lung", "view": View(windows=("lung", "lung", "lung"), size_px=224)})
    control = load_spec(shipped_specs()["hu_histogram"])
    assert another_view(spec, other)
    assert another_view(other, spec)
    assert not another_view(spec, spec.model_copy(update={"name": "again"}))
    assert not another_view(spec, load_spec(shipped_specs()["efficientnet_lite1"]))
    assert not another_view(control, control.model_copy(update={"view": View(values="int16", stride=2)}))
