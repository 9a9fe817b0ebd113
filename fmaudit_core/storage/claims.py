"""Claims in a folder that several machines may share: who holds what, changed by compare-and-swap. Expiry: `leases.py`; in a
bucket: `bucket_claims.py`.

A claim is a folder of numbered files. Whoever creates the next number and then sees no higher one holds the claim, and removes
the lower ones. Creating is exclusive (`O_EXCL`), which is atomic on local disks and on NFS; it also makes an NFS client read the
folder anew. Numbers are not reused, so a late process cannot take a claim that has moved on.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from fmaudit_core.storage.atomic_write import disk_errors

#: content of a claim, such as its process
Holder = Mapping[str, str]
_SUFFIX: Final = ".json"
#: a holder renews between a listing and a read; twice in a row only if both took as long as its period
_TRIES: Final = 3


@dataclass(frozen=True)
class Claim:
    """A claim as it is at one moment.

    Parameters
    ----------
    number : int
        Changes whenever the claim is taken, renewed or released; 0 if it was never taken.
    holder : mapping of str to str, optional
        Who holds it; None if it is free, empty if its file is unreadable, as that of a process killed while it wrote.
    """

    number: int
    holder: Holder | None


class Claims(Protocol):
    """All claims of one audit, in a folder (`ClaimFolder`) or a bucket (`ClaimBucket`)."""

    def read(self, name: str) -> Claim:
        """Return a claim by its name, a relative path with `/`."""
        ...

    def replace(self, name: str, seen: int, holder: Holder | None) -> int | None:
        """Give a claim another content, if it is still the one of number `seen`; return its new number, else None."""
        ...

    def remove(self, name: str) -> None:
        """Remove a claim that nobody will take again."""
        ...

    def names(self) -> Iterator[str]:
        """Yield the names of all claims that are or were taken."""
        ...


@dataclass(frozen=True)
class ClaimFolder:
    """All claims of one workspace, in a folder.

    Parameters
    ----------
    root : Path
        Made when the first claim is taken.
    """

    root: Path

    def read(self, name: str) -> Claim:
        """Return a claim by its name, a relative path with `/`."""
        number = 0
        for _ in range(_TRIES):
            number = max(self._numbers(name), default=0)
            if number == 0:
                return Claim(0, None)
            try:
                return Claim(number, json.loads((self.root / name / f"{number}{_SUFFIX}").read_bytes()))
            except FileNotFoundError:  # renewed or released meanwhile
                continue
            except ValueError:
                break
        return Claim(number, {})

    def replace(self, name: str, seen: int, holder: Holder | None) -> int | None:
        """Give a claim another content, if it is still the one of number `seen`.

        Returns
        -------
        The new number; None if somebody else was first.

        Raises
        ------
        PublishError
            The disk is full or must not be written.
        """
        path = self.root / name / f"{seen + 1}{_SUFFIX}"
        with disk_errors(path):
            if seen == 0:
                path.parent.mkdir(parents=True, exist_ok=True)
            try:
                file = path.open("xb")
            except (FileExistsError, FileNotFoundError):  # taken by another, or removed
                return None
            try:
                with file:
                    file.write(json.dumps(holder).encode())
            except OSError:
                path.unlink(missing_ok=True)
                raise
            numbers = list(self._numbers(name))
            if max(numbers, default=0) > seen + 1:
                path.unlink(missing_ok=True)
                return None
            for number in numbers:
                if number <= seen:
                    (path.parent / f"{number}{_SUFFIX}").unlink(missing_ok=True)
        return seen + 1

    def remove(self, name: str) -> None:
        """Remove a claim that nobody will take again."""
        shutil.rmtree(self.root / name, ignore_errors=True)

    def names(self) -> Iterator[str]:
        """Yield the names of all claims that are or were taken."""
        for folder, _, files in os.walk(self.root):
            if any(file.endswith(_SUFFIX) for file in files):
                yield Path(folder).relative_to(self.root).as_posix()

    def _numbers(self, name: str) -> Iterator[int]:
        with suppress(FileNotFoundError):
            for file in (self.root / name).iterdir():
                if file.suffix == _SUFFIX and file.stem.isdecimal():
                    yield int(file.stem)
