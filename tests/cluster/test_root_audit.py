"""A whole audit in a bucket: the tables of one in a folder, the same answers, and errors of the store that are named as such."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.encoders.embeddings_reader import read_poolings, read_study_embeddings
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.setup.doctor_results import examine_results
from fmaudit_core.storage.bucket import Bucket, StoreError
from fmaudit_core.storage.bucket_warehouse import BucketWarehouse
from fmaudit_dagster.cli.main import main
from tests.cluster.seaweedfs import ENDPOINT, ENVIRONMENT, KEY, READER, READER_SECRET, SECRET
from tests.everyday.cohorts import PLANTED, write_audit
from tests.platform.test_sensors import look

pytestmark = pytest.mark.cluster

#: one strategy is enough here
SETTINGS = {
    "fairness": {"n_permutations": 99, "suppress_under": 5, "test_from": 10},
    "mitigation": {"enabled": False},
}
READ_ONLY = {"AWS_ACCESS_KEY_ID": READER, "AWS_SECRET_ACCESS_KEY": READER_SECRET}
#: tables that tell of the machine, the run or the time
OF_THE_RUN = {"report_files"}


def command(config, *arguments):
    return [sys.executable, "-m", "fmaudit_dagster.cli", "-c", str(config), *map(str, arguments)]


def run(config, **environment):
    """`fmaudit run` in a process of its own, as Dagster's definitions are of one audit; it makes one step at a time.

    Each further process costs its start, more than these steps do.
    """
    surroundings = {**os.environ, "COLUMNS": "200", "FMAUDIT_JOBS": "1", **environment}
    return subprocess.run(
        command(config, "run"), capture_output=True, text=True, env=surroundings, timeout=300, check=False
    )


def call(config, *arguments):
    return CliRunner().invoke(main, ["-c", str(config), *map(str, arguments)])


def joined(process):
    return " ".join((process.stdout + process.stderr).split())


def in_bucket(folder, address, **changes):
    return write_audit(folder, root=address, storage={"endpoint": ENDPOINT}, **SETTINGS | changes)


@pytest.fixture(scope="module")
def audits(seaweedfs, tmp_path_factory):
    """The same audit in a folder and in a bucket, by the command line."""
    folder = tmp_path_factory.mktemp("audits")
    configs = write_audit(folder / "local", **SETTINGS), in_bucket(folder / "bucket", "s3://audit/whole/prod")
    for config, jobs in zip(configs, ("1", "2"), strict=True):
        ran = run(config, FMAUDIT_JOBS=jobs)
        assert ran.returncode == 0, joined(ran)
        (config.parent / "printed").write_text(ran.stdout.replace(str(config.parent), "WORKSPACE"))
    return configs


def equal_tables(ours, theirs):
    """Check that two warehouses hold the same tables, cells, versions and rows."""
    assert theirs.tables() == ours.tables()
    version = theirs.versions()
    for table in ours.tables():
        assert theirs.cells(table) == ours.cells(table)
        for cell in ours.cells(table):
            assert version(table, cell) == ours.version(table, cell) == theirs.version(table, cell)
            if table not in OF_THE_RUN:
                assert theirs.read(table, cell).equals(ours.read(table, cell)), table


def test_the_tables_are_those_of_a_folder(audits):
    local, remote = (open_workspace(config).warehouse for config in audits)
    equal_tables(local, remote)
    paths = [warehouse.embeddings_path("theirs") for warehouse in (local, remote)]
    (ids, ours), (their_ids, theirs) = (read_study_embeddings(path, read_poolings(path)[0]) for path in paths)
    assert ids == their_ids
    assert ours.tobytes() == theirs.tobytes()


def test_nothing_of_the_results_is_on_this_machine_only(audits):
    home = open_workspace(audits[1]).home
    assert not {"warehouse", "claims"} & {path.name for path in home.iterdir()}
    names = {one.name for one in Bucket("s3://audit/whole/prod", ENDPOINT).list("")}
    assert {name.split("/")[0] for name in names} == {"names", "objects", "embeddings", "claims", "reports"}
    assert "reports/index.html" in names
    assert not any(planted in name for planted in PLANTED for name in names)


def test_no_credential_is_in_a_file_or_an_object(audits):
    kept = [path.read_bytes() for path in audits[1].parent.rglob("*") if path.is_file()]
    bucket = Bucket("s3://audit/whole/prod", ENDPOINT)
    kept += [bucket.read(one.name) for one in bucket.list("")]
    assert len(kept) > 100
    assert not any(secret.encode() in content for content in kept for secret in (SECRET, KEY, "X-Amz-"))


def test_a_second_run_has_nothing_to_do_and_prints_the_same_findings(audits):
    again = run(audits[1])
    assert "Everything is up to date" in again.stdout
    for config, printed in ((audits[1], again.stdout), (audits[0], (audits[1].parent / "printed").read_text())):
        before = (config.parent / "printed").read_text().partition("Findings of")[2]
        assert printed.replace(str(config.parent), "WORKSPACE").partition("Findings of")[2] == before


def test_sql_gives_the_same_answers(audits):
    local, remote = (open_workspace(config).warehouse for config in audits)
    with local.connect() as ours, remote.connect() as theirs:
        for table in local.tables():
            described = [connection.sql(f"DESCRIBE {table}").fetchall() for connection in (ours, theirs)]
            assert described[0] == described[1]
        for query in (
            "SELECT sex, count(*), sum(label::int) FROM studies JOIN labels USING (study_id) GROUP BY ALL ORDER BY ALL",
            "SELECT * FROM fairness_gaps ORDER BY ALL",
            'SELECT study_id, embedding FROM "theirs".study_embeddings ORDER BY study_id LIMIT 5',
            'SELECT count(*) FROM "theirs".slice_embeddings',
        ):
            assert ours.sql(query).fetchall() == theirs.sql(query).fetchall()
    for query in ([], ["SELECT count(*) FROM studies"], ["SELECT nothing FROM studies"]):
        here, there = (call(config, "sql", *query) for config in audits)
        assert (here.exit_code, here.output) == (there.exit_code, there.output)


def test_another_machine_gets_the_report_and_needs_to_read_only(audits, tmp_path, monkeypatch):
    config = in_bucket(tmp_path, "s3://audit/whole/prod")
    for name, value in READ_ONLY.items():
        monkeypatch.setenv(name, value)
    assert "600" in call(config, "sql", "SELECT count(*) FROM studies").output
    printed = call(config, "report")
    assert printed.exit_code == 0
    page = Path(printed.stdout.strip())
    assert page == tmp_path / ".fmaudit/reports/index.html"
    assert page.read_bytes() == (audits[1].parent / ".fmaudit/reports/index.html").read_bytes()


def test_old_versions_and_retired_encoders_are_removed_and_nothing_else(audits, tmp_path):
    """On a copy of the bucket's objects; then of an encoder that is not registered any more; then while a step is running."""
    source, bucket = Bucket("s3://audit/whole/prod", ENDPOINT), Bucket("s3://audit/gc", ENDPOINT)
    for one in source.list(""):
        bucket.write(one.name, source.read(one.name))
    config = in_bucket(tmp_path, "s3://audit/gc")
    warehouse = open_workspace(config).warehouse
    before = {one.name for one in bucket.list("")}
    warehouse.publish("studies", warehouse.read("studies").head(3), version="another")
    (old,) = {name for name in before if name.startswith("objects/studies/")}
    listed = call(config, "gc")
    assert "old versions of tables and embeddings in the bucket" in listed.stdout
    assert old in listed.stdout
    assert bucket.read(old) is not None
    assert call(config, "gc", "--yes").exit_code == 0
    assert before - {one.name for one in bucket.list("")} == {old}
    assert warehouse.read("studies").height == 3
    spec = yaml.safe_load((tmp_path / "encoders/theirs.yaml").read_text())
    (tmp_path / "encoders/theirs.yaml").unlink()
    (tmp_path / "encoders/other.yaml").write_text(yaml.safe_dump(spec | {"name": "other"}))
    assert call(config, "gc", "--yes").exit_code == 0
    left = [one.name for one in bucket.list("") if "theirs" in one.name]
    assert {name.split("/")[0] for name in left} <= {"claims", "reports"}
    claim = b'{"number": 1, "holder": {"process": "another:1:1", "host": "node-7"}}'
    bucket.write("claims/fairness/encoder=theirs/task=pe.json", claim)
    bucket.write("objects/studies/v0/old.parquet", b"")
    refused = call(config, "gc", "--yes")
    assert refused.exit_code == 1
    assert "is running on node-7; nothing was removed" in " ".join(refused.output.split())
    assert bucket.read("objects/studies/v0/old.parquet") is not None


def test_doctor_tries_conditional_puts(audits):
    bucket = Bucket("s3://audit/whole/prod", ENDPOINT)
    found = {one.about: (one.status, one.message) for one in examine_results(BucketWarehouse(bucket))}
    assert found["bucket"] == ("ok", "s3://audit/whole/prod: conditional puts work")
    assert found["warehouse"] == ("ok", f"{len(BucketWarehouse(bucket).tables())} tables can be read")
    assert not list(bucket.list("doctor"))


def test_doctor_names_a_bucket_that_does_not_serve(seaweedfs):
    (found,) = examine_results(BucketWarehouse(Bucket("s3://nosuchbucket/prod", ENDPOINT)))
    assert (found.about, found.status, found.message) == (
        "bucket",
        "problem",
        "s3://nosuchbucket/prod: the bucket does not exist.",
    )
    assert "audit.yaml" in found.fix


@pytest.mark.parametrize("ignored", ["create", "replace"])
def test_doctor_refuses_a_store_that_does_not_keep_the_conditions(seaweedfs, monkeypatch, ignored):
    """As some stores do, which take every put."""
    monkeypatch.setattr(Bucket, ignored, lambda bucket, name, content, *_: bucket.write(name, content) or True)
    (found,) = examine_results(BucketWarehouse(Bucket("s3://audit/unconditional", ENDPOINT)))
    assert found.status == "problem"
    assert "does not keep the conditions of puts" in found.message


DENIED = "access to the bucket was refused ("
REFUSED = f"{DENIED}403"
UNREACHABLE = "the bucket cannot be reached: "
#: what differs from a bucket that works: its address and store, the environment, and what is said
CASES = {
    "no such bucket": ({"address": "s3://nosuchbucket/prod"}, {}, "the bucket does not exist"),
    "wrong secret": ({}, {"AWS_SECRET_ACCESS_KEY": "hunter2hunter2"}, f"{REFUSED} SignatureDoesNotMatch)"),
    "unknown key": ({}, {"AWS_ACCESS_KEY_ID": "hunter2hunter2"}, f"{REFUSED} InvalidAccessKeyId)"),
    "may only read": ({}, READ_ONLY, DENIED),
    "no credentials": ({}, dict.fromkeys(ENVIRONMENT), f"{UNREACHABLE}there are no credentials in the environment"),
    "nobody listens": ({"endpoint": "http://127.0.0.1:9"}, {}, f"{UNREACHABLE}the connection was refused"),
    "unknown host": ({"endpoint": "http://store.invalid:8333"}, {}, f"{UNREACHABLE}the name of its store cannot be resolved"),
    "no TLS there": ({"endpoint": ENDPOINT.replace("http:", "https:")}, {}, f"{UNREACHABLE}its store does not speak TLS"),
    "no route": ({"endpoint": "http://10.0.0.1:8333"}, {}, f"{UNREACHABLE}its store is not reachable from this machine"),
    "no endpoint": ({"endpoint": None}, {"AWS_ENDPOINT_URL": ENDPOINT}, f"{UNREACHABLE}its store is reached without TLS"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_request_of_a_store_that_does_not_serve_names_the_bucket_and_the_cause(seaweedfs, monkeypatch, case):
    changes, environment, message = CASES[case]
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    monkeypatch.setattr("fmaudit_core.storage.bucket._RETRIES", {"max_retries": 0})
    bucket = Bucket(**{"address": "s3://audit/errors", "endpoint": ENDPOINT} | changes)
    asked = {
        "read": lambda: bucket.read("a"),
        "read_range": lambda: bucket.read_range("a", 0, 1),
        "list": lambda: list(bucket.list("a")),
        "create": lambda: bucket.create("a", b"1"),
        "replace": lambda: bucket.replace("a", b"1", "tag"),
        "write": lambda: bucket.write("a", b"1"),
        "remove": lambda: bucket.remove(["a"]),
    }
    for name, ask in asked.items():
        if case == "may only read" and name in ("read", "read_range", "list"):
            continue
        with pytest.raises(StoreError) as refused:
            ask()
        text = str(refused.value)
        assert text.startswith(f"{bucket.address}: {message}"), (name, text)
        assert "AWS_ACCESS_KEY_ID" in text or "audit.yaml" in text
        for hidden in (
            SECRET,
            KEY,
            READER_SECRET,
            "hunter2",
            "X-Amz",
            "Signature=",
            "http://127",
            "RequestId",
            "RetryError",
        ):
            assert hidden not in text
        assert refused.value.__cause__ is None  # its own message holds addresses
        assert refused.value.__suppress_context__


def test_a_run_with_wrong_credentials_ends_with_a_sentence_and_writes_no_secret(seaweedfs, tmp_path):
    config = in_bucket(tmp_path, "s3://audit/wrong")
    ran = run(config, AWS_SECRET_ACCESS_KEY="hunter2hunter2")
    text = joined(ran)
    assert ran.returncode == 1, text
    assert f"s3://audit/wrong: {REFUSED} SignatureDoesNotMatch)" in text
    assert "Traceback" not in text
    kept = [text.encode(), *(path.read_bytes() for path in (tmp_path / ".fmaudit").rglob("*") if path.is_file())]
    assert not any(secret in content for content in kept for secret in (b"hunter2", KEY.encode(), b"X-Amz"))


def test_the_bucket_gone_in_the_middle_fails_by_name_and_goes_on_when_it_is_back(seaweedfs, audits, tmp_path):
    address = "s3://audit/gone"
    config, bucket = in_bucket(tmp_path, address), Bucket(address, ENDPOINT)
    with subprocess.Popen(
        command(config, "run", "--jobs", 1), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while not list(bucket.list("names/study_embeddings")):
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        seaweedfs.stop()
        text = " ".join(process.communicate(timeout=240)[0].split())
    seaweedfs.start()
    assert process.returncode == 1, text
    assert f"{address}: {UNREACHABLE}the connection was refused" in text
    assert "Traceback" not in text
    embeddings = open_workspace(config).warehouse.embeddings_path("theirs")
    with embeddings.opened() as connection:
        assert connection.sql("SELECT count(*) FROM failed_studies").fetchall() == [(0,)]
    again = run(config)
    assert again.returncode == 0, joined(again)
    equal_tables(*(open_workspace(one).warehouse for one in (audits[0], config)))


def test_the_daemon_asks_for_what_is_lost_in_the_bucket(audits):
    """Last: the audit lacks a table and its page afterwards."""
    workspace = open_workspace(audits[1])
    first = look(workspace, "registry_sensor")
    assert isinstance(first, dg.SensorResult)
    assert not first.run_requests
    assert isinstance(look(workspace, "registry_sensor", first.cursor), dg.SkipReason)
    bucket = workspace.root.bucket
    bucket.remove(["reports/index.html"])
    third = look(workspace, "registry_sensor", first.cursor)
    assert [request.run_key.split(":")[0] for request in third.run_requests] == ["audit_report"]
    bucket.remove([one.name for one in bucket.list("objects/fairness_gaps")])
    fourth = look(workspace, "registry_sensor", first.cursor)
    assert [request.run_key.split(":")[0] for request in fourth.run_requests] == ["fairness/theirs/pe"]
