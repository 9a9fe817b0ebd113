"""SHA-256 of a checkpoint: of its file, or of all files of a sharded one."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Final

from fmaudit_core.encoders.errors import WeightsError

INDEX_SUFFIX: Final = ".safetensors.index.json"


def checkpoint_sha256(path: Path) -> str:
    """Return the SHA-256 of a checkpoint.

    A sharded checkpoint is identified by its index (`model.safetensors.index.json`). Its digest is the digest of the list that
    `sha256sum` prints for the index and every shard it names, sorted by name::

        sha256sum *.safetensors *.safetensors.index.json | LC_ALL=C sort -k2 | sha256sum

    Raises
    ------
    WeightsError
        The index is not valid, or a shard is missing.
    """
    if not path.name.endswith(INDEX_SUFFIX):
        return sha256_of(path)
    files = sorted([path, *{path.parent / name for name in weight_map(path).values()}], key=lambda one: one.name)
    listed = "".join(f"{sha256_of(one)}  {one.name}\n" for one in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def weight_map(index: Path) -> dict[str, str]:
    """Return the shard of each tensor: tensor name -> file name in the index's folder.

    Raises
    ------
    WeightsError
        The index is not valid, names a file in another folder, or a shard is missing.
    """
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(name): str(file) for name, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError("is not the index of a sharded checkpoint.", where=str(index)) from error
    for file in sorted(set(shards.values())):
        if Path(file).name != file or file in {"", ".", ".."}:
            raise WeightsError(f"the index names {file!r}, which is in another folder.", where=str(index))
        if not (index.parent / file).is_file():
            raise WeightsError(f"the shard {file} is missing.", where=str(index))
    return shards


def sha256_of(*paths: Path) -> str:
    """Return the SHA-256 of files joined in this order; unchanged files are not read again."""
    return _sha256(tuple((str(path), (status := path.stat()).st_size, status.st_mtime_ns) for path in paths))


@cache
def _sha256(files: tuple[tuple[str, int, int], ...]) -> str:
    """Compute the digest; size and modification time are part of the cache key, so changed files are read again."""
    seen = hashlib.sha256()
    for path, _, _ in files:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                seen.update(block)
    return seen.hexdigest()
