"""The slice store: whole entries or none, nothing done twice, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import nibabel as nib
import numpy as np
import pytest

from fmaudit_core.imaging import slices
from fmaudit_core.imaging.errors import Defect, ImagesGoneError, SliceStoreError, damage_is
from fmaudit_core.imaging.rules import SeriesRules
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View
from tests.ct_files import volume_hu, write_series

LUNG, HU = View(size_px=16), View(values="int16")


@pytest.fixture
def cohort(tmp_path):
    """Five studies, the last of them spoiled."""
    images = []
    for index in range(5):
        folder = tmp_path / "ct" / f"s{index}"
        write_series(folder, volume_hu(seed=index), **({"RescaleSlope": None} if index == 4 else {}))
        images.append((f"s{index}", folder))
    return images


def entries(root):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(root.rglob("*.slices"))}


def test_slices_read_back_as_the_view_shows_the_volume(tmp_path, cohort):
    store = SliceStore(tmp_path / "store")
    quality = store.build(cohort, [LUNG, HU], workers=1)
    assert np.array_equal(store.read("s1", HU), volume_hu(seed=1)[:, None])
    assert np.array_equal(store.read("s1", LUNG), LUNG.apply(volume_hu(seed=1)))
    assert quality["status"].to_list() == ["accepted"] * 4 + ["quarantined"]
    assert quality["reason"].to_list()[-1] == "missing_rescale"
    assert quality["used"].to_list() == [True] * 4 + [False]
    assert not store.has("s4", LUNG)


def test_a_second_build_reads_nothing_and_says_the_same(tmp_path, cohort):
    store = SliceStore(tmp_path / "store")
    first = store.build(cohort, [LUNG], workers=1)
    before = entries(store.root)
    calls = []
    again = store.build(cohort, [LUNG], workers=1, progress=lambda done, total: calls.append((done, total)))
    assert again.equals(first)
    assert entries(store.root) == before
    assert calls == [(5, 5)]


def test_a_new_view_adds_its_own_and_redoes_nothing(tmp_path, cohort):
    store = SliceStore(tmp_path / "store")
    store.build(cohort, [LUNG], workers=1)
    before = entries(store.root)
    store.build(cohort, [LUNG, HU], workers=1)
    after = entries(store.root)
    assert {path: after[path] for path in before} == before
    assert len(after) == 8


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (SeriesRules(max_spacing_mm=1.9), "too_thick"),
        (SeriesRules(max_spacing_mm=2.0), ""),
        (SeriesRules(chest_values=True), "not_chest_values"),  # air, but nothing denser than tissue
        (SeriesRules(), ""),
    ],
)
def test_a_rule_of_the_cohort_quarantines_and_reads_no_ct_again(tmp_path, cohort, rules, reason):
    store = SliceStore(tmp_path / "store")
    first = store.build(cohort, [LUNG], workers=1)
    before = entries(store.root)
    judged = store.build(cohort, [LUNG], workers=1, rules=rules)
    assert judged["reason"].to_list() == [reason] * 4 + ["missing_rescale"]
    assert judged["used"].to_list() == [not reason] * 4 + [False]
    assert entries(store.root) == before
    assert first["hu_p01"].drop_nulls().to_list() == [np.percentile(volume_hu(seed=i), 1) for i in range(4)]


def test_a_known_rescale_is_used_only_where_the_file_has_none(tmp_path):
    """Values of 0 and above without a scaling; the same values with one; and HU as they are."""
    hu = volume_hu()
    affine, stored = np.diag([-1.0, -1.0, 2.0, 1.0]), (hu + 1024).transpose(2, 1, 0)
    scaled = nib.Nifti1Image(stored, affine)
    scaled.header.set_slope_inter(1, -1000)
    images = {
        "bare": nib.Nifti1Image(stored, affine),
        "scaled": scaled,
        "hu": nib.Nifti1Image(hu.transpose(2, 1, 0), affine),
    }
    paths = {name: tmp_path / f"{name}.nii.gz" for name in images}
    for name, image in images.items():
        image.to_filename(paths[name])
    rescales = dict.fromkeys(images, (1.0, -1024.0))
    store = SliceStore(tmp_path / "store", paths, rescales)
    quality = store.build(list(paths.items()), [HU], workers=1)
    assert quality["flags"].to_list() == ["rescaled", "", ""]
    assert np.array_equal(store.read("bare", HU)[:, 0], hu)
    assert np.array_equal(store.read("scaled", HU)[:, 0], hu + 24)
    assert np.array_equal(store.read("hu", HU)[:, 0], hu)
    assert (
        SliceStore(tmp_path / "other", paths).build(list(paths.items()), [HU], workers=1)["reason"][0]
        == "not_hounsfield"
    )
    other = SliceStore(tmp_path / "store", paths, rescales | {"bare": (1.0, -1000.0)})
    other.build(list(paths.items()), [HU], workers=1)
    assert np.array_equal(other.read("bare", HU)[:, 0], hu + 24)


def test_a_changed_series_is_read_again_and_no_other(tmp_path, cohort):
    store = SliceStore(tmp_path / "store")
    store.build(cohort, [HU], workers=1)
    before = entries(store.root)
    write_series(cohort[2][1], volume_hu(seed=77))
    store.build(cohort, [HU], workers=1)
    changed = [path for path, seen in entries(store.root).items() if before[path] != seen]
    assert len(changed) == 1
    assert np.array_equal(store.read("s2", HU), volume_hu(seed=77)[:, None])


def test_processes_make_what_one_makes(tmp_path, cohort):
    one, two = SliceStore(tmp_path / "one"), SliceStore(tmp_path / "two")
    alone = one.build(cohort, [LUNG], workers=1)
    together = two.build(cohort, [LUNG], workers=2)
    assert alone.equals(together)
    assert [seen for _, seen in entries(one.root).values()] == [seen for _, seen in entries(two.root).values()]


def test_too_few_slices_are_quarantined(tmp_path, cohort):
    quality = SliceStore(tmp_path / "store").build(cohort, [LUNG], workers=1, rules=SeriesRules(min_slices=7))
    assert quality["reason"].to_list() == ["too_few_slices"] * 4 + ["missing_rescale"]
    assert not quality["used"].any()


def test_another_least_number_of_slices_reads_no_series_again(tmp_path, cohort):
    store = SliceStore(tmp_path / "store")
    store.build(cohort, [LUNG], workers=1, rules=SeriesRules(min_slices=7))
    before = entries(store.root)
    assert store.build(cohort, [LUNG], workers=1, rules=SeriesRules(min_slices=2))["used"].sum() == 4
    assert entries(store.root) == before


def test_a_study_whose_images_are_gone_is_counted_and_stops_nothing(tmp_path, cohort):
    shutil.rmtree(cohort[0][1])
    quality = SliceStore(tmp_path / "store").build(cohort, [LUNG], workers=1)
    assert quality["reason"].to_list() == ["no_images", "", "", "", "missing_rescale"]
    assert quality["used"].sum() == 3


def test_hidden_files_are_no_part_of_a_series(tmp_path, cohort):
    store = SliceStore(tmp_path / "store")
    first = store.build(cohort, [LUNG], workers=1)
    before = entries(store.root)
    (cohort[0][1] / ".DS_Store").write_bytes(b"left by a file browser")
    assert store.build(cohort, [LUNG], workers=1).equals(first)
    assert entries(store.root) == before


@pytest.fixture(params=["cut", "flip", "header", "gone"])
def damaged(request, tmp_path, cohort):
    """A store one of whose entries was cut, changed in its slices or its header, or lost."""
    store = SliceStore(tmp_path / "store")
    store.build(cohort, [HU], workers=1)
    path = next(iter(entries(store.root)))
    data = bytearray(path.read_bytes())
    if request.param == "cut":
        data = data[:-5]
    elif request.param == "flip":
        data[-40] ^= 0xFF
    elif request.param == "header":
        data = data.replace(b'"<i2"', b'"<z9"')
    path.write_bytes(data)
    if request.param == "gone":
        path.unlink()
    return store


def read_all(store):
    return all(np.array_equal(store.read(f"s{i}", HU), volume_hu(seed=i)[:, None]) for i in range(4))


def test_a_damaged_entry_is_named(damaged):
    with pytest.raises(SliceStoreError, match=r"\.slices"):
        read_all(damaged)


def test_a_damaged_entry_is_made_again_from_its_ct(damaged, cohort):
    assert read_all(SliceStore(damaged.root, dict(cohort)))
    assert read_all(damaged)


def test_a_damaged_entry_is_not_made_again_from_other_ct(damaged, cohort):
    for _, folder in cohort:
        (folder / "another.dcm").write_bytes(b"came later")
    with pytest.raises(SliceStoreError, match="CT has changed"):
        read_all(SliceStore(damaged.root, dict(cohort)))
    damaged.build(cohort, [HU], workers=1)
    assert read_all(damaged)


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path):
    images = []
    for index in range(24):
        folder = tmp_path / "ct" / f"s{index:02d}"
        write_series(folder, volume_hu(slices=12, size=128, seed=index))
        images.append((f"s{index:02d}", folder))
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fmaudit_core.imaging.slices import SliceStore
        from fmaudit_core.imaging.window import View
        root = Path(sys.argv[1])
        images = [(folder.name, folder) for folder in sorted((root / "ct").iterdir())]
        SliceStore(root / "store").build(images, [View(size_px=96)], workers=1,
                                         progress=lambda done, total: print(done, flush=True))
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 6:
            pass
        os.kill(process.pid, signal.SIGKILL)
    store = SliceStore(tmp_path / "store")
    finished = entries(store.root)
    assert 6 <= len(finished) < 24
    time.sleep(0.01)
    quality = store.build(images, [View(size_px=96)], workers=1)
    after = entries(store.root)
    assert {path: after[path] for path in list(finished)[:5]}.items() <= after.items()
    redone = [path for path in finished if after[path][0] != finished[path][0]]
    assert len(redone) <= 1  # the one study whose record was not written yet
    undisturbed = SliceStore(tmp_path / "undisturbed")
    assert undisturbed.build(images, [View(size_px=96)], workers=1).equals(quality)
    assert [data for _, data in after.values()] == [data for _, data in entries(undisturbed.root).values()]


def test_a_disk_that_is_too_small_is_told_at_once(tmp_path, cohort, monkeypatch):
    from fmaudit_core.imaging import slices

    many = cohort[:4] * 3
    images = [(f"{study}-{index}", folder) for index, (study, folder) in enumerate(many)]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(slices.shutil, "disk_usage", lambda _: usage._replace(free=1))
    with pytest.raises(SliceStoreError, match=r"need about .* GB, but 0\.0 GB are free"):
        SliceStore(tmp_path / "store").build(images, [HU], workers=1)


def test_slices_that_are_not_kept_are_the_same(tmp_path, cohort):
    kept, passing = SliceStore(tmp_path / "kept"), SliceStore(tmp_path / "store", dict(cohort), keep=False)
    assert passing.build(cohort, [LUNG, HU], workers=1).equals(kept.build(cohort, [LUNG, HU], workers=1))
    for view in (LUNG, HU):
        assert all(np.array_equal(passing.read(f"s{i}", view), kept.read(f"s{i}", view)) for i in range(4))
    assert not entries(passing.root)
    for _, folder in cohort:
        (folder / "another.dcm").write_bytes(b"came later")
    with pytest.raises(SliceStoreError, match="CT has changed"):
        passing.read("s1", HU)


def test_the_store_of_some_studies_has_what_they_need(tmp_path, cohort):
    whole = SliceStore(tmp_path / "store", dict(cohort), {"s1": (1.0, 0.0), "s2": (2.0, 0.0)}, keep=False)
    part = whole.of(["s1", "s3"])
    assert (list(part.images), list(part.rescales), part.root, part.keep) == (["s1", "s3"], ["s1"], whole.root, False)


@pytest.mark.parametrize("left", ["empty", "missing"])
def test_without_the_folder_of_the_images_no_study_is_at_fault(tmp_path, cohort, left):
    ct = tmp_path / "ct"
    store = SliceStore(tmp_path / "store", dict(cohort), images_root=ct, keep=False)
    store.build(cohort, [HU], workers=1)
    ct.rename(tmp_path / "unmounted")
    if left == "empty":
        ct.mkdir()
    for look in (lambda: store.read("s1", HU), lambda: store.build(cohort, [HU], workers=1)):
        with pytest.raises(ImagesGoneError, match=r"ct: is missing or empty\. Mount its disk"):
            look()
    (tmp_path / "unmounted" / "s2").rename(tmp_path / "removed")
    shutil.rmtree(ct, ignore_errors=True)
    (tmp_path / "unmounted").rename(ct)
    assert store.build(cohort, [HU], workers=1)["reason"].to_list()[2] == "no_images"
    with pytest.raises(SliceStoreError, match="cannot be read any more"):
        store.read("s2", HU)


def test_without_its_folder_no_study_is_at_fault(tmp_path, cohort):
    store = SliceStore(tmp_path / "store", dict(cohort))
    with pytest.raises(ImagesGoneError, match="store: is missing or empty"):
        store.read("s1", HU)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EMFILE], ids=["mount", "open files"])
def test_an_error_of_the_mount_is_not_a_defect_of_a_file(number):
    with pytest.raises(OSError, match="gone"), damage_is("unreadable"):
        raise OSError(number, "gone")
    with pytest.raises(Defect), damage_is("unreadable"):
        raise OSError("not a gzip file")


def test_several_views_read_the_ct_once(tmp_path, cohort, monkeypatch):
    stored, streamed = (
        SliceStore(tmp_path / "stored"),
        SliceStore(tmp_path / "streamed", images=dict(cohort), keep=False),
    )
    stored.build(cohort, [LUNG, HU], workers=1)
    streamed.build(cohort, [LUNG, HU], workers=1)
    opened = []
    found_series = slices.found_series
    monkeypatch.setattr(
        slices, "found_series", lambda path, **given: opened.append(path) or found_series(path, **given)
    )
    found = streamed.read_views("s1", [LUNG, HU])
    assert len(opened) == 1
    assert [one.tobytes() for one in found] == [stored.read("s1", view).tobytes() for view in (LUNG, HU)]
    assert not list(streamed.root.rglob("*.slices"))
