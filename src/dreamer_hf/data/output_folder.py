"""Where shards are written: a folder, or an address that fsspec knows (`s3://bucket/data`, `hf://datasets/me/data`).

A file for an address is written to a temporary folder of this machine and uploaded when it is complete, so that, as in
a folder, nothing incomplete ever stands under a final name. Folders and addresses travel to workers by pickling.
"""

import logging
import random
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

import h5py

from .files import (
    first_line,
    is_leftover,
    lock_folder,
    parse_json,
    publish,
    read_json,
    remove_leftovers,
    temporary_path,
)
from .shards import open_shard, open_shard_file

logger = logging.getLogger(__name__)
WHOLE_UPLOADS = {"abfs", "adl", "az", "gcs", "gs", "hf", "memory", "oss", "s3", "s3a"}
"""Protocols of stores in which a file appears only when its upload is complete. Elsewhere it is renamed then."""
STORE_PARTS = {"gcs": 1, "gs": 1, "hf": 3, "oss": 1, "s3": 1, "s3a": 1}
"""How many parts of a path name the store itself, by protocol: a bucket, or the kind and name of a repository. fsspec
may create one whose name is misspelled, so it has to exist already."""
FILES_OF_THE_HUB = {".gitattributes", "README.md"}
"""What the Hub puts into a new repository."""
UPLOAD_TRIES = 4
"""With growing pauses of random length: the Hub refuses a commit while another process makes one."""
HEADER_BYTES = 1 << 18
"""Bytes that are read at a time to look into a shard that was uploaded."""


class OutputFolder(Protocol):
    """What a conversion needs of the place that it writes to. `str(folder)` is its name for people."""

    is_remote: bool
    modules: tuple[str, ...]
    """What every process that writes here imports for it."""

    def make(self) -> None:
        """Make the folder if it does not exist.

        Raises:
            OSError, ValueError: it cannot be one; one sentence says why.
        """

    def lock(self) -> AbstractContextManager:
        """Keep other runs from writing here; see `lock_folder`."""

    def names(self) -> set[str]:
        """Return the names of the complete files."""

    def place(self, name: str) -> Path:
        """Return the path for which to prepare a file (see `preparing`) before `publish`."""

    def publish(self, name: str, temporary: Path | None = None) -> None:
        """Let a prepared file appear under its name; `temporary` as for `files.publish`."""

    def writing(self, *names: str) -> AbstractContextManager[Path]:
        """Yield a folder of this machine; the files of these names that the block writes to it are then here."""

    def open_shard(self, name: str) -> h5py.File:
        """Open a complete shard for reading."""

    def read_json(self, name: str) -> dict:
        """Read a JSON file; see `files.read_json`."""

    def remove(self, name: str) -> None:
        """Delete a file, if it exists."""

    def leftovers(self) -> list[str]:
        """Return the names of what processes are writing now, or left when they were killed."""

    def remove_leftovers(self) -> None:
        """Delete what killed processes left."""


def output_folder(place: str | Path) -> OutputFolder:
    """Return the folder or the address that `place` names; `file://` is a folder.

    Raises:
        ValueError: fsspec does not know such addresses, or the package for them is not installed.
    """
    protocol, separator, rest = str(place).partition("://")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]+", protocol):
        return LocalFolder(Path(place))
    if protocol in ("file", "local"):
        return LocalFolder(Path(rest))
    folder = RemoteFolder(str(place).rstrip("/"))
    folder.check_protocol()
    return folder


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine, or of a file system that it shares with others; an `OutputFolder`."""

    path: Path
    is_remote = False
    modules = ()

    def __str__(self) -> str:
        return str(self.path)

    def make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"{self.path} cannot be a folder ({error.strerror}): choose another --output_dir."
            ) from error

    def lock(self) -> AbstractContextManager:
        return lock_folder(self.path)

    def names(self) -> set[str]:
        return {path.name for path in self.path.iterdir() if not is_leftover(path)}

    def place(self, name: str) -> Path:
        return self.path / name

    def publish(self, name: str, temporary: Path | None = None) -> None:
        publish(self.path / name, temporary)

    def writing(self, *names: str) -> AbstractContextManager[Path]:
        return nullcontext(self.path)

    def open_shard(self, name: str) -> h5py.File:
        return open_shard(self.path / name)

    def read_json(self, name: str) -> dict:
        return read_json(self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def leftovers(self) -> list[str]:
        return [path.name for path in self.path.iterdir() if is_leftover(path)]

    def remove_leftovers(self) -> None:
        remove_leftovers(self.path)


class MissingStore(FileNotFoundError):
    """There is no such bucket or repository."""


@dataclass(frozen=True)
class RemoteFolder:
    """An address of fsspec; an `OutputFolder`."""

    address: str
    is_remote = True

    def __str__(self) -> str:
        return re.sub(r"(?<=://)[^/@]*@", "", self.address)  # without a name and a password

    @property
    def protocol(self) -> str:
        """The part of the address before `://`."""
        return self.address.partition("://")[0]

    @property
    def modules(self) -> tuple[str, ...]:
        from fsspec.registry import known_implementations

        known = known_implementations.get(self.protocol)
        return () if known is None else (known["class"].partition(".")[0],)

    def check_protocol(self) -> None:
        """Raise ValueError unless fsspec can open such addresses here."""
        try:
            self._open()
        except ImportError as error:
            raise ValueError(f"{self} needs another package ({first_line(error)}).") from error
        except ValueError as error:
            raise ValueError(
                f"{self} cannot be opened by fsspec ({first_line(error)}): give a folder, or an address "
                "such as s3://bucket/data or hf://datasets/me/data."
            ) from error

    def make(self) -> None:
        system, root = self._open()
        parts = STORE_PARTS.get(self.protocol)
        with self._one_sentence("reached"):
            if parts is None:
                system.makedirs(root, exist_ok=True)
                return
            store = "/".join(root.split("/")[:parts])
            try:
                system.info(store)
            except FileNotFoundError as error:
                raise MissingStore(
                    f"{self.protocol}://{store} does not exist, or you may not see it: create it first, or check the "
                    "address and your access to it."
                ) from error

    def lock(self) -> AbstractContextManager:
        logger.warning(f"{self} has no locks: make sure that no other run writes there.")
        return nullcontext()

    def names(self) -> set[str]:
        ignored = FILES_OF_THE_HUB if self.protocol == "hf" else ()
        return {name for name in self._listed() if name not in ignored and not is_leftover(Path(name))}

    def place(self, name: str) -> Path:
        return _staging(self.address) / name

    def publish(self, name: str, temporary: Path | None = None) -> None:
        temporary = temporary or temporary_path(self.place(name))
        try:
            self._upload(temporary, name)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def writing(self, *names: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="dreamer_upload_") as folder:
            yield Path(folder)
            for name in names:
                self._upload(Path(folder, name), name)

    def open_shard(self, name: str) -> h5py.File:
        system, root = self._open()
        with self._one_sentence("read"):
            file = system.open(f"{root}/{name}", "rb", block_size=HEADER_BYTES)
        return open_shard_file(file, Path(name))

    def read_json(self, name: str) -> dict:
        system, root = self._open()
        with self._one_sentence("read"):
            content = system.cat_file(f"{root}/{name}")
            system.invalidate_cache()  # as after a listing, which this may have made
        return parse_json(content, f"{self}/{name}")

    def remove(self, name: str) -> None:
        if name in self._listed():
            system, root = self._open()
            with self._one_sentence("written"):
                system.rm_file(f"{root}/{name}")

    def leftovers(self) -> list[str]:
        return [name for name in self._listed() if is_leftover(Path(name))]

    def remove_leftovers(self) -> None:
        for name in self.leftovers():
            self.remove(name)

    def _open(self):
        """Return the file system, which fsspec keeps for each address, and the path in it."""
        from fsspec.core import url_to_fs

        with self._one_sentence("reached", but=(ImportError, ValueError)):
            return url_to_fs(self.address)

    def _listed(self) -> list[str]:
        system, root = self._open()
        with self._one_sentence("reached"):
            system.invalidate_cache()
            try:
                paths = [path.rstrip("/") for path in system.ls(root, detail=False)]
            except FileNotFoundError:
                return []
            system.invalidate_cache()  # Soon, other processes will have written more.
        # An object store may list the folder itself: an empty object, made in a browser.
        return [path.rpartition("/")[2] for path in paths if path != root]

    def _upload(self, path: Path, name: str) -> None:
        system, root = self._open()
        is_whole = self.protocol in WHOLE_UPLOADS
        uploaded = name if is_whole else temporary_path(name).name
        with self._one_sentence("written"):
            for tried in range(1, UPLOAD_TRIES + 1):
                try:
                    system.put_file(str(path), f"{root}/{uploaded}")
                    if not is_whole:
                        system.mv(f"{root}/{uploaded}", f"{root}/{name}")
                    return
                except Exception:  # whatever it is called
                    if tried == UPLOAD_TRIES:
                        raise
                    time.sleep(random.uniform(0.5, 1.0) * 2 ** (tried - 1))

    @contextmanager
    def _one_sentence(self, done: str, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
        """Raise whatever fails in the block as OSError, except `but`: file systems differ in what they raise."""
        try:
            yield
        except (MissingStore, *but):
            raise
        except Exception as error:
            raise OSError(
                f"{self} cannot be {done} ({first_line(error)}): check the address and your access to it, "
                "then run the same command with --resume."
            ) from error


@cache
def _staging(address: str) -> Path:
    """Return a folder of this process for files on their way to an address, which is deleted when the process
    ends."""
    folder = Path(tempfile.mkdtemp(prefix="dreamer_upload_"))
    weakref.finalize(_staging, shutil.rmtree, folder, ignore_errors=True)  # at exit, too
    return folder


__all__ = ["LocalFolder", "OutputFolder", "RemoteFolder", "output_folder"]
