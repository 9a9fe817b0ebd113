"""Adversarial runs of one encoder: all alpha x attribute x task x seed trained together, with alpha chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy.special import expit

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.config import FairnessSection, MitigationSection
from fmaudit_core.mitigation.attribute_leakage import Representation
from fmaudit_core.mitigation.dataset import Embedded, IntArray
from fmaudit_core.mitigation.recorder import Recorder, Run
from fmaudit_core.mitigation.runs import NONE

if TYPE_CHECKING:
    from fmaudit_core.mitigation.adversarial import Networks

STRATEGY: Final = "adversarial"
#: log odds with a smaller range on validation do not rank studies
_FLAT: Final = 1e-3


@dataclass(frozen=True)
class _Job:
    task: str
    attribute: str
    alpha: float
    seed: int


def adversarial_runs(
    cohort: Embedded,
    recorder: Recorder,
    mitigation: MitigationSection,
    fairness: FairnessSection,
    aims: Mapping[tuple[str, str], IntArray],
    device: str,
    progress: Progress = silent,
) -> list[Representation]:
    """Train, score and choose; every path starts at alpha 0, the same network with an inactive adversary.

    All networks are trained for the number of batches that is best for alpha 0 on validation, up to the configured length.

    Parameters
    ----------
    aims : (task, attribute) -> (n,) subgroups that training can target
    progress : receives the number of finished batches, once the number of batches is known

    Returns
    -------
    Hidden layers before (alpha 0) and after (the chosen alpha), for every task, attribute and the seeds that are probed again

    Raises
    ------
    MissingExtraError
        torch is not installed.
    """
    jobs = _jobs(recorder, mitigation, fairness, aims)
    if not jobs:
        return []
    with needs_extra("encoders", "adversarial mitigation"):
        from fmaudit_core.mitigation.adversarial import Training, train, training_length
        from fmaudit_core.probes.mlp import native_bfloat16
    inside, val = cohort.of("train"), cohort.of("val")
    nobody = np.full(int(inside.sum()), -1, dtype=np.int64)
    training = Training(
        hidden=mitigation.hidden,
        epochs=mitigation.epochs,
        max_steps=mitigation.max_steps,
        batch_size=mitigation.batch_size,
        learning_rate=mitigation.learning_rate,
        half_precision=native_bfloat16(device),
    )
    plain = [job for job in jobs if not job.alpha]
    length = training_length(
        cohort.x[inside],
        np.stack([cohort.targets[job.task][inside] for job in plain], axis=1),
        cohort.x[val],
        np.stack([cohort.targets[job.task][val] for job in plain], axis=1),
        seed=[fairness.seed + job.seed for job in plain],
        training=training,
        device=device,
    )
    networks = train(
        cohort.x[inside],
        np.stack([cohort.targets[job.task][inside] for job in jobs], axis=1),
        np.stack([aims[job.task, job.attribute][inside] if job.alpha else nobody for job in jobs], axis=1),
        alpha=[job.alpha for job in jobs],
        seed=[fairness.seed + job.seed for job in jobs],
        training=replace(training, max_steps=length),
        device=device,
        progress=progress,
    )
    epochs = -(-length // -(-int(inside.sum()) // training.batch_size))
    rows = _record(cohort, recorder, jobs, networks, epochs)
    chosen = _choose(rows, recorder, fairness)
    return _representations(cohort, jobs, networks, chosen, mitigation.reprobed_seeds)


def _jobs(
    recorder: Recorder,
    mitigation: MitigationSection,
    fairness: FairnessSection,
    aims: Mapping[tuple[str, str], IntArray],
) -> list[_Job]:
    jobs = [_Job(task, NONE, 0.0, seed) for task in {task: 0 for task, _ in aims} for seed in range(mitigation.seeds)]
    for (task, attribute), group in aims.items():
        if group.max() < 1:
            reason = f"fewer than two subgroups have {fairness.suppress_under} positives and negatives in train"
            recorder.refuse(Run(task, STRATEGY, attribute), reason)
            continue
        jobs += [_Job(task, attribute, alpha, s) for alpha in mitigation.alphas for s in range(mitigation.seeds)]
    return jobs


def _record(
    cohort: Embedded,
    recorder: Recorder,
    jobs: Sequence[_Job],
    networks: Networks,
    epochs: int,
) -> list[dict[str, Any]]:
    rows = []
    audited = ~cohort.of("train")
    val = cohort.of("val")[audited]
    logits = networks.logits(networks.prepared(cohort.x[audited]))
    for at, job in enumerate(jobs):
        run = Run(job.task, STRATEGY, job.attribute, alpha=job.alpha, seed=job.seed, epochs=epochs)
        logit = logits[at].astype(np.float64)
        if not networks.finite[at] or not np.isfinite(logit).all():
            rows.append(recorder.refuse(run, "training did not stay finite", status="diverged"))
            continue
        score = np.full(len(audited), np.nan)
        score[audited] = expit(logit)
        row = recorder.score(run, score)
        if np.ptp(logit[val]) < _FLAT or row["val_auroc"] <= 0.5:
            row |= {"status": "collapsed", "reason": "on validation it ranks patients no better than chance"}
        rows.append(row)
    return rows


def _choose(
    rows: Sequence[dict[str, Any]], recorder: Recorder, fairness: FairnessSection
) -> dict[tuple[str, str], float]:
    """Choose alpha per task and attribute: the lowest worst-group UDR on validation within the AUROC margin; mark the rows.

    Of equal ones the largest is chosen. If no alpha is within the margin, the one with the highest AUROC is chosen; if no
    subgroup of validation has enough patients, the largest alpha within the margin. Both criteria are means over the seeds that
    stayed finite. An alpha for which more than half of the seeds diverged is chosen only if this holds for all.
    """
    by_aim: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for row in rows:
        if row["target_attribute"] == NONE:
            row["chosen"] = False
            continue
        of_aim = by_aim.setdefault((row["task"], row["target_attribute"]), {})
        of_aim.setdefault(row["alpha"], []).append(row)
    chosen = {}
    for (task, attribute), tried in by_aim.items():
        finite = {alpha: [row for row in some if row["status"] != "diverged"] for alpha, some in tried.items()}
        of_alpha = {alpha: some for alpha, some in finite.items() if some}
        if not of_alpha:
            continue
        able = [alpha for alpha, some in of_alpha.items() if 2 * len(some) >= len(tried[alpha])] or list(of_alpha)
        bar = recorder.row_of(task)["val_auroc"] - fairness.auroc_margin
        auroc = {alpha: float(np.mean([row["val_auroc"] for row in some])) for alpha, some in of_alpha.items()}
        within = [alpha for alpha in of_alpha if auroc[alpha] >= bar]

        def worst(alpha: float, of_alpha: dict[float, list[dict[str, Any]]] = of_alpha) -> tuple[float, float]:
            known = [row["val_worst_udr"] for row in of_alpha[alpha] if row["val_worst_udr"] is not None]
            return float(np.mean(known)) if known else 0.0, -alpha

        good = [alpha for alpha in able if alpha in within]
        best = min(good, key=worst) if good else max(able, key=lambda alpha: auroc[alpha])
        chosen[task, attribute] = best
        for alpha, some in of_alpha.items():
            for row in some:
                row |= {"chosen": alpha == best, "val_within_margin": alpha in within}
    return chosen


def _representations(
    cohort: Embedded,
    jobs: Sequence[_Job],
    networks: Networks,
    chosen: Mapping[tuple[str, str], float],
    reprobed_seeds: int,
) -> list[Representation]:
    out = []
    prepared = networks.prepared(cohort.x[~cohort.of("train")])
    attributes = {attribute for _, attribute in chosen}
    for at, job in enumerate(jobs):
        before = job.attribute == NONE
        if (
            job.seed >= reprobed_seeds
            or not networks.finite[at]
            or not (before or chosen.get((job.task, job.attribute)) == job.alpha)
        ):
            continue
        hidden = networks.hidden(prepared, at)
        stage = "before" if before else "after"
        read = sorted(attributes) if before else [job.attribute]
        out += [
            Representation(STRATEGY, attribute, job.task, job.alpha, job.seed, stage, hidden)
            for attribute in read
            if (job.task, attribute) in chosen
        ]
    return out
