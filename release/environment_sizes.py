"""Measure how large the environments of `pip install dreamer_hf` and of each extra are, in fresh virtual environments.

    python release/environment_sizes.py dist/dreamer_hf-0.2.0-py3-none-any.whl

Print a Markdown table for docs/install.md. uv installs the versions that requirements.txt pins, without bytecode.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_FOR_USERS = {"all", "dev", "docs", "release"}


def extras() -> dict[str, str]:
    """Return the requirements of each extra for users, as setup.cfg lists them."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return {name: text for name, text in config["options.extras_require"].items() if name not in NOT_FOR_USERS}


def installed_files(wheel: Path, extra: str | None, index: Path) -> dict[str, int]:
    """Install the wheel with an extra into a new environment at `index`; return its files and their bytes."""
    requirement = f"{wheel.resolve()}[{extra}]" if extra else str(wheel.resolve())
    subprocess.run([uv(), "--quiet", "venv", "--python", sys.executable, index], check=True)
    command = [uv(), "--quiet", "pip", "install", "--python", index / "bin" / "python"]
    subprocess.run([*command, "--constraints", ROOT / "requirements.txt", requirement], check=True, cwd=ROOT)
    files = [path for path in (index / "lib").rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.relative_to(index).as_posix(): path.stat().st_size for path in files}


def uv() -> str:
    return shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")


def megabytes(files: dict[str, int]) -> float:
    return sum(files.values()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the built wheel")
    wheel = parser.parse_args().wheel
    with tempfile.TemporaryDirectory(prefix="dreamer_hf_sizes_") as folder:
        base = installed_files(wheel, None, Path(folder) / "base")
        models = installed_files(wheel, "torch", Path(folder) / "torch")
        gpu = {name: size for name, size in models.items() if "/nvidia/" in name or "/triton/" in name}
        torch = {name: size for name, size in models.items() if "/torch/" in name}
        print("| `pip install` | adds to | MB |\n| --- | --- | ---: |")
        print(f"| `dreamer_hf` | | {megabytes(base):,.0f} |")
        print(f"| `dreamer_hf[torch]` | the base | {megabytes(models) - megabytes(base):,.0f} |")
        print(f"| of that, GPU libraries that PyTorch asks for on Linux | | {megabytes(gpu):,.0f} |")
        print(f"| of that, PyTorch itself | | {megabytes(torch):,.0f} |", flush=True)
        for extra, requirements in extras().items():
            if extra == "torch":
                continue
            below, before = ("`torch`", models) if "dreamer_hf[torch]" in requirements else ("the base", base)
            files = installed_files(wheel, extra, Path(folder) / extra)
            print(f"| `dreamer_hf[{extra}]` | {below} | {megabytes(files) - megabytes(before):,.0f} |", flush=True)
            shutil.rmtree(Path(folder) / extra)


if __name__ == "__main__":
    main()
