"""Exports that are made once and kept, so that a world dreams on ONNX Runtime without waiting for an export.

Nothing here loads PyTorch unless a world has to be exported.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from .. import __version__
from ..worlds import resolve_model
from .manifest import MANIFEST_NAME, PLAIN_VERSION, DamagedExportError, file_sha256
from .onnx_world import OnnxWorld

logger = logging.getLogger(__name__)
SOURCE_PATTERNS = ("*.json", "*.safetensors")
"""Files of a model's folder that an export depends on."""


def load_or_export(
    model: str | os.PathLike, adapter: str | None = None, threads: int | None = None, provider: str = "cpu"
) -> OnnxWorld:
    """Load a world for ONNX Runtime: an export directly, any other world from an export that is made once.

    Args:
        model: folder or Hub repository of an export; or name, folder or Hub repository of a world.
        adapter: folder or Hub repository of an adapter for the world.
        threads, provider: as in `OnnxWorld.from_pretrained`.

    Raises:
        ValueError: there is no such world, packages are missing, or the export is off by too much.
    """
    if adapter is None and (Path(model) / MANIFEST_NAME).is_file():
        return OnnxWorld.from_pretrained(model, threads, provider)
    folder = cached_export(model, adapter)
    try:
        return OnnxWorld.from_pretrained(folder, threads, provider)
    except DamagedExportError:
        logger.warning(f"{folder} is damaged: exporting {model} again.")
        shutil.rmtree(folder)
        return OnnxWorld.from_pretrained(cached_export(model, adapter), threads, provider)


def cached_export(model: str | os.PathLike, adapter: str | None = None) -> Path:
    """Return the folder of a world's float32 export, which is made first if it is not in the cache.

    The cache is a folder of the Hugging Face cache. A change to the world's files gives another folder. Two processes
    that export the same world at the same time do not disturb each other: the first one to finish gives the folder.

    Args:
        model: name, folder or Hub repository of a world.
        adapter: folder or Hub repository of an adapter for it.

    Raises:
        ValueError: as in `load_or_export`.
    """
    folder = cache_folder() / export_key(model, adapter)
    if not (folder / MANIFEST_NAME).is_file():
        _export(str(model), adapter, folder)
    return folder


def cache_folder() -> Path:
    """Return where exports are kept: `dreamer_hf/onnx` in the cache of Hugging Face (`HF_HOME`)."""
    return Path(constants.HF_HOME) / "dreamer_hf" / "onnx"


def export_key(model: str | os.PathLike, adapter: str | None = None) -> str:
    """Return the name of a world's export in the cache, which changes with the files of the world and of the adapter.

    Raises:
        ValueError: there is no such world or adapter.
    """
    digest = hashlib.sha256(f"{__version__} {PLAIN_VERSION}".encode())
    digest.update(_source(resolve_model(model), "config.json").encode())
    if adapter is not None:
        digest.update(_source(str(adapter), "adapter_config.json").encode())
    return digest.hexdigest()[:32]


def _source(folder_or_repo: str, config_name: str) -> str:
    """Return what identifies the files of a folder, or the revision of a Hub repository."""
    folder = Path(folder_or_repo)
    if folder.is_dir():
        files = sorted(file for pattern in SOURCE_PATTERNS for file in folder.glob(pattern))
        return " ".join(f"{file.name} {file_sha256(file)}" for file in files)
    try:
        config = Path(hf_hub_download(folder_or_repo, config_name))
    except (HFValidationError, HfHubHTTPError, EntryNotFoundError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"cannot load a world from {folder_or_repo!r}: there is no such folder, and the Hub gives no such "
            "repository."
        ) from error
    return f"{folder_or_repo} {config.parent.name}"  # the folder of a snapshot is named by its commit


def _export(model: str, adapter: str | None, folder: Path) -> None:
    from ..loading import load_world
    from .export_world import check_export, export_onnx, load_starts

    check_export("float32")
    logger.info(f"exporting {model} for ONNX Runtime, once; the export is kept in {folder}.")
    world = load_world(model, "cpu", adapter)
    starts = load_starts(adapter or model, world)
    try:
        export_onnx(world, folder, starts=starts, name=Path(model).name)
    except OSError:
        if not (folder / MANIFEST_NAME).is_file():  # otherwise another process was faster
            raise


__all__ = ["cache_folder", "cached_export", "export_key", "load_or_export"]
