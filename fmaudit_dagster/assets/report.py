"""What the audit found, and the page that says so."""

from collections.abc import Iterator

import polars as pl

from fmaudit_core.pipeline.run_findings import find
from fmaudit_core.pipeline.run_report import recommendations, report_files, report_input
from fmaudit_core.report.export import write_report
from fmaudit_core.report.sections.origin import ORIGIN_TABLES
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.execution.run_history import runs_behind, runs_of_cells
from fmaudit_dagster.metadata import counted, report_link, trends


@step_asset("audit_findings", kinds={"numba", "parquet"})
def audit_findings(work: Work) -> Iterator[Result]:
    """Judge every encoder, task, attribute and metric, corrected over the declared family; compare encoders in
    pairs, each with itself in the audit before, with the medical record in place of CT or together with it, and each way to
    aggregate its slices with their mean.
    """
    tables = find(work.look)
    found, absent = tables["audit_findings"], tables["unaudited"]
    family = found.filter("confirmatory").with_columns(cell=pl.concat_str("encoder", "attribute", separator=", "))
    yield work.publish(
        tables,
        disparities=found.filter(verdict="disparity").height,
        verdicts=counted(found, "verdict"),
        **trends(dict(family.select("cell", "p_adjusted").iter_rows()), "adjusted p: "),
        report=report_link(work.workspace),
        got_worse=tables["audit_changes"].filter("worse").height,
        without_findings=", ".join(absent.get_column("encoder").unique().sort()) or "none",
    )
    work.workspace.warehouse.refresh_views()


@step_asset("audit_report", kinds={"plotly"})
def audit_report(work: Work) -> Iterator[Result]:
    """Write the page and the machine-readable files; the recommended mitigation, or why there is none; published figures,
    where the cohort is the paper's.
    """
    encoders = [name for name, spec in work.look.encoders.items() if spec.embeds]
    runs = runs_behind(work.context.instance, encoders) | {"audit_report": work.context.run.run_id}
    cell_runs = runs_of_cells(work.context.instance, ORIGIN_TABLES, work.look.audited_cells())
    shown = report_input(work.workspace, work.look, runs, cell_runs)
    written = write_report(work.workspace.reports, shown)
    work.workspace.root.publish_report([*written.all()[1:], written.page])
    advice = recommendations(written)
    yield work.publish(
        {
            "report_files": report_files(written),
            "mitigation_recommendations": advice,
            "paper_comparison": shown.paper_comparison,
        },
        page=report_link(work.workspace),
        megabytes=written.page.stat().st_size / 1e6,
        recommendations=counted(advice, "verdict"),
    )
    work.workspace.warehouse.refresh_views()
