"""A small real dataset and runs on it, as fixtures. The parallel test processes share them: change copies only."""

from pathlib import Path

import pytest
import torch

from tiny import TINY_DYNAMICS, TINY_TOKENIZER, build_once, train, write_moving_square

torch.set_num_threads(1)  # as the scripts that tests start, so that losses are equal bit for bit


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> Path:
    return build_once(tmp_path_factory, "moving_square", write_moving_square)


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

    def build(folder: Path) -> None:
        train("tokenizer", "--config", configs["tokenizer"], "--data_dir", data_dir, "--output_dir", folder)

    return build_once(tmp_path_factory, "tokenizer_run", build)


@pytest.fixture(scope="session")
def dynamics_run(tmp_path_factory, data_dir, configs, tokenizer_run) -> Path:
    """The folder of an uninterrupted dynamics run."""

    def build(folder: Path) -> None:
        inputs = ["--data_dir", data_dir, "--tokenizer", tokenizer_run]
        train("dynamics", "--config", configs["dynamics"], *inputs, "--output_dir", folder)

    return build_once(tmp_path_factory, "dynamics_run", build)
