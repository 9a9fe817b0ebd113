"""Small archives as a PACS exports them: CT studies whose files lie in any layout."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from tests.ct_files import volume_hu, write_slice

STUDIES = ("1.2.10", "1.2.20", "1.2.30")


def write_archive(
    folder: Path, layout: str, *, slices: int = 6, studies=STUDIES, size: int = 16
) -> dict[str, np.ndarray]:
    """Two series of each study, as `flat` with random names, `nested` in folders without meaning, or a folder per `study`.

    The thin series of each study, which is the one to use, is returned by study UID.
    """
    thin = {}
    for at, study in enumerate(studies):
        for series, step_mm in ((f"{study}.1", 5.0), (f"{study}.2", 1.0)):
            volume = volume_hu(slices, size=size, seed=hash_of(series))
            thin[study] = volume
            for number, hu in enumerate(volume):
                name = hashlib.sha256(f"{series}{number}".encode()).hexdigest()[:12]
                place = {
                    "flat": name,
                    "nested": f"DISK{hash_of(name) % 3}/{name[:1]}/{name}",
                    "study": f"{study}/{name}",
                }
                write_slice(
                    folder / place[layout], hu, z_mm=step_mm * number, number=number, series=series, SliceThickness=step_mm,
                    SOPInstanceUID=f"{series}.{number}", StudyInstanceUID=study, AccessionNumber=f" A{at} ",
                    PatientID=f"p{at}",
                )  # fmt: skip
    return thin


def hash_of(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:6], 16)
