"""Slices on disk come back as they were: whose they are, in order, padded under a mask; components know training only."""

from __future__ import annotations

import numpy as np
import pytest

from fmaudit_core.encoders.embeddings_reader import read_slice_counts, stream_slice_embeddings
from fmaudit_core.probes.errors import ProbeError
from fmaudit_core.probes.slice_store import evenly, principal_components, slice_bags
from tests.probes.slices import planted


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    path = tmp_path_factory.mktemp("bags") / "e.duckdb"
    return path, *planted(path, n=120, d=10)


def opened(cohort, folder, **changes):
    path, studies, _, _ = cohort
    train = studies.filter(split="train")["study_id"].to_list()
    options = {"components": 0, "most_slices": 250, "folder": folder} | changes
    return slice_bags(path, studies["study_id"].to_list(), train, **options)


def expected_components(cohort):
    """scikit-learn's standardisation and PCA of the training slices, brought to mean square 1."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    _, studies, _, bags = cohort
    rows = np.concatenate([bags[one] for one in studies.filter(split="train")["study_id"]]).astype(float)
    scaler = StandardScaler().fit(rows)
    pca = PCA(svd_solver="full").fit(scaler.transform(rows))
    level = np.sqrt(pca.explained_variance_[: rows.shape[1]].mean())
    return lambda x, k: pca.transform(scaler.transform(x.astype(float)))[:, :k] / level, pca


def test_every_slice_comes_back_in_its_place(cohort, tmp_path):
    _, studies, _, bags = cohort
    project, _ = expected_components(cohort)
    with opened(cohort, tmp_path) as read:
        assert list(read.study_ids) == studies["study_id"].to_list()
        rows = np.array([3, 0, 77])
        x, mask = read.batch(rows)
    for one, shown, row in zip(x, mask, rows, strict=True):
        mine = bags[studies["study_id"][int(row)]]
        assert shown.tolist() == [True] * len(mine) + [False] * (x.shape[1] - len(mine))
        assert not one[len(mine) :].any()
        # the sign of a component is anybody's choice
        assert np.abs(one[: len(mine)]) == pytest.approx(np.abs(project(mine, 10)), abs=8e-3)


def test_components_are_the_first_of_a_pca_of_the_training_slices(cohort, tmp_path):
    _, pca = expected_components(cohort)
    with opened(cohort, tmp_path, components=4) as read:
        assert read.width == 4
        assert read.explained == pytest.approx(pca.explained_variance_ratio_[:4].sum(), abs=1e-4)


def test_components_do_not_know_validation_and_test(cohort):
    path, studies, _, _ = cohort
    train = studies.filter(split="train")["study_id"].to_list()
    of_all = principal_components(stream_slice_embeddings(path), train, 5)

    def train_alone():
        for ids, index, embeddings in stream_slice_embeddings(path):
            names = np.array(ids.to_pylist())
            moved = embeddings.copy()
            moved[~np.isin(names, train)] = 1e6
            yield ids, index, moved

    again = principal_components(train_alone(), train, 5)
    assert np.array_equal(of_all.axes, again.axes)


def test_long_studies_give_evenly_spaced_slices(cohort, tmp_path):
    assert evenly(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert evenly(9, 3).tolist() == [0, 4, 8]
    path, studies, _, bags = cohort
    with opened(cohort, tmp_path) as whole, opened(cohort, tmp_path, most_slices=6) as capped:
        assert capped.counts.max() == 6
        assert dict(zip(capped.study_ids, capped.n_slices, strict=True)) == read_slice_counts(path)
        row = int(np.argmax(capped.n_slices))
        kept = evenly(len(bags[studies["study_id"][row]]), 6)
        assert np.array_equal(capped.batch(np.array([row]))[0][0], whole.batch(np.array([row]))[0][0][kept])


def test_nothing_is_left_on_disk_and_a_slice_that_is_not_finite_is_refused(cohort, tmp_path):
    with opened(cohort, tmp_path):
        assert list(tmp_path.iterdir()) == []  # the file has no name even while it is read
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / "bad.duckdb"
    studies, _, _ = planted(path, n=60, d=4, strength=np.inf)
    train = studies.filter(split="train")["study_id"].to_list()
    with pytest.raises(ProbeError, match="NaN or infinite"), slice_bags(
        path, studies["study_id"].to_list(), train, components=0, most_slices=9, folder=tmp_path
    ):  # fmt: skip
        pass


def test_memory_does_not_grow_with_the_slices(tmp_path):
    """A file of 80 MB is streamed in pieces: what is held at once is a fraction of it."""
    import tracemalloc

    path = tmp_path / "large.duckdb"
    studies, _, _ = planted(path, n=1_600, d=640, length=(19, 21))
    train = studies.filter(split="train")["study_id"].to_list()
    assert path.stat().st_size > 60e6
    tracemalloc.start()
    with slice_bags(path, studies["study_id"].to_list(), train, components=32, most_slices=250, folder=tmp_path):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 35e6 + 4 * 8 * 640 * 640
