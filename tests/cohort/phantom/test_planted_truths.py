"""What is planted in the phantom is in its files, and an audit finds it: scanners, the hidden disease, three hospitals."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from benchmarks.bench_phantom import TASK, Embedded, Found, audited
from fmaudit_core.cohort.phantom.anatomy import draw
from fmaudit_core.cohort.phantom.outcomes import FIBROSIS_CODE, draw_courses, ehr_events
from fmaudit_core.cohort.phantom.plan import plan_cohort
from fmaudit_core.cohort.phantom.quotas import spread
from fmaudit_core.cohort.phantom.scanners import GOOD, MANUFACTURER, POOR
from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.config import ConfigError, FairnessSection, PhantomCohort, validated
from fmaudit_core.imaging.series import read_series
from fmaudit_core.sites.export_summary import export_summary
from fmaudit_core.sites.pooling import pool
from tests.everyday.test_identifiers import call

SETTINGS = FairnessSection(n_permutations=499)
#: twice the demo's studies, in small slices
SIZE = {"kind": "phantom", "n_studies": 1_800, "n_slices": 6, "matrix_px": 64}
SMALL = PhantomCohort(kind="phantom", n_studies=60, n_slices=6, matrix_px=64)


def looked_at(volume):
    """An encoder of a few milliseconds: shares of contrast, of soft tissue and of dense lung in 64 fields of the chest."""
    n, rows, _ = volume.shape
    side = rows // 8
    ranges = ((200, 600), (0, 130), (-600, -300))
    shares = [(volume > low) & (volume < high) for low, high in ranges]
    return np.concatenate([one.reshape(n, 8, side, 8, side).mean(axis=(0, 2, 4)).ravel() for one in shares])


def found(**changes) -> Found:
    section = PhantomCohort(**SIZE | changes)
    plan = plan_cohort(section)
    volumes = (draw(one, n_slices=section.n_slices, matrix_px=section.matrix_px) for one in plan)
    return audited(Embedded(plan, np.stack([looked_at(one) for one in volumes]).astype(np.float32)), SETTINGS)


@pytest.fixture(scope="module")
def sites():
    """What an audit of each hospital finds; that of the first is the default phantom."""
    return {site: found(site=site) for site in "abc"}


def test_every_planted_truth_is_found_and_no_other(sites):
    default = sites["a"]
    assert default.gap("age_band")["verdict"] == "disparity"
    assert {default.gap(name)["verdict"] for name in ("sex", "race_ethnicity")} <= {
        "insufficient_evidence", "no_disparity_beyond_margin", "within_margin_of_tested",
    }  # fmt: skip
    young = default.youngest()
    assert young["adjusted_low"] > 0.3
    assert max(abs(young["explained_low"]), abs(young["explained_high"])) < 0.1
    hidden = default.hidden()
    assert hidden["confirmed"]
    assert hidden["udr"] - hidden["rest_udr"] > 0.2


@pytest.fixture(scope="module")
def due_to_scanners():
    """Crude and adjusted gap of the youngest where it is partly and wholly due to scanners."""
    return {gap: found(scanner_gap=gap).youngest() for gap in ("part", "whole")}


def test_a_gap_that_is_wholly_due_to_scanners_goes_with_them(due_to_scanners):
    young = due_to_scanners["whole"]
    assert young["crude_low"] > 0
    assert young["adjusted_low"] < 0 < young["adjusted_high"]
    assert young["explained_low"] > 0
    assert young["explained"] > 0.6 * young["crude"]


def test_a_gap_that_is_partly_due_to_scanners_goes_with_them_in_part(sites, due_to_scanners):
    none, part, whole = sites["a"].youngest(), due_to_scanners["part"], due_to_scanners["whole"]
    assert min(part["crude_low"], part["explained_low"]) > 0
    assert part["adjusted"] > 0
    left = [row["adjusted"] / row["crude"] for row in (none, part, whole)]
    assert left[0] > left[1] > left[2]


def test_without_a_hidden_disease_nothing_is_found_of_it():
    assert found(hidden_share=0.0).hidden() is None
    assert not any(one.fibrosis for one in plan_cohort(PhantomCohort(**SIZE, hidden_share=0.0)))


def test_three_hospitals_are_pooled_and_differ_in_the_age_gap_only(sites, tmp_path):
    summaries = []
    for site, of_site in sites.items():
        of_site.predictions.write_csv(tmp_path / f"{site}.csv")
        out = tmp_path / site
        said = call("assess", "--predictions", tmp_path / f"{site}.csv", "--attributes", "age_band,sex", "--out", out)
        assert said.exit_code == 0, said.output
        summaries.append(export_summary(out, site=site, labels="other"))
    pooled = pool(summaries)
    rows = {(one.attribute, one.subgroup): one for one in pooled.contrasts if one.metric == "udr"}
    young, women = rows["age_band", "18-40"], rows["sex", "female"]
    assert young.i2 > 0.7
    assert young.tau > 0.1
    assert women.tau < 0.5 * young.tau
    values = {site: of_site.youngest()["crude"] for site, of_site in sites.items()}
    assert values["a"] > values["b"] > values["c"]


def test_hospitals_have_different_patients_and_prevalences():
    plans = {site: plan_cohort(SMALL.model_copy(update={"site": site})) for site in "abc"}
    patients = [{one.patient_id for one in plan} for plan in plans.values()]
    assert not patients[0] & patients[1]
    assert not patients[1] & patients[2]
    assert len({sum(one.has_pe for one in plan) for plan in plans.values()}) == 3


# -- in the files


def test_headers_name_the_scanner_and_its_kernel(tmp_path):
    write_phantom(tmp_path, SMALL, tasks=(TASK,), workers=1)
    truth = dict(pl.read_parquet(tmp_path / "truth.parquet").select("study_id", "scanner").iter_rows())
    kernels = {one.model: one.kernel for one in (GOOD, POOR)}
    assert set(truth.values()) == set(kernels)
    assert "fibrosis" not in (tmp_path / "studies.csv").read_text().splitlines()[0]
    for study in list(truth)[::7]:
        (series,) = read_series(tmp_path / "ct" / study)
        facts = series.acquisition
        assert (facts.manufacturer, facts.model, facts.kernel) == (MANUFACTURER, truth[study], kernels[truth[study]])


def shares_of(plan, is_counted):
    """Share of studies that are counted, of those aged 18 to 40 and of the others."""
    return [np.mean([is_counted(one) for one in plan if (one.age <= 40) == youngest]) for youngest in (True, False)]


@pytest.mark.parametrize(("gap", "wanted"), [("none", (0.15, 0.15)), ("part", (0.85, 0.15)), ("whole", (0.85, 0.15))])
def test_who_is_scanned_on_the_poor_scanner_is_a_setting(gap, wanted):
    plan = plan_cohort(PhantomCohort(kind="phantom", scanner_gap=gap))
    assert shares_of(plan, lambda one: one.scanner.machine is POOR) == pytest.approx(wanted, abs=0.02)


@pytest.mark.parametrize(("gap", "wanted"), [("none", 1.0), ("part", 0.5), ("whole", 0.0)])
def test_the_size_of_emboli_is_the_part_that_is_not_due_to_scanners(gap, wanted):
    plan = plan_cohort(PhantomCohort(kind="phantom", scanner_gap=gap))
    ill = [one for one in plan if one.emboli and not one.fibrosis]
    small = shares_of(ill, lambda one: len(one.emboli) == 1)
    assert small == pytest.approx([wanted, 0.0], abs=0.06)


def test_the_hidden_disease_is_balanced_and_recorded_as_a_code_before_the_scan():
    section = PhantomCohort(kind="phantom")
    plan = plan_cohort(section)
    assert np.mean([one.fibrosis for one in plan]) == pytest.approx(section.hidden_share, abs=0.02)
    for named in (
        lambda one: one.has_pe,
        lambda one: one.sex == "male",
        lambda one: one.age <= 40,
        lambda one: one.split == "test",
    ):
        of_group = [np.mean([one.fibrosis for one in plan if named(one) == side]) for side in (True, False)]
        assert of_group[0] == pytest.approx(of_group[1], abs=0.05)
    events = ehr_events(plan, draw_courses(plan, section.seed), section.seed)
    coded = events.filter(code=FIBROSIS_CODE)
    assert set(coded["study_id"]) == {one.study_id for one in plan if one.fibrosis}
    times = {one.study_id: one.time for one in plan}
    assert all(when < times[study] for study, when in coded.select("study_id", "time").iter_rows())


def test_the_hidden_disease_shows_in_the_lungs_and_scanners_in_the_noise():
    plan = plan_cohort(PhantomCohort(kind="phantom"))

    def mean_of(studies, measure):
        return np.mean([measure(draw(one, n_slices=4, matrix_px=96)) for one in studies[:12]])

    def mesh(volume):
        return ((volume > -600) & (volume < -300)).mean()

    with_it, without = (
        [one for one in plan if one.fibrosis == wanted and one.scanner.machine is GOOD] for wanted in (True, False)
    )
    assert mean_of(with_it, mesh) > 1.5 * mean_of(without, mesh)
    on_poor, on_good = (
        [one for one in plan if one.scanner.machine is machine and not one.fibrosis] for machine in (POOR, GOOD)
    )
    noise = lambda volume: volume[:, :3, 40:56].std()  # noqa: E731
    outside = [np.mean([one.scanner.noise_hu for one in of]) for of in (on_poor, on_good)]
    assert outside[0] > 1.5 * outside[1]
    assert mean_of(on_poor, noise) > 1.3 * mean_of(on_good, noise)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"scanner_gap": "half"}, "scanner_gap"),
        ({"hidden_share": 0.9}, "hidden_share"),
        ({"site": "d"}, "site"),
    ],
)
def test_a_wrong_setting_is_named(setting, said):
    with pytest.raises(ConfigError, match=said):
        validated({"cohort": {"kind": "phantom"} | setting}, where="audit.yaml")


def test_a_share_is_spread_evenly_whatever_the_order():
    keys = [(at % 2, at) for at in range(200)]
    chosen = np.array(spread([0.25] * 200, keys))
    assert chosen.sum() == 50
    assert chosen[::2].sum() == chosen[1::2].sum()
    assert spread([0.0] * 5, keys[:5]) == [False] * 5
    assert spread([1.0] * 5, keys[:5]) == [True] * 5
