"""One series as it was read: accepted with its volume, or quarantined with its reason; and its facts for tables and display."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fmaudit_core.imaging.acquisition import NO_FACTS, Acquisition
from fmaudit_core.imaging.header import NO_HEADER, SeriesHeader
from fmaudit_core.imaging.hounsfield import thinned
from fmaudit_core.imaging.reasons import FLAGS, REASONS
from fmaudit_core.imaging.rules import RULE_REASONS

Int16Array = npt.NDArray[np.int16]


@dataclass(frozen=True)
class SeriesRead:
    """One series found under a path: accepted with its volume, or quarantined with its reason.

    Parameters
    ----------
    reason : str
        A key of `REASONS` or `RULE_REASONS`; empty if accepted.
    detail : str
        Name of the attribute of the header that caused the reason, if it is known.
    flags : tuple of str
        Keys of `FLAGS`, sorted.
    series_uid : str
        Empty if the files have none.
    n_files : int
        Number of files of the series.
    spacing_zyx_mm : three floats or None
        For slices the median step along the normal, then row and column spacing.
    volume_hu : (z, y, x) int16, LPS, or None if quarantined
    header : SeriesHeader
        What the header of the first slice gives of the series.
    acquisition : Acquisition
        How it was acquired.
    used, choice : bool, str
        Whether the series is the one chosen of its study, and by what; a key of `choice.CHOICES`.
    """

    status: str
    reason: str = ""
    detail: str = ""
    flags: tuple[str, ...] = ()
    series_uid: str = ""
    n_files: int = 1
    spacing_zyx_mm: tuple[float, float, float] | None = None
    tilt_degrees: float = 0.0
    transfer_syntaxes: tuple[str, ...] = ()
    volume_hu: Int16Array | None = None
    header: SeriesHeader = NO_HEADER
    acquisition: Acquisition = NO_FACTS
    used: bool = False
    choice: str = ""

    @property
    def shape_zyx(self) -> tuple[int, int, int] | None:
        """Return slices, rows and columns of the volume; None if quarantined."""
        if self.volume_hu is None:
            return None
        slices, rows, columns = self.volume_hu.shape
        return slices, rows, columns

    @property
    def n_slices(self) -> int:
        """Return the number of slices of the volume, 0 if quarantined."""
        return 0 if self.volume_hu is None else len(self.volume_hu)

    def explained(self) -> str:
        """Return the reason with its meaning and the attribute that caused it; empty if accepted."""
        if not self.reason:
            return ""
        meaning = (REASONS | RULE_REASONS)[self.reason]
        return f"{self.reason} ({meaning}{f'; {self.detail}' if self.detail else ''})"

    def remarks(self) -> Iterable[str]:
        """Return the flags, each with its meaning."""
        return [f"{flag}: {FLAGS[flag]}" for flag in self.flags]

    def facts(self) -> dict[str, Any]:
        """Return a plain description without the volume, for display and tools."""
        volume, header = self.volume_hu, self.header
        measured = volume is not None and volume.size > 0
        return {
            "status": self.status,
            "reason": self.reason or None,
            "detail": self.detail or None,
            "flags": list(self.flags),
            "used": self.used,
            "choice": self.choice or None,
            "series_uid": self.series_uid or None,
            "description": header.description or None,
            "kernel": header.kernel or None,
            "image_type": header.image_type or None,
            "thickness_mm": header.thickness_mm,
            "series_number": header.series_number,
            "n_files": self.n_files,
            "n_slices": self.n_slices,
            "shape_zyx": list(self.shape_zyx) if self.shape_zyx else None,
            "spacing_zyx_mm": [round(mm, 5) for mm in self.spacing_zyx_mm] if self.spacing_zyx_mm else None,
            "tilt_degrees": round(self.tilt_degrees, 2),
            "hu_min": int(volume.min()) if measured and volume is not None else None,
            "hu_p01": _first_percentile(volume) if measured and volume is not None else None,
            "hu_max": int(volume.max()) if measured and volume is not None else None,
            "hu_mean": round(int(volume.sum(dtype=np.int64)) / volume.size, 4)
            if measured and volume is not None
            else None,
            "transfer_syntaxes": list(self.transfer_syntaxes),
        }

    def quality(self) -> dict[str, Any]:
        """Return the series as a row of `SLICE_QUALITY`, without its study and choice."""
        facts = self.facts()
        shape, spacing = facts["shape_zyx"] or (None, None, None), facts["spacing_zyx_mm"] or (None, None, None)
        same = [
            "n_slices",
            "tilt_degrees",
            "hu_min",
            "hu_p01",
            "hu_max",
            "hu_mean",
            "n_files",
            "thickness_mm",
            "series_number",
        ]
        return {
            "series_uid": self.series_uid,
            "status": self.status,
            "reason": self.reason,
            "flags": ",".join(self.flags),
            "description": self.header.description,
            "kernel": self.header.kernel,
            "image_type": self.header.image_type,
            "spacing_mm": spacing[0],
            "in_plane_mm": spacing[1],
            "rows": shape[1],
            "columns": shape[2],
            "transfer_syntaxes": ",".join(self.transfer_syntaxes),
        } | {name: facts[name] for name in same}


def _first_percentile(volume_hu: Int16Array) -> float:
    """Return the first percentile in HU, over every fourth row and column of a large matrix; an approximation is sufficient."""
    return float(np.percentile(thinned(volume_hu), 1))
