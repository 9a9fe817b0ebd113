"""The audit's counterpart of a published value: a value with its interval, or the reason for its absence.

For the verdicts see `compare.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from fmaudit_core.common.vocabulary import OVERALL
from fmaudit_core.config import Audit
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.fairness.intervals import difference_interval
from fmaudit_core.mitigation.runs import STRATEGY_TITLES
from fmaudit_core.reproduction.published_values import Figure

#: the paper's probe, modality and pooling
_PROBE: Final = {"probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none"}
_NO_LRCN: Final = "no baseline is called ct-lrcn (fmaudit baseline add FILE --name ct-lrcn)"
#: accepted names of the task-specific baseline
_LRCN: Final = ("ct_lrcn", "ctlrcn", "lrcn", "inspect_lrcn")


@dataclass(frozen=True)
class Ours:
    """The audit's value for a published one.

    Parameters
    ----------
    value : float or None
    low, high : ends of its interval, if it has one
    p : p-value, if the figure is a test or has one
    note : differences between the two definitions that a reader must know
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    note: str = ""


class NotComparableError(Exception):
    """The reason why a figure cannot be compared; it is never raised outside this package."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True)
class Audited:
    """The tables of an audit that published values are compared with.

    Parameters
    ----------
    encoders : mapping of name to EncoderSpec
    metrics, gaps, sweep, comparisons : frames of `fairness/`
    modalities : frame of `modality_comparisons`, empty if there is none
    mitigation : frame of `mitigation_results`, empty if there is none
    flow : frame of `cohort_flow`, whose first row is the cohort as listed
    """

    audit: Audit
    encoders: Mapping[str, EncoderSpec]
    metrics: pl.DataFrame
    gaps: pl.DataFrame
    sweep: pl.DataFrame
    comparisons: pl.DataFrame
    flow: pl.DataFrame
    modalities: pl.DataFrame = field(default_factory=pl.DataFrame)
    mitigation: pl.DataFrame = field(default_factory=pl.DataFrame)

    def ours(self, figure: Figure) -> Ours:
        """Return this audit's value for a figure.

        Raises
        ------
        NotComparableError
            There is no value with the same meaning.
        """
        if figure.attribute == "race_ethnicity" and figure.subgroup != "hispanic":
            raise NotComparableError(
                "other groups: the paper's sixth group of race and ethnicity is not known, ours are the release's"
            )
        finder = getattr(self, f"_{figure.quantity}", None)
        if finder is None:
            raise NotComparableError("a fact of a model or of the paper's set-up, which this audit does not measure")
        found: Ours = finder(figure)
        return found

    def _studies(self, figure: Figure) -> Ours:  # noqa: ARG002
        return self._listed("n_studies")

    def _patients(self, figure: Figure) -> Ours:  # noqa: ARG002
        return self._listed("n_patients")

    def _listed(self, column: str) -> Ours:
        return Ours(float(self.flow.get_column(column)[0]), note="as listed, before any exclusion")

    def _embedding_dim(self, figure: Figure) -> Ours:
        spec = self.encoders.get(figure.encoder)
        if spec is None:
            raise NotComparableError(f"{figure.encoder} was not audited")
        return Ours(float(spec.dim))

    def _permutations(self, figure: Figure) -> Ours:  # noqa: ARG002
        return Ours(float(self.audit.fairness.n_permutations), note="a setting")

    def _alpha_grid(self, figure: Figure) -> Ours:
        same = sorted(map(float, figure.stated)) == sorted(self.audit.mitigation.alphas)
        return Ours(float(same), note="a setting")

    def _hidden_sizes(self, figure: Figure) -> Ours:
        if figure.probe not in self.audit.probes.kinds:
            raise NotComparableError("this audit has no MLP probe")
        ours = {tuple(shape) for shape in self.audit.probes.networks.shapes}
        return Ours(float({tuple(shape) for shape in figure.stated} == ours), note="a setting")

    def _auroc(self, figure: Figure) -> Ours:
        if figure.strategy:
            return self._mitigated_auroc(figure)
        return self._metric(figure, "auroc")

    def _udr(self, figure: Figure) -> Ours:
        return self._metric(figure, "udr")

    def _tpr(self, figure: Figure) -> Ours:
        return self._metric(figure, "tpr")

    def _metric(self, figure: Figure, metric: str) -> Ours:
        rows = self._of_model(self.metrics, figure).filter(
            attribute=figure.attribute or OVERALL, subgroup=figure.subgroup or "all", metric=metric
        )
        row = self._single(
            rows, f"there is no subgroup {figure.subgroup} here" if figure.subgroup else "it was not audited"
        )
        if row["value"] is None:
            raise NotComparableError(
                "its predictions have no operating threshold" if row["status"] == "no_threshold"
                else "the subgroup is too small to be shown"
            )  # fmt: skip
        return Ours(
            row["value"], row["ci_low"], row["ci_high"], note="" if metric == "auroc" else self._threshold_note()
        )

    def _udr_gap(self, figure: Figure) -> Ours:
        if figure.strategy not in ("", "none"):
            row = self._run(figure)
            note = f"{self._threshold_note()}; interval of the reduction, the gap before held fixed"
            reduced = ("reduction", "ci_high", "ci_low")
            return _linear(row, reduced, times=-1.0, plus=row["gap_before"], p=row["p_reduction"], note=note)
        rows = self._of_model(self.gaps, figure).filter(attribute=figure.attribute, metric="udr")
        row = self._single(rows, "it was not audited")
        if row["gap"] is None:
            raise NotComparableError("fewer than two subgroups could be tested")
        of = self._of_model(self.metrics, figure).filter(attribute=figure.attribute, metric="udr")
        by_name = {one["subgroup"]: one for one in of.iter_rows(named=True)}
        worst, best = by_name[row["worst_subgroup"]], by_name[row["best_subgroup"]]
        low, high = difference_interval(
            worst["value"], (worst["ci_low"], worst["ci_high"]), best["value"], (best["ci_low"], best["ci_high"])
        )
        bands = "; the paper does not state the inner ends of its age bands" if figure.attribute == "age_band" else ""
        note = f"{self._threshold_note()}{bands}; interval between those two subgroups"
        return Ours(row["gap"], low, high, p=row["p_gap"], note=note)

    def _relative_gap_reduction(self, figure: Figure) -> Ours:
        row = self._run(figure)
        if not row["gap_before"]:
            raise NotComparableError("there was no gap before")
        note = f"{self._threshold_note()}; the gap before is held fixed"
        times = 1 / row["gap_before"]
        return _linear(row, ("reduction", "ci_low", "ci_high"), times=times, p=row["p_reduction"], note=note)

    def _auroc_cost(self, figure: Figure) -> Ours:
        return _linear(self._run(figure), ("auroc_delta", "auroc_delta_high", "auroc_delta_low"), times=-1.0)

    def _mitigated_auroc(self, figure: Figure) -> Ours:
        """Return the run with the highest cost among a strategy's target attributes, since the figure names none."""
        row = self._run(figure)
        note = f"the paper names no attribute (ours: {row['target_attribute']}); interval of the change, AUROC before held fixed"
        moved = ("auroc_delta", "auroc_delta_low", "auroc_delta_high")
        return _linear(row, moved, plus=row["auroc_before"], note=note)

    def _auroc_lr_minus_best_mlp(self, figure: Figure) -> Ours:
        """Return the AUROC of the logistic probe minus that of the MLP, in whichever order the table has them."""
        requested = {name: value for name, value in _PROBE.items() if name != "probe"}
        same = {"encoder": figure.encoder, **requested}
        kinds = ["logistic", "mlp"]
        rows = self.comparisons.filter(
            pl.col("probe").is_in(kinds) & pl.col("other_probe").is_in(kinds) & (pl.col("probe") != pl.col("other_probe")),
            **same, **{f"other_{name}": value for name, value in same.items()},
            task=figure.task, attribute=OVERALL, metric="auroc",
        )  # fmt: skip
        row = self._single(rows.head(1), "this audit has no MLP probe")
        note = "the shape of the MLP is chosen on validation; all its seeds are used"
        if row["probe"] == "logistic":
            return _linear(row, ("difference", "ci_low", "ci_high"), p=row["p_value"], note=note)
        return _linear(row, ("difference", "ci_high", "ci_low"), times=-1.0, p=row["p_value"], note=note)

    def _auroc_ct_ehr_minus_ct(self, figure: Figure) -> Ours:
        lacking = "this audit fused no medical record"
        if self.modalities.is_empty():
            raise NotComparableError(lacking)
        rows = self.modalities.filter(encoder=figure.encoder, task=figure.task, probe="logistic", modality="ct+ehr")
        row = self._single(rows.drop_nulls("over_ct"), lacking)
        return Ours(row["over_ct"], row["over_ct_low"], row["over_ct_high"], note="early fusion")

    def _auroc_difference_test(self, figure: Figure) -> Ours:
        baseline = next((name for name in self.encoders if name.replace("-", "_") in _LRCN), None)
        if baseline is None:
            raise NotComparableError(_NO_LRCN)
        rows = self.comparisons.filter(
            **_PROBE, task=figure.task, encoder=figure.encoder,
            other_encoder=baseline, attribute=OVERALL, metric="auroc",
        )  # fmt: skip
        row = self._single(rows, f"{figure.encoder} was not audited")
        return Ours(
            row["difference"], row["ci_low"], row["ci_high"], p=row["p_value"], note="paired, on the same studies"
        )

    def _hispanic_disparity_p(self, figure: Figure) -> Ours:
        rows = self._of_model(self.metrics, figure).filter(
            attribute=figure.attribute, subgroup=figure.subgroup, metric="udr"
        )
        row = self._single(rows, "it was not audited")
        if row.get("p_rest") is None:
            raise NotComparableError("the subgroup is too small to be tested")
        return Ours(p=row["p_rest"], note="against all others; the paper does not say against whom")

    def _female_tpr_below_male_at_every_threshold(self, figure: Figure) -> Ours:
        curves = self._of_model(self.sweep, figure).filter(attribute="sex")
        of = {name: curves.filter(subgroup=name).sort("threshold") for name in ("female", "male")}
        if any(one.is_empty() for one in of.values()):
            raise NotComparableError("it was not audited" if curves.is_empty() else "a sex is too small to be shown")
        at = np.unique(curves.get_column("threshold").to_numpy())
        female, male = (_on(one, at) for one in of.values())
        apart = ~(
            (female == male) & ((female == 0) | (female == 1))
        )  # if all or none are predicted positive there is nothing to compare
        return Ours(float((female < male)[apart].mean()), note="share of thresholds at which it holds")

    def _of_model(self, frame: pl.DataFrame, figure: Figure) -> pl.DataFrame:
        if figure.model:
            names = [name for name in self.encoders if name.replace("-", "_") in _LRCN]
            if figure.model != "ct_lrcn" or not names:
                raise NotComparableError(_NO_LRCN)
            return frame.filter(pl.col("encoder") == names[0], pl.col("task") == figure.task)
        if figure.encoder not in self.encoders:
            raise NotComparableError(f"{figure.encoder} was not audited")
        return frame.filter(**_PROBE, encoder=figure.encoder, task=figure.task)

    def _run(self, figure: Figure) -> dict[str, Any]:
        """Return the run of a strategy: over its seeds, at the figure's alpha or the chosen one."""
        if self.mitigation.is_empty():
            raise NotComparableError("this audit mitigated nothing")
        if figure.encoder not in self.encoders:
            raise NotComparableError(f"{figure.encoder} was not audited")
        rows = self.mitigation.filter(
            pl.col("seed").is_null(),
            encoder=figure.encoder,
            task=figure.task,
            strategy=figure.strategy,
            status="evaluated",
        )
        if figure.target_attribute:
            rows = rows.filter(target_attribute=figure.target_attribute)
        rows = rows.filter(pl.col("attribute") == (figure.attribute or pl.col("target_attribute")))
        rows = rows.filter(pl.col("alpha") == figure.alpha) if figure.alpha is not None else rows.filter("chosen")
        title = STRATEGY_TITLES.get(figure.strategy, figure.strategy)
        return self._single(
            rows.sort("auroc_delta", "target_attribute").head(1), f"{title} was not evaluated as in the paper"
        )

    def _single(self, rows: pl.DataFrame, lacking: str) -> dict[str, Any]:
        if rows.height != 1:
            raise NotComparableError(lacking)
        return rows.row(0, named=True)

    def _threshold_note(self) -> str:
        policy = self.audit.fairness.threshold_policy.replace("_", " ")
        return f"the paper does not state how its threshold was chosen (ours: {policy})"


def _linear(
    row: Mapping[str, Any],
    names: tuple[str, str, str],
    *,
    times: float = 1.0,
    plus: float = 0.0,
    p: float | None = None,
    note: str = "",
) -> Ours:
    """Return a value and the ends of its interval from three columns of a row, each multiplied by `times`, plus `plus`."""
    value, low, high = (None if row[name] is None else times * float(row[name]) + plus for name in names)
    return Ours(value, low, high, p=p, note=note)


def _on(curve: pl.DataFrame, at: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the TPR of one subgroup at any threshold: that at its next higher own score, 0 above the highest."""
    own, tpr = curve.get_column("threshold").to_numpy(), np.append(curve.get_column("tpr").to_numpy(), 0.0)
    out: np.ndarray[Any, np.dtype[np.float64]] = tpr[np.searchsorted(own, at, side="left")]
    return out
