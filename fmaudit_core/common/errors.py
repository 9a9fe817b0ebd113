"""Root of all errors shown to a user. Each package defines its own subclasses in its own module.

FmauditError
├── UnknownNameError                    a requested name does not exist
├── ConfigError        config/          audit.yaml is wrong
├── CohortError        tabular/errors.py the cohort's tables or paths are wrong
├── ImagingError       imaging/errors.py a series, view or slice store is wrong
├── EncoderError       encoders/errors.py a spec, a checkpoint or an extraction is wrong
├── ProbeError         probes/errors.py a probe cannot be fitted as requested
├── FairnessError      fairness/errors.py the statistics cannot be computed from these predictions
├── MitigationError    mitigation/errors.py a mitigation cannot be fitted or evaluated
├── ReportError        report/errors.py the page cannot be written
├── SiteError          sites/errors.py a file from or for another site cannot be used
├── ClusterError       engines/errors.py the Ray cluster cannot be used
├── WarehouseError     storage/warehouse.py     a table is missing, corrupted or has another schema
└── StoreError         storage/bucket.py        a bucket cannot be reached, or refuses
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final


class FmauditError(Exception):
    """An error with a message for the user who has to fix it.

    Parameters
    ----------
    what : str
        What is wrong, in one or two sentences. It may name rows and files, but never patients.
    where : str, optional
        The file, row, key or partition.
    fix : str, optional
        How to fix it.
    """

    #: exit code of the command line: 1 for a problem in the data, 2 for wrong usage
    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(self._paragraph())

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process needs to restore it, whatever the arguments of the subclass are."""
        return _restored, (type(self), self.args), self.__dict__

    def _paragraph(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        text = f"{head} {self.fix}" if self.fix else head
        # a path may hold bytes that are no UTF-8, which no terminal or log can print
        return text.encode("utf-8", "backslashreplace").decode()


def _restored(kind: type[FmauditError], args: tuple[Any, ...]) -> FmauditError:
    return kind.__new__(kind, *args)


class UnknownNameError(FmauditError):
    """A requested encoder, task or spec does not exist."""

    exit_code = 2


class MissingExtraError(FmauditError):
    """An optional part of fmaudit, needed by a command, is not installed."""

    exit_code = 2

    def __init__(self, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the optional part `{extra}`, which is not installed.",
            fix=f"Install it with: pip install 'fmaudit[{extra}]'",
        )


#: top-level module -> the optional part of fmaudit that brings it
_EXTRA_OF: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("PIL", "gdcm", "jpeg_ls", "nibabel", "openjpeg", "pydicom", "pylibjpeg", "rle", "zstandard"), "imaging"
    ),
    **dict.fromkeys(
        ("onnxruntime", "open_clip", "safetensors", "timm", "torch", "torchvision", "transformers"), "encoders"
    ),
    **dict.fromkeys(("dagster", "dagster_webserver"), "platform"),
    "dagster_postgres": "postgres",
    "h5py": "hdf5",
    "obstore": "cloud",
    "ray": "ray",
    "sklearn": "ehr",
}


def missing_extra(error: BaseException, needed_for: str) -> MissingExtraError | None:
    """Return the error that names the optional part of a module that is not installed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    extra = _EXTRA_OF.get(error.name.partition(".")[0])
    return MissingExtraError(extra, needed_for) if extra else None


@contextmanager
def needs_extra(extra: str, needed_for: str) -> Iterator[None]:
    """Import packages of an optional part inside this context.

    Raises
    ------
    MissingExtraError
        One of them is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(extra, needed_for) from error


def columns_missing(names: Sequence[str]) -> str:
    """Return ``column a is missing`` or ``columns a, b are missing``."""
    return f"column {names[0]} is missing" if len(names) == 1 else f"columns {', '.join(names)} are missing"


def did_you_mean(name: str, found: Sequence[str]) -> str:
    """Return a missing name with the nearest existing one: ``pe (did you mean PE_?)``."""
    by_lower = {one.lower(): one for one in found}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"{name} (did you mean {by_lower[near[0]]}?)" if near else name
