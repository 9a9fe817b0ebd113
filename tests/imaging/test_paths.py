"""Names that are not UTF-8, as on a patient CD written by another system, stop nothing and can be printed."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from fmaudit_core.cohort.images import locate, on_disk
from fmaudit_core.common.errors import FmauditError
from fmaudit_core.imaging.series import read_series
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View
from fmaudit_core.storage.digests import files_digest
from tests.ct_files import write_series

HU = View(values="int16")
LATIN_1 = os.fsdecode(b"M\xfcller")

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="its file systems accept UTF-8 names only")


@pytest.fixture
def study(tmp_path):
    volume = write_series(tmp_path / "ct" / "ascii")
    folder = (tmp_path / "ct" / "ascii").rename(tmp_path / "ct" / LATIN_1)
    for path in list(folder.iterdir()):
        path.rename(folder / os.fsdecode(b"\xfc" + os.fsencode(path.name)))
    return folder, volume


def test_slices_of_such_files_are_built(tmp_path, study):
    folder, volume = study
    assert np.array_equal(read_series(folder)[0].volume_hu, volume)
    store = SliceStore(tmp_path / "store", {"s": folder})
    for _ in range(2):
        assert store.build([("s", folder)], [HU], workers=1)["used"].all()
    assert np.array_equal(store.read("s", HU)[:, 0], volume)
    assert files_digest(folder.parent, [folder.name]) != files_digest(folder.parent, [])


def test_names_that_are_utf_8_have_the_digests_they_had(tmp_path):
    import hashlib

    path = tmp_path / "é.dcm"
    path.write_bytes(b"x")
    status = path.stat()
    said = f"é.dcm\0{status.st_size}\0{status.st_mtime_ns}\0".encode()
    assert files_digest(tmp_path, ["é.dcm"]) == hashlib.sha256(said).hexdigest()[:32]


@pytest.mark.parametrize(
    "on_the_disk", [LATIN_1, os.fsdecode("Müller".encode("cp850")), unicodedata.normalize("NFD", "Müller")]
)
def test_a_table_finds_the_folder_whatever_its_encoding(tmp_path, on_the_disk):
    write_series(tmp_path / "ct" / "ascii")
    (tmp_path / "ct" / "ascii").rename(tmp_path / "ct" / on_the_disk)
    located = locate(tmp_path / "ct", "Müller", ["", ".nii.gz"])
    assert (located.path, located.inside, located.exists) == ("Müller", True, True)
    assert on_disk(tmp_path / "ct", located.path) == tmp_path / "ct" / on_the_disk


def test_an_error_about_such_a_path_can_be_printed():
    text = str(FmauditError("does not exist.", where=str(Path("ct") / LATIN_1)))
    assert text == "ct/M\\udcfcller: does not exist."
    text.encode()
