"""A real little dataset and runs on it, as fixtures."""

from pathlib import Path

import pytest

from tiny import TINY_DYNAMICS, TINY_TOKENIZER, run_script, write_moving_square


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    return write_moving_square(tmp_path_factory.mktemp("data") / "square")


@pytest.fixture(scope="session")
def configs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("configs")
    paths = {"tokenizer": folder / "tokenizer.yaml", "dynamics": folder / "dynamics.yaml"}
    paths["tokenizer"].write_text(TINY_TOKENIZER)
    paths["dynamics"].write_text(TINY_DYNAMICS)
    return paths


@pytest.fixture(scope="session")
def tokenizer_run(tmp_path_factory, data_dir, configs) -> Path:
    """The folder of an uninterrupted tokenizer run."""
    folder = tmp_path_factory.mktemp("runs") / "tokenizer"
    run_script("tokenizer", "--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder)
    return folder


@pytest.fixture(scope="session")
def dynamics_run(tmp_path_factory, data_dir, configs, tokenizer_run) -> Path:
    """The folder of an uninterrupted dynamics run."""
    folder = tmp_path_factory.mktemp("runs") / "dynamics"
    inputs = ["--data_dir", data_dir, "--tokenizer", tokenizer_run]
    run_script("dynamics", "--config", configs["dynamics"], *inputs, "--output_dir", folder)
    return folder
