"""Worker processes of the converter that are killed."""

import multiprocessing
import threading
import time

import pytest

from dreamer_hf.data.conversion_options import ConversionOptions, JobOptions
from dreamer_hf.data.convert import convert
from dreamer_hf.data.sources.lerobot_source import LeRobotSource
from tiny import TINY_REPO_ID


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.5])
def test_a_killed_worker_gives_one_sentence(tiny_lerobot, tmp_path, delay):
    """While it is started, and while it imports or converts."""

    def kill():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.0001)
        time.sleep(delay)
        for child in children:
            child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID)
    with pytest.raises(OSError, match=r"^a worker process died, .*run again with --resume and fewer --num_workers\.$"):
        convert(source, tmp_path / "out", ConversionOptions(episodes_per_shard=1), JobOptions(num_workers=2))
    killer.join()
    assert not (tmp_path / "out" / "metadata.json").exists()
