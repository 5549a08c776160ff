"""A Python that has every installed package but ours."""

import os
import subprocess
import sys
from pathlib import Path

import transformers


def run_without_the_package(code: str, home: Path, *arguments, **variables) -> str:
    """Runs code in such a Python, in the folder `home`, and returns what it prints.

    `-S` leaves out the `.pth` files by which editable packages are found.
    """
    packages = str(Path(transformers.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": packages, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **variables}
    code = "import importlib.util\nassert importlib.util.find_spec('dreamer_hf') is None\n" + code
    command = [sys.executable, "-S", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
