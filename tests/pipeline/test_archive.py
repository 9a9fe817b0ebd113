"""An audit straight from an archive: the slices are those of a folder per study, and the index decides what is stale."""

from __future__ import annotations

import os
import shutil

import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.pipeline.changed_sources import cohort_versions
from fmaudit_core.pipeline.run_cohort import read_cohort
from fmaudit_core.pipeline.run_slices import build_slices
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.setup.doctor import examine
from fmaudit_dagster.cli.main import main
from tests.imaging.archives import write_archive

STUDIES = [f"1.2.{i}" for i in range(10, 22)]


def write_audit(folder, layout):
    """An audit of twelve studies whose folders, where there are any, have the names of the studies."""
    write_archive(folder / "ct", layout, slices=4, studies=STUDIES)
    pl.DataFrame(
        {
            "study_id": STUDIES if layout == "study" else [f"row{i}" for i in range(12)],
            "patient_id": [f"p{i}" for i in range(12)],
            "AccessionNumber": [f"A{i}" for i in range(12)],
            "split": [("train", "val", "test")[i % 3] for i in range(12)],
            "age": [50] * 12,
            "pe": [(i // 3) % 2 for i in range(12)],
        }
    ).write_csv(folder / "studies.csv")
    (folder / "encoders").mkdir()
    shutil.copyfile(shipped_specs()["hu_histogram"], folder / "encoders" / "hu_histogram.yaml")
    cohort = {"kind": "table", "table": "studies.csv", "images": "ct"}
    cohort |= {} if layout == "study" else {"columns": {"accession": "AccessionNumber"}}
    audit = {"cohort": cohort, "tasks": ["pe"], "attributes": ["age_band"], "imaging": {"workers": 1, "values": "any"}}
    (folder / "audit.yaml").write_text(yaml.safe_dump(audit))
    return open_workspace(folder / "audit.yaml")


def read_and_publish(workspace):
    cohort = read_cohort(workspace)
    for name, frame in cohort.tables().items():
        workspace.warehouse.publish(name, frame, version=cohort_versions(cohort)[name])
    return cohort


def build_and_publish(workspace):
    made = build_slices(snapshot_of(workspace))
    for name, frame in {"slice_quality": made.quality, "ct_views": made.views}.items():
        workspace.warehouse.publish(name, frame, version=made.version)
    workspace.warehouse.publish("acquisition", made.acquisition, version=made.acquisition_version)
    return made


@pytest.fixture
def workspace(tmp_path):
    return write_audit(tmp_path / "archive", "nested")


def test_slices_and_choice_are_those_of_a_folder_per_study(tmp_path, workspace):
    other = write_audit(tmp_path / "folders", "study")
    built = []
    for one in (workspace, other):
        read_and_publish(one)
        look = snapshot_of(one)
        slices, store = build_slices(look), one.repairing_slice_store()
        (view,) = look.views_seen().values()
        ids = one.warehouse.read("studies").sort("patient_id")["study_id"]
        built.append((slices.quality.drop("study_id"), [store.read(study, view).tobytes() for study in ids]))
        assert slices.quality.filter("used").height == 12
    assert built[0][0].sort("series_uid").equals(built[1][0].sort("series_uid"))
    assert built[0][1] == built[1][1]


def test_only_the_index_decides_whether_slices_are_stale(workspace, monkeypatch):
    def never(*_):
        raise AssertionError("files are not looked at where there is an index")

    monkeypatch.setattr("fmaudit_core.pipeline.snapshot.files_digest", never)
    monkeypatch.setattr("fmaudit_core.imaging.slices.files_below", never)
    read_and_publish(workspace)
    before, tables = snapshot_of(workspace).view_versions(), cohort_versions(read_cohort(workspace))
    build_slices(snapshot_of(workspace))
    entries = sorted((workspace.home / "slices" / "quality").rglob("*.json"))
    made = {path: path.stat().st_mtime_ns for path in entries}
    changed = workspace.image_index.files_of("1.2.14")[0]
    os.utime(changed, ns=(1, 1))
    assert snapshot_of(workspace).view_versions() == before
    assert cohort_versions(read_cohort(workspace)) == tables  # the table is as it was, the images are not
    assert snapshot_of(workspace).view_versions() != before
    build_slices(snapshot_of(workspace))
    assert sum(path.stat().st_mtime_ns != made[path] for path in entries) == 1


def test_a_study_without_images_is_quarantined_and_the_rest_is_audited(workspace):
    read_and_publish(workspace)
    for path in workspace.image_index.files_of("1.2.14"):
        path.unlink()
    cohort = read_and_publish(workspace)
    assert cohort.notes.filter(note="studies that the archive does not hold")["n"].to_list() == [1]
    quality = build_slices(snapshot_of(workspace)).quality
    assert quality.filter("used").height == 11
    assert quality.filter(pl.col("reason") != "").select("study_id", "reason").rows() == [("row4", "no_images")]


def test_the_doctor_reads_series_of_the_archive(workspace):
    images = next(one for one in examine(workspace.audit_yaml) if one.about == "images")
    assert (images.status, "12 sampled images exist" in images.message) == ("ok", True)


def test_the_command_shows_what_is_there_and_no_identifier(workspace, tmp_path):
    folder = workspace.audit_yaml.parent
    (folder / "ct" / "notes.txt").write_text("x")
    arguments = ["-c", str(workspace.audit_yaml), "index", str(folder / "ct"), "--workers", "1"]
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    for want in (["files", "97"], ["DICOM", "files", "96"], ["studies", "12"], ["series", "24"], ["CT", "96"]):
        assert want in lines
    assert ["not_dicom", "1"] in [line[:2] for line in lines]
    assert not [one for one in (*STUDIES, *(f"A{i}" for i in range(12))) if one in shown.output]
    assert workspace.image_index.files.exists()  # `fmaudit run` reads no header again
    out = tmp_path / "index.parquet"
    assert CliRunner().invoke(main, [*arguments, "--out", str(out)]).exit_code == 0
    assert pl.read_parquet(out).equals(pl.read_parquet(workspace.image_index.files))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda _: None, "is not a folder"),
        (lambda path: path.write_text("x"), "is not a folder"),
        (lambda path: path.mkdir(), "no DICOM study was found in its 0 files"),
    ],
)
def test_the_command_tells_what_is_wrong_with_a_folder(tmp_path, make, told):
    make(tmp_path / "ct")
    shown = CliRunner().invoke(main, ["-c", str(tmp_path / "audit.yaml"), "index", str(tmp_path / "ct")])
    assert shown.exit_code == 1
    assert told in " ".join(shown.output.split())
    assert "Traceback" not in shown.output


@pytest.mark.parametrize("look", [["--table", "studies.csv", "--images", "ct"], ["."]])
def test_init_proposes_the_columns_that_name_studies_of_the_archive(workspace, monkeypatch, look):
    folder = workspace.audit_yaml.parent
    workspace.audit_yaml.unlink()
    shutil.rmtree(folder / "encoders")
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, ["-c", "audit.yaml", "init", *look])
    assert done.exit_code == 0, done.output
    written = yaml.safe_load((folder / "audit.yaml").read_text())["cohort"]
    assert (written["images"], written["columns"]["accession"]) == ("ct", "AccessionNumber")
    assert "`AccessionNumber` is accession." in done.output
    assert "12 studies of 12 patients are valid." in done.output


def test_init_leaves_a_folder_per_study_as_it_is(tmp_path, monkeypatch):
    folder = write_audit(tmp_path, "study").audit_yaml.parent
    (folder / "audit.yaml").unlink()
    monkeypatch.chdir(folder)
    shown = CliRunner().invoke(main, ["init", "--table", "studies.csv", "--images", "ct", "--dry-run"])
    assert "accession:" not in shown.output
    assert not (folder / ".fmaudit").exists()
