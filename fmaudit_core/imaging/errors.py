"""Errors of reading series and storing slices. A problem with one series is a `Defect`, never a crash of the run."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fmaudit_core.common.errors import FmauditError


class ImagingError(FmauditError):
    """A path, view or slice store is invalid."""


class WindowError(ImagingError):
    """A window or view cannot be applied."""


class SliceStoreError(ImagingError):
    """An entry of the slice store is missing or damaged, or the store cannot be written."""


class ImagesGoneError(ImagingError):
    """The disk of the images or of the slices is not there: no study is at fault, so none may be recorded as failed."""


class Defect(Exception):  # noqa: N818  # not an error of the run: the series is quarantined and counted
    """The reason why one series is refused.

    Parameters
    ----------
    reason : str
        A key of `reasons.REASONS`.
    detail : str, optional
        Name of the attribute of the header that causes it; never a value.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason)


#: errors of mounts, networks and this process; not of one file
_OF_SURROUNDINGS: Final = {
    errno.ESTALE, errno.ENOTCONN, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    errno.ENODEV, errno.EMFILE, errno.ENFILE,
}  # fmt: skip


@contextmanager
def damage_is(reason: str) -> Iterator[None]:
    """Raise any error of a parser or decoder on a damaged file as a `Defect` with the given reason; suppress warnings.

    Errors of a mount, a network or memory are raised as they are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (Defect, MemoryError):
            raise
        except BaseException as error:  # values are converted on access, and each library has its own errors
            # pylibjpeg-rle is written in Rust, whose panics are not an `Exception`; a Ctrl-C is not handled here
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if isinstance(error, OSError) and error.errno in _OF_SURROUNDINGS:
                raise
            raise Defect(reason) from error
