"""Several volumes under one series UID: distinguished by the header, separated if that is certain, else refused by name.

Attributes that change along z, as in step and shoot, dose modulation or with a frame of reference per file, are legal. Only
attributes whose groups overlap along z, each an evenly spaced volume by itself, show several volumes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from fmaudit_core.imaging.dicom import DicomFile
from fmaudit_core.imaging.errors import Defect
from fmaudit_core.imaging.frames import Frame
from fmaudit_core.imaging.geometry import SAME_POSITION_MM, STEP_TOLERANCE
from fmaudit_core.imaging.header import Float64Array

#: attributes in the order in which they explain several volumes best
_ORDER: Final = ("kernel", "voltage", "image type", "time", "phase", "acquisition", "frame of reference")
#: attributes that are one for all slices of a volume; a change without overlap is flagged
_OF_A_VOLUME: Final = ("kernel", "voltage", "image type")
#: slices that a part needs to be sure that it is a volume, and the share of the shorter one that two volumes have in common
_SURE_SLICES: Final = 3
_SURE_OVERLAP: Final = 0.5


def check_identity(files: Sequence[DicomFile]) -> None:
    """Raise `mixed_identity` if files name more than one patient or study; a blank names none.

    A study UID of its own in every file names no studies: tools that convert file by file make them up.

    Raises
    ------
    Defect
        `mixed_identity`
    """
    patients, studies = (
        {name for name in names if name} for names in zip(*(file.identity for file in files), strict=True)
    )
    made_up = len(studies) == len(files) >= _SURE_SLICES
    if len(patients) > 1 or (len(studies) > 1 and not made_up):
        raise Defect("mixed_identity")


def separated(frames: Sequence[Frame], normal: Float64Array) -> list[list[Frame]]:
    """Return the volumes that share a series UID, a list of frames each; one list if there is only one.

    Parameters
    ----------
    normal : (3,) float, unit

    Raises
    ------
    Defect
        `mixed_volumes`: several volumes overlap, and some part is too short, or overlaps too little, to be one of them.
    """
    for label in _ORDER:
        groups = _grouped(frames, label)
        heights = [np.sort([frame.position @ normal for frame in group]) for group in groups]
        overlap = _overlap(heights) if len(groups) > 1 and all(_is_even(one) for one in heights) else 0.0
        if overlap > 0:
            if min(map(len, heights)) < _SURE_SLICES or overlap < _SURE_OVERLAP:
                raise Defect("mixed_volumes")
            return [part for group in groups for part in separated(group, normal)]
    return [list(frames)]


def is_mixed(frames: Sequence[Frame]) -> bool:
    """Return whether an attribute that volumes have once changes between slices."""
    return any(len(_grouped(frames, label)) > 1 for label in _OF_A_VOLUME)


def _grouped(frames: Sequence[Frame], label: str) -> list[list[Frame]]:
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[frame.labels[label]].append(frame)
    return [groups[value] for value in sorted(groups)]


def _overlap(heights: Sequence[Float64Array]) -> float:
    """Return the smallest share of its extent that a group has in common with those below it; 0 if no two overlap."""
    ordered = sorted(heights, key=lambda one: float(one[0]))
    shares, reached = [], float(ordered[0][-1])
    for one in ordered[1:]:
        extent = float(one[-1] - one[0])
        shares.append(max(0.0, min(reached, float(one[-1])) - float(one[0])) / extent)
        reached = max(reached, float(one[-1]))
    return min(shares) if min(shares) > 0 else max(shares) / len(heights) / 2


def _is_even(heights: Float64Array) -> bool:
    """Return whether heights, ascending, have one step; resent copies at one height count once."""
    steps = np.array([after - before for before, after in pairwise(heights) if after - before >= SAME_POSITION_MM])
    if not len(steps):
        return False
    return bool(np.all(np.abs(steps - np.median(steps)) <= STEP_TOLERANCE * np.median(steps)))
