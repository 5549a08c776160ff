"""Where an exported world is: a folder, or a repository on the Hub, of which the manifest is fetched first."""

from __future__ import annotations

import os
from pathlib import Path

from .manifest import MANIFEST_NAME, Manifest
from .onnx_starts import START_FRAMES_NAME


def find_export(folder_or_repo: str | os.PathLike) -> tuple[Path, Manifest]:
    """Return the folder of an exported world and its manifest; the files of a Hub repository are downloaded.

    Raises:
        ValueError: it does not hold an exported world, or cannot be downloaded.
    """
    folder = Path(folder_or_repo)
    if folder.is_dir():
        path = folder / MANIFEST_NAME
        if not path.is_file():
            raise ValueError(
                f"{folder} does not contain an exported world: it has no {MANIFEST_NAME}; `dreamer export onnx` "
                "writes one."
            )
        return folder, Manifest.read(path)
    repo = str(folder_or_repo)
    path = _download(repo, MANIFEST_NAME)
    manifest = Manifest.read(path)
    for entry in manifest.graphs.values():
        for name in (entry.file, *entry.data_files):
            _download(repo, name)
    if manifest.starts is not None:
        _download(repo, manifest.starts["file"])
        _download(repo, START_FRAMES_NAME)
    return path.parent, manifest


def _download(repo: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repo, name))
    except (HFValidationError, HfHubHTTPError, EntryNotFoundError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ValueError(
            f"cannot load an exported world from {repo!r}: there is no such folder, and the Hub gives no {name} of "
            f"such a repository ({reason})."
        ) from error


__all__ = ["find_export"]
