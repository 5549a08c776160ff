"""The AV1 encoder does not keep a process of root at a real-time priority."""

import os
import subprocess
import sys

import pytest

from dreamer_hf.real_time import THREADS

PRINT_POLICIES = """
import os, sys, threading
from dreamer_hf.real_time import leave_real_time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
thread = threading.Thread(target=threading.Event().wait, daemon=True)  # inherits the policy
thread.start()
policies = lambda: [os.sched_getscheduler(int(task)) for task in os.listdir("/proc/self/task")]
print(policies().count(os.SCHED_FIFO), leave_real_time(), policies().count(os.SCHED_FIFO))
"""


@pytest.mark.skipif(not THREADS.is_dir() or os.geteuid() != 0, reason="only root on Linux gets a real-time priority")
def test_every_thread_gets_the_ordinary_policy_again():
    done = subprocess.run([sys.executable, "-c", PRINT_POLICIES], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "2", "0"]
