"""What can go wrong on the way from a series to its slices. A defect of one series is a `Defect`, never a traceback."""

from __future__ import annotations

from fmaudit_core.errors import FmauditError


class ImagingError(FmauditError):
    """A path, view or slice store is wrong."""


class WindowError(ImagingError):
    """A window or view cannot be applied."""


class SliceStoreError(ImagingError):
    """An entry of the slice store is missing or torn, or the store cannot be written."""


class Defect(Exception):  # noqa: N818  # not an error of the run: the series is quarantined and counted
    """Why one series is refused.

    Parameters
    ----------
    reason : str
        One of `series.REASONS`.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
