"""What can go wrong on the way from a series to its slices. A defect of one series is a `Defect`, never a traceback."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from fmaudit_core.common.errors import FmauditError


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


@contextmanager
def damage_is(reason: str) -> Iterator[None]:
    """Whatever a parser or decoder raises on a damaged file, by one name. Their remarks are not the reader's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (Defect, MemoryError):
            raise
        except (
            BaseException
        ) as error:  # values are converted when they are asked for, each library fails in its own way
            # pylibjpeg-rle is written in Rust, whose panics are no `Exception`; a Ctrl-C is none of ours
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise Defect(reason) from error
