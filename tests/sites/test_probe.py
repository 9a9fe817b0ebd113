"""The file of a probe without an audit: its identity, what it refuses, and which encoder here is its own."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit

from fmaudit_core.config import FairnessSection
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.sites.apply_probe import _same_encoder
from fmaudit_core.sites.errors import SiteError
from fmaudit_core.sites.probe_file import ProbeFile, with_policy


def probe(**changes):
    told = {
        "encoder": {"name": "net", "digest": "d" * 32, "dim": 3},
        "task": {"name": "pe", "title": "Embolism", "labels": "report"},
        "pooling": "mean",
        "c": 0.1,
        "coefficients": [1.0, -2.0, 0.1],
        "intercept": -0.5,
        "thresholds": [
            {"policy": "fixed_sensitivity", "target": 0.9, "value": 0.2},
            {"policy": "youden", "target": None, "value": 0.4},
        ],
        "counts": {"n_train": 900, "n_train_positive": None, "n_validation": 100, "n_validation_positive": 20},
    }
    return ProbeFile.model_validate(told | changes)


def test_scores_are_those_of_the_coefficients_and_survive_the_file(tmp_path):
    found = ProbeFile.read(probe(intercept=0.1 + 0.2).write(tmp_path / "probe.json"))
    x = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    assert np.array_equal(found.score(x), expit(x.astype(float) @ np.array([1.0, -2.0, 0.1]) + (0.1 + 0.2)))
    assert found.digest == probe(intercept=0.1 + 0.2).digest


def test_the_identity_is_of_what_decides_a_score():
    same = [
        {"c": 1.0},
        {"task": {"name": "pe", "title": "PE", "labels": "code"}},
        {"thresholds": probe().thresholds[:1]},
    ]
    other = [{"intercept": 0.0}, {"coefficients": [1.0, -2.0, 0.2]}, {"pooling": "max"}]
    assert all(probe(**one).digest == probe().digest for one in same)
    assert all(probe(**one).digest != probe().digest for one in other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": [1.0]}, "1 coefficients for 3 dimensions"),
        ({"coefficients": [1.0, 2.0, float("nan")]}, "finite"),
        ({"thresholds": [*probe().thresholds, *probe().thresholds]}, "two thresholds"),
        ({"patients": ["1"]}, "Extra inputs"),
    ],
    ids=["length", "nan", "policies", "key"],
)
def test_a_file_that_is_no_probe_is_refused(change, message):
    with pytest.raises(ValidationError, match=message):
        probe(**change)


def test_the_threshold_of_a_policy_brings_its_settings():
    assert probe().threshold().policy == "fixed_sensitivity"
    found = with_policy(FairnessSection(), probe().threshold())
    assert (found.threshold_policy, found.fixed_sensitivity, found.fixed_fpr) == ("fixed_sensitivity", 0.9, 0.2)
    assert with_policy(FairnessSection(), probe().threshold("youden")).threshold_policy == "youden"
    with pytest.raises(SiteError, match=r"policy_unknown: .* fixed_fpr; it has fixed_sensitivity, youden"):
        probe().threshold("fixed_fpr")


def test_an_encoder_is_found_by_its_digest_whatever_it_is_called_here():
    spec = load_spec(shipped_specs()["hu_histogram"])
    here = spec.model_copy(update={"name": "ours"})
    look = SimpleNamespace(encoders={"ours": here})
    assert _same_encoder(look, probe(encoder={"name": "net", "digest": spec.digest(), "dim": 3}), None) is here
    with pytest.raises(SiteError, match="encoder_differs: no encoder here is the ours of the probe"):
        _same_encoder(look, probe(encoder={"name": "ours", "digest": "0" * 32, "dim": 3}), "ours")


def test_the_json_holds_no_more_than_the_reference_lists(tmp_path):
    content = json.loads(probe().write(tmp_path / "probe.json").read_text())
    assert set(content) == set(ProbeFile.model_fields)
