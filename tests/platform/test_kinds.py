"""Encoders of whole volumes and embeddings computed elsewhere, beside those of slices, through the whole graph."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil

import numpy as np
import polars as pl
import pytest
import timm
import yaml

from fmaudit_core.encoders import adapter
from fmaudit_core.encoders.embeddings_reader import read_poolings, read_provenance
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES, step_of
from fmaudit_core.pipeline.versions import expected_version
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.warehouse import WHOLE, Cell
from tests.encoders.checkpoints import randomise, save_safetensors
from tests.encoders.test_exported import Volumes, of_volumes
from tests.platform.conftest import AUDIT, EXPLORED, made, reconfigured, run, write_audit


class Blocks:
    """A volume encoder without weights: the volume itself, its values in 1000 HU."""

    device = "cpu"

    def encode(self, volumes):
        return volumes.reshape(len(volumes), -1).astype(np.float32) / 1000


@pytest.fixture
def blocks(monkeypatch):
    """A third party's adapter, as its entry point would bring it."""
    point = importlib.metadata.EntryPoint(name="blocks", group=adapter.ENTRY_POINT_GROUP, value="x:y")
    monkeypatch.setattr(type(point), "load", lambda self: lambda spec, device: Blocks())
    monkeypatch.setattr(adapter, "entry_points", lambda group: [point])
    return {
        "name": "blocks",
        "title": "Blocks of a volume",
        "adapter": "blocks",
        "dim": 4 * 8 * 8,
        "view": {"values": "int16", "volume": {"shape_zyx": [4, 8, 8], "orientation": "RAS", "crop_above_hu": -1000}},
    }


def imported(workspace, vectors, ids=None):
    """Put a file of embeddings and its spec into a registry."""
    ids = workspace.warehouse.read("studies")["study_id"].to_list() if ids is None else ids
    file = workspace.audit.encoders / "theirs.npz"
    np.savez(file, study_id=np.array(ids), embedding=vectors)
    spec = {
        "name": "theirs",
        "adapter": "imported",
        "dim": vectors.shape[1],
        "embeddings": {"path": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()},
    }
    (workspace.audit.encoders / "theirs.yaml").write_text(yaml.safe_dump(spec))


def descendants(encoder):
    by_task = ("probe_predictions", *FAIRNESS_TABLES, *EXPLORED)
    whole = ("study_embeddings", "probe_fits", "fusion_fits")
    return {f"{asset} {Cell(encoder, 'pe')}" for asset in by_task} | {f"{asset} {Cell(encoder)}" for asset in whole}


def mitigations(encoder):
    whole = {f"{asset} {Cell(encoder)}" for asset in ("demographic_probes", "mitigation_scores")}
    return whole | {f"mitigation_results {Cell(encoder, 'pe')}"}


ENDS = {f"{asset} {WHOLE}" for asset in ("mitigation_capacity", "audit_findings", "audit_report")}


def test_volumes_and_imports_are_audited_beside_the_others(small, blocks):
    (small.audit.encoders / "blocks.yaml").write_text(yaml.safe_dump(blocks))
    workspace = reconfigured(small, mitigation=AUDIT["mitigation"])
    vectors = np.random.default_rng(0).normal(size=(120, 5))
    ids = workspace.warehouse.read("studies")["study_id"].to_list()
    imported(workspace, vectors[:119], ids[:119])
    outcome = run(workspace)
    assert outcome.failures == {}
    # the headers were read again and are as before: what reads them is as it was for the other encoder
    assert set(made(outcome)) == descendants("blocks") | descendants("theirs") | ENDS | {
        f"acquisition {WHOLE}",
        f"ct_slices {WHOLE}",
    }.union(*map(mitigations, ("blocks", "hu_histogram", "theirs")))
    warehouse = workspace.warehouse
    assert read_poolings(warehouse.embeddings_path("blocks")) == ["volume"]
    assert read_poolings(warehouse.embeddings_path("theirs")) == ["given"]
    told = read_provenance(warehouse.embeddings_path("theirs"))
    assert (told["n_studies"], told["n_failed"]) == ("119", "1")

    findings = warehouse.read("audit_findings")
    family = findings.filter("confirmatory").select("encoder", "pooling").unique().rows()
    assert set(family) == {("blocks", "volume"), ("theirs", "given")}
    pairs = warehouse.read("model_comparisons").select("encoder", "other_encoder").unique().rows()
    assert len({frozenset(pair) for pair in pairs}) == 3  # three encoders, two and two
    page = (workspace.reports / "index.html").read_text()
    assert "Blocks of a volume" in page
    assert "whole volume" in page
    assert run(workspace).made == []

    imported(workspace, vectors + 1)
    assert set(made(run(workspace))) == descendants("theirs") | mitigations("theirs") | ENDS


def test_other_ct_leaves_imports_alone_and_other_studies_do_not(copied):
    imported(copied, np.random.default_rng(0).normal(size=(150, 5)))

    def versions():
        look = snapshot_of(copied)
        return look.view_versions(), expected_version(look, step_of("study_embeddings"), Cell("theirs"))

    slices, before = versions()
    for path in next(copied.table.images.iterdir()).iterdir():
        path.touch()
    assert versions()[0] != slices
    assert versions()[1] == before
    copied.warehouse.publish("studies", copied.warehouse.read("studies").head(149), version="fewer")
    assert versions()[1] != before


def test_without_ct_an_audit_of_imports_runs_whole_and_an_encoder_of_ct_is_told(audited, tmp_path):
    shutil.copyfile(audited[0].table.table, tmp_path / "studies.csv")
    raw = {key: value for key, value in AUDIT.items() if key != "cohort"}
    raw |= {"cohort": {"kind": "table", "table": "studies.csv"}, "mitigation": {"enabled": False}}
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
    (tmp_path / "encoders").mkdir()
    workspace = open_workspace(tmp_path / "audit.yaml")
    ids = audited[0].warehouse.read("studies")["study_id"].to_list()
    imported(workspace, np.random.default_rng(0).normal(size=(150, 5)), ids)
    outcome = run(workspace)
    assert outcome.failures == {}
    assert not any("ct_slices" in line for line in made(outcome))
    assert (workspace.reports / "index.html").stat().st_size > 100_000
    assert run(workspace).made == []

    shutil.copyfile(audited[0].audit.encoders / "hu_histogram.yaml", workspace.audit.encoders / "hu_histogram.yaml")
    with pytest.raises(Exception, match=r"names no CT, and some encoder looks at it"):
        run(workspace)


def test_ct_native_encoders_are_audited_from_exported_and_local_files(tmp_path):
    """A 3D network exported to TorchScript, of volumes and of patches, one of slices in HU, and one of three windows."""
    workspace = write_audit(
        tmp_path,
        cohort={"kind": "phantom", "n_studies": 80, "n_slices": 4, "matrix_px": 64},
        tasks=["pe"], mitigation={"enabled": False},
        probes={
            "kinds": ["logistic", "abmil", "lrcn"], "c_grid": [0.01, 1.0], "poolings": ["mean", "max"],
            "networks": {"seeds": 1, "epochs": 2, "components": 4},
        },
    )  # fmt: skip
    registry = workspace.audit.encoders
    (registry / "efficientnet_lite0.yaml").unlink()
    volumes = of_volumes(tmp_path, randomise(Volumes()).eval(), "torchscript").spec(name="volumes")
    hu = {
        "view": {"values": "int16"}, "options": {"in_chans": 1, "img_size": 32},
        "input": {"size_px": 32, "clip_hu": [-1000, 1000], "zscore": "study", "mean": [0.0], "std": [1.0]},
    }  # fmt: skip
    windows = {
        "view": {"windows": ["lung", {"centre_hu": 40, "width_hu": 350}, {"hu": [-135, 215]}]},
        "options": {"in_chans": 3, "img_size": 32},
        "input": {"size_px": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    raws = {"volumes": volumes.model_dump(mode="json", exclude_defaults=True)}
    grid = raws["volumes"]["view"]["volume"]
    cut = {"patch_zyx": grid["shape_zyx"], "shape_zyx": None, "multiple_of": [6, 8, 10], "spacing_zyx_mm": [25, 25, 25]}
    raws["patches"] = raws["volumes"] | {"view": {"values": "int16", "volume": grid | cut}}
    for name, raw in (("in_hu", hu), ("three_windows", windows)):
        network = randomise(timm.create_model("test_vit", pretrained=False, num_classes=0, **raw["options"]))
        path = tmp_path / f"{name}.safetensors"
        save_safetensors(dict(network.state_dict()), path)
        proof = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        raws[name] = raw | {"adapter": "timm", "variant": "test_vit", "dim": network.num_features, "weights": proof}
    for name, raw in raws.items():
        (registry / f"{name}.yaml").write_text(yaml.safe_dump(raw | {"name": name}))
    outcome = run(workspace)
    assert outcome.failures == {}
    warehouse = workspace.warehouse
    assert read_poolings(warehouse.embeddings_path("volumes")) == ["volume"]
    assert {read_provenance(warehouse.embeddings_path(name))["n_studies"] for name in raws} == {"80"}
    compared = warehouse.read("spatial_aggregation").filter(pl.col("auroc").is_not_null())
    by_encoder = {name: set(compared.filter(encoder=name)["aggregation"]) for name in raws}
    assert by_encoder["in_hu"] == {"mean", "max", "attention", "lrcn"}
    assert by_encoder["patches"] == {"mean", "max", "attention"}  # patches have no order for a recurrent network
    assert by_encoder["volumes"] == set()
    audited = set(warehouse.read("subgroup_metrics", Cell("in_hu", "pe"))["encoder"])
    assert audited == {"in_hu"}
    views = set(warehouse.read("ct_views")["windows"])
    assert "lung,40/350 HU,-135..215 HU" in views
