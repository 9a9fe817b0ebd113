"""The warehouse: published whole or not at all, and true to what it holds."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest

from fmaudit_core.storage.atomic_write import PublishError, written_beside
from fmaudit_core.storage.processes import process_space
from fmaudit_core.storage.warehouse import Cell, Warehouse, WarehouseError
from fmaudit_core.tables.cohort import COHORT_NOTES

CELL = Cell(encoder="a", task="pe")


def rows(value: int) -> pl.DataFrame:
    return COHORT_NOTES.frame([{"note": "x", "n": value, "unit": "studies", "detail": ""}])


def test_a_cell_reads_back_with_the_version_of_what_it_was_made_of(tmp_path):
    warehouse = Warehouse(tmp_path)
    published = warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL)
    assert warehouse.read("cohort_notes", CELL).equals(rows(1))
    assert warehouse.version("cohort_notes", CELL) == published.version == "v1"
    assert warehouse.cells("cohort_notes") == [CELL]


def test_a_missing_cell_says_what_to_do(tmp_path):
    with pytest.raises(WarehouseError, match=r"cohort_notes \(a x pe\) has not been made yet.*fmaudit run"):
        Warehouse(tmp_path).read("cohort_notes", CELL)


def test_a_torn_file_has_no_version_and_is_named_when_read(tmp_path):
    warehouse = Warehouse(tmp_path)
    path = warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL).path
    path.write_bytes(path.read_bytes()[:40])
    assert warehouse.version("cohort_notes", CELL) is None
    with pytest.raises(WarehouseError, match=r"part\.parquet"):
        warehouse.read("cohort_notes", CELL)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "table.parquet"
    target.write_text("old")

    def fail() -> None:
        with written_beside(target) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_killed_while_publishing_the_old_rows_stay(tmp_path):
    Warehouse(tmp_path).publish("cohort_notes", rows(1), version="v1", cell=CELL)
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from fmaudit_core.storage.atomic_write import written_beside
        from fmaudit_core.storage.warehouse import Cell, Warehouse
        target = Warehouse(Path(sys.argv[1])).path("cohort_notes", Cell("a", "pe"))
        with written_beside(target) as beside:
            beside.write_bytes(b"half a table")
            print("writing", flush=True)
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    warehouse = Warehouse(tmp_path)
    assert warehouse.read("cohort_notes", CELL).equals(rows(1))
    assert warehouse.version("cohort_notes", CELL) == "v1"
    folder = warehouse.path("cohort_notes", CELL).parent
    assert len(list(folder.iterdir())) == 2  # the half table lies beside until the next one is written
    warehouse.publish("cohort_notes", rows(2), version="v2", cell=CELL)
    assert len(list(folder.iterdir())) == 1


def test_a_file_that_another_process_is_writing_is_left_alone(tmp_path):
    target = tmp_path / "table.parquet"
    with written_beside(target) as mine:
        mine.write_text("mine")
        with written_beside(target) as other:
            other.write_text("other")
            assert mine.exists()
    assert target.read_text() == "mine"


def test_a_full_disk_is_told_as_one(tmp_path):
    target = tmp_path / "table.parquet"
    told = pytest.raises(PublishError, match=r"table\.parquet: cannot be written: no space left on device\. Free")
    with told, written_beside(target):
        raise OSError(errno.ENOSPC, "raised by the file system")
    assert list(tmp_path.iterdir()) == []


def test_views_answer_from_any_folder_and_in_a_copied_workspace(tmp_path, monkeypatch):
    warehouse = Warehouse(tmp_path / "here")
    warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL)
    warehouse.publish("cohort_notes", rows(2), version="v1", cell=Cell("b", "pe"))
    monkeypatch.chdir(tmp_path)
    with warehouse.connect() as connection:
        assert connection.sql("SELECT sum(n) FROM cohort_notes").fetchall() == [(3,)]
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    with Warehouse(tmp_path / "there").connect() as connection:
        assert connection.sql("SELECT count(*) FROM cohort_notes").fetchall() == [(2,)]


def test_an_encoders_embeddings_are_attached_by_its_name(tmp_path):
    import duckdb

    warehouse = Warehouse(tmp_path)
    warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL)
    warehouse.embeddings_path("lite-0").parent.mkdir()
    with duckdb.connect(str(warehouse.embeddings_path("lite-0"))) as connection:
        connection.execute("CREATE TABLE study_embeddings AS SELECT 's' AS study_id, [1.0, 2.0]::FLOAT[2] AS embedding")
    with warehouse.connect() as connection:
        assert connection.sql('SELECT count(*) FROM "lite-0".study_embeddings').fetchall() == [(1,)]


def test_an_empty_warehouse_says_so(tmp_path):
    with pytest.raises(WarehouseError, match="holds no table yet"), Warehouse(tmp_path).connect():
        pass


def test_processes_publishing_side_by_side_never_meet_on_a_lock(tmp_path):
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fmaudit_core.storage.warehouse import Cell, Warehouse
        from fmaudit_core.tables.cohort import COHORT_NOTES
        name, warehouse = sys.argv[2], Warehouse(Path(sys.argv[1]))
        for value in range(20):
            rows = COHORT_NOTES.frame([{"note": "x", "n": value}])
            warehouse.publish("cohort_notes", rows, version=str(value), cell=Cell(name, "pe"))
            warehouse.refresh_views()
        """
    )
    both = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in "ab"]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    with Warehouse(tmp_path).connect() as connection:
        assert connection.sql("SELECT count(*), min(n) FROM cohort_notes").fetchall() == [(2, 19)]


def test_published_files_are_readable_by_others(tmp_path):
    path = Warehouse(tmp_path).publish("cohort_notes", rows(1), version="v1").path
    assert path.stat().st_mode & 0o044 == 0o044
    assert time.time() - path.stat().st_mtime < 3600


def test_a_file_that_cannot_be_read_is_not_taken_for_missing(tmp_path):
    """A link to itself cannot be opened, by root either; like a mount that is gone, it is no reason to make a table again."""
    warehouse = Warehouse(tmp_path)
    path = warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL).path
    path.unlink()
    path.symlink_to(path)
    for read in (warehouse.version, warehouse.read):
        with pytest.raises(
            WarehouseError, match=r"part\.parquet: cannot be read: .*symbolic links.*Check its permissions"
        ):
            read("cohort_notes", CELL)


def test_a_folder_that_cannot_be_read_is_not_taken_for_empty(tmp_path, monkeypatch):
    warehouse = Warehouse(tmp_path)
    warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL)

    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(WarehouseError, match="cohort_notes: cannot be read: permission denied"):
        warehouse.cells("cohort_notes")


def test_querying_writes_nothing(tmp_path):
    def files():
        return {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}

    warehouse = Warehouse(tmp_path)
    warehouse.publish("cohort_notes", rows(1), version="v1", cell=CELL)
    before = files()
    with warehouse.connect() as connection:
        assert connection.sql("SELECT n FROM cohort_notes").fetchall() == [(1,)]
        assert files() == before
    assert files() == before


@pytest.mark.parametrize("other", ["host", "boot", "container"])
def test_a_writer_in_another_container_or_machine_is_not_taken_for_dead(tmp_path, monkeypatch, other):
    """Its process id means nothing here: it may be unused, or another process."""
    target, seen = tmp_path / "table.parquet", {"host": "a", "boot": "b", "container": "pid:[1]"}

    def written(by):
        monkeypatch.setattr("socket.gethostname", lambda: by["host"])
        monkeypatch.setattr(Path, "read_text", lambda path: by["boot"])
        monkeypatch.setattr("os.readlink", lambda path: by["container"])
        process_space.cache_clear()
        return written_beside(target)

    monkeypatch.setattr("os.getpid", lambda: 2**22 + 1)  # above the highest process id of Linux
    with written(seen | {other: "another"}) as theirs:
        theirs.write_bytes(b"theirs")
        with written(seen) as ours:
            ours.write_bytes(b"ours")
        assert theirs.exists()
    with suppress(RuntimeError), written(seen) as ours:
        left = ours.with_name(ours.name.replace(ours.name.split(".")[-2], "0badc0de"))
        left.write_bytes(b"of a process that is gone")
        raise RuntimeError
    with written(seen) as ours:
        assert not left.exists()
        ours.write_bytes(b"ours")
    process_space.cache_clear()
