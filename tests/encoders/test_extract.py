"""Extraction: streamed, resumed after a kill to the very same rows, published whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import duckdb
import numpy as np
import pytest

from fmaudit_core.config import ExtractionSection
from fmaudit_core.encoders import adapter
from fmaudit_core.encoders.embeddings_reader import read_provenance, read_study_embeddings, stream_slice_embeddings
from fmaudit_core.encoders.errors import EncoderError, ExtractionError
from fmaudit_core.encoders.extract import extract
from fmaudit_core.encoders.registry import shipped_specs
from fmaudit_core.encoders.shards import planned_shards
from fmaudit_core.encoders.spec import load_spec
from fmaudit_core.imaging.errors import SliceStoreError

SPEC = load_spec(shipped_specs()["hu_histogram"])


class Source:
    """Slices drawn from the study's name; `s3` cannot be read."""

    def __init__(self, slices=40, broken=("s3",)):
        self.slices, self.broken, self.read_ids = slices, broken, []

    def read(self, study_id, view):
        self.read_ids.append(study_id)
        if study_id in self.broken:
            raise SliceStoreError("is truncated or corrupt.")
        rng = np.random.default_rng(int(study_id[1:]))
        return rng.integers(-1000, 1000, (self.slices + int(study_id[1:]) % 3, 1, 16, 16)).astype(np.int16)


def run(tmp_path, source=None, studies=None, version="v1", spec=SPEC, **options):
    return extract(
        spec,
        store=source or Source(),
        studies=studies or [f"s{i}" for i in range(40)],
        work=tmp_path / "work",
        out=tmp_path / "out" / "one.duckdb",
        section=ExtractionSection(),
        version=version,
        **options,
    )


def tables(path):
    with duckdb.connect(str(path), read_only=True) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            for name in ("study_embeddings", "slice_embeddings", "failed_studies")
        }


def test_studies_are_pooled_and_their_slices_kept(tmp_path):
    result = run(tmp_path)
    assert (result.n_studies, result.n_failed) == (39, 1)
    out = tmp_path / "out" / "one.duckdb"
    ids, mean = read_study_embeddings(out, "mean")
    _, highest = read_study_embeddings(out, "max")
    assert ids == sorted(f"s{i}" for i in range(40) if i != 3)
    want = adapter.load_encoder(SPEC).encode(Source().read("s7", SPEC.view))
    at = ids.index("s7")
    assert np.allclose(mean[at], want.mean(axis=0), atol=1e-6)
    assert np.array_equal(highest[at], want.max(axis=0))
    blocks = [(np.array(of.to_pylist()) == "s7", index, slices) for of, index, slices in stream_slice_embeddings(out)]
    place, slices = (np.concatenate([one[at][one[0]] for one in blocks]) for at in (1, 2))
    assert np.array_equal(slices[np.argsort(place)], want)
    told = read_provenance(out)
    assert told["version"] == "v1"
    assert told["n_failed"] == "1"
    assert tables(out)["failed_studies"] == [("s3", "is truncated or corrupt.")]


def test_nothing_is_published_where_an_encoder_gives_nan_or_another_dimension(tmp_path, monkeypatch):
    class Bad:
        device = "cpu"

        def __init__(self, value, dim):
            self.value, self.dim = value, dim

        def encode(self, slices):
            return np.full((len(slices), self.dim), self.value, np.float32)

    for encoder, said in ((Bad(np.nan, 80), "NaN or infinite"), (Bad(0.0, 79), "has 79 dimensions")):
        monkeypatch.setattr("fmaudit_core.encoders.extract.load_encoder", lambda spec, device, one=encoder: one)
        with pytest.raises(ExtractionError, match=said):
            run(tmp_path)
        assert not list((tmp_path / "out").glob("*"))


def test_all_studies_failing_is_an_error(tmp_path):
    with pytest.raises(ExtractionError, match="no study could be embedded"):
        run(tmp_path, Source(broken=("s1", "s2")), ["s1", "s2"])


def test_an_error_of_another_kind_in_the_reader_is_not_swallowed(tmp_path):
    class Broken(Source):
        def read(self, study_id, view):
            raise MemoryError

    with pytest.raises(MemoryError):
        run(tmp_path, Broken())


def test_killed_in_the_middle_it_makes_the_very_same_rows(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from tests.encoders.test_extract import Source, run
        class Slow(Source):
            def read(self, study_id, view):
                time.sleep(0.02)
                return super().read(study_id, view)
        run(Path(sys.argv[1]), Slow())
        """
    )
    work = tmp_path / "work" / SPEC.name / "v1"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) as process:
        while not list(work.glob("shard-000000-*.npz")):
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out" / "one.duckdb").exists()
    source = Source()
    run(tmp_path, source)
    assert 0 < len(source.read_ids) < 40  # finished shards were not read again
    run(tmp_path / "undisturbed")
    assert tables(tmp_path / "out" / "one.duckdb") == tables(tmp_path / "undisturbed" / "out" / "one.duckdb")
    assert not list((tmp_path / "work").iterdir())


def test_killed_while_publishing_the_old_file_stays_and_the_next_run_publishes(tmp_path):
    run(tmp_path, version="old")
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from fmaudit_core.encoders import extract
        from tests.encoders.test_extract import run
        extract.provenance = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        run(Path(sys.argv[1]), version="new")
        """
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode == -signal.SIGKILL
    out = tmp_path / "out" / "one.duckdb"
    assert read_provenance(out)["version"] == "old"
    source = Source()
    run(tmp_path, source, version="new")
    assert source.read_ids == []  # every shard was there
    assert read_provenance(out)["version"] == "new"


def test_a_file_that_holds_no_embeddings_is_named(tmp_path):
    (tmp_path / "x.duckdb").write_bytes(b"no database")
    with pytest.raises(EncoderError, match=r"x\.duckdb: is not a readable file of embeddings"):
        read_provenance(tmp_path / "x.duckdb")
    with pytest.raises(EncoderError, match="does not exist yet"):
        read_provenance(tmp_path / "y.duckdb")


def test_what_is_in_a_shard_depends_on_the_list_alone(tmp_path):
    studies = [f"s{i:02d}" for i in range(10)]
    shards = planned_shards(studies[::-1], 4)
    assert [shard.study_ids for shard in shards] == [tuple(studies[:4]), tuple(studies[4:8]), tuple(studies[8:])]
    assert shards == planned_shards(studies, 4)
    other = planned_shards(["r00", *studies[1:]], 4)
    assert [one.name == two.name for one, two in zip(shards, other, strict=True)] == [False, True, True]
    assert not {shard.name for shard in shards} & {shard.name for shard in planned_shards(studies, 3)}


def test_finished_shards_of_another_size_or_list_are_not_used(tmp_path):
    class Stopped(Source):
        def read(self, study_id, view):
            if len(self.read_ids) == 20:
                raise MemoryError
            return super().read(study_id, view)

    with pytest.raises(MemoryError):
        run(tmp_path, Stopped(), shard_studies=5)
    left = {path.stem for path in (tmp_path / "work").rglob("*.npz")}
    assert left
    assert left < {shard.name for shard in planned_shards([f"s{i}" for i in range(40)], 5)}
    source = Source()
    run(tmp_path, source, shard_studies=6)
    assert len(source.read_ids) == 40
    run(tmp_path / "undisturbed")
    assert tables(tmp_path / "out" / "one.duckdb") == tables(tmp_path / "undisturbed" / "out" / "one.duckdb")


class Together(Source):
    """A source that counts how often it opens a CT."""

    def read_views(self, study_id, views):
        slices = self.read(study_id, views[0])
        return [slices if view == SPEC.view else slices[::-1].copy() for view in views]


OTHER = SPEC.model_copy(update={"name": "reversed", "view": SPEC.view.model_copy(update={"stride": 2})})


def alone(tmp_path, spec=OTHER, **options):
    """Extract the second encoder by itself, of the slices that it gets together with the first one."""

    class Reversed(Source):
        def read(self, study_id, view):
            return super().read(study_id, view)[::-1].copy()

    run(tmp_path / "alone", Reversed(), spec=spec, **options)
    return tables(tmp_path / "alone" / "out" / "one.duckdb")


def test_encoders_that_are_stale_together_read_each_study_once(tmp_path):
    source = Together()
    run(tmp_path, source, also=[(OTHER, "v2")])
    assert sorted(source.read_ids) == sorted(f"s{i}" for i in range(40))
    first = tables(tmp_path / "out" / "one.duckdb")
    result = run(tmp_path, source, spec=OTHER, version="v2")
    assert len(source.read_ids) == 40
    assert (result.n_studies, result.n_failed, result.device) == (39, 1, "cpu")
    assert tables(tmp_path / "out" / "one.duckdb") == alone(tmp_path, version="v2")
    run(tmp_path, Source())
    assert first == tables(tmp_path / "out" / "one.duckdb")


def test_an_encoder_that_fails_along_with_another_leaves_it_alone_and_reports_by_itself(tmp_path, monkeypatch):
    class Failing:
        device = "cpu"

        def encode(self, slices):
            raise RuntimeError("is broken")

    def load(spec, device):
        if spec.name == "missing":
            raise ExtractionError("has no weights.", where=spec.name)
        return Failing() if spec.name == "broken" else adapter.load_encoder(spec, device)

    monkeypatch.setattr("fmaudit_core.encoders.extract.load_encoder", load)
    broken, missing = (OTHER.model_copy(update={"name": name}) for name in ("broken", "missing"))
    source = Together()
    run(tmp_path, source, also=[(broken, "v2"), (missing, "v2"), (OTHER, "v2")])
    assert not list((tmp_path / "work").glob("broken/**/*.npz"))
    for spec, message in ((broken, "fails on|failed on"), (missing, "has no weights")):
        with pytest.raises(ExtractionError, match=message):
            run(tmp_path, source, spec=spec, version="v2")
    before = len(source.read_ids)
    run(tmp_path, source, spec=OTHER, version="v2")
    assert len(source.read_ids) == before
    assert tables(tmp_path / "out" / "one.duckdb") == alone(tmp_path, version="v2")


def test_shards_that_another_encoder_has_are_not_made_again(tmp_path):
    source = Together()
    run(tmp_path, source, also=[(OTHER, "v2")])
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("reversed/**/*.npz")}
    assert len(made) == 3
    next(iter(made)).unlink()
    run(tmp_path, source, also=[(OTHER, "v2")], version="v3")
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("reversed/**/*.npz")}
    assert again.keys() == made.keys()
    assert sum(again[path] == made[path] for path in made) == 2
