"""Speed of the statistics compared with other libraries, and at the size of a complete study, in one run on the same data.

5,000 studies, attributes of 6, 2 and 5 subgroups, 1,000 permutations of AUROC and UDR gaps: a loop over scikit-learn, fairlearn's
bootstrap, the permutation test alone, and all of `assess`. Then the grid of 3 encoders x 8 tasks x 4 score sets x 3 attributes on
3,200 studies with 9,999 permutations, and the scaling with the number of studies.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import polars as pl
from fairlearn.metrics import MetricFrame, false_negative_rate
from sklearn.metrics import recall_score, roc_auc_score

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.gaps import null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.units import Units

GROUPS = {"race_ethnicity": 6, "sex": 2, "age_band": 5}
THRESHOLD = 1.0


def cohort(n: int, seed: int = 0) -> pl.DataFrame:
    """Return predictions of one model on `n` test studies of fewer patients, and half as many for validation."""
    rng = np.random.default_rng(seed)
    total = n + n // 2
    patient = rng.integers(0, int(total / 1.2), total)
    y = rng.random(total) < 0.2
    frame = {
        "study_id": np.arange(total).astype(str),
        "patient_id": patient.astype(str),
        "split": np.where(patient % 3 == 0, "val", "test"),
        "y_true": y,
        "y_score": 1.2 * y + rng.normal(size=total),
    }
    for attribute, k in GROUPS.items():
        frame[attribute] = rng.integers(0, k, int(patient.max()) + 1).astype(str)[patient]
    return pl.DataFrame(frame)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def sklearn_loop(test: pl.DataFrame, n_permutations: int) -> None:
    """Shuffle the labels, and compute each subgroup's AUROC and sensitivity again, as in a typical script."""
    rng = np.random.default_rng(0)
    y, score = test["y_true"].to_numpy(), test["y_score"].to_numpy()
    called = score >= THRESHOLD
    for attribute, k in GROUPS.items():
        group = test[attribute].cast(pl.Int64).to_numpy()
        for _ in range(n_permutations):
            dealt = rng.permutation(group)
            members = [dealt == level for level in range(k)]
            aurocs = [roc_auc_score(y[of], score[of]) for of in members]
            missed = [1 - recall_score(y[of], called[of]) for of in members]
            _ = max(aurocs) - min(aurocs), max(missed) - min(missed)


def fairlearn_bootstrap(test: pl.DataFrame, n_boot: int) -> None:
    y, score = test["y_true"].to_numpy(), test["y_score"].to_numpy()
    called = (score >= THRESHOLD).astype(int)
    for attribute in GROUPS:
        group = test[attribute].to_numpy()
        settings = {"sensitive_features": group, "n_boot": n_boot, "ci_quantiles": [0.025, 0.975], "random_state": 0}
        MetricFrame(metrics={"auroc": roc_auc_score}, y_true=y, y_pred=score, **settings).difference_ci()
        MetricFrame(metrics={"udr": false_negative_rate}, y_true=y, y_pred=called, **settings).difference_ci()


def permutation_test(test: pl.DataFrame, n_permutations: int, n_sets: int = 1) -> None:
    y, score = test["y_true"].to_numpy(), test["y_score"].to_numpy()
    patient = test["patient_id"].rank("dense").cast(pl.Int64).to_numpy()
    for attribute in GROUPS:
        units = Units.of(test[attribute].cast(pl.Int64).to_numpy(), patient, y)
        rankings = [Ranking.of(np.roll(score, shift), y, units, THRESHOLD) for shift in range(n_sets)]
        null_gaps(
            rankings, units, PatientPermuter(units, seed=0, named="task", test_from=25).permutations(n_permutations)
        )


def against_peers(n_permutations: int) -> None:
    frame = cohort(5_000)
    test = frame.filter(pl.col("split") == "test").head(5_000)
    settings = FairnessSection(n_permutations=n_permutations)
    permutation_test(test, 99)  # compile before timing
    assess(frame, attributes=list(GROUPS), settings=FairnessSection(n_permutations=99))
    ours = seconds(lambda: permutation_test(test, n_permutations))
    whole = seconds(lambda: assess(frame, attributes=list(GROUPS), settings=settings))
    loop = seconds(lambda: sklearn_loop(test, n_permutations))
    boot = seconds(lambda: fairlearn_bootstrap(test, n_permutations))
    print(
        f"{test.height:,} studies, subgroups {tuple(GROUPS.values())}, {n_permutations:,} permutations, AUROC and UDR gaps"
    )
    print(f"  scikit-learn loop           {loop:8.2f} s")
    print(f"  fairlearn, bootstraps       {boot:8.2f} s")
    print(f"  permutation test            {ours:8.3f} s   {loop / ours:8.0f} x faster than the loop")
    print(f"  assess, everything          {whole:8.3f} s   {loop / whole:8.0f} x and {boot / whole:.0f} x faster")


def grid() -> None:
    base = cohort(3_200)
    rng = np.random.default_rng(1)
    frames = [
        base.with_columns(
            encoder=pl.lit(encoder),
            task=pl.lit(f"task_{task}"),
            probe=pl.lit(probe),
            y_score=pl.col("y_score") + pl.Series(0.3 * rng.normal(size=base.height)),
        )
        for encoder in ("a", "b", "c")
        for task in range(8)
        for probe in ("one", "two", "three", "four")
    ]
    everything = pl.concat(frames)
    uncrossed = FairnessSection(intersection_depth=1)
    assess(frames[0], attributes=list(GROUPS))  # compile before timing
    taken = seconds(lambda: assess(everything, attributes=list(GROUPS), settings=uncrossed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    crossed = seconds(lambda: assess(everything, attributes=list(GROUPS)))
    peak_crossed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    n_test = base.filter(pl.col("split") == "test").height
    print(f"grid of 96 score sets x 3 attributes x AUROC, UDR, FPR on {n_test:,} studies, 9,999 permutations, max-T")
    print(f"  assess                      {taken:8.1f} s   peak {peak:.2f} GB")
    print(f"  and all intersections of two{crossed:8.1f} s   peak {peak_crossed:.2f} GB")


def scaling() -> None:
    print("cost of the permutation test of three attributes, ns a study, permutation and score set")
    permutation_test(cohort(5_000), 99)
    sizes = [(n, 1_000, 1) for n in (5_000, 20_000, 80_000, 200_000)]
    sizes += [(5_000, b, 1) for b in (2_000, 4_000, 8_000)] + [(5_000, 1_000, k) for k in (4, 16, 64)]
    for n, n_permutations, n_sets in sizes:
        test = cohort(n).filter(pl.col("split") == "test").head(n)
        taken = seconds(lambda test=test, b=n_permutations, k=n_sets: permutation_test(test, b, k))
        each = 1e9 * taken / test.height / 3 / n_permutations / n_sets
        print(
            f"  {test.height:>8,} studies {n_permutations:>6,} permutations {n_sets:>3} score sets {taken:8.2f} s {each:6.2f} ns"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--permutations", type=int, default=1_000)
    parser.add_argument("--only", choices=["peers", "grid", "scaling"])
    options = parser.parse_args()
    parts = {"peers": lambda: against_peers(options.permutations), "grid": grid, "scaling": scaling}
    for name, part in parts.items():
        if options.only in (None, name):
            part()


if __name__ == "__main__":
    main()
