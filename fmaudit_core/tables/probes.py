"""Tables of probes and their scores."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import integer, text
from fmaudit_core.tables.table import ENCODER, ENCODER_AND_TASK, SCORE_SET, VARIANT, declare

PROBE_FITS: Final = declare(
    "probe_fits",
    "A fitted probe.",
    per=ENCODER,
    key="encoder pooling strategy task c",
    rest="n_train iterations intercept coefficients",
)
FUSION_FITS: Final = declare(
    "fusion_fits",
    "A study's score by a probe on CT and record together.",
    per=ENCODER,
    key=f"task {VARIANT} study_id",
    rest="patient_id split y_true y_score",
)
FUSION_SELECTION: Final = declare(
    "fusion_selection",
    "A setting of a fusion that was tried.",
    per=ENCODER,
    key="task probe modality pooling c",
    rest="val_auroc chosen",
)
NEURAL_FITS: Final = declare(
    "neural_fits",
    "A study's score by a probe that is a network.",
    per=ENCODER,
    key=f"{SCORE_SET} study_id",
    rest="patient_id split y_true y_score",
)
PROBE_SEEDS: Final = declare(
    "probe_seeds",
    "A network that was trained.",
    per=ENCODER,
    key="encoder task probe modality pooling shape seed",
    rest="status n_train epochs best_epoch val_auroc test_auroc chosen",
    special={
        "status": text("`fitted`, `collapsed` or `one_class`"),
        "n_train": integer("training studies"),
    },
)
EQUAL_ATTENTION: Final = declare(
    "equal_attention",
    "A study's score by attention that weights every slice equally.",
    per=ENCODER,
    key="encoder task probe modality pooling study_id",
    rest="y_score",
)
BASELINE_JOINS: Final = declare(
    "baseline_joins",
    "How a baseline's predictions were joined to the cohort.",
    per=ENCODER_AND_TASK,
    key="encoder task",
    rest=("joined_by threshold n_rows n_missed n_train n_unlabelled n_scored n_unscored n_labels n_labels_apart"),
    special={
        "encoder": text("the baseline"),
        "threshold": text("where its threshold came from"),
    },
)
PROBE_SELECTION: Final = declare(
    "probe_selection",
    "A setting of a probe that was tried; `leaves` and `trees` where the cohort has a medical record.",
    per=ENCODER_AND_TASK,
    key="encoder task probe modality pooling c leaves trees",
    rest="val_auroc chosen leaves trees",
    optional="leaves trees",
)
PROBE_PREDICTIONS: Final = declare(
    "probe_predictions",
    "A study's score.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} study_id",
    rest="patient_id split y_true y_score threshold",
)
PREVIOUS_PREDICTIONS: Final = declare(
    "previous_predictions",
    "A study's score in the previous audit.",
    per=ENCODER_AND_TASK,
    key=f"{SCORE_SET} study_id",
    rest="patient_id split y_true y_score threshold",
)
