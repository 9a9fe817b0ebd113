"""The phantom's planted truths over seeds: the age disparity, what goes with scanners, the hidden subgroup, three hospitals.

Each cohort is drawn, embedded and assessed like the demo, without the platform: slices in memory, one task, one probe.

Required of the demo's encoder: the age disparity is found and no other; with `scanner_gap: none` nothing of it goes with the
scanner, with `whole` nothing but a part within chance is left; the hidden subgroup is confirmed by its code.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
import yaml

from fmaudit_core.cohort.ages import band_of
from fmaudit_core.cohort.phantom.anatomy import draw
from fmaudit_core.cohort.phantom.outcomes import FIBROSIS_CODE
from fmaudit_core.cohort.phantom.plan import StudyPlan, plan_cohort
from fmaudit_core.config import DEFAULT_AGE_BANDS, FairnessSection, PhantomCohort
from fmaudit_core.encoders.adapter import load_encoder
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.adjusted_gaps import adjusted_gaps
from fmaudit_core.fairness.assess import Assessment
from fmaudit_core.fairness.discovery import Discovered, discover
from fmaudit_core.fairness.predictions import evaluated
from fmaudit_core.fairness.region_search import Searched
from fmaudit_core.fairness.thresholds import choose_threshold
from fmaudit_core.probes.cross_fitting import cross_fitted
from fmaudit_core.probes.selection import choose_and_predict, fit_probes
from fmaudit_core.setup.write_config import at_own_size

Float32Array = npt.NDArray[np.float32]

TASK: Final = "pe"
ATTRIBUTES: Final = ("age_band", "race_ethnicity", "sex")
MODEL: Final = "acquisition.model"
HIDDEN_RULE: Final = f"record.{FIBROSIS_CODE} = yes"
YOUNGEST: Final = DEFAULT_AGE_BANDS[0].label
_C_GRID: Final = tuple(10.0**at for at in range(-4, 2))
#: frequencies of record codes that go with nothing
_CODES: Final = (0.15, 0.2, 0.2, 0.25, 0.27, 0.38, 0.5)


@dataclass(frozen=True)
class Embedded:
    """A drawn cohort with an embedding of each study, the mean over its slices."""

    plan: Sequence[StudyPlan]
    x: Float32Array


@dataclass(frozen=True)
class Found:
    """What an audit of one cohort finds: its assessment, adjusted gaps of the age bands, and discovered subgroups.

    Parameters
    ----------
    predictions : frame
        Validation and test studies with scores and attributes, as `fmaudit assess` reads them.
    """

    predictions: pl.DataFrame
    assessment: Assessment
    adjusted: pl.DataFrame
    discovered: Discovered

    def gap(self, attribute: str) -> dict[str, Any]:
        """Return the UDR gap of an attribute."""
        return self.assessment.fairness_gaps.filter(attribute=attribute, metric="udr").row(0, named=True)

    def youngest(self) -> dict[str, Any]:
        """Return the crude and adjusted UDR gap of the youngest."""
        return self.adjusted.filter(subgroup=YOUNGEST, metric="udr").row(0, named=True)

    def hidden(self) -> dict[str, Any] | None:
        """Return the region whose only condition is the code of the hidden disease; None if none is."""
        return next((row for row in self.discovered.subgroups.to_dicts() if row["rule"] == [HIDDEN_RULE]), None)


def embedded(section: PhantomCohort, encoder: str) -> Embedded:
    """Draw a cohort and embed it with a bundled encoder, at the slices' own size as in the demo."""
    text = shipped_specs()[encoder].read_text(encoding="utf-8")
    spec = EncoderSpec.model_validate(yaml.safe_load(at_own_size(text, section)))
    network, plan = load_encoder(spec, "cpu"), plan_cohort(section)
    volumes = (draw(one, n_slices=section.n_slices, matrix_px=section.matrix_px) for one in plan)
    vectors = [network.encode(spec.view.apply(one)).mean(axis=0) for one in volumes]
    return Embedded(plan, np.stack(vectors).astype(np.float32))


def audited(cohort: Embedded, settings: FairnessSection) -> Found:
    """Fit the probe and assess it as an audit does."""
    studies = _studies(cohort.plan)
    scored, x = _scored(studies, cohort.x, settings)
    evaluable = scored.filter(pl.col("split") != "train").drop("threshold")
    names = ["study_id", "patient_id", "split", "y_true", "y_score"]
    assessment = assess(evaluable.select(*names, *ATTRIBUTES), attributes=ATTRIBUTES, settings=settings)
    checked = evaluated(evaluable.select(*names, "age_band", MODEL), ["age_band", MODEL], settings)
    adjusted = adjusted_gaps(checked.test, ["age_band"], [MODEL], settings)
    key = {"encoder": "e", "task": TASK, "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none"}
    levels = {
        name: scored.get_column(name).to_numpy().astype(str)
        for name in scored.columns
        if name not in (*names, "threshold")
    }
    searched = Searched(x, scored.select(*names[:3], "y_true", "y_score", "threshold"), levels, key)
    return Found(evaluable.select(*names, *ATTRIBUTES), assessment, adjusted, discover(searched, settings))


def _studies(plan: Sequence[StudyPlan]) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    codes = {f"record.other {i}": np.where(rng.random(len(plan)) < p, "yes", "no") for i, p in enumerate(_CODES)}
    return pl.DataFrame(
        {
            "study_id": [one.study_id for one in plan],
            "patient_id": [one.patient_id for one in plan],
            "split": [one.split for one in plan],
            "y_true": [one.has_pe for one in plan],
            "age_band": [one.age for one in plan],
            "sex": [one.sex for one in plan],
            "race_ethnicity": [one.race_ethnicity for one in plan],
            MODEL: [one.scanner.machine.model for one in plan],
            "acquisition.kvp": [str(one.scanner.kvp) for one in plan],
            f"record.{FIBROSIS_CODE}": ["yes" if one.fibrosis else "no" for one in plan],
            **codes,
        }
    ).with_columns(age_band=band_of(pl.col("age_band"), DEFAULT_AGE_BANDS))


def _scored(studies: pl.DataFrame, x: Float32Array, settings: FairnessSection) -> tuple[pl.DataFrame, Float32Array]:
    """Return the studies with scores and thresholds, training first with cross-fitted ones, and their embeddings."""
    ids = studies.get_column("study_id").to_list()
    labels = studies.select("study_id", task=pl.lit(TASK), label="y_true")
    people, vectors = studies.select("study_id", "patient_id", "split"), {"mean": (ids, x)}
    fits = fit_probes(vectors, people, labels, encoder="e", tasks=(TASK,), c_grid=_C_GRID)
    chosen = choose_and_predict(fits, vectors, people, labels, encoder="e", task=TASK)
    scored = studies.join(chosen.scores.select("study_id", "y_score"), on="study_id", how="left", maintain_order="left")
    y, train = scored.get_column("y_true").to_numpy(), scored.get_column("split").to_numpy() == "train"
    patient = scored.get_column("patient_id").to_numpy()[train]
    c = float(chosen.trail.filter("chosen").get_column("c").item())
    score = scored.get_column("y_score").to_numpy().copy()
    score[train] = cross_fitted(x[train], y[train], np.unique(patient, return_inverse=True)[1], c=c, seed=1)
    val = scored.get_column("split").to_numpy() == "val"
    limits = [choose_threshold(y[side], score[side], settings, where=TASK) for side in (train, val)]
    scored = scored.with_columns(y_score=score, threshold=np.where(train, *limits))
    order = np.argsort(~train, kind="stable")
    return scored[order.tolist()], x[order]


def said(found: Found) -> str:
    """Return the main numbers of an audit as a line."""
    gaps = [found.gap(name) for name in ATTRIBUTES]
    parts = [f"{name} {gap['gap']:.2f} p {gap['p_value']:.4f}" for name, gap in zip(ATTRIBUTES, gaps, strict=True)]
    young = found.youngest()
    if young["status"] == "tested":
        numbers = [young[name] for name in ("crude", "adjusted", "explained", "explained_low", "explained_high")]
        parts.append("youngest {:+.2f}, adjusted {:+.2f}, explained {:+.2f} ({:+.2f} to {:+.2f})".format(*numbers))
    else:
        parts.append(f"youngest {young['status']}, {young['reason']}")
    hidden = found.hidden()
    if hidden is None or hidden["excess"] is None:
        parts.append("hidden not proposed" if hidden is None else f"hidden {hidden['status']}")
    else:
        confirmed = "confirmed" if hidden["confirmed"] else "not confirmed"
        parts.append(f"hidden excess {hidden['excess']:+.2f} p {hidden['p_adjusted']:.4f} {confirmed}")
    return "; ".join(parts)


def main() -> None:
    """Print a line per cohort."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="efficientnet_lite0")
    parser.add_argument("--seeds", type=int, default=5, help="the shipped seed and those after it")
    parser.add_argument("--scanner-gap", default="none", choices=["none", "part", "whole"])
    parser.add_argument("--site", default="a", choices=["a", "b", "c"])
    given = parser.parse_args()
    settings = FairnessSection(n_permutations=1_999)
    first = PhantomCohort(kind="phantom").seed
    for seed in range(first, first + given.seeds):
        section = PhantomCohort(kind="phantom", seed=seed, scanner_gap=given.scanner_gap, site=given.site)
        print(f"{given.encoder} seed {seed}: {said(audited(embedded(section, given.encoder), settings))}", flush=True)


if __name__ == "__main__":
    main()
