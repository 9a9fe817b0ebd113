"""The tutorial's notebook runs without network, shows what the page promises, and ends in a conclusion its numbers allow."""

from __future__ import annotations

import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest

from fmaudit_core.fairness import Assessment

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOK = DOCS / "tutorial" / "in-a-notebook.ipynb"

sys.path.insert(0, str(DOCS / "_ext"))


@pytest.fixture(scope="module")
def cells():
    import notebook

    return list(notebook.executed(NOTEBOOK))


def test_it_shows_the_assessment_and_every_kind_of_figure(cells):
    values = [cell.value for cell in cells if cell.value is not None]
    (found,) = [one for one in values if isinstance(one, Assessment)]
    assert set(found.verdicts()["attribute"]) == {"sex", "age"}
    assert len([one for one in values if isinstance(one, go.Figure)]) == 3


def test_it_ends_in_a_conclusion_that_its_verdicts_allow(cells):
    (found,) = [cell.value for cell in cells if isinstance(cell.value, Assessment)]
    verdicts = dict(found.fairness_gaps.filter(metric="udr").select("attribute", "verdict").rows())
    assert verdicts == {"age": "insufficient_evidence", "sex": "insufficient_evidence"}
    assert "442 patients cannot tell whether this gap is real" in cells[-1].printed
    assert "No disparity was shown, and none was ruled out." in cells[-1].printed


def test_the_page_shows_results_below_their_cells(cells, monkeypatch):
    import notebook

    monkeypatch.setattr(notebook, "executed", lambda _: iter(cells))
    page = notebook.rendered(NOTEBOOK)
    assert page.count("{raw} html") == 1 + sum(hasattr(cell.value, "_repr_html_") for cell in cells)
    assert page.index("found = assess(") < page.index("<b>Assessment</b>")
    assert "https://cdn" not in page


def test_it_is_kept_without_results():
    import json

    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
