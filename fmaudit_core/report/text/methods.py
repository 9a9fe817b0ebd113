"""The methods and limits sections, written from the config that was used and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from fmaudit_core.common.vocabulary import DASH, THRESHOLD_GIVEN
from fmaudit_core.config import Audit, FairnessSection, InspectCohort, PhantomCohort
from fmaudit_core.fairness.calibration_tests import MIN_PATIENTS
from fmaudit_core.report.text.formatting import attribute_title, margin_text, metric_title, percent, task_title

_POLICIES = {
    "fixed_fpr": "the lowest threshold with at most {fpr} false alarms",
    "fixed_sensitivity": "the highest threshold that finds at least {sensitivity} of the positives",
    "youden": "the threshold with the largest sum of sensitivity and specificity (Youden)",
}


def methods(
    audit: Audit,
    *,
    encoded: bool,
    compared: bool,
    record: bool = False,
    mitigated: bool = False,
    predicted: bool = False,
    thresholds: Collection[str] = (),
) -> list[tuple[str, str]]:
    """Headed paragraphs.

    Parameters
    ----------
    encoded : bool
        Whether the audit made the predictions itself, from images through encoders.
    compared : bool
        Whether models were compared in pairs.
    record : bool
        Whether there are models that read the medical record.
    mitigated : bool
        Whether strategies were held against the probes.
    predicted : bool
        Whether baselines were joined by their predictions.
    thresholds : collection of str
        Origins of the operating thresholds, as in `threshold_source`; of none it is told how the audit chooses them.
    """
    fairness = audit.fairness
    said = [("Cohort", _cohort(audit))] if encoded else []
    if encoded:
        said.append(("Encoders and probes", _probes(audit)))
    if record:
        said.append(("Medical record", _record(audit)))
    said += [*_statistics(audit, fairness, thresholds), _score_shift(fairness), *_intersections(fairness)]
    said += [_comparisons(fairness)] if compared else []
    said += [_baselines()] if predicted else []
    return [*said, _mitigation(audit)] if mitigated else said


def _baselines() -> tuple[str, str]:
    return (
        "Baselines",
        "Models audited by predictions that were made elsewhere, joined to the cohort's studies and judged by the cohort's own "
        "labels. They are no part of the declared family. Where they hold no validation studies there is no operating point, "
        "and AUROC alone is told.",
    )


def _mitigation(audit: Audit) -> tuple[str, str]:
    fairness, settings = audit.fairness, audit.mitigation
    return (
        "Mitigation",
        "Each strategy works on the frozen embeddings, is aimed at one attribute and held against the probe as it was, on the "
        "same test patients, its operating point chosen anew on the validation part. Whether a gap narrowed: a permutation test "
        "that swaps before and after within patients, adjusted over all strategies and attributes of a model (Westfall and "
        f"Young), with intervals from {settings.n_bootstrap:,} draws of patients. Levels down: the best is missed more by "
        "more than the subgroup missed most gains, and that gain is not beyond chance. Not interpretable: AUROC falls by more "
        f"than {fairness.auroc_margin:g}. Trained strategies run over {settings.seeds} seeds; the adversary's strength, and how "
        "long it trains, are chosen on the validation part. What is left of an attribute is read by fresh probes on held-out "
        "patients, beside labels dealt at random. A strategy is recommended only where the audit "
        "has shown a disparity in missed disease, and the subgroup missed most gains beyond chance.",
    )


def _score_shift(fairness: FairnessSection) -> tuple[str, str]:
    return (
        "Ranking or shift of scores",
        "Per subgroup: the slope of the outcome's log odds on the score's (Cox), calibration in the large with the slope held "
        f"at 1, both with {percent(fairness.confidence, 0)} intervals robust to several studies of a patient; the expected "
        "calibration error over up to ten bins of equal size, beside what a perfectly calibrated model would show in the same "
        "bins. Models whose scores leave 0 to 1 are not calibrated. Whether an attribute's subgroups share slope and intercept "
        f"is tested by Cochran's Q over tested subgroups with at least {MIN_PATIENTS} patients of each class, exploratory, with "
        "q-values over all such tests of a model and outcome. Across subgroups: how often a positive of one scores above "
        "a negative of another (xAUC), with intervals as for AUROC.",
    )


def _intersections(fairness: FairnessSection) -> list[tuple[str, str]]:
    depth = fairness.intersection_depth
    if depth < 2:
        return []
    crossed = "two attributes at a time" if depth == 2 else f"two to {depth} attributes at a time"
    return [
        (
            "Intersections",
            f"Crossed: {crossed}, under the same rule for small groups. Each that can be tested is compared with all other "
            "studies, in the direction of faring worse; ranks are by the studentised difference. The null permutes patients' "
            f"whole sets of attributes ({fairness.n_permutations:,} permutations, seed {fairness.seed}), and the adjusted p is "
            "Westfall and Young's over all tested intersections of a model and metric, so that the worst of many is judged as "
            "the worst of many. Where some crossing of a combination is too small or empty, its other intersections are shown "
            "without counts and in whole percent, and lines that would leave a hidden one no room are not shown at all.",
        )
    ]


def _comparisons(fairness: FairnessSection) -> tuple[str, str]:
    return (
        "Two models on the same patients",
        "AUROC: DeLong's test for paired samples, clustered by patient; missed and false alarms: the paired difference of "
        "rates, clustered likewise. Not worse by much: a one-sided test against the margin "
        f"({margin_text('auroc', fairness.auroc_margin)} in AUROC, {margin_text('udr', fairness.margin)} in rates) at "
        f"{fairness.alpha:g}. q: Benjamini and Hochberg's over all pairs, subgroups and metrics.",
    )


def _cohort(audit: Audit) -> str:
    tasks = "; ".join(task_title(task) for task in audit.tasks)
    if isinstance(audit.cohort, PhantomCohort):
        made = (
            f"A synthetic cohort of {audit.cohort.n_studies:,} CT studies (seed {audit.cohort.seed}) with disparities "
            "planted on purpose: it shows that the method works and says nothing about patients."
        )
    elif isinstance(audit.cohort, InspectCohort):
        made = (
            "Studies of the INSPECT release with its own splits and outcomes; an outcome that follow-up does not reach is "
            "censored and left out of its task. Sex, race, ethnicity and birth are from the medical record."
        )
    else:
        made = "Studies of one table, read with their CT series."
    bands = ", ".join(band.label.replace("-", DASH) for band in audit.age_bands)
    return (
        f"{made} Outcomes: {tasks}. Age bands in completed years: {bands}. All studies of a patient are in one of the parts "
        f"train, validation and test. Series with fewer than {audit.imaging.min_slices} slices or any defect of geometry or "
        "intensity were set aside, by name."
    )


def _probes(audit: Audit) -> str:
    grid = ", ".join(f"{c:g}" for c in audit.probes.c_grid)
    poolings = " and ".join(audit.probes.poolings)
    return (
        "Each encoder is frozen: it turns the slices of a study into numbers and learns nothing here. Slices are pooled to "
        f"one vector per study ({poolings}); a logistic regression is fitted on the training part for every outcome, its "
        f"regularisation C chosen among {grid} by AUROC on the validation part. The findings speak of "
        f"{audit.fairness.primary_pooling} pooling; an encoder of whole volumes, or one whose embeddings were computed "
        "elsewhere, has one vector per study of its own, and they speak of that. All numbers are from the test part."
        f"{_networks(audit)}"
    )


def _networks(audit: Audit) -> str:
    """What is beside the logistic regression, as it was trained."""
    probes, networks = audit.probes, audit.probes.networks
    shapes = ", ".join(DASH.join(map(str, shape)) for shape in networks.shapes)
    said = {
        "mlp": f"perceptrons on the study's vector (hidden layers {shapes}, chosen on the validation part)",
        "abmil": "gated attention over the slices, which starts from a linear probe on their mean",
        "lrcn": "a recurrent network over the slices from the feet upwards",
    }
    beside = [said[kind] for kind in probes.kinds if kind in said]
    if not beside:
        return ""
    return (
        f" Beside it, and never in the findings: {'; '.join(beside)}. Each is trained from {networks.seeds} "
        f"{'seed' if networks.seeds == 1 else 'seeds'}, stops where the validation AUROC does not rise any more, and the mean of "
        "the seeds' probabilities is the score. Controls have the logistic regression only."
    )


def _record(audit: Audit) -> str:
    settings = audit.ehr
    if settings.cutoff == "strict":
        past = "An event counts if it was known before midnight of the day of the study"
        rules = " A date without a time counts as known at the end of that day, a diagnosis placed by a bill at its visit's end."
    else:
        past = "By the rule of the INSPECT baseline an event counts up to the time of the study itself"
        rules = (
            " These models see more than was known when the study was ordered: their AUROC is not that of a forecast."
        )
    early = [task_title(task) for task in audit.tasks if task in settings.day_before]
    before = f"; for {', '.join(early)}, which the scan decides, a day earlier" if early else ""
    windows = ", ".join(str(days) for days in settings.windows_days)
    left_out = "death, birth" + ("" if settings.demographics else ", sex, race and ethnicity")
    return (
        f"{past}{before}.{rules} Notes, reports, {left_out} are never features. Per code: days with it in the last {windows} "
        "days and in all the past, how recent it is, its last value; codes of "
        f"{settings.min_patients} training patients or more, at most {settings.max_columns:,} columns, all chosen and scaled on "
        "the training part. Probes: logistic regression and gradient-boosted trees on the record alone; logistic regression on "
        "embedding and record side by side, each with half of the variance; and late fusion, a logistic regression on the log "
        "odds of both, fitted on the validation part. The findings speak of CT alone."
    )


def operating_threshold(audit: Audit, sources: Collection[str]) -> str:
    """Return how the operating thresholds came about, in half a sentence, from their origins in `threshold_source`."""
    chosen = f"chosen on validation alone, by {audit.fairness.threshold_policy}"
    if THRESHOLD_GIVEN not in sources:
        return chosen
    return "given by the user" if len(sources) == 1 else f"given by the user for some models, for the others {chosen}"


def _operating_point(fairness: FairnessSection, sources: Collection[str]) -> str:
    policy = _POLICIES[fairness.threshold_policy].format(
        fpr=percent(fairness.fixed_fpr, 0), sensitivity=percent(fairness.fixed_sensitivity, 0)
    )
    chosen = f"on the validation part alone, for each model separately: {policy}."
    called = "A study scored at or above it is called positive."
    if THRESHOLD_GIVEN not in sources:
        return f"Chosen {chosen} {called}"
    given = "Given by the user with the predictions, not chosen by the audit"
    return (
        f"{given}. {called}"
        if len(sources) == 1
        else f"{given}, for some models; for the others chosen {chosen} {called}"
    )


def _statistics(audit: Audit, fairness: FairnessSection, sources: Collection[str]) -> list[tuple[str, str]]:
    attributes = ", ".join(attribute_title(name).lower() for name in audit.attributes)
    level = percent(fairness.confidence, 0)
    return [
        (
            "Operating point",
            _operating_point(fairness, sources),
        ),
        (
            "Gaps and their test",
            f"A gap is the difference between the subgroups that fare best and worst, for {attributes}. Gaps are above zero "
            "even if all subgroups are equal, so each is shown with the mean gap that subgroups with the same true value and "
            "these sample sizes would have. The p-value tests whether the subgroups have the same true value, whatever else "
            f"differs between them: {fairness.n_permutations:,} permutations of the patients' subgroup labels (seed "
            f"{fairness.seed}), with AUROC on the logit and rates on the arcsine scale, and variances clustered by patient and "
            "computed anew in every permutation (Chung and Romano 2013). The p of the gap itself is descriptive. Beyond "
            "sampling: the standard deviation between subgroups with their sampling variance removed (Lum, Zhang and Bower), "
            f"with {level} intervals by the double-corrected bootstrap.",
        ),
        (
            "Many comparisons",
            "Adjusted p: Westfall and Young's step-down over the declared family (the diagnosis task, "
            f"{metric_title(fairness.primary_metric)}, every attribute and encoder), at {fairness.alpha:g}. "
            "q: Benjamini and Hochberg's, over every comparison of the audit.",
        ),
        (
            "Intervals",
            f"{level} intervals that count patients, not studies: DeLong's for AUROC on the logit scale, Wilson's with design "
            f"effect for shares (Clopper and Pearson's where few).{_threshold_uncertainty(fairness, sources)}",
        ),
        (
            "Small groups",
            f"Fixed before looking: with fewer than {fairness.suppress_under} patients with a positive study, or with a "
            f"negative one, in the test part a subgroup is not shown. With fewer than {fairness.test_from} patients of the class "
            "that a rate is of, or of either class for AUROC, it gets an interval but is not tested and enters no gap. "
            "If a subgroup of an attribute is not shown, the counts of the others are rounded to tens, off by ten at most, their "
            "rates to whole percent and their threshold curves to coarse steps, so that it cannot be worked out by subtraction.",
        ),
        (
            "Verdicts",
            "Disparity: the adjusted p is below the level above. Within margin: every difference between two subgroups, small "
            f"ones included, is shown to be below {margin_text('udr', fairness.margin)}. Within margin where tested: the same, "
            "but only between the subgroups large enough to be tested. Cannot tell: none of these. A result "
            "without a disparity is never taken to mean that there is none. The smallest difference that would have shown is "
            "each subgroup's against the mean of the others, with a probability of 80% of being found.",
        ),
    ]


def _threshold_uncertainty(fairness: FairnessSection, sources: Collection[str]) -> str:
    if not fairness.threshold_uncertainty or set(sources) == {THRESHOLD_GIVEN}:
        return ""
    return (
        " Those of shares carry how uncertain the operating point is, too: it was chosen again on "
        f"{fairness.n_bootstraps:,} draws of the validation patients."
    )


def limits(audit: Audit) -> list[str]:
    """What a reader must not conclude."""
    said = [
        "An audit describes these patients, this scanner mix and this operating point. Another hospital needs its own.",
        "Labels are taken as given. Where an outcome is recorded less often for some patients than for others, the model "
        "looks better or worse for them than it is.",
        "Subgroups are those that were recorded. Patients whose attribute was not recorded are reported, never tested.",
        "A higher share missed together with fewer false alarms at every threshold points to a shift of the score for that "
        "subgroup, not to images that are read worse: see the threshold sweep.",
        "A difference says that care would differ, not why it does.",
    ]
    if isinstance(audit.cohort, PhantomCohort):
        said.insert(0, "These are synthetic patients. No number here describes a real person or a real hospital.")
    return said
