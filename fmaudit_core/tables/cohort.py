"""Tables of the cohort and its CT series."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import Column, integer, text
from fmaudit_core.tables.table import Further, declare

STUDIES: Final = declare(
    "studies",
    "A CT study. Further attributes follow, `study_uid` if it was found in an archive, `time` if known, and for INSPECT what its "
    "tables record about the volume.",
    key="study_id",
    rest="patient_id split age age_band sex race_ethnicity image_path study_uid time",
    optional="study_uid time",
    further=Further("...", ".+", Column(None, "a further attribute, or what INSPECT records about the volume")),
)
LABELS: Final = declare("labels", "The outcome of one task for one study.", key="study_id task", rest="label")
COHORT_FLOW: Final = declare(
    "cohort_flow", "Studies and patients left after a step.", key="step", rest="n_studies n_patients"
)
LABEL_FLOW: Final = declare(
    "label_flow",
    "Known and censored outcomes of a subgroup in a split.",
    key="task split attribute subgroup",
    rest="n_studies n_patients n_positive n_negative n_censored",
)
COHORT_NOTES: Final = declare(
    "cohort_notes",
    "A repair or choice made when the files were read.",
    key="note",
    rest="n unit detail",
    special={"n": integer("how many")},
)
SLICE_QUALITY: Final = declare(
    "slice_quality",
    "A CT series: accepted, or quarantined and why.",
    rest=(
        "study_id series_uid status reason flags used choice description kernel image_type thickness_mm series_number "
        "n_slices spacing_mm in_plane_mm rows columns tilt_degrees hu_min hu_p01 hu_max hu_mean n_files transfer_syntaxes"
    ),
    special={"status": text("`accepted` or `quarantined`")},
)
ACQUISITION: Final = declare(
    "acquisition",
    "How the series of a study was acquired, from its header; blank if not recorded, or if a text may identify somebody.",
    key="study_id",
    rest=(
        "manufacturer model kernel slice_thickness slice_spacing pixel_spacing kvp exposure contrast body_part rows n_slices year"
    ),
    special={
        "model": text("model of the scanner, as recorded"),
        "kernel": text("reconstruction kernel, in upper case"),
    },
)
CT_VIEWS: Final = declare(
    "ct_views",
    "A view of the slices that some registered encoder has.",
    key="view",
    rest="version values windows of_studies",
)
