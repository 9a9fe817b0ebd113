"""Checks of predictions before they are assessed, for predictions of any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from fmaudit_core.common.errors import columns_missing, did_you_mean
from fmaudit_core.common.vocabulary import (
    RESERVED_ATTRIBUTES,
    SCORE_SET,
    SPLITS,
    THRESHOLD_GIVEN,
    THRESHOLD_OF_VALIDATION,
    how_many,
)
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.contradictions import refuse_contradictions
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.normal_form import DEFAULT_RULES, ROW, PredictionRules, normal_form, rows_of
from fmaudit_core.fairness.thresholds import Draws, threshold_draws, with_thresholds
from fmaudit_core.tabular.errors import columns_named, ids_in_lower_case, words_named
from fmaudit_core.tabular.notes import Notes, note_similar_ids
from fmaudit_core.tabular.words import shortened_ids

REQUIRED = ("study_id", "patient_id", "split", "y_true", "y_score")
_DEFAULTS = {
    "encoder": "model", "task": "task", "probe": "given", "modality": "given", "pooling": "given", "strategy": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Evaluated:
    """Checked predictions of the evaluated split.

    Parameters
    ----------
    test : frame with `threshold` and `threshold_source` (``given`` or ``validation``)
    draws : bootstrap thresholds over validation patients, by score set; empty if thresholds are treated as fixed
    studies : frame with `study_id`, `patient_id`, `split` and the attributes, a row per study of any split
    """

    test: pl.DataFrame
    draws: Draws
    studies: pl.DataFrame


def evaluated(
    frame: pl.DataFrame,
    attributes: Sequence[str],
    settings: FairnessSection,
    threshold: float | None = None,
    *,
    rules: PredictionRules = DEFAULT_RULES,
    notes: Notes | None = None,
    unvalidated: bool = False,
) -> Evaluated:
    """Check predictions and set the threshold of each score set: `threshold`, else its own, else chosen on validation.

    Parameters
    ----------
    frame : frame
        May have a column `threshold` and a column `threshold_source`, which is ``validation`` if the caller chose the
        threshold on validation. A threshold without a source counts as given.
    rules : PredictionRules, optional
        How labels and levels are read.
    notes : Notes, optional
        Gets what was read in another way than written.
    unvalidated : bool
        Accept a score set with a blank threshold and no validation rows. Only its AUROC is reported.

    Raises
    ------
    FairnessError
        The predictions cannot be assessed. The message gives the reason and the fix.
    """
    if threshold is not None:
        frame = frame.with_columns(threshold=pl.lit(float(threshold)), threshold_source=pl.lit(THRESHOLD_GIVEN))
    checked = checked_predictions(frame, attributes, rules, notes)
    if "threshold" not in checked.columns:
        checked = with_thresholds(checked, settings).with_columns(threshold_source=pl.lit(THRESHOLD_OF_VALIDATION))
    else:
        _check_thresholds(checked)
        checked = _with_sources(checked)
        _check_given(checked)
        if checked.get_column("threshold").null_count():
            checked = _completed(checked, settings, unvalidated=unvalidated)
    draws = {}
    if settings.threshold_uncertainty:  # given thresholds are treated as fixed
        draws = threshold_draws(checked.filter(pl.col("threshold_source") == THRESHOLD_OF_VALIDATION), settings)
    studies = checked.select("study_id", "patient_id", "split", *attributes).unique("study_id", maintain_order=True)
    return Evaluated(checked.filter(pl.col("split") == "test"), draws, studies)


def _check_thresholds(checked: pl.DataFrame) -> None:
    """Refuse NaN thresholds and score sets with several thresholds, because a gap would then reflect the thresholds."""
    nan = checked.filter(pl.col("threshold").cast(pl.Float64).is_nan()).height
    if nan:
        raise FairnessError(
            f"threshold is NaN in {how_many(nan, 'row')}.", fix="Leave it blank to have it chosen on validation."
        )
    several = (
        checked.group_by(*SCORE_SET, maintain_order=True).agg(n=pl.col("threshold").n_unique()).filter(pl.col("n") > 1)
    )
    if several.height:
        row = several.row(0, named=True)
        raise FairnessError(
            f"threshold has {row['n']} values (blank counts as one), but a model must have one threshold per task.",
            where=f"{row['encoder']} x {row['task']}",
            fix="Give all rows of a score set the same threshold, or leave the column out to have it chosen on "
            "validation.",
        )


def _with_sources(checked: pl.DataFrame) -> pl.DataFrame:
    """Return the rows with `threshold_source`: the caller's, else ``given``; blank if there is no threshold."""
    if "threshold_source" in checked.columns:
        known = (THRESHOLD_GIVEN, THRESHOLD_OF_VALIDATION)
        odd = checked.filter(~pl.col("threshold_source").is_in(known)).get_column("threshold_source")
        if len(odd):
            raise FairnessError(
                f"threshold_source holds {', '.join(odd.unique().sort())}; it must be {' or '.join(known)}."
            )
        source = pl.col("threshold_source").fill_null(THRESHOLD_GIVEN)
    else:
        source = pl.lit(THRESHOLD_GIVEN)
    return checked.with_columns(threshold_source=pl.when(pl.col("threshold").is_not_null()).then(source))


def _check_given(checked: pl.DataFrame) -> None:
    """Refuse a given threshold outside the range of its score set's scores over all splits: it calls no study, or every study.

    A threshold chosen on validation is never refused, because its policy may call no study.
    """
    given = checked.filter(pl.col("threshold_source") == THRESHOLD_GIVEN)
    for key, frame in given.group_by(*SCORE_SET, maintain_order=True):
        threshold = float(frame.get_column("threshold")[0])
        scores = frame.get_column("y_score").to_numpy()
        low, high = float(scores.min()), float(scores.max())
        if low <= threshold <= high:
            continue
        called, side = ("no study", "above") if threshold > high else ("every study", "below")
        raise FairnessError(
            f"the given threshold {threshold:g} lies {side} all scores (range {low:g} to {high:g}), so {called} would "
            "be called positive.",
            where=" x ".join(str(part) for part in key[:2]),
            fix=f"{_other_scale(threshold, low, high)}Give the threshold on the scale of the scores, or leave it out "
            "to have it chosen on the split `val`.",
        )


def _other_scale(threshold: float, low: float, high: float) -> str:
    """Return a question about the scale if threshold and scores seem to be on different scales, else an empty string."""
    if 0 < threshold < 1:
        return "Are the scores log odds or per cent, and the threshold a probability? "
    if low >= 0 and high <= 1:
        return "Are the scores probabilities, and the threshold log odds or per cent? "
    return ""


def _completed(checked: pl.DataFrame, settings: FairnessSection, *, unvalidated: bool) -> pl.DataFrame:
    """Return the rows, with a threshold chosen for score sets that lack one; `unvalidated` skips those without validation."""
    frame = checked.with_columns(pl.col("threshold").cast(pl.Float64))
    lacks = pl.col("threshold").is_null().any().over(SCORE_SET)
    bare = (lacks & (pl.col("split") != "val").all().over(SCORE_SET)) if unvalidated else pl.lit(value=False)
    to_choose = frame.filter(lacks & ~bare)
    parts = [frame.filter(~lacks | bare)]
    if to_choose.height:
        parts.append(
            with_thresholds(to_choose, settings).with_columns(threshold_source=pl.lit(THRESHOLD_OF_VALIDATION))
        )
    return pl.concat(parts, how="diagonal_relaxed").sort(*SCORE_SET, "split", "study_id")


def refuse_reserved_names(attributes: Sequence[str]) -> None:
    """Refuse attributes with the name of a column of the result tables, such as `overall` or `task`."""
    clashing = [name for name in attributes if name in (*RESERVED_ATTRIBUTES, ROW)]
    if len(set(attributes)) < len(attributes):
        raise FairnessError("an attribute is named twice.")
    if clashing:
        raise FairnessError(
            f"{', '.join(clashing)} cannot be an attribute: the name is reserved.", fix="Give the column another name."
        )


def refuse_missing_columns(needed: Sequence[str], found: Sequence[str]) -> None:
    """Refuse predictions without a needed column, with the columns that they have."""
    missing = [did_you_mean(name, found) for name in needed if name not in found]
    if missing:
        shown = [name for name in found if name != ROW]
        raise FairnessError(f"{columns_missing(missing)}; the columns are {columns_named(shown)}.")


def checked_predictions(
    frame: pl.DataFrame, attributes: Sequence[str], rules: PredictionRules = DEFAULT_RULES, notes: Notes | None = None
) -> pl.DataFrame:
    """Return the predictions with all score set columns, binary labels and attribute levels as text, in a fixed order.

    Raises
    ------
    FairnessError
        No attribute is named; a column or an identifier is missing; a score is missing, NaN, infinite or the same for all; a
        label is not binary; a patient is in two splits; a study is scored twice by one score set; an attribute has one level.
    """
    if not attributes:
        raise FairnessError("no attribute is named, so there are no subgroups to compare.")
    refuse_reserved_names(attributes)
    refuse_missing_columns([*REQUIRED, *attributes], frame.columns)
    given = [pl.lit(value).alias(name) for name, value in _DEFAULTS.items() if name not in frame.columns]
    frame = normal_form(frame.with_columns(*given), attributes, rules, notes)
    if notes is not None:
        note_similar_ids(frame, notes)
    _check_studies(frame)
    _check_scores(frame)
    refuse_contradictions(frame, attributes)
    for name in attributes:
        levels = frame.get_column(name).unique().to_list()
        if len(levels) < 2:
            raise FairnessError(
                f"attribute {name} has one level only ({levels[0]}), so there is nothing to compare.",
                fix="Name other columns with --attributes.",
            )
    return frame.drop(ROW).sort(*SCORE_SET, "split", "study_id")


def _patients(frame: pl.DataFrame) -> str:
    n = frame.get_column("patient_id").n_unique()
    return "one patient is" if n == 1 else f"{n:,} patients are"


def _check_scores(frame: pl.DataFrame) -> None:
    bad = frame.filter(pl.col("y_score").is_null() | ~pl.col("y_score").is_finite())
    if bad.height:
        raise FairnessError(
            f"y_score is missing, NaN or infinite in {rows_of(bad)}.",
            fix="Give these studies a score, or exclude them.",
        )
    for key, scores in frame.group_by(*SCORE_SET, maintain_order=True):
        if scores.get_column("y_score").n_unique() == 1:
            raise FairnessError(
                "every study has the same score, so there is nothing to compare.",
                where=" x ".join(str(part) for part in key[:2]),
                fix="Check that y_score holds the model's scores, and that encoder and task are spelled alike in all rows.",
            )


def _check_studies(frame: pl.DataFrame) -> None:
    for name in ("study_id", "patient_id", "split", *SCORE_SET):
        blank = frame.filter(pl.col(name).is_null())
        if blank.height:
            raise FairnessError(f"{name} is missing in {rows_of(blank)}.", fix="Fill these cells, or exclude the rows.")
    odd = frame.filter(~pl.col("split").is_in(SPLITS))
    if odd.height:
        shown = words_named(odd.get_column("split"), ids_in_lower_case(odd))
        raise FairnessError(f"split holds {shown} ({rows_of(odd)}); it must be train, val or test.")
    shortened = frame.filter(shortened_ids())
    if shortened.height:
        raise FairnessError(
            f"several studies share a patient_id such as 1.2E+15 ({rows_of(shortened)}), as a spreadsheet shortens long numbers.",
            fix="Export the table again with the ids as text; several patients may have become one.",
        )
    leaked = frame.filter(pl.col("split").n_unique().over("patient_id") > 1)
    if leaked.height:
        raise FairnessError(
            f"{_patients(leaked)} in more than one split ({rows_of(leaked)}), which inflates every score.",
            fix="Assign all studies of a patient to the same split.",
        )
    twice = frame.filter(pl.struct(*SCORE_SET, "study_id").is_duplicated())
    if twice.height:
        raise FairnessError(
            f"one model scores a study more than once for one task ({rows_of(twice)}).",
            fix="Keep one row per model, task and study; a column encoder or task tells models and tasks apart.",
        )
    if not (frame.get_column("split") == "test").any():
        raise FairnessError("the split `test` has no study to assess.")
