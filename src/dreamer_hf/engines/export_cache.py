"""Exports for ONNX Runtime that are made once and kept, each under a digest of the files that it was made from.

They are in `dreamer_hf/onnx` in the cache folder of Hugging Face (`HF_HOME`), and can be deleted at any time. Finding one
needs no PyTorch.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..onnx.manifest import FORMAT_VERSION, MANIFEST_NAME
from ..worlds import resolve_model, shipped_worlds

SHIPPED_EXPORT = "onnx"
"""Subfolder of a shipped world that holds its export."""
SOURCES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
"""The files of a world that its export is made from."""


def is_export(model: str) -> bool:
    """Return whether a folder holds an export and no model."""
    folder = Path(resolve_model(model))
    return (folder / MANIFEST_NAME).is_file() and not (folder / "config.json").is_file()


def ready_export(model: str) -> Path | None:
    """Return the folder of an export of a world that is there already: the world itself, shipped with it, or kept.

    Args:
        model: name of a shipped world, folder, or Hub repository.
    """
    folder = Path(resolve_model(model))
    candidates = [folder, folder / SHIPPED_EXPORT] if _is_shipped(model) or is_export(model) else [kept_folder(model)]
    return next((each for each in candidates if each is not None and (each / MANIFEST_NAME).is_file()), None)


def kept_folder(model: str) -> Path | None:
    """Return where the export of a world is kept, once it is made; None if there is no such world."""
    from huggingface_hub.constants import HF_HOME

    source = _local_files(model)
    if source is None:
        return None
    digest = hashlib.sha256(f"{FORMAT_VERSION}".encode())
    for path in sorted({path for pattern in SOURCES for path in source.glob(pattern)}):
        digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return Path(HF_HOME) / "dreamer_hf" / "onnx" / digest.hexdigest()[:32]


def _is_shipped(model: str) -> bool:
    return model in shipped_worlds() and not Path(model).exists()


def _local_files(model: str) -> Path | None:
    """Return the folder of a world's files, which are downloaded if needed."""
    folder = Path(resolve_model(model))
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(SOURCES)))
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError):
        return None


__all__ = ["is_export", "kept_folder", "ready_export"]
