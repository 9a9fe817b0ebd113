"""One table of predictions in every spelling, type and format gives the same numbers; contradictions are refused."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from click.testing import CliRunner
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fmaudit_core.config import FairnessSection, LabelWords
from fmaudit_core.fairness import assess
from fmaudit_core.fairness.errors import FairnessError
from fmaudit_core.fairness.normal_form import PredictionRules
from fmaudit_core.standalone.assess_file import read_predictions
from fmaudit_core.tabular.notes import note_sentences
from fmaudit_dagster.cli.main import main
from tests.fairness.cohorts import predictions

FEW = FairnessSection(n_permutations=99, intersection_depth=1)
LEVELS = {"a": "M\u0101ori", "b": "C\u00f4te d\u2019Ivoire", "c": "unknown"}
PLAIN = predictions(400, seed=7).select(
    "study_id", "patient_id", "split", "y_true", "y_score", group=pl.col("group").replace(LEVELS)
)
WORDS = [
    ("1", "0"),
    ("1.0", "0.0"),
    ("TRUE", "False "),
    ("yes", "no"),
    (" positive", "Negative"),
    ("malignant", "benign"),
]
RULES = PredictionRules(LabelWords(positive=("Malignant",), negative=("benign",)))
WANT = assess(PLAIN, attributes=["group"], settings=FEW)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.sampled_from(WORDS),
    separator=st.sampled_from([",", ";", "\t", "|", None]),
    form=st.sampled_from(["NFC", "NFD"]),
    space=st.sampled_from(["", " ", "\u00a0"]),
    missing=st.sampled_from(["", "NA", "N/A", "nan", "None", "NULL", "Unknown", "not recorded", "UNABLE TO OBTAIN"]),
    quoted=st.booleans(),
    order=st.integers(0, 99),
)
def test_spelling_type_and_format_change_no_number(tmp_path, words, separator, form, space, missing, quoted, order):
    levels = {level: unicodedata.normalize(form, level) + space for level in LEVELS.values()} | {"unknown": missing}
    frame = PLAIN.sample(fraction=1.0, shuffle=True, seed=order).with_columns(
        pl.when("y_true").then(pl.lit(words[0])).otherwise(pl.lit(words[1])).alias("y_true"),
        pl.col("group").replace(levels),
    )
    path = tmp_path / ("p.parquet" if separator is None else "p.csv")
    if separator is None:
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator=separator, quote_style="always" if quoted else "necessary")
    found = assess(read_predictions(path), attributes=["group"], settings=FEW, rules=RULES)
    assert found.subgroup_metrics.equals(WANT.subgroup_metrics)
    assert found.fairness_gaps.equals(WANT.fairness_gaps)


def test_values_of_a_clean_file_are_those_of_scikit_learn_and_fairlearn(tmp_path):
    clean = predictions(3_000, seed=7)
    clean.with_columns(pl.col("y_true").cast(pl.Int8)).write_csv(tmp_path / "p.csv")
    found = assess(read_predictions(tmp_path / "p.csv"), attributes=["group"], settings=FEW, threshold=0.5)
    assert found.notes.is_empty()
    test = clean.filter(split="test")
    rates = {"udr": false_negative_rate, "fpr": false_positive_rate}
    true, called, group = (
        one.to_numpy() for one in (test["y_true"], test["y_score"] >= 0.5, test["group"].cast(pl.String))
    )
    theirs = MetricFrame(metrics=rates, y_true=true, y_pred=called, sensitive_features=group)
    ours = {(level, metric): value for level, metric, value in found.subgroup_metrics.select(
        "subgroup", "metric", "value").iter_rows()}  # fmt: skip
    gaps = dict(found.fairness_gaps.select("metric", "gap").iter_rows())
    for level in theirs.by_group.index:
        of = test.filter(group=level)
        assert ours[level, "auroc"] == pytest.approx(roc_auc_score(of["y_true"], of["y_score"]), abs=1e-9)
        for metric in rates:
            assert ours[level, metric] == pytest.approx(theirs.by_group.loc[level, metric], abs=1e-9)
    for metric in rates:
        assert gaps[metric] == pytest.approx(theirs.difference()[metric], abs=1e-9)


def test_leading_zeros_are_other_patients(tmp_path):
    twice = pl.concat(
        [PLAIN, PLAIN.with_columns(study_id="0" + pl.col("study_id"), patient_id="0" + pl.col("patient_id"))]
    )
    codes = twice["patient_id"].str.replace_all(r"\D", "")
    twice.with_columns(patient_id=codes).write_csv(tmp_path / "p.csv")
    assert read_predictions(tmp_path / "p.csv")["patient_id"].n_unique() == codes.n_unique()


SECOND = PLAIN.with_columns(encoder=pl.lit("second"))
TWO = pl.concat([PLAIN.with_columns(encoder=pl.lit("first")), SECOND])


@pytest.mark.parametrize("column", ["group", "patient_id", "y_true"])
def test_models_that_contradict_each_other_are_refused(column):
    shifted = SECOND.with_columns(pl.col(column).reverse().over("split"))
    with pytest.raises(
        FairnessError, match=rf"contradict each other: .*{column} differs for .* \(.*rows: \d+"
    ) as raised:
        assess(pl.concat([TWO.filter(encoder="first"), shifted]), attributes=["group"], settings=FEW)
    assert PLAIN["patient_id"][0] not in str(raised.value)


@pytest.mark.parametrize("name", ["overall", "probe", "task", "encoder", "__row__"])
def test_reserved_names_are_no_attributes(name):
    with pytest.raises(FairnessError, match=f"{name} cannot be an attribute"):
        assess(PLAIN.with_columns(pl.col("group").alias(name)), attributes=[name], settings=FEW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"y_true": pl.when(pl.int_range(pl.len()) < 3).then(pl.lit("")).otherwise(pl.lit("1"))}, "3 rows blank or NaN (3"),
        ({"y_true": pl.when(pl.int_range(pl.len()) < 3).then(-1).otherwise(1)}, "3 rows -1, which means uncertain"),
        ({"y_true": pl.lit("maybe")}, "labels other than 0 and 1: 'maybe' (400 rows: 2, 3"),
        ({"y_score": pl.lit("76.4%")}, "y_score is not a number in 400 rows: 2, 3, 4, 5, 6 and 395 more: they end in a percent"),
        ({"y_score": pl.lit("0,5")}, "they have a decimal comma"),
        ({"patient_id": pl.lit("nan")}, "patient_id is missing in 400 rows"),
        ({"patient_id": pl.lit("1.23457E+15")}, "share a patient_id such as 1.2E+15 (400 rows"),
        ({"y_true": pl.when("y_true").then(1).otherwise(-1)}, "If -1 means negative, give --positive 1 --negative -1."),
        ({"y_score": pl.lit("#DIV/0!")}, "y_score is missing, NaN or infinite in 400 rows"),
        ({"encoder": pl.when(pl.int_range(pl.len()) != 4).then(pl.lit("m"))}, "encoder is missing in row 6"),
    ],
)  # fmt: skip
def test_a_cell_that_cannot_be_read_is_told_with_column_and_rows(tmp_path, change, said):
    PLAIN.head(400).with_columns(**change).write_csv(tmp_path / "p.csv")
    told = run(tmp_path)
    assert told.exit_code == 1
    assert said in " ".join(told.output.split())


def run(tmp_path, *arguments):
    command = [
        "assess",
        "--predictions",
        str(tmp_path / "p.csv"),
        "--attributes",
        "group",
        "--out",
        str(tmp_path / "out"),
    ]
    return CliRunner().invoke(main, [*command, "--permutations", "99", *arguments])


def test_what_was_read_otherwise_is_noted_in_terminal_page_and_python(tmp_path):
    few = pl.int_range(pl.len()) < 20
    frame = PLAIN.with_columns(
        y_true=pl.when(few).then(pl.lit("-1")).when("y_true").then(pl.lit("yes")).otherwise(pl.lit("no")),
        group=pl.col("group").replace({"unknown": None}),
    )
    frame.write_csv(tmp_path / "p.csv")
    found = assess(
        read_predictions(tmp_path / "p.csv"),
        attributes=["group"],
        settings=FEW,
        rules=PredictionRules(unlabelled="exclude"),
    )
    assert found.notes["note"].to_list() == [
        "y_true read from words",
        "y_true uncertain",
        "y_true has no label",
        "group not recorded",
    ]
    told = " ".join(run(tmp_path, "--unlabelled", "exclude").output.split())
    assert "y_true read from words: 2 words (positive: yes; negative: no)" in told
    assert "y_true has no label: 20 rows (excluded: 20 rows -1, which means uncertain)" in told
    assert "Notes on the files" in (tmp_path / "out" / "index.html").read_text()
    shown = repr(found)
    for sentence in note_sentences(found.notes):
        assert sentence in told
        assert sentence in shown
        assert sentence in found._repr_html_()
    assert assess(frame, attributes=["group"], settings=FEW, rules=PredictionRules(unlabelled="exclude")).notes.equals(
        found.notes
    )
    assert WANT.notes["note"].to_list() == ["group not recorded"]
    assert "notes" not in WANT.tables()


def test_blank_sources_count_as_given_and_an_attribute_named_twice_counts_once(tmp_path):
    PLAIN.with_columns(threshold=pl.lit("0.5"), threshold_source=pl.lit("")).write_csv(tmp_path / "p.csv")
    told = run(tmp_path, "--attributes", "group,group")
    assert told.exit_code == 0, told.output


def test_ids_that_differ_by_case_or_decimals_across_splits_are_told(tmp_path):
    first = {split: PLAIN.filter(split=split)["patient_id"][0] for split in ("val", "test")}
    for val, test in (("P7a", "p7A"), ("7", "7.0")):
        renamed = pl.col("patient_id").replace({first["val"]: val, first["test"]: test})
        found = assess(PLAIN.with_columns(renamed), attributes=["group"], settings=FEW)
        assert "they may be the same patient" in found.notes["detail"].to_list()


@pytest.mark.parametrize("name", ["n", "level", "value", "status", "rank", "gap", "count", "index"])
def test_an_attribute_may_have_the_name_of_a_number(name):
    found = assess(PLAIN.rename({"group": name}), attributes=[name], settings=FEW)
    want = WANT.subgroup_metrics.with_columns(pl.col("attribute").replace({"group": name}))
    assert found.subgroup_metrics.sort(want.columns[:9]).equals(want.sort(want.columns[:9]))


def test_rows_without_a_model_are_refused(tmp_path):
    TWO.with_columns(encoder=pl.col("encoder").replace("second", "")).write_csv(tmp_path / "p.csv")
    told = run(tmp_path)
    assert told.exit_code == 1
    assert "encoder is missing in" in " ".join(told.output.split())


def test_the_page_counts_studies_in_their_normal_form(tmp_path):
    frame = PLAIN.with_columns(
        split=pl.col("split").replace({"test": "Testing", "val": "validation"}),
        group=pl.col("group").replace({"unknown": "N/A"}),
        y_true=pl.when(pl.col("study_id") != PLAIN["study_id"][0]).then("y_true"),
    )
    frame.write_csv(tmp_path / "p.csv")
    told = run(tmp_path, "--unlabelled", "exclude")
    assert told.exit_code == 0, told.output
    counted = pl.read_csv(tmp_path / "out" / "cohort_counts.csv")
    assert set(counted["split"]) == {"test", "val"}
    assert set(counted["subgroup"]) == {*PLAIN["group"]}
    assert counted["n_studies"].sum() == PLAIN.height - 1


def test_codes_placeholders_and_people_that_change_are_told(tmp_path):
    twice = (
        PLAIN.filter(pl.col("patient_id").is_duplicated() & (pl.col("split") == "test"))["patient_id"].unique().sort()
    )
    sex = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("f")).otherwise(pl.lit("m"))
    frame = PLAIN.with_columns(
        sex=pl.when(pl.col("patient_id").is_in(twice[:3].to_list())).then(sex).otherwise(pl.lit("f"))
    )
    frame = frame.with_columns(sex=pl.when(pl.int_range(pl.len()) < 4).then(pl.lit("9")).otherwise("sex"))
    found = assess(frame, attributes=["sex", "group"], settings=FEW)
    notes = dict(found.notes.select("note", "n").iter_rows())
    assert notes["sex has levels that may be codes of not recorded"] == 4
    changing = frame.group_by("patient_id").agg(pl.col("sex").n_unique()).filter(pl.col("sex") > 1).height
    assert notes["sex differs between rows of one patient"] == changing > 0
    for codes in (pl.Series([-9999] * 2, dtype=pl.Int64), pl.Series(["-9999"] * 2)):
        rows = pl.concat([codes, pl.int_range(PLAIN.height - 2, eager=True).cast(codes.dtype)]).alias("patient_id")
        with pytest.raises(FairnessError, match="patient_id is missing in 2 rows: 1 and 2"):
            assess(PLAIN.with_columns(rows), attributes=["group"], settings=FEW)


def test_a_header_that_recurs_far_below_is_a_row_that_cannot_be_read(tmp_path):
    rows = PLAIN.write_csv().splitlines()
    (tmp_path / "p.csv").write_text("\n".join([*rows[:150], rows[0], *rows[150:]]))
    told = " ".join(run(tmp_path).output.split())
    assert "y_true holds labels other than 0 and 1: 'y_true' (row 151)" in told
