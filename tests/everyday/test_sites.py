"""A probe exported and tried again, and summaries of sites, on a whole small audit: the same numbers, and no identifier."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import jsonschema
import numpy as np
import polars as pl
import pytest

from fmaudit_core.pipeline.snapshot import Snapshot, snapshot_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.sites import export_probe as exporting
from fmaudit_core.sites.apply_probe import RECHOSEN, score_file, score_workspace
from fmaudit_core.sites.document import _sha256
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.export_summary import export_summary
from fmaudit_core.sites.pooling import pool
from fmaudit_core.sites.probe_file import ProbeFile
from fmaudit_core.sites.summary_file import SiteSummary
from fmaudit_core.storage.warehouse import Cell
from tests.everyday.cohorts import PLANTED, studies
from tests.everyday.test_identifiers import call, leaks


@pytest.fixture(scope="module")
def audit(planted):
    assert planted[1].returncode == 0, planted[1].stderr
    return planted[0]


@pytest.fixture(scope="module")
def probe_path(audit, tmp_path_factory):
    path = tmp_path_factory.mktemp("probe") / "probe.json"
    said = call("-c", audit / "audit.yaml", "export", "probe", "--encoder", "theirs", "--task", "pe", "--labels", "code",
                "--out", path)  # fmt: skip
    assert said.exit_code == 0, said.output
    assert said.output.strip() == str(path)
    return path


@pytest.fixture(scope="module")
def probe(probe_path):
    return ProbeFile.read(probe_path)


@pytest.fixture(scope="module")
def applied(audit, probe_path, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "applied"
    said = call("-c", audit / "audit.yaml", "apply", "probe", probe_path, "--out", out)
    assert said.exit_code == 0, said.output
    return out, said.output


def look_at(audit):
    return snapshot_of(open_workspace(audit / "audit.yaml"))


def by_group(folder, encoder):
    rows = json.loads((folder / "audit.json").read_text())["subgroup_metrics"]
    keys = ("attribute", "subgroup", "metric")
    return {tuple(row[key] for key in keys): row["value"] for row in rows if row["encoder"] == encoder}


def test_a_probe_fits_its_schema_and_tells_what_it_was_made_from(probe_path, probe):
    content, schema = (json.loads(one.read_text()) for one in (probe_path, probe_path.with_suffix(".schema.json")))
    jsonschema.validate(content, schema)
    assert probe.encoder.model_dump() == {"name": "theirs", "digest": None, "dim": 8}
    assert probe.task.labels == "code"
    assert [one.policy for one in probe.thresholds] == ["fixed_fpr", "fixed_sensitivity", "youden"]
    assert probe.threshold().target == 0.2
    assert probe.threshold("youden").target is None
    assert probe.counts.n_train > 10 * 8


def test_training_studies_beyond_the_cap_are_not_counted(audit):
    workspace = open_workspace(audit / "audit.yaml")
    probes = workspace.audit.probes.model_copy(update={"max_training": 200})
    capped = replace(workspace, audit=workspace.audit.model_copy(update={"probes": probes}))
    train = capped.probed_studies().filter(split="train")
    assert train.height <= 200 < workspace.probed_studies().filter(split="train").height
    fit = exporting.chosen_fit(capped, "theirs", "pe") | {"n_train": train.height}
    counts = exporting._chosen_on_validation(capped, Cell("theirs", "pe"), fit)["counts"]
    positive = capped.warehouse.read("labels").filter(task="pe").join(train, on="study_id", how="semi")["label"].sum()
    assert (counts.n_train, counts.n_train_positive) == (train.height, positive)


def test_a_probe_at_home_gives_the_scores_thresholds_and_numbers_of_its_own_audit(audit, probe, applied):
    look = look_at(audit)
    scored = score_workspace(look, probe)
    own = look.workspace.warehouse.read_cells("probe_predictions", look.audited_cells()).filter(
        probe="logistic", modality="ct", pooling=probe.pooling
    )
    both = own.join(scored.frame.filter(encoder="theirs"), on="study_id", suffix="_here")
    assert both.height == own.height == scored.n_studies
    assert np.allclose(both["y_score"], both["y_score_here"], atol=1e-12, rtol=0)
    assert both["threshold"].unique().to_list() == [probe.threshold().value]
    out, _ = applied
    published = by_group(audit / ".fmaudit/reports", "theirs")
    assert by_group(out, "theirs") == pytest.approx(published, nan_ok=True)
    assert by_group(out, "theirs" + RECHOSEN) == pytest.approx(published, nan_ok=True)


def test_training_studies_are_evaluated_on_request(audit, probe):
    look = look_at(audit)
    usual, more = (score_workspace(look, probe, with_train=one) for one in (False, True))
    assert usual.frame["split"].unique().sort().to_list() == ["test", "val"]
    assert more.n_studies - usual.n_studies == look.workspace.warehouse.read("studies").filter(split="train").height


def test_a_file_of_embeddings_and_a_table_give_the_same_scores(audit, probe, tmp_path):
    table = studies().with_columns(
        split=pl.when(pl.col("age") < 30).then(pl.lit("Validation")).otherwise(pl.lit("test"))
    )
    first = table.head(405).with_row_index().with_columns(pe=pl.when(pl.col("index") >= 400).then(None).otherwise("pe"))
    first.drop("index").write_csv(tmp_path / "table.csv")
    scored = score_file(
        probe, audit / "theirs.npz", tmp_path / "table.csv", encoder="theirs", label="pe", attributes=["sex"]
    )
    assert (scored.n_studies, scored.n_without_label, scored.n_without_embedding, scored.n_without_row) == (
        400,
        5,
        0,
        195,
    )
    own = score_workspace(look_at(audit), probe, with_train=True).frame.filter(encoder="theirs")
    both = own.join(scored.frame.filter(encoder="theirs"), on="study_id", suffix="_here")
    assert both.height == 400
    assert np.allclose(both["y_score"], both["y_score_here"], atol=1e-9, rtol=0)
    assert scored.frame["encoder"].unique().sort().to_list() == ["theirs", "theirs" + RECHOSEN]


def test_without_a_split_every_study_is_evaluated_with_the_brought_threshold_alone(audit, probe_path, tmp_path):
    studies().write_csv(tmp_path / "table.csv")
    out = tmp_path / "here"
    said = call("apply", "probe", probe_path, "--embeddings", audit / "theirs.npz", "--table", tmp_path / "table.csv",
                "--label", "pe", "--attributes", "sex", "--encoder", "theirs", "--policy", "youden", "--out", out)  # fmt: skip
    assert said.exit_code == 0, said.output
    assert "Studies scored: 600. Not scored, without a label: 0, without an embedding: 0." in said.output
    summary = json.loads((out / "audit.json").read_text())
    assert {row["encoder"] for row in summary["subgroup_metrics"]} == {"theirs"}
    assert summary["config"]["fairness"]["threshold_policy"] == "youden"
    assert "given" in summary["operating_threshold"]


def changed(path, target, change):
    """The file of a probe, changed and signed again."""
    content = json.loads(path.read_text())
    change(content)
    content["content_sha256"] = _sha256(content)
    target.write_text(json.dumps(content))
    return ProbeFile.read(target)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder_differs", lambda one: one["encoder"].update(name="ours")),
        ("encoder_differs", lambda one: one["encoder"].update(digest="0" * 32)),
        ("task_differs", lambda one: one["task"].update(name="PE")),
        ("pooling_differs", lambda one: one.update(pooling="median")),
        (
            "dimension_differs",
            lambda one: (one["encoder"].update(dim=7), one.update(coefficients=one["coefficients"][:7])),
        ),
    ],
    ids=["name", "digest", "task", "pooling", "dimension"],
)
def test_a_probe_that_does_not_fit_is_refused_by_name(audit, probe_path, tmp_path, name, change):
    with pytest.raises(SiteError) as found:
        score_workspace(look_at(audit), changed(probe_path, tmp_path / "probe.json", change))
    assert found.value.name == name


def test_embeddings_of_an_earlier_spec_are_refused(audit, probe):
    look = look_at(audit)
    changed_spec = look.encoders["theirs"].model_copy(update={"dtype": "float16"})
    look = Snapshot(look.workspace, {"theirs": changed_spec})
    with pytest.raises(SiteError, match="encoder_differs: the embeddings of theirs here are of an earlier spec"):
        score_workspace(look, probe)


def test_files_that_do_not_fit_the_probe_are_refused_by_name(audit, probe, probe_path, tmp_path):
    studies().write_csv(tmp_path / "table.csv")
    with pytest.raises(SiteError, match="encoder_differs: the probe is of the encoder theirs, not ours"):
        score_file(probe, audit / "theirs.npz", tmp_path / "table.csv", encoder="ours", label="pe", attributes=["sex"])
    np.savez(tmp_path / "short.npz", study_id=studies()["study_id"].to_numpy().astype(str), embedding=np.ones((600, 5)))
    with pytest.raises(SiteError, match=r"dimension_differs: the embeddings have 5 dimensions, .* 8 coefficients"):
        score_file(
            probe, tmp_path / "short.npz", tmp_path / "table.csv", encoder="theirs", label="pe", attributes=["sex"]
        )
    np.savez(tmp_path / "others.npz", study_id=np.array(["a", "b"]), embedding=np.eye(2, 8))
    with pytest.raises(SiteError, match=r"no_common_studies: none of the 600 studies .* the 2 embeddings"):
        score_file(
            probe, tmp_path / "others.npz", tmp_path / "table.csv", encoder="theirs", label="pe", attributes=["sex"]
        )
    said = call("apply", "probe", probe_path, "--embeddings", audit / "theirs.npz", "--table", tmp_path / "table.csv",
                "--encoder", "theirs", "--attributes", "sex", "--label", "PE_", "--out", tmp_path / "x")  # fmt: skip
    assert said.exit_code == 2
    assert "there is no column PE_ (did you mean pe?)" in " ".join(said.output.split())
    assert call("apply", "probe", probe_path, "--table", tmp_path / "table.csv").exit_code == 2


def test_a_probe_of_few_studies_per_dimension_is_refused_unless_accepted(audit, monkeypatch):
    look = look_at(audit)
    monkeypatch.setattr(exporting, "LEAST_PER_DIMENSION", 1_000)
    with pytest.raises(SiteError, match=r"membership_leak: .* for 8 dimensions are fewer than 1000"):
        exporting.export_probe(look, "theirs", "pe", labels="code")
    assert exporting.export_probe(look, "theirs", "pe", labels="code", accept_membership_leak=True).pooling == "given"


def test_an_unknown_encoder_or_task_is_named(audit):
    for options, message in (
        (("--encoder", "their", "--task", "pe"), "called their (did you mean theirs?)"),
        (("--encoder", "theirs", "--task", "pes"), "no task pes (did you mean pe?)"),
    ):
        said = call("-c", audit / "audit.yaml", "export", "probe", *options, "--labels", "code")
        assert said.exit_code == 2
        assert message in " ".join(said.output.split())


# -- summaries


@pytest.fixture(scope="module")
def home(audit):
    return export_summary(audit, site="home", labels="code")


def test_a_workspace_and_an_applied_probe_at_home_have_the_same_summary(audit, home, applied):
    elsewhere = export_summary(applied[0], site="home", labels="code")
    assert {one.encoder for one in elsewhere.models} == {"theirs", "theirs" + RECHOSEN}
    of_probe = [one for one in elsewhere.comparisons if one.encoder == "theirs"]
    assert of_probe == list(home.comparisons)
    mine, theirs = home.model("theirs", "pe"), elsewhere.model("theirs", "pe")
    assert mine.probe == theirs.probe is not None
    assert (mine.policy, mine.target) == (theirs.policy, theirs.target) == ("fixed_fpr", 0.2)
    assert mine.threshold == theirs.threshold


def test_the_small_subgroup_is_in_no_summary(home):
    of_race = [one for one in home.comparisons if one.attribute == "race_ethnicity"]
    assert of_race
    assert home.site.withholds
    for one in of_race:
        assert one.counts == "rounded"
        assert [row.subgroup for row in one.subgroups] == ["a", "b", "c"]
        assert all(row.n % 10 == 0 and row.value == round(row.value, 2) for row in one.subgroups)


def test_the_same_cohort_twice_is_suspected(home):
    twice = home.model_copy(update={"site": home.site.model_copy(update={"name": "elsewhere"})})
    with pytest.raises(SiteError, match="same_patients_possible: home and elsewhere have equal counts"):
        pool([home, twice])


def test_a_report_that_is_not_of_the_predictions_is_refused(applied, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(applied[0], folder)
    table = pl.read_parquet(folder / "site_estimates.parquet")
    table.with_columns(pl.col("value") * 0.5).write_parquet(folder / "site_estimates.parquet")
    with pytest.raises(SiteError, match="audit_older: the report is not of these predictions"):
        export_summary(folder, site="x", labels="code")
    table.drop("n").write_parquet(folder / "site_estimates.parquet")
    with pytest.raises(SiteError, match="audit_older: has other columns"):
        export_summary(folder, site="x", labels="code")
    (folder / "site_estimates.parquet").unlink()
    with pytest.raises(SiteError, match=r"audit_older: has no site_estimates.parquet"):
        export_summary(folder, site="x", labels="code")


def test_no_file_that_is_shared_and_no_message_holds_an_id(audit, applied, probe_path, tmp_path):
    out, said = applied
    for site in ("home", "away"):
        found = call("-c", audit / "audit.yaml", "export", "summary", "--site", site, "--labels", "code",
                     "--out", tmp_path / f"{site}.json")  # fmt: skip
        assert found.exit_code == 0, found.output
        assert not leaks(found.output)
    pooled = call("pool", tmp_path / "home.json", tmp_path / "away.json", "--accept", "same_patients_possible",
                  "--out", tmp_path / "pooled")  # fmt: skip
    assert pooled.exit_code == 0, pooled.output
    assert SiteSummary.read(tmp_path / "home.json").site.name == "home"
    files = [path for top in (out, probe_path.parent, tmp_path) for path in top.rglob("*") if path.is_file()]
    assert {"index.html", "pooled.json", "home.json", "probe.json", "site_estimates.parquet"} <= {
        one.name for one in files
    }
    leaking = [path.name for path in files if leaks(path.read_bytes())]
    assert not leaking
    assert not leaks(said + pooled.output)
    scores = out.with_name("applied.predictions.parquet")
    assert pl.read_parquet(scores)["study_id"][0].startswith(PLANTED[0])
    assert str(scores) in said
