"""Conversion of DICOM to slices, compared with a plain pydicom loop with the same output; memory at 50 and 500 studies."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.config import PhantomCohort
from fmaudit_core.imaging.slices import SliceStore
from fmaudit_core.imaging.window import View

VIEW = View(windows=("lung", "pe", "mediastinal"), size_px=224)


def plain_loop(folder: Path) -> np.ndarray:
    """Return slices as in a typical script: read, sort by position, rescale, window, resize."""
    datasets = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    out = []
    for dataset in datasets:
        stored = dataset.pixel_array
        hu = np.rint(stored * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept))
        if "PixelPaddingValue" in dataset:
            hu[stored == dataset.PixelPaddingValue] = -1024
        if dataset.ImageOrientationPatient[0] < 0:
            hu = hu[:, ::-1]
        channels = []
        for window in VIEW.channel_windows:
            grey = ((hu - (window.centre_hu - 0.5)) / (window.width_hu - 1) + 0.5) * 255
            grey = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
            channels.append(np.asarray(Image.fromarray(grey).resize((224, 224), Image.Resampling.BICUBIC)))
        out.append(np.stack(channels))
    return np.stack(out)


def peak_mb(folder: Path, n: int) -> float:
    """Return the peak memory of a process that only slices the first n studies."""
    code = (
        "import sys, tempfile; from pathlib import Path\n"
        "from fmaudit_core.imaging.slices import SliceStore; from fmaudit_core.imaging.window import View\n"
        "VIEW = View(windows=('lung', 'pe', 'mediastinal'), size_px=224)\n"
        "images = [(p.name, p) for p in sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[2])]]\n"
        "SliceStore(Path(tempfile.mkdtemp())).build(images, [VIEW], workers=1)\n"
        "status = Path('/proc/self/status').read_text()  # ru_maxrss would count the parent's as well\n"
        "print(int(status.split('VmHWM:')[1].split()[0]) / 1024)"
    )
    command = [sys.executable, "-c", code, str(folder), str(n)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--timed", type=int, default=440)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        section = PhantomCohort(kind="phantom", n_studies=options.studies)
        write_phantom(root, section, tasks=("pe",))
        images = [(path.name, path) for path in sorted((root / "ct").iterdir())]
        timed = images[: options.timed]
        times: dict[str, list[float]] = {"plain": [], "one": [], "two": []}
        for turn in range(options.rounds):
            start = time.perf_counter()
            theirs = [plain_loop(path) for _, path in timed]
            times["plain"].append(time.perf_counter() - start)
            for label, workers in (("one", 1), ("two", 2)):
                store = SliceStore(root / f"store-{label}-{turn}")
                start = time.perf_counter()
                store.build(timed, [VIEW], workers=workers)
                times[label].append(time.perf_counter() - start)
            for (study, _), want in zip(timed, theirs, strict=True):
                assert np.array_equal(store.read(study, VIEW), want)
        n = len(timed) * section.n_slices
        median = {label: statistics.median(values) for label, values in times.items()}
        print(
            f"{len(timed)} studies, {n} slices of {section.matrix_px} px to {len(VIEW.windows)} x 224 px; same output"
        )
        for label, text in (
            ("plain", "plain pydicom loop"),
            ("one", "fmaudit, 1 process"),
            ("two", "fmaudit, 2 processes"),
        ):
            print(f"  {text:<22} {median[label]:7.2f} s {n / median[label]:8.0f} slices/s")
        print(f"  ratio per core         {median['plain'] / median['one']:7.2f} x  (compressing and writing included)")
        print(f"  ratio with 2 processes {median['plain'] / median['two']:7.2f} x")
        small, large = peak_mb(root / "ct", 50), peak_mb(root / "ct", options.studies)
        print(f"  peak memory            {small:7.0f} MB at 50 studies, {large:.0f} MB at {options.studies}")


if __name__ == "__main__":
    main()
