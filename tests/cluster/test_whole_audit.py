"""A whole audit with nothing on one machine only: Ray on two nodes, images and results in SeaweedFS, Dagster in PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.config import PhantomCohort
from fmaudit_core.encoders.embeddings_reader import read_poolings, read_study_embeddings
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.bucket import Bucket
from tests.cluster import postgresql as database
from tests.cluster import ray_namespace
from tests.cluster.seaweedfs import ENDPOINT, KEY, SECRET
from tests.cluster.test_root_audit import OF_THE_RUN, command, in_bucket, joined, run
from tests.everyday.cohorts import FAST

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT, COHORT = "s3://audit/hospital/prod", "s3://audit/hospital/cohort"
PAGE = Path(__file__).parents[2] / "docs/how-to/cluster.md"


@pytest.fixture(scope="module")
def nodes(loopback):
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'fmaudit[ray]'")
    with ray_namespace.cluster((), ()) as nodes:  # this thread is in a namespace
        yield nodes


def settings_of_dagster() -> str:
    """Return the dagster.yaml of the documentation."""
    found = re.search(r"```yaml\n(# dagster\.yaml\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def audits(seaweedfs, postgresql, nodes, tmp_path_factory):
    """The audit of a phantom on this machine, then on the cluster; and what the latter printed."""
    folder = tmp_path_factory.mktemp("whole")
    drawn = folder / "drawn"
    section = PhantomCohort(kind="phantom", n_studies=120, n_slices=4, matrix_px=64)
    write_phantom(drawn, section, tasks=("pe",), workers=1)
    registry = folder / "encoders"
    registry.mkdir()
    shutil.copyfile(shipped_specs()["hu_histogram"], registry / "hu_histogram.yaml")
    bucket = Bucket(COHORT, ENDPOINT)
    for path in (drawn / "studies.csv", *(drawn / "ct").rglob("*.dcm")):
        bucket.write(path.relative_to(drawn).as_posix(), path.read_bytes())
    events = {"kind": "table", "events": str(drawn / "ehr_events.parquet")}
    audit = {
        "name": "Hospital", "tasks": ["pe"], "encoders": str(registry), "imaging": {"values": "any", "workers": 1}, **FAST,
        "cohort": events | {"table": str(drawn / "studies.csv"), "images": str(drawn / "ct")},
    }  # fmt: skip
    compute = {
        "engine": "ray",
        "address": nodes.address,
        "encoders": 2,
        "gpus": 0,
        "slicing_cpus": 2,
        "shard_studies": 16,
    }
    on_cluster = audit | {
        "root": ROOT, "storage": {"endpoint": ENDPOINT}, "compute": compute,
        "cohort": events | {"table": f"{COHORT}/studies.csv", "images": f"{COHORT}/ct"},
    }  # fmt: skip
    configs = [folder / name / "audit.yaml" for name in ("laptop", "cluster")]
    for config, content in zip(configs, (audit, on_cluster), strict=True):
        config.parent.mkdir()
        config.write_text(yaml.safe_dump(content))
    dagster = configs[1].parent / ".fmaudit/dagster"
    dagster.mkdir(parents=True)
    (dagster / "dagster.yaml").write_text(settings_of_dagster())
    printed = [run(config) for config in configs]
    for ran in printed:
        assert ran.returncode == 0, joined(ran)
    return *configs, joined(printed[1])


def test_the_tables_are_those_of_a_laptop(audits):
    local, cluster = (open_workspace(config).warehouse for config in audits[:2])
    assert cluster.tables() == local.tables()
    assert {"fairness_gaps", "probe_predictions", "mitigation_results", "audit_findings", "slice_quality"} <= {
        *local.tables()
    }
    for table in local.tables():
        assert cluster.cells(table) == local.cells(table)
        for cell in local.cells(table) if table not in OF_THE_RUN else ():
            ours, theirs = local.read(table, cell), cluster.read(table, cell)
            # of the images: files have times, objects ETags
            others = ["version"] if table == "ct_views" else []
            assert theirs.drop(others).equals(ours.drop(others)), table
    paths = [warehouse.embeddings_path("hu_histogram") for warehouse in (local, cluster)]
    for pooling in read_poolings(paths[0]):
        (ids, ours), (their_ids, theirs) = (read_study_embeddings(path, pooling) for path in paths)
        assert ids == their_ids
        assert ours.tobytes() == theirs.tobytes()


def answer(postgresql, name, query):
    """Return the rows of an answer of a database."""
    return postgresql.client("psql", "--tuples-only", "--no-align", f"--command={query}", name).splitlines()


def test_runs_and_events_are_in_postgresql_and_not_on_the_disk(audits, postgresql):
    counted = [
        answer(postgresql, database.DATABASE, f"SELECT count(*) FROM {table}")[0]
        for table in ("runs WHERE status = 'SUCCESS'", "event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION'")
    ]
    assert all(int(number) > 10 for number in counted), counted
    laptop, cluster = ({path.suffix for path in (one.parent / ".fmaudit").rglob("*")} for one in audits[:2])
    assert ".db" in laptop
    assert not {".db", ".duckdb"} & cluster


def test_a_second_run_has_nothing_to_do(audits):
    assert "Everything is up to date" in run(audits[1]).stdout


def test_the_doctor_tries_every_server_of_the_cluster(audits):
    looked = subprocess.run(command(audits[1], "doctor", "--cluster"), capture_output=True, text=True, check=False)
    text = joined(looked)
    assert looked.returncode == 0, text
    for one in (f"{ROOT}: conditional puts work", "PostgreSQL ", "ray 2.", "2 nodes with 4 CPUs"):
        assert one in text
    assert "--fix" not in text  # which would put the runs on this disk


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DAGSTER_PG_PASSWORD": "hunter2hunter2"}, "password authentication failed"),
        (
            {"DAGSTER_PG_PASSWORD": None},
            "it reads DAGSTER_PG_PASSWORD from the environment, where no such variable is set",
        ),
    ],
    ids=["wrong", "unset"],
)
def test_a_database_that_does_not_serve_is_named_in_a_sentence(audits, changes, message):
    environment = {**os.environ, "COLUMNS": "200"} | {name: value for name, value in changes.items() if value}
    for name in [name for name, value in changes.items() if value is None]:
        environment.pop(name)
    ran = subprocess.run(
        command(audits[1], "run"), capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    text = joined(ran)
    assert ran.returncode == 1, text
    assert message in text
    assert "dagster.yaml" in text
    for hidden in ("Traceback", "hunter2", database.PASSWORD, "sqlalche.me", "Retrying"):
        assert hidden not in text


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_to_the_database_is_verified(postgresql, tmp_path, trusted):
    """The documentation's line for networks that are not trusted, with the server's own certificate and with another."""
    params = re.search(r"add `params: (\{.*?\})` to `postgres_db`", PAGE.read_text(encoding="utf-8"))
    assert params is not None
    settings = yaml.safe_load(settings_of_dagster())
    certificate = shutil.copyfile(postgresql.certificate, tmp_path / "root.crt")
    if not trusted:
        database.certify(certificate, tmp_path / "key")
    params = yaml.safe_load(params[1]) | {"sslrootcert": str(certificate)}
    assert params["sslmode"] == "verify-full"
    settings["storage"]["postgres"]["postgres_db"]["params"] = params
    config = tmp_path / "audit.yaml"
    config.write_text(yaml.safe_dump({"name": "Hospital", "cohort": {"kind": "phantom"}}))
    home = tmp_path / ".fmaudit/dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    environment = {**os.environ, "COLUMNS": "200"}
    ran = subprocess.run(
        command(config, "doctor"), capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    text = joined(ran)
    assert (re.search(r"PostgreSQL [\d.]+ can be reached with TLS", text) is not None) is trusted, text
    assert ("certificate verify failed" in text) is not trusted, text
    assert "Traceback" not in text
    assert database.PASSWORD not in text


def test_no_secret_is_in_a_file_an_object_a_row_or_the_output(audits, postgresql):
    config, printed = audits[1:]
    kept = [path.read_bytes() for path in config.parent.rglob("*") if path.is_file()]
    bucket = Bucket(ROOT, ENDPOINT)
    kept += [bucket.read(one.name) for one in bucket.list("")]
    kept += [postgresql.client("pg_dump", database.DATABASE).encode(), printed.encode()]
    assert b"CREATE TABLE" in kept[-2]
    assert not any(
        secret.encode() in content for content in kept for secret in (database.PASSWORD, SECRET, KEY, "X-Amz-")
    )


def test_no_server_listens_beyond_the_loopback_device(audits, nodes):
    """Every process of the three servers is in a namespace whose only device is `lo`."""
    of_servers = ("raylet", "gcs_server", "ray::", "/weed", "/postgres", "postgres: ")
    ours, seen = Path("/proc/thread-self/ns/net").readlink(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line, space = (folder / "cmdline").read_text(), (folder / "ns/net").readlink()
        except OSError:  # ended
            continue
        if space == ours:
            seen |= {one for one in of_servers if one in line}
            interfaces = (folder / "net/dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    assert {"raylet", "gcs_server", "/weed", "/postgres"} <= seen


#: a command line whose leases expire soon, and which stops in the middle of a step if it is asked to
MACHINE = """
import sys
from fmaudit_core.storage.leases import LeaseTimes
from fmaudit_dagster import run_leases
run_leases.TIMES = LeaseTimes(renew_s=0.2, expire_s=3.0, poll_s=0.1, watch_s=0.2)
from fmaudit_dagster.assets import probes
fit = probes.fit_encoder
def slow(*given, **options):
    print("fitting", flush=True)
    sys.stdin.read()
if sys.argv.pop(1) == "stops":
    probes.fit_encoder = slow
from fmaudit_dagster.cli.main import main
main()
"""


def machine(name, config, how):
    """Start `fmaudit run` with a host name, processes and a home of its own, as on another machine."""
    home = config.parent / name
    (home / "dagster").mkdir(parents=True)
    (home / "dagster/dagster.yaml").write_text(settings_of_dagster().replace("db_name: dagster", "db_name: machines"))
    spaces = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    shell = ("sh", "-c", f'hostname {name}; exec "$@"', "sh")
    return subprocess.Popen(
        [*spaces, *shell, sys.executable, "-c", MACHINE, how, "-c", str(config), "run", "--jobs", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=PAGE.parents[2],
        env={**os.environ, "FMAUDIT_HOME": str(home), "FMAUDIT_CONFIG": str(config)},
    )  # fmt: skip


def test_a_machine_that_dies_is_followed_by_another(seaweedfs, postgresql, tmp_path):
    """Its lease, its run and its place in the pool are freed by the one that waits. The real times: `test_run_leases.py`."""
    config = in_bucket(tmp_path, "s3://audit/machines")
    postgresql.client("createdb", "machines")
    with machine("node-1", config, "stops") as first:
        while (line := first.stdout.readline()) != "fitting\n":
            assert line, "it ended before"
        with machine("node-2", config, "goes on") as second:
            time.sleep(2)  # it waits for the first meanwhile
            first.kill()
            text = " ".join(second.communicate(timeout=90)[0].split())
            assert second.returncode == 0, text
    query = (
        "SELECT status, count(*), max(run_body) LIKE '%\"fmaudit/killed\": \"true\"%' FROM runs WHERE status <> 'SUCCESS' "
        "GROUP BY status"
    )
    assert answer(postgresql, "machines", query) == ["FAILURE|1|t"]
    of = "FROM event_logs WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND asset_key LIKE"
    assert answer(postgresql, "machines", f"SELECT count(*) {of} '%probe_fits%'") == ["1"]
    reasons = answer(
        postgresql, "machines", "SELECT count(*) FROM event_logs WHERE event LIKE '%on node-1 did not renew its lease%'"
    )
    assert int(reasons[0]) >= 1
