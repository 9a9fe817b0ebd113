"""Leases: one holder at a time, renewed, taken over once nobody renews them; who lost one publishes nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fmaudit_core.storage import processes
from fmaudit_core.storage.atomic_write import PublishError, checked_before_publishing, written_beside
from fmaudit_core.storage.claims import Claim, ClaimFolder
from fmaudit_core.storage.leases import LeaseLostError, Leases, LeaseTimes, Lookout
from fmaudit_core.storage.processes import lives, this_process

TIMES = LeaseTimes()
#: for tests with real processes
SHORT = LeaseTimes(renew_s=0.1, expire_s=3.0, poll_s=0.02)
ELSEWHERE = "anotherhost0:17:99"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def leases_of(folder, *, process="", clock=time.monotonic, times=TIMES):
    """The leases as one machine sees them: another lookout, another process."""
    about = {"process": process or this_process(), "host": process.partition(":")[0] or "here"}
    return Leases(ClaimFolder(folder), lambda: about, lives, Lookout(times, clock))


def watch(leases, name, seconds, step=1.0):
    """Look at a claim again and again while the clock goes on; return the lease, or None."""
    clock = leases.lookout.clock
    for _ in range(int(seconds / step)):
        if (lease := leases.take(name)) is not None:
            return lease
        clock.now += step
    return leases.take(name)


def test_a_claim_changes_only_from_what_was_seen(tmp_path):
    claims = ClaimFolder(tmp_path / "claims")
    assert claims.read("a/b") == Claim(0, None)
    assert claims.replace("a/b", 0, {"process": "x"}) == 1
    assert claims.replace("a/b", 0, {"process": "y"}) is None
    assert claims.read("a/b") == Claim(1, {"process": "x"})
    assert claims.replace("a/b", 1, None) == 2
    assert claims.read("a/b") == Claim(2, None)
    assert [path.name for path in (tmp_path / "claims/a/b").iterdir()] == ["2.json"]
    assert list(claims.names()) == ["a/b"]
    claims.remove("a/b")
    assert claims.read("a/b") == Claim(0, None)
    assert claims.replace("a/b", 2, {"process": "x"}) is None  # a removed claim is not taken by who held it
    assert claims.read("a/b") == Claim(0, None)


def test_a_late_process_does_not_take_a_claim_that_has_moved_on(tmp_path):
    """The number it wants is free again, because the lower ones were removed."""
    claims = ClaimFolder(tmp_path)
    for number in range(4):
        claims.replace("a", number, {"process": "x"})
    assert claims.replace("a", 1, {"process": "late"}) is None
    assert claims.read("a") == Claim(4, {"process": "x"})
    assert claims.replace("a", 4, {"process": "x"}) == 5


@pytest.mark.parametrize("content", [b"", b'{"process": "x', b"\xff"])
def test_a_claim_whose_holder_was_killed_while_it_wrote_is_held_by_nobody_known(tmp_path, content):
    claims = ClaimFolder(tmp_path)
    claims.replace("a", 0, {"process": "x"})
    (tmp_path / "a/2.json").write_bytes(content)
    assert claims.read("a") == Claim(2, {})
    clock = Clock()
    assert watch(leases_of(tmp_path, clock=clock), "a", 100) is not None
    assert clock.now == 1000 + TIMES.expire_s


def test_many_threads_and_machines_take_a_claim_once_each_time(tmp_path):
    taken, inside = [], []

    def work(machine):
        leases = leases_of(tmp_path, process=f"{machine}:1:1", times=LeaseTimes(renew_s=30, expire_s=300, poll_s=0.001))
        for _ in range(5):
            with leases.held("a"):
                inside.append(machine)
                assert inside == [machine]
                time.sleep(0.001)
                inside.remove(machine)
                taken.append(machine)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, (f"machine{at}" for at in range(6))))
    assert len(taken) == 30
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".json"]


def test_a_lease_says_who_has_it_and_until_when(tmp_path):
    leases = leases_of(tmp_path)
    with leases.held("fairness/encoder=a", run="one"):
        (path,) = (tmp_path / "fairness/encoder=a").iterdir()
        said = json.loads(path.read_text())
        assert said["process"] == this_process()
        assert said["run"] == "one"
        assert said["until"].endswith("+00:00")
    assert leases.claims.read("fairness/encoder=a").holder is None


def test_a_lease_that_another_machine_renews_is_never_taken_over(tmp_path):
    clock = Clock()
    theirs = leases_of(tmp_path, process=ELSEWHERE).take("a")
    ours = leases_of(tmp_path, clock=clock)
    for _ in range(20):
        assert watch(ours, "a", TIMES.renew_s) is None
        theirs.renew()
    theirs.check()


def test_a_lease_that_another_machine_does_not_renew_is_taken_over_after_sixty_seconds(tmp_path):
    clock = Clock()
    theirs = leases_of(tmp_path, process=ELSEWHERE).take("a")
    ours = leases_of(tmp_path, clock=clock)
    assert watch(ours, "a", 59) is None
    assert watch(ours, "a", 2) is not None
    with pytest.raises(LeaseLostError, match=r"a was taken over by here, .*Nothing was published.*Run again"):
        theirs.check()
    theirs.release()  # gives back nothing that is not its own
    assert ours.claims.read("a").holder is not None


@pytest.mark.parametrize("until", ["1999-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00"])
def test_clocks_of_other_machines_do_not_matter(tmp_path, until):
    clock, claims = Clock(), ClaimFolder(tmp_path)
    claims.replace("a", 0, {"process": ELSEWHERE, "until": until})
    ours = leases_of(tmp_path, clock=clock)
    assert watch(ours, "a", 59) is None
    assert watch(ours, "a", 2) is not None


def test_an_hour_without_a_look_counts_as_one_renewal(tmp_path):
    """The disk did not answer, or this computer slept: the holder could not renew either, or nobody looked whether it did."""
    clock = Clock()
    theirs = leases_of(tmp_path, process=ELSEWHERE).take("a")
    ours = leases_of(tmp_path, clock=clock)
    assert ours.take("a") is None
    clock.now += 3600
    assert ours.take("a") is None
    theirs.renew()
    assert watch(ours, "a", 59) is None


def test_a_process_of_this_machine_is_judged_by_whether_it_runs(tmp_path):
    clock = Clock()
    dead = subprocess.run(
        [sys.executable, "-c", "from fmaudit_core.storage.processes import this_process; print(this_process())"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    assert lives(dead) is False
    assert leases_of(tmp_path, process=dead).take("dead")
    assert leases_of(tmp_path, clock=clock).take("dead") is not None  # at once
    living = leases_of(tmp_path).take("living")
    assert watch(leases_of(tmp_path, clock=clock), "living", 600) is None  # stopped by a debugger, it still lives
    living.check()


def test_a_process_is_told_from_a_later_one_of_its_id_and_from_one_that_was_not_waited_for(monkeypatch):
    space, number, started = this_process().split(":")
    assert lives(this_process()) is True
    assert lives(f"{space}:{number}:{int(started) + 1}") is False
    assert lives(f"another:{number}:{started}") is None
    assert lives("") is None
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table of processes
        assert processes._started(str(child.pid)) == "ended"
        assert lives(f"{space}:{child.pid}:{started}") is False
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))  # another system
    assert lives(this_process()) is True
    monkeypatch.setattr(processes, "_started", lambda number: None)  # hidden from this user
    assert lives(f"{space}:{number}:{started}") is None


def test_nothing_is_published_once_the_lease_is_lost(tmp_path):
    target = tmp_path / "table.parquet"
    target.write_text("old")
    leases = leases_of(tmp_path / "claims", process=ELSEWHERE)
    with leases.held("a") as lease, checked_before_publishing(lease.check):
        with written_beside(target) as beside:
            beside.write_text("first")
        leases.claims.replace("a", leases.claims.read("a").number, {"process": "another", "host": "b"})
        with pytest.raises(LeaseLostError, match="taken over by b"), written_beside(target) as beside:
            beside.write_text("second")
        with written_beside(tmp_path / "cache", durable=False) as beside:  # may be made again by anybody
            beside.write_text("cache")
    assert target.read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "claims", "table.parquet"]
    with written_beside(target) as beside:  # outside, nothing is checked
        beside.write_text("third")


def test_a_paused_holder_that_nobody_waited_for_goes_on(tmp_path):
    lease = leases_of(tmp_path, process=ELSEWHERE).take("a")
    for _ in range(3):
        lease.check()


def test_a_full_disk_is_told_as_one_and_leaves_the_claim_to_its_holder(tmp_path, monkeypatch):
    lease = leases_of(tmp_path).take("a")

    def full(path, mode):
        raise OSError(errno.ENOSPC, "raised by the file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(PublishError, match=r"2\.json: cannot be written: no space left on device"):
            lease.check()
    lease.check()


def test_a_disk_that_fails_for_a_while_does_not_end_the_renewals(tmp_path, monkeypatch):
    leases = leases_of(tmp_path, times=SHORT)
    replace, failed = ClaimFolder.replace, threading.Event()

    def fails_once(self, name, seen, holder):
        if not failed.is_set():
            failed.set()
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, name, seen, holder)

    with leases.held("a") as lease:
        monkeypatch.setattr(ClaimFolder, "replace", fails_once)
        before = leases.claims.read("a").number
        wait_for(lambda: leases.claims.read("a").number > before + 1)
        assert failed.is_set()
        assert not lease.is_lost


def wait_for(there):
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)


HOLDER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from tests.storage.test_leases import SHORT, leases_of
    with leases_of(Path(sys.argv[1]), process=sys.argv[2], times=SHORT).held("a"):
        print("held", flush=True)
        sys.stdin.read()
    """
)


def test_a_killed_holder_of_another_machine_is_noticed_and_a_living_one_is_waited_for(tmp_path):
    """Its name is of another machine, so only its renewals tell."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path), ELSEWHERE]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as other:
        assert other.stdout.readline() == "held\n"
        ours = leases_of(tmp_path, times=SHORT)
        while ours.claims.read("a").number < 40:  # renewals, which take longer than it takes to expire
            assert ours.take("a") is None
            time.sleep(SHORT.poll_s)
        other.kill()
        with ours.held("a"):
            assert ours.claims.read("a").holder["process"] == this_process()
