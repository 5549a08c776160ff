"""The notebook of the guide runs without changes, at a tiny size."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tiny import TINY_REPO_ID

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "first-world.ipynb"
TINY = (
    "--hidden_size 16 --num_attention_heads 2 --max_train_steps 2 --per_device_batch_size 2 --sequence_length 12 "
    "--train_fraction 0.6 --eval_windows 2 --lpips_net none"
)


@pytest.mark.slow
def test_every_cell_runs(tiny_lerobot, tmp_path, monkeypatch):
    settings = {"DATASET": TINY_REPO_ID, "LOCAL_DIR": tiny_lerobot, "WIDTH": 24, "HEIGHT": 24, "EXTRA": TINY}
    for name, value in settings.items():
        monkeypatch.setenv(f"DREAMER_{name}", str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert {"sheet.png", "steered.gif"} <= set(os.listdir(tmp_path))
    assert (tmp_path / "world" / "model.safetensors").exists()
