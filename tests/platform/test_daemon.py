"""A running `fmaudit ui`: what lands in the registry is audited by itself, once, whoever is killed and whatever lies beside."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress

import dagster as dg
import psutil
import pytest
import yaml

from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import FAIRNESS_TABLES, step_of
from fmaudit_core.pipeline.versions import is_fresh
from fmaudit_core.storage.warehouse import Cell
from fmaudit_dagster.execution.instance import prepare
from fmaudit_dagster.metadata import EMPTY
from tests.platform.conftest import EXPLORED, SMALL, made, run, write_audit
from tests.platform.dagster_ui import backfilled, browser_page, keep_picture, materialize_everything, wait_for
from tests.platform.test_ui import answering, ask, free_port

pytestmark = pytest.mark.timeout(600)
#: takes minutes more: `make test-daemon`
long = pytest.mark.daemon
WHOLE_ENCODER = ("study_embeddings", "probe_fits", "fusion_fits")
CHAIN = {*WHOLE_ENCODER, "probe_predictions", *FAIRNESS_TABLES, *EXPLORED}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """An audited workspace of one encoder, and the address of its UI; what its servers say goes to a file."""
    workspace = write_audit(tmp_path_factory.mktemp("landing"), automation={"landing_interval_s": 1}, **SMALL)
    (workspace.audit.encoders / "efficientnet_lite0.yaml").unlink()
    assert run(workspace).failures == {}
    with serving(workspace) as address:
        yield workspace, address


@pytest.fixture(scope="module")
def landing(served):
    """The same workspace alone."""
    return served[0]


@contextmanager
def serving(workspace):
    """The address of a workspace's UI while its servers are at work."""
    port = free_port()
    with server(workspace, port) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            answering(process, address)
            yield address
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=40)


@contextmanager
def server(workspace, port):
    command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(workspace.audit_yaml), "ui"]
    with (
        (workspace.home / "said.log").open("ab") as said,
        subprocess.Popen([*command, "--port", str(port)], stdout=said, stderr=said) as process,
    ):
        yield process


def said(workspace):
    return (workspace.home / "said.log").read_text()


def land(workspace, shipped, name, **changes):
    """Drop a spec into the registry in one rename, as a copy that is whole or not there would be."""
    spec = yaml.safe_load(shipped_specs()[shipped].read_text()) | {"name": name, "control": False} | changes
    if shipped == "efficientnet_lite0":  # of small pictures, to be quick
        spec["view"] = spec["view"] | {"size_px": 64}
        spec["input"] = spec["input"] | {"size_px": 64}
    beside = workspace.audit.encoders / f".{name}"
    beside.write_text(yaml.safe_dump(spec))
    beside.rename(workspace.audit.encoders / f"{name}.yaml")


def weights(workspace, name, scale):
    """A checkpoint of the shipped network, its first layer scaled, and how a spec names it."""
    import torch

    source = load_spec(shipped_specs()["efficientnet_lite0"]).weights.verified()
    state = torch.load(source, weights_only=True)
    first = next(iter(state))
    state[first] = state[first] * scale
    path = workspace.home / name
    torch.save(state, path)
    return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def audited(workspace):
    return set(workspace.warehouse.read("audit_findings")["encoder"])


def in_findings(workspace, *names):
    """Whether the report shows these encoders, and what it was made of is fresh."""

    def there():
        look = snapshot_of(workspace)
        if set(names) != audited(workspace):
            return False
        cells = [Cell(name, "pe") for name in names]
        steps = [
            (step_of(name), cell)
            for name in ("fairness", "probe_fits", "audit_findings", "audit_report")
            for cell in cells
        ]
        return all(is_fresh(look, step, step.by.cell(cell)) for step, cell in steps)

    return there


def materialized(workspace):
    """How often each asset, partition and version was made."""
    with dg.DagsterInstance.get() as instance:
        records = [
            (key.to_user_string(), one.partition_key, one.asset_materialization.tags["dagster/data_version"])
            for key in instance.all_asset_keys()
            for one in instance.fetch_materializations(dg.AssetRecordsFilter(asset_key=key), limit=500).records
            if one.asset_materialization.tags["dagster/data_version"] != EMPTY  # there was nothing to make
        ]
    return Counter(records)


def made_since(workspace, before):
    """What was made, and that nothing was made twice."""
    made = materialized(workspace) - before
    assert max(made.values()) == 1, {key: n for key, n in made.items() if n > 1}
    return {(asset, partition) for asset, partition, _ in made}


def of_encoder(name):
    return {(asset, name if asset in WHOLE_ENCODER else f"{name}|pe") for asset in CHAIN}


WHOLE = {("audit_findings", None), ("audit_report", None)}


def test_a_spec_that_lands_is_audited_whatever_else_is_in_the_registry(landing):
    before = materialized(landing)
    (landing.audit.encoders / "broken.yaml").write_text("{")
    land(landing, "hu_histogram", "failing", dim=81)
    land(landing, "hu_histogram", "second", variant="second")
    wait_for(in_findings(landing, "hu_histogram", "second"))
    assert made_since(landing, before) == of_encoder("second") | WHOLE
    assert landing.warehouse.read("unaudited").rows() == [("failing", "pe", "embeddings")]
    assert '"without findings: failing": "no embeddings for pe"' in (landing.reports / "audit.json").read_text()
    wait_for(lambda: "study_embeddings/failing is passed over" in said(landing))
    time.sleep(6)  # some more looks at the registry
    for name in ("broken.yaml", "study_embeddings/failing"):
        assert said(landing).count(f"{name} is passed over") == 1, name


LAUNCH_BACKFILL = """
mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on PythonError { message }
  }
}
"""


def test_a_backfill_is_a_run_for_each_range_of_partitions_with_a_record_for_each_of_them(served):
    landing, address = served
    before, keys = materialized(landing), [f"{name}|pe" for name in sorted(audited(landing))]
    assert len(keys) == 2
    stamps = [landing.warehouse.path("subgroup_metrics", Cell(*key.split("|"))).stat().st_mtime_ns for key in keys]
    assets = [{"path": [name]} for name in ("probe_predictions", *FAIRNESS_TABLES)]
    with backfilled() as outcome:
        launched = ask(address, LAUNCH_BACKFILL, params={"assetSelection": assets, "partitionNames": keys})
        assert launched["launchPartitionBackfill"]["__typename"] == "LaunchBackfillSuccess", launched
    assert outcome["ended"] == "COMPLETED_SUCCESS"
    # nine assets of two partitions: two ranges, as the encoder that failed lies between the two
    assert [run.status for run in outcome["runs"]] == [dg.DagsterRunStatus.SUCCESS] * 2
    made = materialized(landing) - before
    assert set(made.values()) == {1}
    assert {(asset, key) for asset, key, _ in made} == {
        (asset, key) for asset in ("probe_predictions", *FAIRNESS_TABLES) for key in keys
    }
    again = [landing.warehouse.path("subgroup_metrics", Cell(*key.split("|"))).stat().st_mtime_ns for key in keys]
    assert all(new > old for new, old in zip(again, stamps, strict=True))


@long
def test_two_encoders_that_land_at_once_take_turns(landing):
    before, first, others = materialized(landing), weights(landing, "first.pt", 1.0), audited(landing)
    for name in ("one", "two"):
        land(landing, "efficientnet_lite0", name, weights=first)
    wait_for(in_findings(landing, *others, "one", "two"))
    assert made_since(landing, before) == of_encoder("one") | of_encoder("two") | WHOLE | {
        ("acquisition", None),
        ("ct_slices", None),
    }
    took_turns("one", "two")


def took_turns(*names):
    """The runs of these encoders waited for each other: none encoded while another did."""
    spans = []
    with dg.DagsterInstance.get() as instance:
        for name in names:
            (record,) = instance.get_run_records(dg.RunsFilter(tags={"fmaudit/step": f"study_embeddings/{name}"}))
            (stats,) = instance.get_run_step_stats(record.dagster_run.run_id, step_keys=["study_embeddings"])
            spans.append((stats.start_time, stats.end_time, record.create_timestamp.timestamp()))
    (_, first_ends, _), (second_starts, _, second_asked) = sorted(spans)
    assert second_asked < first_ends  # it could have begun
    assert second_starts >= first_ends


@long
def test_changed_weights_are_audited_again_with_what_descends_from_them_and_compared(landing):
    before = materialized(landing)
    land(landing, "efficientnet_lite0", "one", weights=weights(landing, "second.pt", 0.2))
    wait_for(in_findings(landing, "hu_histogram", "second", "one", "two"))
    assert made_since(landing, before) == of_encoder("one") | WHOLE
    changes = landing.warehouse.read("audit_changes")
    assert set(changes["encoder"]) == {"one"}
    overall = changes.filter(attribute="overall", metric="auroc").row(0, named=True)
    assert overall["value"] != overall["previous_value"]
    assert landing.warehouse.version("previous_predictions", Cell("two", "pe")) is None


def test_killed_in_the_middle_nothing_is_lost_and_nothing_doubled(landing):
    before, others = materialized(landing), audited(landing)
    embeddings = landing.warehouse.embeddings_path("third")
    land(landing, "hu_histogram", "third", variant="third")
    wait_for(lambda: (landing.home / "extraction" / "third").exists() or embeddings.exists())
    ours = [one for one in psutil.process_iter() if serves(one, landing)]
    assert len(ours) >= 3  # the daemon, its code server, the run
    for process in ours:
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGKILL)
    with serving(landing):
        wait_for(in_findings(landing, *others, "third"))
    assert made_since(landing, before) == of_encoder("third") | WHOLE


def serves(process, workspace):
    """Whether a process is one of this workspace's servers or their runs."""
    try:
        return (
            process.pid != os.getpid()
            and process.environ().get("FMAUDIT_CONFIG") == str(workspace.audit_yaml)
            and any("dagster" in part or "multiprocessing" in part for part in process.cmdline())
        )
    except psutil.Error:
        return False


@long
def test_a_command_line_beside_the_daemon_makes_nothing_twice_and_a_retired_encoder_keeps_its_results(landing):
    with serving(landing):
        before = materialized(landing)
        (landing.audit.encoders / "two.yaml").unlink()
        land(landing, "efficientnet_lite0", "one", weights=weights(landing, "fourth.pt", 0.7))
        command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(landing.audit_yaml), "run"]
        beside = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "Failed: study_embeddings (failing)" in beside.stderr
        wait_for(in_findings(landing, "hu_histogram", "second", "one", "third"))
        made = made_since(landing, before)
        assert of_encoder("one") | WHOLE == made
        with dg.DagsterInstance.get() as instance:
            assert "two" not in instance.get_dynamic_partitions("encoder")
        assert landing.warehouse.version("fairness_gaps", Cell("two", "pe")) is not None
        assert '"retired encoders, results kept": "two"' in (landing.reports / "audit.json").read_text()


@pytest.fixture
def empty(tmp_path):
    """A workspace in which nothing was made yet, and its UI; what lands is left alone."""
    workspace = write_audit(
        tmp_path,
        automation={"landing": False, "reaudit": False},
        probes={"c_grid": [0.01, 1.0], "poolings": ["mean"]},
        mitigation={"enabled": False},
        cohort={"kind": "phantom", "n_studies": 120, "n_slices": 4, "matrix_px": 64},
    )
    prepare(workspace)  # which also makes its folder
    with serving(workspace) as address:
        yield workspace, address


@long
@pytest.mark.browser
def test_everything_is_made_from_the_page_of_an_empty_workspace_by_a_few_runs(empty, chromium):
    workspace, address = empty
    with browser_page(chromium) as page:
        with backfilled() as outcome:
            materialize_everything(page, address)
        page.goto(f"{address}/assets/subgroup_metrics?view=partitions")
        page.get_by_text("Materialized (4)").wait_for()
        page.get_by_text("Failed (0)").wait_for()
        keep_picture(page, "everything")
    runs = outcome["runs"]
    assert outcome["ended"] == "COMPLETED_SUCCESS"
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    # sources, encoders, their probes, cells by task, findings; what is ready early goes ahead
    assert len(runs) <= 10
    assert (workspace.reports / "index.html").stat().st_size > 100_000
    with dg.DagsterInstance.get() as instance:
        for asset in ("study_embeddings", "neural_fits"):
            assert len(instance.get_materialized_partitions(dg.AssetKey(asset))) == 2
        assert len(instance.get_materialized_partitions(dg.AssetKey("subgroup_metrics"))) == 4
    assert made(run(workspace)) == []
