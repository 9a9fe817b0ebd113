"""The phantom cohort: valid CT on disk, the same bytes for the same seed, and planted truths that can be checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import polars as pl
import pydicom
import pytest

from fmaudit_core.cohort.phantom.anatomy import ARTERIES, draw, embolus_slices
from fmaudit_core.cohort.phantom.outcomes import draw_courses, labels_of
from fmaudit_core.cohort.phantom.plan import plan_cohort
from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.cohort.table import read_table_cohort
from fmaudit_core.common.vocabulary import ATTRIBUTES, TASKS
from fmaudit_core.config import DEFAULT_AGE_BANDS, PhantomCohort, TableCohort
from fmaudit_core.imaging.series import read_series

SMALL = PhantomCohort(kind="phantom", n_studies=60, n_slices=6, matrix_px=64)
FULL = plan_cohort(PhantomCohort(kind="phantom"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_phantom(folder, SMALL, tasks=("pe",), workers=1)
    return folder


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(drawn, tmp_path):
    write_phantom(tmp_path, SMALL, tasks=("pe",), workers=2)
    assert contents(tmp_path) == contents(drawn)


def test_another_seed_gives_another_cohort(drawn, tmp_path):
    write_phantom(tmp_path, SMALL.model_copy(update={"seed": 1}), tasks=("pe",), workers=1)
    assert (tmp_path / "studies.csv").read_bytes() != (drawn / "studies.csv").read_bytes()


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(drawn, tmp_path):
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fmaudit_core.cohort.phantom.writer import write_phantom
        from tests.cohort.phantom.test_phantom import SMALL
        write_phantom(Path(sys.argv[1]), SMALL, tasks=("pe",), workers=1, progress=lambda d, t: print(d, flush=True))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 10:
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "studies.csv").exists()
    write_phantom(tmp_path, SMALL, tasks=("pe",), workers=1)
    left = {path: data for path, data in contents(tmp_path).items() if not any(p.startswith(".") for p in path.parts)}
    assert left == contents(drawn)


def test_every_study_reads_as_the_volume_that_was_drawn(drawn):
    for study in plan_cohort(SMALL)[::4]:
        (series,) = read_series(drawn / "ct" / study.study_id)
        assert series.status == "accepted"
        want = draw(study, n_slices=SMALL.n_slices, matrix_px=SMALL.matrix_px)
        apart = np.abs(series.volume_hu.astype(int) - want)
        if study.scanner.signed_with_padding:  # outside the circle there is padding
            apart = apart[:, 8:-8, 8:-8]
        assert apart.max() <= 1
        assert ("reoriented" in series.flags) == study.scanner.feet_first


def test_files_are_valid_ct_images_in_several_syntaxes(drawn):
    syntaxes, uids = set(), set()
    for path in (drawn / "ct").rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        assert dataset.SOPClassUID == pydicom.uid.CTImageStorage
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        for name in ("FrameOfReferenceUID", "StudyInstanceUID", "KVP", "ImagePositionPatient", "RescaleIntercept"):
            assert dataset.get(name) is not None
        assert dataset.PatientID.startswith("PHANTOM-")
        syntaxes.add(dataset.file_meta.TransferSyntaxUID.name)
        uids.add(dataset.SOPInstanceUID)
    assert len(uids) == SMALL.n_studies * SMALL.n_slices
    assert {
        "RLE Lossless",
        "JPEG 2000 Image Compression (Lossless Only)",
        "JPEG-LS Lossless Image Compression",
    } <= syntaxes


def test_it_reads_like_anybodys_cohort(drawn):
    section = TableCohort(kind="table", table=drawn / "studies.csv", images=drawn / "ct")
    cohort = read_table_cohort(section, tasks=("pe",), attributes=ATTRIBUTES, age_bands=DEFAULT_AGE_BANDS)
    assert cohort.studies.height == 60
    truth = pl.read_parquet(drawn / "truth.parquet").join(cohort.labels, on="study_id")
    assert ((truth["n_emboli"] > 0) == truth["label"]).all()


def test_tissues_have_their_hu():
    study = next(one for one in FULL if not one.emboli)
    volume = draw(study, n_slices=12, matrix_px=192)
    assert volume[:, 0, 0].mean() == pytest.approx(-1000, abs=25)
    inside = volume[:, 60:130, 30:160]
    shares = {name: ((inside > low) & (inside < high)).mean() for name, low, high in
              [("lung", -980, -700), ("soft", -20, 120), ("contrast", 250, 520)]}  # fmt: skip
    assert shares["lung"] > 0.15
    assert shares["soft"] > 0.1
    assert 0.002 < shares["contrast"] < 0.2
    assert volume.max() > 350  # bone


def test_emboli_are_filling_defects_in_few_slices():
    study = next(one for one in FULL if len(one.emboli) > 2)
    healthy = draw(study.__class__(**{**study.__dict__, "emboli": ()}), n_slices=12, matrix_px=192)
    ill = draw(study, n_slices=12, matrix_px=192)
    changed = np.abs(ill.astype(int) - healthy) > 100
    shown = {int(i) for each in embolus_slices(study, 12) for i in each}
    assert set(np.flatnonzero(changed.any(axis=(1, 2)))) == shown
    assert changed.sum() < 0.02 * ill.size
    assert (ill[changed] < healthy[changed]).all()


def test_emboli_of_the_young_are_single_and_small():
    young = [one for one in FULL if one.emboli and one.age <= 40]
    older = [one for one in FULL if one.emboli and one.age > 40 and not one.fibrosis]
    assert {len(one.emboli) for one in young} == {1}
    assert min(len(one.emboli) for one in older) >= 3
    assert max(e.fill * ARTERIES[e.artery].radius_mm[0] for one in young for e in one.emboli) < 2.5
    assert min(e.fill * ARTERIES[e.artery].radius_mm[1] for one in older for e in one.emboli) > 5
    rate = [np.mean([bool(one.emboli) for one in FULL if (one.age <= 40) == is_young]) for is_young in (True, False)]
    assert rate[0] < rate[1]


def test_the_test_split_can_be_audited_by_age_and_holds_one_tiny_group():
    test = [one for one in FULL if one.split == "test"]
    for low, high in ((18, 40), (41, 60), (61, 74), (75, 90)):
        of_band = [bool(one.emboli) for one in test if low <= one.age <= high]
        assert min(sum(of_band), len(of_band) - sum(of_band)) >= 25
    tiny = [bool(one.emboli) for one in test if one.race_ethnicity == "nh_nhpi"]
    assert 0 < min(sum(tiny), len(tiny) - sum(tiny)) < 10


def test_patients_stay_in_one_split_and_have_fewer_than_their_studies():
    splits = pl.DataFrame([(one.patient_id, one.split) for one in FULL], schema=["p", "s"], orient="row")
    assert splits.group_by("p").agg(pl.col("s").n_unique())["s"].max() == 1
    assert 1.1 < len(FULL) / splits["p"].n_unique() < 1.4


def test_horizons_nest_and_some_outcomes_are_censored():
    courses = draw_courses(FULL, 1)
    labels = [labels_of(one, courses[one.patient_id]) for one in FULL]
    assert set(labels[0]) == set(TASKS)
    for name in ("mortality", "readmission"):
        for early, late in (("1m", "6m"), ("6m", "12m")):
            assert not [one for one in labels if one[f"{name}_{early}"] and not one[f"{name}_{late}"]]
    assert any(one["mortality_12m"] is None for one in labels)
    for split in ("train", "val", "test"):
        for task in TASKS:
            seen = {known[task] for one, known in zip(FULL, labels, strict=True) if one.split == split}
            assert {True, False} <= seen, (split, task)


def test_the_medical_record_goes_on_after_the_scan(drawn):
    events = pl.read_parquet(drawn / "ehr_events.parquet")
    assert {"MEDS_BIRTH", "ICD10CM/I26.99", "LOINC/48065-7"} <= set(events["code"])
    assert events["time"].is_sorted() or events.group_by("patient_id").agg(pl.col("time").is_sorted())["time"].all()
