"""An archive in any layout is indexed once: what is in it, what is passed over and why, killed and changed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pydicom
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom import uid

from fmaudit_core.imaging.archive import build
from fmaudit_core.imaging.archive.build import update_index
from fmaudit_core.imaging.archive.file_header import file_header
from fmaudit_core.imaging.archive.index import ArchiveIndex
from fmaudit_core.imaging.archive.path_text import path_of_text, text_of_path
from fmaudit_core.imaging.archive.reasons import PASSED_OVER
from fmaudit_core.imaging.dicom import read_file
from fmaudit_core.imaging.errors import Defect, ImagesGoneError, ImagingError
from fmaudit_core.imaging.series import read_series
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View
from tests.ct_files import volume_hu, write_slice
from tests.imaging.archives import STUDIES, write_archive
from tests.imaging.mutations import mutate, write_originals

HU = View(values="int16")
DICOM = "1.2.3.dcm"


def indexed(tmp_path, kept="index", **options):
    index = ArchiveIndex(tmp_path / "ct", tmp_path / kept)
    update_index(index, **{"workers": 1} | options)
    return index


def images(index):
    return list(index.images_of(index.studies()).items())


def files(index):
    return pl.read_parquet(index.files)


@pytest.fixture
def headers_read(monkeypatch):
    """Paths whose headers are read, in order."""
    read = []

    def reader(path):
        read.append(path)
        return file_header(path)

    monkeypatch.setattr(build, "file_header", reader)
    return read


@pytest.mark.parametrize("layout", ["flat", "nested", "study"])
def test_studies_are_found_in_any_layout(tmp_path, layout):
    write_archive(tmp_path / "ct", layout, slices=40)
    index = indexed(tmp_path)
    counts = index.counts()
    assert (counts.n_files, counts.n_dicom, counts.n_studies, counts.n_series) == (240, 240, 3, 6)
    assert (counts.modalities, counts.passed_over, counts.n_duplicates) == ({"CT": 240}, {}, 0)
    studies = index.studies()
    assert studies["study_uid"].to_list() == list(STUDIES)
    assert studies["accessions"].to_list() == [["A0"], ["A1"], ["A2"]]
    assert studies["n_files"].to_list() == [80, 80, 80]
    for study in STUDIES:
        found = index.files_of(study)
        assert {str(pydicom.dcmread(path).StudyInstanceUID) for path in found} == {study}
        assert len(found) == 80


def test_slices_of_an_archive_are_those_of_a_folder_per_study(tmp_path):
    volumes = write_archive(tmp_path / "ct", "flat")
    write_archive(tmp_path / "folders", "study")
    index = indexed(tmp_path)
    archive, folders = SliceStore(tmp_path / "one"), SliceStore(tmp_path / "two")
    quality = archive.build(images(index), [HU], workers=1)
    assert quality.equals(folders.build([(study, tmp_path / "folders" / study) for study in STUDIES], [HU], workers=1))
    for study, volume in volumes.items():
        assert np.array_equal(archive.read(study, HU)[:, 0], volume)
        assert np.array_equal(archive.read(study, HU), folders.read(study, HU))
        assert [one.used for one in read_series(index.files_of(study))] == [True, False]


def test_a_study_that_the_archive_does_not_hold_has_no_images(tmp_path):
    write_archive(tmp_path / "ct", "flat")
    quality = SliceStore(tmp_path / "store").build([("s", indexed(tmp_path).without_images("1.2.99"))], [HU], workers=1)
    assert quality.select("status", "reason").rows() == [("quarantined", "no_images")]


def test_a_damaged_entry_is_made_again_from_the_index(tmp_path):
    volumes = write_archive(tmp_path / "ct", "flat", studies=STUDIES[:1])
    ct = images(indexed(tmp_path))
    store = SliceStore(tmp_path / "store", dict(ct))
    store.build(ct, [HU], workers=1)
    (entry,) = store.root.rglob("*.slices")
    entry.write_bytes(entry.read_bytes()[:-3])
    assert np.array_equal(store.read(STUDIES[0], HU)[:, 0], volumes[STUDIES[0]])


def test_only_new_and_changed_files_are_read_again(tmp_path, headers_read):
    write_archive(tmp_path / "ct", "flat")
    before = indexed(tmp_path).studies()
    made = (tmp_path / "index" / "files.parquet").stat().st_mtime_ns
    assert len(headers_read) == 36
    headers_read.clear()
    assert indexed(tmp_path).studies().equals(before)
    assert headers_read == []
    assert (tmp_path / "index" / "files.parquet").stat().st_mtime_ns == made  # not even written
    changed, gone, *_ = indexed(tmp_path).files_of("1.2.20")
    os.utime(changed, ns=(1, 1))
    gone.unlink()
    write_slice(tmp_path / "ct" / "new", volume_hu()[0], z_mm=99, number=9, StudyInstanceUID="1.2.40")
    after = indexed(tmp_path).studies()
    assert sorted(headers_read) == sorted([changed, tmp_path / "ct" / "new"])
    assert after["n_files"].to_list() == [12, 11, 12, 1]
    digests = dict(before.select("study_uid", "digest").iter_rows())
    told = [study for study, digest in after.select("study_uid", "digest").iter_rows() if digests.get(study) != digest]
    assert told == ["1.2.20", "1.2.40"]


def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path, headers_read):
    write_archive(tmp_path / "ct", "nested", slices=40)
    code = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from fmaudit_core.imaging.archive import build
        read, build._FILES_PER_PART = build.file_header, 8
        build.file_header = lambda path: time.sleep(0.005) or read(path)
        build.update_index(build.ArchiveIndex(Path(sys.argv[1]), Path(sys.argv[2])), workers=1)
    """)
    folder, parts = tmp_path / "index", tmp_path / "index" / "parts"
    for least in (3, 9):  # killed twice
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "ct"), str(folder)], cwd=Path(__file__).parents[2]
        )
        deadline = time.monotonic() + 120
        while len(list(parts.glob("*.parquet"))) < least and time.monotonic() < deadline:
            assert process.poll() is None, "finished before it was killed"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = sum(pl.read_parquet(path).height for path in parts.glob("*.parquet"))
    index = indexed(tmp_path)
    assert len(headers_read) == 240 - kept < 240 - 8 * 8
    undisturbed = indexed(tmp_path, "other")
    assert files(index).equals(files(undisturbed))
    assert index.studies().equals(undisturbed.studies())
    assert sorted(path.name for path in folder.iterdir()) == ["files.parquet", "lock", "studies.parquet"]


def test_a_kill_between_the_two_files_of_an_index_is_repaired(tmp_path, headers_read):
    write_archive(tmp_path / "ct", "flat")
    index = indexed(tmp_path)
    want, rows = index.studies(), files(index)
    index.studies_file.unlink()
    parts = tmp_path / "index" / "parts"
    parts.mkdir()
    rows.head(9).write_parquet(parts / "left.parquet")
    headers_read.clear()
    again = indexed(tmp_path)
    assert again.studies().equals(want)
    assert files(again).equals(rows)
    assert headers_read == []


def test_several_processes_make_the_same_index(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "_FILES_PER_PART", 10)
    write_archive(tmp_path / "ct", "nested")
    done = []
    index = indexed(tmp_path, workers=2, progress=lambda read, of: done.append((read, of)))
    assert files(index).equals(files(indexed(tmp_path, "other")))
    assert done[0] == (0, 36)
    assert done[-1] == (36, 36)


def spoil(folder):
    """Put files that belong to no study into a folder; return how many there are of each reason."""
    folder.mkdir(exist_ok=True)
    some = next(path for path in sorted(folder.rglob("*")) if path.is_file())
    (folder / "empty").write_bytes(b"")
    (folder / "cut").write_bytes(some.read_bytes()[:140])
    (folder / "notes.txt").write_text("not an image")
    (folder / "dose.pdf").write_bytes(b"%PDF-1.4 " + bytes(400))
    (folder / "study.zip").write_bytes(b"PK\3\4" + bytes(60))
    (folder / "volume.nrrd").write_bytes(b"NRRD0004" + bytes(60))
    (folder / "volume.nii.gz").write_bytes(b"x")
    (folder / "volume.nii").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".trash").mkdir()
    shutil.copy(some, folder / ".trash" / "hidden")
    write_slice(folder / "orphan", volume_hu()[0], z_mm=0, number=0)
    write_slice(folder / "blank", volume_hu()[0], z_mm=0, number=0, StudyInstanceUID="")
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to(folder)
    (folder / "nothing").symlink_to(folder / "is_not_there")
    (folder / "itself").symlink_to(folder / "itself")
    outside = folder.parent / "outside"
    outside.mkdir()
    shutil.copy(some, outside / "file")
    (folder / "away").symlink_to(outside)
    (folder / "away.dcm").symlink_to(outside / "file")
    directory = pydicom.dcmread(some, stop_before_pixels=True)
    directory.file_meta.MediaStorageSOPClassUID = directory.SOPClassUID = uid.MediaStorageDirectoryStorage
    directory.save_as(folder / "DICOMDIR")
    return {
        "unreadable": 2, "not_dicom": 2, "archive": 1, "other_volume_format": 1, "nifti": 2, "hidden": 2, "no_study_uid": 2,
        "not_a_file": 1, "link_to_folder": 2, "broken_link": 2, "link_outside": 1, "dicomdir": 1,
    }  # fmt: skip


def test_what_is_no_image_of_a_study_is_counted_with_its_reason(tmp_path):
    write_archive(tmp_path / "ct", "flat")
    want = spoil(tmp_path / "ct")
    counts = indexed(tmp_path).counts()
    assert counts.passed_over == want
    assert set(want) <= set(PASSED_OVER)
    assert (counts.n_studies, counts.n_dicom, counts.n_files) == (3, 36, 36 + sum(want.values()))
    assert indexed(tmp_path).counts() == counts


def test_duplicates_are_counted_and_left_to_the_reader(tmp_path):
    volumes = write_archive(tmp_path / "ct", "flat", studies=STUDIES[:1])
    copied = sorted((tmp_path / "ct").iterdir())[:5]
    for path in copied:
        shutil.copy(path, tmp_path / "ct" / f"copy-of-{path.name}")
    (tmp_path / "ct" / "link").symlink_to(copied[0])
    index = indexed(tmp_path)
    assert (index.counts().n_duplicates, index.counts().n_dicom) == (6, 18)
    first, *_ = read_series(index.files_of(STUDIES[0]))
    assert "duplicate_slices" in first.flags
    assert np.array_equal(first.volume_hu, volumes[STUDIES[0]])


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems accept UTF-8 names only")
@pytest.mark.parametrize("name", [b"M\xfcller \xff", "Müller".encode(), b"a\\b\\x41", b"line\nbreak", b"per%20cent'\""])
def test_any_file_name_is_read(tmp_path, name):
    write_slice(tmp_path / "one", volume_hu()[0], z_mm=0, number=0, StudyInstanceUID="1.2.10")
    folder = tmp_path / "ct" / os.fsdecode(name)
    folder.mkdir(parents=True)
    (tmp_path / "one").rename(folder / os.fsdecode(name))
    (found,) = indexed(tmp_path).files_of("1.2.10")
    assert os.fsencode(found) == os.fsencode(tmp_path / "ct") + b"/" + name + b"/" + name
    assert found.is_file()


@given(st.binary())
@example(b"\\xfc")
@example(b"\\\xfc\\")
def test_any_path_has_a_text_and_comes_back(path):
    assert os.fsencode(path_of_text(text_of_path(path))) == path
    text_of_path(path).encode()


@pytest.mark.parametrize("raised", [PermissionError(errno.EACCES, "x"), FileNotFoundError(errno.ENOENT, "x")])
def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path, monkeypatch, raised):
    write_archive(tmp_path / "ct", "flat")
    locked = sorted((tmp_path / "ct").iterdir())[7]

    def reader(path):
        if path == locked:
            raise raised
        return file_header(path)

    monkeypatch.setattr(build, "file_header", reader)
    assert indexed(tmp_path).counts().passed_over == {"not_opened": 1}
    monkeypatch.undo()
    assert indexed(tmp_path).counts().passed_over == {}


def test_a_disk_that_fails_stops_the_run_and_not_the_files(tmp_path, monkeypatch, headers_read):
    write_archive(tmp_path / "ct", "flat")
    monkeypatch.setattr(build, "_FILES_PER_PART", 6)

    def reader(path):
        if len(headers_read) == 12:
            raise OSError(errno.ESTALE, "Stale file handle")
        headers_read.append(path)
        return file_header(path)

    monkeypatch.setattr(build, "file_header", reader)
    monkeypatch.setattr(build, "_FAILURES_IN_A_ROW", 3)
    with pytest.raises(ImagingError, match=r"ct: cannot be read: stale file handle\. .*what was read is kept"):
        indexed(tmp_path)
    monkeypatch.setattr(build, "file_header", lambda path: headers_read.append(path) or file_header(path))
    assert indexed(tmp_path).counts().n_dicom == 36
    assert len(headers_read) == 36


def test_a_folder_that_is_gone_leaves_the_index_as_it_was(tmp_path):
    write_archive(tmp_path / "ct", "flat")
    want = indexed(tmp_path).studies()
    shutil.rmtree(tmp_path / "ct")
    with pytest.raises(ImagingError, match="is not a folder"):
        indexed(tmp_path)
    (tmp_path / "ct").mkdir()  # a mount point
    with pytest.raises(ImagingError, match=r"no DICOM study was found in its 0 files\."):
        indexed(tmp_path)
    assert ArchiveIndex(tmp_path / "ct", tmp_path / "index").studies().equals(want)


def test_a_damaged_or_missing_index_is_told(tmp_path):
    write_archive(tmp_path / "ct", "flat")
    index = ArchiveIndex(tmp_path / "ct", tmp_path / "index")
    with pytest.raises(ImagingError, match="has not been made yet"):
        index.studies()
    indexed(tmp_path).files.write_bytes(b"torn")
    for look in (index.counts, lambda: indexed(tmp_path)):
        with pytest.raises(ImagingError, match="damaged"):
            look()


def test_a_full_disk_is_no_damage(tmp_path, monkeypatch, headers_read):
    def full(*_):
        raise duckdb.IOException("No space left on device")

    write_archive(tmp_path / "ct", "flat")
    publish = build._publish
    monkeypatch.setattr(build, "_publish", full)
    with pytest.raises(ImagingError, match=r"cannot be written: disk or memory is full\..*what was read is kept"):
        indexed(tmp_path)
    monkeypatch.setattr(build, "_publish", publish)
    headers_read.clear()
    assert indexed(tmp_path).counts().n_dicom == 36
    assert headers_read == []


def test_a_disk_that_is_gone_quarantines_no_study(tmp_path):
    write_archive(tmp_path / "ct", "flat", studies=STUDIES[:1])
    index = indexed(tmp_path)
    (tmp_path / "ct").rename(tmp_path / "unmounted")
    with pytest.raises(ImagesGoneError, match="all files of a study are gone since they were indexed"):
        SliceStore(tmp_path / "store").build(images(index), [HU], workers=1)


def unusual(path, case):
    """Rewrite a file in an unusual way that a reader can still read."""
    dataset = pydicom.dcmread(path)
    data = path.read_bytes()
    if case == "no preamble":
        path.write_bytes(data[132:])
        return
    if case == "no meta":
        dataset.save_as(path)
        data = path.read_bytes()
        path.write_bytes(data[data.index(b"\x08\x00\x08\x00") :])
        return
    if case == "out of order":  # the identifiers come last
        at = data.index(b"\x20\x00\x0d\x00UI")
        end = data.index(b"\x20\x00\x13\x00")
        path.write_bytes(data[:at] + data[end:] + data[at:end])
        return
    if case == "umlaut":
        dataset.SpecificCharacterSet, dataset.AccessionNumber = "ISO_IR 100", "Ü1"
    if case == "several":
        dataset.AccessionNumber = ["A", "B"]
    if case == "padded":
        path.write_bytes(data.replace(b"A0", b"A\0"))
        return
    syntax = {
        "implicit": uid.ImplicitVRLittleEndian,
        "big": uid.ExplicitVRBigEndian,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
    }
    if case in syntax:
        dataset.file_meta.TransferSyntaxUID = syntax[case]
        pydicom.dcmwrite(
            path, dataset, implicit_vr=case == "implicit", little_endian=case != "big", force_encoding=case == "big"
        )
        return
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("case", "accession"),
    [
        ("no preamble", "A0"), ("no meta", "A0"), ("implicit", "A0"), ("big", "A0"), ("deflated", "A0"),
        ("out of order", "A0"), ("umlaut", "Ü1"), ("several", "A\\B"), ("padded", "A"), ("usual", "A0"),
    ],
)  # fmt: skip
def test_headers_are_read_however_they_are_written(tmp_path, case, accession):
    write_archive(tmp_path, "flat", studies=STUDIES[:1], slices=1)
    path = sorted(tmp_path.iterdir())[0]
    series = read_file(path).series_uid
    unusual(path, case)
    found = file_header(path)
    assert found.reason == ""
    assert (found.study_uid, found.series_uid, found.accession, found.modality) == ("1.2.10", series, accession, "CT")
    assert found.sop_uid == f"{series}.0"


def test_damaged_headers_are_read_as_the_reader_of_series_does(tmp_path):
    """Both read the same mutated files; an index finds a file for a study only if the reader can read it, and the same."""
    originals = write_originals(tmp_path / "original")
    wrong = []
    for number in range(200):
        rng = np.random.default_rng((12, number))
        path = Path(shutil.copy(sorted(originals[number % 4].iterdir())[0], tmp_path / f"{number}"))
        mutation = mutate(path, rng)
        found = file_header(path)
        try:
            read = read_file(path)
        except Defect:
            continue
        # where the pixels end in the middle, pydicom forgets what it has read before
        if read.identity != ("", "") and (found.study_uid, found.series_uid) != (read.identity[1], read.series_uid):
            wrong.append((mutation, found, read.identity, read.series_uid))
    assert wrong == []
