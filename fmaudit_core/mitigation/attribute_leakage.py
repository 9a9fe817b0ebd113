"""Attribute leakage after mitigation: new probes, trained on held-out patients only, read representations before and after.

An adversary at chance proves nothing: it may only have lost to its encoder. Held-out patients are split in two halves, and each
half is scored by probes trained on the other, so no probe, eraser or encoder was trained on the patients it is evaluated on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.config import FairnessSection
from fmaudit_core.mitigation.attribute_probe import (
    Separability,
    linear_scores,
    separability,
    shuffled,
    usable,
)
from fmaudit_core.mitigation.dataset import Embedded
from fmaudit_core.mitigation.linear_heads import LinearHeads
from fmaudit_core.tables.mitigation import MITIGATION_LEAKAGE

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: the linear probes' inverse regularisation strength: the same before and after
_C: Final = 0.01
#: representations of one width probed at once
_AT_ONCE: Final = 64


@dataclass(frozen=True, eq=False)
class Representation:
    """A feature matrix from which probes predict an attribute.

    Parameters
    ----------
    task : the task it was trained for; empty if none
    stage : "before" or "after"
    x : (h, d) float32, held-out studies (val and test) sorted by study
    """

    strategy: str
    target_attribute: str
    task: str
    alpha: float | None
    seed: int | None
    stage: str
    x: Float32Array


@dataclass(frozen=True)
class _Question:
    """Subgroups of an attribute among the held-out studies, 0..k-1 and -1 elsewhere, and a random permutation of them."""

    code: IntArray
    permuted: IntArray
    k: int


def reprobed(
    cohort: Embedded,
    representations: Sequence[Representation],
    *,
    encoder: str,
    fairness: FairnessSection,
    device: str = "cpu",
) -> pl.DataFrame:
    """Predict the target attribute from every representation with a linear and a nonlinear probe.

    Returns
    -------
    frame of `MITIGATION_LEAKAGE`; attributes with fewer than two subgroups of enough held-out patients have no row
    """
    held_out = ~cohort.of("train")
    patient = cohort.patient[held_out]
    fold = _halves(patient, fairness.seed)
    questions: dict[str, _Question] = {}
    for attribute, levels in cohort.levels.items():
        code, kept = usable(
            levels.code[held_out], patient, len(levels.names), (fold == 0, fold == 1), fairness.suppress_under
        )
        if len(kept) > 1:
            questions[attribute] = _Question(code, _permuted(code, patient, fold, fairness.seed), len(kept))
    rows: list[dict[str, Any]] = []
    readable = [one for one in representations if one.target_attribute in questions]
    for one, linear, control in _linear(readable, questions, fold):
        question = questions[one.target_attribute]
        found = _read(question.code, linear, patient, fold, fairness.confidence)
        nothing = _read(question.permuted, control, patient, fold, fairness.confidence)
        more = {"probe": "logistic", "control_balanced_auroc": nothing.balanced_auroc}
        rows.append(_named(one, encoder) | vars(found) | more)
    for attribute, question in questions.items():
        of_attribute = [one for one in readable if one.target_attribute == attribute]
        for one, scores in _nonlinear(of_attribute, question.code, fold, fairness.seed, device):
            found = _read(question.code, scores, patient, fold, fairness.confidence)
            rows.append(_named(one, encoder) | vars(found) | {"probe": "mlp"})
    order = ["task", "strategy", "target_attribute", "stage", "alpha", "seed", "probe"]
    return MITIGATION_LEAKAGE.frame(rows).sort(order)


def _named(one: Representation, encoder: str) -> dict[str, Any]:
    named = {name: value for name, value in vars(one).items() if name != "x"}
    return named | {"encoder": encoder}


def _halves(patient: IntArray, seed: int) -> IntArray:
    """Assign each patient at random to half 0 or 1, (n,)."""
    people, codes = np.unique(patient, return_inverse=True)
    half = np.arange(len(people)) % 2
    permuted: IntArray = np.random.default_rng(seed).permutation(half)[codes]
    return permuted


def _permuted(code: IntArray, patient: IntArray, fold: IntArray, seed: int) -> IntArray:
    """Permute subgroups across the patients of each half."""
    out = np.full_like(code, -1)
    for half in (0, 1):
        some = (fold == half) & (code >= 0)
        out[some] = shuffled(code[some], patient[some], seed + half)
    return out


def _read(code: IntArray, scores: Float64Array, patient: IntArray, fold: IntArray, confidence: float) -> Separability:
    known = code >= 0
    return separability(code[known], scores[known], patient[known], confidence, fold[known])


def _linear(
    representations: Sequence[Representation], by_attribute: Mapping[str, _Question], fold: IntArray
) -> Iterator[tuple[Representation, Float64Array, Float64Array]]:
    """Yield scores of linear probes for true and permuted subgroups; all targets of one matrix are solved as one problem."""
    alike: dict[int, list[Representation]] = {}
    for one in representations:
        alike.setdefault(id(one.x), []).append(one)
    for some in alike.values():
        x = some[0].x
        questions = [by_attribute[one.target_attribute] for one in some]
        codes = [(code, one.k) for one in questions for code in (one.code, one.permuted)]
        scores = [np.empty((len(x), k)) for _, k in codes]
        for half in (0, 1):
            learned, read = fold == half, fold != half
            found = linear_scores(LinearHeads(x[learned]), [(code[learned], k) for code, k in codes], _C, x[read])
            for whole, part in zip(scores, found, strict=True):
                whole[read] = part
        for at, one in enumerate(some):
            yield one, scores[2 * at], scores[2 * at + 1]


def _nonlinear(
    representations: Sequence[Representation], code: IntArray, fold: IntArray, seed: int, device: str
) -> Iterator[tuple[Representation, Float64Array]]:
    """Yield scores of a nonlinear probe of each representation; representations of one width are trained together."""
    if not representations:
        return
    with needs_extra("encoders", "the nonlinear probes of a mitigation"):
        from fmaudit_core.mitigation.mlp_probe import mlp_scores
    for width in sorted({one.x.shape[1] for one in representations}):
        alike = [one for one in representations if one.x.shape[1] == width]
        for start in range(0, len(alike), _AT_ONCE):
            some = alike[start : start + _AT_ONCE]
            scores = np.empty((len(some), len(code), int(code.max()) + 1))
            for half in (0, 1):
                learned, read = fold == half, fold != half
                x = np.stack([one.x[learned] for one in some])
                y = np.repeat(code[learned][None], len(some), axis=0)
                to_score = np.stack([one.x[read] for one in some])
                scores[:, read] = mlp_scores(x, y, to_score, seed=seed, device=device)
            yield from zip(some, scores, strict=True)
