"""Predictions computed elsewhere: every layout gives the same scores, what is wrong is told by row, nothing is guessed."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from fmaudit_core.encoders.errors import PredictionsFileError, SpecError
from fmaudit_core.encoders.spec import PredictionsFile, load_spec
from fmaudit_core.probes.baseline import baseline_scores, tasks_in
from fmaudit_core.tables.probes import BASELINE_JOINS

N = 60
RNG = np.random.default_rng(5)
LABELS = [bool(one) for one in RNG.random(N) < 0.4]
SCORES = [float(one) for one in np.round(RNG.random(N), 6)]
TIMES = [datetime(2019, 3, 1, 8, 30, 5) + timedelta(days=3 * i) for i in range(N)]
STUDIES = pl.DataFrame(
    {
        "study_id": [f"{1000 + i}" for i in range(N)],
        "patient_id": [f"{500 + i // 2}" for i in range(N)],
        "split": [("train", "val", "test", "test")[i // 2 % 4] for i in range(N)],
        "image_path": [f"CTPA/PE{i:08x}.nii.gz" for i in range(N)],
        "time": pl.Series(TIMES, dtype=pl.Datetime("us")),
    }
)
TRUTH = pl.DataFrame({"study_id": STUDIES["study_id"], "task": ["pe"] * N, "label": LABELS})


def ours(**changes):
    return pl.DataFrame({"study_id": STUDIES["study_id"], "y_score": SCORES} | changes)


def release(*, images=False, day=0, **changes):
    """INSPECT's layout: patient and time, or since April 2025 the image's id twice."""
    times = [f"{one - timedelta(days=day):%Y-%m-%d %H:%M:%S}" for one in TIMES]
    ids = [path[5:-7] for path in STUDIES["image_path"]]
    rows = {
        "patient_id": ids if images else STUDIES["patient_id"],
        "procedure_time": ids if images else times,
        "label": [float(one) for one in LABELS],
        "prob": SCORES,
    }
    return pl.DataFrame(rows | changes)


def written(folder, frame, name="pe_pred_proba.csv", task="pe"):
    path = folder / name
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return PredictionsFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), task=task)


def joined(folder, frame, studies=STUDIES, labels=TRUTH, **kind):
    return baseline_scores(written(folder, frame, **kind), studies, labels, baseline="ct-lrcn")


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize(
    ("frame", "by"),
    [
        (ours(), "study_id"),
        (release(), "patient and time"),
        (release(images=True), "image_id"),
        (release(day=1), "patient and time, a day early"),
    ],
)
def test_every_layout_gives_the_scores_of_the_same_studies(tmp_path, frame, by, name):
    found = joined(tmp_path, frame.sample(fraction=1.0, shuffle=True, seed=1), name=name)
    rows = STUDIES.with_columns(score=pl.Series(SCORES), label=pl.Series(LABELS)).filter(pl.col("split") != "train")
    expected = rows.sort("study_id")
    for name_, other in (("study_id", "study_id"), ("y_score", "score"), ("y_true", "label"), ("split", "split")):
        assert found.scores[name_].to_list() == expected[other].to_list()
    told = found.join.row(0, named=True)
    assert (told["joined_by"], told["threshold"]) == (by, "validation")
    assert told["n_rows"] == N
    assert (told["n_missed"], told["n_unscored"], told["n_train"]) == (0, 0, N - expected.height)
    assert found.scores.select("probe", "modality", "pooling", "strategy").unique().row(0) == (
        "given", "given", "given", "none",
    )  # fmt: skip


def test_ids_that_either_side_writes_as_decimals_join(tmp_path):
    """A spreadsheet makes 1000.0 of 1000: as it is written where that fits, and never to two studies."""
    decimal = STUDIES.with_columns(pl.col("study_id") + ".0")
    truth = TRUTH.with_columns(pl.col("study_id") + ".0")
    dotted = ours(study_id=decimal["study_id"])
    for studies, labels, frame in ((decimal, truth, ours()), (decimal, truth, dotted), (STUDIES, TRUTH, dotted)):
        found = joined(tmp_path, frame, studies, labels)
        assert found.join.select("n_missed", "n_unscored").row(0) == (0, 0)
    both = pl.concat([STUDIES, decimal.head(1).with_columns(patient_id=pl.lit("9"), split=pl.lit("test"))])
    labels = pl.concat([TRUTH, truth.head(1)])
    assert joined(tmp_path, ours(), both, labels).join["n_missed"].item() == 0
    unclear = joined(tmp_path, ours(study_id=STUDIES["study_id"] + ".00"), both, labels)
    assert unclear.join["n_missed"].item() == 1  # 1000.00 may be either of two


def test_a_day_early_is_the_way_of_embolism_alone(tmp_path):
    labels = TRUTH.with_columns(task=pl.lit("mortality_1m"))
    with pytest.raises(
        PredictionsFileError, match=r"too few of its \d+ rows are studies of this cohort \(0 by image_id, 0 by patient"
    ):
        joined(tmp_path, release(day=1), labels=labels, task="mortality_1m")


def test_what_is_missed_censored_and_unscored_is_counted(tmp_path):
    extra = pl.DataFrame({"study_id": ["9001", "9002"], "y_score": [0.1, 0.2]})
    held = STUDIES.filter(pl.col("split") != "train")["study_id"].to_list()
    frame = pl.concat([ours().filter(pl.col("study_id") != held[0]), extra])
    labels = TRUTH.with_columns(label=pl.when(study_id=held[1]).then(None).otherwise("label"))
    told = joined(tmp_path, frame, labels=labels).join.row(0, named=True)
    assert (told["n_missed"], told["n_unscored"], told["n_unlabelled"]) == (2, 1, 1)
    assert told["n_scored"] == len(held) - 2


def test_without_validation_studies_there_is_no_threshold(tmp_path):
    frame = ours().join(STUDIES.filter(split="test"), on="study_id", how="semi")
    found = joined(tmp_path, frame)
    assert not found.has_threshold
    assert set(found.scores["split"]) == {"test"}


def test_a_few_other_labels_are_counted_and_ours_are_taken(tmp_path):
    flipped = [not one if i in (2, 5) else one for i, one in enumerate(LABELS)]
    found = joined(tmp_path, release(label=[float(one) for one in flipped]))
    assert found.join.row(0, named=True)["n_labels_apart"] == 2
    ours_of = dict(zip(STUDIES["study_id"], LABELS, strict=True))
    assert all(ours_of[study] is label for study, label in found.scores.select("study_id", "y_true").iter_rows())


def test_an_image_that_two_studies_share_finds_neither(tmp_path):
    shared = STUDIES.with_columns(
        image_path=pl.when(study_id="1003").then(pl.lit("CTPA/PE00000002.nii.gz")).otherwise("image_path")
    )
    told = joined(tmp_path, release(images=True), studies=shared).join.row(0, named=True)
    assert told["n_missed"] == 2


WORSE = [not one if i < 4 else one for i, one in enumerate(LABELS)]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pl.concat([ours(), ours()[4:5]]), r"^x\.csv: Rows 6 and 62: a study is scored more than once"),
        (pl.concat([release(), release()[:1]]), r"Rows 2 and 62: a study is scored more than once"),
        (ours(y_score=[None, *SCORES[1:]]), r"Row 2: the score is not a number"),
        (ours(y_score=["high", *map(str, SCORES[1:])]), r"Row 2: the score is not a number"),
        (ours(y_score=[float("inf"), *SCORES[1:]]), r"Row 2: the score is not a number"),
        (ours(study_id=[None, *STUDIES["study_id"][1:]]), r"Row 2: no id"),
        (ours().rename({"y_score": "guess"}), r"column y_score is missing \(also known as prob, score, probability\)"),
        (ours().rename({"study_id": "accession"}), r"column patient_id is missing.*Give study_id and y_score"),
        (ours(study_id=[f"x{i}" for i in range(N)]), r"none of its 60 studies is among the cohort's 60 studies"),
        (release(procedure_time=["2001-01-01"] * N), r"more than once|too few of its 60 rows are studies"),
        (release(label=[float(one) for one in WORSE]), r"4 of 60 labels differ from this cohort's"),
        (ours(y_score=[0.5] * N), r"every study has the same score"),
        (ours(task=["mortality_1m"] * N), r"has no rows for the task pe"),
    ],
)
def test_what_is_wrong_is_told_by_row_and_nobody_is_named(tmp_path, frame, said):
    with pytest.raises(PredictionsFileError, match=said) as told:
        joined(tmp_path, frame, name="x.csv")
    assert not any(one in str(told.value) for one in (*STUDIES["study_id"], "PE0000"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda text: text.replace("\n", "\n# r\u00e9sum\u00e9,1\n", 1).encode("cp1252"),
            r"^x\.csv: line 2 is not UTF-8",
        ),
        (lambda text: text.replace(",", ',"', 1).encode(), "line 1 has a quotation mark without a partner"),
        (lambda text: b"PK\3\4" + text.encode(), "is not CSV but an Excel workbook"),
        (
            lambda text: text.replace("\n", ",0.5\n").replace(",0.5\n", "\n", 1).encode(),
            "Rows 2, 3, 4, 5, 6 and 55 more: more cells",
        ),
    ],
)
def test_bytes_that_would_be_misread_are_told_by_line(tmp_path, change, said):
    path = tmp_path / "x.csv"
    path.write_bytes(change(ours().write_csv()))
    file = PredictionsFile(path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), task="pe")
    with pytest.raises(PredictionsFileError, match=said):
        baseline_scores(file, STUDIES, TRUTH, baseline="x")


def test_blanks_around_names_do_not_matter(tmp_path):
    want = joined(tmp_path, ours()).scores
    assert joined(tmp_path, ours().rename({"study_id": " Study_ID", "y_score": "y_score "})).scores.equals(want)


def test_test_studies_of_one_class_are_refused(tmp_path):
    labels = TRUTH.with_columns(label=pl.lit(value=True))
    with pytest.raises(PredictionsFileError, match=r"positives and 0 negatives in the test split"):
        joined(tmp_path, ours(), labels=labels)


def test_a_pickle_is_never_opened_and_another_file_is_told(tmp_path):
    file = written(tmp_path, ours())
    pickle = tmp_path / "scores.pkl"
    pickle.write_bytes(b"cos\nsystem\n")
    with pytest.raises(PredictionsFileError, match="A pickle is never opened"):
        baseline_scores(file.model_copy(update={"path": pickle}), STUDIES, TRUTH, baseline="x")
    ours(y_score=SCORES[::-1]).write_csv(file.path)
    with pytest.raises(PredictionsFileError, match="not the file named in the spec"):
        baseline_scores(file, STUDIES, TRUTH, baseline="x")
    file.path.unlink()
    with pytest.raises(PredictionsFileError, match="does not exist"):
        baseline_scores(file, STUDIES, TRUTH, baseline="x")


def test_a_file_of_several_tasks_is_read_task_by_task(tmp_path):
    two = pl.concat([ours(task=["pe"] * N), ours(y_score=SCORES[::-1], task=["mortality_1m"] * N)])
    file = written(tmp_path, two, name="both.csv")
    assert tasks_in(file.path) == ["mortality_1m", "pe"]
    assert baseline_scores(file, STUDIES, TRUTH, baseline="x").scores["y_score"].to_list()[0] in SCORES
    assert baseline_scores(file, STUDIES, TRUTH, baseline="x").join.schema == BASELINE_JOINS.schema


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: lrcn\nadapter: predictions\n", r"is required for `adapter: predictions`"),
        ("name: lrcn\nadapter: timm\ndim: 0\n", r"`dim` must be 1 or more"),
        ("name: lrcn\nadapter: predictions\ndim: 5\npredictions: [{task: pe, path: a.csv, sha256: '%s'}]\n", "`dim`"),
        ("name: lrcn\nadapter: predictions\npredictions: [&, &]\n".replace("&", "{task: pe, path: a, sha256: '%s'}"),
         "names a task twice"),
    ],
)  # fmt: skip
def test_a_wrong_spec_is_told(tmp_path, text, said):
    path = tmp_path / "lrcn.yaml"
    path.write_text(text.replace("%s", "0" * 64))
    with pytest.raises(SpecError, match=said):
        load_spec(path)


def test_a_spec_of_predictions_needs_no_dimension_and_its_digest_is_of_content(tmp_path):
    path = tmp_path / "lrcn.yaml"
    path.write_text(
        f"name: lrcn\nadapter: predictions\npredictions: [{{task: pe, path: a.csv, sha256: '{'1' * 64}'}}]\n"
    )
    spec = load_spec(path)
    assert (spec.dim, spec.embeds, spec.sees_images, spec.poolings) == (0, False, False, ())
    assert spec.tasks_of(("mortality_1m", "pe")) == ["pe"]
    assert spec.predictions[0].path == tmp_path / "a.csv"
    moved = spec.model_copy(
        update={"predictions": (spec.predictions[0].model_copy(update={"path": tmp_path / "b.csv"}),)}
    )
    other = spec.model_copy(update={"predictions": (spec.predictions[0].model_copy(update={"sha256": "2" * 64}),)})
    assert moved.digest() == spec.digest() != other.digest()
