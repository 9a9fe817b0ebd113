"""Reader of the INSPECT release. It builds a `Cohort` from tables, volumes and persons, and counts every exclusion.

`release_files.py` finds files, `release_tables.py` joins tables, `labels.py` parses labels, and `demographics.py` reads
patients. Splits and outcomes are those of the release and are never recomputed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fmaudit_core.cohort.ages import band_of, completed_years
from fmaudit_core.cohort.inspect_release.demographics import (
    PEOPLE,
    people_of_file,
    people_of_meds,
    people_of_omop,
    race_ethnicity,
)
from fmaudit_core.cohort.inspect_release.labels import boolean, labels_of, task_columns
from fmaudit_core.cohort.inspect_release.release_files import (
    LACKING_VOLUMES,
    VOLUME_FOLDERS,
    Release,
    locate_release,
    optional_tables_missing,
    volumes_missing,
)
from fmaudit_core.cohort.inspect_release.release_tables import read_listed, split_of, volume_name
from fmaudit_core.cohort.outcomes import check_classes, flow_of, label_flow
from fmaudit_core.cohort.schema import MAX_AGE, Cohort, validate_labels, validate_studies
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.vocabulary import ATTRIBUTES, UNKNOWN
from fmaudit_core.config import AgeBand, InspectCohort
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.digests import digest, files_digest
from fmaudit_core.tabular.errors import CohortError
from fmaudit_core.tabular.meds import MedsDataset, find_meds, open_meds
from fmaudit_core.tabular.notes import Notes
from fmaudit_core.tabular.omop import find_omop, folders_below
from fmaudit_core.tabular.scan import Column, collected, newest, scan_table, whole_number

ADULT_FROM: Final = 18
#: older patients have this age in the source
OLDEST: Final = 90
#: increment if `people_of_meds` returns other rows or notes for the same events
_PEOPLE_REVISION: Final = 2


@dataclass(frozen=True)
class _Demographics:
    """Demographics of the persons.

    Parameters
    ----------
    levels : person_id, sex, race_ethnicity
    ages : person_id, birth, age; birth and age may be NULL
    splits : subject_id, split of the medical record, or None
    """

    levels: pl.DataFrame
    ages: pl.DataFrame
    splits: pl.DataFrame | None = None


def read_inspect_cohort(
    section: InspectCohort,
    *,
    tasks: Sequence[str],
    attributes: Sequence[str],
    covariates: Sequence[str] = (),
    age_bands: Sequence[AgeBand],
    cache: Path,
    objects: Collection[str] | None = None,
    progress: Progress = silent,
) -> Cohort:
    """Read and validate the cohort of an INSPECT download.

    Parameters
    ----------
    section : InspectCohort
        Locations of the download, its volumes, its medical record or a user's demographics.
    tasks : sequence of str
        From the eight tasks of INSPECT.
    attributes, covariates : sequence of str
        From race_ethnicity, sex, age_band.
    age_bands : sequence of AgeBand
        Studies with a known age outside all bands are excluded and counted.
    cache : Path
        Folder for data that is expensive to read twice (the unpacked archive of the medical record and its persons), and for the
        names of missing volumes.
    objects : collection of str, optional
        Names of all objects of the folder of volumes, if they are in a bucket.

    Returns
    -------
    Cohort
        In addition to the columns of `STUDIES`, studies have: time (of the order, else of the note, else NULL), time_source,
        provenance, contrast_mentioned, rescale_slope, rescale_intercept, listed_slices, listed_thickness_mm.

    Raises
    ------
    CohortError
        A file, column, label, person or split is missing or wrong, or more than a few volumes are missing. The message gives row
        numbers and counts, and never names patients.
    """
    _check_attributes([*attributes, *covariates])
    columns = task_columns(tasks)
    release, notes = locate_release(section.root, images=section.images, listed=objects), Notes()
    notes.add(f"release {release.layout}", 1, "files", release.labels.name)
    for lacking in optional_tables_missing(release):
        notes.add(f"not there: {lacking}", 1, "files")
    if release.old_record:
        notes.add("the medical record of 0.2.0 is not read", 1, "files", "give OMOP or MEDS under `cohort: ehr:`")
    listed = read_listed(release, columns, notes, partial=section.partial)
    volumes = listed.get_column("volume").drop_nulls().to_list()
    lacking_volumes = volumes_missing(release, volumes, partial=section.partial, told_in=cache)
    notes.add("listed volume that is not there", lacking_volumes, "volumes", f"named in {cache.name}/{LACKING_VOLUMES}")
    _note_crosswalk(section, listed, notes)
    _note_record(section, notes)
    demographics = _demographics(section, notes, cache, progress)
    described = _described(listed, demographics, release, age_bands)
    steps = _steps(described, release)
    kept = steps[-1][1]
    where = release.labels.name
    if kept.is_empty():
        raise CohortError("no study is left after the exclusions.", where=where)
    # every label word must be valid, including those of excluded studies
    labels = labels_of(described.unique("study_id", keep="first", maintain_order=True), tasks, where)
    labels = labels.join(kept.select("study_id"), on="study_id", how="semi", maintain_order="left")
    check_classes(kept, labels, tasks, where)
    _note_studies(kept, demographics, notes)
    studies = _studies(kept)
    return Cohort(
        studies=validate_studies(studies, where=where),
        labels=validate_labels(labels, where=where),
        flow=flow_of(steps, labels, tasks),
        images_root=release.images_root if isinstance(release.images_root, Path) else None,
        label_flow=label_flow(studies, labels, attributes),
        notes=notes.frame(),
    )


def _check_attributes(attributes: Sequence[str]) -> None:
    others = [name for name in attributes if name not in ATTRIBUTES]
    if others:
        raise CohortError(
            f"INSPECT has no attribute {', '.join(others)}; the attributes are {', '.join(ATTRIBUTES)}.",
            where="audit.yaml",
            fix="Correct it under `attributes:` or `covariates:`.",
        )


def _demographics(section: InspectCohort, notes: Notes, cache: Path, progress: Progress) -> _Demographics:
    """Read demographics from the user's file, else from OMOP persons, else from MEDS; raise an error if there are none."""
    if section.demographics is not None:
        levels, ages = people_of_file(section.demographics)
        notes.add("demographics of a user's file", levels.height, "persons", section.demographics.name)
        return _Demographics(levels, ages)
    root = section.ehr or section.root
    splits = None
    tables = find_omop(root, passing_over=VOLUME_FOLDERS)
    if tables is not None and "person" in tables.files:
        people, source = people_of_omop(tables, notes), "demographics of the OMOP table person"
    elif (found := find_meds(root, passing_over=VOLUME_FOLDERS)) is not None:
        dataset = open_meds(found, unpack_into=cache, progress=progress)
        people, source = _people_of_meds(dataset, notes, cache), "demographics of MEDS person events"
        splits = dataset.subject_splits()
    else:
        raise CohortError(
            "no table in this folder holds sex, race, ethnicity and age, so no subgroup can be formed; the tables of "
            "the release do not hold them. Missing: person.csv or person.parquet (OMOP), or meds_omop_inspect.tar.gz "
            "or its folder (MEDS).",
            where=str(root),
            fix="Download one of them from Redivis and set `cohort: ehr:` (or --ehr DIR), or give a table with person_id, sex, "
            "race_ethnicity and birth_date or age as `cohort: demographics:` (or --demographics FILE).",
        )
    notes.add(source, people.height, "persons")
    levels = people.select("person_id", "sex", race_ethnicity(section.unknown_ethnicity).alias("race_ethnicity"))
    return _Demographics(levels, people.select("person_id", "birth", age=pl.lit(None, pl.Int64)), splits)


def _people_of_meds(dataset: MedsDataset, notes: Notes, cache: Path) -> pl.DataFrame:
    """Read the persons of a MEDS dataset through a cache, because this reads the codes of hundreds of millions of events."""
    files = [path.relative_to(dataset.folder).as_posix() for path in dataset.shards]
    made_of = digest(_PEOPLE_REVISION, files_digest(dataset.folder, [*files, "metadata"]))[:16]
    path, noted = cache / f"people-{made_of}.parquet", cache / f"people-{made_of}-notes.parquet"
    if not (path.exists() and noted.exists()):
        own = Notes()
        people = people_of_meds(dataset, own).select(PEOPLE.names())
        with written_beside(noted) as temporary:
            own.frame().write_parquet(temporary)
        with written_beside(path) as temporary:
            people.write_parquet(temporary)
    notes.rows.extend(pl.read_parquet(noted).iter_rows())
    return pl.read_parquet(path)


def _note_crosswalk(section: InspectCohort, listed: pl.DataFrame, notes: Notes) -> None:
    """Count volumes that the crosswalk of the medical record assigns to another person. The table of the release is used."""
    folders = folders_below(section.ehr or section.root, VOLUME_FOLDERS)
    found = [path for folder in folders for path in folder.glob("image_ehr_crosswalk*.csv")]
    if not found:
        return
    path = newest(found)
    columns = [Column("crosswalk", ("person_id", "patient_id")), Column("volume", ("image_id",))]
    rows = collected(scan_table(path, columns), where=path.name)
    rows = rows.select(whole_number("crosswalk"), volume_name("volume")).drop_nulls().unique()
    apart = listed.join(rows, on="volume").filter(pl.col("person_id") != pl.col("crosswalk"))
    notes.add(
        f"another person in {path.name}", apart.get_column("volume").n_unique(), "volumes", "study_mapping is followed"
    )


def _note_record(section: InspectCohort, notes: Notes) -> None:
    """Note the missing tables of an OMOP record, if it is the record that is read."""
    root = section.ehr or section.root
    if find_meds(root, passing_over=VOLUME_FOLDERS) is None:
        tables = find_omop(root, passing_over=VOLUME_FOLDERS)
        for lacking in tables.lacking() if tables else ():
            notes.add(f"not there: OMOP table {lacking}", 1, "files")


def _described(
    listed: pl.DataFrame,
    demographics: _Demographics,
    release: Release,
    age_bands: Sequence[AgeBand],
) -> pl.DataFrame:
    """Return all listed studies with demographics, age at the study, age band and volume path, before exclusions."""
    paths = pl.DataFrame(
        {"volume": list(release.volumes), "image_path": list(release.volumes.values())},
        schema={"volume": pl.String, "image_path": pl.String},
    )
    joined = (
        listed.join(demographics.levels, on="person_id", how="left", maintain_order="left")
        .join(demographics.ages, on="person_id", how="left", maintain_order="left")
        .join(paths, on="volume", how="left", maintain_order="left")
    )
    years = completed_years(pl.col("birth"), pl.col("time"))
    at_study = pl.when(years.is_between(0, MAX_AGE)).then(years)
    # without a birth date, the age of the user's file is used
    age = pl.coalesce(at_study, pl.when(pl.col("birth").is_null()).then("age"))
    joined = joined.with_columns(
        patient_id=pl.col("person_id").cast(pl.String),
        split=split_of(),
        given_age=age,
        impossible_birth=years.is_not_null() & at_study.is_null(),
        age=pl.when(age > OLDEST).then(pl.lit(OLDEST, pl.Int64)).otherwise(age),
        sex=pl.col("sex").fill_null(UNKNOWN),
        race_ethnicity=pl.col("race_ethnicity").fill_null(UNKNOWN),
    )
    band = pl.when(pl.col("age").is_null()).then(pl.lit(UNKNOWN)).otherwise(band_of(pl.col("age"), age_bands))
    return joined.with_columns(age_band=band)


def _steps(described: pl.DataFrame, release: Release) -> list[tuple[str, pl.DataFrame]]:
    """Return the studies left after each rule, in order. Studies without time or birth are kept with age band unknown."""
    age = pl.col("given_age")
    rules = {
        "each study once (identical repeats dropped)": pl.col("study_id").is_first_distinct(),
        "patient and split known": pl.col("person_id").is_not_null() & pl.col("split").is_not_null(),
        "a CT volume is there": pl.col("image_path").is_not_null(),
        f"aged {ADULT_FROM} or over, or of unknown age": age.is_null() | (age >= ADULT_FROM),
        "age inside the age bands, or unknown": pl.col("age_band").is_not_null(),
    }
    left = described
    steps = [(f"rows of {release.labels.name}", left)]
    for step, rule in rules.items():
        left = left.filter(rule)
        steps.append((step, left))
    return steps


def _note_studies(kept: pl.DataFrame, demographics: _Demographics, notes: Notes) -> None:
    """Add notes that count unusual properties of the included studies."""

    def count(rule: pl.Expr) -> int:
        return kept.filter(rule).height

    source = pl.col("time_source")
    notes.add("no time", count(source == "none"), "studies", "kept for CT; age band unknown, no medical record")
    notes.add("time of the note", count(source == "note"), "studies", "after the scan: the order has none")
    notes.add(f"older than {OLDEST}", count(pl.col("given_age") > OLDEST), "studies", f"given as {OLDEST}")
    of_birth = f"after the study, or more than {MAX_AGE} years before it: age taken as unknown"
    notes.add("impossible birth", count(pl.col("impossible_birth")), "studies", of_birth)
    persons = demographics.levels.get_column("person_id")
    unknown = kept.filter(~pl.col("person_id").is_in(persons.implode())).get_column("person_id").n_unique()
    notes.add("no demographics", unknown, "persons", "taken as unknown")
    if "pe" in kept.columns:
        other = boolean("pe_positive")
        notes.add(
            "pe_positive says otherwise", count(boolean("pe") != other), "studies", "pe_positive_nlp is the label"
        )
    mentioned = count(pl.col("contrast_mentioned").not_())
    notes.add("description without the word contrast", mentioned, "studies", "kept; see the column contrast_mentioned")
    if demographics.splits is not None:
        joined = kept.join(demographics.splits, left_on="person_id", right_on="subject_id", suffix="_of_meds")
        apart = joined.filter(pl.col("split") != pl.col("split_of_meds")).get_column("person_id").n_unique()
        notes.add("another split in subject_splits.parquet", apart, "persons", "the release's table is followed")


def _studies(kept: pl.DataFrame) -> pl.DataFrame:
    return kept.select(
        "study_id",
        "patient_id",
        "split",
        "age",
        "age_band",
        "sex",
        "race_ethnicity",
        "image_path",
        "time",
        "time_source",
        "provenance",
        "contrast_mentioned",
        "rescale_slope",
        "rescale_intercept",
        "listed_slices",
        "listed_thickness_mm",
    ).sort("study_id")
