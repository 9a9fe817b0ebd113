"""The contract of a root, on a folder and on a bucket: what is published is whole, one of many writers wins, nothing is lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import duckdb
import numpy as np
import polars as pl
import pytest

from fmaudit_core.encoders.embeddings_reader import (
    check_embeddings,
    read_poolings,
    read_provenance,
    read_slice_counts,
    read_study_embeddings,
    read_study_ids,
    stream_slice_embeddings,
)
from fmaudit_core.encoders.embeddings_writer import written_embeddings
from fmaudit_core.encoders.errors import EncoderError
from fmaudit_core.storage.atomic_write import PublishError, checked_before_publishing
from fmaudit_core.storage.bucket import Bucket, StoreError
from fmaudit_core.storage.claims import Claim
from fmaudit_core.storage.leases import LeaseLostError, Leases, LeaseTimes, Lookout
from fmaudit_core.storage.root import BucketRoot, FolderRoot
from fmaudit_core.storage.warehouse import Cell, WarehouseError
from tests.cluster import seaweedfs as store

pytestmark = pytest.mark.cluster

CELL = Cell("medsiglip", "pe")
WRITERS = 8


def rows(n, detail=""):
    notes = {"note": [f"c{at}" for at in range(n)], "n": range(n), "unit": ["rows"] * n, "detail": [detail] * n}
    return pl.DataFrame(notes, schema_overrides={"n": pl.Int64})


@pytest.fixture
def bucket(seaweedfs, prefix):
    return Bucket(prefix, store.ENDPOINT)


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    if request.param == "folder":
        return FolderRoot(tmp_path)
    return BucketRoot(request.getfixturevalue("bucket"), tmp_path / "reports")


def test_an_object_is_created_once_and_replaced_from_what_was_read(bucket):
    assert bucket.read_tagged("a/b") is None
    assert bucket.create("a/b", b"1")
    assert not bucket.create("a/b", b"2")
    content, tag = bucket.read_tagged("a/b")
    assert content == b"1"
    assert bucket.replace("a/b", b"3", tag)
    assert not bucket.replace("a/b", b"4", tag)
    assert not bucket.replace("a/none", b"4", tag)
    assert bucket.read("a/b") == b"3"
    assert bucket.read_range("a/b", 0, 1) == b"3"
    assert [(one.name, one.n_bytes) for one in bucket.list("a")] == [("a/b", 1)]
    bucket.remove(["a/b", "a/none"])
    assert bucket.read("a/b") is None
    assert list(bucket.list("a")) == []


def test_of_eight_writers_of_an_object_one_wins(bucket):
    with ThreadPoolExecutor(WRITERS) as pool:
        for name in range(4):
            at_once = threading.Barrier(WRITERS)

            def write(writer, name=name, at_once=at_once):
                at_once.wait()
                return bucket.create(f"won/{name}", f"{writer}".encode())

            won = list(pool.map(write, range(WRITERS)))
            assert sum(won) == 1
            assert bucket.read(f"won/{name}") == f"{won.index(True)}".encode()


def test_of_eight_holders_of_a_claim_one_wins_and_no_increment_is_lost(root):
    claims = root.claims
    assert claims.read("a/b") == Claim(0, None)

    def increment(writer):
        won = []
        while len(won) < 5:
            seen = claims.read("a/b")
            n = int((seen.holder or {}).get("n", "0"))
            if (number := claims.replace("a/b", seen.number, {"n": str(n + 1), "by": str(writer)})) is not None:
                won.append(number)
        return won

    with ThreadPoolExecutor(WRITERS) as pool:
        won = [number for of in pool.map(increment, range(WRITERS)) for number in of]
    assert len(set(won)) == WRITERS * 5
    last = claims.read("a/b")
    if isinstance(root, BucketRoot):  # in a folder a claim may be read before it is written, as one of a killed process
        assert (last.number, last.holder["n"]) == (WRITERS * 5, str(WRITERS * 5))
    assert list(claims.names()) == ["a/b"]
    claims.remove("a/b")
    claims.remove("a/b")
    assert list(claims.names()) == []


def test_a_claim_changes_only_from_what_was_seen(root):
    claims = root.claims
    assert claims.replace("a", 0, {"process": "x"}) == 1
    assert claims.replace("a", 0, {"process": "y"}) is None
    assert claims.replace("a", 1, None) == 2
    assert claims.replace("a", 1, {"process": "x"}) is None
    assert claims.read("a") == Claim(2, None)


def test_a_lease_that_was_taken_over_publishes_nothing(root):
    def leases(process):
        times = LeaseTimes(renew_s=30, expire_s=0.0, poll_s=0.01)
        return Leases(root.claims, lambda: {"process": process, "host": "node-7"}, lambda _: None, Lookout(times))

    warehouse = root.warehouse
    warehouse.publish("cohort_notes", rows(1), version="v1")
    lost = leases("one").take("step")
    with checked_before_publishing(lost.check):
        warehouse.publish("cohort_notes", rows(2), version="v2")
        assert leases("two").take("step") is not None
        with pytest.raises(LeaseLostError, match="step was taken over by node-7"):
            warehouse.publish("cohort_notes", rows(3), version="v3")
    assert (warehouse.version("cohort_notes"), warehouse.read("cohort_notes").height) == ("v2", 2)


def test_a_cell_is_published_read_and_listed(root):
    warehouse = root.warehouse
    assert warehouse.version("cohort_notes", CELL) is None
    assert warehouse.tables() == warehouse.cells("cohort_notes") == []
    with pytest.raises(WarehouseError, match=r"table cohort_notes \(medsiglip x pe\) has not been made yet"):
        warehouse.read("cohort_notes", CELL)
    with pytest.raises(WarehouseError, match="holds no table yet"), warehouse.connect():
        pass
    published = warehouse.publish("cohort_notes", rows(3), version="v1", cell=CELL)
    assert (published.n_rows, published.version) == (3, "v1")
    warehouse.publish("cohort_notes", rows(2), version="v2", cell=Cell("other", "pe"))
    assert warehouse.read("cohort_notes", CELL).equals(rows(3))
    assert warehouse.cells("cohort_notes") == [CELL, Cell("other", "pe")]
    assert warehouse.tables() == ["cohort_notes"]
    assert warehouse.read_cells("cohort_notes", [Cell("other", "pe"), CELL]).height == 5
    version = warehouse.versions()
    assert [version("cohort_notes", one) for one in (CELL, Cell("other", "pe"), Cell("none"))] == ["v1", "v2", None]
    with warehouse.connect() as connection:
        assert connection.sql("SELECT count(*), max(n) FROM cohort_notes").fetchall() == [(5, 2)]


def test_the_scores_of_before_are_kept_with_their_version(root):
    warehouse = root.warehouse
    warehouse.keep("cohort_notes", "previous_predictions", CELL, before="v1")  # nothing yet
    warehouse.publish("cohort_notes", rows(3), version="v1", cell=CELL)
    warehouse.keep("cohort_notes", "previous_predictions", CELL, before="v1")
    assert warehouse.version("previous_predictions", CELL) is None
    warehouse.keep("cohort_notes", "previous_predictions", CELL, before="v2")
    warehouse.publish("cohort_notes", rows(1), version="v2", cell=CELL)
    assert warehouse.version("previous_predictions", CELL) == "v1"
    assert warehouse.read("previous_predictions", CELL).equals(rows(3))


def test_a_reader_never_sees_half_a_table(root):
    """Versions of one length and one text each, published again and again while they are read by eight threads."""
    warehouse, ended = root.warehouse, threading.Event()
    warehouse.publish("cohort_notes", rows(1, "1"), version="1")

    def read(_):
        seen = set()
        while not ended.is_set():
            found = warehouse.read("cohort_notes")
            assert found.get_column("detail").to_list() == [str(found.height)] * found.height
            seen.add(found.height)
        return seen

    with ThreadPoolExecutor(WRITERS) as pool:
        readers = [pool.submit(read, one) for one in range(WRITERS)]
        try:
            for n in range(2, 20):
                warehouse.publish("cohort_notes", rows(n, str(n)), version=str(n))
        finally:
            ended.set()
        assert max(map(max, (one.result() for one in readers))) > 1


def test_of_two_that_publish_a_cell_at_once_the_later_is_refused(bucket):
    """The other one publishes between the first's look at the name and its swap."""
    first, second = (BucketRoot(bucket, None).warehouse for _ in range(2))

    def meanwhile():
        with ThreadPoolExecutor(1) as other:  # a thread has its own check
            other.submit(second.publish, "cohort_notes", rows(2), version="v2").result()

    with (
        checked_before_publishing(meanwhile),
        pytest.raises(PublishError, match="was published by another process meanwhile"),
    ):
        first.publish("cohort_notes", rows(1), version="v1")
    assert first.version("cohort_notes") == "v2"


def vectors(n, d, seed):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_embeddings_are_written_and_read(root):
    path, ids = root.warehouse.embeddings_path("medsiglip"), [f"s{at:02d}" for at in range(6)]
    assert not path.exists()
    with pytest.raises(EncoderError, match="does not exist yet"):
        read_poolings(path)
    means, top, slices = vectors(6, 4, 1), vectors(6, 4, 2), vectors(12, 4, 3)
    order = [3, 1, 5, 0, 2, 4]
    with written_embeddings(path, 4) as writer:
        for some in (order[:4], order[4:]):
            writer.add_studies("mean", [ids[at] for at in some], means[some])
            writer.add_studies("max", [ids[at] for at in some], top[some])
        with writer.together():
            writer.add_slices(ids, [2] * 6, slices)
        writer.add_failed(["torn"], ["it is torn"])
        writer.tell({"version": "v1", "encoder": "medsiglip"})
    assert path.exists()
    assert read_poolings(path) == ["max", "mean"]
    found, matrix = read_study_embeddings(path, "mean")
    assert found == ids
    assert matrix.tobytes() == means.tobytes()
    assert read_study_embeddings(path, "max")[1].tobytes() == top.tobytes()
    assert read_study_ids(path) == ids
    assert read_slice_counts(path) == dict.fromkeys(ids, 2)
    seen = {
        (study, int(at)): vector.tobytes()
        for names, index, block in stream_slice_embeddings(path, rows=5)
        for study, at, vector in zip(names.to_pylist(), index, block, strict=True)
    }
    assert seen == {(ids[at // 2], at % 2): slices[at].tobytes() for at in range(12)}
    check_embeddings(path, dim=4, studies=[*ids, "torn"])
    with pytest.raises(EncoderError, match="1 usable studies have no vector pooled by max"):
        check_embeddings(path, dim=4, studies=[*ids, "another"])
    told = read_provenance(path)
    assert (told["version"], told["n_studies"], told["n_slices"], told["n_failed"]) == ("v1", "6", "12", "1")
    root.warehouse.publish("cohort_notes", rows(1), version="v1")
    with root.warehouse.connect() as connection:
        asked = "SELECT count(*), sum(embedding[1]) FROM \"medsiglip\".study_embeddings WHERE pooling = 'max'"
        ((n, total),) = connection.sql(asked).fetchall()
        assert (n, total) == (6, pytest.approx(float(top[:, 0].sum()), rel=1e-5))
        assert connection.sql('SELECT reason FROM "medsiglip".failed_studies').fetchall() == [("it is torn",)]


def test_embeddings_of_volumes_have_no_slices_and_a_failed_write_publishes_nothing(root):
    path = root.warehouse.embeddings_path("volumes")
    with written_embeddings(path, 3) as writer:
        writer.add_studies("volume", ["a", "b"], vectors(2, 3, 1))
        writer.tell({"version": "v1"})
    with pytest.raises(RuntimeError, match="killed"), written_embeddings(path, 3) as writer:  # noqa: PT012
        writer.add_studies("volume", ["a"], vectors(1, 3, 2))
        raise RuntimeError("killed")
    assert read_slice_counts(path) == {}
    assert list(stream_slice_embeddings(path)) == []
    assert read_study_ids(path) == ["a", "b"]
    assert read_provenance(path)["version"] == "v1"


def test_many_rows_are_several_objects(bucket, monkeypatch):
    from fmaudit_core.storage import bucket_embeddings

    monkeypatch.setattr(bucket_embeddings, "_OBJECT_BYTES", 4096)
    path = BucketRoot(bucket, None).warehouse.embeddings_path("large")
    ids, matrix = [f"s{at:04d}" for at in range(1000)], vectors(1000, 16, 1)
    with written_embeddings(path, 16) as writer:
        for start in range(0, 1000, 100):
            writer.add_studies("mean", ids[start : start + 100], matrix[start : start + 100])
        writer.tell({"version": "v1"})
    assert len(path.pointer().objects) > 5
    found, read = read_study_embeddings(path, "mean")
    assert found == ids
    assert read.tobytes() == matrix.tobytes()


def test_the_report_is_published_page_last_and_fetched_on_another_machine(root, tmp_path):
    folder = root.reports
    for name in ("audit.json", "cards/a/README.md", "index.html"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    names = ["audit.json", "cards/a/README.md", "index.html"]
    root.publish_report([folder / name for name in names])
    assert {name for name in root.report_files() if "." in name} == set(names)
    if isinstance(root, BucketRoot):
        root.publish_report([folder / name for name in ("audit.json", "index.html")])
        other = BucketRoot(root.bucket, tmp_path / "another machine")
        other.fetch_report()
        assert (other.reports / "index.html").read_text() == "index.html"
        assert not (other.reports / "cards").exists()
    assert any(text.startswith(("reports/index.html", str(folder / "index.html"))) for text in root.seen())


def test_a_lost_object_is_stale_and_named(bucket):
    warehouse = BucketRoot(bucket, None).warehouse
    warehouse.publish("cohort_notes", rows(3), version="v1", cell=CELL)
    bucket.remove([one.name for one in warehouse.objects()])
    assert warehouse.versions()("cohort_notes", CELL) is None
    with pytest.raises(WarehouseError, match=r"is lost\. `fmaudit run` makes it again"):
        warehouse.read("cohort_notes", CELL)
    with pytest.raises(StoreError, match="an object that a table lists is lost"), warehouse.connect() as connection:
        connection.sql("SELECT * FROM cohort_notes").fetchall()


def test_a_query_reads_only_the_part_of_the_objects_that_it_needs(bucket, monkeypatch):
    warehouse = BucketRoot(bucket, None).warehouse
    path = warehouse.embeddings_path("wide")
    with written_embeddings(path, 512) as writer:
        writer.add_studies("mean", [f"s{at}" for at in range(2000)], vectors(2000, 512, 1))
        writer.tell({"version": "v1"})
    n_bytes = []
    whole = Bucket.read_range
    monkeypatch.setattr(Bucket, "read_range", lambda *of: n_bytes.append(of[3]) or whole(*of))
    assert len(read_study_ids(path)) == 2000
    assert sum(n_bytes) < 300_000 < sum(path.pointer().objects.values())


def test_an_error_of_a_query_stays_that_of_the_query(bucket):
    warehouse = BucketRoot(bucket, None).warehouse
    warehouse.publish("cohort_notes", rows(1), version="v1")
    with pytest.raises(duckdb.Error, match="nothing"), warehouse.connect() as connection:
        connection.sql("SELECT nothing FROM cohort_notes")
