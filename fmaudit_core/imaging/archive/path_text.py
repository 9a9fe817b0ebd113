"""Path of a file as text of an index: any bytes of a file name, in UTF-8."""

from __future__ import annotations

import os
import re
from typing import Final

_ESCAPED: Final = re.compile(rb"\\(?:x([0-9a-f]{2})|\\)")


def text_of_path(path: bytes) -> str:
    r"""Return a path as text: bytes that are not UTF-8 as ``\xfc``, a backslash doubled."""
    return path.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def path_of_text(text: str) -> str:
    """Return the path of a text that `text_of_path` returned, as functions of the operating system take it."""
    return os.fsdecode(
        _ESCAPED.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\", text.encode())
    )
