"""Paths of the images of each study, checked to lie inside the cohort's folder. For image contents see `imaging`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Located:
    """Images of one study: path relative to the root, whether it lies inside the root, and whether there are any images."""

    path: str
    inside: bool
    exists: bool


def locate(root: Path, name: str, suffixes: Sequence[str]) -> Located:
    """Find the folder or file of a study under `root`, with the first of `suffixes` that exists.

    A link lies outside the root if its target does. This applies to the study's folder and to the files in it.
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
    except (OSError, RuntimeError, ValueError):  # name too long, link to itself, NUL character: no such path
        return Located(name, inside=True, exists=False)


def _looked_through(folder: Path, top: Path) -> tuple[bool, bool]:
    """Return whether all files of a folder lie under `top`, and whether there is one that is not hidden.

    Only links need disk access beyond the listing, because a cohort has millions of files.
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
