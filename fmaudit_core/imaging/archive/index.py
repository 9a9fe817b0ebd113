"""A published index of an archive, for its readers: studies, the files of one study, and counts. It is made in `build.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.imaging.archive.path_text import path_of_text
from fmaudit_core.imaging.bucket_images import copied_objects
from fmaudit_core.imaging.errors import ImagingError
from fmaudit_core.storage.bucket import Bucket

#: increased when other columns are kept, or the same files give other rows
INDEX_REVISION: Final = 1
_FILES, _STUDIES = "files.parquet", "studies.parquet"
#: modalities of DICOM PS3.3 C.7.3.1.1.1
_MODALITY: Final = r"^[A-Z][A-Z0-9]{1,9}$"
#: columns of the files of an index, a row per file, sorted by study and path; of an object, `mtime_ns` is a number for its ETag
FILES: Final = {
    "path": pl.String,
    "bytes": pl.Int64,
    "mtime_ns": pl.Int64,
    "study_uid": pl.String,
    "series_uid": pl.String,
    "sop_uid": pl.String,
    "accession": pl.String,
    "modality": pl.String,
    "reason": pl.String,
}


@dataclass(frozen=True)
class IndexedStudy:
    """The images of one study by an index.

    Parameters
    ----------
    digest : str
        Of paths, sizes and times of change, or ETags, of its files; empty if the archive has none.
    n_bytes : int
        Size of its files.
    """

    index: ArchiveIndex
    study_uid: str
    digest: str = ""
    n_bytes: int = 0

    @contextmanager
    def opened(self) -> Iterator[list[Path]]:
        """Yield the files of the study, sorted by path; of a bucket copies, removed afterwards, of those that are still there.

        Raises
        ------
        StoreError
            The bucket does not answer or refuses: no fault of the study.
        """
        root = self.index.root
        if isinstance(root, Path) or not self.digest:
            yield self.files()
            return
        names = [path_of_text(text) for text in self.index.paths_of(self.study_uid)]
        with copied_objects(
            root, names, below="", scratch=self.index.scratch or self.index.folder / "scratch"
        ) as folder:
            yield [path for path in (folder / name for name in names) if path.exists()]

    def files(self) -> list[Path]:
        """Return the files of the study on this machine, sorted by path; none if the archive has none."""
        return self.index.files_of(self.study_uid) if self.digest else []


@dataclass(frozen=True)
class Counts:
    """What is in an archive.

    Parameters
    ----------
    n_duplicates : int
        Files whose SOP Instance UID another file has too, without one of each; they are not passed over.
    n_shared_accessions : int
        Accession numbers of several studies.
    modalities : mapping of modality to number of files, most files first; a value that is no modality counts as `other`
    passed_over : mapping of reason to number of files, most files first
    """

    n_files: int
    n_dicom: int
    n_bytes: int
    n_studies: int
    n_series: int
    n_duplicates: int
    n_shared_accessions: int
    modalities: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchiveIndex:
    """An index of the files below a folder.

    Parameters
    ----------
    root : Path or Bucket
        The folder, or the folder of a bucket, that was indexed.
    folder : Path
        Where the index is kept.
    scratch : Path, optional
        Folder for copies of studies of a bucket; below `folder` if there is none.
    """

    root: Path | Bucket
    folder: Path
    scratch: Path | None = None

    @property
    def files(self) -> Path:
        """Return the Parquet file with a row per file, columns of `FILES`."""
        return self.folder / _FILES

    @property
    def studies_file(self) -> Path:
        """Return the Parquet file with a row per study."""
        return self.folder / _STUDIES

    def studies(self) -> pl.DataFrame:
        """Return one row per study: `study_uid`, `accessions` (list of text), `n_files`, `n_bytes` and `digest`.

        Raises
        ------
        ImagingError
            The index has not been made, or is damaged.
        """
        return self._read(self.studies_file)

    def without_images(self, study_uid: str) -> IndexedStudy:
        """Return a study that the archive does not hold."""
        return IndexedStudy(self, study_uid)

    def images_of(self, studies: pl.DataFrame) -> dict[str, IndexedStudy]:
        """Return the images of rows of `studies()` by study UID."""
        columns = studies.select("study_uid", "digest", "n_bytes")
        return {uid: IndexedStudy(self, uid, digest, n_bytes) for uid, digest, n_bytes in columns.iter_rows()}

    def files_of(self, study_uid: str) -> list[Path]:
        """Return the files of a study, sorted by path.

        Raises
        ------
        ImagingError
            The index has not been made, or is damaged.
        """
        if not isinstance(self.root, Path):
            raise TypeError("objects of a bucket are copied first: IndexedStudy.opened")
        return [self.root / path_of_text(text) for text in self.paths_of(study_uid)]

    def paths_of(self, study_uid: str) -> list[str]:
        """Return the paths of the files of a study below the folder, as text, sorted.

        Raises
        ------
        ImagingError
            The index has not been made, or is damaged.
        """
        rows = self._scanned(
            pl.scan_parquet(self.files, glob=False).filter(pl.col("study_uid") == study_uid).select("path")
        )
        return rows.get_column("path").to_list()

    def counts(self) -> Counts:
        """Return what is in the archive, without any identifier."""
        files = pl.scan_parquet(self.files, glob=False)
        dicom = files.filter(pl.col("reason") == "")
        totals = self._scanned(files.select(n=pl.len(), bytes=pl.col("bytes").sum())).row(0)
        known = dicom.filter(pl.col("sop_uid") != "")
        of_dicom = self._scanned(dicom.select(pl.len(), pl.struct("study_uid", "series_uid").n_unique())).row(0)
        n_duplicates = self._scanned(known.select(pl.len() - pl.col("sop_uid").n_unique())).item()
        studies = self.studies()
        shared = studies.explode("accessions").drop_nulls("accessions").group_by("accessions").len()
        return Counts(
            n_files=totals[0],
            n_dicom=of_dicom[0],
            n_bytes=totals[1],
            n_studies=studies.height,
            n_series=of_dicom[1],
            n_duplicates=n_duplicates,
            n_shared_accessions=shared.filter(pl.col("len") > 1).height,
            modalities=self._by(dicom.with_columns(_modality()), "modality"),
            passed_over=self._by(files.filter(pl.col("reason") != ""), "reason"),
        )

    def _by(self, rows: pl.LazyFrame, column: str) -> dict[str, int]:
        counted = rows.group_by(column).agg(n=pl.len()).sort(["n", column], descending=[True, False])
        return dict(self._scanned(counted).iter_rows())

    def _read(self, path: Path) -> pl.DataFrame:
        return self._scanned(pl.scan_parquet(path, glob=False))

    def _scanned(self, rows: pl.LazyFrame) -> pl.DataFrame:
        try:
            return rows.collect(engine="streaming")
        except FileNotFoundError:
            raise ImagingError(
                "the index of the images has not been made yet.",
                where=str(self.folder),
                fix="Run `fmaudit run`, or materialise the cohort in the UI.",
            ) from None
        except pl.exceptions.PolarsError as error:
            raise damaged(self.folder) from error


def _modality() -> pl.Expr:
    """Return the modality if it looks like one: a damaged header may hold anything there."""
    known = pl.col("modality").str.contains(_MODALITY)
    return pl.when(known).then("modality").otherwise(pl.lit("other")).alias("modality")


def damaged(folder: Path) -> ImagingError:
    """Return the error of an index that cannot be read."""
    return ImagingError(
        "the index of the images is damaged.", where=str(folder), fix="Delete this folder, then run again."
    )
