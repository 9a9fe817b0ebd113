"""Studies of a table in an archive whose files lie in any layout: by study UID or accession number, through its index.

Images that are named by the table, or named after the study: `images.py`. The index: `imaging/archive/`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from fmaudit_core.cohort.schema import blank, broken_rules
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.notes import Notes
from fmaudit_core.tabular.words import trimmed, without_missing_words

#: columns that name a study of an archive; the first decides
KEYS: Final = ("study_uid", "accession")
_GIVEN: Final = ~blank("study_uid")
_RULES: Final = {
    "no study UID and no accession number": blank("study_uid") & blank("accession"),
    "the accession number belongs to several studies of the archive": ~_GIVEN & (pl.col("n_of_accession") > 1),
    "several rows name one study of the archive": pl.col("found").is_not_null() & pl.col("found").is_duplicated(),
}


@dataclass(frozen=True)
class Archive:
    """The index of an archive as the reader of a table needs it.

    Parameters
    ----------
    studies : frame of `study_uid` and `accessions` (list of text), a row per study
    passed_over : mapping of reason to number of files
        Files that belong to no study.
    n_duplicates : int
        Files whose SOP Instance UID another file has.
    """

    studies: pl.DataFrame
    passed_over: Mapping[str, int] = field(default_factory=dict)
    n_duplicates: int = 0


#: makes the index of the images, or brings it up to date
ReadArchive = Callable[[], Archive]


def studies_in_archive(raw: pl.DataFrame, archive: Archive, *, where: str, notes: Notes) -> pl.Series:
    """Return the Study Instance UID of each row, also of those that the archive does not hold; blank if it is not known.

    Parameters
    ----------
    raw : frame of text with `row` and at least one column of `KEYS`
        A row with a study UID is found by it, another one by its accession number. Both are compared as trimmed text.

    Raises
    ------
    CohortError
        Rows that name no study, several studies, or the same one; or the archive holds none of them. No identifier is shown.
    """
    found = _joined(_keys(raw), archive.studies)
    problems = broken_rules(found, _RULES)
    if problems:
        raise CohortError(
            problems,
            where=where,
            fix="Give each row its own study of the archive. Where an accession number has several, give `study_uid`.",
        )
    n_found = len(found) - found.get_column("found").null_count()
    if not n_found:
        raise CohortError(
            f"none of its {len(raw):,} studies is among the {archive.studies.height:,} of the archive.",
            where=where,
            fix="Map the columns of study UIDs or accession numbers under `cohort: columns:` as `study_uid` or `accession`; "
            "`fmaudit index DIR --out index.parquet` lists what the archive holds.",
        )
    n_by_uid = found.select((pl.col("found").is_not_null() & _GIVEN).sum()).item()
    how = f"{n_by_uid:,} by study_uid, {n_found - n_by_uid:,} by accession"
    notes.add("studies found in the archive of images", n_found, "studies", how)
    notes.add("studies that the archive does not hold", len(found) - n_found, "studies", "they have no images")
    notes.add("studies of the archive that no row names", archive.studies.height - n_found, "studies", "not read")
    notes.add(
        "files of the archive with the UID of another", archive.n_duplicates, "files", "equal slices are used once"
    )
    for reason, n in archive.passed_over.items():
        notes.add(f"files of the archive that belong to no study: {reason}", n, "files")
    return found.select(pl.coalesce("found", "study_uid")).to_series().alias("study_uid")


def _keys(raw: pl.DataFrame) -> pl.DataFrame:
    cells = {name: without_missing_words(raw.get_column(name)) for name in KEYS if name in raw.columns}
    return raw.select("row").with_columns(**{name: cells.get(name, pl.lit("")) for name in KEYS})


def _joined(keys: pl.DataFrame, studies: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with the study that was `found`, null if there is none, and the number of studies of their accession."""
    accession = pl.col("accessions").map_elements(trimmed, return_dtype=pl.String)
    pairs = studies.explode("accessions").drop_nulls("accessions").select("study_uid", accession=accession).unique()
    by_accession = pairs.group_by("accession").agg(n_of_accession=pl.len(), of_accession=pl.col("study_uid").first())
    held = studies.select("study_uid", held="study_uid")
    rows = keys.join(held, on="study_uid", how="left", maintain_order="left")
    rows = rows.join(by_accession, on="accession", how="left", maintain_order="left")
    return rows.with_columns(found=pl.when(_GIVEN).then("held").otherwise("of_accession"))
