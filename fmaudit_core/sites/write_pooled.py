"""The pooled audit as files: a page for people, CSV and JSON for machines."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

import polars as pl

import fmaudit_core
from fmaudit_core.report.documents.pooled_page import Pooled, render_pooled
from fmaudit_core.report.export import as_csv
from fmaudit_core.storage.atomic_write import written_beside
from fmaudit_core.storage.report_layout import PAGE

#: files next to the page
JSON: Final = "pooled.json"
CONTRASTS: Final = "pooled_contrasts.csv"
_LISTS: Final = ("sites", "without")


def write_pooled(folder: Path, pooled: Pooled) -> Path:
    """Write the page, `pooled.json` and `pooled_contrasts.csv`, each in one rename; return the path of the page."""
    content = {"fmaudit": fmaudit_core.__version__, **asdict(pooled)}
    rows = [{name: one for name, one in row.items() if name not in _LISTS} for row in content["contrasts"]]
    for row, contrast in zip(rows, pooled.contrasts, strict=True):
        row["n_sites"] = len(contrast.sites)
    texts = {
        JSON: json.dumps(content, indent=1, allow_nan=False) + "\n",
        CONTRASTS: as_csv(pl.DataFrame(rows, infer_schema_length=None)).decode(),
        PAGE: render_pooled(pooled),
    }
    for name, text in texts.items():
        with written_beside(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return folder / PAGE
