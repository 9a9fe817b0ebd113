"""Search for the intersections of attributes with the worst metrics, corrected for multiple testing.

Every intersection that the small-group rule allows to be tested is compared one-sided with the mean of the other tested
intersections of the same attributes. Permutations move the complete attribute set of a patient, so the association between
attributes is kept. The step-down maximum runs over all intersections of a score set, which corrects for selecting the worst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.vocabulary import UNKNOWN
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.gaps import GAP_METRICS, estimates
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.labellings import Labellings, Labels, labels
from fmaudit_core.fairness.multiplicity import step_down
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.score_sets import ScoreSets, Studies, named
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.studentised import Scaled, back
from fmaudit_core.fairness.subgroups import measured, with_detectable
from fmaudit_core.fairness.thresholds import Draws
from fmaudit_core.fairness.units import ClassSizes, Units
from fmaudit_core.tables.fairness import INTERSECTIONS

Float64Array = npt.NDArray[np.float64]

#: separator between attribute names, and between level names
TIMES: Final = " x "


@dataclass(frozen=True)
class _Combination:
    """A combination of attributes and its intersections.

    Parameters
    ----------
    levels : names of the intersections that occur, ascending
    parts : (n,) int, index of each study in `levels`
    tested : indices in `levels` of the intersections tested for at least one metric
    of_metric : metric -> indices in `tested` of the intersections tested for it; empty if fewer than two
    by_joint : (k,) labels, from a study's set of all attributes to its index in `tested`, ``len(tested)`` for all others
    """

    attributes: tuple[str, ...]
    levels: list[str]
    parts: npt.NDArray[np.int64]
    tested: list[int]
    of_metric: dict[str, list[int]]
    by_joint: Labels


def intersection_rows(
    cohort: ScoreSets, attributes: Sequence[str], settings: FairnessSection, alpha: float, draws: Draws
) -> list[dict[str, Any]]:
    """Rows of `INTERSECTIONS` for score sets on the same studies.

    `difference` is the difference from the precision-weighted mean of the other tested intersections of the same attributes.
    `rank` 1 is the intersection with the worst studentised difference. `p_worse` is one-sided; `p_worse_adjusted` is corrected
    over all intersections of the score set and metric.
    """
    first = next(iter(cohort.values())).frame
    joint = first.select(pl.struct(attributes).rank("dense")).to_series().cast(pl.Int64).to_numpy() - 1
    combined = [
        _combination(first, names, joint, settings)
        for depth in range(2, settings.intersection_depth + 1)
        for names in combinations(attributes, depth)
    ]
    if not combined:
        return []
    sets = [one.studies for one in cohort.values()]
    searched = _searched(sets, joint, combined, first.get_column("task")[0], settings)
    return [
        row
        for key, studies, found in zip(cohort, sets, searched, strict=True)
        for row in _rows(named(key), studies, combined, found, settings, alpha, draws.get(key))
    ]


def _combination(
    frame: pl.DataFrame, names: tuple[str, ...], joint: npt.NDArray[np.int64], settings: FairnessSection
) -> _Combination:
    level = frame.select(pl.concat_str(names, separator=TIMES).alias("level")).to_series()
    names_of = sorted(level.unique().to_list())
    parts = level.replace_strict({name: at for at, name in enumerate(names_of)}, return_dtype=pl.Int64).to_numpy()
    y = frame.get_column("y_true").to_numpy()
    patient = frame.get_column("patient_id").rank("dense").to_numpy()
    status = [
        metric_status(y[parts == at], patient[parts == at], settings, _judged(name)) for at, name in enumerate(names_of)
    ]
    tested = [at for at, one in enumerate(status) if "tested" in one.values()]
    of_metric = {
        metric: [place for place, at in enumerate(tested) if status[at][metric] == "tested"] for metric in GAP_METRICS
    }
    place = np.full(len(names_of), len(tested))
    place[tested] = np.arange(len(tested))
    by_joint = np.zeros(int(joint.max()) + 1, dtype=np.int64)
    by_joint[joint] = place[parts]
    of_metric = {metric: places if len(places) > 1 else [] for metric, places in of_metric.items()}
    return _Combination(names, names_of, parts, tested, of_metric, labels(by_joint, len(tested) + 1))


def _judged(level: str) -> str:
    """Return the level for the small-group rule: unrecorded if any part of the intersection is unrecorded."""
    return UNKNOWN if UNKNOWN in level.split(TIMES) else level


@dataclass(frozen=True)
class _Found:
    """Search result of one metric: (combination, index in its `tested`) -> (difference, p, adjusted p, rank)."""

    by_place: dict[tuple[int, int], tuple[float, float, float, int]]


def _searched(
    sets: Sequence[Studies],
    joint: npt.NDArray[np.int64],
    combined: Sequence[_Combination],
    task: str,
    settings: FairnessSection,
) -> list[dict[str, _Found]]:
    """Search every score set with the same permutations."""
    if not any(places for one in combined for places in one.of_metric.values()):
        return [{} for _ in sets]
    y = sets[0].y_true
    units = Units.of(joint, sets[0].patient, y)
    sizes = [np.bincount(one.by_joint[units.group], minlength=len(one.tested) + 1)[:-1] for one in combined]
    smallest = int(np.concatenate(sizes).min())
    permuter = PatientPermuter(units, seed=settings.seed, named=task, test_from=settings.test_from, smallest=smallest)
    rankings = [Ranking.of(one.y_score, y, units, one.threshold) for one in sets]
    own = _intersected(units, Labellings.of(units.group[None]), combined)
    observed = [_worse(ranking, own, combined) for ranking in rankings]
    permuted: list[dict[str, list[Float64Array]]] = [{metric: [] for metric in found} for found in observed]
    for labellings in permuter.permutations(settings.n_permutations):
        intersected = _intersected(units, labellings, combined)
        for ranking, kept in zip(rankings, permuted, strict=True):
            for metric, (worse, _) in _worse(ranking, intersected, combined).items():
                kept[metric].append(worse)
    return [
        {
            metric: _ranked(worse[0], difference, np.concatenate(permuted_of[metric]), combined, metric)
            for metric, (worse, difference) in found.items()
        }
        for found, permuted_of in zip(observed, permuted, strict=True)
    ]


def _intersected(
    units: Units, labellings: Labellings, combined: Sequence[_Combination]
) -> list[tuple[Labellings, ClassSizes]]:
    """Return the labellings by every combination with their class sizes, which all score sets share."""
    mapped = [labellings.mapped(one.by_joint) for one in combined]
    return [(each, units.sizes(each, len(one.tested) + 1)) for each, one in zip(mapped, combined, strict=True)]


def _worse(
    ranking: Ranking, intersected: Sequence[tuple[Labellings, ClassSizes]], combined: Sequence[_Combination]
) -> dict[str, tuple[Float64Array, Float64Array]]:
    """Compute how much worse each tested intersection is than the others, for the labellings by every combination.

    Returns
    -------
    Metric -> (B, k) studentised differences, positive if worse, and (k,) differences of the first labelling
    """
    out: dict[str, list[tuple[Float64Array, Float64Array]]] = {}
    for one, (permuted, sizes) in zip(combined, intersected, strict=True):
        metrics = [metric for metric, places in one.of_metric.items() if places]
        n_groups = len(one.tested) + 1
        for metric, found in estimates(ranking, permuted, n_groups, sizes, metrics).items():
            chosen = found.of(one.of_metric[metric])
            sign = -1.0 if metric == "auroc" else 1.0
            first = Scaled(chosen.scaled.t[0], chosen.scaled.v[0])
            difference = chosen.value[0] - back(metric, first.others()[0])
            out.setdefault(metric, []).append((sign * chosen.scaled.against_others(), difference))
    return {
        metric: (np.concatenate([worse for worse, _ in parts], axis=1), np.concatenate([each for _, each in parts]))
        for metric, parts in out.items()
    }


def _ranked(
    observed: Float64Array,
    difference: Float64Array,
    null: Float64Array,
    combined: Sequence[_Combination],
    metric: str,
) -> _Found:
    order = np.argsort(-observed, kind="stable")
    rank = np.empty(len(observed), dtype=np.int64)
    rank[order] = np.arange(1, len(observed) + 1)
    p, adjusted = step_down(observed, null)
    places = [(at, place) for at, one in enumerate(combined) for place in one.of_metric[metric]]
    values = zip(difference, p, adjusted, rank, strict=True)
    return _Found(
        {
            place: (float(d), float(one), float(two), int(r))
            for place, (d, one, two, r) in zip(places, values, strict=True)
        }
    )


def _rows(
    of_set: dict[str, Any],
    studies: Studies,
    combined: Sequence[_Combination],
    searched: dict[str, _Found],
    settings: FairnessSection,
    alpha: float,
    draws: Float64Array | None,
) -> Iterator[dict[str, Any]]:
    for at, one in enumerate(combined):
        attribute = {"attribute": TIMES.join(one.attributes), "depth": len(one.attributes)}
        found = [
            list(measured(studies.only(one.parts == part), _judged(level), settings, draws))
            for part, level in enumerate(one.levels)
        ]
        for of_metric in zip(*found, strict=True):
            metric = of_metric[0].row["metric"]
            if metric not in GAP_METRICS:
                continue
            tests = searched[metric].by_place if metric in searched else {}
            for part, (level, row) in enumerate(zip(one.levels, with_detectable(of_metric, alpha), strict=True)):
                shown = {name: value for name, value in row.items() if name in INTERSECTIONS.schema}
                place = one.tested.index(part) if part in one.tested else -1
                if (at, place) in tests:
                    names = ("difference", "p_worse", "p_worse_adjusted", "rank")
                    shown |= dict(zip(names, tests[at, place], strict=True))
                yield of_set | attribute | {"subgroup": level} | shown
