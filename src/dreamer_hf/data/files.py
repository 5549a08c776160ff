"""Writing files so that a kill, a crash or a full disk never leaves an incomplete file under its final name.

Folders that a run writes to can be locked, so that two runs never share one by accident.
"""

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)
CHECKSUM_KEY = "checksum"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCKED = (errno.EWOULDBLOCK, errno.EACCES)
MAX_JSON_BYTES = 64 << 20
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Hold the lock of an existing folder, so that no other run writes to it in the meantime.

    The lock is on the folder itself (`flock`) and leaves no file behind. It ends with the process, however that ends,
    so there is no stale lock to remove. Only the process that coordinates a run takes it, not its workers.

    Args:
        folder: the output folder of a run.

    Raises:
        BlockingIOError: another running process holds the lock.
        FileNotFoundError: there is no such folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    _held_locks.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in LOCKED:
                raise BlockingIOError(
                    f"another running process is writing to {folder}: "
                    "wait until it ends, or choose another --output_dir."
                ) from error
            logger.warning(
                f"the file system of {folder} has no locks ({error.strerror}): make sure that no other run uses it."
            )
        yield
    finally:
        if descriptor in _held_locks:  # not in a forked process
            _held_locks.remove(descriptor)
            os.close(descriptor)


_held_locks: set[int] = set()
"""Descriptors of the folders that this process has locked."""


def _close_inherited_locks() -> None:
    """Let go of the locks of the process that forked this one: they would outlive it if it is killed."""
    while _held_locks:
        os.close(_held_locks.pop())


os.register_at_fork(after_in_child=_close_inherited_locks)


def temporary_path(path: str | Path) -> Path:
    """Return where this process writes what will become `path`: `.NAME.HOST-PID.tmp` in the same folder.

    The name belongs to one process. Two processes that write the same file, as when a cluster starts a job twice,
    therefore never mix: the last one to finish wins. See `remove_leftovers` for the files of killed processes.
    """
    path = Path(path)
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}.tmp")


def _host() -> str:
    return socket.gethostname().replace(".", "_")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path; what was written there becomes `path` only if the block succeeds.

    Raises:
        OSError: the disk is full (one sentence), or any other failure to write.
    """
    with preparing(path) as temporary:
        yield temporary
    publish(path)


@contextmanager
def preparing(path: str | Path) -> Iterator[Path]:
    """Yield `temporary_path(path)`; the file stays there for `publish`, or is deleted if the block fails."""
    temporary = temporary_path(path)
    with _deleted_on_failure(temporary, path):
        yield temporary


def publish(path: str | Path, temporary: Path | None = None) -> None:
    """Flush a complete file to the disk and rename it to `path`.

    Args:
        path: its final name.
        temporary: its present name, if another process prepared it; default: `temporary_path(path)`.
    """
    temporary = temporary or temporary_path(path)
    with _deleted_on_failure(temporary, path):
        flush_to_disk(temporary)
        os.replace(temporary, path)
        flush_to_disk(Path(path).parent)


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


@contextmanager
def new_output_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` if the block succeeds, and is deleted otherwise.

    Raises:
        FileExistsError: `path` exists and is not an empty folder.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} is not empty: choose a new --output_dir, or delete it first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def flush_to_disk(path: str | Path) -> None:
    """Return when the content of a file, or the entries of a folder, will survive a power failure (`fsync`)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_leftover(path: Path) -> bool:
    """Return whether this is a temporary file of `replacing`, being written now or left by a killed process."""
    return _owner(path) is not None


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of killed processes; those of other running processes on this machine stay."""
    for path in filter(is_leftover, folder.iterdir()):
        host, process = _owner(path)
        if process == os.getpid() or host != _host() or not _is_running(process):
            path.unlink(missing_ok=True)


def _owner(path: Path) -> tuple[str, int] | None:
    """Return the host and process that a temporary file belongs to, None for any other file."""
    found = re.fullmatch(r"\..+\.([^.]*)-(\d+)\.tmp", path.name)
    return None if found is None else (found[1], int(found[2]))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # It runs under another user.
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def write_json(path: str | Path, content: dict) -> None:
    """Write `content` with its own CRC-32 under "checksum", so that a damaged file is noticed when it is read."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**content, CHECKSUM_KEY: json_checksum(content)}, indent=2) + "\n")


def read_json(path: str | Path) -> dict:
    """Read a JSON object; if it carries a checksum, check it and leave it out of the result.

    Raises:
        FileNotFoundError, ValueError: the file is missing, not a JSON object, absurdly large, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: is {path.parent} the folder of a finished conversion?")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB: restore it, or convert again.")
    return parse_json(path.read_bytes(), path)


def parse_json(text: bytes, name: str | Path) -> dict:
    """Do what `read_json` does with the content of a file of this name."""
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not valid JSON ({first_line(error)}): restore it, or convert again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} does not hold a JSON object: restore it, or convert again.")
    stored = content.pop(CHECKSUM_KEY, None)
    if stored is not None and stored != json_checksum(content):
        raise ValueError(
            f"{name} does not match its checksum: restore it, or delete its '{CHECKSUM_KEY}' line if you edited it."
        )
    return content


def json_checksum(content: dict) -> str:
    """Return the CRC-32 of a JSON object as 8 hexadecimal digits; the order of its keys does not matter."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def check_not_lfs_pointer(path: Path) -> None:
    """Raise ValueError if a file is only what Git LFS puts in the place of a large file that it did not download."""
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(
                f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in its repository."
            )


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 500 characters, or the name of its type if it has none."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 500 else f"{line[:500]}..."
