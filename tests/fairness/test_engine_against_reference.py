"""The compiled tests of subgroups compute what their formulas say: against plain numpy, by enumeration, and against DeLong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare

from benchmarks.calibration_scenarios import NULLS, Group, Scenario
from fmaudit_core.fairness.gaps import estimates, null_gaps
from fmaudit_core.fairness.kernels import Ranking
from fmaudit_core.fairness.labellings import Labellings
from fmaudit_core.fairness.permutation import PatientPermuter
from fmaudit_core.fairness.units import Units
from tests.fairness import reference

METRICS = ("auroc", "udr", "fpr")
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@dataclass(frozen=True)
class Case:
    """Studies, and labellings of their units to compare: rows[b] holds the group of each unit, in the order of `unit` codes."""

    score: np.ndarray
    positive: np.ndarray
    patient: np.ndarray
    group: np.ndarray
    threshold: float
    n_groups: int

    @property
    def units(self):
        return Units.of(self.group, self.patient, self.positive)

    def ranking(self):
        return Ranking.of(self.score, self.positive, self.units, self.threshold)

    def estimated(self, of_units):
        """The engine's estimates of labellings, each a row of groups by unit in the reference's order."""
        unit, _ = reference.units_of(self.group, self.patient)
        units = self.units
        rows = np.zeros((len(of_units), len(units.group)), dtype=np.uint8)
        rows[:, units.of_study] = np.asarray(of_units)[:, unit]
        labellings = Labellings.of(rows)
        return estimates(self.ranking(), labellings, self.n_groups, units.sizes(labellings, self.n_groups))

    def expected(self, metric, of_units):
        unit, _ = reference.units_of(self.group, self.patient)
        return reference.estimates(
            metric, self.score, self.positive, unit, np.asarray(of_units)[unit], self.n_groups, self.threshold
        )


def assert_equal(case, rows):
    """Every estimate and statistic of every labelling, by the engine and by the reference."""
    found = case.estimated(rows)
    assert set(found) == ({"auroc"} if np.isnan(case.threshold) else set(METRICS))
    for metric, of_engine in found.items():
        scaled = of_engine.scaled
        q, z = scaled.homogeneity, scaled.against_others()
        for b, row in enumerate(rows):
            value, t, v = case.expected(metric, row)
            has = np.isfinite(v)
            told = f"{metric}, labelling {b}"
            assert np.array_equal(np.isfinite(scaled.v[b]), has), told
            np.testing.assert_allclose(of_engine.value[b][has], value[has], **CLOSE, err_msg=told)
            np.testing.assert_allclose(scaled.t[b][has], t[has], **CLOSE, err_msg=told)
            np.testing.assert_allclose(scaled.v[b][has], v[has], **CLOSE, err_msg=told)
            statistics = reference.homogeneity(t, v)
            np.testing.assert_allclose(q[b], statistics.q, **CLOSE, err_msg=told)
            np.testing.assert_allclose(z[b], statistics.z, **CLOSE, err_msg=told)


@st.composite
def cases(draw):
    """Studies of few patients, and labellings of them, even and lopsided."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_groups = draw(st.integers(2, 7))
    n_patients = draw(st.integers(4, 60))
    most = draw(st.sampled_from([1, 2, 5, 30]))
    patient = np.repeat(np.arange(n_patients), rng.integers(1, most + 1, n_patients))
    prevalence = draw(st.sampled_from([0.08, 0.3, 0.5, 0.85]))
    one_class_patients = draw(st.booleans())
    chance = rng.random(n_patients)[patient] if one_class_patients else rng.random(len(patient))
    positive = chance < prevalence
    positive[patient == 0], positive[patient == n_patients - 1] = True, False
    score = draw(st.sampled_from([0.0, 1.0, 50.0])) * positive + rng.normal(size=len(patient))
    score = score + draw(st.sampled_from([0.0, 2.0])) * rng.normal(size=n_patients)[patient]
    digits = draw(st.sampled_from([None, 1, 0, "all tied"]))
    score = np.zeros(len(score)) if digits == "all tied" else score if digits is None else np.round(score, digits)
    at = {"a score": float(np.median(score)), "inside": 0.4, "above": 1e3, "below": -1e3, "none": np.nan}
    threshold = at[draw(st.sampled_from(sorted(at)))]
    if draw(st.booleans()):  # a subgroup that changes between studies
        group = np.minimum(
            rng.integers(0, n_groups, n_patients)[patient] + (rng.random(len(patient)) < 0.3), n_groups - 1
        )
    else:
        group = rng.integers(0, n_groups, n_patients)[patient]
    case = Case(score, positive, rng.permutation(n_patients)[patient], group, threshold, n_groups)
    unit, own = reference.units_of(case.group, case.patient)
    rows = [own, *(rng.integers(0, n_groups, len(own)) for _ in range(3))]
    rows += [rng.choice(n_groups, len(own), p=rng.dirichlet(np.full(n_groups, 0.3))) for _ in range(3)]
    with_positive = np.bincount(unit, positive) > 0  # the last group has one class
    rows.append(np.where(with_positive, rng.integers(0, n_groups - 1, len(own)), rows[1]))
    return case, np.array(rows)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_estimate_and_statistic_equals_the_reference(drawn):
    case, rows = drawn
    assert_equal(case, rows)


@pytest.mark.parametrize("digits", [None, 1], ids=["no ties", "ties"])
@pytest.mark.parametrize("prevalence", [0.2, 0.7])
@pytest.mark.parametrize("studies", [1, 1.2, 30])
def test_estimates_of_more_labellings_than_a_block_equal_the_reference(studies, prevalence, digits):
    rng = np.random.default_rng(5)
    patients = 300 if studies < 30 else 25
    cohort = Scenario("", (Group(patients, prevalence, studies),) * 2, test_from=5).drawn(rng)
    score = cohort.score if digits is None else np.round(cohort.score, digits)
    case = Case(score, cohort.positive, cohort.patient, cohort.group, cohort.threshold, 4)
    rows = rng.integers(0, 4, (70, 2 * patients))
    found = case.estimated(rows)
    some = [0, 1, 31, 32, 63, 64, 69]
    assert_equal(case, rows[some])
    again = case.estimated(rows[some])  # a labelling's estimates do not depend on its neighbours
    for metric in METRICS:
        np.testing.assert_array_equal(found[metric].scaled.t[some], again[metric].scaled.t)
        np.testing.assert_array_equal(found[metric].scaled.v[some], again[metric].scaled.v)


def test_a_group_ranked_perfectly_has_a_variance_of_its_size():
    """20 patients with positives: AUROC 1 counts as 1 - .5/20, with the variance of a share of 20."""
    positive = np.arange(100) < 40
    group = np.tile([0, 1], 50)
    score = np.where(positive, 5.0, 0.0) + np.random.default_rng(0).normal(size=100) * np.where(group == 0, 0.1, 5)
    case = Case(score, positive, np.arange(100), group, 2.0, 2)
    found = case.estimated([group])["auroc"]
    assert found.value[0, 0] == 1.0
    assert found.scaled.t[0, 0] == pytest.approx(np.log(0.975 / 0.025), abs=1e-12)
    assert found.scaled.v[0, 0] == pytest.approx(1 / (20 * 0.975 * 0.025), rel=1e-12)


SMALLER = {
    "exchangeable, 3 groups, 1.2 studies/patient": 0.25,
    "prevalence 8-40 %, same scores": 0.2,
    "ICC .95 small group / 0 large, 4 studies": 0.6,
    "3 v 1 studies, sick patients' negatives +1.5 sd": 0.2,
    "60/500/2,600 patients, ICC .9/.5/.2": 0.25,
    "5 score levels, prevalence 10-40 %": 0.2,
    "age bands, two thirds in two, ICC .8": 0.15,
}


def cohort_of(name, seed=0):
    scenario = next(one for one in NULLS if one.name == name)
    cohort = replace(scenario.enlarged(SMALLER[name]), test_from=3).drawn(np.random.default_rng(seed))
    n_groups = len(scenario.groups)
    return Case(cohort.score, cohort.positive, cohort.patient, cohort.group, cohort.threshold, n_groups)


@pytest.mark.parametrize("name", SMALLER)
def test_a_whole_permutation_test_equals_the_reference(name):
    """Every permutation again in numpy: Q, each p, and the null of the gap itself."""
    case, n = cohort_of(name), 60
    units = case.units
    permuter = PatientPermuter(units, seed=3, named="task", test_from=5)
    (found,) = null_gaps([case.ranking()], units, permuter.permutations(n))
    permuted = np.concatenate([one.rows() for one in permuter.permutations(n)])
    assert permuted.shape == (n, len(units.group))
    for metric in METRICS:
        gap = found[metric]

        def of(group, metric=metric):
            return reference.estimates(
                metric, case.score, case.positive, units.of_study, group, case.n_groups, case.threshold
            )

        value, t, v = of(case.group)
        observed = reference.homogeneity(t, v)
        null = [reference.homogeneity(*of(row[units.of_study])[1:]) for row in permuted]
        null_q, null_z = np.array([one.q for one in null]), np.array([one.z for one in null])
        np.testing.assert_allclose(gap.q_statistic, observed.q, **CLOSE)
        np.testing.assert_allclose(gap.null_q, null_q, **CLOSE)
        assert gap.p_value == pytest.approx(reference.p_value(observed.q, null_q), abs=1e-12)
        p_rest, adjusted = reference.p_of_groups(observed.z, null_z)
        np.testing.assert_allclose(gap.p_rest, p_rest, atol=1e-12)
        np.testing.assert_allclose(gap.p_rest_adjusted, adjusted, atol=1e-12)
        assert gap.gap == pytest.approx(np.ptp(value), abs=1e-12)
        low, high = int(value.argmin()), int(value.argmax())
        assert (gap.best, gap.worst) == ((high, low) if metric == "auroc" else (low, high))
        of_gap = reference.null_of_raw_gap(metric, observed.mu, v, 40_000, seed=1)
        error = of_gap.std() / np.sqrt(8_000)  # of a mean of 10,000 less one of 40,000
        assert gap.null_expected_gap == pytest.approx(of_gap.mean(), abs=5 * error)
        assert np.mean(of_gap > gap.null_gap_95) == pytest.approx(0.05, abs=5 * np.sqrt(0.05 * 0.95 / 8_000))
        share = np.mean(of_gap >= gap.gap)
        assert gap.p_gap == pytest.approx(share, abs=1e-3 + 5 * np.sqrt(share * (1 - share) / 8_000))


def test_nobody_called_is_no_test_and_all_tied_is_no_gap():
    case = replace(cohort_of("exchangeable, 3 groups, 1.2 studies/patient"), threshold=1e6)
    case = replace(case, score=np.zeros(len(case.score)))
    units = case.units
    (found,) = null_gaps(
        [case.ranking()], units, PatientPermuter(units, seed=0, named="t", test_from=25).permutations(99)
    )
    for metric in ("udr", "fpr"):
        assert found[metric].p_value is None
        assert found[metric].p_rest is None
    assert found["auroc"].p_value == 1.0
    assert found["auroc"].q_statistic == 0.0
    assert found["auroc"].null_q.max() == 0.0
    assert set(found["auroc"].p_rest_adjusted) == {1.0}


def tiny(seed, n_positive=4, n_negative=4):
    """Patients of one class, the first positive and the first negative with three studies; ties."""
    rng = np.random.default_rng(seed)
    patients = n_positive + n_negative
    counts = np.where(np.isin(np.arange(patients), (0, n_positive)), 3, 1)
    patient = np.repeat(np.arange(patients), counts)
    positive = patient < n_positive
    score = np.round(rng.normal(size=len(patient)) + positive, 1)
    return score, positive, patient


@pytest.mark.parametrize("seed", range(4))
def test_among_all_relabellings_no_more_than_alpha_have_a_p_up_to_alpha(seed):
    """Exact if exchangeable: each relabelling is observed once, the others are its permutations."""
    score, positive, patient = tiny(seed, 5, 5)
    halves = np.array([np.isin(np.arange(5), one) for one in combinations(range(5), 2)])
    every = np.array([np.concatenate([a, b]) for a in halves for b in halves]).astype(np.uint8)
    p = {metric: [] for metric in METRICS}
    p_rest = {metric: [] for metric in METRICS}
    for row in every:
        units = Units.of(row[patient], patient, positive)
        (found,) = null_gaps([Ranking.of(score, positive, units, 0.5)], units, [Labellings.of(every)])
        for metric in METRICS:
            if found[metric].p_value is not None:
                p[metric].append(found[metric].p_value)
                p_rest[metric].append(found[metric].p_rest_adjusted.min())
    assert len(p["auroc"]) == len(every)
    for of in (p, p_rest):
        for metric, found in of.items():
            assert len(found) in (0, len(every))  # where nobody is called in any relabelling nothing is tested
            for alpha in np.linspace(0.01, 0.99, 99):
                assert np.count_nonzero(np.array(found) <= alpha) <= alpha * len(found), metric


@pytest.mark.parametrize("stratified", [False, True])
def test_every_relabelling_is_equally_likely(stratified):
    """Six patients, two with positives: 20 relabellings of 3 and 3; 12 if a patient with positives stays with each group."""
    patient = np.array([0, 0, 1, 2, 3, 4, 5])
    positive = np.array([True, False, True, False, False, False, False])
    units = Units.of(np.array([0, 0, 1, 0, 1, 0, 1]), patient, positive)
    permuter = PatientPermuter(units, seed=0, named="t", test_from=2 if stratified else 1)
    rows = np.concatenate([one.rows() for one in permuter.permutations(20_000)])
    assert np.all(rows.sum(axis=1) == 3)
    if stratified:
        assert np.all(rows[:, :2].sum(axis=1) == 1)
    seen = np.unique(rows, axis=0, return_counts=True)[1]
    assert len(seen) == (2 * 6 if stratified else 20)
    assert chisquare(seen).pvalue > 1e-3


@pytest.mark.parametrize("test_from", [2, 10, 25])
@pytest.mark.parametrize("name", SMALLER)
def test_units_are_permuted_within_strata_only_where_a_group_would_get_too_few(name, test_from):
    case = cohort_of(name)
    units = case.units
    stratum = reference.strata(units.of_study, units.group, case.positive, test_from)
    rows = np.concatenate(
        [one.rows() for one in PatientPermuter(units, seed=0, named="t", test_from=test_from).permutations(50)]
    )
    for inside in (stratum, ~stratum):
        own = np.bincount(units.group[inside], minlength=case.n_groups)
        assert all(np.array_equal(np.bincount(row[inside], minlength=case.n_groups), own) for row in rows)
    if not stratum.any():
        rarer = reference.strata(units.of_study, units.group, case.positive, 10**9)
        given = {tuple(np.bincount(row[rarer], minlength=case.n_groups)) for row in rows}
        assert len(given) > 1


def compared(case, seed=0):
    units = case.units
    permuter = PatientPermuter(units, seed=seed, named="task", test_from=25)
    return null_gaps([case.ranking()], units, permuter.permutations(199))[0]


@pytest.mark.parametrize("name", ["prevalence 8-40 %, same scores", "age bands, two thirds in two, ICC .8"])
def test_neither_the_order_of_studies_nor_the_codes_of_patients_matter(name):
    case = cohort_of(name)
    order = np.random.default_rng(1).permutation(len(case.score))
    shuffled = replace(
        case,
        score=case.score[order], positive=case.positive[order], patient=case.patient[order], group=case.group[order],
    )  # fmt: skip
    renamed = replace(case, patient=1_000 + 7 * case.patient)
    one = compared(case)
    for other in (compared(shuffled), compared(renamed)):
        for metric in METRICS:
            np.testing.assert_allclose(other[metric].null_q, one[metric].null_q, rtol=1e-12)
            assert other[metric].p_value == one[metric].p_value
            assert np.array_equal(other[metric].p_rest_adjusted, one[metric].p_rest_adjusted)
            assert other[metric].null_expected_gap == pytest.approx(one[metric].null_expected_gap, abs=1e-12)
    # other codes, another order of patients: other permutations, the same statistics
    mixed = replace(case, patient=np.random.default_rng(2).permutation(case.patient.max() + 1)[case.patient])
    for metric, found in compared(mixed).items():
        assert found.q_statistic == pytest.approx(one[metric].q_statistic, rel=1e-9)
        assert found.p_value == pytest.approx(one[metric].p_value, abs=0.18)  # 5 standard errors of 199 and 199


def test_exchanging_the_classes_leaves_the_auroc_test_as_it_is():
    """With scores and outcomes both reversed the common class becomes the rarer one."""
    case = cohort_of("prevalence 8-40 %, same scores")
    reversed_ = replace(case, score=-case.score, positive=~case.positive, threshold=np.nan)
    one, other = compared(case)["auroc"], compared(reversed_)["auroc"]
    np.testing.assert_allclose(other.null_q, one.null_q, **CLOSE)
    assert other.p_value == one.p_value


def delong_variance(score, positive):
    """DeLong, DeLong & Clarke-Pearson 1988: the variance of one AUROC without clusters, and the AUROC."""
    won = (score[positive][:, None] > score[~positive]) + 0.5 * (score[positive][:, None] == score[~positive])
    m, n = won.shape
    return float(won.mean()), float(won.mean(axis=1).var(ddof=1) / m + won.mean(axis=0).var(ddof=1) / n)


@pytest.mark.parametrize("seed", range(6))
def test_delongs_homogeneity_test_agrees_in_large_samples(seed):
    """Independent groups whose scores are shifted and scaled, some with a planted gap: Wald's Q is chi-squared."""
    groups = (
        Group(1_500, studies=1),
        Group(2_500, 0.3, 1, shift=1, worse=0.05 * (seed % 3)),
        Group(3_500, studies=1, scale=2),
    )
    cohort = Scenario("", groups).drawn(np.random.default_rng(seed))
    theta, variance = np.array(
        [delong_variance(cohort.score[cohort.group == g], cohort.positive[cohort.group == g]) for g in range(3)]
    ).T
    units = Units.of(cohort.group, cohort.patient, cohort.positive)
    ranking = Ranking.of(cohort.score, cohort.positive, units, np.nan)
    (found,) = null_gaps(
        [ranking], units, PatientPermuter(units, seed=seed, named="t", test_from=25).permutations(2_999)
    )
    gap = found["auroc"]
    on_logit = wald(np.log(theta / (1 - theta)), variance / (theta * (1 - theta)) ** 2)
    assert gap.q_statistic == pytest.approx(on_logit, rel=1e-9)
    q = wald(theta, variance)
    for p in (chi2.sf(q, 2), chi2.sf(on_logit, 2)):
        assert gap.p_value == pytest.approx(p, abs=0.02 + 4 * np.sqrt(p * (1 - p) / 2_999))


def wald(value, variance):
    mean = np.average(value, weights=1 / variance)
    return float(((value - mean) ** 2 / variance).sum())
