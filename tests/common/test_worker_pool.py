"""Worker processes end with their parent, and a killed one is named."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from fmaudit_core.common.worker_pool import WorkerDiedError, performed

PARENT = """
import sys, time
from pathlib import Path
from fmaudit_core.common.worker_pool import performed

def work(path):
    path.touch()
    time.sleep(600)

if __name__ == "__main__":
    for _ in performed(work, map(Path, sys.argv[1:]), workers=2, chunk=1):
        pass
"""


def test_workers_of_a_killed_process_end_too(tmp_path):
    script, at_work = tmp_path / "parent.py", [tmp_path / "first", tmp_path / "second"]
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script, *at_work]) as process:
        try:
            deadline = time.monotonic() + 60
            while not all(one.exists() for one in at_work):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            workers = psutil.Process(process.pid).children()
            assert len(workers) == 3  # with multiprocessing's own tracker
        finally:
            process.kill()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for one in alive:
        one.kill()
    assert not alive


def kill_self(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_named():
    with pytest.raises(WorkerDiedError, match="insufficient memory"):
        list(performed(kill_self, range(4), workers=2, chunk=1))
