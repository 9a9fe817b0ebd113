"""`fmaudit ui` through a real browser: the graph, a materialised partition, and a run launched from the server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import dagster as dg
import pytest

from fmaudit_core.storage.warehouse import Cell
from tests.platform.conftest import copy_of
from tests.platform.dagster_ui import backfilled, browser_page, keep_picture, materialize_all_partitions

pytestmark = pytest.mark.browser
CELL = Cell("hu_histogram", "pe")

LAUNCH = """
mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def free_port():
    """A port that is free, as is the next one, where the report is served."""
    while True:
        with socket.socket() as probe, socket.socket() as following:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                following.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture(scope="module")
def served(audited, tmp_path_factory):
    """The UI of a copy of the audited workspace; ends with all its children."""
    from fmaudit_dagster.execution.instance import prepare

    copied = copy_of(audited[0], tmp_path_factory.mktemp("served"))
    prepare(copied)
    port = free_port()
    command = [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(copied.audit_yaml), "ui", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        answering(process, address)
        yield copied, address
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=40) == 0
    for one in (port, port + 1):  # nothing is left listening
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", one)) != 0


def answering(process, address):
    """Wait until a server of the UI answers."""
    deadline = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(f"{address}/server_info", timeout=2).read()
            return
        except OSError:
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.3)


def ask(address, query, **variables):
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})
    return json.loads(urllib.request.urlopen(request, timeout=60).read())["data"]


def test_the_graph_and_a_partition_are_shown_and_a_run_from_the_server_makes_the_same_rows(served, chromium):
    workspace, address = served
    with browser_page(chromium) as page:
        page.goto(f"{address}/asset-groups")
        for group in ("cohort", "imaging", "embeddings", "probes", "fairness", "report"):
            page.get_by_text(group, exact=True).first.wait_for()
        page.goto(f"{address}/assets/audit_report?view=lineage&lineageScope=upstream&lineageDepth=10")
        for asset in ("studies", "study_embeddings", "fairness_gaps", "audit_findings"):
            page.get_by_text(asset, exact=True).first.wait_for()
        page.goto(f"{address}/assets/fairness_gaps?view=partitions&partition={CELL.encoder}%7C{CELL.task}")
        page.get_by_text("dagster/row_count").first.wait_for()
        assert page.get_by_text("Materialized", exact=True).count()
        keep_picture(page, "partition")
        port = int(address.rsplit(":", 1)[1]) + 1
        page.goto(f"http://127.0.0.1:{port}/index.html")  # the report, where the UI's links lead
        page.locator("#summary").wait_for()

    before = workspace.warehouse.read("fairness_gaps", CELL)
    path = workspace.warehouse.path("fairness_gaps", CELL)
    stamp = path.stat().st_mtime_ns
    params = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "fmaudit_dagster.definitions",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": ["fairness_gaps"]}],
            "assetCheckSelection": [],
        },
        "mode": "default",
        "executionMetadata": {
            "tags": [
                {"key": "dagster/partition/encoder", "value": CELL.encoder},
                {"key": "dagster/partition/task", "value": CELL.task},
                {"key": "dagster/partition", "value": f"{CELL.encoder}|{CELL.task}"},
            ]
        },
    }
    launched = ask(address, LAUNCH, params=params)["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    deadline = time.monotonic() + 120
    while (status := ask(address, STATUS, id=launched["run"]["runId"])["runOrError"]["status"]) != "SUCCESS":
        assert status not in ("FAILURE", "CANCELED")
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert path.stat().st_mtime_ns > stamp
    assert workspace.warehouse.read("fairness_gaps", CELL).equals(before)


def test_all_partitions_of_an_asset_are_made_from_its_page_by_a_run_for_each_encoder(served, chromium):
    workspace, address = served
    cells = workspace.warehouse.cells("subgroup_metrics")
    assert len(cells) == 4
    stamps = {cell: workspace.warehouse.path("subgroup_metrics", cell).stat().st_mtime_ns for cell in cells}
    with browser_page(chromium) as page:
        with backfilled() as outcome:
            materialize_all_partitions(page, address, "subgroup_metrics")
        page.goto(f"{address}/assets/subgroup_metrics?view=partitions")
        page.get_by_text("Materialized (4)").wait_for()
        keep_picture(page, "partitions")
    assert outcome["ended"] == "COMPLETED_SUCCESS"
    assert [run.status for run in outcome["runs"]] == [dg.DagsterRunStatus.SUCCESS] * 2
    for cell, stamp in stamps.items():
        assert workspace.warehouse.path("subgroup_metrics", cell).stat().st_mtime_ns > stamp, cell
