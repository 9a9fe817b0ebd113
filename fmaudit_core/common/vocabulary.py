"""Vocabulary of the tables: names of tasks, attributes, splits and score sets, and their titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

Split = Literal["train", "val", "test"]
SPLITS: Final = ("train", "val", "test")

TASKS: Final = (
    "pe",
    "mortality_1m",
    "mortality_6m",
    "mortality_12m",
    "readmission_1m",
    "readmission_6m",
    "readmission_12m",
    "pulmonary_hypertension_12m",
)
DIAGNOSIS_TASK: Final = "pe"

#: sources of an operating threshold, in columns `threshold_source`: given by the user, or chosen on validation
THRESHOLD_GIVEN: Final = "given"
THRESHOLD_OF_VALIDATION: Final = "validation"

#: columns that identify a trained model, within one encoder and task
VARIANT: Final = ("probe", "modality", "pooling", "strategy")
#: columns of a score set, which has one threshold
SCORE_SET: Final = ("encoder", "task", *VARIANT)
#: columns of one of two models that are compared: those of a score set but its task
MODEL: Final = ("encoder", *VARIANT)
#: the attribute, with one level, under which all studies together are reported
OVERALL: Final = "overall"

ATTRIBUTES: Final = ("race_ethnicity", "sex", "age_band")
_MOST_LEVELS: Final = 100
_FEW_LEVELS: Final = 10
#: columns and levels of the result tables, which no attribute may be called
RESERVED_ATTRIBUTES: Final = (
    "row", "study_id", "patient_id", "split", "image", "image_path", "time", "label", "y_true", "y_score", "threshold",
    "threshold_source", "encoder", "task", "probe", "modality", "pooling", "strategy", "overall", "attribute", "subgroup",
    "metric",
)  # fmt: skip
#: level of studies whose attribute was not recorded: reported, never tested
UNKNOWN: Final = "unknown"

TASK_TITLES: Final = {
    "pe": "Pulmonary embolism",
    "mortality_1m": "Mortality, 1 month",
    "mortality_6m": "Mortality, 6 months",
    "mortality_12m": "Mortality, 12 months",
    "readmission_1m": "Readmission, 1 month",
    "readmission_6m": "Readmission, 6 months",
    "readmission_12m": "Readmission, 12 months",
    "pulmonary_hypertension_12m": "Pulmonary hypertension, 12 months",
}
#: prefix of the names of attributes that the headers of the images give
ACQUISITION: Final = "acquisition"
#: their columns in the table `acquisition`, and their titles; numbers can be grouped
ACQUISITION_TEXTS: Final = {
    "manufacturer": "Scanner manufacturer",
    "model": "Scanner model",
    "kernel": "Reconstruction kernel",
    "contrast": "Contrast agent",
    "body_part": "Body part",
}
ACQUISITION_NUMBERS: Final = {
    "slice_thickness": "Slice thickness (mm)",
    "slice_spacing": "Slice spacing (mm)",
    "pixel_spacing": "Pixel spacing (mm)",
    "kvp": "Tube voltage (kVp)",
    "exposure": "Exposure (mAs)",
    "rows": "Rows of the image",
    "n_slices": "Number of slices",
    "year": "Year of the scan",
}
ATTRIBUTE_TITLES: Final = {
    "race_ethnicity": "Race and ethnicity",
    "sex": "Sex",
    "age_band": "Age band",
    **{f"{ACQUISITION}.{name}": title for name, title in (ACQUISITION_TEXTS | ACQUISITION_NUMBERS).items()},
}


def acquisition_column(attribute: str) -> str | None:
    """Return the column of the table `acquisition` that an attribute names; None for an attribute of the cohort's table."""
    prefix, dot, column = attribute.partition(".")
    return column if dot and prefix == ACQUISITION else None


def how_many(n: int, what: str) -> str:
    """Return a count with its noun: ``1 task``, ``3 tasks``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def too_many_levels(n_levels: int, n_patients: int) -> bool:
    """Return whether a column has too many levels to be an attribute: more than half as many as patients, or more than 100."""
    return n_levels > _MOST_LEVELS or (n_levels > _FEW_LEVELS and 2 * n_levels > n_patients)


def identifying_levels(column: str, n_levels: int, n_patients: int) -> str | None:
    """Return why a column with too many levels cannot be an attribute, as it would show patients as subgroups; None if it can."""
    if not too_many_levels(n_levels, n_patients):
        return None
    return (
        f"column {column} has {n_levels:,} levels for {n_patients:,} patients: it may identify them and cannot be used as an "
        "attribute."
    )


def family_task(tasks: Sequence[str]) -> str:
    """Return the task of the confirmatory family: the diagnosis, or the first task of an audit without it."""
    return DIAGNOSIS_TASK if DIAGNOSIS_TASK in tasks else tasks[0]


_LEVEL_TITLES: Final[Mapping[str, str]] = {
    "nh_white": "White",
    "nh_black": "Black",
    "nh_asian": "Asian",
    "nh_nhpi": "Pacific Islander",
    "nh_aian": "American Indian",
    "nh_other": "Other",
    "hispanic": "Hispanic",
    "unknown": "Not recorded",
}


DASH: Final = "\N{EN DASH}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"


def subgroup_title(subgroup: str) -> str:
    """Return the title of a subgroup or an intersection of subgroups; unknown levels only change spelling."""
    if " x " in subgroup:
        return f" {TIMES} ".join(subgroup_title(one) for one in subgroup.split(" x "))
    if subgroup in _LEVEL_TITLES:
        return _LEVEL_TITLES[subgroup]
    spaced = subgroup.replace("_", " ")
    spaced = DASH.join(spaced.split("-")) if spaced.replace("-", "").replace(".", "").isdigit() else spaced
    spaced = spaced.replace("<= ", "\N{LESS-THAN OR EQUAL TO} ") if spaced.startswith("<= ") else spaced
    return spaced[:1].upper() + spaced[1:]
