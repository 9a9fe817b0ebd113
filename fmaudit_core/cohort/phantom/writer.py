"""The phantom cohort: synthetic CT pulmonary angiograms on disk, with planted disparities and known ground truth.

`plan.py` plans the effects, `anatomy.py` draws images, `dicom.py` writes series, and `outcomes.py` generates outcomes.
`cohort/table.py` reads the result like any other cohort.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from fmaudit_core.cohort.phantom.anatomy import draw, embolus_slices
from fmaudit_core.cohort.phantom.dicom import write_series
from fmaudit_core.cohort.phantom.outcomes import FIBROSIS_CODE, RECORD_ADDS, draw_courses, ehr_events, labels_of
from fmaudit_core.cohort.phantom.plan import DISPARITY_ATTRIBUTE, NULL_ATTRIBUTE, StudyPlan, plan_cohort, seed_at
from fmaudit_core.common.progress import Progress, silent
from fmaudit_core.common.worker_pool import performed
from fmaudit_core.config import PhantomCohort
from fmaudit_core.storage.atomic_write import written_beside

_STUDIES_PER_CHUNK = 8


@dataclass(frozen=True)
class _Drawing:
    """A study to be drawn into a folder."""

    study: StudyPlan
    folder: Path
    n_slices: int
    matrix_px: int


def write_phantom(
    folder: Path,
    section: PhantomCohort,
    *,
    tasks: Sequence[str],
    progress: Progress = silent,
    workers: int = 0,
) -> None:
    """Draw a cohort: `ct/<study>/*.dcm`, `studies.csv`, `truth.parquet` and `ehr_events.parquet`.

    Parameters
    ----------
    folder : Path
        Existing studies are kept, so a killed run can be resumed. `studies.csv` is written last.
    section : PhantomCohort
        Size and seed. The same section gives the same bytes for any number of workers.
    tasks : sequence of str
        Tasks in `studies.csv`. `truth.parquet` always has all tasks.
    """
    plan, seed = plan_cohort(section), seed_at(section)
    jobs = [_Drawing(one, folder / "ct" / one.study_id, section.n_slices, section.matrix_px) for one in plan]
    missing = [job for job in jobs if not job.folder.exists()]
    done = len(jobs) - len(missing)
    progress(done, len(jobs))
    for count, _ in enumerate(performed(_draw, missing, workers=workers, chunk=_STUDIES_PER_CHUNK), start=1):
        progress(done + count, len(jobs))
    courses = draw_courses(plan, seed)
    labels = [labels_of(one, courses[one.patient_id]) for one in plan]
    _write_parquet(folder / "truth.parquet", _truth(plan, labels, section))
    _write_parquet(folder / "ehr_events.parquet", ehr_events(plan, courses, seed))
    with written_beside(folder / "studies.csv") as temporary:
        _table(plan, labels, tasks).write_csv(temporary)


def _draw(job: _Drawing) -> None:
    """Draw one study next to its target folder, then rename it, so that a study is either complete or absent."""
    volume = draw(job.study, n_slices=job.n_slices, matrix_px=job.matrix_px)
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = job.folder.with_name(f".drawing-{job.folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # left over from a killed run
    try:
        write_series(temporary / "series", job.study, volume)
        (temporary / "series").rename(job.folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _table(plan: Sequence[StudyPlan], labels: Sequence[dict[str, bool | None]], tasks: Sequence[str]) -> pl.DataFrame:
    rows = [
        {
            "study_id": one.study_id,
            "patient_id": one.patient_id,
            "split": one.split,
            "age": one.age,
            "sex": one.sex,
            "race_ethnicity": one.race_ethnicity,
            "image": one.study_id,
            "time": f"{one.time:%Y-%m-%d %H:%M:%S}",
        }
        | {task: None if known[task] is None else int(bool(known[task])) for task in tasks}
        for one, known in zip(plan, labels, strict=True)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _truth(plan: Sequence[StudyPlan], labels: Sequence[dict[str, bool | None]], section: PhantomCohort) -> pl.DataFrame:
    """Return the truth of every study, the attributes with and without a disparity, and tasks where the record adds to CT."""
    rows = [
        {
            "study_id": one.study_id,
            "split": one.split,
            "age": one.age,
            "sex": one.sex,
            "race_ethnicity": one.race_ethnicity,
            "planted_disparity": DISPARITY_ATTRIBUTE,
            "planted_null": NULL_ATTRIBUTE,
            "planted_gap_of_scanners": section.scanner_gap,
            "hidden_code": FIBROSIS_CODE if section.hidden_share else None,
            "fibrosis": one.fibrosis,
            "site": section.site,
            "scanner": one.scanner.machine.model,
            "n_emboli": len(one.emboli),
            "embolus_slices": sorted({int(i) for each in embolus_slices(one, section.n_slices) for i in each}),
            "largest_fill": max((embolus.fill for embolus in one.emboli), default=None),
            "arteries": [embolus.artery for embolus in one.emboli],
            "severity": one.severity,
            "record_adds": list(RECORD_ADDS),
            "contrast_hu": one.scanner.contrast_hu,
            "transfer_syntax": one.scanner.syntax,
        }
        | asdict(one.signs)
        | asdict(one.habitus)
        | {f"label_{task}": value for task, value in known.items()}
        for one, known in zip(plan, labels, strict=True)
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _write_parquet(path: Path, frame: pl.DataFrame) -> None:
    with written_beside(path) as temporary:
        frame.write_parquet(temporary)
