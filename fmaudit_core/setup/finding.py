"""The result of one check of `fmaudit doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Parameters
    ----------
    about : str
        Subject of the check, in a word or two.
    message : str
        Result of the check. Files and counts, never a patient or study.
    fix : str, optional
        Recommended action.
    fixable : bool
        Whether `fmaudit doctor --fix` can apply the fix.
    """

    about: str
    status: Status
    message: str
    fix: str | None = None
    fixable: bool = False
