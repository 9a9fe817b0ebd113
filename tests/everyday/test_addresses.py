"""Addresses of buckets and servers where a path is meant: refused by name, quoted nowhere, and no folder `s3:` appears."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click
import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel

from fmaudit_core.common.local_paths import address_problem
from fmaudit_core.config import Audit, ConfigError, load_audit
from fmaudit_core.config.published import public_config
from fmaudit_core.encoders.spec import EncoderSpec, load_spec
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.bucket import Bucket
from fmaudit_core.storage.root import FolderRoot
from fmaudit_dagster.cli.local_path import FolderOrBucket
from fmaudit_dagster.cli.main import main
from tests.everyday.cohorts import studies, write_audit

#: with a password, which must not reach a terminal or a log
BUCKET = "s3://key:hunter2@bucket/audit?X-Amz-Signature=hunter2"
SAID = "is an address (s3://...), and a path on this machine is needed: copy or mount the data, then give that path"
#: paths that may also be in a bucket, without a key or a query
IN_BUCKET = {("table", "table"), ("table", "images"), ("inspect", "images")}
COHORTS = {
    "phantom": {"kind": "phantom"},
    "table": {"kind": "table", "table": "t.csv"},
    "inspect": {"kind": "inspect", "root": "r"},
}


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("s3://bucket", "s3"), ("S3://bucket/x", "s3"), (" s3://bucket", "s3"), ("s3:/bucket/shortened", "s3"),
        ("s3a://b/x", "s3a"), ("gs://b/x", "gs"), ("az://c/x", "az"), ("hdfs://n:8020/x", "hdfs"),
        ("abfss://c@account.dfs.core.windows.net/x", "abfss"),
        ("dbfs:/mnt/x", "dbfs"), ("https://user:pw@host/x.csv", "https"), ("ftp://h/x", "ftp"), ("sftp://h/x", "sftp"),
        ("postgresql+psycopg2://h/db", "postgresql+psycopg2"), ("smb://h/share", "smb"), ("dicomweb://h/x", "dicomweb"),
    ],
)  # fmt: skip
def test_addresses_are_told_by_their_scheme(text, scheme):
    assert f"({scheme}://...)" in address_problem(text)


def test_a_file_address_names_its_cure():
    assert address_problem("file:///data/x") == "is a file:// address; give the path alone, without file://"


@pytest.mark.parametrize(
    "text",
    [
        "data",
        "/data/x",
        "./s3:/x",
        "../s3://x",
        "C:/data",
        r"C:\data",
        "c:/x",
        "a:b",
        "s3:bucket",
        "1.2.840:/x",
        "",
        ".",
        "//server/x",
    ],
)  # fmt: skip
def test_paths_are_left_alone(text):
    assert address_problem(text) is None


def paths_of(model, *keys):
    """Every key of a model and its sections that is a path."""
    for name, field in model.model_fields.items():
        kinds = list(types_in(field.annotation))
        if Path in kinds:
            yield (*keys, name)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and "kind" not in kind.model_fields:
                yield from paths_of(kind, *keys, name)


def types_in(annotation):
    yield annotation
    for one in get_args(annotation):
        yield from types_in(one)


def settings():
    yield from ((keys, "phantom") for keys in paths_of(Audit))
    for kind in COHORTS:
        (model,) = (one for one in cohort_models() if one.model_fields["kind"].annotation.__args__ == (kind,))
        yield from ((keys, kind) for keys in paths_of(model, "cohort"))


def cohort_models():
    return Audit.model_fields["cohort"].annotation.__args__


def test_the_settings_that_are_paths_are_those_expected():
    assert {".".join(keys) for keys, _ in settings()} == {
        "encoders", "home", "cohort.table", "cohort.images", "cohort.events", "cohort.root", "cohort.ehr", "cohort.demographics",
    }  # fmt: skip


@pytest.mark.parametrize(("keys", "kind"), list(settings()))
def test_every_setting_that_is_a_path_refuses_an_address(tmp_path, keys, kind):
    raw = {"cohort": dict(COHORTS[kind]), "tasks": ["pe"]}
    section = raw["cohort"] if keys[0] == "cohort" else raw
    section[keys[-1]] = BUCKET
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError) as refused:
        load_audit(tmp_path / "audit.yaml")
    said = "is not of the form s3://bucket/prefix" if (kind, keys[-1]) in IN_BUCKET else f"{SAID}."
    assert f"{'.'.join(keys)}: {said}" in str(refused.value)
    assert "hunter2" not in str(refused.value)


SPEC = {"name": "x", "title": "X", "dim": 4, "licence": "l", "source": "s"}
SHA = "0" * 64


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("weights.path", {"weights": {"path": BUCKET, "sha256": SHA}}),
        ("embeddings.path", {"embeddings": {"path": BUCKET, "sha256": SHA}}),
        ("predictions.0.path", {"predictions": [{"path": BUCKET, "sha256": SHA, "task": "pe"}]}),
    ],
)
def test_every_path_of_a_spec_refuses_an_address(tmp_path, key, part):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(SPEC | part))
    with pytest.raises(Exception, match=r"x\.yaml") as refused:
        load_spec(tmp_path / "x.yaml")
    assert f"{key}: {SAID}" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_paths_of_a_spec_are_those_expected():
    assert {".".join(keys) for keys in paths_of(EncoderSpec)} == {"weights.path", "embeddings.path", "predictions.path"}


def call(*arguments):
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.parametrize("variable", ["FMAUDIT_HOME", "FMAUDIT_CONFIG"])
@pytest.mark.parametrize("command", [("run",), ("doctor",), ("report",), ("sql",), ("ui",)])
def test_variables_refuse_an_address_and_nothing_is_made(tmp_path, monkeypatch, variable, command):
    write_audit(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FMAUDIT_CONFIG", raising=False)
    monkeypatch.setenv(variable, BUCKET)
    before = sorted(tmp_path.iterdir())
    said = call(*command)
    assert said.exit_code in (1, 2)
    assert isinstance(said.exception, SystemExit)
    assert f"{variable}: {SAID}." in " ".join(said.output.split())
    assert "hunter2" not in said.output
    assert sorted(tmp_path.iterdir()) == before


def paths_of_commands(command=main, *names):
    for one in command.params:
        if isinstance(one.type, click.Path) or isinstance(getattr(one.type, "types", [None])[0], click.Path):
            yield names, one
    for name, below in getattr(command, "commands", {}).items():
        yield from paths_of_commands(below, *names, name)


@pytest.mark.parametrize(
    ("names", "parameter"), list(paths_of_commands()), ids=lambda one: one if isinstance(one, str) else None
)
def test_every_option_and_argument_that_is_a_path_refuses_an_address(tmp_path, monkeypatch, names, parameter):
    monkeypatch.chdir(tmp_path)
    given = [BUCKET] * max(parameter.nargs, 1)  # of any number, one
    option = [parameter.opts[0], *given] if isinstance(parameter, click.Option) else given
    said = call(*names, *option) if names else call(*option, "doctor")
    assert said.exit_code == 2, said.output
    in_bucket = isinstance(parameter.type, FolderOrBucket)  # which takes the address of a bucket, but no password in it
    refused = "is not of the form s3://bucket/prefix" if in_bucket else "is an address (s3://...)"
    assert refused in " ".join(said.output.split())
    assert "hunter2" not in said.output
    assert list(tmp_path.iterdir()) == []


def test_a_spec_to_add_refuses_an_address(tmp_path, monkeypatch):
    write_audit(tmp_path)
    monkeypatch.chdir(tmp_path)
    said = call("encoders", "add", BUCKET)
    assert said.exit_code == 2
    assert f"SPEC {SAID}" in " ".join(said.output.split())
    assert "hunter2" not in said.output


def test_addresses_in_the_column_of_images_are_told_by_row(tmp_path):
    from fmaudit_core.cohort.table import read_table_cohort
    from fmaudit_core.common.errors import FmauditError
    from fmaudit_core.config import DEFAULT_AGE_BANDS, TableCohort

    table = studies().head(40)
    images = ["s3://ct/1", *(f"ct-{at}" for at in range(1, 39)), "file:///data/ct"]
    for name in images[1:-1]:
        (tmp_path / "ct" / name).mkdir(parents=True)
        (tmp_path / "ct" / name / "1.dcm").touch()
    table.with_columns(image=images_column(images)).write_csv(tmp_path / "t.csv")
    section = TableCohort(kind="table", table=tmp_path / "t.csv", images=tmp_path / "ct")
    with pytest.raises(FmauditError, match=r"is an address such as s3://\.\.\., not a path") as refused:
        read_table_cohort(section, tasks=["pe"], attributes=["sex"], age_bands=DEFAULT_AGE_BANDS)
    assert "Rows 2 and 41" in str(refused.value)
    assert "without images" not in str(refused.value)


def images_column(images):
    import polars as pl

    return pl.Series("image", images)


def test_a_workspace_with_plain_paths_opens_as_before(tmp_path, monkeypatch):
    write_audit(tmp_path)
    monkeypatch.setenv("FMAUDIT_HOME", "")
    assert open_workspace(tmp_path / "audit.yaml").home == tmp_path / ".fmaudit"
    monkeypatch.setenv("FMAUDIT_HOME", str(tmp_path / "elsewhere"))
    assert open_workspace(tmp_path / "audit.yaml").home == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("s3://audit", "s3://audit"),
        ("s3://audit/prod/", "s3://audit/prod"),
        ("  s3://audit/a/b_c=1.2 ", "s3://audit/a/b_c=1.2"),
    ],
)
def test_a_root_may_be_a_bucket_and_the_home_stays_on_this_machine(tmp_path, given, root):
    write_audit(
        tmp_path, root=given, storage={"endpoint": "https://store.hospital.org:9000/", "region": "eu-central-1"}
    )
    workspace = open_workspace(tmp_path / "audit.yaml")
    assert workspace.root.bucket == Bucket(root, "https://store.hospital.org:9000", "eu-central-1")
    assert workspace.home == tmp_path / ".fmaudit"
    assert workspace.reports == tmp_path / ".fmaudit/reports"
    assert root not in str(public_config(workspace.audit))
    assert "hospital" not in str(public_config(workspace.audit))


def test_a_root_may_be_another_folder(tmp_path):
    write_audit(tmp_path, root="results")
    workspace = open_workspace(tmp_path / "audit.yaml")
    assert workspace.root == FolderRoot(tmp_path / "results")
    assert workspace.reports == tmp_path / "results/reports"
    assert workspace.warehouse.path("studies") == tmp_path / "results/warehouse/studies/part.parquet"
    assert workspace.slices.root == tmp_path / ".fmaudit/slices"
    assert workspace.dagster_home == tmp_path / ".fmaudit/dagster"


def test_without_a_root_everything_is_in_the_home(tmp_path):
    write_audit(tmp_path)
    workspace = open_workspace(tmp_path / "audit.yaml")
    assert workspace.root == FolderRoot(tmp_path / ".fmaudit")
    assert workspace.warehouse.embeddings_path("a") == tmp_path / ".fmaudit/warehouse/embeddings/a.duckdb"


NO_BUCKET = "root: is not of the form s3://bucket/prefix: lower-case letters, digits, dots and hyphens"
NO_ENDPOINT = "storage.endpoint: is not of the form https://host:port, without a user, password, path or query"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *[({"root": one}, NO_BUCKET) for one in (
            BUCKET, "s3://key:hunter2@bucket", "s3://Bucket/hunter2", "s3://ab", "s3://", "s3:/bucket/hunter2", "S3://bucket",
            "s3://bucket//hunter2", "s3://bucket/../hunter2", "s3://bucket/a b", "s3://bucket?X-Amz-Signature=hunter2",
        )],
        *[({"root": one}, "root: is an address of a kind that cannot be used") for one in (
            "gs://bucket/hunter2", "az://c/hunter2", "s3a://bucket/hunter2", "https://key:hunter2@store/bucket", "hdfs://n/hunter2",
        )],
        ({"root": "file:///hunter2"}, "root: is a file:// address; give the path alone"),
        *[({"storage": {"endpoint": one}}, NO_ENDPOINT) for one in (
            "https://key:hunter2@store", "key:hunter2@store:9000", "https://store?X-Amz-Signature=hunter2", "ftp://key:hunter2@store",
            "https://store/hunter2", "s3://hunter2",
        )],
        ({"storage": {"secret_access_key": "hunter2"}}, "storage.secret_access_key: unknown setting"),
        ({"storage": {"region": "key:hunter2@x"}}, "storage.region: "),
    ],
)  # fmt: skip
def test_a_root_or_store_that_cannot_be_used_is_refused_and_not_quoted(tmp_path, changes, message):
    write_audit(tmp_path, **changes)
    with pytest.raises(ConfigError) as refused:
        load_audit(tmp_path / "audit.yaml")
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"table": "s3://chest"}, "cohort.table: is a bucket, not an object in one"),
        ({"table": "gs://chest/hunter2.csv"}, "cohort.table: is an address of a kind that cannot be used"),
        ({"images": "https://key:hunter2@store/ct"}, "cohort.images: is an address of a kind that cannot be used"),
        ({"events": "s3://chest/hunter2.csv"}, f"cohort.events: {SAID}"),
    ],
)
def test_a_cohort_in_a_bucket_is_named_as_its_objects(tmp_path, changes, message):
    write_audit(
        tmp_path, cohort={"kind": "table", "table": "s3://chest/studies.csv", "images": "s3://chest/images"} | changes
    )
    with pytest.raises(ConfigError) as refused:
        load_audit(tmp_path / "audit.yaml")
    assert message in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_home_in_a_bucket_is_refused_with_the_setting_for_it(tmp_path, monkeypatch):
    write_audit(tmp_path)
    monkeypatch.setenv("FMAUDIT_HOME", "s3://audit/prod")
    with pytest.raises(ConfigError, match=r"Results may be in a bucket: set `root: s3://bucket/prefix` in audit\.yaml"):
        load_audit(tmp_path / "audit.yaml")
