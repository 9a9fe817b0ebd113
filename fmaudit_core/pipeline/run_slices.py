"""The slices of one audit on disk: read from its CT in the views of all registered encoders."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.pipeline.changed_sources import acquisition_version, slices_version
from fmaudit_core.pipeline.snapshot import Snapshot


@dataclass(frozen=True)
class Slices:
    """The tables of the slice store, and their versions.

    Parameters
    ----------
    version : str
        Of quality and views: of the images as they were before any was read.
    acquisition_version : str
        Of the content, so that another view, with the same facts of headers, makes nothing again that reads them.
    """

    quality: pl.DataFrame
    acquisition: pl.DataFrame
    views: pl.DataFrame
    version: str
    acquisition_version: str


def build_slices(look: Snapshot, *, progress: Progress = silent) -> Slices:
    """Write the slices of every study and view that the store does not hold yet."""
    store, versions = look.workspace.repairing_slice_store(), look.view_versions()
    rules = look.workspace.series_rules
    with look.workspace.opened_engine() as engine:
        store.write(
            list(store.images.items()),
            list(look.views_seen().values()),
            perform=engine.perform,
            rules=rules,
            progress=progress,
        )
    found = store.described(list(store.images), rules=rules)
    return Slices(
        found.quality,
        found.acquisition,
        look.view_table(versions),
        slices_version(versions),
        acquisition_version(found.acquisition),
    )
