"""Where each study's images lie, and that they lie inside the cohort's folder. What is in them: the imaging room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Located:
    """Images of one study: their path relative to the root, whether it stays inside, and whether there are any."""

    path: str
    inside: bool
    exists: bool


def locate(root: Path, name: str, suffixes: Sequence[str]) -> Located:
    """Look up a study's folder or file under `root`; the first of `suffixes` that is there counts.

    A link leaves the folder where what it points to does, be it the study's folder or a file in it.
    """
    try:
        candidates = [root / f"{name}{suffix}" for suffix in suffixes]
        path = next((one for one in candidates if one.exists()), candidates[0])
        top, resolved = root.resolve(), path.resolve()
        if resolved == top or not resolved.is_relative_to(top):
            return Located(name, inside=False, exists=True)
        relative = path.relative_to(root) if path.is_relative_to(root) else resolved.relative_to(top)
        inside, exists = (True, path.is_file()) if not path.is_dir() else _looked_through(path, top)
        return Located(relative.as_posix(), inside, exists)
    except (OSError, RuntimeError, ValueError):  # a name too long, a link to itself, a NUL: nothing lies there
        return Located(name, inside=True, exists=False)


def _looked_through(folder: Path, top: Path) -> tuple[bool, bool]:
    """Whether a folder's files all stay under `top`, and whether there is one that is not hidden.

    Only links cost a look at the disk beyond the listing: a cohort has millions of files.
    """
    found, pending = False, [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(top):
                    return False, True
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif not found and not entry.name.startswith("."):
                    found = entry.is_file()
    return True, found
