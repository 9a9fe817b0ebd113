"""The runs of one encoder and task on test, and the unmitigated probe on the same studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from fmaudit_core.fairness.auroc import structural_components
from fmaudit_core.mitigation.errors import MitigationError
from fmaudit_core.mitigation.runs import NONE, RUN

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Baseline:
    """The test studies of one task, sorted by study, with the predictions of the unmitigated probe."""

    frame: pl.DataFrame
    y: BoolArray
    patient: IntArray
    called: BoolArray
    components: Float64Array

    @property
    def auroc(self) -> float:
        """Return the AUROC of the unmitigated probe."""
        return float(self.components[self.y].mean())


@dataclass(frozen=True)
class Variant:
    """One run, or all runs of a strategy that differ only by seed.

    Parameters
    ----------
    key : its values of `RUN`
    called : (s, n) bool, predicted positive
    components : (s, n) float64, structural components of the AUROC
    n_diverged : number of further runs without scores, because their training did not stay finite
    """

    key: dict[str, Any]
    called: BoolArray
    components: Float64Array
    chosen: bool
    n_collapsed: int
    n_diverged: int
    summary: bool

    @property
    def mostly_diverged(self) -> bool:
        """Return whether more than half of the runs did not stay finite; the others are then not representative."""
        return self.n_diverged > len(self.called)


def baseline_of(by_run: Mapping[tuple[Any, ...], pl.DataFrame]) -> Baseline:
    """Return the unmitigated probe from the scores by run (a tuple of `RUN`).

    Raises
    ------
    MitigationError
        Its scores are missing.
    """
    frame = next((one for key, one in by_run.items() if key[RUN.index("strategy")] == NONE), None)
    if frame is None:
        raise MitigationError(
            "the scores of the unmitigated probe are missing, so mitigations cannot be compared with it."
        )
    y = frame.get_column("y_true").to_numpy()
    return Baseline(
        frame=frame,
        y=y,
        patient=frame.get_column("patient_id").rank("dense").cast(pl.Int64).to_numpy() - 1,
        called=_called(frame),
        components=structural_components(y, frame.get_column("y_score").to_numpy()),
    )


def _called(frame: pl.DataFrame) -> BoolArray:
    called: BoolArray = (frame.get_column("y_score") >= frame.get_column("threshold")).to_numpy()
    return called


def variants_of(
    by_run: Mapping[tuple[Any, ...], pl.DataFrame],
    base: Baseline,
    status: Mapping[tuple[Any, ...], Mapping[str, Any]],
) -> Iterator[Variant]:
    """Yield every strategy over its seeds, and each of its seeds.

    Parameters
    ----------
    by_run : run -> its scores, sorted by study
    status : run -> how its training ended (`status`, `chosen`)

    Raises
    ------
    MitigationError
        A run covers other studies than the unmitigated probe.
    """
    alike: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for key, frame in by_run.items():
        if key[RUN.index("strategy")] == NONE:
            continue
        if not frame.get_column("study_id").equals(base.frame.get_column("study_id")):
            raise MitigationError("a mitigation run covers other studies than the unmitigated probe.")
        alike.setdefault(key[: RUN.index("seed")], []).append(key)
    diverged = Counter(key[: RUN.index("seed")] for key, row in status.items() if row["status"] == "diverged")
    for aim, keys in alike.items():
        keys = sorted(keys, key=lambda key: -1 if key[-1] is None else key[-1])
        called = np.stack([_called(by_run[key]) for key in keys])
        components = np.stack(
            [structural_components(base.y, by_run[key].get_column("y_score").to_numpy()) for key in keys]
        )
        collapsed = [status[key]["status"] == "collapsed" for key in keys]
        chosen = bool(status[keys[0]]["chosen"])
        named = dict(zip(RUN, keys[0], strict=True))
        yield Variant(named | {"seed": None}, called, components, chosen, sum(collapsed), diverged[aim], summary=True)
        for i, key in enumerate(keys):
            if key[-1] is not None:
                one = slice(i, i + 1)
                yield Variant(
                    named | {"seed": key[-1]}, called[one], components[one], chosen, int(collapsed[i]), 0, summary=False
                )
