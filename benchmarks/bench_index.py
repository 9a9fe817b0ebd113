"""Index of an archive, compared in the same run with a plain loop of `pydicom.dcmread(stop_before_pixels=True)`; memory too."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pydicom

from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.config import PhantomCohort
from fmaudit_core.imaging.archive.build import update_index
from fmaudit_core.imaging.archive.index import ArchiveIndex

#: studies of the phantom, and slices of each, that are written once; an archive links or copies them
STUDIES, SLICES = 60, 12


def write_archive(folder: Path, originals: list[Path], n_files: int) -> None:
    """Write files in folders of 500 without meaning: the originals, each many times, as links of the file system to them."""
    for at in range(n_files):
        place = folder / f"DISK{at // 50_000}" / f"{at // 500:05}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[at % len(originals)], place / f"IM{at:07}")


def plain_loop(folder: Path) -> dict[str, list[str]]:
    """Return the files of each study as a typical script finds them."""
    studies: dict[str, list[str]] = {}
    for path in folder.rglob("*"):
        if path.is_file():
            header = pydicom.dcmread(path, stop_before_pixels=True)
            studies.setdefault(str(header.StudyInstanceUID), []).append(str(path))
    return studies


def peak_mb(folder: Path, kept: Path) -> float:
    """Return the peak memory of a process that only indexes a folder."""
    code = (
        "import sys; from pathlib import Path\n"
        "from fmaudit_core.imaging.archive.build import update_index\n"
        "from fmaudit_core.imaging.archive.index import ArchiveIndex\n"
        "update_index(ArchiveIndex(Path(sys.argv[1]), Path(sys.argv[2])), workers=1)\n"
        "status = Path('/proc/self/status').read_text()  # ru_maxrss would count the parent's as well\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) / 1024)"
    )
    command = [sys.executable, "-c", code, str(folder), str(kept)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write_phantom(
            root / "phantom", PhantomCohort(kind="phantom", n_studies=STUDIES, n_slices=SLICES), tasks=("pe",)
        )
        originals = sorted(path for path in (root / "phantom" / "ct").rglob("*") if path.is_file())
        write_archive(root / "ct", originals, options.files)
        times: dict[str, list[float]] = {"plain": [], "one": [], "two": [], "again": []}
        for turn in range(options.rounds):
            start = time.perf_counter()
            theirs = plain_loop(root / "ct")
            times["plain"].append(time.perf_counter() - start)
            for label, workers in (("one", 1), ("two", 2)):
                index = ArchiveIndex(root / "ct", root / f"index-{label}-{turn}")
                start = time.perf_counter()
                update_index(index, workers=workers)
                times[label].append(time.perf_counter() - start)
            start = time.perf_counter()
            update_index(index)
            times["again"].append(time.perf_counter() - start)
            for study, paths in theirs.items():
                assert sorted(map(str, index.files_of(study))) == sorted(paths)
        median = {label: statistics.median(values) for label, values in times.items()}
        print(f"{options.files:,} files of {len(theirs)} studies; the same files of each study")
        for label, text in (
            ("plain", "plain pydicom loop"),
            ("one", "fmaudit, 1 process"),
            ("two", "fmaudit, 2 processes"),
            ("again", "nothing changed"),
        ):
            print(f"  {text:<22} {median[label]:7.2f} s {options.files / median[label]:9.0f} files/s")
        print(
            f"  ratio per core         {median['plain'] / median['one']:7.2f} x  (listing, sorting and writing included)"
        )
        print(f"  ratio with 2 processes {median['plain'] / median['two']:7.2f} x")
        few = options.files // 5
        shutil.rmtree(root / "ct")
        write_archive(root / "few", originals, few)
        write_archive(root / "many", originals, options.files)
        small, large = peak_mb(root / "few", root / "index-few"), peak_mb(root / "many", root / "index-many")
        print(f"  peak memory            {small:7.0f} MB at {few:,} files, {large:.0f} MB at {options.files:,}")


if __name__ == "__main__":
    main()
