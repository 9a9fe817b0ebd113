"""Would a mitigation help, whom, and at what price: strategies fitted per encoder, compared with the probe per task."""

from collections.abc import Iterator

import polars as pl

from fmaudit_core.pipeline.run_mitigation import compare_capacity, evaluate_cell, mitigate_encoder, probe_demographics
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import bars, counted


@step_asset("demographic_probes", kinds={"numpy", "pytorch", "parquet"})
def demographic_probes(work: Work) -> Iterator[Result]:
    """How well race and ethnicity, sex and age are predicted from the embeddings of one encoder, next to permuted labels."""
    probes = probe_demographics(work.workspace, work.cell.encoder)
    linear = probes.filter((pl.col("probe") == "logistic") & pl.col("balanced_auroc").is_not_null())
    shown = bars(dict(linear.select("attribute", "balanced_auroc").iter_rows()), top=1.0)
    yield work.publish({"demographic_probes": probes}, balanced_auroc=shown)


@step_asset("mitigation_scores", kinds={"numpy", "pytorch", "parquet"})
def mitigation_scores(work: Work) -> Iterator[Result]:
    """Scores of every strategy aimed at every attribute, for every task; how each was fitted, what fresh probes still read."""
    encoder = work.cell.encoder
    found = mitigate_encoder(work.workspace, encoder, progress=work.progress(f"adversarial training, {encoder}"))
    yield work.publish(
        {"mitigation_scores": found.scores, "mitigation_runs": found.runs, "mitigation_leakage": found.leakage},
        runs=counted(found.runs, "status"),
    )


@step_asset("mitigation_results", kinds={"numba", "parquet"})
def mitigation_results(work: Work) -> Iterator[Result]:
    """Every strategy against the probe as it was: gap, subgroups, AUROC."""
    found = evaluate_cell(work.workspace, work.cell, progress=work.progress(f"mitigations of {work.cell}"))
    yield work.publish(vars(found), outcome=counted(found.mitigation_results, "status"))


@step_asset("mitigation_capacity", kinds={"numba", "pytorch", "parquet"})
def mitigation_capacity(work: Work) -> Iterator[Result]:
    """Reductions against how separable an attribute is; encoders in pairs on the same patients; one along a ladder of widths."""
    look, progress = work.look, work.progress("the ladder of widths")
    found = compare_capacity(work.workspace, look.mitigated_cells(), look.encoders, progress=progress)
    yield work.publish(vars(found), pairs=found.mitigation_interactions.height, rungs=found.mitigation_ladder.height)
