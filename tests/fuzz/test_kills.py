"""Killed runs end as if nothing had happened; `python tests/fuzz/kills.py 20 1` kills more of them."""

import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")


@pytest.mark.slow
def test_killed_conversions_and_runs_end_as_if_nothing_had_happened():
    """In a separate process, which forks before PyTorch has computed anything."""
    done = subprocess.run([sys.executable, KILLS, "2", "17"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|")[1:5] for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [int(row[1]) for row in rows] == [2, 2, 2] and all(int(row[2]) for row in rows)
