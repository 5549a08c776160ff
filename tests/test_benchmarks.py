"""The benchmarks run from end to end at toy size. The figures that they measure there mean nothing."""

import runpy
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ADAPTER = """
from marker import SHADE

def start(world, frames):
    return lambda actions: frames[:, -1] * SHADE
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a benchmark in this process and return its output."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def call(script, *flags):
        monkeypatch.setattr("sys.argv", [script, *map(str, flags)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
            raise SystemExit(0)
        printed = capsys.readouterr()
        assert stopped.value.code in (0, None), printed.err
        return printed.out

    return call


def table_rows(printed):
    return {line.split(" | ")[0].strip("| "): line for line in printed.splitlines() if line.startswith("| ")}


def test_rollout_with_another_implementation(run, tmp_path):
    checkout, adapter = tmp_path / "checkout", tmp_path / "adapter.py"
    checkout.mkdir()
    (checkout / "marker.py").write_text("SHADE = 0.5\n")
    adapter.write_text(ADAPTER)
    rows = table_rows(run("rollout.py", "--quick", "--no_compile", "--reference", checkout, "--adapter", adapter))
    assert {"plain float32", "reference (checkout)", "ours", "ours, separate commits"} <= rows.keys()
    assert "4 + 1 decoder" in rows["ours"] and "5 + 1 decoder" in rows["plain float32"]


def test_onnx_engine(run):
    rows = table_rows(
        run("onnx_engine.py", "--quick", "--threads", 1, "--dreams", 1, 2, "--dtypes", "float32", "int8")
    )
    assert {"plain PyTorch", "PyTorch, eager", "ONNX Runtime, float32", "ONNX Runtime, int8"} <= rows.keys()
    assert {"float32", "int8", "the first time, with the export", "from then on"} <= rows.keys()


def test_imagination(run):
    rows = table_rows(run("imagination.py", "--quick"))
    assert {"2", "4"} <= rows.keys() and "0.80x" in rows["4"]


def test_training(run):
    printed = run("training.py", "--quick")
    rows = table_rows(printed)
    assert any("latents given" in name for name in rows) and any("from pixels" in name for name in rows)
    assert sum("workers" in name for name in rows) == 2
    timed = [
        row.count("%") + row.count("x,") for name, row in rows.items() if "given" in name or "from pixels" in name
    ]
    assert len(timed) == 2 and all(timed), "every form is timed and compared"
    for name in ("pusht", "soar-large"):  # rows that only a GPU fills
        assert torch.cuda.is_available() or rows[name].count("open (no GPU here)") == 7


def test_serve(run):
    rows = table_rows(run("serve.py", "--clients", "3", "--seconds", "1", "--hostile"))
    assert rows["errors"].endswith("| 0 |") and rows["sessions lost"].endswith("| 0 |")
    least, *_ = rows["frames per client: least, median, most"].split(" | ")[1].split(",")
    assert int(least) > 0


def test_long_rollout(run):
    printed = run("long_rollout.py", "--steps", 200)
    rows = table_rows(printed)
    assert rows["200"].endswith("| yes |") and "NO" not in printed
    assert "Last segment against the first" in printed


@pytest.mark.system
def test_the_page_is_measured_in_a_browser(run):
    rows = table_rows(run("browser.py", "--frames", 2))
    for name in ("download: world, MB", "first visit to first frame, s", "browser / Python, in this run"):
        assert float(rows[name].split(" | ")[1].strip(" |")) > 0


def test_engines(run):
    rows = table_rows(run("engines.py", "--rows", "1", "2", "--steps", "4", "--threads", "1"))
    for name in ("1", "2"):
        _, theirs, ours, ratio = (float(value) for value in rows[name].strip("| ").split(" | "))
        assert theirs > 0 and ours > 0 and abs(ratio - ours / theirs) < 0.1 + 0.1 * ratio
