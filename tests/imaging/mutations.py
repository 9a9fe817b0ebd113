"""Mutated CT files for the fuzz run: seeded changes of header values, lengths, bits and tags, one per file.

`survives` says whether an accepted volume is right: its HU are the unmutated ones, unless the mutated attribute defines them.
"""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from fmaudit_core.imaging.acquisition import acquisition_table
from fmaudit_core.imaging.reasons import FLAGS, REASONS
from fmaudit_core.imaging.series import SeriesRead, read_series
from tests.ct_files import volume_hu, write_series

SYNTAXES = (None, RLELossless, JPEGLSLossless, JPEG2000Lossless)
#: attributes that define the HU and the place of a slice: another valid value is another volume, and no reader can know
LEGITIMATE = {
    "RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelData", "BitsStored", "HighBit",
    "PixelRepresentation", "ImagePositionPatient",
}  # fmt: skip
#: values that exporters, gateways and locales write
STRANGE = (
    b"", b" ", b"\0\0", b"0", b"-1 ", b"1 ", b"0,8\\0,8 ", b"1e5 ", b"nan ", b"inf ", b"-0.0", b"1\\2\\3 ", b"US", b"HU",
    b"99999999999999999999", b"\xff\xff", b"\x01\x00", b"\x00\x01", b"\x08\x00", b"\x10\x00", b"LOCALIZER ", b"MIP ",
    b"DERIVED\\SECONDARY\\AXIAL", b"MONOCHROME1 ", b"RGB ", b"1.2.840.10008.5.1.4.1.1.7", b"M\xfcller", b"1\\0\\0\\0\\1\\0",
)  # fmt: skip
SLOWEST_SECONDS = 10.0
#: what no fact may hold: the patient of the originals, a day, a UID
_PERSONAL = re.compile(r"ZQXPATIENT|0731|1\.2\.840")


@dataclass(frozen=True)
class Mutation:
    """What was changed: its kind, and the keywords of the attributes that are other than before; None if no reader can tell."""

    kind: str
    keywords: frozenset[str] | None


def write_originals(folder: Path) -> list[Path]:
    """Write one valid series per transfer syntax; return their folders."""
    folders = []
    for syntax in SYNTAXES:
        target = folder / (syntax.keyword if syntax else "native")
        write_series(target, volume_hu(4))
        for path in target.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID, dataset.StudyInstanceUID, dataset.AcquisitionNumber = "ZQXPATIENT", "1.2", 1
            dataset.RescaleType, dataset.SeriesDescription, dataset.ConvolutionKernel = "HU", "Thorax", "B30f"
            dataset.Manufacturer, dataset.ManufacturerModelName, dataset.BodyPartExamined = "ACME", "One", "CHEST"
            dataset.KVP, dataset.Exposure, dataset.ContrastBolusAgent, dataset.StudyDate = (
                "120",
                "50",
                "APPLIED",
                "20190731",
            )
            if syntax:
                dataset.compress(syntax, generate_instance_uid=False)
            dataset.save_as(path)
        folders.append(target)
    return folders


def mutate(path: Path, rng: np.random.Generator) -> Mutation:
    """Change one file in place."""
    before = pydicom.dcmread(path)
    kind = str(rng.choice(["value", "missing", "vr", "length", "bits", "cut", "bytes", "repeat"]))
    if kind in ("length", "bits", "cut", "bytes"):
        _change_bytes(path, kind, rng)
    else:
        _change_attribute(path, kind, rng)
    return Mutation(kind, _changed(before, path))


def _changed(before: Dataset, path: Path) -> frozenset[str] | None:
    try:
        after = pydicom.dcmread(path)
        if before.file_meta.TransferSyntaxUID != after.file_meta.TransferSyntaxUID:
            return None
        every = {*before.keys(), *after.keys()}
        return frozenset(str(keyword_for_tag(tag)) for tag in every if before.get(tag) != after.get(tag))
    except Exception:  # values are converted on access, each with its own errors
        return None


def _change_attribute(path: Path, kind: str, rng: np.random.Generator) -> None:
    dataset = pydicom.dcmread(path)
    tag, from_tag = (Tag(int(one)) for one in rng.choice([int(element.tag) for element in dataset], 2))
    vr, strange = dataset[tag].VR, STRANGE[rng.integers(len(STRANGE))]
    if kind == "missing":
        del dataset[tag]
    elif kind == "repeat":  # the value of another attribute
        other = pydicom.dcmread(path).get_item(from_tag)
        _set_raw(dataset, tag, vr, other.value if isinstance(other, RawDataElement) and other.value else b"")
    else:
        _set_raw(dataset, tag, vr if kind == "value" else str(rng.choice(["LT", "UN", "DS", "US", "OB"])), strange)
    with suppress(Exception):  # what pydicom cannot write, it cannot have been written by
        dataset.save_as(path)


def _set_raw(dataset: Dataset, tag: BaseTag, vr: str, value: bytes) -> None:
    value += b" " * (len(value) % 2)
    dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)


def _change_bytes(path: Path, kind: str, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    header = data.index(b"\xe0\x7f\x10\x00")
    if kind == "cut":
        data = data[: rng.integers(0, len(data))]
    elif kind == "length":  # a length in the header: two bytes after a value representation
        ends = [at for at in range(132, header) if data[at : at + 2].isalpha() and data[at : at + 2].isupper()]
        at = int(rng.choice(ends)) + 2
        data[at : at + 2] = int(rng.integers(0, 1 << 16)).to_bytes(2, "little")
    else:
        for at in rng.integers(132, header, 1 if kind == "bits" else 6):
            data[at] = data[at] ^ (1 << int(rng.integers(8))) if kind == "bits" else int(rng.integers(256))
    path.write_bytes(data)


def outcome(folder: Path, mutation: Mutation, want: np.ndarray) -> str:
    """Read a folder with one mutated file; return what is wrong with what the reader did, empty if nothing is."""
    start = time.perf_counter()
    try:
        found = read_series(folder)
        rows = [one.quality() | {"used": one.used, "acquisition": asdict(one.acquisition)} for one in found]
        table = acquisition_table({"s1": json.loads(json.dumps(rows))})
    except Exception as error:
        return f"{mutation}: {type(error).__name__}"
    if time.perf_counter() - start > SLOWEST_SECONDS:
        return f"{mutation}: took more than {SLOWEST_SECONDS} s"
    unknown = [one for one in found if (one.reason and one.reason not in REASONS) or set(one.flags) - set(FLAGS)]
    if unknown:
        return f"{mutation}: {unknown[0].reason}"
    if any(_PERSONAL.search(str(cell)) for cell in table.row(0)):
        return f"{mutation}: an identifier among the facts"
    wrong = any(_is_wrong(one, mutation, want, told=len(found) > 1) for one in found)
    return f"{mutation}: accepted with other HU" if wrong else ""


def _is_wrong(series: SeriesRead, mutation: Mutation, want: np.ndarray, *, told: bool) -> bool:
    """Return whether a volume is none of the unmutated slices in a row; a slice may be missing at an end if that is told."""
    got = series.volume_hu
    if got is None or (mutation.keywords is not None and mutation.keywords & LEGITIMATE):
        return False
    told |= bool(set(series.flags) & {"intruder_removed", "localizer_removed", "unreadable_files"})
    starts = range(len(want) - len(got) + 1) if told else [0]
    return not any(np.array_equal(got, want[at : at + len(got)]) for at in starts) or (
        not told and len(got) < len(want)
    )
