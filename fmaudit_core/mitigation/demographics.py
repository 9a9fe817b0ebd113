"""Demographic probing: separability of an attribute in an encoder's embeddings, with the chance level from permuted labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.common.errors import needs_extra
from fmaudit_core.config import FairnessSection
from fmaudit_core.mitigation.attribute_probe import Separability, linear_scores, separability, shuffled, usable
from fmaudit_core.mitigation.dataset import Embedded
from fmaudit_core.mitigation.linear_heads import LinearHeads
from fmaudit_core.tables.mitigation import DEMOGRAPHIC_PROBES

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Target:
    """Subgroups of one attribute among all studies, 0..k-1 and -1 elsewhere; `codes` holds the true ones, then permuted ones."""

    attribute: str
    names: list[str]
    codes: list[IntArray]

    @property
    def k(self) -> int:
        return len(self.names)


def demographic_probes(
    cohort: Embedded,
    *,
    encoder: str,
    c_grid: Sequence[float],
    shuffles: int,
    settings: FairnessSection,
    probes: Sequence[str] = ("logistic", "mlp"),
    device: str = "cpu",
) -> pl.DataFrame:
    """Probe every attribute: trained on train, evaluated on test; C of the logistic probe is chosen on validation.

    Parameters
    ----------
    c_grid : inverse regularisation strengths
    shuffles : int
        Number of label permutations across the patients of a split; the control is the mean over them.
    probes : "logistic" and "mlp"

    Returns
    -------
    frame of `DEMOGRAPHIC_PROBES`: macro-F1 as the literature gives it, which moves with the subgroups' sizes, and next to it the
    balanced one-vs-rest AUROC with its interval, which does not

    References
    ----------
    Hewitt & Liang 2019 (control tasks).
    """
    train, val, test = cohort.of("train"), cohort.of("val"), cohort.of("test")
    rows: list[dict[str, Any]] = []
    targets = []
    named = {"encoder": encoder, "width": cohort.x.shape[1]}
    for attribute, levels in cohort.levels.items():
        code, kept = usable(levels.code, cohort.patient, len(levels.names), (train, val, test), settings.suppress_under)
        if len(kept) < 2:
            rows += [named | {"attribute": attribute, "probe": probe, "status": "too_few"} for probe in probes]
            continue
        permuted = [_permuted(code, cohort, settings.seed + i) for i in range(shuffles)]
        targets.append(_Target(attribute, [levels.names[g] for g in kept], [code, *permuted]))
    for probe in probes if targets else ():
        found = (
            _logistic(cohort, targets, c_grid) if probe == "logistic" else _mlp(cohort, targets, settings.seed, device)
        )
        for one, scores, c in found:
            read = [
                _read(code, score, test, cohort.patient, settings.confidence)
                for code, score in zip(one.codes, scores, strict=True)
            ]
            true, controls = read[0], read[1:]
            rows.append(
                named
                | {"attribute": one.attribute, "probe": probe, "status": "probed", "subgroups": one.names, "c": c}
                | {name: getattr(true, name) for name in ("macro_f1", "balanced_auroc", "ci_low", "ci_high")}
                | {"control_macro_f1": float(np.mean([control.macro_f1 for control in controls]))}
                | {"control_balanced_auroc": float(np.mean([control.balanced_auroc for control in controls]))}
                | {"n_train": int((train & (one.codes[0] >= 0)).sum()), "n_test": true.n}
            )
    return DEMOGRAPHIC_PROBES.frame(rows).sort("attribute", "probe")


def _permuted(code: IntArray, cohort: Embedded, seed: int) -> IntArray:
    """Permute subgroups across the patients of each split."""
    out = np.full_like(code, -1)
    for i, split in enumerate(("train", "val", "test")):
        some = cohort.of(split) & (code >= 0)
        out[some] = shuffled(code[some], cohort.patient[some], 3 * seed + i)
    return out


def _read(code: IntArray, score: Float64Array, inside: BoolArray, patient: IntArray, confidence: float) -> Separability:
    some = inside & (code >= 0)
    return separability(code[some], score[some], patient[some], confidence)


def _logistic(
    cohort: Embedded, targets: Sequence[_Target], c_grid: Sequence[float]
) -> Iterator[tuple[_Target, list[Float64Array], float | None]]:
    """Yield the logistic probes' scores of all studies; the permuted labels use the C chosen for the true ones."""
    train, val = cohort.of("train"), cohort.of("val")
    heads = LinearHeads(cohort.x[train])
    true = [(one.codes[0][train], one.k) for one in targets]
    by_c = [linear_scores(heads, true, c, cohort.x) for c in c_grid]
    for at, one in enumerate(targets):
        aurocs = [_read(one.codes[0], scores[at], val, cohort.patient, 0.95).balanced_auroc for scores in by_c]
        best = int(np.argmax(aurocs))
        controls = linear_scores(heads, [(code[train], one.k) for code in one.codes[1:]], c_grid[best], cohort.x)
        yield one, [by_c[best][at], *controls], float(c_grid[best])


def _mlp(
    cohort: Embedded, targets: Sequence[_Target], seed: int, device: str
) -> Iterator[tuple[_Target, list[Float64Array], float | None]]:
    with needs_extra("encoders", "the nonlinear demographic probe"):
        from fmaudit_core.mitigation.mlp_probe import mlp_scores
    train = cohort.of("train")
    codes = np.stack([code[train] for one in targets for code in one.codes])
    scores = mlp_scores(cohort.x[train][None], codes, cohort.x[None], seed=seed, device=device)
    start = 0
    for one in targets:
        some = scores[start : start + len(one.codes), :, : one.k]
        start += len(one.codes)
        yield one, list(some), None
