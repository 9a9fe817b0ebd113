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
from fmaudit_core.common.worker_pool import performed
if __name__ == "__main__":
    for _ in performed(time.sleep, [600.0, 600.0], workers=2, chunk=1):
        pass
"""


def test_workers_of_a_killed_process_end_too(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, script]) as process:
        deadline = time.monotonic() + 60
        while len(workers := psutil.Process(process.pid).children()) < 3 or any(  # with multiprocessing's own tracker
            one.cpu_times().user < 0.05 for one in workers if "spawn_main" in " ".join(one.cmdline())
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
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
