"""The Ray engine on two nodes: the rows of one machine, whatever dies; nothing reachable from outside; flat memory."""

from __future__ import annotations

import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import duckdb
import polars as pl
import pytest

from fmaudit_core.cohort.phantom.writer import write_phantom
from fmaudit_core.config import ExtractionSection, PhantomCohort
from fmaudit_core.encoders.extract import extract
from fmaudit_core.imaging.slices import SliceStore
from tests.cluster import ray_namespace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]
N_STUDIES = 60
#: what a driver prints: embedded, and failed
ALL = f"{N_STUDIES - 1} 1"


@pytest.fixture(scope="module")
def nodes():
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'fmaudit[ray]'")
    found = ray_namespace.way()
    if found is None:
        pytest.skip("no network namespace can be made here (`unshare -n`), and Ray must not listen outside one")
    with ray_namespace.cluster(*found) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A phantom, its slices, and the tables that one machine makes of it."""
    from tests.cluster.ray_drivers import SPEC, Broken, broken, images_of

    root = tmp_path_factory.mktemp("phantom")
    section = PhantomCohort(kind="phantom", n_studies=N_STUDIES, matrix_px=64, n_slices=12)
    write_phantom(root, section, tasks=("pe",), workers=1)
    store = SliceStore(root / "slices")
    store.build(images_of(root), [SPEC.view], workers=1).write_parquet(root / "quality.parquet")
    extract(
        SPEC, store=Broken(store, broken(root)), studies=[study for study, _ in images_of(root)], work=root / "extraction",
        out=root / "local.duckdb", section=ExtractionSection(), version="v",
    )  # fmt: skip
    return root


def tables(path):
    with duckdb.connect(str(path), read_only=True) as connection:
        return {
            name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall()
            for name in ("study_embeddings", "slice_embeddings", "failed_studies")
        }


def of_slices(store: Path):
    return {path.relative_to(store): path.read_bytes() for path in sorted(store.rglob("*.slices"))}


def pids(home: Path, kind: str) -> list[int]:
    found = sorted((home / "trace").glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime_ns)
    return [int(path.name.split("-")[1]) for path in found]


def reads(home: Path) -> list[str]:
    return [line for path in (home / "trace").glob("slicer-*") for line in path.read_text().split()]


def wait_for_shards(home: Path, process, at_least: int) -> set[str]:
    while len(found := {path.name for path in home.glob("extraction/*/v/*.npz")}) < at_least:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    return found


@pytest.fixture
def home(tmp_path, phantom):
    """A workspace whose slices are those of the phantom."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "slices").symlink_to(phantom / "slices")
    return home


def only_records(home: Path, phantom: Path) -> None:
    """Leave the home the records of quality, without slices."""
    (home / "slices").unlink()
    (home / "slices").mkdir()
    (home / "slices" / "quality").symlink_to(phantom / "slices" / "quality")


def test_series_read_on_the_cluster_are_those_of_one_machine(nodes, phantom, tmp_path):
    nodes.run("slices", phantom, tmp_path / "home")
    assert of_slices(tmp_path / "home" / "slices") == of_slices(phantom / "slices")
    assert pl.read_parquet(tmp_path / "home" / "quality.parquet").equals(pl.read_parquet(phantom / "quality.parquet"))


@pytest.mark.parametrize("how", ["kept", "not kept"])
def test_rows_are_those_of_one_machine_bit_for_bit(nodes, phantom, home, tmp_path, how):
    if how == "not kept":
        only_records(home, phantom)
    assert nodes.run("embed", phantom, home, tmp_path / "ray.duckdb", how) == ALL
    assert tables(phantom / "local.duckdb")["failed_studies"]
    assert tables(tmp_path / "ray.duckdb") == tables(phantom / "local.duckdb")
    assert len(pids(home, "actor")) == 2
    assert len(reads(home)) == N_STUDIES


def test_encoders_that_are_stale_together_read_each_study_once(nodes, phantom, home, tmp_path):
    from tests.cluster.ray_drivers import OTHER, Broken, broken, images_of

    only_records(home, phantom)
    assert nodes.run("embed", phantom, home, tmp_path / "ray.duckdb", "together") == ALL
    assert nodes.run("embed", phantom, home, tmp_path / "other.duckdb", "other") == ALL
    assert len(reads(home)) == N_STUDIES
    images = dict(images_of(phantom))
    store = Broken(SliceStore(home / "slices", images, keep=False), broken(phantom))
    extract(
        OTHER, store=store, studies=list(images), work=tmp_path / "alone", out=tmp_path / "alone.duckdb",
        section=ExtractionSection(), version="v", shard_studies=4,
    )  # fmt: skip
    assert tables(tmp_path / "ray.duckdb") == tables(phantom / "local.duckdb")
    assert tables(tmp_path / "other.duckdb") == tables(tmp_path / "alone.duckdb")


@pytest.mark.parametrize("who", ["actor", "slicer"])
def test_a_killed_process_loses_and_doubles_nothing(nodes, phantom, home, tmp_path, who):
    with nodes.driver("embed", phantom, home, tmp_path / "ray.duckdb") as process:
        wait_for_shards(home, process, 4)
        os.kill(pids(home, who)[-1], signal.SIGKILL)
        assert ray_namespace.finished(process) == ALL
    assert tables(tmp_path / "ray.duckdb") == tables(phantom / "local.duckdb")


def test_a_killed_driver_goes_on_where_it_was(nodes, phantom, home, tmp_path):
    with nodes.driver("embed", phantom, home, tmp_path / "ray.duckdb") as process:
        wait_for_shards(home, process, 4)
        process.kill()
        process.communicate()
    kept = wait_until_quiet(home)
    before = reads(home)
    assert 4 <= len(kept) < N_STUDIES / 4
    assert not (tmp_path / "ray.duckdb").exists()
    nodes.run("embed", phantom, home, tmp_path / "ray.duckdb")
    assert len(reads(home)) - len(before) == N_STUDIES - 4 * len(kept)
    assert tables(tmp_path / "ray.duckdb") == tables(phantom / "local.duckdb")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("deadly", "ClusterError: shard-00000"),
        ("no weights", "WeightsError: model.safetensors: has another SHA-256."),
        ("unmounted", "ImagesGoneError: "),
    ],
)
def test_what_is_not_a_study_s_fault_stops_the_run_by_name(nodes, phantom, home, tmp_path, how, message):
    if how == "unmounted":
        only_records(home, phantom)
    assert nodes.run("embed", phantom, home, tmp_path / "ray.duckdb", how).startswith(message)
    assert not (tmp_path / "ray.duckdb").exists()
    assert not list(home.glob("extraction/*/v/*.npz"))


def wait_until_quiet(home: Path) -> set[str]:
    """Wait until the killed driver's actors have ended, and return the shards there."""
    for pid in (*pids(home, "actor"), *pids(home, "slicer")):
        while Path(f"/proc/{pid}").exists() and "ray::IDLE" not in Path(f"/proc/{pid}/cmdline").read_text():
            time.sleep(0.05)
    return {path.name for path in home.glob("extraction/*/v/*.npz")}


def test_the_cluster_is_reachable_from_this_machine_alone(nodes):
    interfaces = Path(f"/proc/{nodes.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    ours = Path("/proc/self/ns/net").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, space = (folder / "cmdline").read_text(), (folder / "ns" / "net").readlink()
        except OSError:  # ended, or of another user
            continue
        if any(part in command for part in ("raylet", "gcs_server", "ray::")):
            assert space != ours, command


def attempts(nodes, name, folder):
    """Measure up to three times: what else a machine does makes a figure worse, never better."""
    for at in range(3):
        home = folder / f"attempt-{at}"
        home.mkdir()
        figures = [float(one) for one in nodes.run(name, home / "home").split()]
        print(name, *figures)
        yield figures


def test_two_encoders_are_twice_as_fast_as_one(nodes, tmp_path):
    assert any(speed >= 1.8 for (speed,) in attempts(nodes, "paced", tmp_path))


def test_workers_need_no_more_processor_time_than_one_machine(nodes, tmp_path):
    assert any(ray <= 1.05 * local for local, ray in attempts(nodes, "cost", tmp_path))


def test_memory_of_the_driver_is_flat(nodes, tmp_path):
    peak, ms_a_study = map(float, nodes.run("many", tmp_path / "many", "200000").split())
    print(f"driver: {peak:.0f} MB for 200,000 studies, {ms_a_study:.3f} ms a study")
    assert peak < 300
    assert ms_a_study < 0.3
