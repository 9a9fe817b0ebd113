"""Who is audited: validated studies and labels, and the count of every exclusion."""

from collections.abc import Iterator

from fmaudit_core.pipeline.changed_sources import cohort_versions
from fmaudit_core.pipeline.run_cohort import read_cohort
from fmaudit_dagster.assets.step_asset import Result, Work, step_asset
from fmaudit_dagster.metadata import counted

_TEXTS = {
    "studies": "One row per CT study: patient, split, age band, sex, race and ethnicity.",
    "labels": "One row per study and task; NULL where the outcome is censored or unknown.",
    "cohort_flow": "How many studies and patients are left after each rule.",
    "label_flow": "Known and censored outcomes per task, split and subgroup.",
    "cohort_notes": "What was repaired or chosen when the files were read.",
}


@step_asset("cohort", kinds={"polars", "parquet"}, texts=_TEXTS)
def cohort(work: Work) -> Iterator[Result]:
    """Read the cohort, validate it whole, publish its tables."""
    read = read_cohort(work.workspace, progress=work.progress("reading the cohort"))
    known = read.labels.drop_nulls("label")
    plots = {
        "studies": {"by split": counted(read.studies, "split"), "by age band": counted(read.studies, "age_band")},
        "labels": {"positives by task": counted(known.filter("label"), "task")},
    }
    yield from work.publish_each(read.tables(), plots, cohort_versions(read))
