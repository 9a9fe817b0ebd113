"""Titles of models."""

from __future__ import annotations

from fmaudit_core.report.text.titles import variant_title


def test_a_variant_says_what_is_known_of_the_model() -> None:
    given = dict.fromkeys(("probe", "modality", "pooling"), "given") | {"strategy": "none"}
    assert variant_title(given) == ""
    assert variant_title(given | {"pooling": "max"}) == "max pooling"
    of_embeddings = {"probe": "logistic", "modality": "ct", "pooling": "given", "strategy": "none"}
    assert variant_title(of_embeddings) == "Logistic probe, CT, pooling as given"
