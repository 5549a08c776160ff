"""Locks on folders, leftovers of killed processes, and JSON files that cannot be what they say."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dreamer_hf.data.files import lock_folder, read_json, remove_leftovers, temporary_path, write_json

HOLD = """
import sys, time
from dreamer_hf.data.files import lock_folder, temporary_path
with lock_folder(sys.argv[1]):
    temporary_path(sys.argv[1] + "/shard_0000.h5").write_text("half")
    print("locked", flush=True)
    time.sleep(60)
"""


def holding_process(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_locked_folder_is_refused_until_its_process_has_died(tmp_path):
    process = holding_process(tmp_path)
    try:
        with pytest.raises(BlockingIOError, match="another running process is writing to"), lock_folder(tmp_path):
            pass
        remove_leftovers(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1, "the file of a running process must stay"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with lock_folder(tmp_path):
        remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir()), "neither a lock file nor the file of the killed process may stay"


def test_a_lock_ends_with_its_block_and_holds_within_one_process(tmp_path):
    for _ in range(2):
        with lock_folder(tmp_path), pytest.raises(BlockingIOError), lock_folder(tmp_path):
            pass


def test_own_leftovers_of_an_earlier_process_with_the_same_number_go(tmp_path):
    temporary_path(tmp_path / "a.h5").write_text("half")
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "is not valid JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"a": 1', "is not valid JSON"),
        ('{"a": 1, "checksum": "00000000"}', "does not match its checksum"),
    ],
)
def test_json_that_cannot_be_read_is_one_sentence(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(caught.value) and time.monotonic() - start < 5


def test_json_is_read_back_without_its_checksum(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, None]})
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}
