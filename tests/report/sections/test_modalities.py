"""What each modality adds: a table per outcome."""

from __future__ import annotations

import polars as pl

from fmaudit_core.report.index.report_data import index_report_data
from fmaudit_core.report.input.report_input import MODALITIES
from fmaudit_core.report.sections.modalities import modality_views
from tests.report.frames import TASKS, made_up


def test_every_outcome_has_its_table_with_every_encoder() -> None:
    """The rows of one outcome do not hide those of the next."""
    rows = [
        {"encoder": encoder, "task": task, "probe": probe, "modality": modality, "pooling": "mean", "value": 0.7}
        for task in TASKS[:2]
        for encoder in ("lite0", "lite1")
        for probe, modality in (("logistic", "ct"), ("late_fusion", "ct+ehr"))
    ]
    index = index_report_data(made_up(poolings=("mean",))).index
    views = modality_views(index, pl.DataFrame(rows, schema=MODALITIES))
    assert [view.task for view in views] == list(TASKS[:2])
    for view in views:
        assert [len(lines) for _, lines in view.encoders] == [2, 2]
        assert [line.model for line in view.encoders[0][1]] == ["CT", "CT and record, late fusion"]
