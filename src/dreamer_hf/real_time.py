"""Undoes what the AV1 encoder does to a process of the root user.

When root encodes a video, SVT-AV1 gives its own threads, and the one that opened it, the highest real-time priority
(SCHED_FIFO, 99). Every other process then waits for them, and processes that are started later inherit it. Containers
often run as root, so a recording would slow down every other program.
"""

import os
from contextlib import suppress
from pathlib import Path

THREADS = Path("/proc/self/task")


def leave_real_time() -> int:
    """Give all threads of this process the ordinary scheduling policy again, and return how many had another one.

    Call it after the encoder was opened. It costs some 50 microseconds, and does nothing on systems other than Linux.
    """
    if not THREADS.is_dir():
        return 0
    changed = 0
    for entry in THREADS.iterdir():
        with suppress(OSError):  # a thread that has ended, or one that may not be changed
            thread = int(entry.name)
            if os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
                changed += 1
    return changed


__all__ = ["leave_real_time"]
