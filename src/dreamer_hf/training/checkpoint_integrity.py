"""Checks of a checkpoint before anything in it is loaded: whole, undamaged, and free of code."""

import io
import pickle
import zlib
from pathlib import Path, PurePosixPath

import torch
from torch.distributed.checkpoint import metadata as sharded
from torch.distributed.checkpoint.filesystem import _StorageInfo

BLOCK = 1 << 24
SHARDED_METADATA = ".metadata"
"""Name of the pickle that describes a folder of sharded tensors (FSDP)."""
HARMLESS = {
    **{
        (sharded.__name__, name): kind
        for name, kind in vars(sharded).items()
        if getattr(kind, "__module__", "") == sharded.__name__
    },
    **{("torch", name): kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)},
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _StorageInfo,
    ("pathlib", "PosixPath"): PurePosixPath,
}
"""What may stand in the metadata of sharded tensors, by module and name."""


def file_record(folder: Path) -> dict[str, list[int]]:
    """Return the size and the CRC-32 of every file below a folder, by its path relative to the folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): [path.stat().st_size, _checksum(path)] for path in paths}


def find_damage(folder: Path, record: dict[str, list[int]]) -> str | None:
    """Return what is wrong with the files of a folder, in a few words; None if they are as recorded."""
    for name, (size, _) in record.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    for name, (_, checksum) in record.items():
        if _checksum(folder / name) != checksum:
            return f"{name} does not match its checksum"
    return None


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def refuse_code(folder: Path) -> None:
    """Make sure that loading sharded tensors (FSDP) runs no code.

    PyTorch reads their metadata and everything that is not a tensor with plain pickle. So both are read here first,
    with only the types that belong there. All other files of a checkpoint are read with `weights_only=True`.

    Raises:
        ValueError: the checkpoint holds anything else.
    """
    for path in folder.rglob(SHARDED_METADATA):
        try:
            with path.open("rb") as file:
                content = _MetadataUnpickler(file).load()
            for index, entry in content.storage_data.items():
                if not isinstance(content.state_dict_metadata[index.fqn], sharded.TensorStorageMetadata):
                    with (path.parent / entry.relative_path).open("rb") as file:
                        file.seek(entry.offset)
                        torch.load(io.BytesIO(file.read(entry.length)), map_location="cpu", weights_only=True)
        except Exception as error:
            raise ValueError(
                f"{path.parent} holds something else than tensors and plain values, which might be code: resume from "
                "a checkpoint that you trust."
            ) from error


class _MetadataUnpickler(pickle.Unpickler):
    """Knows what describes sharded tensors, and nothing else."""

    def find_class(self, module: str, name: str):
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a checkpoint")
        return HARMLESS[module, name]
