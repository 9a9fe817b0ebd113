"""Slices of many studies as bags: few components per slice, stored on disk, read in padded batches with a mask.

A cohort's slice embeddings do not fit into memory, and a network reads them once per epoch. They are therefore streamed from the
encoder's file twice: once to compute the principal components of the training slices, once to write the slices in these
components, in half precision, to an unnamed temporary file. The file disappears with the process, however that ends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.linalg import eigh

from fmaudit_core.encoders.embeddings_reader import read_slice_counts, stream_slice_embeddings
from fmaudit_core.probes.errors import ProbeError
from fmaudit_core.storage.bucket_embeddings import EmbeddingsPath

Float16Array = npt.NDArray[np.float16]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
#: slice embeddings in no guaranteed order, as yielded by `encoders.embeddings_reader.stream_slice_embeddings`
Slices = Iterator[tuple[pa.Array, IntArray, Float32Array]]

#: components that explain a smaller share of the variance are rounding errors
_LEAST: Final = 1e-6


@dataclass(frozen=True)
class Components:
    """A projection of slices: standardised features on the principal axes of the training slices.

    Parameters
    ----------
    mean : (d,) float64
    axes : (d, r) float32; the columns' values have mean square 1 over all training slices and components
    explained : float, share of the variance of the standardised features that they keep
    """

    mean: Float64Array
    axes: Float32Array
    explained: float

    def of(self, embeddings: Float32Array) -> Float16Array:
        """Project raw slice embeddings, (k, d), to their components, (k, r)."""
        return ((embeddings - self.mean.astype(np.float32)) @ self.axes).astype(np.float16)


def principal_components(slices: Slices, train: Collection[str], most: int) -> Components:
    """Compute principal components of the standardised training slices; validation and test are not used.

    Parameters
    ----------
    train : study ids
    most : int
        Maximum number of components; 0 keeps all that are not rounding errors.

    Raises
    ------
    ProbeError
        No training study has slices, or a slice embedding is not finite.
    """
    wanted = set(train)
    n, shift = 0, None
    total: Float64Array = np.empty(0)
    gram: Float64Array = np.empty(0)
    for ids, _, embeddings in slices:
        inside = np.array([name in wanted for name in ids.dictionary.to_pylist()], dtype=bool)
        of_train = embeddings[inside[ids.indices.to_numpy()]]
        if not len(of_train):
            continue
        if not np.isfinite(of_train).all():
            raise ProbeError(
                "a slice embedding holds NaN or infinite values.", fix="Extract the embeddings of this encoder again."
            )
        if shift is None:  # subtracting a first mean keeps single precision accurate
            shift = of_train.mean(axis=0)
            total, gram = np.zeros(len(shift)), np.zeros((len(shift), len(shift)))
        off = of_train - shift
        n += len(off)
        total += off.sum(axis=0, dtype=np.float64)
        gram += off.T @ off
    if shift is None:
        raise ProbeError("no training study has slice embeddings.", fix="See slice_quality and the split.")
    mean = total / n
    covariance = gram / n - np.outer(mean, mean)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    constant = spread <= 1e-6 * np.maximum(np.abs(mean + shift), 1e-12)
    scale = np.where(constant, np.inf, spread)
    values, vectors = eigh(covariance / scale[:, None] / scale, driver="evd")
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    kept = int(np.count_nonzero(values > _LEAST * values.sum()))
    kept = max(1, min(kept, most or kept, n))
    level = np.sqrt(values[:kept].mean()) if values[:kept].mean() > 0 else 1.0
    axes = (vectors[:, :kept] / scale[:, None] / level).astype(np.float32)
    return Components(mean + shift, axes, float(values[:kept].sum() / max(values.sum(), 1e-300)))


@dataclass(frozen=True)
class SliceBags:
    """Slices of studies, projected to their components.

    Parameters
    ----------
    study_ids : sequence of str
    counts : (n,) int, number of slices kept of each study
    n_slices : (n,) int, number of slices of each study
    width : number of components of a slice
    explained : share of the variance that the components keep
    """

    study_ids: Sequence[str]
    counts: IntArray
    n_slices: IntArray
    width: int
    explained: float
    _file: int
    _starts: IntArray

    def batch(self, rows: IntArray) -> tuple[Float32Array, BoolArray]:
        """Return some studies, padded to the longest.

        Parameters
        ----------
        rows : (b,) indices in `study_ids`

        Returns
        -------
        (b, s, r) float32, 0 for padding, and (b, s) bool, True for slices
        """
        counts = self.counts[rows]
        longest = int(counts.max())
        out = np.zeros((len(rows), longest, self.width), dtype=np.float16)
        for one, row in zip(out, rows, strict=True):
            wanted = one[: self.counts[row]]
            read = os.preadv(self._file, [wanted.data.cast("B")], int(self._starts[row]) * self.width * 2)
            if read != wanted.nbytes:
                raise ProbeError("the file of slices is truncated.", fix="Check that the disk is not full.")
        return out.astype(np.float32), np.arange(longest) < counts[:, None]


@contextmanager
def slice_bags(
    path: EmbeddingsPath,
    studies: Collection[str],
    train: Collection[str],
    *,
    components: int,
    most_slices: int,
    folder: Path,
) -> Iterator[SliceBags]:
    """Yield the bags of those studies that have slice embeddings, sorted; they are available within the context.

    Parameters
    ----------
    path : EmbeddingsPath
        The encoder's file of embeddings.
    components : int
        Maximum number of components per slice; 0 keeps all information of the embedding.
    most_slices : int
        Maximum number of slices per study; a longer study is reduced to this number, evenly spaced from the feet to the head.
    folder : Path
        Folder of the unnamed temporary file, which takes two bytes for each component and slice.

    Raises
    ------
    ProbeError
        No training study has slices, or one is not finite.
    """
    chosen = set(studies)
    there = {study: count for study, count in read_slice_counts(path).items() if study in chosen}
    found = principal_components(stream_slice_embeddings(path), train, components)
    n_slices = np.array(list(there.values()), dtype=np.int64)
    counts = np.minimum(n_slices, most_slices)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        _write(file.fileno(), stream_slice_embeddings(path), found.of, _places(there, starts, most_slices))
        yield SliceBags(
            list(there), counts, n_slices, found.axes.shape[1], found.explained, file.fileno(), starts
        )  # fmt: skip


def evenly(n: int, most: int) -> IntArray:
    """Return the indices of at most `most` of n slices: all, or evenly spaced ones including both ends."""
    return np.arange(n) if n <= most else np.round(np.linspace(0, n - 1, most)).astype(np.int64)


def _places(there: dict[str, int], starts: IntArray, most: int) -> dict[str, IntArray]:
    """Return the row in the file of each study's slices, -1 for slices that are not kept."""
    places: dict[int, IntArray] = {}
    out = {}
    for (study, n), start in zip(there.items(), starts, strict=True):
        if n not in places:
            places[n] = np.full(n, -1, dtype=np.int64)
            kept = evenly(n, most)
            places[n][kept] = np.arange(len(kept))
        out[study] = np.where(places[n] < 0, -1, places[n] + start)
    return out


def _write(file: int, slices: Slices, of: Callable[[Float32Array], Float16Array], places: dict[str, IntArray]) -> None:
    """Write the kept slices at their rows, each contiguous run at once."""
    for ids, index, embeddings in slices:
        at = np.full(len(index), -1, dtype=np.int64)
        code = ids.indices.to_numpy()
        for k, study in enumerate(ids.dictionary.to_pylist()):
            if study in places:
                mine = code == k
                at[mine] = places[study][index[mine]]
        order = np.argsort(at, kind="stable")
        order = order[at[order] >= 0]
        if not len(order):
            continue
        rows, at = of(embeddings[order]), at[order]
        ends = np.flatnonzero(np.diff(at) != 1) + 1
        for run in np.split(np.arange(len(at)), ends):
            data = rows[run].tobytes()
            start = int(at[run[0]]) * rows.shape[1] * 2
            while len(data):
                written = os.pwrite(file, data, start)
                data, start = data[written:], start + written
