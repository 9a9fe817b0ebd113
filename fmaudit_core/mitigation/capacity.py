"""Mitigation and capacity: gap reductions in relation to separability, compared between encoders and along a ladder of widths.

Encoders differ in more than width. Two encoders are therefore compared by the difference of their reductions on the same
patients, never by a significant result for one and a non-significant result for the other. In addition, one encoder is projected
to growing widths, so that only the width varies.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.multiplicity import benjamini_hochberg
from fmaudit_core.mitigation.runs import NONE
from fmaudit_core.mitigation.subgroup_changes import tested_subgroups
from fmaudit_core.mitigation.swap_test import GAP, VARIANCE, Calls, p_of_difference, redrawn, reduction
from fmaudit_core.tables.mitigation import MITIGATION_CAPACITY, MITIGATION_INTERACTIONS

Float32Array = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_AIM: Final = ("task", "strategy", "target_attribute")


def capacity(results: pl.DataFrame, probes: pl.DataFrame) -> pl.DataFrame:
    """Return each strategy's reduction for its own attribute, with the attribute's separability and the embedding's width.

    Parameters
    ----------
    results : frame
        `MITIGATION_RESULTS` of any cells.
    probes : frame
        `DEMOGRAPHIC_PROBES` of the same encoders; the logistic probe is the one that width favours least.
    """
    own = results.filter(
        pl.col("chosen").fill_null(value=False)
        & pl.col("seed").is_null()
        & (pl.col("status") == "evaluated")
        & (pl.col("attribute") == pl.col("target_attribute"))
    )
    linear = probes.filter(pl.col("probe") == "logistic").select(
        "encoder", "attribute", "width", "balanced_auroc", "control_balanced_auroc", "macro_f1"
    )
    joined = own.join(linear, on=["encoder", "attribute"], how="left")
    return joined.select(*MITIGATION_CAPACITY.schema).sort("task", "strategy", "attribute", "encoder")


def interactions(
    scores: Mapping[str, pl.DataFrame], attributes: Sequence[str], settings: FairnessSection, *, n_bootstrap: int
) -> pl.DataFrame:
    """Compare encoders in pairs: whether a strategy reduces the gap more in one than in the other, on the same test patients.

    Parameters
    ----------
    scores : encoder -> frame of test scores of the unmitigated probe and of the chosen runs, with the attributes
    n_bootstrap : int
        Number of bootstrap samples of patients, the same for both encoders.

    Notes
    -----
    The p-value comes from the bootstrap shifted to no difference: under the null hypothesis of equal reductions the encoders need
    not be exchangeable, so their labels cannot be swapped.
    """
    rows: list[dict[str, Any]] = []
    for first, second in itertools.combinations(sorted(scores), 2):
        one = {key: frame for key, frame in scores[first].group_by(*_AIM)}  # noqa: C416 (a GroupBy is not a dict)
        two = {key: frame for key, frame in scores[second].group_by(*_AIM)}  # noqa: C416
        for key in sorted(set(one) & set(two)):
            task, strategy, attribute = (str(part) for part in key)
            if strategy == NONE or attribute not in attributes:
                continue
            bases = [of[task, NONE, NONE] for of in (one, two)]
            row = _pair(bases, [one[key], two[key]], task, attribute, settings, n_bootstrap)
            if row is not None:
                named = {"task": task, "strategy": strategy, "attribute": attribute}
                rows.append(row | named | {"encoder": first, "other_encoder": second})
    frame = MITIGATION_INTERACTIONS.frame(rows).sort("task", "strategy", "attribute", "encoder", "other_encoder")
    p = frame.get_column("p_value").fill_null(np.nan).to_numpy()
    return frame.with_columns(q_value=pl.Series(benjamini_hochberg(p)).fill_nan(None))


def _pair(
    bases: Sequence[pl.DataFrame],
    runs: Sequence[pl.DataFrame],
    task: str,
    attribute: str,
    settings: FairnessSection,
    n_bootstrap: int,
) -> dict[str, Any] | None:
    """Return the difference of two reductions on the shared studies; None if fewer than two subgroups are tested."""
    shared = bases[0].select("study_id").join(bases[1].select("study_id"), on="study_id").sort("study_id")
    frame = shared.join(bases[0], on="study_id", how="left", maintain_order="left")
    y = frame.get_column("y_true").to_numpy()
    patient = frame.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy() - 1
    group, tested, _ = tested_subgroups(frame.get_column(attribute), y, patient, settings)
    if len(tested) < 2:
        return None
    used = y & (group >= 0)
    found, drawn = [], []
    for base, run in zip(bases, runs, strict=True):
        before = _called(shared, base)[0]
        calls = Calls.of(patient[used], group[used], before[used], _called(shared, run)[:, used])
        found.append(reduction(calls))
        drawn.append(redrawn(calls, n_bootstrap, seed=settings.seed, named=f"{task}/{attribute}/interaction"))
    apart = drawn[0] - drawn[1]
    difference, variance = found[0].gap - found[1].gap, found[0].variance - found[1].variance
    low, high = np.quantile(apart[:, GAP], [0.5 - settings.confidence / 2, 0.5 + settings.confidence / 2])
    return {
        "reduction": found[0].gap,
        "other_reduction": found[1].gap,
        "difference": difference,
        "ci_low": float(low),
        "ci_high": float(high),
        "p_value": p_of_difference(apart[:, GAP], difference),
        "variance_difference": variance,
        "p_variance": p_of_difference(apart[:, VARIANCE], variance),
        "n_patients": len(np.unique(patient[used])),
    }


def _called(shared: pl.DataFrame, scores: pl.DataFrame) -> BoolArray:
    """Return the predicted positives of each seed's run on the shared studies, (s, n)."""
    out = []
    for _, one in sorted(scores.group_by("seed"), key=lambda pair: -1 if pair[0][0] is None else int(str(pair[0][0]))):
        aligned = shared.join(one, on="study_id", how="left", maintain_order="left")
        out.append((aligned.get_column("y_score") >= aligned.get_column("threshold")).to_numpy())
    return np.stack(out)


def widths(d: int, narrowest: int) -> list[int]:
    """Return the widths of the ladder: growing fourfold from the narrowest, then the embedding's own width."""
    out = [narrowest]
    while out[-1] < d:
        out.append(4 * out[-1])
    return [*(width for width in out if width < d), d]


def ladder(x: Float32Array, *, narrowest: int, seed: int) -> Iterator[tuple[int, Float32Array]]:
    """Yield random projections of embeddings to widths that grow fourfold, then the embeddings; each contains the previous one.

    Parameters
    ----------
    x : (n, d) float32
    narrowest : int, smallest width

    Yields
    ------
    Width, and (n, width) float32
    """
    d = x.shape[1]
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0].astype(np.float32)
    for width in widths(d, narrowest)[:-1]:
        yield width, x @ rotation[:, :width]
    yield d, x
