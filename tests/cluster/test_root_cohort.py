"""A cohort in a bucket: its table, DICOM and NIfTI are read as from a folder, and nothing of them stays on this machine."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from fmaudit_core.config import ConfigError
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.imaging.bucket_images import BucketStudy
from fmaudit_core.imaging.errors import ImagesGoneError, ImagingError
from fmaudit_core.pipeline.changed_sources import cohort_versions, source_changed, source_fingerprint
from fmaudit_core.pipeline.run_cohort import read_cohort
from fmaudit_core.pipeline.run_slices import build_slices
from fmaudit_core.pipeline.snapshot import snapshot_of
from fmaudit_core.pipeline.steps import step_of
from fmaudit_core.pipeline.workspace import open_workspace
from fmaudit_core.storage.bucket import Bucket, StoreError
from fmaudit_core.storage.processes import process_space
from fmaudit_core.tabular.errors import CohortError
from fmaudit_dagster.cli.main import main
from tests.cluster.seaweedfs import ENDPOINT
from tests.cohort.inspect_release.inspect_twin import Twin
from tests.ct_files import volume_hu
from tests.pipeline.test_archive import STUDIES, build_and_publish, read_and_publish, write_audit

pytestmark = pytest.mark.cluster


def publish(workspace):
    return read_and_publish(workspace), build_and_publish(workspace)


@pytest.fixture
def workspaces(seaweedfs, tmp_path):
    """Twelve studies of DICOM, one of them replaced by NIfTI; then the same in a bucket."""
    local = write_audit(tmp_path / "local", "study")
    folder = local.audit_yaml.parent / "ct" / STUDIES[0]
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    affine = np.diag([-0.7, -0.7, 2.5, 1.0])
    nib.Nifti1Image(volume_hu().transpose(2, 1, 0), affine).to_filename(folder.with_name(f"{STUDIES[0]}.nii.gz"))
    (folder.with_name(STUDIES[1]) / ".hidden").write_bytes(b"x")
    bucket = Bucket(f"s3://audit/{tmp_path.name}", ENDPOINT)
    for path in (*(local.audit_yaml.parent / "ct").rglob("*"), local.audit_yaml.parent / "studies.csv"):
        if path.is_file():
            bucket.write(path.relative_to(local.audit_yaml.parent).as_posix(), path.read_bytes())
    remote = tmp_path / "remote"
    remote.mkdir()
    (local.audit_yaml.parent / "encoders").rename(remote / "encoders")
    raw = yaml.safe_load(local.audit_yaml.read_text())
    raw["cohort"] |= {"table": f"{bucket}/studies.csv", "images": f"{bucket}/ct"}
    raw |= {"storage": {"endpoint": ENDPOINT}, "imaging": {"workers": 2, "values": "any"}}
    (remote / "audit.yaml").write_text(yaml.safe_dump(raw))
    local.audit_yaml.write_text(
        yaml.safe_dump(yaml.safe_load(local.audit_yaml.read_text()) | {"encoders": str(remote / "encoders")})
    )
    return open_workspace(local.audit_yaml), open_workspace(remote / "audit.yaml"), bucket


def test_the_cohort_and_its_slices_are_those_of_a_folder(workspaces):
    local, remote, bucket = workspaces
    (cohort, made), (their_cohort, theirs) = publish(local), publish(remote)
    assert their_cohort.studies.equals(cohort.studies)
    assert their_cohort.labels.equals(cohort.labels)
    assert their_cohort.studies.get_column("image_path").sort()[0] == f"{STUDIES[0]}.nii.gz"
    assert theirs.quality.equals(made.quality)
    assert theirs.acquisition.equals(made.acquisition)
    assert set(made.quality.get_column("status")) == {"accepted"}
    (view,) = snapshot_of(local).views_seen().values()
    for study in STUDIES:
        assert remote.slices.read(study, view).tobytes() == local.slices.read(study, view).tobytes()
    assert list((remote.home / "scratch").iterdir()) == []
    assert not [path for path in remote.home.rglob("*") if path.suffix in (".dcm", ".gz")]

    look = snapshot_of(remote)
    assert not source_changed(look, step_of("cohort"))
    assert not source_changed(look, step_of("ct_slices"))
    repaired = remote.repairing_slice_store()
    (entry,) = [
        path for path in (remote.home / "slices").rglob("*.slices") if path == repaired._entry(STUDIES[3], view)
    ]
    entry.write_bytes(b"torn")
    assert repaired.read(STUDIES[3], view).tobytes() == local.slices.read(STUDIES[3], view).tobytes()

    seen = source_fingerprint(remote)
    name = next(one.name for one in bucket.list(f"ct/{STUDIES[5]}"))
    bucket.write(name, bucket.read(name) + b"\0\0")
    assert not source_changed(snapshot_of(remote), step_of("cohort"))  # which lists the images anew
    assert source_changed(snapshot_of(remote), step_of("ct_slices"))
    table = pl.read_csv(bucket.read("studies.csv")).with_columns(age=pl.lit(60))
    bucket.write("studies.csv", table.write_csv().encode())
    assert source_fingerprint(remote) != seen
    assert source_changed(snapshot_of(remote), step_of("cohort"))


def test_studies_without_objects_and_paths_out_of_the_folder_are_refused_by_row(workspaces):
    _, remote, bucket = workspaces
    table = pl.read_csv(bucket.read("studies.csv"), infer_schema=False)
    images = [*STUDIES[:9], "../studies.csv", "nothing", "s3://other/ct"]
    bucket.write("studies.csv", table.with_columns(image=pl.Series(images)).write_csv().encode())
    with pytest.raises(CohortError) as refused:
        read_cohort(remote)
    text = str(refused.value)
    assert "outside the cohort's folder" in text
    assert "a study without images" in text
    assert "is an address" in text
    bucket.remove(["studies.csv"])
    with pytest.raises(ConfigError, match=r"studies\.csv: does not exist"):
        read_cohort(remote)
    with pytest.raises(ImagingError, match="the images have not been listed yet"):
        open_workspace(remote.audit_yaml).bucket_images.__class__(bucket, remote.home / "none", remote.home).find(["a"])


def test_a_bucket_that_refuses_is_no_fault_of_a_study(workspaces, monkeypatch):
    _, remote, _ = workspaces
    cohort = read_cohort(remote)
    for name, frame in cohort.tables().items():
        remote.warehouse.publish(name, frame, version="v1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="access to the bucket was refused"):
        build_slices(snapshot_of(open_workspace(remote.audit_yaml)))
    assert not list((remote.home / "slices").rglob("*.json"))
    study = BucketStudy(Bucket("s3://nosuchbucket/ct", ENDPOINT), "a", "", 0, remote.home / "scratch")
    monkeypatch.undo()
    (remote.home / f"scratch/study.{process_space()}.{2**22 + 1}.killed").mkdir(parents=True)
    with pytest.raises(StoreError), study.copied():
        pass
    assert list((remote.home / "scratch").iterdir()) == []


def in_bucket(local, bucket, *, below, **cohort):
    """Copy the images of an audit into a bucket, and write the audit that reads them there."""
    folder = local.audit_yaml.parent
    for path in (folder / below).rglob("*"):
        if path.is_file():
            bucket.write(path.relative_to(folder).as_posix(), path.read_bytes())
    remote = folder.with_name(f"remote-{below}")
    remote.mkdir()
    raw = yaml.safe_load(local.audit_yaml.read_text())
    for name, value in raw["cohort"].items():
        if (folder / str(value)).exists():
            raw["cohort"][name] = str(folder / value)
    raw["cohort"] |= {"images": f"{bucket}/{below}"} | cohort
    raw |= {"storage": {"endpoint": ENDPOINT}, "encoders": str(folder / "encoders")}
    (remote / "audit.yaml").write_text(yaml.safe_dump(raw))
    return open_workspace(remote / "audit.yaml")


def equal_slices(local, remote):
    """Check that cohort and slices of two audits are equal, and that nothing of the images stays; return their slices."""
    (cohort, made), (their_cohort, theirs) = publish(local), publish(remote)
    assert their_cohort.studies.equals(cohort.studies)
    assert their_cohort.notes.equals(cohort.notes)
    assert theirs.quality.equals(made.quality)
    assert theirs.acquisition.equals(made.acquisition)
    (view,) = snapshot_of(local).views_seen().values()
    for study in made.quality.filter("used").get_column("study_id"):
        assert remote.slices.read(study, view).tobytes() == local.slices.read(study, view).tobytes()
    assert not list((remote.home / "scratch").glob("*"))
    assert not source_changed(snapshot_of(remote), step_of("cohort"))
    assert not source_changed(snapshot_of(remote), step_of("ct_slices"))
    return made


def test_an_archive_in_a_bucket_is_read_by_its_index_as_from_a_folder(seaweedfs, tmp_path, monkeypatch):
    local = write_audit(tmp_path / "local", "nested")
    (local.audit_yaml.parent / "ct" / "notes.txt").write_text("x")
    (local.audit_yaml.parent / "ct" / ".hidden").write_text("x")
    (local.audit_yaml.parent / "ct" / "volume.nii.gz").write_text("x")
    bucket = Bucket(f"s3://audit/{tmp_path.name}", ENDPOINT)
    remote = in_bucket(local, bucket, below="ct")
    made = equal_slices(local, remote)
    assert made.quality.filter("used").height == 12
    ours, theirs = (pl.read_parquet(one.image_index.files) for one in (local, remote))
    assert theirs.drop("mtime_ns", "bytes").equals(ours.drop("mtime_ns", "bytes"))
    counted = CliRunner().invoke(main, ["-c", str(remote.audit_yaml), "index", f"{bucket}/ct", "--workers", "1"])
    there = CliRunner().invoke(
        main, ["-c", str(local.audit_yaml), "index", str(local.audit_yaml.parent / "ct"), "--workers", "1"]
    )
    assert counted.exit_code == 0, counted.output
    assert counted.output.splitlines()[-10:] == there.output.splitlines()[-10:]
    # only the start of an object is read, and only of one that changed
    asked = []
    read_range = Bucket.read_range
    monkeypatch.setattr(Bucket, "read_range", lambda *ask: asked.append(ask[1:]) or read_range(*ask))
    name = remote.image_index.paths_of(STUDIES[3])[0]
    bucket.write(f"ct/{name}", bucket.read(f"ct/{name}") + b"\0\0")
    before = snapshot_of(remote).view_versions()
    assert not source_changed(snapshot_of(remote), step_of("cohort"))  # which brings the index up to date
    assert {one for one, _, _ in asked} == {name}
    assert snapshot_of(remote).view_versions() != before
    publish(remote)


def test_lost_objects_and_a_refusing_bucket_of_an_archive_are_no_fault_of_a_study(seaweedfs, tmp_path, monkeypatch):
    local = write_audit(tmp_path / "local", "flat")
    bucket = Bucket(f"s3://audit/{tmp_path.name}", ENDPOINT)
    remote = in_bucket(local, bucket, below="ct")
    cohort = read_cohort(remote)
    for name, frame in cohort.tables().items():
        remote.warehouse.publish(name, frame, version=cohort_versions(cohort)[name])
    with monkeypatch.context() as environment:
        environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StoreError, match="access to the bucket was refused"):
            read_cohort(open_workspace(remote.audit_yaml))
        with pytest.raises(StoreError, match="access to the bucket was refused"):
            build_slices(snapshot_of(open_workspace(remote.audit_yaml)))
    assert not list((remote.home / "slices").rglob("*.json"))
    bucket.remove([f"ct/{name}" for name in remote.image_index.paths_of(STUDIES[0])])
    with pytest.raises(ImagesGoneError, match="gone since they were indexed"):
        build_slices(snapshot_of(remote))
    empty = Bucket(f"s3://audit/{tmp_path.name}/nothing", ENDPOINT)
    shown = CliRunner().invoke(main, ["-c", str(remote.audit_yaml), "index", str(empty)])
    assert (shown.exit_code, "no DICOM study was found in its 0 files" in " ".join(shown.output.split())) == (1, True)
    refused = CliRunner().invoke(main, ["index", "s3://key:secret@audit/ct"])
    assert refused.exit_code == 2
    assert "s3://bucket/prefix" in refused.output
    assert "secret" not in refused.output


def test_volumes_of_inspect_in_a_bucket_are_those_of_the_download(seaweedfs, tmp_path):
    folder, twin = tmp_path / "local", Twin()
    twin.write_omop(twin.write_tables(tmp_path / "tables").parent / "omop")
    twin.write_volumes(folder / "volumes/CTPA")
    (folder / "encoders").mkdir()
    shutil.copyfile(shipped_specs()["hu_histogram"], folder / "encoders/hu_histogram.yaml")
    cohort = {"kind": "inspect", "root": str(tmp_path / "tables"), "images": "volumes"}
    audit = {"cohort": cohort, "tasks": ["pe"], "imaging": {"workers": 1}}
    (folder / "audit.yaml").write_text(yaml.safe_dump(audit))
    local, bucket = open_workspace(folder / "audit.yaml"), Bucket(f"s3://audit/{tmp_path.name}", ENDPOINT)
    remote = in_bucket(local, bucket, below="volumes")
    made = equal_slices(local, remote)
    assert made.quality.filter("used").height > 40
    names = (remote.home / "ehr/missing_volumes.txt").read_text()
    assert names == (local.home / "ehr/missing_volumes.txt").read_text()
    seen = source_fingerprint(remote)
    (tmp_path / "tables/full").joinpath("labels_20250612.tsv").write_bytes(b"x")
    assert source_fingerprint(remote) != seen
    nothing = in_bucket(
        local, bucket.__class__(f"{bucket}/nothing", ENDPOINT), below="encoders", images=f"{bucket}/none"
    )
    with pytest.raises(CohortError, match=r"the CT volumes.*searched for in s3://"):
        read_cohort(nothing)
