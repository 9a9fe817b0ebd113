"""CT series become slices, written once per series and view."""

from collections.abc import Iterator

import polars as pl

from fmaudit_core.pipeline.run_slices import build_slices
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import counted

_TEXTS = {
    "ct_slices": "Slices of every study in the views of all registered encoders; each series accepted, or quarantined and why.",
    "acquisition": "How each study was acquired, from its header: scanner, kernel, thickness, dose, contrast agent, year.",
}


@step_asset("ct_slices", kinds={"numpy"}, texts=_TEXTS)
def ct_slices(work: Work) -> Iterator[Result]:
    """Read every series once: slices in the views of all registered encoders, and the facts of its header."""
    made = build_slices(work.look, progress=work.progress("reading CT series"))
    versions = {"acquisition": made.acquisition_version}
    yield from work.publish_each({"acquisition": made.acquisition}, {}, versions)
    if not work.selected("ct_slices"):
        return
    quarantined = made.quality.filter(pl.col("status") == "quarantined").height
    yield work.publish(
        {"slice_quality": made.quality, "ct_views": made.views},
        version=made.version,
        asset="ct_slices",
        accepted=made.quality.height - quarantined,
        quarantined=quarantined,
        outcome=counted(made.quality.with_columns(pl.concat_str("status", "reason", separator=" ")), "status"),
    )
