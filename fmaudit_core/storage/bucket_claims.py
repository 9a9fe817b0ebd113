"""Claims in a bucket, changed by the store's compare-and-swap. In a folder: `claims.py`."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from fmaudit_core.storage.bucket import Bucket, StoreError
from fmaudit_core.storage.claims import Claim, Holder

_FOLDER: Final = "claims"
_SUFFIX: Final = ".json"


@dataclass(frozen=True)
class ClaimBucket:
    """All claims of one audit: an object for each, with a number that grows whenever it is taken, renewed or released."""

    bucket: Bucket

    def read(self, name: str) -> Claim:
        """Return a claim by its name, a relative path with `/`."""
        found = self._tagged(name)
        return Claim(0, None) if found is None else found[0]

    def replace(self, name: str, seen: int, holder: Holder | None) -> int | None:
        """Give a claim another content, if it is still the one of number `seen`; return its new number, else None."""
        found = self._tagged(name)
        if (0 if found is None else found[0].number) != seen:
            return None
        put = {"number": seen + 1, "holder": holder, "put": secrets.token_hex(8)}
        content, path = json.dumps(put).encode(), _path(name)
        won = self.bucket.create(path, content) if found is None else self.bucket.replace(path, content, found[1])
        return seen + 1 if won else None

    def remove(self, name: str) -> None:
        """Remove a claim that nobody will take again."""
        with suppress(StoreError):  # it takes little room, and whoever removes it has more to report
            self.bucket.remove([_path(name)])

    def names(self) -> Iterator[str]:
        """Yield the names of all claims that are or were taken."""
        for one in self.bucket.list(_FOLDER):
            yield one.name.removeprefix(f"{_FOLDER}/").removesuffix(_SUFFIX)

    def _tagged(self, name: str) -> tuple[Claim, str] | None:
        found = self.bucket.read_tagged(_path(name))
        if found is None:
            return None
        content = json.loads(found[0])
        return Claim(content["number"], content["holder"]), found[1]


def _path(name: str) -> str:
    return f"{_FOLDER}/{name}{_SUFFIX}"
