"""Paths of the images of each study, checked to lie inside the cohort's folder. For image contents see `imaging`."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: encodings of names on patient CDs: Windows and Latin-1, then DOS
_ENCODINGS: Final = ("cp1252", "latin-1", "cp850", "cp437")


#: names -> those of them that have objects in a bucket
ListedNames = Callable[[Sequence[str]], Collection[str]]


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
        texts = [f"{name}{suffix}" for suffix in suffixes]
        text = next((one for one in texts if on_disk(root, one).exists()), texts[0])
        path = on_disk(root, text)
        top, resolved = root.resolve(), path.resolve()
        if resolved == top or not resolved.is_relative_to(top):
            return Located(name, inside=False, exists=True)
        relative = path.relative_to(root) if path.is_relative_to(root) else resolved.relative_to(top)
        relative = Path(text) if path != root / text else relative
        inside, exists = (True, path.is_file()) if not path.is_dir() else _looked_through(path, top)
        return Located(relative.as_posix(), inside, exists)
    except (OSError, RuntimeError, ValueError):  # name too long, link to itself, NUL character: no such path
        return Located(name, inside=True, exists=False)


def locate_listed(found: Collection[str], name: str, suffixes: Sequence[str]) -> Located:
    """Return the images of a study in a bucket, where a name is inside its folder unless it leads out of it by its parts."""
    texts = [f"{name}{suffix}" for suffix in suffixes]
    inside = not name.startswith("/") and ".." not in name.split("/")
    return Located(
        next((one for one in texts if one in found), name), inside, not inside or any(one in found for one in texts)
    )


def on_disk(root: Path, relative: str) -> Path:
    """Return the path of a name from a table: as it is, else as another encoding or composition of its letters that exists.

    A name with letters beyond ASCII has other bytes on a disk that was written by another system, such as a patient CD.
    """
    path = root / relative
    if relative.isascii() or path.exists():
        return path
    return next((one for one in (root / name for name in _otherwise(relative)) if one.exists()), path)


def _otherwise(name: str) -> Iterator[str]:
    """Yield other spellings of the same letters on disk."""
    yield from (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    for encoding in _ENCODINGS:
        yield os.fsdecode(unicodedata.normalize("NFC", name).encode(encoding, "ignore"))


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
