"""Shared fixtures: a tiny real LeRobotDataset and the shards made of it, built once per test session."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

HOME = tempfile.mkdtemp(prefix="dreamer_hf_tests_")
# Every Hugging Face library stays off the network and out of the user's cache. They read this when they are imported.
os.environ.update(HF_HOME=HOME, HF_LEROBOT_HOME=f"{HOME}/lerobot", HF_HUB_OFFLINE="1", SVT_LOG="1")

from tiny import TINY_REPO_ID, build_once, write_tiny_lerobot  # noqa: E402


def pytest_unconfigure(config):
    shutil.rmtree(HOME, ignore_errors=True)


LEFT_OUT = pytest.StashKey[list]()


def pytest_deselected(items):
    """Remember which tests of browsers and windows do not run; a worker of xdist reports them to the main process."""
    config = items[0].config
    names = [item.nodeid for item in items if item.get_closest_marker("system")]
    config.stash.setdefault(LEFT_OUT, []).extend(names)
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", [])


def pytest_terminal_summary(terminalreporter, config):
    left_out = config.stash.get(LEFT_OUT, [])
    if left_out:
        terminalreporter.section("not run: tests that need a browser or an X server (`make test-all` runs them, too)")
        for name in left_out:
            terminalreporter.write_line(name)


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(autouse=True)
def restored_logging():
    """Undo what scripts do to the root logger: the handler of a finished test would write into a closed stream."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def without_a_code_generator():
    """Run what PyTorch captures uncompiled: generating code for it takes a minute and is tested elsewhere."""
    import torch
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    with torch.compiler.set_stance("default", force_backend="eager"):
        yield
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def tiny_lerobot(tmp_path_factory) -> Path:
    """Folder of a real LeRobotDataset v3.0 (AV1 video, 32x32, 10 fps, 6 episodes of 24 to 40 frames, 2-D actions)."""
    return build_once(tmp_path_factory, "tiny_lerobot", write_tiny_lerobot)


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory, tiny_lerobot) -> Path:
    """Folder of three shards, two episodes each, converted from `tiny_lerobot`. Copy it before changing it."""
    from dreamer_hf.data.conversion_options import ConversionOptions
    from dreamer_hf.data.convert import convert
    from dreamer_hf.data.sources.lerobot_source import LeRobotSource

    source = LeRobotSource(tiny_lerobot, TINY_REPO_ID)
    options = ConversionOptions(episodes_per_shard=2)
    return build_once(tmp_path_factory, "tiny_shards", lambda folder: convert(source, folder, options))
