"""Probes on frozen embeddings: all fits of an encoder at once, then the scores of each task."""

from collections.abc import Iterator

import polars as pl

from fmaudit_core.pipeline.run_baselines import score_baseline
from fmaudit_core.pipeline.run_ehr_probes import predict
from fmaudit_core.pipeline.run_network_probes import probe_with_networks
from fmaudit_core.pipeline.run_probes import fit_encoder
from fmaudit_core.probes.primary_score_set import of_primary_probe
from fmaudit_core.storage.warehouse import PREVIOUS
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import bars, counted


@step_asset("probe_fits", kinds={"numpy", "parquet"})
def probe_fits(work: Work) -> Iterator[Result]:
    """Logistic probes of one encoder for every task, pooling and C, as columns of one problem."""
    encoder = work.cell.encoder
    fits = fit_encoder(work.workspace, work.look.encoders[encoder], progress=work.progress(f"probes of {encoder}"))
    yield work.publish({"probe_fits": fits}, most_iterations=int(fits.get_column("iterations").to_numpy().max()))


@step_asset("neural_fits", kinds={"pytorch", "parquet"})
def neural_fits(work: Work) -> Iterator[Result]:
    """Probes of one encoder that are networks: perceptrons, attention and recurrence over slices; scores on val and test.

    A control is read linearly only: its partition stays empty.
    """
    encoder = work.cell.encoder
    found = probe_with_networks(work.workspace, encoder, progress=work.progress(f"networks of {encoder}"))
    yield work.publish(
        {"neural_fits": found.scores, "probe_seeds": found.seeds, "equal_attention": found.equal},
        networks=counted(found.seeds, "status"),
        chosen=found.seeds["chosen"].sum(),
    )


@step_asset("probe_predictions", kinds={"numpy", "parquet"})
def probe_predictions(work: Work) -> Iterator[Result]:
    """Scores on val and test of every probe as validation chose it, with the trail of that; a baseline's as they came."""
    keep = work.workspace.warehouse.keep
    if work.cell.encoder in work.look.baselines():
        found = score_baseline(work.workspace, work.cell)
        keep("probe_predictions", PREVIOUS, work.cell, before=work.version)
        joined = found.join.drop("encoder", "task").row(0, named=True)
        yield work.publish({"probe_predictions": found.scores, "baseline_joins": found.join}, **joined)
        return
    made = predict(work.workspace, work.cell)
    keep("probe_predictions", PREVIOUS, work.cell, before=work.version)
    chosen = made.trail.filter("chosen")
    name = pl.concat_str("probe", "modality", "pooling", separator=", ")
    yield work.publish(
        {"probe_predictions": made.scores, "probe_selection": made.trail},
        unscored=made.n_unscored,
        validation_auroc=max(of_primary_probe(chosen).get_column("val_auroc").to_list()),
        by_score_set=bars(dict(chosen.select(name, "val_auroc").iter_rows()), top=1.0),
    )
