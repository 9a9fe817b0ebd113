"""Labels of the INSPECT release: the column of each task and the meaning of its cells. Unknown words are errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from fmaudit_core.common.errors import did_you_mean
from fmaudit_core.tabular.errors import CohortError, rows_named, words_named
from fmaudit_core.tabular.scan import Column

#: task -> column of the release
INSPECT_TASKS: Final[Mapping[str, str]] = {
    "pe": "pe_positive_nlp",
    "mortality_1m": "1_month_mortality",
    "mortality_6m": "6_month_mortality",
    "mortality_12m": "12_month_mortality",
    "readmission_1m": "1_month_readmission",
    "readmission_6m": "6_month_readmission",
    "readmission_12m": "12_month_readmission",
    "pulmonary_hypertension_12m": "12_month_PH",
}
#: finding of the same scan by another rule: never used as the label, only compared with it
OTHER_PE: Final = Column("pe_positive", ("pe_positive",), needed=False)

_TRUE: Final = ("TRUE", "1", "1.0", "T", "YES")
_FALSE: Final = ("FALSE", "0", "0.0", "F", "NO")
_CENSORED: Final = ("CENSORED", "CENSOR", "NA", "NAN", "NONE", "")
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(_TRUE, True),
    **dict.fromkeys(_FALSE, False),
    **dict.fromkeys(_CENSORED, None),
}


def task_columns(tasks: Sequence[str]) -> list[Column]:
    """Return the release column of each task.

    Raises
    ------
    CohortError
        A task is not one of the eight.
    """
    unknown = [did_you_mean(task, list(INSPECT_TASKS)) for task in tasks if task not in INSPECT_TASKS]
    if unknown:
        raise CohortError(
            f"{', '.join(unknown)} is not a task of INSPECT; the tasks are {', '.join(INSPECT_TASKS)}.",
            where="audit.yaml",
            fix="Correct it under `tasks:`.",
        )
    return [Column(task, (INSPECT_TASKS[task], task)) for task in tasks]


def labels_of(listed: pl.DataFrame, tasks: Sequence[str], where: str) -> pl.DataFrame:
    """Return the label of each study and task, NULL if it is censored.

    Parameters
    ----------
    listed : frame
        `row`, `study_id` and a text column per task; each study once.

    Raises
    ------
    CohortError
        A cell is not a valid label. The message gives the word, its count and its rows.
    """
    problems, ids = [], set(listed.get_column("study_id").str.to_lowercase())
    for task in tasks:
        bad = listed.select("row", word=_word(task)).filter(~pl.col("word").is_in(list(_WORDS)))
        if bad.height:
            shown = words_named(bad.get_column("word"), ids)
            rows = rows_named(bad.get_column("row").sort().to_list())
            problems.append(f"column {INSPECT_TASKS[task]}: {shown} is not a valid label ({bad.height} in all: {rows})")
    if problems:
        raise CohortError(
            "; ".join(problems) + ".",
            where=where,
            fix=f"Valid labels are {', '.join(_TRUE)}; {', '.join(_FALSE)}; or {', '.join(filter(None, _CENSORED))} "
            "or blank.",
        )
    long = listed.select("study_id", *(boolean(task).alias(task) for task in tasks))
    return long.unpivot(index="study_id", variable_name="task", value_name="label").sort("study_id", "task")


def boolean(column: str) -> pl.Expr:
    """Return the value of a cell, ignoring case; NULL if it is censored or not a valid label."""
    return _word(column).replace_strict(dict(_WORDS), default=None, return_dtype=pl.Boolean)


def _word(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String).fill_null("").str.strip_chars().str.to_uppercase()
