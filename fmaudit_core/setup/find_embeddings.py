"""Search of a folder for files of embeddings with vectors of the cohort's studies. They are read in `encoders/imported.py`."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import yaml

from fmaudit_core.encoders.checksums import sha256_of
from fmaudit_core.encoders.spec import IMPORTED

#: minimum share of the cohort's studies for a file to match the cohort
_LEAST_SHARE: Final = 0.5
#: suffixes of files of embeddings
SUFFIXES: Final = (".npz", ".parquet", ".h5", ".hdf5")


@dataclass(frozen=True)
class FoundEmbeddings:
    """A file of embeddings that matches the cohort.

    Parameters
    ----------
    name : str
        Name of the encoder, derived from the file name.
    study_id, embedding : str
        Names of the columns or arrays with the ids and the vectors.
    n_found : int
        Number of the cohort's studies in it.
    """

    path: Path
    name: str
    study_id: str
    embedding: str
    dim: int
    n_found: int

    def spec(self, registry: Path) -> str:
        """Return the encoder's YAML for the registry."""
        base, full = registry.resolve().parent, self.path.resolve()
        path = f"../{full.relative_to(base).as_posix()}" if full.is_relative_to(base) else str(full)
        file = {"path": path, "sha256": sha256_of(self.path), "study_id": self.study_id, "embedding": self.embedding}
        return yaml.safe_dump(
            {"name": self.name, "adapter": IMPORTED, "dim": self.dim, "embeddings": file}, sort_keys=False
        )


def embeddings_in(paths: Sequence[Path], ids: Sequence[str]) -> list[FoundEmbeddings]:
    """Return those files that hold a vector for at least half of the studies."""
    wanted, found = set(ids), []
    for path in paths:
        layout = _layout(path)
        if layout is None:
            continue
        study_id, embedding, dim, theirs = layout
        n_found = len(wanted & theirs)
        if n_found >= _LEAST_SHARE * len(wanted):
            name = re.sub(r"[^a-z0-9_-]+", "_", path.stem.lower()).strip("_")[:64] or "embeddings"
            found.append(FoundEmbeddings(path, name, study_id, embedding, dim, n_found))
    return found


def _layout(path: Path) -> tuple[str, str, int, set[str]] | None:
    """Return the names of ids and vectors, the dimension, and the ids; None if the file is something else."""
    try:
        if path.suffix.lower() == ".parquet":
            return _of_parquet(path)
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return _of_arrays({name: arrays[name] for name in arrays.files})
        if find_spec("h5py") is None:
            return None
        import h5py

        with h5py.File(path, "r") as file:
            return _of_arrays({name: one[()] for name, one in file.items() if isinstance(one, h5py.Dataset)})
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, pl.exceptions.PolarsError):
        return None


def _of_parquet(path: Path) -> tuple[str, str, int, set[str]] | None:
    schema = pl.read_parquet_schema(path)
    vectors = [
        name for name, kind in schema.items() if isinstance(kind, pl.List | pl.Array) and kind.inner.is_numeric()
    ]
    ids = [name for name, kind in schema.items() if kind == pl.String or kind.is_integer()]
    if len(vectors) != 1 or not ids:
        return None
    name = "study_id" if "study_id" in ids else ids[0]
    frame = pl.read_parquet(path, columns=[name, vectors[0]])
    if frame.is_empty():
        return None
    first = frame.get_column(vectors[0])[0]
    return name, vectors[0], len(first), set(frame.get_column(name).cast(pl.String).drop_nulls())


def _of_arrays(arrays: Mapping[str, Any]) -> tuple[str, str, int, set[str]] | None:
    ids = [name for name, one in arrays.items() if one.ndim == 1 and one.dtype.kind in "USOi"]
    vectors = [name for name, one in arrays.items() if one.ndim == 2 and one.dtype.kind == "f"]
    if len(ids) != 1 or len(vectors) != 1 or len(arrays[ids[0]]) != len(arrays[vectors[0]]):
        return None
    texts = {one.decode() if isinstance(one, bytes) else str(one) for one in arrays[ids[0]].tolist()}
    return ids[0], vectors[0], int(arrays[vectors[0]].shape[1]), texts
