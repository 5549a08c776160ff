"""The ONNX Runtime of browsers, which ships with the package: onnxruntime-web, compressed.

A page needs one of two builds: "wasm" computes on the processor, "webgpu" also on the graphics card. A build is a
JavaScript module and a WebAssembly binary. `release/update_browser_runtime.py` writes the folder.
"""

import hashlib
import json
import lzma
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "onnxruntime"
INDEX_NAME = "builds.json"
LICENSE_NAMES = ("LICENSE.txt", "ThirdPartyNotices.txt")


@dataclass(frozen=True)
class RuntimeFile:
    """One file of the runtime.

    Attributes:
        name: its name in the package of onnxruntime-web.
        sha256: digest of its content.
    """

    name: str
    sha256: str

    def content(self) -> bytes:
        """Return the content.

        Raises:
            ValueError: the file of the installed package is damaged.
        """
        path = FOLDER / f"{self.name}.xz"
        try:
            content = lzma.decompress(path.read_bytes())
        except (OSError, lzma.LZMAError) as error:
            raise ValueError(f"{path} cannot be read ({error}): install dreamer_hf again.") from error
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ValueError(f"{path} is damaged (its digest differs): install dreamer_hf again.")
        return content


@dataclass(frozen=True)
class RuntimeBuild:
    """A module and the binary that it loads."""

    module: RuntimeFile
    binary: RuntimeFile


def runtime_version() -> str:
    """Return the version of onnxruntime-web."""
    return _index()["version"]


def runtime_builds() -> dict[str, RuntimeBuild]:
    """Return the builds by their names, "wasm" and "webgpu"."""
    return {
        kind: RuntimeBuild(**{part: RuntimeFile(**entry) for part, entry in parts.items()})
        for kind, parts in _index()["builds"].items()
    }


def runtime_licenses() -> dict[str, bytes]:
    """Return the license and the notices of third parties, which go with every copy."""
    return {name: lzma.decompress((FOLDER / f"{name}.xz").read_bytes()) for name in LICENSE_NAMES}


def _index() -> dict:
    return json.loads((FOLDER / INDEX_NAME).read_text())
