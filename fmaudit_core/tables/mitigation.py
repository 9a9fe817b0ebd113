"""Tables of mitigation: strategies, their runs, and what changed."""

from __future__ import annotations

from typing import Final

from fmaudit_core.tables.columns import integer, number, text
from fmaudit_core.tables.table import ENCODER, ENCODER_AND_TASK, RUN, declare

_RESULT: Final = (
    "status reason chosen auroc auroc_before auroc_delta auroc_delta_low auroc_delta_high interpretable gap_before gap_after "
    "reduction ci_low ci_high p_reduction p_adjusted p_widened variance_reduction variance_ci_low variance_ci_high "
    "p_variance_reduction corrected_sd_before corrected_sd_after worst_subgroup worst_subgroup_udr_delta best_subgroup "
    "best_subgroup_udr_delta levelling_down udr_before udr_after fpr_before fpr_after fpr_gap_before fpr_gap_after "
    "n_tested n_seeds n_collapsed n_diverged gap_seed_sd auroc_seed_sd gap_sampling_se n_permutations"
)

_OF_RESULTS: Final = {
    "status": text("`evaluated`, `too_few`, `not_estimable`, `diverged` or `not_fitted`"),
    "reason": text("why it was not evaluated"),
    "p_adjusted": number("`p_reduction` corrected over all strategies and attributes of the encoder and task"),
    "ci_low": number("lower end of the interval of `reduction`"),
    "ci_high": number("upper end of it"),
}

DEMOGRAPHIC_PROBES: Final = declare(
    "demographic_probes",
    "How well an attribute is predicted from the embeddings.",
    per=ENCODER,
    key="encoder attribute probe",
    rest=(
        "macro_f1 balanced_auroc control_macro_f1 control_balanced_auroc ci_low ci_high status subgroups width c "
        "n_train n_test"
    ),
    special={
        "status": text("`probed` or `too_few`"),
        "probe": text("`logistic` or `mlp`"),
        "ci_low": number("lower end of the interval of `balanced_auroc`"),
        "ci_high": number("upper end of it"),
    },
)
MITIGATION_SCORES: Final = declare(
    "mitigation_scores",
    "A study's score under a run of a strategy.",
    per=ENCODER,
    key=f"{RUN} study_id",
    rest="patient_id split y_true y_score threshold",
)
MITIGATION_RUNS: Final = declare(
    "mitigation_runs",
    "How a run was fitted.",
    per=ENCODER,
    key=RUN,
    rest="status reason c epochs val_auroc val_worst_udr val_within_margin chosen",
    special={
        "status": text("`fitted`, `collapsed`, `diverged` or `not_fitted`"),
        "reason": text("why it was not fitted, collapsed, or ended short of its optimum"),
    },
)
MITIGATION_LEAKAGE: Final = declare(
    "mitigation_leakage",
    "How well a fresh probe predicts the attribute, before and after.",
    per=ENCODER,
    key=f"{RUN} stage probe",
    rest="macro_f1 balanced_auroc ci_low ci_high control_balanced_auroc n",
    special={
        "n": integer("held-out studies"),
        "probe": text("the fresh probe"),
    },
)
MITIGATION_RESULTS: Final = declare(
    "mitigation_results",
    "A run of a strategy compared with the unmitigated probe, by one attribute.",
    per=ENCODER_AND_TASK,
    key=f"{RUN} attribute metric",
    rest=_RESULT,
    special=_OF_RESULTS,
)
MITIGATION_SUBGROUPS: Final = declare(
    "mitigation_subgroups",
    "A strategy's change in a subgroup.",
    per=ENCODER_AND_TASK,
    key=f"{RUN} attribute subgroup metric",
    rest="status chosen n before after delta ci_low ci_high",
    special={"n": integer("studies of the class the rate is over")},
)
MITIGATION_CAPACITY: Final = declare(
    "mitigation_capacity",
    "A strategy's reduction next to how separable the attribute is.",
    key="encoder task strategy attribute",
    rest=(
        "alpha width balanced_auroc control_balanced_auroc macro_f1 gap_before reduction ci_low ci_high "
        "p_reduction auroc_delta interpretable"
    ),
)
MITIGATION_INTERACTIONS: Final = declare(
    "mitigation_interactions",
    "A strategy's reduction under two encoders.",
    key="task strategy attribute encoder other_encoder",
    rest=(
        "reduction other_reduction difference ci_low ci_high p_value variance_difference p_variance q_value n_patients"
    ),
    special={
        "difference": number("the encoder's reduction minus the other's"),
        "n_patients": integer("patients both scored"),
    },
)
MITIGATION_LADDER: Final = declare(
    "mitigation_ladder",
    "`mitigation_results` of one encoder projected to fewer dimensions.",
    key=f"{RUN} attribute metric width",
    rest=f"{_RESULT} width balanced_auroc balanced_auroc_low balanced_auroc_high",
    special=_OF_RESULTS | {"width": integer("dimensions the embedding was projected to")},
)
