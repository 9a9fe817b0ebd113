"""The medical record: features known before each study, and the probes that read them."""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from fmaudit_core.pipeline.run_ehr_probes import fit_of_record, fuse, read_record
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import bars


@step_asset("ehr_features", kinds={"polars", "numba", "parquet"})
def ehr_features(work: Work) -> Iterator[Result]:
    """Extract features of the medical record before each study's cutoff: days, recency and last value of every code."""
    found = read_record(work.workspace, progress=work.progress("reading the medical record"))
    left_out = found.dropped.filter((pl.col("unit") == "events") & (pl.col("n") > 0))
    yield work.publish(
        {
            "ehr_features": found.features,
            "ehr_rows": found.rows,
            "ehr_vocabulary": found.vocabulary,
            "ehr_dropped": found.dropped,
        },
        cutoff=work.workspace.audit.ehr.cutoff,
        events=int(found.rows.get_column("n_events").sum()),
        codes=found.vocabulary.height,
        left_out=bars(dict(left_out.select("what", "n").iter_rows())),
    )


@step_asset("ehr_fits", kinds={"numpy", "scikit-learn", "parquet"})
def ehr_fits(work: Work) -> Iterator[Result]:
    """Logistic regression and boosted trees on the medical record alone, every task: their scores on val and test."""
    found = fit_of_record(work.workspace)
    yield work.publish(
        {"ehr_fits": found.scores, "ehr_selection": found.trail, "ehr_coefficients": found.coefficients},
        by_task=_validated(found.trail),
    )


@step_asset("fusion_fits", kinds={"numpy", "parquet"})
def fusion_fits(work: Work) -> Iterator[Result]:
    """CT and medical record together, early and late, every task: scores of one encoder on val and test."""
    found = fuse(work.workspace, work.cell.encoder)
    yield work.publish({"fusion_fits": found.scores, "fusion_selection": found.trail}, by_task=_validated(found.trail))


def _validated(trail: pl.DataFrame) -> dg.MarkdownMetadataValue:
    chosen = trail.filter(pl.col("chosen") & (pl.col("probe") == "logistic"))
    return bars(dict(chosen.select("task", "val_auroc").iter_rows()), top=1.0)
