"""Gradient-boosted trees on the medical record: scikit-learn's histogram-based trees, which handle missing values natively.

Trees are added until the validation log loss stops falling; the number of leaves is chosen by validation AUROC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fmaudit_core.probes.errors import OneClassError, ProbeError
from fmaudit_core.probes.selection import auroc

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEARNING_RATE: Final = 0.1
#: early-stopping patience: trees without a better validation log loss
_PATIENCE: Final = 20
_LEAST_LEAF: Final = 10
#: all columns are tried at every split, so nothing is random; set explicitly all the same
_SEED: Final = 0


@dataclass(frozen=True)
class Boosted:
    """Trees fitted with one number of leaves.

    Parameters
    ----------
    leaves, trees : int
    val_auroc : float
    scores : (n,) float64, probabilities of all requested studies
    """

    leaves: int
    trees: int
    val_auroc: float
    scores: Float64Array


def fit_boosted(
    train: tuple[Float32Array, BoolArray],
    val: tuple[Float32Array, BoolArray],
    evaluated: Float32Array,
    *,
    leaves: Sequence[int],
    max_trees: int,
    task: str,
) -> list[Boosted]:
    """Fit trees for every number of leaves on train, with early stopping on val, and score `evaluated`.

    Parameters
    ----------
    train, val : (n, k) features, NaN if missing, and (n,) outcomes

    Raises
    ------
    ProbeError
        scikit-learn is not installed, or a class is missing in train or val.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
    except ModuleNotFoundError as error:
        raise ProbeError(
            "gradient boosting needs scikit-learn.",
            fix="Install the extra: `pip install 'fmaudit[ehr]'`, or set `probes: modalities: [ct]`.",
        ) from error
    if not train[1].any() or train[1].all():
        raise OneClassError(f"no trees can be fitted for {task}: its known training labels have only one class.")
    out = []
    for n in leaves:
        # scikit-learn's default of twenty studies per leaf is too many for a small cohort
        model = HistGradientBoostingClassifier(
            learning_rate=LEARNING_RATE, max_iter=max_trees, max_leaf_nodes=n, min_samples_leaf=_LEAST_LEAF,
            early_stopping=True, n_iter_no_change=_PATIENCE, scoring="loss", random_state=_SEED,
        )  # fmt: skip
        model.fit(*train, X_val=val[0], y_val=val[1])
        on_val = model.predict_proba(val[0])[:, 1]
        scores = model.predict_proba(evaluated)[:, 1].astype(np.float64)
        out.append(Boosted(n, int(model.n_iter_), auroc(val[1], on_val, task), scores))
    return out
