"""An object of a bucket as a file that is read by range."""

from __future__ import annotations

import io
import os
from typing import Any

from fmaudit_core.storage.bucket import Bucket, StoreError


class ObjectFile(io.RawIOBase):
    """An object as a file.

    Parameters
    ----------
    bucket : Bucket
    name : str
        Below the bucket's prefix.
    size : int
        In bytes.
    failures : list of StoreError, optional
        Gets the errors of the store, for a reader that hides what it catches.
    """

    def __init__(self, bucket: Bucket, name: str, size: int, failures: list[StoreError] | None = None) -> None:
        super().__init__()
        self._bucket, self._name, self._size = bucket, name, size
        self.failures = [] if failures is None else failures
        self._at = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any part of it can be read."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte to read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place; nothing is read."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, by one request.

        Raises
        ------
        StoreError
            The store does not answer, or the object is gone.
        """
        wanted = self._size - self._at if size < 0 else min(size, self._size - self._at)
        if wanted <= 0:
            return b""
        try:
            content = self._bucket.read_range(self._name, self._at, wanted)
        except StoreError as error:
            self.failures.append(error)
            raise
        self._at += len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; see `read`."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
