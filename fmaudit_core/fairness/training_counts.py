"""Gaps after refitting the probe with equally many training studies of every subgroup, against refits of the same size at random.

Fewer training studies make any probe worse, and a gap changes with it. So refits with equal counts are compared with refits
on as many studies drawn at random, not with the fit on all studies: what is left of the change goes with the mix of
subgroups. The difference from the full fit would report a smaller gap where the task of a subgroup is merely harder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import stdtr

from fmaudit_core.common.matrix_rows import rows_of
from fmaudit_core.common.vocabulary import SCORE_SET
from fmaudit_core.config import FairnessSection
from fmaudit_core.fairness.cluster_sizes import n_patients
from fmaudit_core.fairness.intervals import t_quantile
from fmaudit_core.fairness.seeding import seed_of
from fmaudit_core.fairness.small_groups import metric_status
from fmaudit_core.fairness.standardised import covariance
from fmaudit_core.fairness.thresholds import choose_threshold
from fmaudit_core.fairness.training_draws import (
    STEPS,
    TrainingDraw,
    counts_at,
    draw_training,
    smallest_counts,
)
from fmaudit_core.probes.logistic import fit_logistic, logits
from fmaudit_core.tables.fairness import LEARNING_CURVES, TRAINING_COUNTS

Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

#: random draws per attribute, each with `STEPS` refits of equal counts and one at random
SEEDS: Final = 5
_ALL: Final = "all"


@dataclass(frozen=True)
class Probed:
    """The embedded studies of one task with a known outcome, and how its probe was fitted.

    Parameters
    ----------
    x : (n, d) float32, raw embeddings
    studies : frame of n rows with `split`, `patient_id`, `y_true` and a column of levels per attribute
    c : float, inverse regularisation strength that validation chose
    key : mapping of the columns of a score set
    """

    x: npt.NDArray[np.float32]
    studies: pl.DataFrame
    c: float
    key: Mapping[str, str]

    def inside(self, split: str) -> BoolArray:
        """Return which studies are of a split, (n,) bool."""
        out: BoolArray = (self.studies.get_column("split") == split).to_numpy()
        return out

    @property
    def y_true(self) -> BoolArray:
        """Return the outcomes, (n,) bool."""
        out: BoolArray = self.studies.get_column("y_true").to_numpy()
        return out

    @property
    def patient(self) -> IntArray:
        """Return the patients, (n,) int64 codes from 1."""
        out: IntArray = self.studies.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy()
        return out


@dataclass(frozen=True)
class Counts:
    """Rows of `TRAINING_COUNTS` and of `LEARNING_CURVES`."""

    counts: pl.DataFrame
    curves: pl.DataFrame


@dataclass(frozen=True)
class _Attribute:
    """An attribute with at least two tested subgroups, and its draws; none if a subgroup has too few training studies.

    Parameters
    ----------
    place : (n,) int64, subgroup of each study in `levels`, -1 if it is not tested
    each : training studies of the smallest subgroup with and without the outcome
    """

    name: str
    levels: Sequence[str]
    place: IntArray
    each: tuple[int, int]
    draws: Sequence[TrainingDraw]

    def weights(self) -> Iterator[tuple[str, BoolArray]]:
        """Return the training studies of every refit, by name."""
        for seed, one in enumerate(self.draws):
            yield self.random(seed), one.random
            for step in range(STEPS):
                yield self.equal(seed, step), one.equal[step]

    def random(self, seed: int) -> str:
        """Return the name of the refit at random."""
        return f"{self.name}/{seed}/random"

    def equal(self, seed: int, step: int = STEPS - 1) -> str:
        """Return the name of the refit with equal counts at a step."""
        return f"{self.name}/{seed}/{step}"


def training_counts(probed: Probed, attributes: Sequence[str], settings: FairnessSection) -> Counts:
    """Refit the probe with equal training counts per subgroup and with as many studies at random; compare gaps in UDR on test.

    All refits of all attributes are columns of one logistic problem. Each has its own threshold, chosen on validation.
    """
    found = [one for name in attributes if (one := _attribute(probed, name, settings)) is not None]
    missed = _missed(probed, found, settings) if any(one.draws for one in found) else {}
    rows = [row for one in found for row in _rows(probed, one, missed, settings)]
    curves = [row for one in found for row in _curve(probed, one, missed)]
    order = [*SCORE_SET, "attribute", "subgroup"]
    return Counts(
        TRAINING_COUNTS.frame([{**probed.key, **row} for row in rows]).sort(order),
        LEARNING_CURVES.frame([{**probed.key, **row} for row in curves]).sort(*order, "step"),
    )


def _attribute(probed: Probed, name: str, settings: FairnessSection) -> _Attribute | None:
    """Return an attribute with its draws; None if fewer than two of its subgroups are tested."""
    level = probed.studies.get_column(name)
    patient, test, train = probed.patient, probed.inside("test"), probed.inside("train")
    levels = [
        one
        for one in level.unique().sort().to_list()
        if metric_status(probed.y_true[at := test & (level == one).to_numpy()], patient[at], settings, one)["udr"]
        == "tested"
    ]
    if len(levels) < 2:
        return None
    places = {one: at for at, one in enumerate(levels)}
    place = level.replace_strict(places, default=-1, return_dtype=pl.Int64).to_numpy()
    each = smallest_counts(place[train], probed.y_true[train]) if (place[train] >= 0).any() else (0, 0)
    task, draws = probed.key["task"], []
    if min(each) >= settings.test_from:
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed_of(settings.seed, f"{task}/{name}/training_counts/{seed}"))
            draws.append(draw_training(place[train], probed.y_true[train], each, rng))
    return _Attribute(name, levels, place, each, draws)


def _missed(probed: Probed, attributes: Sequence[_Attribute], settings: FairnessSection) -> dict[str, BoolArray]:
    """Return for every refit whether each positive test study is missed, and of the fit on all studies as `_ALL`."""
    train, val, test, y = *(probed.inside(one) for one in ("train", "val", "test")), probed.y_true
    drawn = {name: studies for one in attributes for name, studies in one.weights()}
    weights = {_ALL: np.ones(int(train.sum()))} | {name: one.astype(np.float64) for name, one in drawn.items()}
    task = probed.key["task"]
    fits = fit_logistic(
        rows_of(probed.x, train), {task: y[train].astype(np.float64)}, c_grid=(probed.c,), weights=weights
    )
    columns = fits.coefficients[0, :, 0], fits.intercepts[0, :, 0]
    of_val, of_positives = logits(rows_of(probed.x, val), *columns), logits(probed.x[test & y], *columns)
    thresholds = [choose_threshold(y[val], score, settings, where=task) for score in of_val.T]
    return {
        name: of_positives[:, at] < threshold
        for at, (name, threshold) in enumerate(zip(weights, thresholds, strict=True))
    }


def _rows(
    probed: Probed, attribute: _Attribute, missed: Mapping[str, BoolArray], settings: FairnessSection
) -> Iterator[dict[str, Any]]:
    train, positive = probed.inside("train"), probed.inside("test") & probed.y_true
    of_test = attribute.place[positive]
    codes = probed.patient[positive]
    for at, level in enumerate(attribute.levels):
        own = train & (attribute.place == at)
        n_pos = int((own & probed.y_true).sum())
        row: dict[str, Any] = {"attribute": attribute.name, "subgroup": level, "n_pos": n_pos}
        row |= {"n_neg": int(own.sum()) - n_pos, "n_pos_each": attribute.each[0], "n_neg_each": attribute.each[1]}
        if not attribute.draws:
            yield row | {"status": "few_training"}
            continue
        sides = _Sides(of_test == at, (of_test >= 0) & (of_test != at), codes)
        random, equal = (
            np.stack([missed[name(seed)] for seed in range(SEEDS)]).astype(np.float64)
            for name in (attribute.random, attribute.equal)
        )
        yield row | {"status": "tested", "n_seeds": SEEDS} | _tested(sides, missed[_ALL], random, equal, settings)


def _tested(
    sides: _Sides, full: BoolArray, random: Float64Array, equal: Float64Array, settings: FairnessSection
) -> dict[str, float | None]:
    first, rest = (1.0, 0.0), (0.0, 1.0)
    gaps = {"gap_all": full[None].astype(np.float64), "gap_random": random, "gap_equal": equal}
    row: dict[str, float | None] = {name: float(sides.by_seed(one, (1.0, -1.0)).mean()) for name, one in gaps.items()}
    contrast = sides.estimate(random - equal, (1.0, -1.0), settings.confidence)
    row |= dict(zip(("gap_contrast", "gap_contrast_low", "gap_contrast_high", "gap_contrast_p"), contrast, strict=True))
    for name, signs in (("subgroup_change", first), ("rest_change", rest)):
        ends = sides.estimate(equal - random, signs, settings.confidence)[:3]
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    return row


@dataclass(frozen=True)
class _Sides:
    """Positive test studies of a subgroup and of the other tested subgroups.

    Parameters
    ----------
    first, rest : (n,) bool
    patient : (n,) int64, codes
    """

    first: BoolArray
    rest: BoolArray
    patient: IntArray

    def by_seed(self, y: Float64Array, signs: tuple[float, float]) -> Float64Array:
        """Return for each seed the signed sum of both sides' means, (seeds,).

        Parameters
        ----------
        y : (seeds, n) float64
        signs : factor of the mean of the subgroup, and of the rest
        """
        out: Float64Array = signs[0] * y[:, self.first].mean(axis=1) + signs[1] * y[:, self.rest].mean(axis=1)
        return out

    def estimate(
        self, y: Float64Array, signs: tuple[float, float], confidence: float
    ) -> tuple[float, float, float, float | None]:
        """Return `by_seed` averaged over seeds, its interval, and its p (None if no study distinguishes the refits).

        The variance is that between patients, of each study's mean over the seeds, and that of the mean over the draws as far as
        draws move all studies together: what moves single studies is part of the first. The degrees of freedom are those of the
        patients of the smaller side.
        """
        of_seeds, mean, n = self.by_seed(y, signs), y.mean(axis=0), len(y)
        single = sum(self._variance(one - mean, signs) for one in y) / (n - 1) / n
        together = max(float(of_seeds.var(ddof=1)) / n - single, 0.0)
        se = float(np.sqrt(self._variance(mean, signs) + together))
        sides = [side for side, sign in zip((self.first, self.rest), signs, strict=True) if sign]
        degrees = min(n_patients(self.patient[side]) for side in sides) - 1
        value, half = float(of_seeds.mean()), t_quantile(confidence, degrees) * se
        return value, value - half, value + half, 2 * float(stdtr(degrees, -abs(value) / se)) if se > 0 else None

    def _variance(self, y: Float64Array, signs: tuple[float, float]) -> float:
        """Return the variance between patients of the signed sum of both sides' means of y, (n,)."""
        influence = np.zeros(len(y))
        inside = np.zeros(len(y), dtype=bool)
        for side, sign in zip((self.first, self.rest), signs, strict=True):
            if sign:
                influence[side] = sign * (y[side] - y[side].mean()) / side.sum()
                inside |= side
        by_patient = np.bincount(self.patient, influence).astype(np.float64)
        return covariance(by_patient, by_patient, n_patients(self.patient[inside]))


def _curve(probed: Probed, attribute: _Attribute, missed: Mapping[str, BoolArray]) -> Iterator[dict[str, Any]]:
    of_test = attribute.place[probed.inside("test") & probed.y_true]
    for at, level in enumerate(attribute.levels if attribute.draws else ()):
        for step in range(STEPS):
            shares = [float(missed[attribute.equal(seed, step)][of_test == at].mean()) for seed in range(SEEDS)]
            n_pos, n_neg = counts_at(step, attribute.each)
            row = {"attribute": attribute.name, "subgroup": level, "step": step + 1, "n_pos": n_pos, "n_neg": n_neg}
            yield row | {"value": float(np.mean(shares)), "lowest": min(shares), "highest": max(shares)}
