"""Assessment of a file of predictions without a workspace or Dagster: read, assess, write the tables and the report page."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

import fmaudit_core
from fmaudit_core.common.errors import FmauditError, did_you_mean
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.vocabulary import ATTRIBUTES, SCORE_SET, family_task, identifying_levels
from fmaudit_core.config import Audit, FairnessSection, TableCohort
from fmaudit_core.fairness.adjusted_gaps import adjusted_gaps
from fmaudit_core.fairness.assess import Assessment, assess_evaluated
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.findings import findings, judged_as_found
from fmaudit_core.fairness.normal_form import DEFAULT_RULES, ROW, PredictionRules
from fmaudit_core.fairness.predictions import REQUIRED, evaluated, refuse_missing_columns, refuse_reserved_names
from fmaudit_core.fairness.score_warnings import withhold_verdicts
from fmaudit_core.fairness.site_estimates import site_estimates
from fmaudit_core.probes.primary_score_set import of_primary_pooling
from fmaudit_core.report.export import ReportFiles, write_report
from fmaudit_core.report.input.report_input import ReportInput, count_studies
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.tabular.errors import CohortError, columns_named
from fmaudit_core.tabular.kept_columns import Forms
from fmaudit_core.tabular.notes import Notes
from fmaudit_core.tabular.text_cells import SAVE_AS, SUFFIXES, column_names, has_decimal_comma, read_cells

#: columns of a predictions file that are never an attribute
_NOT_ATTRIBUTES: Final = {*REQUIRED, *SCORE_SET, "threshold", "threshold_source", "age"}
_SCORES: Final = ("y_score", "threshold")
#: ids stay text, because there are as many of them as rows
_FORMS: Final = Forms(numbers=("y_true", *_SCORES), scores=_SCORES, levels=True, text=("study_id", "patient_id"))
#: file of what `fmaudit export summary` needs besides audit.json
SITE_TABLE: Final = "site_estimates.parquet"


@dataclass(frozen=True)
class Assessed:
    """The output of an assessment of a file.

    Parameters
    ----------
    assessment : Assessment
    tables : Parquet files, one per table of the assessment
    report : the report page and its files
    """

    assessment: Assessment
    tables: Sequence[Path]
    report: ReportFiles


def read_predictions(path: Path, attributes: Sequence[str] | None = None) -> pl.DataFrame:
    """Read the rows of a CSV or Parquet file in the smallest form that keeps every cell as written.

    Ids are text; other columns are an Enum of their levels; scores and thresholds are Float64 if every cell is a number or
    blank. Labels, scores and thresholds keep a numeric type of Parquet.

    Parameters
    ----------
    attributes : sequence of str, optional
        Columns to read besides those that every predictions file may have; all columns if not given.

    Returns
    -------
    The rows, with the number of each in the column `ROW`

    Raises
    ------
    FairnessError
        The file is missing, has another format, or cannot be read in the format of its suffix.
    """
    _check_file(path)
    only = None if attributes is None else {*_NOT_ATTRIBUTES, *attributes}
    with _errors_at(path):
        frame, rows = read_cells(path, only=only, forms=_FORMS, expected=REQUIRED)
    return frame.with_columns(rows.alias(ROW))


def _check_file(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        other = f"`{path.suffix}`" if path.suffix else "a file without a suffix"
        raise FairnessError(
            f"predictions are read from CSV or Parquet, not from {other}.",
            where=str(path),
            fix=SAVE_AS,
        )
    if not path.exists():
        raise FairnessError("does not exist.", where=str(path))


@contextmanager
def _errors_at(path: Path) -> Iterator[None]:
    """Name the predictions file in every error."""
    try:
        yield
    except CohortError as error:
        raise FairnessError(error.what, where=str(path), fix=error.fix) from error
    except FmauditError as error:
        where = f"{path}, {error.where}" if error.where else str(path)
        raise type(error)(error.what, where=where, fix=error.fix) from error


def assess_file(
    predictions: Path,
    out: Path,
    *,
    attributes: Sequence[str] = (),
    covariates: Sequence[str] = (),
    mediators: Sequence[str] = (),
    settings: FairnessSection | None = None,
    threshold: float | None = None,
    name: str | None = None,
    rules: PredictionRules = DEFAULT_RULES,
    provenance: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> Assessed:
    """Assess a file of predictions and write the tables and the report page into `out`.

    Parameters
    ----------
    predictions : Path
        CSV or Parquet with the columns required by `fairness.assess`.
    attributes : sequence of str, optional
        Defaults to those of race_ethnicity, sex and age_band that the file has.
    covariates, mediators : sequence of str, optional
        Columns that gaps are standardised for, and those of them that may follow from the subgroup.
    rules : PredictionRules, optional
        How labels and levels are read.
    provenance : mapping of str to str, optional
        What else is known of the predictions, for the page and audit.json.

    Raises
    ------
    FairnessError
        The predictions cannot be assessed; the message gives the reason and a fix.
    """
    settings, notes = settings or FairnessSection(), Notes()
    frame, chosen = _read_chosen(predictions, attributes, covariates)
    levelled = list(dict.fromkeys((*chosen, *covariates)))
    rules = replace(rules, decimal_comma=has_decimal_comma(predictions, REQUIRED))
    with _errors_at(predictions):
        _check_covariates(frame, covariates, mediators)
        checked = evaluated(frame, levelled, settings, threshold, rules=rules, notes=notes)
        found = assess_evaluated(checked, chosen, settings, progress=progress)
        family = _family(checked.test, settings)
    judged = findings(family, found.fairness_gaps, found.subgroup_metrics, attributes=chosen, settings=settings)
    judged = withhold_verdicts(judged, found.score_warnings)
    gaps = judged_as_found(found.fairness_gaps, judged)
    found = replace(found, fairness_gaps=gaps, notes=notes.frame())
    main = of_primary_pooling(checked.test, settings.primary_pooling)
    adjusted = adjusted_gaps(main, chosen, covariates, settings, mediators=mediators, gaps=judged)
    frames = found.tables() | ({"adjusted_gaps": adjusted} if covariates else {})
    tables = [_written(out / f"{table}.parquet", content) for table, content in frames.items()]
    _written(out / SITE_TABLE, site_estimates(checked.test, chosen, settings))
    digest = hashlib.sha256(predictions.read_bytes()).hexdigest()
    report = write_report(
        out,
        ReportInput(
            audit=_audit(frame, name or predictions.stem, predictions, chosen, covariates, mediators, settings),
            subgroup_metrics=found.subgroup_metrics,
            fairness_gaps=found.fairness_gaps,
            threshold_sweep=found.threshold_sweep,
            audit_findings=judged,
            subgroup_calibration=found.subgroup_calibration,
            calibration_tests=found.calibration_tests,
            cross_group_auroc=found.cross_group_auroc,
            intersections=found.intersections,
            model_comparisons=found.model_comparisons,
            score_warnings=found.score_warnings,
            adjusted_gaps=adjusted,
            studies=count_studies(checked.studies, chosen),
            notes=found.notes,
            provenance={"sha256 of the predictions": digest, "fmaudit": fmaudit_core.__version__}
            | dict(provenance or {}),
        ),
    )
    return Assessed(found, tables, report)


def _check_covariates(frame: pl.DataFrame, covariates: Sequence[str], mediators: Sequence[str]) -> None:
    refuse_reserved_names(list(covariates))
    if others := [did_you_mean(one, covariates) for one in mediators if one not in covariates]:
        raise FairnessError(f"{', '.join(others)} is named under --mediators but not under --covariates.")
    for one in covariates:
        if frame.get_column(one).n_unique() < 2:
            raise FairnessError(
                f"covariate {one} has one level only, so no gap can go with it.",
                fix="Leave it out of --covariates.",
            )


def _read_chosen(
    predictions: Path, attributes: Sequence[str], covariates: Sequence[str]
) -> tuple[pl.DataFrame, list[str]]:
    """Return the rows of a file and the attributes to compare: those named, else those of `ATTRIBUTES` that it has.

    Raises
    ------
    FairnessError
        No attribute can be chosen, a column is missing, or an attribute or covariate has so many levels that it may identify
        patients.
    """
    _check_file(predictions)
    with _errors_at(predictions):
        found = column_names(predictions, REQUIRED)
    chosen = list(dict.fromkeys(attributes)) or [one for one in ATTRIBUTES if one in found]
    if not chosen:
        others = [one for one in found if one not in _NOT_ATTRIBUTES]
        raise FairnessError(
            f"no column is one of {', '.join(ATTRIBUTES)}, so there are no subgroups to compare.",
            where=str(predictions),
            fix=f"Name the columns with --attributes; the other columns are {columns_named(others)}.",
        )
    with _errors_at(predictions):
        refuse_missing_columns((*REQUIRED, *chosen, *covariates), found)
    frame = read_predictions(predictions, [*chosen, *covariates])
    n_patients = frame.get_column("patient_id").n_unique()
    for one in (*chosen, *covariates):
        if problem := identifying_levels(one, frame.get_column(one).n_unique(), n_patients):
            raise FairnessError(
                problem,
                where=str(predictions),
                fix="Name other columns with --attributes or --covariates, or group its levels.",
            )
    return frame, chosen


def _family(test: pl.DataFrame, settings: FairnessSection) -> pl.DataFrame:
    """Return the predictions of the declared family: one task, and the primary pooling of each encoder."""
    tasks = test.get_column("task").unique(maintain_order=True).sort().to_list()
    family = test.filter(pl.col("task") == family_task(tasks))
    return of_primary_pooling(family, settings.primary_pooling)


def _audit(
    frame: pl.DataFrame,
    name: str,
    predictions: Path,
    attributes: Sequence[str],
    covariates: Sequence[str],
    mediators: Sequence[str],
    settings: FairnessSection,
) -> Audit:
    """Return the config shown on the page. Task names come from the file, so they are not validated as an audit's."""
    tasks = frame.get_column("task").unique().sort().to_list() if "task" in frame.columns else ["task"]
    cohort = TableCohort(kind="table", table=predictions, images=predictions.parent)
    return Audit.model_construct(
        name=name,
        cohort=cohort,
        tasks=tuple(tasks),
        attributes=tuple(attributes),
        covariates=tuple(covariates),
        mediators=tuple(mediators),
        fairness=settings,
    )


def _written(path: Path, frame: pl.DataFrame) -> Path:
    with written_beside(path) as temporary:
        frame.write_parquet(temporary)
    return path
