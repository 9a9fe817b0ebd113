"""Small groups: not shown, and not to be worked out from what is."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.report.disclosure.disclosure import Disclosed, disclose
from fmaudit_core.report.export import write_report
from fmaudit_core.report.input.report_input import ReportInput
from tests.report.frames import SMALL, SMALL_VALUES, made_up
from tests.report.reading import without_plotly

#: as a page or a table might print them
TELLTALES = ("2917", "2,917", "2910", "2,910", "0.9917", "99.17", "0.9911", "0.9923")


@pytest.fixture(scope="module")
def inputs() -> ReportInput:
    return made_up(small_group=True)


@pytest.fixture(scope="module")
def tables(inputs: ReportInput) -> Disclosed:
    return disclose(inputs)


def test_a_suppressed_subgroup_is_named_and_has_no_number(tables: Disclosed) -> None:
    rows = tables.metrics.filter(subgroup="nh_nhpi")
    assert set(rows.get_column("counts")) == {"withheld"}
    numbers = ["n", "n_pos", "n_neg", "value", "ci_low", "ci_high", "mde", "p_rest", "p_rest_adjusted"]
    assert rows.select(numbers).null_count().row(0) == (rows.height,) * len(numbers)
    assert tables.sweep.filter(subgroup="nh_nhpi").is_empty()


def test_nor_has_it_one_in_the_tables_beside(tables: Disclosed) -> None:
    for rows in (tables.calibration, tables.comparisons, tables.changes):
        small = rows.filter(subgroup="nh_nhpi")
        assert set(small.get_column("status")) == {"suppressed"}
        numbers = [name for name, kind in small.schema.items() if kind.is_numeric() or kind == pl.Boolean]
        assert small.select(numbers).null_count().row(0) == (small.height,) * len(numbers)
    assert tables.cross.filter((pl.col("positives_of") == "nh_nhpi") | (pl.col("negatives_of") == "nh_nhpi")).is_empty()
    crossed = tables.intersections.filter(pl.col("subgroup").str.starts_with("nh_nhpi"))
    assert set(crossed.get_column("counts")) == {"withheld"}
    assert crossed.get_column("value").null_count() == crossed.height


def test_no_warning_names_it_and_none_beside_it_tells_a_count(inputs: ReportInput, tables: Disclosed) -> None:
    shown = tables.warnings
    assert "nh_nhpi" in {*inputs.score_warnings["subgroup"], *inputs.score_warnings["other_subgroup"]}
    assert "nh_nhpi" not in {*shown["subgroup"], *shown["other_subgroup"]}
    assert shown.filter(code="none_or_all_called").is_empty()
    (near,) = shown.filter(subgroup="nh_black").to_dicts()
    assert (near["value"], near["low"], near["high"]) == (0.41, 0.37, 0.46)
    assert near["message"].startswith("AUROC of Black is 0.41 (interval 0.37-0.46)")
    (apart,) = shown.filter(code="studies_per_patient").to_dicts()
    assert (apart["subgroup"], apart["value"]) == ("75-90", 2.24)


def test_without_a_small_neighbour_every_warning_is_shown() -> None:
    inputs = made_up(poolings=("mean",))
    order = ["encoder", "task", "attribute", "subgroup"]
    shown, true = (frame.drop("message").sort(order) for frame in (disclose(inputs).warnings, inputs.score_warnings))
    assert shown.equals(true)


def test_beside_it_calibration_and_pairs_count_what_the_metrics_count(tables: Disclosed) -> None:
    key = ["encoder", "task", "pooling", "attribute"]
    rounded = tables.metrics.filter(counts="rounded", metric="udr")
    own = rounded.select(*key, "subgroup", metrics_n_pos="n_pos", metrics_n_neg="n_neg")
    calibrated = tables.calibration.filter(pl.col("counts") == "rounded", pl.col("n").is_not_null()).join(
        own, on=[*key, "subgroup"]
    )
    assert calibrated.height
    assert calibrated.filter(pl.col("n_pos") != pl.col("metrics_n_pos")).is_empty()
    pairs = tables.cross.filter(counts="rounded").join(own, left_on=[*key, "positives_of"], right_on=[*key, "subgroup"])
    assert pairs.height
    assert pairs.filter(pl.col("n_pos") != pl.col("metrics_n_pos")).is_empty()


def test_intersections_of_attributes_without_a_small_crossing_keep_their_counts(
    inputs: ReportInput, tables: Disclosed
) -> None:
    chosen = {"encoder": "lite0", "task": "pe", "pooling": "mean", "attribute": "sex x age_band"}
    shown, true = tables.intersections.filter(**chosen), inputs.intersections.filter(**chosen)
    assert set(shown.get_column("counts")) == {"exact"}
    assert shown.drop("counts", "rank").equals(true.drop("rank"))


def test_no_file_of_the_report_holds_a_number_of_a_suppressed_subgroup(inputs: ReportInput, tmp_path: Path) -> None:
    # the totals that hold the small group would tell as much: none of the made-up ones does
    written = write_report(tmp_path, inputs)
    for path in written.all():
        text = path.read_text(encoding="utf-8")
        ours = without_plotly(text) if path == written.page else text
        alone = [one for one in TELLTALES if re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", ours)]
        assert alone == [], path.name
    assert str(SMALL["n"]) in TELLTALES
    assert str(SMALL_VALUES["value"]) in TELLTALES


def test_whatever_a_suppressed_subgroup_holds_the_report_is_the_same(inputs: ReportInput, tmp_path: Path) -> None:
    hidden = pl.col("subgroup") == "nh_nhpi"
    metrics = inputs.subgroup_metrics.with_columns(
        *(
            pl.when(hidden).then(pl.lit(n)).otherwise(name).cast(pl.Int64).alias(name)
            for name, n in (("n", 31), ("n_pos", 2))
        ),
        value=pl.when(hidden).then(0.5).otherwise("value"),
    )
    sweep = inputs.threshold_sweep.with_columns(tpr=pl.when(hidden).then(0.5).otherwise("tpr"))
    other = dataclasses.replace(inputs, subgroup_metrics=metrics, threshold_sweep=sweep)
    first, second = (write_report(tmp_path / name, one) for name, one in (("a", inputs), ("b", other)))
    assert [path.read_bytes() for path in first.all()] == [path.read_bytes() for path in second.all()]


def test_a_status_that_says_otherwise_is_not_believed(inputs: ReportInput) -> None:
    wrong = inputs.subgroup_metrics.with_columns(
        status=pl.when(subgroup="nh_nhpi").then(pl.lit("tested")).otherwise("status")
    )
    rows = disclose(dataclasses.replace(inputs, subgroup_metrics=wrong)).metrics.filter(subgroup="nh_nhpi")
    assert set(rows.get_column("status")) == {"suppressed"}
    assert rows.get_column("n").null_count() == rows.height


@pytest.mark.parametrize("count", ["n", "n_pos", "n_neg"])
def test_the_count_of_a_suppressed_subgroup_does_not_follow_by_subtraction(
    inputs: ReportInput, tables: Disclosed, count: str
) -> None:
    chosen = {"encoder": "lite0", "task": "pe", "pooling": "mean", "metric": "udr", "attribute": "race_ethnicity"}
    true = inputs.subgroup_metrics.filter(**chosen)
    shown = tables.metrics.filter(**chosen, counts="rounded").get_column(count).to_list()
    assert len(shown) == true.height - 1
    assert all(value % 10 == 0 for value in shown)
    # each rounded count is off by up to five, one of them by ten: what is left of the total has more than ten values
    total = true.get_column(count).sum()
    least, most = (
        total - sum(value + off for value in shown) - 5 * (1 if count != "n" else 2 + len(shown)) for off in (4, -5)
    )
    assert most - least >= 9
    assert least <= SMALL[count]


def test_attributes_without_a_small_subgroup_keep_their_counts(inputs: ReportInput, tables: Disclosed) -> None:
    other = {"attribute": "sex"}
    assert (
        tables.metrics.filter(**other).get_column("n").equals(inputs.subgroup_metrics.filter(**other).get_column("n"))
    )
    assert set(tables.metrics.filter(**other).get_column("counts")) == {"exact"}


def test_rates_beside_a_small_subgroup_fit_more_than_one_count(tables: Disclosed) -> None:
    rates = tables.metrics.filter(attribute="race_ethnicity", counts="rounded").drop_nulls("value").get_column("value")
    assert all(round(100 * rate) == pytest.approx(100 * rate, abs=1e-9) for rate in rates)
    curves = tables.sweep.filter(attribute="race_ethnicity").get_column("tpr")
    assert all(round(20 * rate) == pytest.approx(20 * rate, abs=1e-9) for rate in curves)


def test_a_thinned_curve_is_the_one_of_the_table(inputs: ReportInput, tables: Disclosed) -> None:
    chosen = {"encoder": "lite0", "task": "pe", "pooling": "mean", "attribute": "sex", "subgroup": "female"}
    full = inputs.threshold_sweep.filter(**chosen).sort("threshold").rows(named=True)
    thin = tables.sweep.filter(**chosen).rows(named=True)
    assert 30 < len(thin) <= 41
    for row in thin:
        # called positive at or above the threshold: the rate there is that of the next score
        above = [one for one in full if one["threshold"] >= row["threshold"]]
        assert row["tpr"] == pytest.approx(above[0]["tpr"] if above else 0.0, abs=5e-4)


def test_cohort_counts_withhold_the_small_and_round_their_neighbours() -> None:
    inputs = made_up()
    studies = inputs.studies.with_columns(
        n_studies=pl.when(subgroup="nh_black", split="val").then(7).otherwise("n_studies")
    )
    shown = disclose(dataclasses.replace(inputs, studies=studies)).studies
    val = shown.filter(attribute="race_ethnicity", split="val")
    assert val.filter(subgroup="nh_black").get_column("n_studies").to_list() == [None]
    assert all(n % 10 == 0 for n in val.drop_nulls("n_studies").get_column("n_studies"))
    assert set(shown.filter(attribute="sex").get_column("counts")) == {"exact"}


def test_a_subgroup_small_for_one_task_only_is_hidden_for_that_task(inputs: ReportInput) -> None:
    elsewhere = (pl.col("subgroup") == "nh_nhpi") & (pl.col("task") != "pe")
    only = {name: getattr(inputs, name).filter(~elsewhere) for name in ("subgroup_metrics", "subgroup_calibration")}
    shown = disclose(dataclasses.replace(inputs, **only)).metrics.filter(attribute="race_ethnicity")
    assert set(shown.filter(task="pe").get_column("counts")) == {"withheld", "rounded"}
    assert set(shown.filter(task="mortality_1m").get_column("counts")) == {"exact"}


def test_sentences_that_came_with_the_table_are_not_passed_on(inputs: ReportInput, tmp_path: Path) -> None:
    summary = json.loads(write_report(tmp_path, inputs).summary.read_text(encoding="utf-8"))
    assert all("neighbours" not in one["sentence"] for one in summary["findings"])
