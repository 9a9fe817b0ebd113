"""Published figures next to ours: a verdict is a statement about intervals, and what is not comparable says why."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.config import Audit, InspectCohort, TableCohort
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.spec import PREDICTIONS, EncoderSpec, PredictionsFile, load_spec
from fmaudit_core.reproduction.compare import ANOTHER_COHORT, compare_with_paper
from fmaudit_core.reproduction.our_values import Audited
from fmaudit_core.reproduction.published_values import citation, claims, published
from fmaudit_core.tables.fairness import FAIRNESS_GAPS, SUBGROUP_METRICS, THRESHOLD_SWEEP
from fmaudit_core.tables.findings import MODEL_COMPARISONS, PAPER_COMPARISON
from fmaudit_core.tables.mitigation import MITIGATION_RESULTS

NAMES = ("medimageinsight", "medsiglip", "biomedclip")
KEY = {"task": "pe", "probe": "logistic", "modality": "ct", "pooling": "mean", "strategy": "none"}
INSPECT = Audit(cohort=InspectCohort(kind="inspect", root=Path("r")))
LRCN = EncoderSpec(
    name="ct-lrcn", adapter=PREDICTIONS, predictions=(PredictionsFile(path=Path("x.csv"), sha256="0" * 64, task="pe"),)
)  # fmt: skip


def metric(value, low, high, *, encoder="medsiglip", name="auroc", attribute="overall", subgroup="all", **more):
    return {
        "encoder": encoder, **KEY, "attribute": attribute, "subgroup": subgroup, "metric": name, "value": value, "ci_low": low,
        "ci_high": high, "status": "tested", "n": 500, "n_pos": 100, "n_neg": 400, **more,
    }  # fmt: skip


def audited(audit=INSPECT, *, metrics=(), gaps=(), sweep=(), comparisons=(), mitigation=(), baseline=True):
    specs = {name: load_spec(shipped_specs()[name]) for name in NAMES} | ({"ct-lrcn": LRCN} if baseline else {})
    flow = pl.DataFrame(
        {"step": ["rows of labels.tsv", "left"], "n_studies": [23248, 23000], "n_patients": [19405, 19300]}
    )
    frame = MITIGATION_RESULTS.frame(mitigation) if mitigation else pl.DataFrame()
    return Audited(
        audit=audit, encoders=specs, metrics=SUBGROUP_METRICS.frame(metrics),
        gaps=FAIRNESS_GAPS.frame(gaps), sweep=THRESHOLD_SWEEP.frame(sweep),
        comparisons=MODEL_COMPARISONS.frame(comparisons), flow=flow, mitigation=frame,
    )  # fmt: skip


def told(found, id_, **where):
    rows = found.filter(id=id_, **where)
    assert rows.height == 1
    return rows.row(0, named=True)


def test_the_resource_is_small_and_cites_its_source():
    assert "Fairness Audit" in citation()
    assert len(published()) == 44
    path = Path(__file__).parents[2] / "fmaudit_core" / "reproduction" / "figures.json"
    assert path.stat().st_size < 12_000
    assert len({(one.id, one.encoder, one.task) for one in claims()}) == len(claims())


def test_it_is_the_shared_file_of_figures():
    shared = Path(__file__).parents[3] / "shared" / "reference" / "paper_figures.json"
    if not shared.exists():
        pytest.skip("the shared figures are not here")
    import json

    own = Path(__file__).parents[2] / "fmaudit_core" / "reproduction" / "figures.json"
    assert json.loads(own.read_text())["figures"] == json.loads(shared.read_text())["figures"]


def test_another_cohort_is_not_comparable_at_all():
    audit = Audit(cohort=TableCohort(kind="table", table=Path("t.csv")))
    found = compare_with_paper(audited(audit, metrics=[metric(0.68, 0.66, 0.70)]))
    assert found.schema == PAPER_COMPARISON.schema
    assert found.height == 44
    assert set(found["verdict"]) == {"not_comparable"}
    assert set(found["reason"]) == {ANOTHER_COHORT}
    assert found["ours"].null_count() == 44


@pytest.mark.parametrize(
    ("low", "high", "verdict", "said"),
    [
        (0.65, 0.72, "same", "lies within our interval"),
        (0.60, 0.679, "different", "lies above our interval"),
        (0.60, 0.68, "same", "lies within our interval"),  # the range begins at 0.68
        (0.685, 0.72, "different", "lies below our interval"),
        (0.50, 0.80, "not_comparable", "too wide to tell"),
        (0.30, 0.60, "different", "lies above our interval"),  # wide, but away from it
        (None, None, "not_comparable", "has no interval"),
    ],
)
def test_same_means_that_the_published_range_meets_a_narrow_interval(low, high, verdict, said):
    row = told(compare_with_paper(audited(metrics=[metric(0.68, low, high)])), "pe_auroc_fm", model="medsiglip")
    assert row["verdict"] == verdict
    assert said in row["reason"]
    assert row["published"] == "0.68 to 0.684"


def test_a_figure_of_several_encoders_is_told_for_each_and_one_that_lacks_says_so():
    found = compare_with_paper(audited(metrics=[metric(0.68, 0.66, 0.70)]), labels_file="labels_20250611.tsv")
    rows = found.filter(id="pe_auroc_fm")
    assert dict(rows.select("model", "verdict").iter_rows()) == {
        "medimageinsight": "not_comparable", "medsiglip": "same", "biomedclip": "not_comparable",
    }  # fmt: skip
    assert set(found["labels_file"]) == {"labels_20250611.tsv"}


def test_counts_and_widths_are_compared_exactly():
    found = compare_with_paper(audited())
    assert told(found, "n_studies")["verdict"] == "same"
    assert told(found, "n_patients")["verdict"] == "different"
    assert told(found, "medimageinsight_dim")["verdict"] == "same"
    assert told(found, "biomedclip_dim")["verdict"] == "same"
    assert told(found, "n_permutations")["verdict"] == "different"
    assert told(found, "alphas")["verdict"] == "same"
    assert told(found, "medsiglip_params_m")["verdict"] == "not_comparable"


def test_the_sweep_of_perceptrons_is_compared_as_it_is_set():
    assert told(compare_with_paper(audited()), "mlp_sweep")["reason"] == "this audit has no MLP probe"
    for shapes, verdict in (((512, 256), (512, 256, 128), (256, 128)), "same"), (((64,),), "different"):
        probes = {"kinds": ["logistic", "mlp"], "networks": {"shapes": shapes}}
        audit = Audit(cohort=INSPECT.cohort, probes=probes)
        row = told(compare_with_paper(audited(audit)), "mlp_sweep")
        assert (row["verdict"], row["published"]) == (verdict, "[[256, 128], [512, 256], [512, 256, 128]]")


def test_race_and_ethnicity_are_other_groups_but_for_hispanic_patients():
    rows = [
        metric(0.4, 0.3, 0.5, name="udr", attribute="race_ethnicity", subgroup="hispanic", p_rest=p) for p in (0.3,)
    ]
    found = compare_with_paper(audited(metrics=rows))
    assert set(found.filter(attribute="race_ethnicity", subgroup="")["verdict"]) == {"not_comparable"}
    assert "not known" in told(found, "nhpi_n")["reason"]
    assert told(found, "nhpi_n")["ours"] is None
    row = told(found, "hispanic_p", model="medsiglip")
    assert (row["verdict"], row["ours_p"]) == ("same", 0.3)
    rows[0]["p_rest"] = 0.01
    assert told(compare_with_paper(audited(metrics=rows)), "hispanic_p", model="medsiglip")["verdict"] == "different"


def test_rates_say_that_the_papers_threshold_is_not_stated():
    rows = [metric(0.7, 0.64, 0.76, name="udr", attribute="age_band", subgroup="18-40")]
    row = told(compare_with_paper(audited(metrics=rows)), "udr_18_40", model="medsiglip")
    assert row["verdict"] == "same"
    assert "does not state how its threshold was chosen (ours: fixed fpr)" in row["reason"]


def test_a_gap_has_the_interval_of_its_two_subgroups():
    rows = [
        metric(0.70, 0.65, 0.75, name="udr", attribute="age_band", subgroup="18-40"),
        metric(0.35, 0.31, 0.39, name="udr", attribute="age_band", subgroup="75-90"),
    ]
    gap = {"encoder": "medsiglip", **KEY, "attribute": "age_band", "metric": "udr", "gap": 0.35, "worst_subgroup": "18-40",
           "best_subgroup": "75-90", "p_gap": 0.003}  # fmt: skip
    row = told(compare_with_paper(audited(metrics=rows, gaps=[gap])), "udr_gap_age", model="medsiglip")
    assert row["ours"] == pytest.approx(0.35)
    # Newcombe's from both intervals: 0.05 and 0.04 either way
    assert row["ours_p"] == 0.003
    assert "the paper gives p < 0.001" in row["reason"]
    half = (0.05**2 + 0.04**2) ** 0.5
    assert (row["ours_low"], row["ours_high"]) == pytest.approx((0.35 - half, 0.35 + half))
    assert row["verdict"] == "same"


@pytest.mark.parametrize(
    ("difference", "p", "verdict"), [(-0.04, 0.002, "same"), (-0.01, 0.4, "different"), (0.04, 0.002, "different")]
)
def test_a_test_is_compared_by_its_conclusion(difference, p, verdict):
    given = {"probe": "given", "modality": "given", "pooling": "given", "strategy": "none"}
    pair = {
        **KEY, "encoder": "biomedclip", "other_encoder": "ct-lrcn", **{f"other_{name}": one for name, one in given.items()},
        "attribute": "overall", "subgroup": "all", "metric": "auroc", "status": "tested", "difference": difference,
        "ci_low": difference - 0.02, "ci_high": difference + 0.02, "p_value": p,
    }  # fmt: skip
    row = told(compare_with_paper(audited(comparisons=[pair])), "pe_fm_vs_lrcn", model="biomedclip")
    assert (row["verdict"], row["ours"]) == (verdict, difference)


def test_the_baseline_is_found_by_its_name_and_without_a_threshold_its_rates_are_not_compared():
    overall = metric(0.72, 0.70, 0.74, encoder="ct-lrcn") | {"probe": "given", "modality": "given", "pooling": "given"}
    blank = {"n": None, "n_pos": None, "n_neg": None, "status": "no_threshold"}
    women = metric(None, None, None, encoder="ct-lrcn", name="tpr", attribute="sex", subgroup="female") | blank
    found = compare_with_paper(audited(metrics=[overall, women]))
    assert told(found, "pe_auroc_lrcn")["verdict"] == "same"
    assert told(found, "lrcn_tpr_female")["reason"] == "its predictions have no operating threshold"
    without = compare_with_paper(audited(metrics=[overall], baseline=False))
    for figure in ("pe_auroc_lrcn", "lrcn_tpr_female"):
        assert "fmaudit baseline add FILE --name ct-lrcn" in told(without, figure)["reason"]


def test_curves_are_compared_at_every_threshold():
    def curve(subgroup, tpr):
        return [
            {
                "encoder": "medsiglip",
                **KEY,
                "attribute": "sex",
                "subgroup": subgroup,
                "threshold": t,
                "tpr": one,
                "fpr": 0.1,
            }
            for t, one in zip((0.1, 0.4, 0.7), tpr, strict=True)
        ]

    below = curve("female", (0.9, 0.5, 0.1)) + curve("male", (0.95, 0.6, 0.2))
    row = told(compare_with_paper(audited(sweep=below)), "female_all_thresholds", model="medsiglip")
    assert (row["ours"], row["verdict"]) == (1.0, "same")
    crossing = curve("female", (0.9, 0.7, 0.1)) + curve("male", (0.95, 0.6, 0.2))
    row = told(compare_with_paper(audited(sweep=crossing)), "female_all_thresholds", model="medsiglip")
    assert (row["ours"], row["verdict"]) == (pytest.approx(2 / 3), "different")


def test_mitigation_is_compared_by_its_reduction_at_the_papers_strength():
    run = {
        "encoder": "medimageinsight", "task": "pe", "strategy": "adversarial", "target_attribute": "age_band", "alpha": 0.5,
        "attribute": "age_band", "metric": "udr", "status": "evaluated", "chosen": False, "gap_before": 0.30, "gap_after": 0.06,
        "reduction": 0.24, "ci_low": 0.22, "ci_high": 0.26, "auroc": 0.67, "auroc_before": 0.68, "auroc_delta": -0.01,
        "auroc_delta_low": -0.02, "auroc_delta_high": 0.0, "p_reduction": 0.002,
    }  # fmt: skip
    found = compare_with_paper(audited(mitigation=[run, run | {"alpha": 1.0, "chosen": True, "gap_after": 0.2}]))
    after = told(found, "mii_age_adv_after")
    assert (after["ours"], after["ours_low"], after["ours_high"]) == pytest.approx((0.06, 0.04, 0.08))
    assert after["verdict"] == "same"
    share = told(found, "mii_age_adv_reduction")
    assert (after["ours_p"], share["ours_p"]) == (0.002, 0.002)
    assert (share["ours"], share["ours_low"], share["ours_high"]) == pytest.approx((0.8, 0.22 / 0.3, 0.26 / 0.3))
    cost = told(found, "mii_age_adv_cost")
    assert (cost["ours"], cost["ours_low"], cost["ours_high"]) == pytest.approx((0.01, 0.0, 0.02))
    assert cost["verdict"] == "same"


def test_what_the_record_adds_is_that_of_early_fusion():
    over = {"over_ct": 0.012, "over_ct_low": 0.002, "over_ct_high": 0.022}
    row = {"encoder": "biomedclip", "task": "readmission_1m", "probe": "logistic", "modality": "ct+ehr", **over}
    given = dataclasses.replace(audited(), modalities=pl.DataFrame([row]))
    told_ = told(compare_with_paper(given), "ehr_fusion_gain", task="readmission_1m")
    assert (told_["ours"], told_["verdict"], told_["published"]) == (0.012, "same", "up to 0.017")
    row |= {"over_ct": 0.04, "over_ct_low": 0.03, "over_ct_high": 0.05}
    given = dataclasses.replace(audited(), modalities=pl.DataFrame([row]))
    assert told(compare_with_paper(given), "ehr_fusion_gain", task="readmission_1m")["verdict"] == "different"


def test_one_encoder_with_two_probes_is_compared_whichever_stands_first():
    key = {name: one for name, one in KEY.items() if name not in ("task", "probe")}
    told_ = {"task": "pe", "attribute": "overall", "subgroup": "all", "metric": "auroc", "status": "tested"}
    one = {"encoder": "medsiglip", **key, "probe": "logistic", **{f"other_{n}": v for n, v in key.items()},
           "other_encoder": "medsiglip", "other_probe": "mlp", "difference": 0.02, "ci_low": 0.01, "ci_high": 0.03,
           **told_}  # fmt: skip
    other = one | {"probe": "mlp", "other_probe": "logistic", "difference": -0.02, "ci_low": -0.03, "ci_high": -0.01}
    rows = [told(compare_with_paper(audited(comparisons=[pair])), "mlp_penalty_msig") for pair in (one, other)]
    for row in rows:
        assert (row["ours"], row["ours_low"], row["ours_high"], row["verdict"]) == (0.02, 0.01, 0.03, "same")
    assert told(compare_with_paper(audited()), "mlp_penalty_msig")["reason"] == "this audit has no MLP probe"
