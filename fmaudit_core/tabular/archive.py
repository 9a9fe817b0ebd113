"""Safe extraction of a downloaded `.tar.gz`: links, paths outside the archive and truncated files are refused."""

from __future__ import annotations

import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.storage.processes import has_ended
from fmaudit_core.tabular.errors import CohortError

_BLOCK = 1 << 20


def unpacked(archive: Path, target: Path, *, suffixes: Sequence[str], progress: Progress = silent) -> Path:
    """Return the folder with the archive's files, extracted in one pass if it does not exist yet.

    Parameters
    ----------
    target : Path
        Appears by rename once it is complete, so a killed run leaves no partial folder.
    suffixes : sequence of str
        Files with other suffixes are ignored.

    Raises
    ------
    CohortError
        The archive contains a link, a device or a path outside the archive, is damaged or truncated, or does not fit on the disk.
    """
    if target.is_dir():
        return target
    size = archive.stat().st_size
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < size:  # Parquet is already compressed, so the extracted files need at least as much space
        raise CohortError(
            f"needs at least {size / 1e9:.1f} GB when unpacked, but {free / 1e9:.1f} GB are free.",
            where=archive.name,
            fix="Free some space or set FMAUDIT_HOME to a larger disk; or unpack it yourself and give the folder.",
        )
    for left in target.parent.glob(f".{target.name}.*"):
        if has_ended(left.name.rsplit(".", 1)[1]):
            shutil.rmtree(left, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a dead process with the same process id
    try:
        with archive.open("rb") as raw:
            _unpack(raw, archive.name, temporary, suffixes, size, progress)
        if not temporary.is_dir():
            raise CohortError(f"holds no {' or '.join(suffixes)} file.", where=archive.name)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _unpack(raw: IO[bytes], name: str, folder: Path, suffixes: Sequence[str], size: int, progress: Progress) -> None:
    try:
        with tarfile.open(fileobj=raw, mode="r|gz") as members:
            for member in members:
                path = _safe(member, name)
                if not member.isfile() or not path.name.lower().endswith(tuple(suffixes)):
                    continue
                content = members.extractfile(member)
                out = folder.joinpath(*path.parts)
                out.parent.mkdir(parents=True, exist_ok=True)
                with out.open("xb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)  # type: ignore[arg-type]  # a file, not a link: never None
                if os.path.getsize(out) != member.size:  # noqa: PTH202  # the archive was truncated inside a member
                    raise EOFError
                progress(min(raw.tell(), size), size)
            while raw.read(_BLOCK):  # read what follows the end marks
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, FileExistsError):
            raise  # the disk, not the archive
        raise CohortError("is damaged or truncated.", where=name, fix="Download it again.") from error


def _safe(member: tarfile.TarInfo, name: str) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()):
        raise CohortError(
            "holds a link or a device, which is refused.", where=name, fix="Unpack it yourself and give the folder."
        )
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or ":" in (path.parts[0] if path.parts else ""):
        raise CohortError(
            "holds a path outside the archive, which is refused.", where=name, fix="Do not use this file."
        )
    return path
