"""Steps of neural probes and of aggregations of slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.encoders.embeddings_reader import read_slice_counts
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.fairness.aggregation import spatial_aggregation
from fmaudit_core.pipeline import queries
from fmaudit_core.pipeline.snapshot import Snapshot
from fmaudit_core.pipeline.workspace import Workspace
from fmaudit_core.probes.neural import NetworkFits, fit_networks
from fmaudit_core.probes.slice_store import slice_bags
from fmaudit_core.storage.warehouse import Cell
from fmaudit_core.tables.probes import EQUAL_ATTENTION, PROBE_SEEDS


def probe_with_networks(workspace: Workspace, encoder: str, *, progress: Progress = silent) -> NetworkFits:
    """Train the configured networks on one encoder's embeddings and slices, for all tasks.

    Raises
    ------
    ProbeError
        See `probes.neural.fit_networks`.
    MissingExtraError
        torch is not installed.
    """
    audit, warehouse = workspace.audit, workspace.warehouse
    pooling, settings = workspace.primary_pooling(encoder), audit.probes.networks
    return fit_networks(
        workspace.embeddings(encoder)[pooling],
        workspace.probed_studies(),
        warehouse.read("labels"),
        encoder=encoder,
        kinds=workspace.network_kinds(workspace.registry.spec(encoder)),
        pooling=pooling,
        tasks=audit.tasks,
        settings=settings,
        seed=audit.fairness.seed,
        open_bags=partial(
            slice_bags,
            warehouse.embeddings_path(encoder),
            components=settings.components,
            most_slices=settings.most_slices,
            folder=workspace.home / "scratch",
        ),
        device=workspace.training_device(),
        progress=progress,
    )


def compare_aggregations(
    workspace: Workspace, cells: Sequence[Cell], encoders: Mapping[str, EncoderSpec]
) -> pl.DataFrame:
    """Compare every aggregation of every encoder's slices, and every other view of its weights, with mean pooling.

    Parameters
    ----------
    cells : cells with published scores
    encoders : the registry
    """
    warehouse = workspace.warehouse
    names = sorted({cell.encoder for cell in cells})
    # networks that have failed, or are still to come, leave the others' findings alone
    look = Snapshot(workspace, encoders)
    networked = [Cell(name) for name in names if ("neural_fits", Cell(name)) in queries.score_tables(look, name)]
    trails = [warehouse.read("probe_seeds", cell) for cell in networked]
    equal = [warehouse.read("equal_attention", cell) for cell in networked]
    sliced = {name: encoders[name] for name in names if encoders[name].has_slices}
    return spatial_aggregation(
        warehouse.read_cells("probe_predictions", cells).filter(pl.col("split") == "test"),
        workspace.audit.fairness,
        n_slices={name: read_slice_counts(warehouse.embeddings_path(name)) for name in sliced},
        alike={name: [other for other in sliced if another_view(spec, sliced[other])] for name, spec in sliced.items()},
        seeds=pl.concat([PROBE_SEEDS.frame(), *trails]),
        equal=pl.concat([EQUAL_ATTENTION.frame(), *equal]),
    )


def another_view(spec: EncoderSpec, other: EncoderSpec) -> bool:
    """Return whether an encoder has the weights of another and a different view."""
    return bool(spec.sha256) and other.sha256 == spec.sha256 and other.view.key() != spec.view.key()
