"""Intersections of attributes, and which of them fare worst: a search whose multiplicity is paid for.

Every intersection that the small-group rule lets be tested is compared with all other studies, in the direction of faring worse.
The null deals patients' whole sets of attributes within outcome strata, so it keeps how attributes go together; the step-down
maximum runs over all intersections of a score set, so the worst one of many is judged as the worst one of many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gaps import GAP_METRICS, estimates
from fmaudit_core.fairness.kernels import Labellings, Labels, Ranking, count
from fmaudit_core.fairness.multiplicity import step_down
from fmaudit_core.fairness.permutation import Dealer
from fmaudit_core.fairness.score_sets import ScoreSets, Studies, named, studies_of
from fmaudit_core.fairness.small_groups import NO_THRESHOLD, status_of
from fmaudit_core.fairness.subgroups import metric_rows
from fmaudit_core.fairness.thresholds import SCORE_SET, Draws
from fmaudit_core.vocabulary import UNKNOWN

Float64Array = npt.NDArray[np.float64]

#: between the names of attributes, and between those of their levels
TIMES: Final = " x "
INTERSECTIONS_SCHEMA: Final = pl.Schema(
    {
        **dict.fromkeys(SCORE_SET, pl.String),
        "attribute": pl.String,
        "subgroup": pl.String,
        "depth": pl.Int64,
        "metric": pl.String,
        "n": pl.Int64,
        "n_pos": pl.Int64,
        "n_neg": pl.Int64,
        "value": pl.Float64,
        "ci_low": pl.Float64,
        "ci_high": pl.Float64,
        "status": pl.String,
        "mde": pl.Float64,
        "difference": pl.Float64,
        "p_worse": pl.Float64,
        "p_worse_adjusted": pl.Float64,
        "rank": pl.Int64,
    }
)


@dataclass(frozen=True)
class _Combination:
    """Some attributes together.

    Parameters
    ----------
    levels : names of the intersections that occur, ascending
    parts : (n,) int, place in `levels` of each study
    tested : places in `levels` of those that are tested
    by_joint : (k,) labels, from a study's set of all attributes to its place in `tested`, ``len(tested)`` for all others
    """

    attributes: tuple[str, ...]
    levels: list[str]
    parts: npt.NDArray[np.int64]
    tested: list[int]
    by_joint: Labels


def intersection_rows(
    cohort: ScoreSets, attributes: Sequence[str], settings: FairnessSection, alpha: float, draws: Draws
) -> list[dict[str, Any]]:
    """Rows of `INTERSECTIONS_SCHEMA` for score sets on the same studies.

    `rank` 1 is the intersection that fares worst by the studentised difference from all other studies; `p_worse` is one-sided,
    `p_worse_adjusted` corrected over all intersections of the score set and metric.
    """
    first = next(iter(cohort.values()))
    joint = first.select(pl.struct(attributes).rank("dense")).to_series().cast(pl.Int64).to_numpy() - 1
    combined = [
        _combination(first, names, joint, settings)
        for depth in range(2, settings.intersection_depth + 1)
        for names in combinations(attributes, depth)
    ]
    if not combined:
        return []
    sets = [studies_of(frame, draws.get(key)) for key, frame in cohort.items()]
    searched = _searched(sets, joint, combined, first.get_column("task")[0], settings)
    return [
        row
        for key, studies, found in zip(cohort, sets, searched, strict=True)
        for row in _rows(named(key), studies, combined, found, settings, alpha)
    ]


def _combination(
    frame: pl.DataFrame, names: tuple[str, ...], joint: npt.NDArray[np.int64], settings: FairnessSection
) -> _Combination:
    level = frame.select(pl.concat_str(names, separator=TIMES).alias("level")).to_series()
    names_of = sorted(level.unique().to_list())
    parts = level.replace_strict({name: at for at, name in enumerate(names_of)}, return_dtype=pl.Int64).to_numpy()
    y = frame.get_column("y_true").to_numpy()
    patient = frame.get_column("patient_id").rank("dense").to_numpy()
    tested = [
        at
        for at, name in enumerate(names_of)
        if status_of(y[parts == at], patient[parts == at], settings, _judged(name)) == "tested"
    ]
    place = np.full(len(names_of), len(tested))
    place[tested] = np.arange(len(tested))
    by_joint = np.zeros(int(joint.max()) + 1, dtype=np.int64)
    by_joint[joint] = place[parts]
    labels = by_joint.astype(np.uint8) if len(tested) < 256 else by_joint.astype(np.uint16)
    return _Combination(names, names_of, parts, tested, labels)


def _judged(level: str) -> str:
    """The level the rule sees: an intersection with an unrecorded part is itself unrecorded."""
    return UNKNOWN if UNKNOWN in level.split(TIMES) else level


@dataclass(frozen=True)
class _Found:
    """Of one metric, over the tested intersections of all combinations in order: each (k,)."""

    difference: Float64Array
    p: Float64Array
    adjusted: Float64Array
    rank: npt.NDArray[np.int64]


def _searched(
    sets: Sequence[Studies],
    joint: npt.NDArray[np.int64],
    combined: Sequence[_Combination],
    task: str,
    settings: FairnessSection,
) -> list[dict[str, _Found]]:
    """Search of every score set, all under the same deals."""
    if not any(one.tested for one in combined):
        return [{} for _ in sets]
    names = "+".join(TIMES.join(one.attributes) for one in combined)
    dealer = Dealer(joint, sets[0].patient, sets[0].y_true, seed=settings.seed, named=f"{task}/{names}")
    rankings = [Ranking.of(one.y_score, one.y_true, one.threshold) for one in sets]
    own = [Labellings.of(one.by_joint[joint][None]) for one in combined]
    observed = [_worse(ranking, own, combined) for ranking in rankings]
    dealt: list[dict[str, list[Float64Array]]] = [{metric: [] for metric in GAP_METRICS} for _ in sets]
    for labellings in dealer.deals(settings.n_permutations):
        intersected = [labellings.mapped(one.by_joint) for one in combined]
        for ranking, kept in zip(rankings, dealt, strict=True):
            for metric, found in _worse(ranking, intersected, combined).items():
                kept[metric].append(found)
    return [
        {metric: _judged_search(found[metric][0], np.concatenate(null[metric])) for metric in GAP_METRICS}
        for found, null in zip(observed, dealt, strict=True)
    ]


def _worse(
    ranking: Ranking, labellings: Sequence[Labellings], combined: Sequence[_Combination]
) -> dict[str, Float64Array]:
    """(B, k), from labellings by every combination: by how much each tested one fares worse than all other studies."""
    out: dict[str, list[Float64Array]] = {metric: [] for metric in GAP_METRICS}
    for one, dealt in zip(combined, labellings, strict=True):
        for metric, found in estimates(count(ranking, dealt, len(one.tested) + 1)).items():
            sign = -1.0 if metric == "auroc" else 1.0
            out[metric].append(sign * (found.by_group - found.by_rest)[:, : len(one.tested)])
    return {metric: np.concatenate(parts, axis=1) for metric, parts in out.items()}


def _judged_search(observed: Float64Array, null: Float64Array) -> _Found:
    spread = np.sqrt(np.nanmean(null**2, axis=0))
    spread = np.where(spread > 0, spread, np.inf)
    t, dealt = observed / spread, np.nan_to_num(null / spread, nan=-np.inf)
    order = np.argsort(-t, kind="stable")
    rank = np.empty(len(t), dtype=np.int64)
    rank[order] = np.arange(1, len(t) + 1)
    p, adjusted = step_down(t, dealt)
    return _Found(observed, p, adjusted, rank)


def _rows(
    of_set: dict[str, Any],
    studies: Studies,
    combined: Sequence[_Combination],
    searched: dict[str, _Found],
    settings: FairnessSection,
    alpha: float,
) -> Iterator[dict[str, Any]]:
    before = 0
    for one in combined:
        attribute = {"attribute": TIMES.join(one.attributes), "depth": len(one.attributes)}
        for at, level in enumerate(one.levels):
            for row in metric_rows(studies, one.parts == at, _judged(level), settings, alpha):
                if row["metric"] not in GAP_METRICS:
                    continue
                shown = {name: value for name, value in row.items() if name in INTERSECTIONS_SCHEMA}
                if at in one.tested and row["status"] != NO_THRESHOLD:
                    found, place = searched[row["metric"]], before + one.tested.index(at)
                    sign = -1.0 if row["metric"] == "auroc" else 1.0
                    shown |= {"difference": sign * float(found.difference[place]), "p_worse": float(found.p[place])}
                    shown |= {"p_worse_adjusted": float(found.adjusted[place]), "rank": int(found.rank[place])}
                yield of_set | attribute | {"subgroup": level} | shown
        before += len(one.tested)
