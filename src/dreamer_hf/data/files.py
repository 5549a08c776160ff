"""Writing files so that a kill, a crash or a full disk never leaves half of one under its final name."""

import errno
import json
import os
import re
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKSUM_KEY = "checksum"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def temporary_path(path: str | Path) -> Path:
    """Where this process writes what is to appear under `path`: `.NAME.HOST-PID.tmp` beside it.

    The name belongs to one process, so that two that write the same file, as when a cluster starts a job twice, never
    mix: the last one to finish wins. What a killed process left stays there, see `remove_leftovers`.
    """
    path = Path(path)
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there appears under `path` only if the block succeeds.

    Raises:
        OSError: the disk is full (one sentence), or any other failure to write.
    """
    with preparing(path) as temporary:
        yield temporary
    publish(path)


@contextmanager
def preparing(path: str | Path) -> Iterator[Path]:
    """Yields `temporary_path(path)`; what was written there stays for `publish`, or goes if the block fails."""
    temporary = temporary_path(path)
    with _deleted_on_failure(temporary, path):
        yield temporary


def publish(path: str | Path, temporary: Path | None = None) -> None:
    """Brings a complete file to the disk and then under its final name `path`.

    Args:
        path: where it is to appear.
        temporary: where it is, if another process prepared it.
    """
    temporary = temporary or temporary_path(path)
    with _deleted_on_failure(temporary, path):
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_to_disk(Path(path).parent)


@contextmanager
def _deleted_on_failure(temporary: Path, path: str | Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            raise OSError(
                f"no space left while writing {path}: free some, then run the same command with --resume."
            ) from error
        raise


def is_leftover(path: Path) -> bool:
    """Whether this is a temporary file of `replacing`: being written now, or left by a killed process."""
    return re.fullmatch(r"\..+\.[^.]*-\d+\.tmp", path.name) is not None


def remove_leftovers(folder: Path) -> None:
    """Deletes what killed processes left in a folder that is ours and that nobody writes to any more."""
    for path in filter(is_leftover, folder.iterdir()):
        path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: str | Path, content: dict) -> None:
    """Writes `content` with a CRC-32 of itself under "checksum", so that reading tells a damaged file."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**content, CHECKSUM_KEY: _checksum(content)}, indent=2) + "\n")


def read_json(path: str | Path) -> dict:
    """Reads a JSON object; where it carries a checksum, the checksum must fit (it is not part of the result).

    Raises:
        FileNotFoundError, ValueError: the file is missing, no JSON object, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: is {path.parent} the folder of a finished conversion?")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): restore it, or convert again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: restore it, or convert again.")
    stored = content.pop(CHECKSUM_KEY, None)
    if stored is not None and stored != _checksum(content):
        raise ValueError(
            f"{path} does not fit its checksum: restore it, or delete its '{CHECKSUM_KEY}' line if you meant to edit it."
        )
    return content


def _checksum(content: dict) -> str:
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def first_line(error: Exception) -> str:
    """The gist of an error of many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
