"""Tables of the medical record, published if the cohort has one."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import integer, uint32
from fmaudit_core.tables.table import VARIANT, Further, declare

EHR_FEATURES: Final = declare(
    "ehr_features",
    "What a study's past holds of a code; a column `days_N` for each of `ehr: windows_days`. Only with a medical record.",
    key="row code_id",
    rest="days days_ago last_value",
    further=Further("days_N", r"days_\d+", uint32("days with it in the N days before the cutoff")),
)
EHR_ROWS: Final = declare(
    "ehr_rows",
    "A study's past under one cutoff.",
    key="row",
    rest="study_id split cutoff cutoff_time last_event_time n_events",
)
EHR_VOCABULARY: Final = declare(
    "ehr_vocabulary",
    "A code that is kept.",
    key="code_id",
    rest="code n_patients n_with_value",
    special={"n_patients": integer("training patients with the code")},
)
EHR_DROPPED: Final = declare(
    "ehr_dropped", "What was left out of the record.", key="what unit", rest="n", special={"n": integer("how many")}
)
EHR_FITS: Final = declare(
    "ehr_fits",
    "A study's score by a probe on the record alone.",
    key=f"task {VARIANT} study_id",
    rest="patient_id split y_true y_score",
)
EHR_SELECTION: Final = declare(
    "ehr_selection",
    "A setting of a probe on the record that was tried.",
    key="task probe modality pooling c leaves trees",
    rest="val_auroc chosen leaves trees",
)
EHR_COEFFICIENTS: Final = declare(
    "ehr_coefficients", "A coefficient of the logistic probe on the record.", key="task code kind", rest="coefficient"
)
