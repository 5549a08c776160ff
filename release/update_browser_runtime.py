"""Writes src/dreamer_hf/web/onnxruntime/ from a version of the npm package onnxruntime-web, with your own npm.

    python release/update_browser_runtime.py 1.30.0

The license and the notices of third parties are those of the installed Python package onnxruntime, which is built from
the same sources.
"""

import hashlib
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "dreamer_hf" / "web" / "onnxruntime"
BUILDS = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
LICENSES = {"LICENSE": "LICENSE.txt", "ThirdPartyNotices.txt": "ThirdPartyNotices.txt"}


def main(version: str) -> None:
    """Download the package and write its files, compressed, with an index of their digests."""
    if shutil.which("npm") is None:
        sys.exit("npm is missing: install Node.js, which brings it.")
    TARGET.mkdir(exist_ok=True)
    index = {"version": version, "builds": {}}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", f"onnxruntime-web@{version}"], cwd=folder, check=True)
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            for kind, names in BUILDS.items():
                contents = [package.extractfile(f"package/dist/{name}").read() for name in names]
                parts = zip(("module", "binary"), names, contents, strict=True)
                index["builds"][kind] = {part: _write(name, content) for part, name, content in parts}
    installed = Path(find_spec("onnxruntime").origin).parent
    for source, name in LICENSES.items():
        _write(name, (installed / source).read_bytes())
    (TARGET / "builds.json").write_text(json.dumps(index, indent=2) + "\n")


def _write(name: str, content: bytes) -> dict[str, str]:
    """Write a file and return its entry in the index."""
    (TARGET / f"{name}.xz").write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    return {"name": name, "sha256": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
