"""Scanners of the phantom: two machines that differ in image quality, and who is scanned on them.

The poor machine smooths more, has more noise and is so slow that motion blends clots with the contrast around them. What a
series is (manufacturer, model, kernel, tube voltage) is written into its headers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

Syntax = Literal["explicit", "implicit", "rle", "jpeg2000", "jpegls"]
_SYNTAXES: Final[tuple[Syntax, ...]] = (
    "explicit", "rle", "implicit", "jpeg2000", "explicit", "rle", "explicit", "implicit", "jpeg2000", "jpegls",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A model of scanner.

    Parameters
    ----------
    model, kernel : str, as written into headers
    smoothings : int
        How often edges are smoothed over a pixel.
    noise_hu : (low, high)
        Range of the noise.
    blending : float
        How much of a clot's attenuation is that of the contrast around it, from 0 to 1.
    """

    model: str
    kernel: str
    smoothings: int
    noise_hu: tuple[float, float]
    blending: float


GOOD: Final = Machine("Synthetic A", "B40", 1, (10.0, 18.0), 0.0)
POOR: Final = Machine("Synthetic B", "B20", 3, (20.0, 30.0), 0.85)
MANUFACTURER: Final = "fmaudit"

#: share of studies on the poor machine by hospital, if all ages are scanned alike
_ALIKE: Final[Mapping[str, float]] = {"a": 0.15, "b": 0.10, "c": 0.25}
#: the same of the youngest and of others, if the age disparity goes with the scanner in part or as a whole
_YOUNGEST, _OTHERS = 0.85, 0.15


def poor_share(site: str, scanner_gap: str, *, youngest: bool) -> float:
    """Return the share of studies on the poor machine."""
    if scanner_gap == "none":
        return _ALIKE[site]
    return _YOUNGEST if youngest else _OTHERS


@dataclass(frozen=True)
class Scanner:
    """Scanner settings of a series: machine, encoding, orientation, noise and contrast."""

    machine: Machine
    syntax: Syntax
    slope: float
    signed_with_padding: bool
    feet_first: bool
    numbered_backwards: bool
    kvp: int
    noise_hu: float
    #: attenuation of the contrast in the pulmonary arteries
    contrast_hu: float
    #: fraction of it in the left heart and the aorta
    contrast_left: float


def scanner_of(machine: Machine, study_number: int, rng: np.random.Generator) -> Scanner:
    """Draw the settings; encoding and orientation follow from the study number, which is independent of all planted effects."""
    return Scanner(
        machine=machine,
        syntax=_SYNTAXES[study_number % len(_SYNTAXES)],
        slope=0.5 if study_number % 13 == 4 else 1.0,
        signed_with_padding=study_number % 6 == 3,
        feet_first=study_number % 17 == 5,
        numbered_backwards=study_number % 11 == 7,
        kvp=(100, 120, 120)[study_number % 3],
        noise_hu=float(rng.uniform(*machine.noise_hu)),
        contrast_hu=float(rng.uniform(300, 450)),
        contrast_left=float(rng.uniform(0.35, 0.85)),
    )
