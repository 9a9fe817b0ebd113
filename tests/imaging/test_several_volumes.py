"""Several volumes, patients or studies under one series UID; and what merely changes along a series."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.imaging.series import read_series
from tests.ct_files import volume_hu, write_slice


def write(folder, parts, *, slices=6, step_mm=2.0):
    """Write `slices` slices per part: (offset of its first slice in mm, changes of its header); return the volumes."""
    volumes = []
    for seed, (start_mm, changes) in enumerate(parts):
        volume = volume_hu(slices, seed=seed)
        for index, hu in enumerate(volume):
            path = folder / f"{index:02d}-{seed}.dcm"
            write_slice(path, hu, z_mm=start_mm + step_mm * index, number=index, **changes)
        volumes.append(volume)
    return volumes


@pytest.mark.parametrize("start_mm", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}),
        ({"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}),
        ({"KVP": "80"}, {"KVP": "140"}),
        ({"FrameOfReferenceUID": "1.2"}, {"FrameOfReferenceUID": "1.3"}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
        ({"NominalPercentageOfCardiacPhase": 30.0}, {"NominalPercentageOfCardiacPhase": 70.0}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}),
    ],
)
def test_volumes_that_overlap_are_separated(tmp_path, start_mm, first, second):
    volumes = write(tmp_path, [(0.0, first), (start_mm, second)])
    found = read_series(tmp_path)
    assert [one.flags for one in found] == [("split_series",)] * 2
    assert [one.used for one in found] == [True, False]
    for volume in volumes:
        assert any(np.array_equal(one.volume_hu, volume) for one in found)


def test_two_kernels_of_two_phases_are_four_volumes(tmp_path):
    parts = [
        (0.0, {"ConvolutionKernel": kernel, "AcquisitionNumber": phase})
        for kernel in ("soft", "lung")
        for phase in (1, 2)
    ]
    write(tmp_path, parts)
    assert [one.n_slices for one in read_series(tmp_path)] == [6] * 4


def test_volumes_that_overlap_in_part_are_refused(tmp_path):
    write(tmp_path, [(0.0, {"AcquisitionNumber": 1}), (9.0, {"AcquisitionNumber": 2})])
    (series,) = read_series(tmp_path)
    assert series.reason == "mixed_volumes"


def test_a_pair_of_slices_is_no_sure_volume(tmp_path):
    write(tmp_path, [(0.0, {"AcquisitionNumber": 1}), (1.0, {"AcquisitionNumber": 2})], slices=2)
    (series,) = read_series(tmp_path)
    assert series.reason == "mixed_volumes"


@pytest.mark.parametrize(
    "changes",
    [
        lambda index: {"AcquisitionNumber": index // 2},
        lambda index: {"AcquisitionNumber": index},
        lambda index: {"AcquisitionNumber": [1, 2, 2, 1, 1, 2, 1, 2][index]},  # no part is even by itself
        lambda index: {"FrameOfReferenceUID": f"1.2.{index}"},
        lambda index: {"StudyInstanceUID": f"1.2.{index}"},
        lambda index: {"XRayTubeCurrent": 100 + index, "Exposure": 5 * index},
        lambda index: {"PatientID": "" if index else "p"},
        lambda index: {"SeriesNumber": index, "ContentTime": f"1010{index:02d}"},
    ],
)
def test_what_changes_along_a_volume_stays_legal(tmp_path, changes):
    volume = volume_hu(8)
    for index, hu in enumerate(volume):
        write_slice(tmp_path / f"{index}.dcm", hu, z_mm=2.0 * index, number=index, **changes(index))
    (series,) = read_series(tmp_path)
    assert series.flags == ()
    assert np.array_equal(series.volume_hu, volume)


@pytest.mark.parametrize("name", ["ConvolutionKernel", "KVP"])
def test_another_kernel_or_voltage_without_overlap_is_flagged(tmp_path, name):
    write(tmp_path, [(0.0, {name: "80"}), (12.0, {name: "120"})])
    (series,) = read_series(tmp_path)
    assert (series.n_slices, series.flags) == (12, ("mixed_acquisition",))


@pytest.mark.parametrize("start_mm", [0.0, 1.0, 12.0, 100.0])
@pytest.mark.parametrize("name", ["PatientID", "StudyInstanceUID"])
def test_patients_and_studies_are_never_one_volume(tmp_path, name, start_mm):
    write(tmp_path, [(0.0, {name: "91.7"}), (start_mm, {name: "92.7"})])
    (series,) = read_series(tmp_path)
    assert series.reason == "mixed_identity"
    assert "91.7" not in str(series.facts()) + series.explained()
