"""Design matrix for probes: columns of the kept codes, selected and filled on training studies only.

A code gives one column log(1 + days) per window and one for all time before the cutoff, its recency (30 / (30 + days ago): 1 at
the cutoff, 0 if never recorded), and its last value. Columns are ranked by their number of training studies with an entry, and
only the first are kept: coefficients of rare columns cannot be estimated, and one dense block serves every task and C of the
batched solver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

from fmaudit_core.ehr.cutoffs import CUTOFFS
from fmaudit_core.ehr.features import day_columns

Float32Array = npt.NDArray[np.float32]

RECENCY: Final = "recency"
LAST: Final = "last_value"
_HALF_DAYS: Final = 30.0


@dataclass(frozen=True)
class Design:
    """Design matrix of a record at one cutoff.

    Parameters
    ----------
    ids : study ids of the n rows, sorted
    columns : frame of `code, kind, n_studies`, a row per column; `n_studies` counts training studies with an entry
    matrix : (n, k) sparse float32; stored entries are known, including stored zeros
    means : (k,) float32, mean over the training studies with a value, 0 in columns that are not values
    """

    ids: list[str]
    columns: pl.DataFrame
    matrix: csr_matrix
    means: Float32Array

    def filled(self) -> Float32Array:
        """Return (n, k) float32 for a linear probe: missing values are the training mean, codes never recorded are 0."""
        return self._dense(self.means)

    def with_gaps(self) -> Float32Array:
        """Return (n, k) float32 for trees: missing values are NaN, codes never recorded are 0."""
        is_value = (self.columns.get_column("kind") == LAST).to_numpy()
        return self._dense(np.where(is_value, np.float32(np.nan), np.float32(0)).astype(np.float32))

    def _dense(self, empty: Float32Array) -> Float32Array:
        out = np.tile(empty, (len(self.ids), 1))
        at = np.repeat(np.arange(len(self.ids)), np.diff(self.matrix.indptr))
        out[at, self.matrix.indices] = self.matrix.data
        return out


def designs(
    features: pl.DataFrame, rows: pl.DataFrame, vocabulary: pl.DataFrame, *, windows_days: Sequence[int], most: int
) -> dict[str, Design]:
    """Build the design matrix at each cutoff, all with the same columns.

    Parameters
    ----------
    features, rows, vocabulary : frames of `features.EhrTables`
    most : int
        Largest number of columns.
    """
    kinds = [*day_columns(windows_days), RECENCY, LAST]
    n_kinds = len(kinds)
    chosen = _chosen(features, rows, kinds, most)
    codes = (chosen.get_column("column") // n_kinds).unique().cast(features.schema["code_id"])
    features = features.filter(pl.col("code_id").is_in(codes.implode()))
    place = np.full(vocabulary.height * n_kinds, -1, dtype=np.int64)
    place[chosen.get_column("column").to_numpy()] = np.arange(chosen.height)
    code_of = vocabulary.sort("code_id").get_column("code")
    columns = chosen.select(
        code=code_of.gather(chosen.get_column("column") // n_kinds),
        kind=pl.Series(kinds).gather(chosen.get_column("column") % n_kinds),
        n_studies="n_studies",
    )
    out = {}
    for cutoff in CUTOFFS:
        of_cutoff = rows.filter(cutoff=cutoff).sort("study_id")
        at = np.full(rows.height, -1, dtype=np.int64)
        at[of_cutoff.get_column("row").to_numpy()] = np.arange(of_cutoff.height)
        i, j, x = [], [], []
        for kind, values in _values(features, kinds):
            row, column = at[values[0]], place[values[1] * n_kinds + kind]
            inside = (row >= 0) & (column >= 0)
            i.append(row[inside])
            j.append(column[inside])
            x.append(values[2][inside])
        shape = (of_cutoff.height, columns.height)
        matrix = csr_matrix((np.concatenate(x), (np.concatenate(i), np.concatenate(j))), shape=shape, dtype=np.float32)
        in_train = (of_cutoff.get_column("split") == "train").to_numpy()
        means = _means(matrix[in_train], (columns.get_column("kind") == LAST).to_numpy())
        out[cutoff] = Design(of_cutoff.get_column("study_id").to_list(), columns, matrix, means)
    return out


def _chosen(features: pl.DataFrame, rows: pl.DataFrame, kinds: Sequence[str], most: int) -> pl.DataFrame:
    """Select the columns with the most training studies that have an entry at one of the cutoffs, sorted by column number."""
    train = features.join(rows.filter(split="train").select("row", "study_id"), on="row")
    has = {name: pl.col(name) > 0 for name in kinds if name not in (RECENCY, LAST)}
    has |= {RECENCY: pl.lit(value=True), LAST: pl.col(LAST).is_not_null()}
    # a study counts once, although it has two cutoffs
    each = train.group_by("study_id", "code_id").agg(one.any().alias(name) for name, one in has.items())
    counts = each.group_by("code_id").agg(pl.col(name).sum().cast(pl.Int64) for name in kinds).sort("code_id")
    long = counts.unpivot(kinds, index="code_id", variable_name="kind", value_name="n_studies")
    number = pl.col("kind").replace_strict({name: i for i, name in enumerate(kinds)}, return_dtype=pl.Int64)
    ranked = long.select((pl.col("code_id").cast(pl.Int64) * len(kinds) + number).alias("column"), "n_studies")
    # codes are numbered by frequency and then by name, so that ties have a fixed order
    kept = ranked.filter(pl.col("n_studies") > 0).sort("n_studies", "column", descending=[True, False]).head(most)
    return kept.sort("column")


def _values(
    features: pl.DataFrame, kinds: Sequence[str]
) -> list[tuple[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Float32Array]]]:
    """Return row, code and value of every known entry of each kind."""
    out = []
    for kind, name in enumerate(kinds):
        if name == RECENCY:
            known, value = features, _HALF_DAYS / (_HALF_DAYS + pl.col("days_ago"))
        elif name == LAST:
            known, value = features.drop_nulls(LAST), pl.col(LAST)
        else:
            known, value = features.filter(pl.col(name) > 0), pl.col(name).cast(pl.Float32).log1p()
        cells = known.select(pl.col("row", "code_id").cast(pl.Int64), value=value.cast(pl.Float32))
        out.append((kind, tuple(cells.get_column(one).to_numpy() for one in ("row", "code_id", "value"))))
    return out  # type: ignore[return-value]


def _means(train: csr_matrix, is_value: npt.NDArray[np.bool_]) -> Float32Array:
    """Return the mean of the stored entries of each value column, 0 for other columns."""
    stored = np.bincount(train.indices, minlength=train.shape[1])
    total = np.bincount(train.indices, weights=train.data, minlength=train.shape[1])
    means: Float32Array = np.where(is_value & (stored > 0), total / np.maximum(stored, 1), 0.0).astype(np.float32)
    return means
