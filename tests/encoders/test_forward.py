"""Throughput and bad days: batches across studies, work that overlaps, memory that runs out, studies that fail."""

from __future__ import annotations

import threading
import tracemalloc
import weakref
from functools import partial

import duckdb
import numpy as np
import pytest
import torch

from fmaudit_core.config import ExtractionSection
from fmaudit_core.encoders.batch_trial import fastest_batch
from fmaudit_core.encoders.embeddings_reader import (
    check_embeddings,
    read_poolings,
    read_provenance,
    read_study_embeddings,
    stream_slice_embeddings,
)
from fmaudit_core.encoders.errors import ExtractionError
from fmaudit_core.encoders.extract import extract
from fmaudit_core.encoders.spec import EncoderSpec
from fmaudit_core.imaging.window import View

SPEC = EncoderSpec(name="fake", adapter="fake", dim=3, batch_size=8)
VOLUMES = SPEC.model_copy(
    update={"view": View.model_validate({"values": "int16", "volume": {"shape_zyx": [5, 4, 4]}}), "batch_size": 4}
)
BOTH = pytest.mark.parametrize("device", ["cpu", "cuda:0"])


class Fake:
    """Embeds a slice or volume as its mean, maximum and first value; remembers its batches."""

    def __init__(self, device="cpu", most=None, poison=None, how="nan"):
        self.device, self.most, self.poison, self.how = device, most, poison, how
        self.batches = []

    def encode(self, slices):
        self.batches.append(len(slices))
        if self.most is not None and len(slices) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        flat = slices.reshape(len(slices), -1).astype(np.float32)
        out = np.stack([flat.mean(1), flat.max(1), flat[:, 0]], axis=1)
        bad = flat[:, 0] == self.poison
        if bad.any() and isinstance(self.how, Exception):
            raise self.how
        out[bad] = np.nan
        return out


class Source:
    """Study `s7` has 3 + 7 % 4 slices of value 7, or a volume of them."""

    def __init__(self):
        self.alive, self.most_alive, self.read_ids = weakref.WeakValueDictionary(), 0, []

    def read(self, study_id, view):
        self.read_ids.append(study_id)
        number = int(study_id[1:])
        shape = (5, 1, 4, 4) if view.volume is not None else (3 + number % 4, 1, 4, 4)
        found = np.full(shape, number, np.int16)
        self.alive[study_id] = found
        self.most_alive = max(self.most_alive, len(self.alive))
        return found


@pytest.fixture
def run(tmp_path, monkeypatch):
    def run(encoder, n=20, spec=SPEC, source=None, section=None):
        monkeypatch.setattr("fmaudit_core.encoders.extract.load_encoder", lambda *_: encoder)
        out = tmp_path / "out.duckdb"
        result = extract(
            spec,
            store=source or Source(),
            studies=[f"s{i:03d}" for i in range(n)],
            work=tmp_path / "work",
            out=out,
            section=section or ExtractionSection(),
            version="v",
        )
        return result, out

    return run


def embedded(out, pooling="mean"):
    ids, vectors = read_study_embeddings(out, pooling)
    return dict(zip(ids, vectors.tolist(), strict=True))


def failures(out):
    with duckdb.connect(str(out), read_only=True) as connection:
        return connection.execute("SELECT * FROM failed_studies ORDER BY ALL").fetchall()


@BOTH
def test_batches_cross_studies(run, device):
    encoder = Fake(device)
    result, out = run(encoder)
    assert sorted(encoder.batches, reverse=True) == [8] * 11 + [2]  # 90 slices of 20 studies
    assert (result.n_studies, result.n_slices, result.batch_size) == (20, 90, "8")
    assert embedded(out) == {f"s{i:03d}": [i, i, i] for i in range(20)}


@BOTH
def test_where_memory_runs_out_the_batch_is_halved_and_it_goes_on(run, device):
    encoder = Fake(device, most=3)
    result, out = run(encoder)
    assert result.batch_size == "8 > 2"  # 8 and 4 are too many
    assert read_provenance(out)["batch_size"] == "8 > 2"
    assert encoder.batches.count(8) <= 3  # those on their way
    assert embedded(out) == {f"s{i:03d}": [i, i, i] for i in range(20)}
    assert failures(out) == []


def test_where_even_one_slice_is_too_much_nothing_is_published(run):
    with pytest.raises(ExtractionError, match=r"16 studies in a row \(OutOfMemoryError"):
        run(Fake(most=0), n=40)


def test_a_cpu_that_runs_out_of_memory_halves_too(run):
    class Full(Fake):
        def encode(self, slices):
            if len(slices) > 4:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
            return super().encode(slices)

    assert run(Full())[0].batch_size == "8 > 4"


@BOTH
@pytest.mark.parametrize(
    ("how", "said"),
    [(ValueError("a bad layer"), "ValueError: a bad layer"), ("nan", "the encoder gives NaN or infinite values")],
)
def test_a_study_that_fails_is_set_aside_with_its_error_and_the_others_go_on(run, device, how, said):
    result, out = run(Fake(device, poison=7, how=how))
    assert failures(out) == [("s007", said)]
    assert (result.n_studies, result.n_failed) == (19, 1)
    assert embedded(out) == {f"s{i:03d}": [i, i, i] for i in range(20) if i != 7}
    check_embeddings(out, dim=3, studies=[f"s{i:03d}" for i in range(20)])


def test_where_a_device_dies_in_the_middle_what_was_finished_is_kept(run, tmp_path):
    class Dying(Fake):
        def encode(self, slices):
            if slices.max() >= 130:
                raise RuntimeError("device lost")
            return super().encode(slices)

    with pytest.raises(ExtractionError, match=r"16 studies in a row \(RuntimeError: device lost\)"):
        run(Dying(), n=400)
    assert not (tmp_path / "out.duckdb").exists()
    source = Source()
    result, _ = run(Fake(), n=400, source=source)
    assert min(source.read_ids) > "s100"
    assert result.n_studies == 400


def test_an_encoder_of_volumes_is_not_pooled(run):
    encoder = Fake()
    result, out = run(encoder, spec=VOLUMES, n=10)
    assert encoder.batches == [4, 4, 2]
    assert (result.n_studies, result.n_slices) == (10, 0)
    assert read_poolings(out) == ["volume"]
    assert embedded(out, "volume") == {f"s{i:03d}": [i, i, i] for i in range(10)}
    check_embeddings(out, dim=3, studies=[f"s{i:03d}" for i in range(10)])


def test_studies_are_read_while_the_encoder_works(run):
    read_later = threading.Event()

    class Watched(Source):
        def read(self, study_id, view):
            if study_id == "s004":
                read_later.set()
            return super().read(study_id, view)

    class Waiting(Fake):
        def encode(self, slices):
            assert read_later.wait(20)
            return super().encode(slices)

    run(Waiting(), source=Watched())


def test_on_a_gpu_the_next_batch_is_on_its_way_while_one_is_computed(run):
    second = threading.Barrier(2, timeout=20)

    class Together(Fake):
        calls = 0

        def encode(self, slices):
            self.calls += 1
            if self.calls <= 2:
                second.wait()
            return super().encode(slices)

    encoder = Together("cuda:0")
    _, out = run(encoder)
    assert embedded(out) == {f"s{i:03d}": [i, i, i] for i in range(20)}


@BOTH
@pytest.mark.parametrize("spec", [SPEC, VOLUMES], ids=["slices", "volumes"])
def test_few_studies_are_in_memory_however_many_there_are(run, device, spec, tmp_path):
    most = []
    for n in (60, 600):
        source = Source()
        run(Fake(device), n=n, spec=spec, source=source)
        most.append(source.most_alive)
    assert most[1] <= most[0] + 2
    assert most[1] < 40


@pytest.mark.parametrize("how", ["nan", ValueError("device lost")], ids=["nan", "error"])
def test_a_device_that_dies_at_the_end_of_a_shard_makes_no_failed_studies(run, tmp_path, how):
    class Dying(Fake):
        def encode(self, slices):
            if slices.max() >= 14:
                self.poison = slices.reshape(len(slices), -1)[:, 0]
            return super().encode(slices)

    with pytest.raises(ExtractionError, match="fails on an image that it encoded before too"):
        run(Dying(how=how), n=40)
    result, out = run(Fake(), n=40)
    assert (result.n_studies, failures(out)) == (40, [])


def test_a_device_that_is_dead_from_the_start_makes_no_failed_studies(run):
    with pytest.raises(ExtractionError, match="fails on an empty image too"):
        run(Fake(most=0), n=3)
    assert run(Fake(), n=3)[0].n_studies == 3


PATCHES = VOLUMES.model_copy(
    update={
        "view": View.model_validate(
            {"values": "int16", "volume": {"shape_zyx": [8, 8, 8], "patch_zyx": [4, 4, 4], "overlap": 0.5}}
        )
    }
)


class Ramps(Source):
    """A volume in which every voxel has another value."""

    def read(self, study_id, view):
        self.read_ids.append(study_id)
        return (np.arange(8**3) + int(study_id[1:])).reshape(8, 1, 8, 8).astype(np.int16)


@BOTH
def test_patches_are_embedded_as_slices_are(run, device):
    encoder = Fake(device)
    result, out = run(encoder, n=5, spec=PATCHES, source=Ramps())
    assert (result.n_studies, result.n_slices) == (5, 5 * 27)
    assert max(encoder.batches) == 4
    assert read_poolings(out) == ["max", "mean", "median"]
    volume = Ramps().read("s003", PATCHES.view)
    patches = [volume[z : z + 4, 0, y : y + 4, x : x + 4] for z in (0, 2, 4) for y in (0, 2, 4) for x in (0, 2, 4)]
    want = np.array([[one.mean(), one.max(), one[0, 0, 0]] for one in patches], np.float32)
    rows = [(index, vector) for of, index, vector in stream(out) if of == "s003"]
    assert np.array_equal(np.array([vector for _, vector in sorted(rows, key=lambda row: row[0])]), want)
    assert embedded(out, "mean")["s003"] == pytest.approx(want.mean(axis=0).tolist())
    assert embedded(out, "max")["s003"] == want.max(axis=0).tolist()
    check_embeddings(out, dim=3, studies=[f"s{i:03d}" for i in range(5)])


def stream(out):
    return [
        (of, int(at), vector)
        for ids, index, vectors in stream_slice_embeddings(out)
        for of, at, vector in zip(ids.to_pylist(), index, vectors, strict=True)
    ]


def test_patches_of_a_stopped_extraction_are_resumed_to_the_same_rows(run):
    class Stopped(Ramps):
        def read(self, study_id, view):
            if len(self.read_ids) == 40:
                raise MemoryError
            return super().read(study_id, view)

    with pytest.raises(MemoryError):
        run(Fake(), n=60, spec=PATCHES, source=Stopped())
    again = Ramps()
    _, out = run(Fake(), n=60, spec=PATCHES, source=again)
    assert 0 < len(again.read_ids) < 60
    resumed = sorted((of, at, tuple(vector)) for of, at, vector in stream(out))
    out.unlink()
    _, out = run(Fake(), n=60, spec=PATCHES, source=Ramps())
    assert sorted((of, at, tuple(vector)) for of, at, vector in stream(out)) == resumed


def test_memory_holds_volumes_and_batches_but_not_all_patches(run):
    class Large(Source):
        def read(self, study_id, view):
            return np.ones((48, 1, 64, 64), np.int16)

    grid = {"shape_zyx": [48, 64, 64], "patch_zyx": [8, 16, 16], "overlap": 0.75}
    spec = VOLUMES.model_copy(update={"view": View.model_validate({"values": "int16", "volume": grid})})
    volume_bytes, patches_bytes = 2 * 48 * 64 * 64, 21 * 13 * 13 * 2 * 8 * 16 * 16
    assert patches_bytes > 30 * volume_bytes
    run(Fake(), n=1, spec=spec, source=Large())  # what is imported is not counted
    tracemalloc.start()
    try:
        result, _ = run(Fake(), n=3, spec=spec, source=Large())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.n_slices == 3 * 21 * 13 * 13
    assert peak < 15 * volume_bytes


def test_a_patch_that_fails_fails_its_study_alone(run):
    # patches start at multiples of 2: of the volume that starts at 1, one starts with 1 + 64 * 2 + 8 * 4 + 2
    result, out = run(Fake(poison=163, how=ValueError("odd")), n=3, spec=PATCHES, source=Ramps())
    assert failures(out) == [("s001", "ValueError: odd")]
    assert (result.n_studies, result.n_slices) == (2, 2 * 27)


@BOTH
def test_where_memory_runs_out_patches_are_halved_too(run, device):
    result, out = run(Fake(device, most=1), n=3, spec=PATCHES, source=Ramps())
    assert result.batch_size == "4 > 1"
    assert result.n_slices == 3 * 27
    assert failures(out) == []


class Timed(Fake):
    """A GPU that takes one second per batch, and more per slice beyond 20 of them; its clock is that of the work done."""

    def __init__(self, **options):
        super().__init__("cuda:0", **options)
        self.now = 0.0

    def encode(self, slices):
        out = super().encode(slices)
        self.now += 1.0 + 0.1 * max(0, len(slices) - 20)
        return out


def test_the_fastest_batch_is_found_by_doubling_while_it_pays():
    gpu, items = Timed(), np.zeros((3, 1, 4, 4), np.int16)

    def passes(batch):
        gpu.encode(batch)
        return True

    # 8, 16 and 32 slices take 1, 1 and 2.2 seconds: 32 are slower per slice than 16
    assert fastest_batch(passes, items, 8, clock=lambda: gpu.now) == 16
    assert gpu.batches == [8, 8, 16, 16, 32, 32]
    gpu = Timed()
    assert fastest_batch(lambda batch: len(batch) <= 8 and passes(batch), items, 4, clock=lambda: gpu.now) == 8
    assert fastest_batch(lambda batch: False, items, 4) == 4


def test_a_gpu_finds_its_batch_once_and_a_cpu_keeps_the_specs(run, monkeypatch):
    gpu = Timed(most=16)
    monkeypatch.setattr("fmaudit_core.encoders.forward.fastest_batch", partial(fastest_batch, clock=lambda: gpu.now))
    result, out = run(gpu, n=60, section=ExtractionSection(batch_size="auto"))
    assert result.batch_size == "16"
    assert read_provenance(out)["batch_size"] == "16"
    assert gpu.batches[:5] == [8, 8, 16, 16, 32]  # 32 do not fit
    assert max(gpu.batches[5:]) == 16
    assert gpu.batches.count(16) > 10
    assert embedded(out) == {f"s{i:03d}": [i, i, i] for i in range(60)}
    cpu = Fake()
    result, _ = run(cpu, section=ExtractionSection(batch_size="auto"))
    assert result.batch_size == "8"
